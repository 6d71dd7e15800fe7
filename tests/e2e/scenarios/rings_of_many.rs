//! Rings through Sieve, through three sites, through two guards; and paths that only look like one.

use std::net::SocketAddr;

use super::rings::{BANNER, HERE, REWRITES, STRIPS, THERE, cut, theirs};
use super::{ALICE, BOB, STRANGER};
use crate::claim::Port;
use crate::client::{Client, Door, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{header, letter, vacation_reply};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{missing, shipped};
use crate::sink::{Act, Sink, Stage};
use crate::wait::until;

/// A mail host of ours whose mailboxes are Dovecot's, and its guard.
struct SieveHost {
    postfix: Postfix,
    dovecot: Dovecot,
    guard: Guard,
    _submission: Port,
}

/// `here` redirects to this address by Sieve.
fn sieve_host(front: Port, next_hop: SocketAddr, port: Port, to: &str, plugin: &str) -> SieveHost {
    let submission = format!("127.0.0.1:{}", port.number());
    let conf = shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &submission)]);
    let dovecot = Dovecot::start(&dovecot::Settings {
        conf: format!("{conf}plugin {{\n{plugin}}}\n"),
        scripts: vec![("here".to_owned(), format!("redirect \"{to}\";\n"))],
    });
    let postfix = postfix::Settings::default()
        .mailboxes(dovecot.lmtp())
        .master(&format!("{submission} inet n - n - - smtpd\n"))
        .variant_a(front.address());
    let postfix = Postfix::start(&postfix);
    let guard = Guard::start_at(front, Settings::before(next_hop));
    SieveHost { postfix, dovecot, guard, _submission: port }
}

/// A site whose Postfix forwards `there` back, before it is known where our own Postfix listens:
/// ours needs to know the guard, the guard needs to know theirs.
fn sieve_ring(header: &str, body: &str) -> (SieveHost, Postfix, Sink) {
    let (sink, front, submission) = (Sink::smtp(), Port::claim(), Port::claim());
    let theirs = theirs(&sink, submission.address(), header, body);
    let host = sieve_host(front, theirs.submission(), submission, THERE, "");
    let mut client = Client::open(host.postfix.submission());
    client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
    (host, theirs, sink)
}

/// Goal: Sieve's own memory of what it sent on and our guard do not work against one another.
/// Method: a ring that leaves everything as it is: it ends early, in silence, and the letter is
/// either in the mailbox or held.
#[test]
fn a_ring_of_sieve_and_postfix_ends_by_itself_or_by_us() {
    if missing() {
        return;
    }
    let (host, theirs, sink) = sieve_ring("", "");
    until("the ring to end", || {
        let kept = host.dovecot.inbox("here").len() + host.guard.quarantine().len();
        (kept > 0).then_some(())
    });
    host.postfix.drained();
    theirs.drained();
    let passed = host.guard.audit_of(THERE);
    let passed = passed.iter().filter(|record| record["action"] == "deliver").count();
    println!("Sieve: {passed} copies passed, {} kept", host.dovecot.inbox("here").len());
    assert!(passed <= 2, "{passed}");
    assert!(sink.taken().is_empty(), "no bounce leaves");
}

/// Goal: nor does it matter that it is Sieve's redirect where the other side makes a new message of
/// each, so that Sieve does not know it again. Method: with our trace kept, and taken away.
#[test]
fn a_ring_of_sieve_and_a_forwarder_that_rewrites_is_cut() {
    if missing() {
        return;
    }
    const NO_SIEVE: &str = "/^X-Sieve/ IGNORE\n/^Delivered-To:/ IGNORE\n";
    for (strips, most) in [("", 2), (STRIPS, 5)] {
        let header = format!("{NO_SIEVE}{strips}{REWRITES}");
        let (host, theirs, sink) = sieve_ring(&header, BANNER);
        let (passed, kind) = cut(&host.guard);
        assert!(passed <= most, "{passed}");
        assert_eq!(kind, if strips.is_empty() { "lap" } else { "progression" });
        host.postfix.drained();
        theirs.drained();
        assert_eq!((sink.taken().len(), host.dovecot.inbox("here").len()), (0, 0));
    }
}

/// A third site, which forwards `far` to us.
const FAR: &str = "far@third.example";

/// Goal: a ring of three is cut as early as one of two. Method: two other sites, which leave our
/// trace or take it away; the guard sees one leg of the ring.
#[test]
fn a_ring_of_three_is_cut() {
    if missing() {
        return;
    }
    for (header, most) in [("", 2), (STRIPS, 3)] {
        let (sink, front) = (Sink::smtp(), Port::claim());
        let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
        let ours = Postfix::start(&ours);
        let site = |name: &str, next: &str, to: SocketAddr| {
            postfix::Settings::default()
                .set("myhostname", format!("mx.{name}"))
                .set("virtual_mailbox_domains", name)
                .set("transport_maps", "texthash:/etc/postfix/transport")
                .file("transport", format!("{next} smtp:[127.0.0.1]:{}\n", to.port()))
                .set("header_checks", "regexp:/etc/postfix/header")
                .file("header", header)
                .next_hop(sink.address())
        };
        let third = site("third.example", "ours.example", ours.submission()).forward(FAR, HERE);
        let third = Postfix::start(&third);
        let second = site("branch.example", "third.example", third.submission());
        let second = Postfix::start(&second.forward(THERE, FAR));
        let guard = Guard::start_at(front, Settings::before(second.submission()));
        let mut client = Client::open(ours.submission());
        client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
        assert_eq!(cut(&guard).0, most);
        [&ours, &second, &third].into_iter().for_each(Postfix::drained);
        assert!(sink.taken().is_empty(), "no bounce leaves");
    }
}

/// Goal: parallel guards know one another's traces. Method: each guards one leg of a ring; they
/// share the site and the file of the key, and nothing else.
#[test]
fn a_ring_through_two_guards_of_one_site_is_cut_at_the_third_transit() {
    if missing() {
        return;
    }
    let (sink, state) = (Sink::smtp(), tempfile::tempdir().unwrap());
    let (front, back) = (Port::claim(), Port::claim());
    let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
    let ours = Postfix::start(&ours);
    let theirs = theirs(&sink, back.address(), "", "");
    let first = Settings::before(theirs.submission()).set("loops.site", "both");
    let first = Guard::start_at(front, first);
    std::fs::copy(first.state_dir().join("trace.key"), state.path().join("trace.key")).unwrap();
    let second = Settings::before(ours.submission())
        .set("loops.site", "both")
        .set("state_dir", state.path().to_str().unwrap());
    let second = Guard::start_at(back, second);
    let mut client = Client::open(ours.submission());
    client.deliver(&Mail::new(ALICE, &[HERE], letter(ALICE, HERE, "goes-round")));
    let held = || [first.held_for(), second.held_for()].concat();
    until("the ring to be cut", || (!held().is_empty()).then_some(()));
    ours.drained();
    theirs.drained();
    let (there, here) = (first.audit_of(THERE), second.audit_of(HERE));
    println!("two guards: {} transits of the first, {} of the second", there.len(), here.len());
    assert_eq!((there.len(), here.len(), held()), (2, 1, vec![THERE.to_owned()]));
    assert_eq!(there[1]["loop"]["kind"], "lap");
    assert!(sink.taken().is_empty(), "no bounce leaves");
}

/// Goal: what walks through several guards is no loop. Method: two guards in series, responses and
/// letters; and one guard with two listeners, between which a scanner stands.
#[test]
fn mail_passes_guards_in_series_and_two_listeners() {
    let sink = Sink::smtp();
    let second = Guard::start(Settings::before(sink.address()).set("hostname", "hub.example"));
    let first = Guard::start(Settings::before(second.address()));
    let mut count = 0;
    let mut expect = |client: &mut Client, mail: &Mail| {
        client.deliver(mail);
        count += 1;
        sink.wait_for(count).pop().unwrap()
    };
    let answer = |id: &str| vacation_reply(ALICE, BOB, id);
    let mut client = Client::open(first.address());
    for (id, to) in [("one", BOB), ("two", STRANGER)] {
        let passed = expect(&mut client, &Mail::new("", &[to], answer(id)));
        let traces = header(&passed.message);
        let traces = traces.iter().filter(|(name, _)| name == "X-Replyguard-Trace").count();
        assert_eq!(traces, 2, "one of each guard");
        expect(&mut client, &Mail::new(ALICE, &[BOB], letter(ALICE, BOB, id)));
    }

    let inner = Port::claim();
    let guard = Guard::start(Settings::before(sink.address()).also_at(&inner));
    let (mut outer, mut inner) = (Client::open(guard.address()), Client::open(inner.address()));
    let out = expect(&mut outer, &Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "scanned")));
    expect(&mut inner, &Mail::new(ALICE, &[BOB], out.message));
    let out = expect(&mut outer, &Mail::new("", &[BOB], answer("scanned")));
    let again = expect(&mut inner, &Mail::new("", &[BOB], out.message));
    let held = |guard: &Guard| guard.quarantine().len();
    assert_eq!((held(&first), held(&second), held(&guard)), (0, 0, 0));
    // The same listener once more: that is a loop.
    inner.deliver(&Mail::new("", &[BOB], again.message));
    assert_eq!(
        (held(&guard), guard.audit().pop().unwrap()["loop"]["kind"].clone()),
        (1, "lap".into())
    );
}

/// Goal: the tap and the proxy of one guard in one path. Method: a letter from outside comes in by
/// the tap, and its reader forwards it; the tap writes no trace.
#[test]
fn mail_passes_the_tap_and_the_proxy_of_one_guard() {
    if missing() {
        return;
    }
    let (sink, front, tap) = (Sink::smtp(), Port::claim(), Port::claim());
    let ours = postfix::Settings::default().forward(HERE, THERE).variant_a(front.address());
    let ours = Postfix::start(&ours);
    let Door::Xclient(border) = ours.border() else { panic!("Postfix speaks XCLIENT") };
    let settings = Settings::before(sink.address())
        .set("tap.smtp.listen", vec![tap.address().to_string()])
        .set("tap.smtp.next_hop", vec![border.to_string()]);
    let guard = Guard::start_at(front, settings);
    let mut client = Client::open(tap.address());
    for id in ["one", "two", "three"] {
        client.deliver(&Mail::new(BOB, &[HERE], letter(BOB, HERE, id)));
        let text = sink.wait_for_text(&format!("letter {id}")).text();
        assert_eq!(text.matches("X-Replyguard-Trace").count(), 1, "the tap writes none: {text}");
    }
    ours.drained();
    assert_eq!((sink.count_taken(), guard.quarantine().len()), (3, 0));
}

/// Goal: the Oxford case. Method: Sieve sends on as the mailbox itself, the provider refuses, our
/// own bounce comes to the mailbox and is sent on as well: to the provider it must not come.
#[test]
fn the_bounce_of_a_refused_redirect_is_not_redirected() {
    if missing() {
        return;
    }
    const PROVIDER: &str = "here@provider.example";
    let sink = Sink::smtp();
    sink.order(Stage::Rcpt, PROVIDER, Act::Say("550 5.7.1 We do not take this"), usize::MAX);
    let plugin = "  sieve_redirect_envelope_from = recipient\n";
    let host = sieve_host(Port::claim(), sink.address(), Port::claim(), PROVIDER, plugin);
    let mut client = Client::from_outside(host.postfix.border(), "192.0.2.7", "mail.far.example");
    client.deliver(&Mail::new(BOB, &[HERE], letter(BOB, HERE, "refused")));
    until("the bounce to be held", || (host.guard.held_for() == [PROVIDER]).then_some(()));
    host.postfix.drained();
    let last = host.guard.audit_of(PROVIDER).pop().unwrap();
    println!("the bounce of a redirect: {}", last["loop"]);
    assert_eq!((&last["reason"], &last["class"]), (&"forwarded-bounce".into(), &"dsn".into()));
    assert_eq!(last["loop"]["between"], serde_json::json!([PROVIDER, HERE]));
    assert!(sink.taken().is_empty());
}
