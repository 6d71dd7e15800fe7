//! Everything goes wrong at once, and nothing is lost.
//!
//! A sender numbers its messages and tries each until it has an answer that lasts. The next hop
//! refuses, stalls, leaves and dies; the guard is killed; its disk fills up; DNS is silent, slow or
//! lies. In the end the books are made up. `scripts/ledger` does it with 100,000 messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use super::{ALICE, FORGED, GENUINE, STRANGER};
use crate::client::{Client, Mail};
use crate::disk::SmallDisk;
use crate::dns::{Fault, Times};
use crate::guard::{Guard, Settings};
use crate::ledger::{Balance, Entry, Ledger, Place, mark};
use crate::mail::{letter, own_bounce, vacation_reply};
use crate::random::Random;
use crate::sink::{Act, Sink, Stage, troubles};
use crate::wait::within;

/// Messages when `REPLYGUARD_LEDGER` says nothing.
const MESSAGES: u32 = 1500;

/// Sessions of the sender at once.
const SESSIONS: usize = 8;

/// How long the sender waits for an answer before it takes the connection for dead.
const SENDER_PATIENCE: Duration = Duration::from_secs(3);

/// What became of the sender's tries.
#[derive(Debug, Default)]
struct Sent {
    tries: usize,
    /// Entries refused for good: the sender tells its user.
    returned: Vec<Entry>,
    /// How often the answer to a whole message was lost, here or behind the guard.
    lost_answers: BTreeMap<u32, usize>,
}

/// Goal: law 1. Method: the books, after every kind of fault in an order that a seed picks.
#[test]
fn everything_goes_wrong_and_nothing_is_lost() {
    let count = std::env::var("REPLYGUARD_LEDGER").ok();
    let count = count.map_or(MESSAGES, |count| count.parse().unwrap());
    let Some(disk) = SmallDisk::of_kib(64 * 1024 + 16 * count) else { return };
    let state = disk.path().join("state");
    let mut sink = Sink::smtp();
    let settings = Settings::before(sink.address())
        .talkative()
        .set("state_dir", state.to_str().unwrap())
        .set("dns.timeout", "1s");
    let mut guard = Guard::start(settings);

    let (mut ledger, mut mails) = (Ledger::default(), VecDeque::new());
    for number in 0..count {
        let mail = mail(number);
        for (recipient, _) in &mail.recipients {
            ledger.sent(number, recipient);
        }
        mails.push_back((number, mail));
    }
    let queue = Mutex::new(mails);
    let (sent, open) = (Mutex::new(Sent::default()), AtomicUsize::new(count as usize));
    let mut done = [0; FAULTS];
    let address = guard.address();
    scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| sender(address, &queue, &sent, &open));
        }
        let mut random = Random(count.into());
        while open.load(Ordering::Relaxed) > 0 {
            let before = open.load(Ordering::Relaxed);
            let step = (count as usize / 80).clamp(5, 400);
            within(Duration::from_secs(2), || {
                let now = open.load(Ordering::Relaxed);
                (now == 0 || before - now >= step).then_some(())
            });
            let fault = random.below(FAULTS);
            done[fault] += 1;
            go_wrong(fault, &mut random, &mut guard, &mut sink, &disk);
        }
    });

    ledger.arrived(&sink);
    ledger.held(&guard);
    let sent = sent.into_inner().unwrap();
    account(&ledger, &sent, &done);
}

/// The message of this number: letters, bounces about genuine and forged mail, replies.
fn mail(number: u32) -> Mail {
    let id = mark(number);
    let bounce = |domain: &str, text: &str, results: &str| {
        let to = format!("{id}x@{domain}");
        Mail::new("", &[&to], own_bounce(&to, text, results))
    };
    let others = [format!("bob{number}@far.example"), format!("eve{number}@far.example")];
    match number % 10 {
        6 => bounce("friend.example", &id, GENUINE),
        7 => bounce("victim.example", &id, FORGED),
        8 => bounce("victim.example", "campaign", FORGED),
        9 => Mail::new(ALICE, &[&others[0], STRANGER], vacation_reply(ALICE, &others[0], &id)),
        5 => Mail::new(ALICE, &[&others[0], &others[1]], letter(ALICE, &others[0], &id)),
        _ => Mail::new(ALICE, &[&others[0]], letter(ALICE, &others[0], &id)),
    }
}

/// A thread of the sender: tries whatever is next in the queue, and puts back what must wait.
fn sender(
    guard: std::net::SocketAddr,
    queue: &Mutex<VecDeque<(u32, Mail)>>,
    sent: &Mutex<Sent>,
    open: &AtomicUsize,
) {
    let mut client: Option<Client> = None;
    while open.load(Ordering::Relaxed) > 0 {
        let next = queue.lock().unwrap().pop_front();
        client = client.or_else(|| Client::try_open(guard, SENDER_PATIENCE));
        let (Some((number, mut mail)), Some(talking)) = (next.clone(), client.as_mut()) else {
            queue.lock().unwrap().extend(next);
            // A sender waits before it tries again; nothing depends on how long.
            sleep(Duration::from_millis(20));
            continue;
        };
        let answer = talking.send(&mail);
        let code = answer.last.code();
        let mut sent = sent.lock().unwrap();
        sent.tries += 1;
        let lost = code == 0 || answer.last.text().contains("final dot");
        if answer.is_whole && lost {
            *sent.lost_answers.entry(number).or_default() += 1;
        }
        let replies: Vec<u16> = answer.recipients.iter().map(|reply| reply.code()).collect();
        let mut left = Vec::new();
        for (index, recipient) in std::mem::take(&mut mail.recipients).into_iter().enumerate() {
            let entry = || Entry { mark: number, recipient: recipient.0.clone() };
            match replies.get(index) {
                Some(500..) => sent.returned.push(entry()),
                // The last word is about those whom RCPT accepted.
                Some(200..300) if code == 250 => {}
                Some(200..300) | None if code >= 500 => sent.returned.push(entry()),
                _ => left.push(recipient),
            }
        }
        drop(sent);
        match left.is_empty() {
            true => drop(open.fetch_sub(1, Ordering::Relaxed)),
            false => {
                mail.recipients = left;
                queue.lock().unwrap().push_back((number, mail));
            }
        }
        if code == 0 || code == 421 {
            client = None;
        }
    }
}

/// Kinds of faults.
const FAULTS: usize = 6;
const FAULT_NAMES: [&str; FAULTS] = [
    "the guard killed (-9) and started",
    "the next hop down and up",
    "its disk full, then not",
    "DNS silent, failing, slow or lying",
    "the next hop refusing, leaving, dying",
    "the same at a byte of the message",
];

fn go_wrong(
    fault: usize,
    random: &mut Random,
    guard: &mut Guard,
    sink: &mut Sink,
    disk: &SmallDisk,
) {
    let some = |random: &mut Random| {
        within(Duration::from_millis(random.below(700).try_into().unwrap()), || None::<()>)
    };
    match fault {
        0 => {
            guard.crash();
            guard.resume();
        }
        1 => {
            sink.stop();
            some(random);
            sink.resume();
        }
        2 => {
            disk.fill_but(random.below(40));
            some(random);
            disk.clear();
        }
        3 => {
            let faults = [
                Fault::Silence,
                Fault::ServFail,
                Fault::NoSuchName,
                Fault::Garbage,
                Fault::Delay(Duration::from_millis(300)),
            ];
            for name in ["friend.example", "victim.example", "far.example"] {
                guard.dns().fault(name, None, faults[random.below(faults.len())], Times::Always);
            }
            some(random);
            guard.dns().heal();
        }
        4 => {
            sink.behave();
            let mut troubles = troubles();
            troubles.push((Stage::EndOfData, Act::Stall));
            troubles.push((Stage::Rcpt, Act::Late(Duration::from_millis(100))));
            for _ in 0..6 {
                let (stage, act) = troubles[random.below(troubles.len())].clone();
                sink.order(stage, "", act, 1 + random.below(4));
            }
        }
        _ => {
            for _ in 0..6 {
                let act = [Act::Close, Act::Say("451 4.3.0 Later")][random.below(2)].clone();
                sink.order(Stage::MidData(random.below(1500)), "", act, 1 + random.below(3));
            }
        }
    }
}

/// Prints the books, and asserts that they balance.
fn account(ledger: &Ledger, sent: &Sent, faults: &[usize; FAULTS]) {
    let Balance { lost, doubled, strange } = ledger.balance();
    let (lost, kept): (Vec<Entry>, Vec<Entry>) =
        lost.into_iter().partition(|entry| !sent.returned.contains(entry));
    let forged =
        ledger.in_place(Place::Arrived, |entry| entry.recipient.ends_with("@victim.example"));
    let untold = doubled.iter().filter(|(entry, places)| {
        let lost_answers = sent.lost_answers.get(&entry.mark).copied().unwrap_or(0);
        places.len() > 1 + lost_answers
    });
    let untold: Vec<_> = untold.collect();
    let all = |_: &Entry| true;
    let rows = [
        ("messages for one recipient", ledger.entries().len()),
        ("tries of the sender", sent.tries),
        ("arrived", ledger.in_place(Place::Arrived, all)),
        ("held", ledger.in_place(Place::Held, all)),
        ("refused, with the sender", kept.len()),
        ("twice, after a lost answer", doubled.len() - untold.len()),
        ("twice without a reason", untold.len()),
        ("answers to forged senders", forged),
        ("lost", lost.len()),
    ];
    for (what, count) in
        FAULT_NAMES.iter().zip(faults).chain(rows.iter().map(|(what, count)| (what, count)))
    {
        println!("{what:<40} {count:>9}");
    }
    assert!(lost.is_empty() && strange.is_empty(), "lost {lost:?}, never sent {strange:?}");
    assert!(untold.is_empty(), "twice without a reason: {untold:?}");
    assert_eq!(forged, 0, "an answer went to a forged sender");
}
