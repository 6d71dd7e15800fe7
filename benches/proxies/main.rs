//! The guard beside what one would put in its place: no proxy at all, HAProxy in TCP mode, which
//! understands nothing and so is the practical limit, and Postfix's before-queue filter hop.
//!
//! Method: Postfix's `smtp-source` sends and `smtp-sink` takes; of several rounds, in which every
//! way has its turn, another first each time, the median counts. The guard runs as shipped: audit log,
//! fingerprints, store.
//! CPU time is that of the proxy's processes with their children (/proc), not of load and sink.
//! What `smtp-source` cannot send (bounces, a given pace) this program sends itself.
//! Run by `scripts/bench proxies`, which gives it a network of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a measure that cannot be taken ends"
)]
#![allow(dead_code, unused_imports, reason = "the servers of the end-to-end tests, not all used")]

#[path = "../../tests/e2e/claim.rs"]
mod claim;
#[path = "../../tests/e2e/client.rs"]
mod client;
#[path = "../../tests/support/dns.rs"]
mod dns;
mod driver;
#[path = "../../tests/e2e/guard.rs"]
mod guard;
mod idle;
#[path = "../../tests/e2e/mail.rs"]
mod mail;
#[path = "../../tests/e2e/process.rs"]
mod process;
#[path = "../shared/processes.rs"]
mod processes;
#[path = "../../tests/support/schema.rs"]
mod schema;
#[path = "../../tests/e2e/servers/mod.rs"]
mod servers;
#[path = "../../tests/support/skipped.rs"]
mod skipped;
#[path = "../../tests/e2e/wait.rs"]
mod wait;

use std::net::SocketAddr;
use std::time::Instant;

use crate::claim::Port;
use crate::driver::{Letters, paced, sent};
use crate::guard::Guard;
use crate::process::Process;
use crate::processes::{TIME_WITH_CHILDREN, child, mib, ticks};
use crate::servers::Instance;
use crate::servers::postfix::{self, Postfix};

/// Sessions at once.
const SESSIONS: usize = 20;

/// Turns of each way.
const ROUNDS: usize = 5;

/// A load of `smtp-source`: its name, messages, bytes, options, and the share of HAProxy's CPU time
/// a message that the guard may take.
const LOADS: [(&str, usize, usize, &[&str], f64); 3] = [
    ("3 KB, sessions kept", 20_000, 3_000, &["-d"], 1.8),
    ("3 KB, a session each", 8_000, 3_000, &[], 1.5),
    ("100 KB, sessions kept", 3_000, 100_000, &["-d"], 1.8),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let wants = |what: &str| {
        let named: Vec<&String> = arguments.iter().filter(|it| it.starts_with("--")).collect();
        named.iter().all(|it| *it == "--bench") || named.iter().any(|it| it[2..] == *what)
    };
    if arguments.iter().any(|argument| argument == "--version") || servers::missing() {
        return;
    }
    let ways = Ways::start();
    if wants("load") {
        LOADS.iter().for_each(|load| ways.load(load));
    }
    if wants("bounces") {
        ways.bounces();
    }
    if wants("held") {
        ways.held();
    }
    if wants("latency") {
        ways.latency();
    }
    drop(ways);
    if wants("memory") {
        idle::memory();
    }
}

/// What one turn took.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Messages a second.
    rate: f64,
    /// Microseconds of CPU a message.
    cpu: f64,
}

/// One way to the sink.
struct Way {
    name: &'static str,
    address: SocketAddr,
    /// The process group that is measured; `None`: nothing stands between.
    group: Option<u32>,
}

/// All that runs.
struct Ways {
    ways: [Way; 4],
    queue: SocketAddr,
    _sink: Instance,
    _haproxy: Instance,
    _postfix: Postfix,
    _guard: Guard,
}

const GUARD: usize = 3;
const HAPROXY: usize = 1;

impl Ways {
    fn start() -> Ways {
        let (sink, sink_port) = sink();
        let to = sink_port.address();
        let (haproxy, haproxy_port) = haproxy(to);
        let (hop, queue) = (Port::claim(), Port::claim());
        let settings = postfix::Settings::default()
            .set("smtpd_client_connection_count_limit", "0")
            .set("defer_transports", "smtp")
            .set("default_transport", "smtp:[127.0.0.1]:1")
            .patient()
            .master(&format!(
                "127.0.0.1:{} inet n - n - 100 smtpd -o smtpd_proxy_filter={to} \
                 -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n\
                 127.0.0.1:{} inet n - n - 100 smtpd\n",
                hop.number(),
                queue.number()
            ));
        let postfix = Postfix::start(&settings);
        let guard = Guard::start(guard::Settings::before(to).talkative());
        let ways = [
            Way { name: "direct", address: to, group: None },
            Way { name: "HAProxy, TCP", address: haproxy_port.address(), group: child("haproxy") },
            Way { name: "Postfix's filter hop", address: hop.address(), group: child("master") },
            Way { name: "replyguard", address: guard.address(), group: child("replyguard") },
        ];
        assert!(ways.iter().skip(1).all(|way| way.group.is_some()), "not all of them run");
        let queue = queue.address();
        Ways { ways, queue, _sink: sink, _haproxy: haproxy, _postfix: postfix, _guard: guard }
    }

    /// The median of some turns of each of these ways, by CPU time, or by rate without any.
    fn turns(&self, ways: &[&Way], mut turn: impl FnMut(&Way) -> Figure) -> Vec<Figure> {
        let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); ways.len()];
        for way in ways {
            turn(way);
        }
        // Why another first: whoever comes behind the same one each time finds what that one left.
        for round in 0..ROUNDS {
            for turned in 0..ways.len() {
                let at = (round + turned) % ways.len();
                figures[at].push(turn(ways[at]));
            }
        }
        let median = |mut found: Vec<f64>| {
            found.sort_by(f64::total_cmp);
            found[found.len() / 2]
        };
        let of = |found: &Vec<Figure>| Figure {
            rate: median(found.iter().map(|figure| figure.rate).collect()),
            cpu: median(found.iter().map(|figure| figure.cpu).collect()),
        };
        figures.iter().map(of).collect()
    }

    fn table(&self, title: &str, ways: &[&Way], figures: &[Figure]) {
        println!("\n{title:<26} {:>11} {:>13} {:>9}", "messages/s", "CPU us each", "peak MiB");
        for (way, figure) in ways.iter().zip(figures) {
            let peak = way.group.map_or(0.0, |group| mib(group, "VmHWM"));
            let (rate, cpu) = (figure.rate, figure.cpu);
            println!("{:<26} {rate:>11.0} {cpu:>13.0} {peak:>9.0}", way.name);
        }
    }

    fn load(&self, (name, count, bytes, options, wanted): &(&str, usize, usize, &[&str], f64)) {
        let ways: Vec<&Way> = self.ways.iter().collect();
        let figures = self.turns(&ways, |way| {
            measured(way.group, *count, || smtp_source(way.address, *count, *bytes, options))
        });
        self.table(name, &ways, &figures);
        let (ours, theirs) = (figures[GUARD], figures[HAPROXY]);
        println!(
            "of HAProxy: {:.2} of its messages a second (wanted 0.85), {:.2} of its CPU (wanted {wanted})",
            ours.rate / theirs.rate,
            ours.cpu / theirs.cpu
        );
    }

    /// Bounces with the message that they answer, judged by what our border wrote, all genuine.
    fn bounces(&self) {
        let ways: Vec<&Way> = vec![&self.ways[0], &self.ways[HAPROXY], &self.ways[GUARD]];
        let mut letters = Letters::genuine();
        let count = 6_000;
        let figures = self.turns(&ways, |way| {
            let load = letters.next(count);
            measured(way.group, count, || sent(way.address, SESSIONS, &load))
        });
        self.table("bounces, judged", &ways, &figures);
        println!("of HAProxy: {:.2} of its CPU (wanted 4)", figures[2].cpu / figures[1].cpu);
    }

    /// Forged bounces, held on disk, beside what Postfix's queue takes on the same disk.
    fn held(&self) {
        let queue = Way { name: "Postfix's queue", address: self.queue, ..self.ways[2] };
        let ways: Vec<&Way> = vec![&queue, &self.ways[GUARD]];
        for (title, wanted, mut letters) in [
            ("held, each another", 0.5, Letters::forged()),
            ("held, one campaign", 5.0, Letters::campaign()),
        ] {
            let count = 1_500;
            let figures = self.turns(&ways, |way| {
                let load = letters.next(count);
                measured(way.group, count, || sent(way.address, SESSIONS, &load))
            });
            self.table(title, &ways, &figures);
            let times = figures[1].rate / figures[0].rate;
            println!("{times:.2} times as many a second as Postfix queues (wanted {wanted})");
        }
    }

    /// What a message waits, at half of what the guard can do.
    fn latency(&self) {
        let guard = &self.ways[GUARD];
        let full = measured(None, 20_000, || smtp_source(guard.address, 20_000, 3_000, &["-d"]));
        let pace = full.rate / 2.0;
        println!("\n3 KB, {pace:<7.0} a second      p50 us     p99 us");
        let mut waits = Vec::new();
        for way in [&self.ways[0], &self.ways[HAPROXY], guard] {
            let mut found: Vec<(f64, f64)> =
                (0..ROUNDS).map(|_| paced(way.address, SESSIONS, pace, 20_000)).collect();
            found.sort_by(|one, other| one.1.total_cmp(&other.1));
            let (p50, p99) = found[ROUNDS / 2];
            println!("{:<26} {p50:>8.0} {p99:>10.0}", way.name);
            waits.push((p50, p99));
        }
        let added = |way: usize| waits[way].1 - waits[0].1;
        println!(
            "p99 added: {:.0} us by HAProxy, {:.0} us by the guard; {:.2} times (wanted 2)",
            added(1),
            added(2),
            added(2) / added(1)
        );
    }
}

/// Sends with Postfix's own load generator.
fn smtp_source(to: SocketAddr, count: usize, bytes: usize, options: &[&str]) {
    let (sessions, count) = (SESSIONS.to_string(), count.to_string());
    let (bytes, to) = (bytes.to_string(), to.to_string());
    let mut arguments = vec!["-s", &sessions, "-m", &count, "-l", &bytes];
    arguments.extend(["-f", "joe@far.example", "-t", "someone@elsewhere.example"]);
    arguments.extend(options);
    arguments.push(&to);
    let sender = Instance::new("source", &[]);
    sender.ask("/usr/sbin/smtp-source", &arguments);
}

/// What `work` on so many messages takes of wall time, and of the group's CPU time.
fn measured(group: Option<u32>, count: usize, work: impl FnOnce()) -> Figure {
    let taken = || group.map_or(0, |group| ticks(group, TIME_WITH_CHILDREN));
    let (before, began) = (taken(), Instant::now());
    work();
    let rate = count as f64 / began.elapsed().as_secs_f64();
    Figure { rate, cpu: (taken() - before) as f64 * 10_000.0 / count as f64 }
}

fn sink() -> (Instance, Port) {
    let (mut sink, port) = (Instance::new("sink", &[]), Port::claim());
    let address = port.address().to_string();
    sink.start("/usr/sbin/smtp-sink", &["-u", "nobody", &address, "1000"], &[port.address()]);
    (sink, port)
}

fn haproxy(to: SocketAddr) -> (Instance, Port) {
    let (mut haproxy, port) = (Instance::new("haproxy", &[]), Port::claim());
    haproxy.write(
        "haproxy.cfg",
        &format!(
            "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 5m\n \
             timeout server 5m\nfrontend in\n bind {}\n default_backend out\nbackend out\n \
             server sink {to}\n",
            port.address()
        ),
    );
    let file = haproxy.inside("haproxy.cfg");
    haproxy.start("/usr/sbin/haproxy", &["-db", "-f", &file], &[port.address()]);
    (haproxy, port)
}
