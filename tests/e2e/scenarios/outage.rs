//! The next hop is down: everything waits in Postfix's queue, and arrives once.

use super::{ALICE, BOB, FRIEND, GONE, VICTIM, mailboxes, postfix_host};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::ledger::{Ledger, mark};
use crate::mail::letter;
use crate::servers::missing;
use crate::servers::postfix::Postfix;
use crate::sink::Sink;
use crate::wait::until;

/// Letters of ours, bounces to a genuine sender, bounces to a forged one: five of each.
fn send_all(postfix: &Postfix, ledger: &mut Ledger) {
    let mut inside = Client::open(postfix.submission());
    let mut outside = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
    for number in 0..15 {
        let id = mark(number);
        let (from, to) = match number % 3 {
            0 => (ALICE, BOB),
            1 => (FRIEND, GONE),
            _ => (VICTIM, GONE),
        };
        ledger.sent(number, if to == BOB { BOB } else { from });
        let client = if from == ALICE { &mut inside } else { &mut outside };
        client.deliver(&Mail::new(from, &[to], letter(from, to, &id)));
    }
}

/// Goal: nothing is lost, doubled or held by mistake. Method: `known` says whether the guard has
/// known the next hop from before.
fn everything_waits(known: bool) {
    if missing() {
        return;
    }
    let (mut sink, mailboxes) = (Sink::smtp(), mailboxes());
    if !known {
        sink.stop();
    }
    let guard = Guard::start(Settings::before(sink.address()));
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    sink.stop();

    let mut ledger = Ledger::default();
    send_all(&postfix, &mut ledger);
    let mut waiting = ledger.clone();
    // What is held needs no next hop; but as long as the guard knows of none, it greets with 421.
    until("the rest to wait", || {
        let (queue, held) = (postfix.queue(), guard.quarantine().len());
        let deferred = queue.iter().all(|message| message.queue == "deferred");
        (queue.len() + held == 15 && deferred).then_some(())
    });
    let heard =
        if known { "no next hop takes mail now" } else { "refused to talk to me: 421 4.3.2" };
    assert!(postfix.log().contains(heard));
    waiting.held(&guard);
    waiting.queued_postfix(&postfix);
    waiting.assert_balanced();

    sink.resume();
    postfix.drained();
    ledger.arrived(&sink);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert_eq!(guard.held_for(), [VICTIM; 5]);
    assert_eq!(sink.taken().len(), 10);
    let refused = |line: &&str| line.contains("postfix/smtp[") && line.contains("status=bounced");
    assert_eq!(postfix.log().lines().filter(refused).count(), 0);
}

#[test]
fn everything_waits_for_a_next_hop_that_died() {
    everything_waits(true);
}

#[test]
fn everything_waits_for_a_next_hop_that_was_never_there() {
    everything_waits(false);
}

/// Goal: a list of next hops is worth its name. Method: the first one is down; the second one gets
/// letters and bounces, and nobody waits.
#[test]
fn a_second_next_hop_takes_over() {
    if missing() {
        return;
    }
    let (mut first, second, mailboxes) = (Sink::smtp(), Sink::smtp(), mailboxes());
    let hops = vec![first.address().to_string(), second.address().to_string()];
    let guard = Guard::start(Settings::before(first.address()).set("outbound.next_hop", hops));
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    first.stop();

    let mut ledger = Ledger::default();
    send_all(&postfix, &mut ledger);
    second.wait_for(10);
    postfix.drained();
    ledger.arrived(&second);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert!(!postfix.log().contains("status=deferred"));
    assert_eq!(guard.wait_for_record(BOB)["next_hop"], second.address().to_string());
}
