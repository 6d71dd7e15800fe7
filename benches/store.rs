//! The embedded store with a million and with ten million records: what one more costs, what a
//! look-up costs, memory; and how soon the file of a process that was killed is open again.
//!
//! Method: for each size a child process fills a file; another adds the last records one by one,
//! looks up, goes on writing, and is killed (`SIGKILL`); this process then opens the file. Ratios,
//! because the machine is what it is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measure that cannot be taken ends"
)]

#[allow(dead_code, reason = "other measures need more of it")]
#[path = "shared/processes.rs"]
mod processes;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use redb::Database;
use replyguard::judge::evidence::Source;
use replyguard::judge::evidence::{AuthResult, Evaluated, Findings, SpfFinding};
use replyguard::judge::original::SubjectKind;
use replyguard::judge::subject::{Inbound, InboundId, LookUp, State, TapKind, Way};
use replyguard::mail::address::{Address, Domain, ReversePath};
use replyguard::mail::time::Timestamp;
use replyguard::store::embedded::{Embedded, Keys, Settings};
use replyguard::store::keyed::StoreKey;
use replyguard::store::memory::{self, Memory};
use replyguard::store::rows::{self, Change, Row};
use replyguard::store::{Request, Store, StoreError};

use crate::processes::our_mib;

// As in the program: what memory is taken depends on it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MILLION: u64 = 1_000_000;
const BEGIN: Timestamp = Timestamp::from_millis(1_795_000_000_000);
/// So long are all records spread over, whatever their number: a site's week.
const SPREAD: Duration = Duration::from_secs(6 * 86_400);
const MEMORY: usize = 64 << 20;
const AT_ONCE: usize = 200_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, task, path, records] = arguments.as_slice() {
        let (path, records) = (Path::new(path), records.parse().unwrap());
        match task.as_str() {
            "--fill" => return fill(path, records),
            "--measure" => return measure(path, records),
            "--front" => return front(records),
            _ => {}
        }
    }
    let largest = std::env::var("REPLYGUARD_BENCH_RECORDS").ok();
    let largest = largest.and_then(|text| text.parse().ok()).unwrap_or(10 * MILLION);
    let front =
        Command::new(std::env::current_exe().unwrap()).args(["--front", "", "200000"]).status();
    assert!(front.unwrap().success());
    let (small, large) = (measured(largest / 10), measured(largest));
    println!(
        "ten times as many: adding takes {:.2} times as long, a look-up {:.2} times",
        large.add / small.add,
        large.find / small.find
    );
}

/// Microseconds.
struct Measured {
    add: f64,
    find: f64,
}

fn measured(records: u64) -> Measured {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.unwrap();
    let path = folder.path().join("store.redb");
    let of_itself = |task| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([task, path.to_str().unwrap(), &records.to_string()]);
        command
    };
    assert!(of_itself("--fill").status().unwrap().success());
    let mut child = of_itself("--measure").stdout(Stdio::piped()).spawn().unwrap();
    let figures = told(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    let (store, damage) = Embedded::open(settings(path.clone()), keys()).unwrap();
    let opened = began.elapsed();
    assert_eq!(damage, None);
    let (kept, counted) = (store.health().records, store.health().bytes);
    let [add, find, find_p99, memory_mib, peak_mib] = figures.as_slice() else {
        panic!("no figures")
    };
    println!(
        "{records} records: {add:.1} us to add one, {find:.1} us to look one up (p99 \
         {find_p99:.1}), {memory_mib:.0} MiB of memory more than without it (at most \
         {peak_mib:.0}), {:.1} GiB of file ({:.1} counted); killed, open again in {:.0} ms with {kept} records",
        std::fs::metadata(&path).unwrap().len() as f64 / f64::from(1 << 30),
        counted as f64 / f64::from(1 << 30),
        opened.as_secs_f64() * 1e3,
    );
    Measured { add: *add, find: *find }
}

/// The figures that a child says, before it goes on writing until it is killed.
fn told(child: &mut Child) -> Vec<f64> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn keys() -> Keys {
    Keys { current: Arc::new(StoreKey::new([7; 32])), former: None }
}

fn settings(path: PathBuf) -> Settings {
    let file = memory::Settings {
        retention: Duration::from_secs(7 * 86_400),
        records_max: 50_000_000,
        bytes_max: 64 << 30,
    };
    Settings { path, file, memory_bytes_max: MEMORY, plain: false }
}

/// So many, the last ones, are added one by one and measured.
fn measured_of(records: u64) -> u64 {
    (records / 10).min(100_000)
}

/// All but those that are measured, many in a transaction: they only make the store large.
fn fill(path: &Path, records: u64) {
    let apart = SPREAD / u32::try_from(records).unwrap();
    let settings = settings(path.to_owned());
    drop(Embedded::open(settings.clone(), keys()).unwrap());
    let (database, key) = (Database::create(path).unwrap(), keys().current);
    let all = records - measured_of(records);
    for first in (0..all).step_by(AT_ONCE) {
        let last = (first + AT_ONCE as u64).min(all);
        let change = |n| {
            let record = record(n, apart);
            Change::Put(record.id, Row::of(&record, &key, false).unwrap())
        };
        let changes: Vec<Change> = (first..last).map(change).collect();
        rows::write(&database, &changes, &settings.file).unwrap();
    }
}

/// Adds the rest, looks up, says the figures, and goes on writing until it is killed.
fn measure(path: &Path, records: u64) {
    let (apart, measured) = (SPREAD / u32::try_from(records).unwrap(), measured_of(records));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let without = our_mib("VmRSS");
    runtime.block_on(async {
        let (store, damage) = Embedded::open(settings(path.to_owned()), keys()).unwrap();
        assert_eq!(damage, None);
        let began = Instant::now();
        for n in records - measured..records {
            add(&store, n, apart).await;
        }
        store.flush().await.unwrap();
        let one = began.elapsed().as_secs_f64() * 1e6 / measured as f64;
        let mut took = Vec::new();
        for n in 0..20_000_u64 {
            // Keys of chance: old and new ones, in no order.
            let sought = n.wrapping_mul(2_654_435_761) % records;
            let request = Request {
                look_ups: vec![LookUp::MessageId(message_id(sought))],
                responder: None,
                now: BEGIN.plus(SPREAD),
            };
            let began = Instant::now();
            let found = store.recall(&request).await.unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e6);
            assert_eq!(found.len(), 1, "record {sought}");
        }
        took.sort_by(f64::total_cmp);
        let (half, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        let (memory, peak) = (our_mib("VmRSS") - without, our_mib("VmHWM") - without);
        println!("{one} {half} {p99} {memory} {peak}");
        for n in records.. {
            add(&store, n, apart).await;
        }
    });
}

/// What the store in memory takes beside what it counts.
fn front(records: u64) {
    let settings = memory::Settings { bytes_max: MEMORY, ..settings(PathBuf::new()).file };
    let (memory, without) = (Memory::new(settings, keys().current), our_mib("VmRSS"));
    for n in 0..records {
        memory.keep(&record(n, Duration::from_millis(50))).unwrap();
    }
    let (kept, bytes) = memory.size();
    let counted = bytes as f64 / f64::from(1 << 20);
    println!(
        "{kept} records in memory: {:.0} MiB, {counted:.0} counted",
        our_mib("VmRSS") - without
    );
}

async fn add(store: &Embedded, n: u64, apart: Duration) {
    let record = record(n, apart);
    while let Err(fault) = store.remember(&record).await {
        assert_eq!(fault, StoreError::Busy);
        store.flush().await.ok();
    }
}

fn message_id(n: u64) -> String {
    format!("{n}.letter@bank{}.example", n % 5_000)
}

/// A letter as most are: one recipient, one Message-ID, SPF of its own domain.
fn record(n: u64, apart: Duration) -> Inbound {
    let at = BEGIN.plus(apart * u32::try_from(n).unwrap());
    let address = |text: String| Address::parse(&text).unwrap();
    let from = address(format!("joe{}@bank{}.example", n % 100_003, n % 5_000));
    let domain = Domain::parse(&format!("bank{}.example", n % 5_000));
    let findings = Findings {
        mail_from: Some(ReversePath::Address(from.clone())),
        from: vec![from.clone()],
        spf: vec![SpfFinding {
            address: Some(from.clone()),
            ..SpfFinding::of(AuthResult::Pass, domain)
        }],
        evaluated: Evaluated::ALL,
        ..Findings::of(Source::Tap)
    };
    Inbound {
        id: InboundId::new(at, u128::from(n)),
        tap: TapKind::Milter,
        host: "mx.uni.example".to_owned(),
        queue_id: Some(format!("{n:X}")),
        began: at,
        arrived: at,
        state: State::Complete,
        client: Some(Ipv4Addr::from(u32::try_from(n % 250_000).unwrap() + 0x0A00_0000).into()),
        helo: "mail.bank.example".to_owned(),
        way: Way::Outside,
        mail_from: ReversePath::Address(from.clone()),
        envelope_id: None,
        recipients: vec![address(format!("user{}@uni.example", n % 50_000))],
        message_ids: vec![message_id(n)],
        from: vec![from],
        sender: None,
        reply_to: Vec::new(),
        notify: Vec::new(),
        kind: SubjectKind { list: None, automatic: None },
        spam: None,
        findings: vec![findings],
        gaps: Vec::new(),
    }
}
