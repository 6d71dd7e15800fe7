//! What the memory adds to a proof, and what the client is told while it is being made.
//!
//! Goal: one signature that very many got, a receipt that is asked for elsewhere, a record that is
//! still pending. Method: records put into a store as a tap does it, then responses through
//! `Inquiry`, over a real DNS server where a bounce is verified, or through the whole guard.

use std::path::Path;
use std::sync::Arc;

use replyguard::auth::dkim::{Extent, Prepared};
use replyguard::judge::evidence::SignatureId;
use replyguard::judge::subject::{Inbound, InboundId, State, Way};
use replyguard::mail::address::{Address, ReversePath};
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;
use replyguard::store::Store;

use crate::disk::ModelDisk;
use crate::evidence::{arrived, bounce, case, desk_with};
use crate::hop::{Hop, Net, USUAL};
use crate::rig::{Rig, SITE, config};
use crate::vacation::{Desk, desk, envelope, in_reply_to, memory};

const SIGNED: &str = "spf=none joe@bank.example dkim=pass bank.example dmarc=pass bank.example";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A signed message of joe's for this mailbox, with the signature so numbered; with number 3 SPF
/// lets everybody in.
async fn signed(desk: &Desk, results: &str, signature: u8, to: &str) -> Inbound {
    let mut record = desk.inbound(results, "joe@bank.example", "joe@bank.example");
    record.recipients = vec![address(to)];
    if signature == 3 {
        record.findings[0].spf[0].everybody = Some("+all".to_owned());
    }
    record.findings[0].dkim[0].signature = Some(SignatureId::of(&[signature]));
    desk.came(record).await
}

/// One signed message, sent again by somebody to one after the other: the answers are proven until
/// it has come in for more than 20 (RFC 6376 §8.6), whoever of them answers.
#[tokio::test(start_paused = true)]
async fn a_signature_that_came_in_for_more_than_twenty_proves_its_domain_only() {
    let desk = desk();
    let first = signed(&desk, SIGNED, 1, "ann@uni.example").await;
    for n in 1..20 {
        signed(&desk, SIGNED, 1, &format!("u{n}@uni.example")).await;
        signed(&desk, SIGNED, 2, &format!("v{n}@uni.example")).await;
    }
    // Another copy for the same, or for a subaddress of it, is no other recipient.
    for again in ["ann@uni.example", "Ann+x@uni.example"] {
        signed(&desk, SIGNED, 1, again).await;
    }
    desk.later(1).await;
    let named = in_reply_to(&first);
    let proven = "deliver authenticated message-id 1";
    assert_eq!(desk.reply("joe@bank.example", &named).await, proven);
    signed(&desk, SIGNED, 1, "u20@uni.example").await;
    desk.later(1).await;
    let explained = desk.explained("joe@bank.example", &named).await;
    let decision = &explained.decisions[0];
    assert_eq!(decision.reason.as_str(), "domain-only");
    assert!(decision.counts);
    let answered = explained.evidence.recipients[0].answered.as_ref().unwrap();
    assert_eq!(answered.subjects[0].findings[0].dkim[0].recipients, 21);
    // The one whom the signature names got his limited answer.
    assert_eq!(desk.reply("joe@bank.example", &named).await, "deliver domain-only message-id 1");
}

/// A newsletter goes out from its sender's own hosts: SPF passes for the signature's domain.
#[tokio::test(start_paused = true)]
async fn what_its_own_hosts_send_to_many_is_no_replay() {
    let desk = desk();
    let sent = "spf=pass joe@bank.example dkim=pass bank.example";
    let elsewhere = "spf=pass joe@spam.example dkim=pass bank.example";
    for (number, results, expected) in [
        (1, sent, "authenticated"),
        (2, elsewhere, "domain-only"),
        // A pass that lets everybody in: anybody's host could have sent them.
        (3, sent, "domain-only"),
    ] {
        let mut last = None;
        for n in 0..30 {
            last = Some(signed(&desk, results, number, &format!("u{n}@uni.example")).await);
        }
        let last = last.unwrap();
        let again = Inbound {
            id: InboundId::new(desk.inquiry.now(), 999 + u128::from(number)),
            recipients: vec![address("ann@uni.example")],
            ..last
        };
        let again = desk.came(again).await;
        desk.later(1).await;
        let answer = desk.reply("joe@bank.example", &in_reply_to(&again)).await;
        assert!(answer.starts_with(&format!("deliver {expected} message-id")), "{answer}");
        desk.later(3600).await;
    }
}

/// A store gives so many records of a name. Whoever sends the last ones to one mailbox hides none.
#[tokio::test(start_paused = true)]
async fn a_replay_is_not_hidden_behind_copies_for_one_mailbox() {
    let desk = desk();
    for n in 0..30 {
        signed(&desk, SIGNED, 1, &format!("u{n}@uni.example")).await;
    }
    desk.later(60).await;
    let mut last = None;
    for _ in 0..40 {
        last = Some(signed(&desk, SIGNED, 1, "ann@uni.example").await);
    }
    desk.later(1).await;
    let answer = desk.reply("joe@bank.example", &in_reply_to(&last.unwrap())).await;
    assert!(answer.starts_with("deliver domain-only"), "{answer}");
}

/// The same of a bounce, which brings the signature along: verified anew, or told by a line of ours
/// that names its domain alone. A second signature beside it, as anybody can add one, hides nothing.
#[tokio::test]
async fn a_bounce_of_a_replayed_message_is_limited() {
    let message = case("relaxed-relaxed");
    let end = message.find("From: Joe").unwrap();
    let forged = message[..end].replace("b=DQbDZ35", "b=AAAAAAA");
    // The clock of the bounces, with what came in three hours before.
    let at = Timestamp::from_millis(1_600_000_000_000 - 3 * 3_600_000);
    let read = Prepared::read(message.as_bytes(), Extent::Whole, at);
    let (_, id) = read.signatures().next().unwrap();
    for (results, count, expected) in [
        ("", 20, "deliver authenticated dkim"),
        ("", 21, "deliver authenticated dkim-domain-only"),
        ("spf=none; dkim=pass header.d=a.example", 20, "deliver authenticated dkim"),
        ("spf=none; dkim=pass header.d=a.example", 21, "deliver authenticated dkim-domain-only"),
        (
            "dmarc=pass header.from=a.example; dkim=pass header.d=a.example",
            21,
            "deliver authenticated dkim-domain-only",
        ),
    ] {
        let store: Arc<dyn Store> = memory();
        let seen = desk();
        for n in 0..count {
            let mut record = seen.inbound(SIGNED, "joe@bank.example", "joe@a.example");
            record = Inbound { id: InboundId::new(at, n), began: at, arrived: at, ..record };
            record.recipients = vec![address(&format!("u{n}@uni.example"))];
            record.findings[0].dkim[0].signature = Some(id);
            store.remember(&record).await.unwrap();
        }
        let desk = desk_with(|_, _| {}).tapped(store);
        for embedded in [message.clone(), format!("{forged}{message}")] {
            let on_top = arrived("joe@a.example", "192.0.2.66", results);
            let text = bounce("joe@a.example", &format!("{on_top}{embedded}"), "message/rfc822");
            assert_eq!(desk.judged("joe@a.example", &text).await, expected, "{results} {count}");
        }
    }
}

/// RFC 8098 §2.1: a receipt goes where Disposition-Notification-To says. That may be anybody's
/// address, so it is judged like any other.
#[tokio::test(start_paused = true)]
async fn a_receipt_asked_for_elsewhere_is_judged_for_that_address() {
    let desk = desk();
    let receipt = |to: &str, of: &Inbound| {
        let text = format!(
            "Return-Path: <>\nDate: {}\nFrom: Ann <ann@uni.example>\nTo: {to}\nSubject: Read\n\
             Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n\
             --b\n\nRead.\n--b\nContent-Type: message/disposition-notification\n\n\
             Final-Recipient: rfc822; ann@uni.example\nOriginal-Message-ID: <{}>\n\
             Disposition: manual-action/MDN-sent-manually; displayed\n\n--b--\n",
            desk.inquiry.now().header_date(),
            of.message_ids[0]
        );
        Message::new(text.replace('\n', "\r\n"), Completeness::Whole)
    };
    let eve = "spf=pass eve@provider.example dkim=pass provider.example";
    for (notify, expected) in [
        ("eve@provider.example", "authenticated"),
        // Another user of the provider, or Eve's other address: nobody can tell.
        ("victim@provider.example", "domain-only"),
        // Another domain, that says who may speak for it.
        ("joe@bank.example", "failed-dmarc"),
        ("joe@plain.example", "unauthenticated"),
    ] {
        let record = desk.inbound(eve, "eve@provider.example", "eve@provider.example");
        let record = desk.came(Inbound { notify: vec![address(notify)], ..record }).await;
        desk.later(1).await;
        let explained = desk.inquiry.explain(&envelope(notify), &receipt(notify, &record)).await;
        let decision = &explained.decisions[0];
        assert_eq!(decision.reason.as_str(), expected, "{notify}");
        assert_eq!(explained.case.class.as_str(), "mdn");
        let answered = explained.evidence.recipients[0].answered.as_ref().unwrap();
        assert_eq!(answered.recipient.as_str(), "reply-target", "{notify}");
        // A vacation does not go there.
        let answer = desk.reply("joe@bank.example", &in_reply_to(&record)).await;
        assert!(answer.contains("unauthenticated message-id") || notify == "joe@bank.example");
        desk.later(3600).await;
    }
}

/// What keeps a reply waiting is the tap, and not DNS of the recipient's domain: the client is told.
#[tokio::test(start_paused = true)]
async fn a_client_is_told_that_the_tap_is_still_verifying() {
    let desk = desk();
    let complete = desk.genuine();
    let pending = Inbound { state: State::Pending, findings: Vec::new(), ..complete };
    desk.came(pending.clone()).await;
    let hop = Hop::smtp(USUAL);
    let net = Arc::new(Net::of(&[("192.0.2.1:25", &hop)]));
    let text = format!("{SITE}[outbound]\nnext_hop = [\"192.0.2.1:25\"]\n");
    let config = config(&text, Path::new("/s"));
    let (disk, store) = (ModelDisk::default(), Arc::clone(&desk.store));
    let rig = Rig::over(desk.inquiry.now(), &config, disk, net, Some(store)).await;
    let mut client = rig.client().await;
    let reply = format!(
        "Date: {}\r\nFrom: Ann <ann@uni.example>\r\nTo: joe@bank.example\r\nSubject: Away\r\n\
         Auto-Submitted: auto-replied\r\n\r\nAway.\r\n",
        desk.inquiry.now().header_date()
    );
    let said = client.mail("", &["joe@bank.example"], reply.as_bytes()).await;
    let last = &said.last().unwrap().0;
    assert!(last.starts_with("451 4.3.0 the message that this answers is still being"), "{last}");
    let page = desk.explained("joe@bank.example", "").await;
    let text = &page.decisions[0].text;
    assert_eq!(text, "The tap is still verifying the message it answers.");
    assert_eq!(pending.mail_from, ReversePath::Address(address("joe@bank.example")));
}

/// A response from outside that one of ours forwards, through something that leaves none of the
/// lines by which it came: the tap saw it. Whoever guesses the Message-ID of an answer of ours gains
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_response_that_a_tap_saw_come_in_is_relayed() {
    let explained = async |desk: &Desk, from: &str, id: &str| {
        let text = format!(
            "Date: {}\nFrom: {from}\nTo: joe@bank.example\nSubject: Away\nMessage-ID: <{id}>\n\
             Auto-Submitted: auto-replied\n\nI am away.\n",
            desk.inquiry.now().header_date()
        );
        let message = Message::new(text.replace('\n', "\r\n"), Completeness::Whole);
        let explained = desk.inquiry.explain(&envelope("joe@bank.example"), &message).await;
        format!("{:?} {}", explained.case.origin.unwrap(), explained.decisions[0].reason)
    };
    let desk = desk();
    let came = |from: &str, id: &str, way: Way| {
        let record = desk.inbound("spf=none x@far.example", "x@far.example", from);
        let mail_from = ReversePath::Null;
        Inbound { way, mail_from, message_ids: vec![id.to_owned()], ..record }
    };
    desk.came(came("far@far.example", "one@far.example", Way::Outside)).await;
    desk.came(came("ann@uni.example", "two@uni.example", Way::Outside)).await;
    desk.came(came("far@far.example", "three@far.example", Way::Reinjected)).await;
    let with_path = came("far@far.example", "four@far.example", Way::Outside);
    let mail_from = ReversePath::Address(address("eve@spam.example"));
    desk.came(Inbound { mail_from, ..with_path }).await;
    desk.later(1).await;
    for (from, id, expected) in [
        ("far@far.example", "one@far.example", "Relayed relayed-response"),
        ("other@far.example", "one@far.example", "Ours unknown"),
        ("ann@uni.example", "two@uni.example", "Ours unknown"),
        ("far@far.example", "three@far.example", "Ours unknown"),
        ("far@far.example", "four@far.example", "Ours unknown"),
        ("far@far.example", "none@far.example", "Ours unknown"),
    ] {
        assert_eq!(explained(&desk, from, id).await, expected, "{from} {id}");
    }
}

/// What an inside host gave back without a first arrival on record: nobody knows whence it came.
#[tokio::test(start_paused = true)]
async fn what_was_given_back_and_came_in_nowhere_is_unknown() {
    let desk = desk();
    let back = Inbound { way: Way::Reinjected, findings: Vec::new(), ..desk.genuine() };
    let back = desk.came(back).await;
    desk.later(1).await;
    let explained = desk.explained("joe@bank.example", &in_reply_to(&back)).await;
    let decision = &explained.decisions[0];
    let verdict = decision.verdict.as_ref().unwrap();
    assert_eq!((verdict.kind().as_str(), verdict.by()), ("unknown", Some("not-in-store")));
    assert!(decision.gaps.iter().any(|gap| gap.detail.contains("first arrival")), "{decision:?}");
}
