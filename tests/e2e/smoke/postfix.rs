//! Postfix: what its bounces carry, and that the harness can look into its queue.

use crate::client::{Client, Mail};
use crate::ledger::{Ledger, mark};
use crate::mail::{delivery_status, embedded, field, header, letter};
use crate::servers::missing;
use crate::servers::postfix::{Postfix, Settings};
use crate::sink::{Act, Sink, Stage};
use crate::wait::until;

const VICTIM: &str = "victim@victim.example";
const ALICE: &str = "alice@ours.example";
const BOB: &str = "bob@far.example";
const FAILED: &str = "mx.ours.example; spf=fail smtp.mailfrom=victim@victim.example";

/// A host that takes mail for `branch.example` without knowing its users, and finds out too late.
fn relaying_for_branch(sink: &Sink) -> Settings {
    sink.order(
        Stage::Rcpt,
        "nobody@branch.example",
        Act::Say("550 5.1.1 No such user"),
        usize::MAX,
    );
    Settings::default()
        .next_hop(sink.address())
        .set("relay_domains", "branch.example")
        .authentication_results(VICTIM, FAILED)
}

/// Goal: the evidence for a bounce travels in the bounce. Method: a forged letter to an unknown
/// user; the report's embedded original begins with our verdict, above our own `Received`.
#[test]
fn a_bounce_carries_our_verdict_above_our_received() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let postfix = Postfix::start(&relaying_for_branch(&sink));

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example");
    let message = letter(VICTIM, "nobody@branch.example", "spam-1");
    client.deliver(&Mail::new(VICTIM, &["nobody@branch.example"], message));

    let bounce = &sink.wait_for(1)[0];
    assert_eq!((bounce.reverse_path.as_str(), bounce.addresses()), ("", vec![VICTIM]));
    assert!(delivery_status(&bounce.message).contains("Action: failed"));
    let (kind, original) = embedded(&bounce.message).unwrap();
    assert_eq!(kind, "message/rfc822");
    let fields = header(&original);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).take(3).collect();
    assert_eq!(names, ["Return-Path", "Authentication-Results", "Received"]);
    assert_eq!(fields[1].1, FAILED);
    assert!(fields[2].1.contains("192.0.2.55"), "the client's address: {}", fields[2].1);
    assert_eq!(field(&original, "Message-ID").unwrap(), "<spam-1@sender.example>");
    postfix.drained();
}

/// Goal: a warning of delay goes to a forged sender too, with the headers alone. Method: the next
/// hop says "later" for longer than Postfix's patience.
#[test]
fn a_delay_warning_carries_the_headers_alone() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let later = Act::Say("451 4.2.0 Later");
    sink.order(Stage::Rcpt, "slow@branch.example", later, usize::MAX);
    let settings = relaying_for_branch(&sink).set("delay_warning_time", "1s");
    let postfix = Postfix::start(&settings);

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example");
    let message = letter(VICTIM, "slow@branch.example", "slow-1");
    client.deliver(&Mail::new(VICTIM, &["slow@branch.example"], message));

    let warning = &sink.wait_for(1)[0];
    assert_eq!((warning.reverse_path.as_str(), warning.addresses()), ("", vec![VICTIM]));
    assert!(delivery_status(&warning.message).contains("Action: delayed"));
    assert_verdict_in_headers(&warning.message);
    // While a retry is under way the queue names no reason.
    let (address, reason) = until("the reason of the delay", || {
        let queue = postfix.queue();
        let first = queue.first()?.recipients.first()?.clone();
        (!first.1.is_empty()).then_some(first)
    });
    assert_eq!(address, "slow@branch.example");
    assert!(reason.contains("451 4.2.0 Later"), "{reason}");

    sink.behave();
    postfix.flush();
    sink.wait_for_text("Subject: letter slow-1");
    postfix.drained();
}

/// Goal: news of success is backscatter too. Method: a forged letter that asks for it, to one of
/// our mailboxes: behind LMTP it is "relayed", in Postfix's own hands "delivered".
#[test]
fn a_success_report_goes_to_the_forged_sender() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), Sink::lmtp());
    let settings = relaying_for_branch(&sink);
    let behind_lmtp = settings.clone().mailboxes(mailboxes.address());
    for (settings, action) in [(behind_lmtp, "relayed"), (settings, "delivered")] {
        let postfix = Postfix::start(&settings);
        let id = format!("success-{action}");
        let mut mail =
            Mail::new(VICTIM, &["alice@ours.example"], letter(VICTIM, "alice@ours.example", &id));
        mail.recipients[0].1 = "NOTIFY=SUCCESS".to_owned();
        let mut client =
            Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example");
        client.deliver(&mail);

        let report = sink.wait_for_text(&id);
        assert_eq!((report.reverse_path.as_str(), report.addresses()), ("", vec![VICTIM]));
        let status = delivery_status(&report.message);
        assert!(status.contains(&format!("Action: {action}\r\n")), "{status}");
        assert_verdict_in_headers(&report.message);
    }
    assert_eq!(mailboxes.taken().len(), 1);
}

/// Goal: the evidence survives where the body is cut. Method: a message over Postfix's
/// `bounce_size_limit`, which is 50,000 bytes.
#[test]
fn a_bounce_of_a_big_message_carries_the_headers_alone() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let postfix = Postfix::start(&relaying_for_branch(&sink));

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example");
    let mut message = letter(VICTIM, "nobody@branch.example", "big-1");
    message.push_str(&"0123456789 0123456789\r\n".repeat(4_000));
    client.deliver(&Mail::new(VICTIM, &["nobody@branch.example"], message));

    let bounce = &sink.wait_for(1)[0];
    assert!(delivery_status(&bounce.message).contains("Action: failed"));
    assert!(bounce.message.len() < 10_000);
    assert_verdict_in_headers(&bounce.message);
}

fn assert_verdict_in_headers(report: &[u8]) {
    let (kind, original) = embedded(report).unwrap();
    assert_eq!(kind, "text/rfc822-headers");
    assert_eq!(field(&original, "Authentication-Results").unwrap(), FAILED);
    assert!(field(&original, "Received").unwrap().contains("192.0.2.55"));
}

/// Goal: a stopped next hop costs nothing, nor does a stop of the server itself. Method: mail waits
/// in the queue, by the books, and arrives once when the next hop is back.
#[test]
fn mail_waits_while_the_next_hop_is_down() {
    if missing() {
        return;
    }
    let mut sink = Sink::smtp();
    let mut postfix = Postfix::start(&relaying_for_branch(&sink).patient());
    sink.stop();

    let mut waiting = Ledger::default();
    let mut client = Client::open(postfix.submission());
    for number in 0..5 {
        waiting.sent(number, BOB);
        client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, &mark(number))));
    }
    let mut arrived = waiting.clone();
    let queue = until("five deferred messages", || {
        let queue = postfix.queue();
        let deferred = queue.iter().filter(|message| message.queue == "deferred").count();
        (deferred == 5).then_some(queue)
    });
    assert_eq!(queue[0].reverse_path, ALICE);
    assert!(String::from_utf8_lossy(&postfix.message(&queue[0].id)).contains("Subject: letter"));
    waiting.queued_postfix(&postfix);
    waiting.assert_balanced();

    postfix.stop();
    sink.resume();
    postfix.resume();
    postfix.flush();
    sink.wait_for(5);
    postfix.drained();
    arrived.arrived(&sink);
    arrived.assert_balanced();
    assert_eq!(postfix.log().matches("status=sent").count(), 5);
}
