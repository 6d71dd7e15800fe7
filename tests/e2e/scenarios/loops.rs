//! Mail that goes round: two hosts that forward to one another, the guard between them.

use super::{ALICE, BOB};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{forged_bounce, letter};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::wait::until;

/// Forwards to `there@branch.example`, which forwards back.
const HERE: &str = "here@ours.example";
const THERE: &str = "there@branch.example";

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
    // Another site: it knows `branch.example`, and gives all other mail to its own way out.
    let theirs = postfix::Settings::default()
        .set("myhostname", "mx.branch.example")
        .set("virtual_mailbox_domains", "branch.example")
        .set("transport_maps", "texthash:/etc/postfix/transport")
        .file("transport", format!("ours.example smtp:[127.0.0.1]:{}\n", ours.submission().port()))
        .next_hop(sink.address())
        .forward(THERE, HERE);
    let theirs = Postfix::start(&theirs);
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
