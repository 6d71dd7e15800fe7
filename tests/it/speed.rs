//! How fast trail and quarantine are on this disk. Prints figures; nothing passes or fails.
//!
//! `cargo test --release --test it speed -- --ignored --nocapture`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use replyguard::audit::disk::RealDisk;
use replyguard::audit::held::CampaignKey;
use replyguard::audit::quarantine::{Quarantine, Settings as QuarantineSettings};
use replyguard::audit::{Durability, Settings, Trail};
use replyguard::judge::classify::Class;

use crate::quarantine::Letter;
use crate::records::delivered;

const TASKS: u64 = 20;
const SPAN: Duration = Duration::from_secs(3);

/// Runs `act(number)` in `TASKS` tasks for `SPAN`; prints how often a second.
async fn measure<F: Future<Output = ()> + Send>(
    what: &str,
    act: impl Fn(u64) -> F + Send + Sync + 'static,
) {
    let act = Arc::new(act);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let act = Arc::clone(&act);
            tokio::spawn(async move {
                let mut count = 0;
                let mut slowest = Duration::ZERO;
                while begin.elapsed() < SPAN {
                    let start = Instant::now();
                    act(task * 10_000_000 + count).await;
                    slowest = slowest.max(start.elapsed());
                    count += 1;
                }
                (count, slowest)
            })
        })
        .collect();
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for task in tasks {
        let (count, slow) = task.await.unwrap();
        (all, slowest) = (all + count, slowest.max(slow));
    }
    let rate = all as f64 / begin.elapsed().as_secs_f64();
    println!("{what}: {rate:.0}/s with {TASKS} tasks, slowest {slowest:?}");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn appends() {
    let folder = folder();
    let settings = Settings { path: folder.path().join("audit.jsonl"), ..Settings::default() };
    let trail = Arc::new(Trail::open(Arc::new(RealDisk), settings).await.unwrap());
    let bytes = delivered(1, Class::AutoReply)[0].line().unwrap().len();
    for durability in [Durability::Written, Durability::Synced] {
        let trail = Arc::clone(&trail);
        measure(&format!("append of {bytes} bytes, {durability:?}"), move |number| {
            let trail = Arc::clone(&trail);
            async move {
                let records = delivered(number, Class::AutoReply);
                let room = trail.reserve(&records).await.unwrap();
                trail.append_reserved(room, &records, durability).await.unwrap();
            }
        })
        .await;
    }
}

async fn open(path: &Path) -> Arc<Quarantine> {
    let settings = QuarantineSettings {
        path: path.to_owned(),
        max_bytes: u64::MAX,
        max_messages: usize::MAX,
        ..QuarantineSettings::default()
    };
    let begin = Instant::now();
    let (quarantine, _) = Quarantine::open(Arc::new(RealDisk), settings).await.unwrap();
    let messages = quarantine.health().messages;
    println!("open with {messages} messages: {:?}", begin.elapsed());
    Arc::new(quarantine)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn holds() {
    let folder = folder();
    let quarantine = open(folder.path()).await;
    let held = Arc::clone(&quarantine);
    measure("hold of distinct messages of 4 KiB", move |number| {
        let quarantine = Arc::clone(&held);
        async move {
            let mut letter = Letter::new(number);
            letter.message = bytes::Bytes::from(vec![b'x'; 4096]);
            letter.hold(&quarantine).await.unwrap();
        }
    })
    .await;
    let staged = Arc::clone(&quarantine);
    measure("stage, seal and commit of 4 KiB", move |number| {
        let quarantine = Arc::clone(&staged);
        async move {
            let mut letter = Letter::new(1_000_000_000 + number);
            letter.message = bytes::Bytes::from(vec![b'x'; 4096]);
            letter.stage_and_commit(&quarantine).await.unwrap();
        }
    })
    .await;
    measure("hold of one campaign's copies", move |number| {
        let quarantine = Arc::clone(&quarantine);
        async move {
            let campaign = Some(CampaignKey(7));
            let letter = Letter { campaign, ..Letter::new(2_000_000_000 + number) };
            letter.join_or_hold(&quarantine).await.unwrap();
        }
    })
    .await;
    open(folder.path()).await;
}
