//! The embedded store's writer, killed: what it has said is on disk is there, and the rest is
//! little.

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

/// The child: remembers one record a millisecond or so, and says when; beside that it says how many
/// stand in the file. It asks for nothing to be written.
#[test]
#[ignore = "runs as the child of another test, which kills it"]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = Embedded::open(settings(&folder, BOUNDS), keys(1)).unwrap();
        let store = std::sync::Arc::new(store);
        let file = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                say(&format!("written {}", file.health().records));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        for number in 1.. {
            let from = format!("u{number}@bank.example");
            store.remember(&inbound(number, &from, "ann@uni.example")).await.unwrap();
            say(&format!("remembered {number} {}", millis()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// What the child said.
#[derive(Default)]
struct Said {
    /// When each record was remembered.
    remembered: BTreeMap<u32, u128>,
    /// How many of them stood in the file.
    written: u32,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["remembered", number, at] => {
                self.remembered.insert(number.parse().unwrap(), at.parse().unwrap());
            }
            ["written", count] => self.written = count.parse().unwrap(),
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
/// that writes and says so. What stood in the file is there, and what is not came in last; how old it
/// is, is printed: that is the gathering (`STORE_GATHER`) and a write of this machine's disk.
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
        "{} of {} records lost, the oldest {oldest} ms old; opened in {took:?}",
        missing.len(),
        said.remembered.len()
    );
    assert!(said.written > 0, "nothing was written before the end");
    let written: Vec<u32> = missing.iter().filter(|n| **n <= said.written).copied().collect();
    assert_eq!(written, Vec::<u32>::new(), "said to be written, and is not there");
    let last: Vec<u32> = said.remembered.keys().rev().take(missing.len()).rev().copied().collect();
    assert_eq!(missing, last, "what is lost came in last");
    // It goes on where it stopped.
    store.remember(&inbound(99_999, "new@bank.example", "ann@uni.example")).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.recall(&by_id("99999@bank.example")).await.unwrap().len(), 1);
}
