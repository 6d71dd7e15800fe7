//! The tools of these tests do what the tests rely on.

use std::time::{Duration, Instant};

use crate::client::{Client, Door, Mail, flood};
use crate::ledger::{Ledger, mark};
use crate::mail::letter;
use crate::pass::Pass;
use crate::servers::missing;
use crate::servers::postfix::{Postfix, Settings};
use crate::sink::{Act, Fate, Sink, Stage, troubles};

const FROM: &str = "alice@ours.example";
const TO: &str = "bob@far.example";

fn plain_mail() -> Mail {
    Mail::new(FROM, &[TO], letter(FROM, TO, "1"))
}

#[test]
fn the_sink_keeps_envelope_and_bytes() {
    let sink = Sink::smtp();
    let mut client = Client::connect(sink.address());
    client.dialogue(
        "<~ 220 sink.example
         > EHLO client.example
         <~ 250-sink.example
         > MAIL FROM:<a@x.example> SIZE=12 RET=HDRS
         < 250 2.1.0 Ok
         > RCPT TO:<b@y.example> NOTIFY=NEVER
         < 250 2.1.5 Ok
         > DATA
         <~ 354",
    );
    client.bytes(b"Subject: x\r\n\r\n..dot\nbare\r\n\n.\n.\r\n.\r\nQUIT\r\n");
    client.expect_prefix("250 ");
    client.expect("221 2.0.0 Bye");
    client.expect_closed();
    let taken = &sink.wait_for(1)[0];
    // A dot is doubled after CRLF and nowhere else; a lone LF ends nothing.
    assert_eq!(taken.message, b"Subject: x\r\n\r\n.dot\nbare\r\n\n.\n.\r\n");
    assert_eq!(
        (taken.reverse_path.as_str(), taken.addresses()),
        ("a@x.example", vec!["b@y.example"])
    );
    assert_eq!(taken.parameters, ["SIZE=12", "RET=HDRS"]);
    assert_eq!(taken.recipients[0].parameters, ["NOTIFY=NEVER"]);
    assert_eq!(sink.commands().len(), 5);
}

#[test]
fn the_sink_fails_at_every_stage_as_ordered() {
    for (stage, act) in troubles() {
        let sink = Sink::smtp();
        sink.order(stage, "", act.clone(), 1);
        let (code, taken) = match act {
            Act::Say(reply) => (reply[..3].parse().unwrap(), 0),
            Act::TakeAndClose => (0, 1),
            _ => (0, 0),
        };
        let mut client = Client::open(sink.address());
        assert_eq!(client.send(&plain_mail()).last.code(), code, "{stage:?} {act:?}");
        assert_eq!(sink.count_taken(), taken, "{stage:?} {act:?}");
        // The order was for one time.
        Client::open(sink.address()).deliver(&plain_mail());
        assert_eq!(sink.count_taken(), taken + 1);
    }
}

#[test]
fn the_sink_stalls_answers_late_and_dies_after_taking() {
    let sink = Sink::smtp();
    sink.order(Stage::Rcpt, TO, Act::Stall, 1);
    let mut client = Client::open(sink.address());
    client.command("MAIL FROM:<>").must();
    client.say(&format!("RCPT TO:<{TO}>"));
    client.expect_silence(Duration::from_millis(50));

    let late = Duration::from_millis(50);
    sink.order(Stage::EndOfData, "", Act::Late(late), 1);
    let start = Instant::now();
    Client::open(sink.address()).deliver(&plain_mail());
    assert!(start.elapsed() >= late);

    sink.at(Stage::EndOfData, Act::TakeAndClose);
    assert_eq!(Client::open(sink.address()).send(&plain_mail()).last.code(), 0);
    let fates: Vec<Fate> = sink.transactions().into_iter().map(|one| one.fate).collect();
    assert_eq!(fates, [Fate::Taken, Fate::Taken]);
}

#[test]
fn an_lmtp_sink_answers_for_each_recipient() {
    let sink = Sink::lmtp();
    sink.order(Stage::EndOfData, "full@", Act::Say("452 4.2.2 Full"), usize::MAX);
    let mut client = Client::connect(sink.address());
    client.expect_prefix("220");
    client.command("LHLO client.example").must();
    for line in ["MAIL FROM:<>", "RCPT TO:<full@ours.example>", "RCPT TO:<empty@ours.example>"] {
        client.command(line).must();
    }
    client.say("DATA");
    client.expect_prefix("354");
    client.bytes(b"Subject: x\r\n\r\n.\r\n");
    client.expect("452 4.2.2 Full");
    client.expect_prefix("250");
    assert_eq!(sink.taken().len(), 1);
    assert_eq!(sink.taken()[0].addresses(), ["empty@ours.example"]);
}

/// Goal: the books can carry a crash in the middle of much mail. Method: what stands for the guard
/// dies three times while Postfix hands on 300 messages; all arrive, or the books say which not.
#[test]
fn the_books_are_right_after_crashes() {
    const MESSAGES: u32 = 300;
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let mut guard = Pass::to(sink.address());
    let postfix = Postfix::start(&Settings::default().variant_a(guard.address()));
    let mut ledger = Ledger::default();
    let mails: Vec<Mail> = (0..MESSAGES)
        .map(|number| {
            ledger.sent(number, TO);
            Mail::new(FROM, &[TO], letter(FROM, TO, &mark(number)))
        })
        .collect();

    let submission = Door::Plain(postfix.submission());
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| flood(submission, 4, &mails));
        for crash in 1..=3 {
            sink.wait_for(crash * 50);
            guard.crash();
            guard.resume();
        }
        assert!(sender.join().unwrap().iter().all(|answer| answer.accepted()));
    });
    // What was on its way at a crash is tried again.
    postfix.drained();
    ledger.queued_postfix(&postfix);
    ledger.arrived(&sink);
    ledger.assert_nothing_lost();
}
