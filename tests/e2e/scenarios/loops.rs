//! Mail that goes round: two hosts that forward to one another, the guard between them.

use super::rings::{HERE, THERE, theirs};
use super::{ALICE, BOB};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{forged_bounce, letter};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::wait::until;

/// Goal: a loop ends early and in silence. Method: a letter may come back once, somebody's bounce
/// not at all; then they are held, nobody gets a notice, and other mail goes its way.
#[test]
fn a_loop_of_two_forwards_is_cut() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let front = crate::claim::Port::claim();
    let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
    let ours = Postfix::start(&ours);
    let theirs = theirs(&sink, ours.submission(), "", "");
    let guard = Guard::start_at(front, Settings::before(theirs.submission()));

    let mut inside = Client::open(ours.submission());
    inside.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
    let mut outside = Client::from_outside(ours.border(), "192.0.2.77", "mail.elsewhere.example");
    outside.deliver(&Mail::new("", &[HERE], forged_bounce(HERE, "goes-round-too")));
    inside.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "straight")));

    until("both to be held", || (guard.held_for() == [THERE, THERE]).then_some(()));
    sink.wait_for_text("letter straight");
    ours.drained();
    theirs.drained();
    let records = guard.audit_of(THERE);
    let of = |class: &str| -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let records = records.iter().filter(|record| record["class"] == class);
        records.map(|record| (text(&record["action"]), text(&record["reason"]))).collect()
    };
    let pair = |action: &str, reason: &str| (action.to_owned(), reason.to_owned());
    let (out, held) = (pair("deliver", "personal"), pair("quarantine", "loop"));
    assert_eq!(of("personal"), [out.clone(), out, held.clone()]);
    assert_eq!(of("dsn"), [pair("deliver", "relayed-response"), held]);
    let found = &records.iter().find(|record| record["reason"] == "loop").unwrap()["loop"];
    assert_eq!(found["kind"], "lap");
    assert_eq!(sink.taken().len(), 1);
}

/// Goal: a route that leads our own mail back costs nobody his mail, and is named. Method: Postfix
/// gives everything to the guard, and the guard gives it back to the same Postfix: mail waits there.
/// Once the route is mended, each letter is out or held, and none is a bounce.
#[test]
fn a_next_hop_that_sends_everything_back_makes_mail_wait() {
    if missing() {
        return;
    }
    const LETTERS: usize = 12;
    let sink = Sink::smtp();
    let front = crate::claim::Port::claim();
    let ours = postfix::Settings::default().variant_a(front.address()).patient();
    let ours = Postfix::start(&ours);
    let mut guard = Guard::start_at(front, Settings::before(ours.submission()));
    let mut client = Client::open(ours.submission());
    let mut waiting = 0;
    // Why one after another: each comes back at once, on a machine that is busy as well.
    for number in 1..=LETTERS {
        let id = format!("lost-{number}");
        client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, &id)));
        waiting = until("each letter to wait or to be held", || {
            let queue = ours.queue();
            let waits = queue.iter().filter(|one| one.queue == "deferred").count();
            let settled = waits == queue.len() && waits + guard.quarantine().len() == number;
            settled.then_some(waits)
        });
    }
    let reasons = guard.audit_of(BOB);
    let named = |reason: &str| reasons.iter().filter(|record| record["reason"] == reason).count();
    println!("misrouting: {waiting} of {LETTERS} wait, {} are held", guard.quarantine().len());
    assert!(waiting > 0 && guard.quarantine().len() <= 10, "the first ones show it");
    assert!(named("misrouting") >= waiting, "{} of {waiting}", named("misrouting"));
    assert!(guard.log().contains("correct its route"), "the remedy stands in the log");

    guard.stop();
    guard.configure(Settings::before(sink.address()));
    guard.resume();
    until("what waited to go its way", || {
        ours.flush();
        ours.queue().is_empty().then_some(())
    });
    assert_eq!(sink.count_taken() + guard.quarantine().len(), LETTERS);
    let bounced = |records: Vec<serde_json::Value>| records.iter().any(|one| one["class"] == "dsn");
    assert!(!bounced(guard.audit()), "no bounce");
}
