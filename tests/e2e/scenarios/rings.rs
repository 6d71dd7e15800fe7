//! Rings of real forwarders, which leave the message as it is, or take our trace away, or rewrite
//! it: all are cut early, and nobody gets a bounce. Alone they run to 31 hops (Exim) or 50
//! (Postfix).

use std::net::SocketAddr;

use super::{ALICE, BOB, exim_host};
use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::letter;
use crate::servers::exim::Exim;
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::wait::until;

/// Forwards to `there@branch.example`, which forwards back.
pub const HERE: &str = "here@ours.example";
pub const THERE: &str = "there@branch.example";

/// Takes both our lines away.
pub const STRIPS: &str = "/^X-Replyguard-Trace:/ IGNORE\n/^Received:.*[(]replyguard[)]/ IGNORE\n";
/// Writes Message-ID and Date anew, and a tag before the subject.
pub const REWRITES: &str =
    "/^Message-Id:/ IGNORE\n/^Date:/ IGNORE\n/^Subject: (.*)$/ REPLACE Subject: [EXT] $1\n";
/// Writes a banner above the text.
pub const BANNER: &str = "/^letter / PREPEND CAUTION: this came from outside.\n";

/// The other site: it knows `branch.example`, rewrites header lines as it is told, and gives all
/// other mail to its own way out.
pub fn branch(out: &Sink, ours: SocketAddr, header: &str) -> postfix::Settings {
    postfix::Settings::default()
        .set("myhostname", "mx.branch.example")
        .set("virtual_mailbox_domains", "branch.example")
        .set("transport_maps", "texthash:/etc/postfix/transport")
        .file("transport", format!("ours.example smtp:[127.0.0.1]:{}\n", ours.port()))
        .set("header_checks", "regexp:/etc/postfix/header")
        .file("header", header)
        .next_hop(out.address())
}

/// It forwards `there` back, and rewrites bodies as well.
pub fn theirs(out: &Sink, ours: SocketAddr, header: &str, body: &str) -> Postfix {
    let settings = branch(out, ours, header)
        .set("body_checks", "regexp:/etc/postfix/body")
        .file("body", body)
        .forward(THERE, HERE);
    Postfix::start(&settings)
}

/// What became of the copies for `there`: how many passed, and how the last was found.
pub fn cut(guard: &Guard) -> (usize, String) {
    let records = until("the ring to be cut", || {
        let records = guard.audit_of(THERE);
        records.last().is_some_and(|last| last["action"] == "quarantine").then_some(records)
    });
    assert_eq!(guard.held_for(), [THERE]);
    let (last, passed) = records.split_last().unwrap();
    assert!(passed.iter().all(|record| record["action"] == "deliver"));
    assert_eq!(last["reason"], "loop");
    assert_eq!(last["loop"]["between"], serde_json::json!([THERE, HERE]), "both ends");
    println!("{} copies passed, then {}", passed.len(), last["loop"]);
    (passed.len(), last["loop"]["kind"].as_str().unwrap().to_owned())
}

/// A ring of a Postfix of ours and their Postfix, the guard between them.
fn of_two_postfixes(header: &str, body: &str) -> (usize, String) {
    let sink = Sink::smtp();
    let front = Port::claim();
    let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
    let ours = Postfix::start(&ours);
    let theirs = theirs(&sink, ours.submission(), header, body);
    let guard = Guard::start_at(front, Settings::before(theirs.submission()));
    let mut client = Client::open(ours.submission());
    client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
    let cut = cut(&guard);
    client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "straight")));
    sink.wait_for_text("letter straight");
    ours.drained();
    theirs.drained();
    assert_eq!(sink.taken().len(), 1, "no bounce leaves");
    cut
}

#[test]
fn a_ring_that_takes_our_lines_away_is_cut_at_the_fourth_copy() {
    if missing() {
        return;
    }
    let (passed, kind) = of_two_postfixes(STRIPS, "");
    assert_eq!((passed, kind.as_str()), (3, "progression"));
}

#[test]
fn a_ring_that_rewrites_the_message_is_cut_at_the_sixth_copy_at_the_latest() {
    if missing() {
        return;
    }
    let (passed, kind) = of_two_postfixes(&format!("{STRIPS}{REWRITES}"), BANNER);
    assert!(passed <= 5, "{passed}");
    assert_eq!(kind, "progression");
}

/// Goal: it does not matter whose forwarder it is. Method: Exim's redirect and Postfix's alias.
#[test]
fn a_ring_of_exim_and_postfix_is_cut() {
    if missing() {
        return;
    }
    for (header, most) in [("", 2), (STRIPS, 3)] {
        let sink = Sink::smtp();
        let front = Port::claim();
        let ours = Exim::start(&exim_host(front.address()).forward("here", THERE));
        let theirs = theirs(&sink, ours.submission(), header, "");
        let guard = Guard::start_at(front, Settings::before(theirs.submission()));
        let mut client = Client::open(ours.submission());
        client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
        assert_eq!(cut(&guard).0, most);
        ours.drained();
        theirs.drained();
        assert_eq!((sink.taken().len(), ours.frozen()), (0, 0), "no bounce leaves");
    }
}

/// Goal: `kill -9` in the middle of a ring loses nothing and ends nothing too late. Method: the
/// forwarder is stopped while a copy is with it; the guard that finds the next one is another.
#[test]
fn a_ring_is_cut_by_a_guard_that_was_killed_in_the_middle() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let front = Port::claim();
    let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
    let ours = Postfix::start(&ours);
    let mut theirs = theirs(&sink, ours.submission(), "", "");
    let mut guard = Guard::start_at(front, Settings::before(theirs.submission()));
    theirs.stop();
    let mut client = Client::open(ours.submission());
    client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
    guard.crash();
    theirs.resume();
    guard.resume();
    ours.flush();
    until("the ring to be cut", || {
        ours.flush();
        (guard.held_for() == [THERE]).then_some(())
    });
    ours.drained();
    theirs.drained();
    assert!(guard.audit_of(THERE).len() <= 4);
    assert!(sink.taken().is_empty(), "no bounce leaves");
}
