//! What the guard knows of a bounce, from reading to decision, with a real DNS server: our own
//! Authentication-Results, what is verified anew, what DNS says of the recipient.
//!
//! Goal: the sentences of "whom to believe" as messages in and verdicts out. Method: `Inquiry`, the
//! path without its consequences, over `Authenticator` and a zone.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use replyguard::auth::{Authenticator, Settings};
use replyguard::guard::clock::Clock;
use replyguard::guard::evidence::Gathered;
use replyguard::guard::inquiry::{Explained, InForce, Inquiry};
use replyguard::guard::loops::LoopMemory;
use replyguard::judge::Case;
use replyguard::judge::evidence::Gap;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::policy::{Mode, Policy};
use replyguard::judge::site::Site;
use replyguard::judge::trace::TraceKey;
use replyguard::mail::address::{Address, Domain, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;
use replyguard::store::Store;
use replyguard::store::answers::{Answers, Reserved};
use replyguard::store::null::Null;

use crate::dns::{Fault, TestDns, Times};

const ZONE: &str = "
bank.example TXT \"v=spf1 ip4:192.0.2.10 -all\"
_dmarc.bank.example TXT \"v=DMARC1; p=reject\"
bank.example MX 10 mx.bank.example
soft.example TXT \"v=spf1 ip4:192.0.2.10 ~all\"
softdmarc.example TXT \"v=spf1 ip4:192.0.2.10 ~all\"
_dmarc.softdmarc.example TXT \"v=DMARC1; p=none\"
all.example TXT \"v=spf1 +all\"
_dmarc.all.example TXT \"v=DMARC1; p=reject\"
plain.example MX 10 mx.plain.example
plain.example A 192.0.2.20
guess.example A 192.0.2.11
dmarc-only.example MX 10 mx.bank.example
_dmarc.dmarc-only.example TXT \"v=DMARC1; p=quarantine\"
nullmx.example MX 0 .
nullmx.example TXT \"v=spf1 ip4:192.0.2.10 -all\"
a.example MX 10 mx.a.example
xn--bcher-kva.example MX 10 mx.bank.example
";

/// What stands before a decision.
pub struct Desk {
    dns: TestDns,
    inquiry: Inquiry,
}

fn site() -> Site {
    Site {
        domains: [Domain::parse("uni.example").unwrap()].into(),
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        trusted_relays: vec!["203.0.113.5/32".parse().unwrap()],
        hosts: ["mx.uni.example".to_owned()].into(),
        authserv_ids: ["mx.uni.example".to_owned()].into(),
        authserv_stripped: true,
        ..Site::default()
    }
}

pub fn desk_with(change: impl FnOnce(&mut Policy, &mut Settings)) -> Desk {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/dkim/zone");
    let dns = TestDns::start(&format!("{ZONE}{}", fs::read_to_string(keys).unwrap()));
    let mut policy = Policy { mode: Mode::Enforce, site: site(), ..Policy::default() };
    let timeout = Duration::from_secs(20);
    let mut settings = Settings { servers: vec![dns.address()], timeout, best_guess: false };
    change(&mut policy, &mut settings);
    // A day on which no signature of the cases has expired.
    let then = Timestamp::from_millis(1_600_000_000_000);
    let inquiry = Inquiry {
        facts: Arc::new(Authenticator::new(&settings).unwrap()),
        store: Arc::new(Null),
        is_tapped: false,
        answers: Answers::new([1; 32]),
        loops: LoopMemory::blank(FingerprintKey::new([3; 32])),
        clock: Clock::From(then, tokio::time::Instant::now()),
        loop_site: "here".to_owned(),
        trace_key: TraceKey::new([2; 32]),
        fingerprint_key: FingerprintKey::new([3; 32]),
        policy: ArcSwap::from_pointee(InForce::new(policy)),
    };
    Desk { dns, inquiry }
}

fn desk() -> Desk {
    desk_with(|_, _| {})
}

/// A bounce of ours to `to` that embeds `embedded`, whole or its header.
pub fn bounce(to: &str, embedded: &str, form: &str) -> String {
    let text = format!(
        "Received: by mx.uni.example (Postfix) id 1A; Sat, 12 Sep 2020 12:00:00 +0000 (UTC)\n\
         From: MAILER-DAEMON@uni.example\nTo: {to}\nSubject: Undelivered Mail Returned to Sender\n\
         Date: Sat, 12 Sep 2020 12:00:00 +0000\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\n\n\
         --b\nContent-Type: text/plain\n\nSorry.\n\n--b\nContent-Type: message/delivery-status\n\n\
         Reporting-MTA: dns; mx.uni.example\n\nFinal-Recipient: rfc822; gone@uni.example\n\
         Action: failed\nStatus: 5.1.1\n\n--b\nContent-Type: {form}\n\n{embedded}\n--b--\n"
    );
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

/// What our system puts on top of a message that comes in.
pub fn arrived(return_path: &str, client: &str, results: &str) -> String {
    let results = match results {
        "" => String::new(),
        results => format!("Authentication-Results: mx.uni.example; {results}\n"),
    };
    format!(
        "Return-Path: <{return_path}>\n{results}Received: from host.example (unknown [{client}])\n\
         \tby mx.uni.example (Postfix) with ESMTP id 1A\n\tfor <gone@uni.example>; Sat, 12 Sep 2020 \
         11:59:59 +0000 (UTC)\n"
    )
}

pub fn letter(from: &str) -> String {
    format!(
        "From: {from}\nTo: gone@uni.example\nSubject: Hello\nMessage-ID: <1@host.example>\n\nHello\n"
    )
}

fn envelope(to: &str) -> Envelope {
    let recipient = Recipient {
        path: ForwardPath::Address(Address::parse(to).unwrap()),
        path_text: format!("<{to}>"),
        parameters: Parameters::default(),
    };
    Envelope {
        client: Client { ip: Some("127.0.0.1".parse().unwrap()), ..Client::default() },
        mail: MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        },
        recipients: vec![recipient],
    }
}

/// The header of a message with CRLF, with its last line end.
pub fn headers_only(message: &str) -> String {
    message.split_inclusive("\r\n").take_while(|line| *line != "\r\n").collect()
}

impl Desk {
    /// Publishes more, beside what is there.
    pub fn add_zone(&self, zone: &str) {
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/dkim/zone");
        self.dns.set_zone(&format!("{ZONE}{}\n{zone}", fs::read_to_string(keys).unwrap()));
    }

    /// The same with a tap, and what it remembers.
    pub fn tapped(mut self, store: Arc<dyn Store>) -> Desk {
        (self.inquiry.store, self.inquiry.is_tapped) = (store, true);
        self
    }

    async fn explained(&self, to: &str, message: &str) -> Explained {
        let message = Message::new(message.to_owned(), Completeness::Whole);
        self.inquiry.explain(&envelope(to), &message).await
    }

    /// Everything up to the decision.
    async fn gathered(&self, to: &str, message: &str) -> (Envelope, Case, Gathered) {
        let (envelope, message) =
            (envelope(to), Message::new(message.to_owned(), Completeness::Whole));
        let in_force = self.inquiry.in_force();
        let case = self.inquiry.read(&envelope, &message, &in_force.policy);
        let gathered = self.inquiry.gather(&envelope, &message, &case, &in_force.policy).await;
        (envelope, case, gathered)
    }

    /// `action reason`; and the room in the limits that it takes while it is on its way.
    fn decided(&self, gathered: (Envelope, Case, Gathered)) -> (String, Vec<(usize, Reserved)>) {
        let (envelope, case, mut gathered) = gathered;
        let (in_force, now) = (self.inquiry.in_force(), self.inquiry.now());
        let decided = self.inquiry.decide(&envelope, &case, &mut gathered, &in_force.policy, now);
        let decision = &decided.decisions[0];
        (format!("{} {}", decision.action, decision.reason), decided.reserved)
    }

    /// `action verdict by`, of a bounce to `to`.
    pub async fn judged(&self, to: &str, message: &str) -> String {
        let explained = self.explained(to, message).await;
        let decision = &explained.decisions[0];
        let verdict = decision.verdict.as_ref();
        let kind = verdict.map_or("none", |verdict| verdict.kind().as_str());
        let by = verdict.and_then(|verdict| verdict.by()).unwrap_or(decision.reason.as_str());
        format!("{} {kind} {by}", decision.action)
    }
}

pub fn case(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/dkim").join(name);
    fs::read_to_string(path.with_extension("eml")).unwrap()
}

#[tokio::test]
async fn our_own_results_decide_and_nothing_is_verified_again() {
    let desk = desk();
    let results = "spf=pass smtp.mailfrom=joe@bank.example; dkim=pass header.d=bank.example";
    let embedded = arrived("joe@bank.example", "192.0.2.10", results) + &letter("joe@bank.example");
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    assert_eq!(desk.judged("joe@bank.example", &message).await, "deliver authenticated spf");
    let results = "spf=fail smtp.mailfrom=joe@bank.example; dkim=none";
    let embedded = arrived("joe@bank.example", "192.0.2.66", results) + &letter("joe@bank.example");
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    let asked = desk.dns.asked().len();
    assert_eq!(desk.judged("joe@bank.example", &message).await, "quarantine failed spf-fail");
    // Its facts are remembered, and SPF was not asked for.
    assert_eq!(desk.dns.asked().len(), asked, "{:?}", desk.dns.asked());
}

/// Without our own results: SPF of the client at the border, for the reverse-path we wrote down.
#[tokio::test]
async fn spf_is_verified_anew_for_the_client_at_the_border() {
    let desk = desk();
    for (to, client, expected) in [
        ("joe@bank.example", "192.0.2.10", "deliver authenticated spf"),
        ("joe@bank.example", "192.0.2.66", "quarantine failed spf-fail"),
        ("joe@soft.example", "192.0.2.66", "deliver unauthenticated unauthenticated"),
        ("joe@softdmarc.example", "192.0.2.66", "quarantine failed spf-softfail"),
        ("joe@dmarc-only.example", "192.0.2.66", "quarantine failed dmarc-fail"),
        ("joe@plain.example", "192.0.2.66", "deliver unauthenticated unauthenticated"),
        // A record that lets everybody in authenticates nobody, and lets nobody fail.
        ("joe@all.example", "192.0.2.66", "deliver unauthenticated unauthenticated"),
        ("joe@nullmx.example", "192.0.2.10", "quarantine authenticated spf"),
        ("joe@nowhere.example", "192.0.2.10", "quarantine unauthenticated no-such-domain"),
    ] {
        let embedded = arrived(to, client, "") + &letter(to);
        for form in ["message/rfc822", "text/rfc822-headers"] {
            let embedded = match form {
                "message/rfc822" => embedded.clone(),
                _ => embedded.split("\n\n").next().unwrap().to_owned() + "\n",
            };
            let message = bounce(to, &embedded, form);
            assert_eq!(desk.judged(to, &message).await, expected, "{to} {client} {form}");
        }
    }
}

/// Our border said `spf=pass`, and the domain has since taken the client out of its record, which
/// ends in `-all`: that lets nobody in.
#[tokio::test]
async fn a_record_that_refuses_everybody_else_takes_no_pass_away() {
    let desk = desk();
    let results = "spf=pass smtp.mailfrom=joe@bank.example; dkim=none";
    let embedded = arrived("joe@bank.example", "192.0.2.66", results) + &letter("joe@bank.example");
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    assert_eq!(desk.judged("joe@bank.example", &message).await, "deliver authenticated spf");
}

/// Our border said `spf=pass`, but the record lets everybody in: that proves nobody. DMARC counts
/// such a pass, so nobody fails for it either.
#[tokio::test]
async fn a_pass_of_a_record_for_everybody_proves_nobody_whoever_said_it() {
    let desk = desk();
    let results = "spf=pass smtp.mailfrom=joe@all.example; dkim=none";
    let embedded = arrived("joe@all.example", "192.0.2.66", results) + &letter("joe@all.example");
    let message = bounce("joe@all.example", &embedded, "message/rfc822");
    let verdict = desk.judged("joe@all.example", &message).await;
    assert_eq!(verdict, "deliver unauthenticated unauthenticated");
}

/// Our border's lines may speak of another reverse-path than the one that was written down, or of
/// DMARC alone: whether SPF let everybody in is asked there too.
#[tokio::test]
async fn whatever_passed_by_spf_is_looked_through() {
    let desk = desk();
    let spf = |address: &str| format!("spf=pass smtp.mailfrom={address}");
    let dmarc = |domain: &str| format!("dmarc=pass header.from={domain}");
    let (all, bank, other) = ("joe@all.example", "joe@bank.example", "list@plain.example");
    let unauthenticated = "deliver unauthenticated unauthenticated";
    for (to, path, client, results, expected) in [
        (all, other, "192.0.2.66", spf(all), unauthenticated),
        (all, other, "192.0.2.66", spf("all.example"), unauthenticated),
        (bank, other, "192.0.2.10", spf(bank), "deliver authenticated spf"),
        (all, all, "192.0.2.66", dmarc("all.example"), unauthenticated),
        (all, other, "192.0.2.66", spf(all) + "; " + &dmarc("all.example"), unauthenticated),
        (bank, bank, "192.0.2.10", dmarc("bank.example"), "deliver authenticated dmarc"),
        // SPF of today fails: then it was a signature by which DMARC passed.
        (bank, bank, "192.0.2.66", dmarc("bank.example"), "deliver authenticated dmarc"),
        (
            all,
            all,
            "192.0.2.66",
            spf(all) + "; dkim=pass header.d=all.example; " + &dmarc("all.example"),
            "deliver authenticated dkim",
        ),
    ] {
        let message =
            bounce(to, &(arrived(path, client, &results) + &letter(to)), "message/rfc822");
        assert_eq!(desk.judged(to, &message).await, expected, "{path} {client} {results}");
    }
    // Nobody can say whom SPF let in: the domain at the most, and of DMARC nothing.
    let desk = self::desk();
    desk.dns.fault("all.example", Some("TXT"), Fault::ServFail, Times::Always);
    for (path, results, expected) in [
        (other, spf(all), "deliver authenticated spf-domain-only"),
        (all, dmarc("all.example"), "deliver unresolved unknown"),
    ] {
        let message =
            bounce(all, &(arrived(path, "192.0.2.66", &results) + &letter(all)), "message/rfc822");
        assert_eq!(desk.judged(all, &message).await, expected, "{results}");
    }
}

/// Our border said `spf=pass`, and nobody can say by now how many clients that lets in.
#[tokio::test]
async fn a_pass_that_cannot_be_checked_proves_the_domain_only() {
    let desk = desk();
    let to = "joe@bank.example";
    let results = "spf=pass smtp.mailfrom=joe@bank.example; dkim=none";
    let embedded = arrived(to, "192.0.2.10", results) + &letter(to);
    let unsaid = embedded.replace("from host.example (unknown [192.0.2.10])", "from host.example");
    assert_ne!(unsaid, embedded);
    let domain_only = "deliver authenticated spf-domain-only";
    let message = bounce(to, &unsaid, "message/rfc822");
    assert_eq!(desk.judged(to, &message).await, domain_only);
    desk.dns.fault("bank.example", Some("TXT"), Fault::ServFail, Times::Always);
    let message = bounce(to, &embedded, "message/rfc822");
    assert_eq!(desk.judged(to, &message).await, domain_only);
}

#[tokio::test]
async fn the_signature_of_the_embedded_message_proves_its_author() {
    let desk = desk();
    let signed = case("relaxed-relaxed");
    let author = signed
        .lines()
        .find_map(|line| line.strip_prefix("From: "))
        .and_then(|from| from.rsplit('<').next())
        .map(|from| from.trim_end_matches('>').to_owned())
        .unwrap();
    let on_top = arrived(&author, "192.0.2.66", "");
    let whole = bounce(&author, &format!("{on_top}{signed}"), "message/rfc822");
    assert_eq!(desk.judged(&author, &whole).await, "deliver authenticated dkim");
    // Another mailbox of the domain is proven for its domain only.
    let other = "somebody.else@a.example";
    assert_eq!(desk.judged(other, &whole).await, "deliver authenticated dkim-domain-only");
    // The header alone, or another body behind it: never more than the domain.
    let header = signed.split("\n\n").next().unwrap();
    let header_only = bounce(&author, &format!("{on_top}{header}\n"), "text/rfc822-headers");
    let by_header = "deliver authenticated dkim-header-domain-only";
    assert_eq!(desk.judged(&author, &header_only).await, by_header);
    let other_body = bounce(&author, &format!("{on_top}{header}\n\nBuy!\n"), "message/rfc822");
    assert_eq!(desk.judged(&author, &other_body).await, by_header);
    // Another subject: nothing.
    let forged = whole.replace("Subject: ", "Subject: Fwd: ");
    assert_ne!(forged, whole);
    let verdict = desk.judged(&author, &forged).await;
    assert_eq!(verdict, "deliver unauthenticated unauthenticated");
    // Two From fields: nobody knows who the author is.
    let two = bounce(&author, &format!("{on_top}From: x@spam.example\n{signed}"), "message/rfc822");
    assert_eq!(desk.judged(&author, &two).await, "deliver unauthenticated unauthenticated");
    let sign = desk.explained(&author, &two).await.evidence.findings;
    assert!(sign.iter().any(|found| found.author_sign.is_some()));
}

/// Whoever forges can write a signature without a key, or a heap of them.
#[tokio::test]
async fn signatures_of_no_worth_do_not_save_a_forgery() {
    let desk = desk();
    let to = "joe@bank.example";
    let junk = |selector: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=bank.example; s={selector}; h=from; bh=AAAA; \
             b=AAAA\n"
        )
    };
    let fresh = "DKIM-Signature: v=1; a=rsa-sha256; d=bank.example; s=gone; h=from; x=1600000000; \
                 bh=AAAA; b=AAAA\n";
    for forged in [junk("gone"), junk("gone").repeat(11), fresh.to_owned()] {
        let client = "192.0.2.66";
        let embedded = arrived("joe@soft.example", client, "") + &forged + &letter(to);
        let message = bounce(to, &embedded, "message/rfc822");
        assert_eq!(desk.judged(to, &message).await, "quarantine failed dmarc-fail", "{forged}");
    }
    let heap = arrived(to, "192.0.2.20", "") + &junk("gone").repeat(11) + &letter(to);
    let explained = desk.explained(to, &bounce(to, &heap, "message/rfc822")).await;
    let left_out = |gap: &Gap| gap.detail == "1 signatures behind the first ones";
    assert!(explained.evidence.gaps.iter().any(left_out), "{:?}", explained.evidence.gaps);
}

/// A forwarder's address fails SPF, and the signature of what it forwards is still good. Our border
/// spoke of SPF alone, or got no answer for the key.
#[tokio::test]
async fn a_good_signature_outweighs_what_our_border_said_of_spf_alone() {
    let desk = desk();
    let (to, signed) = ("joe@a.example", case("relaxed-relaxed"));
    let author = signed.lines().find_map(|line| line.strip_prefix("From: ")).unwrap();
    assert!(author.contains(to), "{author}");
    for (results, expected) in [
        ("spf=fail smtp.mailfrom=joe@a.example", "deliver authenticated dkim"),
        (
            "spf=fail smtp.mailfrom=joe@a.example; dkim=temperror header.d=a.example",
            "deliver authenticated dkim",
        ),
        ("spf=fail smtp.mailfrom=joe@a.example; dkim=fail", "quarantine failed spf-fail"),
    ] {
        let embedded = arrived(to, "192.0.2.66", results) + &signed;
        let message = bounce(to, &embedded, "message/rfc822");
        assert_eq!(desk.judged(to, &message).await, expected, "{results}");
    }
    let results = "spf=fail smtp.mailfrom=joe@a.example";
    let unsigned = arrived(to, "192.0.2.66", results) + &letter(to);
    let message = bounce(to, &unsigned, "message/rfc822");
    assert_eq!(desk.judged(to, &message).await, "quarantine failed spf-fail");
}

/// DNS failed when it came in, and answers now.
#[tokio::test]
async fn what_was_open_when_it_came_is_closed_by_verifying_anew() {
    let desk = desk();
    let to = "joe@plain.example";
    let results = "spf=temperror smtp.mailfrom=joe@plain.example; dkim=none";
    let embedded = arrived(to, "192.0.2.66", results) + &letter(to);
    let message = bounce(to, &embedded, "message/rfc822");
    let verdict = "deliver unauthenticated unauthenticated";
    assert_eq!(desk.judged(to, &message).await, verdict);
}

/// DNS that is silent is no proof of forgery.
#[tokio::test]
async fn what_cannot_be_checked_now_fails_nobody() {
    let desk = desk();
    desk.dns.fault("bank.example", Some("TXT"), Fault::ServFail, Times::Always);
    let embedded = arrived("joe@bank.example", "192.0.2.66", "") + &letter("joe@bank.example");
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    // The bounce is old by now: what waits for DNS too long goes on as if nothing were known.
    assert_eq!(desk.judged("joe@bank.example", &message).await, "deliver unresolved unknown");
}

#[tokio::test]
async fn gateways_hide_their_clients_and_inside_hosts_are_looked_through() {
    let desk = desk();
    let gateway = "Return-Path: <joe@bank.example>\nReceived: from gw.example (gw.example \
                   [203.0.113.5])\n\tby mx.uni.example (Postfix) with ESMTP id 1A; Sat, 12 Sep 2020 \
                   11:59:59 +0000\n";
    let embedded = format!("{gateway}{}", letter("joe@bank.example"));
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    let explained = desk.explained("joe@bank.example", &message).await;
    let verdict = explained.decisions[0].verdict.clone().unwrap();
    // Never failed: SPF of the gateway's own address says nothing of the sender.
    assert_eq!(verdict.kind().as_str(), "unknown", "{verdict:?}");
    assert!(explained.evidence.gaps.iter().any(|gap| gap.cause.as_str() == "behind-relay"));
    let inside = "Return-Path: <joe@bank.example>\nReceived: from mx.uni.example (localhost \
                  [127.0.0.1])\n\tby mx.uni.example (Postfix) with ESMTP id 2B; Sat, 12 Sep 2020 \
                  11:59:59 +0000\nReceived: from host.example (unknown [192.0.2.10])\n\tby \
                  mx.uni.example (Postfix) with ESMTP id 1A; Sat, 12 Sep 2020 11:59:58 +0000\n";
    let embedded = format!("{inside}{}", letter("joe@bank.example"));
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    assert_eq!(desk.judged("joe@bank.example", &message).await, "deliver authenticated spf");
}

/// The peer writes our line and our Received line into his part: they prove nothing.
#[tokio::test]
async fn a_forged_pair_below_the_border_proves_nothing() {
    let desk = desk();
    let forged =
        arrived("joe@bank.example", "192.0.2.10", "spf=pass smtp.mailfrom=joe@bank.example");
    let real = arrived("joe@bank.example", "192.0.2.66", "");
    let embedded = format!("{real}{forged}{}", letter("joe@bank.example"));
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    assert_eq!(desk.judged("joe@bank.example", &message).await, "quarantine failed spf-fail");
}

/// OpenDKIM and OpenDMARC write below our own Received line.
#[tokio::test]
async fn lines_of_a_filter_directly_below_the_border_count_where_they_are_declared() {
    let below = |results: &[&str]| {
        let lines: Vec<String> = results
            .iter()
            .map(|results| format!("Authentication-Results: mx.uni.example; {results}\n"))
            .collect();
        let on_top = arrived("joe@bank.example", "192.0.2.66", "");
        let embedded = format!("{on_top}{}{}", lines.concat(), letter("joe@bank.example"));
        bounce("joe@bank.example", &embedded, "message/rfc822")
    };
    let declared = desk_with(|policy, _| policy.site.authserv_below = true);
    let two_filters =
        below(&["dmarc=pass header.from=bank.example", "dkim=pass header.d=bank.example"]);
    let to = "joe@bank.example";
    assert_eq!(declared.judged(to, &two_filters).await, "deliver authenticated dkim");
    assert_eq!(desk().judged(to, &two_filters).await, "quarantine failed spf-fail");
    // The peer's own line further down, about a method that the filter spoke of.
    let with_forged = below(&[
        "spf=fail smtp.mailfrom=bank.example; dkim=none",
        "dkim=pass header.d=bank.example",
    ]);
    assert_eq!(declared.judged(to, &with_forged).await, "quarantine failed spf-fail");
}

#[tokio::test]
async fn a_guess_has_its_own_name_and_proves_at_most_the_domain() {
    let to = "joe@guess.example";
    let embedded = arrived(to, "192.0.2.200", "") + &letter(to);
    let message = bounce(to, &embedded, "message/rfc822");
    let verdict = desk().judged(to, &message).await;
    assert_eq!(verdict, "deliver unauthenticated unauthenticated");
    let guessing = desk_with(|_, settings| settings.best_guess = true);
    let verdict = guessing.judged(to, &message).await;
    assert_eq!(verdict, "deliver authenticated spf-guess-domain-only");
    let far = arrived(to, "198.51.100.1", "") + &letter(to);
    let far = bounce(to, &far, "message/rfc822");
    let verdict = guessing.judged(to, &far).await;
    assert_eq!(verdict, "deliver unauthenticated unauthenticated");
}

#[tokio::test]
async fn own_submission_is_believed_for_our_own_domains_only() {
    let desk = desk();
    let inside = "Return-Path: <RP>\nReceived: from desk.uni.example (desk [127.0.0.1])\n\tby \
                  mx.uni.example (Postfix) with ESMTPSA id 1A; Sat, 12 Sep 2020 11:59:59 +0000\n";
    for (to, expected) in [
        ("ann@uni.example", "deliver authenticated own-submission"),
        // A hijacked account that sends as somebody else.
        ("victim@plain.example", "deliver unauthenticated unauthenticated"),
    ] {
        let embedded = format!("{}{}", inside.replace("RP", to), letter(to));
        let message = bounce(to, &embedded, "message/rfc822");
        let found = desk.judged(to, &message).await;
        assert_eq!(found, expected, "{to}");
    }
}

/// An SRS address of ours stands for whom we forwarded for.
#[tokio::test]
async fn a_bounce_of_what_we_forwarded_goes_back_to_whom_it_came_from() {
    let desk = desk();
    let to = "SRS0=ab=cd=bank.example=joe@uni.example";
    for (results, expected) in [
        ("spf=pass smtp.mailfrom=joe@bank.example; dkim=none", "deliver authenticated spf"),
        ("spf=fail smtp.mailfrom=joe@bank.example; dkim=none", "deliver failed spf-fail"),
    ] {
        let embedded = arrived(to, "192.0.2.10", results) + &letter("joe@bank.example");
        let message = bounce(to, &embedded, "message/rfc822");
        let explained = desk.explained(to, &message).await;
        assert_eq!(desk.judged(to, &message).await, expected);
        assert_eq!(explained.decisions[0].rule, "own-rewritten");
    }
}

/// Goal: the page tells an administrator what to mend. Method: a bounce from a host that nobody
/// declared, and a reply that embeds nothing.
#[tokio::test]
async fn what_would_have_changed_it_is_what_can_be_mended() {
    let desk = desk();
    let to = "joe@bank.example";
    let foreign =
        arrived(to, "192.0.2.66", "").replace("by mx.uni.example", "by mx9.other.example");
    let message = bounce(to, &(foreign + &letter(to)), "message/rfc822");
    let explained = desk.explained(to, &message).await;
    let ways = explained.decisions[0].otherwise.join("\n");
    assert!(ways.contains("`local.hosts`") && ways.contains("Authentication-Results"), "{ways}");
    let reply =
        "From: gone@uni.example\r\nSubject: Away\r\nAuto-Submitted: auto-replied\r\n\r\nx\r\n";
    let explained = desk.explained(to, reply).await;
    let ways = explained.decisions[0].otherwise.join("\n");
    assert!(ways.contains("A tap") && !ways.contains("Authentication-Results"), "{ways}");
    assert!(!ways.contains("`local.hosts`"), "{ways}");
}

/// One report for several: each is judged for himself, and what is known of one proves no other.
#[tokio::test]
async fn each_recipient_is_judged_for_himself() {
    let desk = desk();
    let results = "spf=pass smtp.mailfrom=joe@bank.example; dkim=none";
    let embedded = arrived("joe@bank.example", "192.0.2.10", results) + &letter("joe@bank.example");
    let message = bounce("joe@bank.example", &embedded, "message/rfc822");
    let all = [
        ("joe@bank.example", "deliver authenticated"),
        ("ann@bank.example", "deliver domain-only"),
        ("joe@dmarc-only.example", "quarantine failed-dmarc"),
        ("joe@plain.example", "deliver unauthenticated"),
        ("joe@nullmx.example", "quarantine null-mx"),
        ("bob@uni.example", "deliver local-domain"),
    ];
    let mut to = envelope(all[0].0);
    to.recipients = all.iter().map(|(to, _)| envelope(to).recipients.remove(0)).collect();
    let message = Message::new(message, Completeness::Whole);
    let explained = desk.inquiry.explain(&to, &message).await;
    let decisions = explained.decisions.iter();
    let found = decisions.map(|found| format!("{} {}", found.action, found.reason));
    assert_eq!(found.collect::<Vec<_>>(), all.map(|(_, expected)| expected.to_owned()));
}

/// Names with umlauts are compared as A-labels.
#[tokio::test]
async fn internationalised_domains_are_compared_as_a_labels() {
    let desk = desk();
    let results = "spf=pass smtp.mailfrom=joe@b\u{fc}cher.example; dkim=none";
    let to = "joe@xn--bcher-kva.example";
    let embedded = arrived("joe@b\u{fc}cher.example", "192.0.2.10", results) + &letter(to);
    let message = bounce(to, &embedded, "message/rfc822");
    for to in [to, "joe@b\u{fc}cher.example", "joe@B\u{dc}CHER.example"] {
        assert_eq!(desk.judged(to, &message).await, "deliver authenticated spf", "{to}");
    }
}

/// A bounce to `to`, whom nothing proves, about these recipients.
fn unproven(to: &str, failed: &[&str]) -> String {
    let message = bounce(to, &(arrived(to, "192.0.2.66", "") + &letter(to)), "message/rfc822");
    let group = |failed: &&str| {
        format!("Final-Recipient: rfc822; {failed}\r\nAction: failed\r\nStatus: 5.1.1\r\n")
    };
    let groups: Vec<String> = failed.iter().map(group).collect();
    let first = "Final-Recipient: rfc822; gone@uni.example\r\nAction: failed\r\nStatus: 5.1.1\r\n";
    assert!(message.contains(first));
    message.replace(first, &groups.join("\r\n"))
}

#[tokio::test]
async fn only_what_a_limit_let_out_uses_it_up() {
    let desk = desk();
    let to = "joe@plain.example";
    let results = "spf=pass smtp.mailfrom=joe@plain.example; dkim=none";
    let proven = bounce(to, &(arrived(to, "192.0.2.20", results) + &letter(to)), "message/rfc822");
    let mut on_the_way = Vec::new();
    for _ in 0..30 {
        let (outcome, taken) = desk.decided(desk.gathered(to, &proven).await);
        assert_eq!((outcome.as_str(), taken.len()), ("deliver authenticated", 0));
        on_the_way.push(taken);
    }
    // Two at once: both looked before one of them was decided.
    let message = unproven(to, &["gone@uni.example"]);
    let (first, second) = (desk.gathered(to, &message).await, desk.gathered(to, &message).await);
    let (outcome, taken) = desk.decided(first);
    assert_eq!((outcome.as_str(), taken.len()), ("deliver unauthenticated", 1));
    let (outcome, none) = desk.decided(second);
    assert_eq!((outcome.as_str(), none.len()), ("quarantine limit-pair", 0));
    // Explaining counts nothing; what the next hop refuses is given back.
    assert_eq!(desk.judged(to, &message).await, "quarantine unauthenticated limit-pair");
    drop(taken);
    let verdict = "deliver unauthenticated unauthenticated";
    assert_eq!(desk.judged(to, &message).await, verdict);
    assert_eq!(desk.judged(to, &message).await, verdict);
}

/// Whom an address of ours in the form of SRS stands for cannot always be read, and its tags are
/// anybody's to choose: all of a domain have one limit.
#[tokio::test]
async fn addresses_that_cannot_be_read_have_one_limit_together() {
    let desk = desk();
    let gone = ["gone@uni.example"];
    let to = "SRS0=ab=cd@uni.example";
    let (outcome, taken) = desk.decided(desk.gathered(to, &unproven(to, &gone)).await);
    assert_eq!((outcome.as_str(), taken.len()), ("deliver unknown", 1));
    for to in ["SRS0=ab=ce@uni.example", "srs0+x=y@uni.example", "prvs=1a2b=SRS0=q=r@uni.example"] {
        let (outcome, _) = desk.decided(desk.gathered(to, &unproven(to, &gone)).await);
        assert_eq!(outcome, "quarantine limit-pair", "{to}");
    }
    let (outcome, _) = desk.decided(desk.gathered(to, &unproven(to, &["x@uni.example"])).await);
    assert_eq!(outcome, "deliver unknown");
    // One that can be read has the limit of whom it stands for, whatever its tags.
    let read = |tag: &str| format!("SRS0={tag}=cd=plain.example=joe@uni.example");
    let (outcome, kept) =
        desk.decided(desk.gathered(&read("a"), &unproven(&read("a"), &gone)).await);
    assert_eq!((outcome.as_str(), kept.len()), ("deliver unauthenticated", 1));
    for to in [read("b"), "joe@plain.example".to_owned()] {
        let (outcome, _) = desk.decided(desk.gathered(&to, &unproven(&to, &gone)).await);
        assert_eq!(outcome, "quarantine limit-pair", "{to}");
    }
}

/// Another spelling of a mailbox, or another recipient beside one, opens no limit anew.
#[tokio::test]
async fn limits_are_those_of_a_mailbox_and_of_each_failed_recipient() {
    let desk = desk();
    let (to, gone) = ("joe@plain.example", "gone@uni.example");
    let (_, taken) = desk.decided(desk.gathered(to, &unproven(to, &[gone])).await);
    assert_eq!(taken.len(), 1);
    for (to, failed) in [
        ("JOE@plain.example", &[gone][..]),
        ("\"joe\"@plain.example", &["\"GONE\"@uni.example"]),
        ("joe+1@plain.example", &[gone]),
        (to, &["gone+2@uni.example"]),
        (to, &["other@uni.example", "Gone@uni.example"]),
    ] {
        let (outcome, _) = desk.decided(desk.gathered(to, &unproven(to, failed)).await);
        assert_eq!(outcome, "quarantine limit-pair", "{to} {failed:?}");
    }
    let (outcome, _) = desk.decided(desk.gathered(to, &unproven(to, &["other@uni.example"])).await);
    assert_eq!(outcome, "deliver unauthenticated");
}
