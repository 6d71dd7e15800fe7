//! Exim: what its bounces carry, and that the harness can look into its queue.

use crate::client::{Client, Mail};
use crate::ledger::{Ledger, mark};
use crate::mail::{delivery_status, embedded, field, header, letter};
use crate::servers::exim::{Exim, Settings};
use crate::servers::missing;
use crate::sink::{Act, Sink, Stage};
use crate::wait::until;

const VICTIM: &str = "victim@victim.example";
const ALICE: &str = "alice@ours.example";
const BOB: &str = "bob@far.example";
const FAILED: &str = "mx.ours.example; spf=fail smtp.mailfrom=victim@victim.example";

/// A host that takes mail for anybody at `branch.example`, and finds out too late.
fn relaying_for_branch(sink: &Sink) -> Settings {
    sink.order(
        Stage::Rcpt,
        "nobody@branch.example",
        Act::Say("550 5.1.1 No such user"),
        usize::MAX,
    );
    let mut settings = Settings { next_hop: Some(sink.address()), ..Settings::default() };
    settings.acl_rcpt = "  accept domains = branch.example\n".to_owned();
    settings.authentication_results(VICTIM, FAILED)
}

/// Goal: the evidence for a bounce travels in the bounce. Method: as with Postfix.
#[test]
fn a_bounce_carries_our_verdict_above_our_received() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let exim = Exim::start(&relaying_for_branch(&sink));

    let mut client = Client::from_outside(exim.border(), "192.0.2.55", "mail.forger.example");
    let message = letter(VICTIM, "nobody@branch.example", "spam-1");
    client.deliver(&Mail::new(VICTIM, &["nobody@branch.example"], message));

    let bounce = &sink.wait_for(1)[0];
    assert_eq!((bounce.reverse_path.as_str(), bounce.addresses()), ("", vec![VICTIM]));
    assert!(delivery_status(&bounce.message).contains("Action: failed"));
    assert_eq!(field(&bounce.message, "References").unwrap(), "<spam-1@sender.example>");
    let (kind, original) = embedded(&bounce.message).unwrap();
    assert_eq!(kind, "message/rfc822");
    let fields = header(&original);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).take(3).collect();
    assert_eq!(names, ["Return-path", "Authentication-Results", "Received"]);
    assert_eq!(fields[1].1, FAILED);
    assert!(fields[2].1.contains("[192.0.2.55]"), "the client's address: {}", fields[2].1);
    exim.drained();
}

/// Goal: warnings of delay and news of success are backscatter too. Method: forged letters to a
/// slow user and, with the request for a report, to one of our mailboxes.
#[test]
fn delay_and_success_reports_go_to_the_forged_sender() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), Sink::lmtp());
    let later = Act::Say("451 4.2.0 Later");
    sink.order(Stage::Rcpt, "slow@branch.example", later, usize::MAX);
    let mut settings = relaying_for_branch(&sink);
    settings.main = "dsn_advertise_hosts = *\ndelay_warning = 1s\n".to_owned();
    settings.mailboxes = Some(mailboxes.address());
    let exim = Exim::start(&settings);

    let (slow, alice) = ("slow@branch.example", "alice@ours.example");
    let mut client = Client::from_outside(exim.border(), "192.0.2.55", "mail.forger.example");
    client.deliver(&Mail::new(VICTIM, &[slow], letter(VICTIM, slow, "slow-1")));
    let mut mail = Mail::new(VICTIM, &[alice], letter(VICTIM, alice, "success-1"));
    mail.recipients[0].1 = "NOTIFY=SUCCESS".to_owned();
    client.deliver(&mail);

    for action in ["Action: delayed", "Action: delivered"] {
        let report = sink.wait_for_text(action);
        assert_eq!((report.reverse_path.as_str(), report.addresses()), ("", vec![VICTIM]));
        let (kind, original) = embedded(&report.message).unwrap();
        assert_eq!(kind, "text/rfc822-headers");
        assert_eq!(field(&original, "Authentication-Results").unwrap(), FAILED);
    }
    assert_eq!(mailboxes.wait_for(1)[0].addresses(), [alice]);
}

/// Goal: why held bounces must be answered with 250. Method: a next hop that refuses bounces; Exim
/// freezes them, and the harness sees it.
#[test]
fn a_refused_bounce_freezes() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let exim = Exim::start(&relaying_for_branch(&sink));
    sink.order(Stage::EndOfData, "auto-replied", Act::Say("550 5.7.1 No"), usize::MAX);

    let mut client = Client::from_outside(exim.border(), "192.0.2.55", "mail.forger.example");
    let message = letter(VICTIM, "nobody@branch.example", "spam-2");
    client.deliver(&Mail::new(VICTIM, &["nobody@branch.example"], message));

    until("a frozen bounce", || (exim.frozen() == 1).then_some(()));
    let frozen = &exim.queue()[0];
    assert_eq!((frozen.reverse_path.as_str(), frozen.recipients[0].as_str()), ("", VICTIM));
    assert!(String::from_utf8_lossy(&exim.message(&frozen.id)).contains("spam-2"));
}

/// Goal: a stopped next hop costs nothing, nor does a stop of the server itself. Method: mail waits
/// in the queue, by the books, and arrives once when the next hop is back.
#[test]
fn mail_waits_while_the_next_hop_is_down() {
    if missing() {
        return;
    }
    let mut sink = Sink::smtp();
    let mut exim = Exim::start(&relaying_for_branch(&sink));
    sink.stop();

    let mut waiting = Ledger::default();
    let mut client = Client::open(exim.submission());
    for number in 0..5 {
        waiting.sent(number, BOB);
        client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, &mark(number))));
    }
    let mut arrived = waiting.clone();
    until("five tried messages", || {
        let tried = exim.log().matches("Connection refused").count();
        (tried >= 5 && exim.queue().len() == 5).then_some(())
    });
    waiting.queued_exim(&exim);
    waiting.assert_balanced();

    exim.stop();
    sink.resume();
    exim.resume();
    exim.flush();
    sink.wait_for(5);
    exim.drained();
    arrived.arrived(&sink);
    arrived.assert_balanced();
    assert_eq!(exim.frozen(), 0);
}
