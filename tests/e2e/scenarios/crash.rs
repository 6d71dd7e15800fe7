//! Kills, stops and reloads in the middle of much mail, with a real Postfix in front.

use super::{ALICE, BOB, GONE, STRANGER, mailboxes, postfix_host};
use crate::client::{Door, Mail, flood};
use crate::guard::{Guard, Settings};
use crate::ledger::{Entry, Ledger, mark, marked};
use crate::mail::{letter, vacation_reply};
use crate::servers::missing;
use crate::servers::postfix::Postfix;
use crate::sink::{self, Act, Sink};
use crate::wait::until;

const MESSAGES: u32 = 1000;

/// Half of it from inside: letters, and replies to two, of whom one must not get his. A quarter
/// bounces to genuine senders; a quarter bounces to forged ones, of which every other is a copy of
/// one campaign.
fn mails(ledger: &mut Ledger) -> (Vec<Mail>, Vec<Mail>) {
    let (mut letters, mut bounced) = (Vec::new(), Vec::new());
    for number in 0..MESSAGES {
        let id = mark(number);
        let mail = |from: &str, to: &str, id: &str| Mail::new(from, &[to], letter(from, to, id));
        if number % 2 == 0 {
            ledger.sent(number, BOB);
            if number % 10 == 0 {
                ledger.sent(number, STRANGER);
                let reply = vacation_reply(ALICE, BOB, &id);
                letters.push(Mail::new(ALICE, &[BOB, STRANGER], reply));
            } else {
                letters.push(mail(ALICE, BOB, &id));
            }
            continue;
        }
        let (domain, subject) = match number % 8 {
            1 | 5 => ("friend.example", id.as_str()),
            3 => ("victim.example", id.as_str()),
            _ => ("victim.example", "campaign"),
        };
        let from = format!("{id}x@{domain}");
        ledger.sent(number, &from);
        bounced.push(mail(&from, GONE, subject));
    }
    (letters, bounced)
}

/// What runs while the mail flows.
struct Stage {
    sink: Sink,
    guard: Guard,
}

/// Sends all of it through Postfix and the guard, and disturbs them five times. Gives the stage, the
/// books with every place entered, and Postfix's log.
fn under_load(disturb: impl Fn(&mut Stage, usize)) -> (Stage, Ledger, String) {
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let guard = Guard::start(
        Settings::before(sink.address())
            .talkative()
            .set("lists.allow", vec!["far.example"])
            .set("lists.deny", vec!["stranger.example"])
            .set("audit.rotate_bytes", "256KiB"),
    );
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    let mut ledger = Ledger::default();
    let (letters, bounced) = mails(&mut ledger);

    let mut stage = Stage { sink, guard };
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| flood(Door::Plain(postfix.submission()), 3, &letters));
        let outside = scope.spawn(|| flood(postfix.border(), 3, &bounced));
        for round in 0..5 {
            disturb(&mut stage, round);
        }
        let early = postfix.queue().len();
        assert!(early > 0, "the mail was through before the last disturbance");
        assert!(inside.join().unwrap().iter().all(|answer| answer.accepted()));
        assert!(outside.join().unwrap().iter().all(|answer| answer.accepted()));
    });
    postfix.drained();

    ledger.arrived(&stage.sink);
    ledger.held(&stage.guard);
    ledger.assert_nothing_lost();
    every_recipient_has_a_record(&stage.guard, &ledger);
    (stage, ledger, postfix.log())
}

/// Waits until the mail flows.
fn more_has_arrived(sink: &Sink) {
    sink.wait_for(sink.count_taken() + 50);
}

/// Goal: laws 1 and 2 of the house. Method: the books. kill -9 while messages go out, and while one
/// is on its way into the quarantine. A message is there twice only where Postfix lost the reply.
#[test]
fn a_killed_guard_loses_nothing() {
    if missing() {
        return;
    }
    let (_stage, ledger, log) = under_load(|Stage { sink, guard }, round| {
        match round % 2 {
            0 => more_has_arrived(sink),
            _ => until("something on its way in", || (guard.pending() > 0).then_some(())),
        }
        guard.crash();
        guard.resume();
    });
    assert_doubled_only_where_told_nothing(&ledger, &log);
}

/// Goal: the same for the next hop. Method: it dies with its open sessions, and now and then right
/// after it has taken a message.
#[test]
fn a_dying_next_hop_loses_nothing() {
    if missing() {
        return;
    }
    let (_stage, ledger, log) = under_load(|Stage { sink, .. }, _| {
        more_has_arrived(sink);
        sink.order(sink::Stage::EndOfData, "", Act::TakeAndClose, 5);
        sink.stop();
        sink.resume();
    });
    assert_doubled_only_where_told_nothing(&ledger, &log);
}

/// Goal: what an administrator does costs nothing at all. Method: stops and reloads; no message is
/// lost, and none is there twice.
#[test]
fn stops_and_reloads_neither_lose_nor_double() {
    if missing() {
        return;
    }
    let (_stage, ledger, _) = under_load(|Stage { sink, guard }, round| {
        more_has_arrived(sink);
        if round % 2 == 0 {
            assert!(guard.stop().success());
            guard.resume();
        } else {
            guard.reload();
        }
    });
    ledger.assert_balanced();
}

fn assert_doubled_only_where_told_nothing(ledger: &Ledger, log: &str) {
    let doubled = ledger.balance().doubled;
    println!("{} of {MESSAGES} messages are there twice", doubled.len());
    for (entry, places) in &doubled {
        assert!(places.iter().all(|place| *place == places[0]), "{entry:?}: {places:?}");
        let lost = lost_replies(log, entry);
        assert!(places.len() <= 1 + lost, "{entry:?}: {places:?}, but {lost} lost replies");
    }
}

/// How often Postfix did not hear what became of a message that it, or the guard for it, had sent to
/// its end.
fn lost_replies(log: &str, entry: &Entry) -> usize {
    let id = mark(entry.mark);
    let named = |line: &&str| line.contains("message-id=<") && line.contains(&id);
    let queue_ids = log.lines().filter(named).filter_map(|line| line.split(": ").nth(1));
    let queue_ids: Vec<&str> = queue_ids.collect();
    let recipient = format!(": to=<{}>", entry.recipient);
    let about = |line: &&str| {
        // The recipient of a bounce bears the mark; all others are the same few.
        let own = recipient.contains(&id) || queue_ids.iter().any(|id| line.contains(id));
        own && line.contains(&recipient)
    };
    let lost = |line: &&str| {
        line.contains("while sending end of data -- message may be sent more")
            || line.contains("said: 451 4.4.1 next hop ") && line.contains(": final dot: ")
    };
    log.lines().filter(about).filter(lost).count()
}

/// What was told 250 stands in the audit log, crash or not.
fn every_recipient_has_a_record(guard: &Guard, ledger: &Ledger) {
    let mut missing: Vec<Entry> = ledger.entries().to_vec();
    for record in guard.audit() {
        let accepted = record["reply"].as_str().is_some_and(|reply| reply.starts_with("250 "));
        let mark = marked(record.to_string().as_bytes());
        if accepted && let Some(mark) = mark {
            missing.retain(|entry| entry.mark != mark || record["rcpt"] != *entry.recipient);
        }
    }
    assert!(missing.is_empty(), "no record of {missing:?}");
}
