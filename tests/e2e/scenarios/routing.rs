//! The shipped configuration of the servers: what it leads through the guard, and that nothing goes
//! round. Each message that passed the guard has one record there.

use std::collections::BTreeMap;

use super::{ALICE, BOB, FORGED, STRANGER, VICTIM};
use crate::claim::Port;
use crate::client::{Client, Door, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{field, letter};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::exim::{self, Exim};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{Which, missing, shipped};
use crate::sink::{Act, Protocol, Sink, Stage};
use crate::wait::until;

/// Forwards to a host that refuses.
const DAVE: &str = "dave@ours.example";
const DAVE_OUTSIDE: &str = "dave@elsewhere.example";

fn refuse_dave(sink: &Sink) {
    sink.order(Stage::Rcpt, DAVE_OUTSIDE, Act::Say("550 5.7.1 Looks like spam"), usize::MAX);
}

/// Two letters that are forwarded, refused and so bounced, one of them forged; and a personal one
/// from inside.
fn bounces_and_letter(border: Door, submission: std::net::SocketAddr) {
    let mut outside = Client::from_outside(border, "192.0.2.55", "mail.forger.example");
    for from in [VICTIM, STRANGER] {
        outside.deliver(&Mail::new(from, &[DAVE], letter(from, DAVE, "spam")));
    }
    let mut inside = Client::open(submission);
    inside.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "personal")));
}

/// How often mail to each recipient passed the guard to its end. What the next hop refused before
/// DATA is not counted.
fn passes(guard: &Guard) -> BTreeMap<String, usize> {
    let mut passes = BTreeMap::new();
    for record in guard.audit() {
        *passes.entry(record["rcpt"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    passes
}

fn once(recipients: &[&str]) -> BTreeMap<String, usize> {
    recipients.iter().map(|&recipient| (recipient.to_owned(), 1)).collect()
}

/// The forged sender's bounce is held, the other one is out; nothing is left behind.
fn assert_judged(guard: &Guard, bounces_at: &Sink) {
    assert_eq!(bounces_at.wait_for_text("Action: failed").addresses(), [STRANGER]);
    until("the other bounce to be held", || (guard.held_for() == [VICTIM]).then_some(()));
}

#[test]
fn postfix_a_leads_everything_through_the_guard() {
    if missing() {
        return;
    }
    let keywords = ["XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT", "8BITMIME", "DSN"];
    let sink = Sink::announcing(Protocol::Smtp, &keywords);
    refuse_dave(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let settings = postfix::Settings::default()
        .forward(DAVE, DAVE_OUTSIDE)
        .authentication_results("victim.example", FORGED);
    let postfix = Postfix::start(&settings.variant_a(guard.address()));

    bounces_and_letter(postfix.border(), postfix.submission());
    let program = b"Subject: from a program\n\nDone.\n";
    postfix.sendmail("cron@ours.example", &["root@far.example"], program);

    let mut watched = Mail::new(ALICE, &["ann@far.example"], letter(ALICE, BOB, "watched"));
    watched.parameters = "RET=HDRS ENVID=abc".to_owned();
    watched.recipients[0].1 = "NOTIFY=SUCCESS,FAILURE".to_owned();
    Client::open(postfix.submission()).deliver(&watched);

    assert_judged(&guard, &sink);
    // What was asked of Postfix is asked of the next hop (RFC 3461).
    let watched = sink.wait_for_text("letter watched");
    let asked = [watched.parameters, watched.recipients[0].parameters.clone()].concat();
    for word in ["RET=HDRS", "ENVID=abc", "NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;ann@far.example"]
    {
        assert!(asked.contains(&word.to_owned()), "{word}: {asked:?}");
    }
    // What Postfix says of a message's origin (XFORWARD_README): nothing but LOCAL for what was made
    // on this host; LOCAL as well for a client on this host, but with its address.
    assert_eq!(sink.wait_for_text("Action: failed").xforward, ["SOURCE=LOCAL"]);
    assert_eq!(sink.wait_for_text("Subject: from a program").xforward, ["SOURCE=LOCAL"]);
    let personal = sink.wait_for_text("letter personal").xforward;
    assert!(personal.contains(&"ADDR=127.0.0.1".to_owned()), "{personal:?}");
    postfix.drained();
    assert_eq!(
        passes(&guard),
        once(&[VICTIM, STRANGER, BOB, "root@far.example", "ann@far.example"])
    );
    let said = &guard.wait_for_record(BOB)["xforward"];
    assert!(said.to_string().contains(r#"{"name":"ADDR","value":"127.0.0.1"}"#), "{said}");
}

#[test]
fn postfix_b_leads_the_null_sender_through_the_guard() {
    if missing() {
        return;
    }
    let (smarthost, behind_guard) = (Sink::smtp(), Sink::smtp());
    refuse_dave(&smarthost);
    let guard = Guard::start(Settings::before(behind_guard.address()));
    let settings = postfix::Settings::default()
        .forward(DAVE, DAVE_OUTSIDE)
        .authentication_results("victim.example", FORGED);
    let postfix = Postfix::start(&settings.variant_b(guard.address(), smarthost.address()));

    bounces_and_letter(postfix.border(), postfix.submission());

    assert_judged(&guard, &behind_guard);
    smarthost.wait_for_text("letter personal");
    postfix.drained();
    assert_eq!((behind_guard.taken().len(), smarthost.taken().len()), (1, 1));
    assert_eq!(passes(&guard), once(&[VICTIM, STRANGER]));
}

/// A Postfix with variant C, which is its own guard's next hop.
fn postfix_c(which: Which) -> BTreeMap<String, usize> {
    let sink = Sink::smtp();
    refuse_dave(&sink);
    let (front, back) = (Port::claim(), Port::claim());
    let settings = postfix::Settings::default()
        .next_hop(sink.address())
        .forward(DAVE, DAVE_OUTSIDE)
        .authentication_results("victim.example", FORGED)
        .variant_c(front.address(), &back, which);
    let postfix = Postfix::start(&settings);
    let guard = Guard::start_at(front, Settings::before(back.address()));

    bounces_and_letter(postfix.border(), postfix.submission());

    assert_judged(&guard, &sink);
    sink.wait_for_text("letter personal");
    postfix.drained();
    assert_eq!(sink.taken().len(), 2);
    passes(&guard)
}

#[test]
fn postfix_c_leads_automatic_mail_through_the_guard_once() {
    if !missing() {
        assert_eq!(postfix_c(Which::Automatic), once(&[VICTIM, STRANGER]));
    }
}

#[test]
fn postfix_c_leads_everything_through_the_guard_once() {
    if !missing() {
        let mut expected = once(&[VICTIM, STRANGER, BOB]);
        // What comes in for our users makes the detour too, before it is forwarded.
        expected.insert(DAVE_OUTSIDE.to_owned(), 2);
        assert_eq!(postfix_c(Which::Everything), expected);
    }
}

/// An Exim that is its own guard's next hop.
fn exim(which: Which) -> BTreeMap<String, usize> {
    let sink = Sink::smtp();
    refuse_dave(&sink);
    let (front, back) = (Port::claim(), Port::claim());
    let settings = exim::Settings { next_hop: Some(sink.address()), ..exim::Settings::default() };
    let settings = settings
        .forward("dave", DAVE_OUTSIDE)
        .authentication_results("victim.example", FORGED)
        .shipped(front.address(), &back, which);
    let exim = Exim::start(&settings);
    let guard = Guard::start_at(front, Settings::before(back.address()));

    bounces_and_letter(exim.border(), exim.submission());

    assert_judged(&guard, &sink);
    sink.wait_for_text("letter personal");
    exim.drained();
    assert_eq!((sink.taken().len(), exim.frozen()), (2, 0));
    passes(&guard)
}

#[test]
fn exim_leads_automatic_mail_through_the_guard_once() {
    if !missing() {
        assert_eq!(exim(Which::Automatic), once(&[VICTIM, STRANGER]));
    }
}

#[test]
fn exim_leads_everything_through_the_guard_once() {
    if !missing() {
        let mut expected = once(&[VICTIM, STRANGER, BOB]);
        expected.insert(DAVE_OUTSIDE.to_owned(), 2);
        assert_eq!(exim(Which::Everything), expected);
    }
}

/// Goal: no reply is lost, also when the guard cannot take it: why Dovecot hands in at Postfix.
/// Method: a letter to one who is away, with the guard down; the reply waits in Postfix's queue.
#[test]
fn dovecots_replies_wait_in_postfix_and_pass_the_guard() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let mut guard = Guard::start(Settings::before(sink.address()));
    let submission = Port::claim();
    let port = format!("127.0.0.1:{}", submission.number());
    let away = "require \"vacation\";\nvacation \"I am away.\";\n";
    let dovecot = Dovecot::start(&dovecot::Settings {
        conf: shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &port)]),
        scripts: vec![("alice".to_owned(), away.to_owned())],
    });
    let settings = postfix::Settings::default()
        .mailboxes(dovecot.lmtp())
        .master(&format!("{port} inet n - n - - smtpd\n"))
        .variant_a(guard.address());
    let postfix = Postfix::start(&settings);
    guard.stop();

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
    client.deliver(&Mail::new(BOB, &[ALICE], letter(BOB, ALICE, "question")));
    assert_eq!(dovecot.wait_for("alice", 1).len(), 1);
    until("the reply to wait", || {
        let mut queue = postfix.queue().into_iter();
        queue.find(|message| message.queue == "deferred" && message.recipients[0].0 == BOB)
    });

    guard.resume();
    let reply = &sink.wait_for(1)[0];
    assert_eq!((reply.reverse_path.as_str(), reply.addresses()), ("", vec![BOB]));
    assert_eq!(field(&reply.message, "In-Reply-To").unwrap(), "<question@sender.example>");
    postfix.drained();
    let record = guard.wait_for_record(BOB);
    assert_eq!((&record["class"], &record["verdict"]), (&"auto-reply".into(), &"unknown".into()));
    assert_eq!((&record["verdict_by"], &record["action"]), (&"no-tap".into(), &"deliver".into()));
}
