//! The embedded store's writer, killed: what it has said is on disk is there, and the rest is little.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use replyguard::store::Store;
use replyguard::store::embedded::Embedded;

use crate::store::{BOUNDS, by_id, inbound, keys, settings};

/// Names the folder to the child.
const FOLDER: &str = "REPLYGUARD_TEST_STORE";
/// Records before the child is killed.
const RECORDS: u32 = 400;

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Says a line that the other end gets whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The child: remembers one record a millisecond or so, and says when; beside that it says up to
/// which one all is written, and how long that took.
#[test]
#[ignore = "runs as the child of another test, which kills it"]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = Embedded::open(settings(&folder, BOUNDS), keys(1)).unwrap();
        let store = std::sync::Arc::new(store);
        let (last, mut told) = tokio::sync::watch::channel(0_u32);
        let written = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            while told.changed().await.is_ok() {
                let (number, began) = (*told.borrow_and_update(), Instant::now());
                written.flush().await.unwrap();
                say(&format!("written {number} {}", began.elapsed().as_millis()));
            }
        });
        for number in 1.. {
            let from = format!("u{number}@bank.example");
            store.remember(&inbound(number, &from, "ann@uni.example")).await.unwrap();
            say(&format!("remembered {number} {}", millis()));
            last.send_replace(number);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// What the child said.
#[derive(Default)]
struct Said {
    /// When each record was remembered.
    remembered: BTreeMap<u32, u128>,
    /// The last one of which it knew that it is written.
    written: u32,
    /// The longest time, in milliseconds, that a write took with the wait before it.
    longest: u128,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["remembered", number, at] => {
                self.remembered.insert(number.parse().unwrap(), at.parse().unwrap());
            }
            ["written", number, took] => {
                self.written = number.parse().unwrap();
                self.longest = self.longest.max(took.parse().unwrap());
            }
            // The harness's own lines.
            _ => {}
        }
    }
}

/// Starts the child, kills it in the middle of its work, and gives what it said and when it ended.
fn killed(folder: &Path) -> (Said, u128) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said::default();
    while said.remembered.len() < usize::try_from(RECORDS).unwrap() {
        said.hear(&lines.next().expect("the child goes on").unwrap());
    }
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    let at = millis();
    child.wait().unwrap();
    lines.for_each(|line| said.hear(&line.unwrap()));
    (said, at)
}

/// Goal: kill -9 costs at most what came in last, and the store opens at once. Method: a child process
/// that writes and says so. What it knew to be written must be there; the rest is as young as the
/// gathering (20 ms) and one write, however slow this machine's disk is.
#[tokio::test]
async fn a_writer_that_is_killed_loses_the_last_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (said, at) = killed(folder.path());
    let began = Instant::now();
    let (store, damage) = Embedded::open(settings(folder.path(), BOUNDS), keys(1)).unwrap();
    let took = began.elapsed();
    assert_eq!(damage, None);
    let mut there = BTreeSet::new();
    for number in said.remembered.keys() {
        let found = store.recall(&by_id(&format!("{number}@bank.example"))).await.unwrap();
        if !found.is_empty() {
            there.insert(*number);
        }
    }
    let missing: Vec<u32> =
        said.remembered.keys().filter(|number| !there.contains(number)).copied().collect();
    let ages: Vec<u128> =
        missing.iter().map(|number| at.saturating_sub(said.remembered[number])).collect();
    let oldest = ages.iter().max().copied().unwrap_or(0);
    println!(
        "{} of {} records lost, the oldest {oldest} ms old; a write took {} ms at the longest; \
         opened in {took:?}",
        missing.len(),
        said.remembered.len(),
        said.longest
    );
    assert!(said.written > 0, "nothing was written before the end");
    let written: Vec<u32> = missing.iter().filter(|n| **n <= said.written).copied().collect();
    assert_eq!(written, Vec::<u32>::new(), "said to be written, and is not there");
    assert!(oldest <= 50 + 2 * said.longest, "lost after {oldest} ms");
    // It goes on where it stopped.
    store.remember(&inbound(99_999, "new@bank.example", "ann@uni.example")).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.recall(&by_id("99999@bank.example")).await.unwrap().len(), 1);
}
