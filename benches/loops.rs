//! What finding loops costs: the fingerprints beside mail-parser's full parse of the same message,
//! looking up a sighting among one million and ten million entries, bytes an entry.
//!
//! `scripts/bench loops` prints them. Ratios: seconds depend on the machine. The memory is the
//! growth of the process (VmRSS, Linux), so it counts what the allocator needs as well.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use replyguard::judge::fingerprint::{Fingerprint, FingerprintKey};
use replyguard::judge::loops::weak::weak;
use replyguard::mail::message::View;
use replyguard::mail::time::Timestamp;
use replyguard::store::sightings::{Copied, Settings, Sightings};

mod shared;

use shared::fastest;

const KEY: FingerprintKey = FingerprintKey::new([0; 32]);
const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
const MILLION: u64 = 1_000_000;

fn main() {
    fingerprints();
    let (one, ten) = (look_ups(MILLION), look_ups(10 * MILLION));
    println!("ten million entries take {:.2} times as long as one", ten / one);
}

fn fingerprints() {
    let mut messages = shared::captures();
    messages.extend(shared::corpus());
    let (mut ours, mut theirs, mut ratios) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for (_, message) in &messages {
        let parse = fastest(|| drop(black_box(mail_parser::MessageParser::new().parse(message))));
        let view = View::read(message);
        let both = fastest(|| {
            let strong = Fingerprint::of(&view, message, &KEY);
            black_box((strong, weak(&view, strong, &KEY)));
        });
        ratios.push(both.as_secs_f64() / parse.as_secs_f64().max(1e-9));
        (ours, theirs) = (ours + both, theirs + parse);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |percent: usize| ratios.get(ratios.len() * percent / 100).copied().unwrap_or(0.0);
    println!(
        "both fingerprints of {} messages, as multiples of mail-parser's full parse: all together \
         {:.2}, median {:.2}, p99 {:.2}",
        ratios.len(),
        ours.as_secs_f64() / theirs.as_secs_f64(),
        at(50),
        at(99)
    );
}

fn copy(n: u64) -> Copied {
    // Keys are hashes: spread over all bits.
    let first = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let owner = u16::try_from(n % 16_000).unwrap_or(0) + 1;
    Copied { key: [first, first ^ n], owners: [0, owner], hops: 3, past: 0 }
}

/// Fills a memory with that many entries; gives nanoseconds a look-up and prints the rest.
fn look_ups(entries: u64) -> f64 {
    let before = resident_bytes();
    let settings = Settings {
        entries: usize::try_from(entries + entries / 2).unwrap_or(usize::MAX),
        window: Duration::from_secs(24 * 3600),
    };
    let memory = Sightings::new(&settings);
    let began = Instant::now();
    for n in 0..entries {
        memory.reserve(vec![copy(n)], NOW).0.confirm(NOW);
    }
    let filled = began.elapsed().as_secs_f64() * 1e9 / entries as f64;
    let grown = resident_bytes().saturating_sub(before);
    let asked: u64 = 500_000;
    let mut fastest = f64::MAX;
    for round in 0..5 {
        let began = Instant::now();
        for n in 0..asked {
            let at = (n + round * asked).wrapping_mul(7_919) % entries;
            black_box(memory.reserve(vec![copy(at)], NOW));
        }
        fastest = fastest.min(began.elapsed().as_secs_f64() * 1e9 / asked as f64);
    }
    println!(
        "{entries} entries: {:.0} bytes an entry, {filled:.0} ns to add one, {fastest:.0} ns to look \
         one up; {:?}",
        grown as f64 / memory.health().entries as f64,
        memory.health()
    );
    fastest
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
