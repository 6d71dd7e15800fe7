//! A joe job: thousands of bounces to forged senders, one after the other.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::{ALICE, BOB, FORGED};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, own_bounce};
use crate::process::Work;
use crate::servers::exim::{self, Exim};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;

const BOUNCES: usize = 10_000;

const CONNECTIONS: usize = 4;

/// Different spams that are bounced. Copies of one are kept once.
const SPAMS: usize = 20;

/// What a quarter of the bounces cost.
struct Quarter {
    took: Duration,
    work: Work,
}

/// Sends the bounces over a few connections, none of which may be cut, a quarter after the other.
fn joe_job(guard: &Guard) -> Vec<Quarter> {
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|_| Client::open(guard.address())).collect();
    let send = |client: &mut Client, numbers: Range<usize>| {
        for number in numbers {
            let to = format!("joe{number}@victim.example");
            let spam = own_bounce(&to, &format!("spam-{}", number % SPAMS), FORGED);
            let answer = client.send(&Mail::new("", &[&to], spam));
            let said = answer.last.text();
            assert!(said.starts_with("250 2.0.0 suppressed "), "bounce {number}: {said:?}");
        }
    };
    let share = BOUNCES / 4 / CONNECTIONS;
    let quarter = |quarter: usize| {
        let (start, before) = (Instant::now(), guard.work());
        std::thread::scope(|scope| {
            for (number, client) in clients.iter_mut().enumerate() {
                let first = (quarter * CONNECTIONS + number) * share;
                scope.spawn(move || send(client, first..first + share));
            }
        });
        Quarter { took: start.elapsed(), work: guard.work() - before }
    };
    (0..4).map(quarter).collect()
}

/// Goal: the next hop has no part in a joe job, and the guard does not tire. Method: count the
/// connections that a stock server logs; the last quarter must not read and write more than the
/// first. Its pace is shown: how long it takes depends on what else the machine does.
fn does_not_reach(name: &str, next_hop: SocketAddr, log: impl Fn() -> String, sink: &Sink) {
    let connections =
        || log().matches("connect from").count() + log().matches("connection from").count();
    let guard = Guard::start(Settings::before(next_hop));
    let before = connections();

    let quarters = joe_job(&guard);

    let made = connections() - before;
    assert!(made <= 2, "{made} connections to {name} for {BOUNCES} bounces");
    let [first, .., last] = quarters.as_slice() else { panic!("four quarters") };
    let took: Duration = quarters.iter().map(|quarter| quarter.took).sum();
    // Why not `println!`, which the test harness keeps to itself: to be seen when the test passes.
    let _ = writeln!(
        io::stderr(),
        "{BOUNCES} bounces before {name}: {:.0} a second; the last quarter took {:.2} times as long \
         as the first, {:.2} times its processor time, {:.2} times its bytes in files",
        BOUNCES as f64 / took.as_secs_f64(),
        last.took.as_secs_f64() / first.took.as_secs_f64(),
        last.work.ticks as f64 / first.work.ticks as f64,
        last.work.bytes as f64 / first.work.bytes as f64,
    );
    assert!(last.work.bytes < first.work.bytes * 5 / 4, "{:?}, {:?}", first.work, last.work);
    let mut everybody: Vec<String> =
        (0..BOUNCES).map(|number| format!("joe{number}@victim.example")).collect();
    everybody.sort();
    assert!(guard.held_for() == everybody, "each bounce is held once");
    // First copies that come at the same moment are kept in full.
    let kept = guard.quarantine().len();
    assert!((SPAMS..=SPAMS * CONNECTIONS).contains(&kept), "{kept} messages kept");
    assert_eq!(guard.audit().len(), BOUNCES);

    // Everybody else's mail goes its way.
    let letter = Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "after-the-flood"));
    Client::open(guard.address()).deliver(&letter);
    sink.wait_for_text("after-the-flood");
    assert_eq!(sink.taken().len(), 1);
}

#[test]
fn a_joe_job_does_not_reach_postfix() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let postfix = Postfix::start(&postfix::Settings::default().next_hop(sink.address()));
    does_not_reach("Postfix", postfix.submission(), || postfix.log(), &sink);
}

#[test]
fn a_joe_job_does_not_reach_exim() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let settings = exim::Settings {
        next_hop: Some(sink.address()),
        main: "log_selector = +smtp_connection\n".to_owned(),
        ..exim::Settings::default()
    };
    let exim = Exim::start(&settings);
    does_not_reach("Exim", exim.submission(), || exim.log(), &sink);
}
