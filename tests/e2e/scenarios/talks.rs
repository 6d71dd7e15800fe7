//! Responders that answer one another, each with a new message: real ones, and over restarts.

use super::rings::{THERE, branch};
use super::{ALICE, BOB};
use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, vacation_reply};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{missing, shipped};
use crate::sink::Sink;
use crate::wait::until;

/// Answers everything at once, remembers nobody, and does so in the mailbox's own name.
const AWAY: &str = "require [\"vacation\", \"vacation-seconds\"];\n\
    vacation :seconds 0 \"I am away.\";\n";
const PLUGIN: &str = "plugin {\n  sieve_extensions = +vacation-seconds\n  \
    sieve_vacation_min_period = 0\n  sieve_vacation_send_from_recipient = yes\n}\n";

/// Takes away by what an automatic answer is known.
const NO_MARKS: &str = "/^(Auto-Submitted|Precedence|X-Auto-Response-Suppress):/ IGNORE\n";

fn away(user: &str, submission: &Port) -> Dovecot {
    let submission = format!("127.0.0.1:{}", submission.number());
    let conf = shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &submission)]);
    Dovecot::start(&dovecot::Settings {
        conf: format!("{conf}{PLUGIN}"),
        scripts: vec![(user.to_owned(), AWAY.to_owned())],
    })
}

/// Goal: two out-of-office replies that answer one another end within the window's limit, whatever
/// the other side does to be taken for a person. Method: two Dovecots; theirs takes every mark of an
/// automatic answer away, of what comes in and of what it writes.
#[test]
fn two_vacations_that_answer_one_another_are_ended() {
    if missing() {
        return;
    }
    let (sink, front) = (Sink::smtp(), Port::claim());
    let (our_port, their_port) = (Port::claim(), Port::claim());
    let (our_boxes, their_boxes) = (away("alice", &our_port), away("there", &their_port));
    let listener = |port: &Port| format!("127.0.0.1:{} inet n - n - - smtpd\n", port.number());
    let ours = postfix::Settings::default()
        .mailboxes(our_boxes.lmtp())
        .master(&listener(&our_port))
        .variant_a(front.address());
    let ours = Postfix::start(&ours);
    let theirs = branch(&sink, ours.submission(), NO_MARKS)
        .mailboxes(their_boxes.lmtp())
        .master(&listener(&their_port));
    let theirs = Postfix::start(&theirs);
    // Why the list: what is known of the sender is another matter, and would hold it as well.
    let settings = Settings::before(theirs.submission()).set("lists.allow", vec![THERE]);
    let guard = Guard::start_at(front, settings);

    let mut client = Client::open(ours.submission());
    client.deliver(&Mail::new(THERE, &[ALICE], letter(THERE, ALICE, "hello")));
    until("the conversation to be ended", || (guard.held_for() == [THERE]).then_some(()));
    ours.drained();
    theirs.drained();
    let records = guard.audit_of(THERE);
    let (last, passed) = records.split_last().unwrap();
    println!("two vacations: {} answers of ours passed, then {}", passed.len(), last["loop"]);
    assert_eq!(passed.len(), 4, "loops.conversation.pair is 4/1h");
    assert_eq!((&last["reason"], &last["class"]), (&"conversation".into(), &"auto-reply".into()));
    assert_eq!(last["loop"]["between"], serde_json::json!([THERE, ALICE]));
    assert!(their_boxes.inbox("there").len() >= 4, "they got what passed");
    assert!(sink.taken().is_empty(), "no bounce leaves");
}

/// Goal: a restart gives them no new window, nor does a crash that comes later than what is written
/// down every ten seconds. Method: answers handed in, the guard stopped or killed in between.
#[test]
fn a_conversation_is_ended_over_restarts_and_crashes() {
    let sink = Sink::smtp();
    let settings = Settings::before(sink.address()).set("lists.allow", vec![BOB]);
    let mut guard = Guard::start(settings);
    let answer = |guard: &Guard, number: usize| {
        let text = vacation_reply(ALICE, BOB, &number.to_string());
        Client::open(guard.address()).deliver(&Mail::new("", &[BOB], text));
    };
    (0..2).for_each(|number| answer(&guard, number));
    guard.stop();
    guard.resume();
    answer(&guard, 2);
    let saved = guard.state_dir().join("conversations");
    let before = std::fs::read(&saved).unwrap();
    until("the third answer to be written down", || {
        (std::fs::read(&saved).unwrap() != before).then_some(())
    });
    guard.crash();
    guard.resume();
    (3..6).for_each(|number| answer(&guard, number));
    let records = guard.audit_of(BOB);
    let reasons = records.iter().map(|record| record["reason"].as_str().unwrap());
    let held = reasons.filter(|reason| *reason == "conversation").count();
    assert_eq!((records.len(), held, sink.taken().len()), (6, 2, 4));
}
