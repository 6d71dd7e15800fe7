//! Bounces and reports of a real Postfix: held when the sender was forged, delivered when not.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ALICE, FRIEND, NOBODY, SLOW, STRANGER, VICTIM, from_far, postfix_host, refuse_nobody};
use crate::client::{Client, Mail};
use crate::dns::{Fault, Times};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, put_on_top};
use crate::pass::Pass;
use crate::servers::missing;
use crate::servers::postfix::Postfix;
use crate::sink::Sink;
use crate::wait::until;

/// Goal: the stranger whose address was forged gets nothing, and everything of it can be explained.
/// Method: two forged letters to an unknown user, one that SPF disowns and one that DMARC does; in
/// front of the guard stands a pass-through that knows which bytes came in.
#[test]
fn a_bounce_to_a_forged_sender_is_held() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let pass = Pass::to(guard.address());
    let by_dmarc = "mx.ours.example; spf=none smtp.mailfrom=ann@victim.example; dkim=none; \
                    dmarc=fail header.from=victim.example";
    let settings = postfix_host().authentication_results("ann@victim.example", by_dmarc);
    let postfix = Postfix::start(&settings.variant_a(pass.address()));

    let forged = [
        (VICTIM, "failed-spf", "spf-fail", "spf"),
        ("ann@victim.example", "failed-dmarc", "dmarc-fail", "dmarc"),
    ];
    for (from, reason, by, method) in forged {
        from_far(postfix.border(), from, NOBODY, &format!("spam-{reason}"));

        let record = guard.wait_for_record(from);
        let event = record["event"].as_str().unwrap();
        let said = format!("250 2.0.0 suppressed {event} {reason}");
        let expected = serde_json::json!({
            "mail_from": "", "class": "dsn", "dsn_action": "failed", "origin": "ours",
            "verdict": "failed", "verdict_by": by, "action": "quarantine", "would": null,
            "reason": reason, "reply": said, "next_hop": null, "held": format!("{event}-1"),
        });
        assert_eq!(these(&record, &expected), expected);
        assert_eq!(
            record["subject_message"]["message_id"],
            format!("spam-{reason}@sender.example")
        );
        assert_eq!(record["evidence"]["findings"][0][method][0]["result"], "fail");
        assert!(record["text"].as_str().unwrap().contains("victim.example"), "{record}");
        // The client's log leads to the record.
        postfix.drained();
        assert!(postfix.log().contains(&format!("status=sent ({said})")));

        let held = guard.quarantine().pop().unwrap();
        assert_eq!(held.name, format!("{event}-1"));
        assert_eq!(held.recipients(), [from]);
        assert_eq!(held.slip["envelope"]["recipients"][0]["reason"], reason);
        assert!(pass.messages().contains(&held.message), "held as it came, byte for byte");
    }
    assert_eq!(guard.quarantine().len(), 2);
    assert_eq!(sink.transactions().len(), 0);
    let heard = sink.commands();
    assert!(!heard.iter().any(|line| line.contains("FROM:<>")), "the next hop heard of it");
}

/// The fields of `record` that `expected` has.
fn these(record: &Value, expected: &Value) -> Value {
    let names = expected.as_object().unwrap().keys();
    names.map(|name| (name.clone(), record[name].clone())).collect()
}

/// Goal: who really wrote gets his bounce, and it is what Postfix made of it. Method: three letters,
/// each proven in another way; what arrives is what came in, under our two lines.
#[test]
fn a_bounce_to_a_genuine_sender_is_delivered() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let pass = Pass::to(guard.address());
    let (author, owner) = ("author@friend.example", "owner@friend.example");
    let by_dkim = "mx.ours.example; spf=none smtp.mailfrom=friend.example; \
                   dkim=pass header.d=friend.example header.i=@friend.example";
    let by_dmarc = "mx.ours.example; spf=none smtp.mailfrom=friend.example; \
                    dmarc=pass header.from=friend.example";
    let settings = postfix_host()
        .authentication_results(author, by_dkim)
        .authentication_results(owner, by_dmarc);
    let postfix = Postfix::start(&settings.variant_a(pass.address()));

    for (from, by) in [(FRIEND, "spf"), (author, "dkim"), (owner, "dmarc")] {
        from_far(postfix.border(), from, NOBODY, &format!("typo-{by}"));

        let bounce = sink.wait_for_text(&format!("typo-{by}"));
        assert_eq!((bounce.reverse_path.as_str(), bounce.addresses()), ("", vec![from]));
        let added = pass.messages().iter().find_map(|before| put_on_top(before, &bounce.message));
        let added = added.expect("nothing but lines on top may change");
        let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["X-Replyguard-Trace", "Received"]);
        assert!(added[1].1.contains("by guard.ours.example (replyguard) with ESMTP"), "{added:?}");

        let record = guard.wait_for_record(from);
        let expected = serde_json::json!({
            "class": "dsn", "verdict": "authenticated", "verdict_by": by, "action": "deliver",
            "reason": "authenticated", "next_hop": sink.address().to_string(), "held": null,
            "reply": "250 2.0.0 Ok: queued as SINK",
        });
        assert_eq!(these(&record, &expected), expected);
    }
    postfix.drained();
    assert_eq!(sink.taken().len(), 3);
    assert!(guard.quarantine().is_empty());
}

/// Goal: reports of success and of delay are backscatter too. Method: both from Postfix, to the
/// forged sender and to the genuine one, at once.
#[test]
fn reports_of_success_and_delay_follow_the_same_rule() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), Sink::lmtp());
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let settings = postfix_host().mailboxes(mailboxes.address()).set("delay_warning_time", "1s");
    let postfix = Postfix::start(&settings.variant_a(guard.address()));

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example");
    for from in [VICTIM, FRIEND] {
        let mut mail = Mail::new(from, &[ALICE], letter(from, ALICE, "success"));
        mail.recipients[0].1 = "NOTIFY=SUCCESS".to_owned();
        client.deliver(&mail);
        client.deliver(&Mail::new(from, &[SLOW], letter(from, SLOW, "delay")));
    }

    for action in ["Action: relayed", "Action: delayed"] {
        assert_eq!(sink.wait_for_text(action).addresses(), [FRIEND]);
    }
    let told = |recipient: &str| -> BTreeSet<String> {
        let word = |record: &Value, name: &str| record[name].as_str().unwrap_or("-").to_owned();
        let records = guard.audit_of(recipient);
        let words = |record| ["dsn_action", "action", "reason"].map(|name| word(record, name));
        records.iter().map(|record| words(record).join(" ")).collect()
    };
    for who in [VICTIM, FRIEND] {
        until("the records of both reports", || (told(who).len() == 2).then_some(()));
    }
    let both = |rest: &str| ["delayed", "relayed"].map(|action| format!("{action} {rest}")).into();
    assert_eq!(told(VICTIM), both("quarantine failed-spf"));
    assert_eq!(told(FRIEND), both("deliver authenticated"));
    assert_eq!(guard.held_for(), [VICTIM, VICTIM]);

    sink.behave();
    postfix.flush();
    sink.wait_for(4);
    postfix.drained();
    assert_eq!(mailboxes.taken().len(), 2);
}

/// Goal: a dead zone is no proof of forgery. Method: DNS fails while a bounce goes to a domain of
/// which nothing else is known; it waits in Postfix's queue, and goes out when DNS is back.
#[test]
fn a_bounce_waits_while_dns_fails() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let nothing = "mx.ours.example; spf=none smtp.mailfrom=stranger.example; dkim=none";
    let settings = postfix_host().authentication_results(STRANGER, nothing);
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    guard.dns().fault("_dmarc.stranger.example", None, Fault::ServFail, Times::Always);

    from_far(postfix.border(), STRANGER, NOBODY, "typo");
    let record = guard.wait_for_record(STRANGER);
    let expected = serde_json::json!({
        "verdict": "unresolved", "action": "defer", "reason": "unresolved", "held": null,
    });
    assert_eq!(these(&record, &expected), expected);
    assert!(record["reply"].as_str().unwrap().starts_with("451 4.4.3 "), "{record}");
    let waiting = until("the bounce to wait", || postfix.queue().pop());
    assert_eq!((waiting.reverse_path.as_str(), sink.taken().len()), ("", 0));

    guard.dns().heal();
    assert_eq!(sink.wait_for(1)[0].addresses(), [STRANGER]);
    postfix.drained();
    let record = guard.wait_for_record(STRANGER);
    assert_eq!(record["verdict"], "unauthenticated");
    assert!(guard.quarantine().is_empty());
}
