//! How long reading takes: classification and the subject message, beside mail-parser's full parse of
//! the same bytes in the same run. Ratios only; seconds depend on the machine.
//!
//! `scripts/bench reading` prints them; `scripts/bench instructions` counts instructions instead, which
//! repeat exactly, and compares them with `benches/instructions.txt`.
//! Takes the messages of `tests/captures`, and of `../shared/corpus` or `REPLYGUARD_CORPUS` if there.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::read_alone;
use replyguard::judge::site::Site;
use replyguard::mail::header::Completeness;
use replyguard::mail::limits::CLASSIFY_BYTES_MAX;
use replyguard::mail::message::Message;

const KEY: FingerprintKey = FingerprintKey::new([0; 32]);

fn main() {
    let counts_instructions = std::env::args().any(|argument| argument == "--once");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut messages = messages_below(&root.join("tests/captures"));
    if counts_instructions {
        for message in &messages {
            black_box(read(message));
        }
        return;
    }
    let corpus = std::env::var_os("REPLYGUARD_CORPUS").map(PathBuf::from);
    messages
        .extend(messages_below(&corpus.unwrap_or(root.join("../shared/corpus")).join("messages")));
    let mut ratios = Vec::new();
    let (mut ours_all, mut theirs_all) = (Duration::ZERO, Duration::ZERO);
    for message in &messages {
        let theirs = fastest(|| drop(black_box(mail_parser::MessageParser::new().parse(message))));
        let ours = fastest(|| drop(black_box(read(message))));
        ours_all += ours;
        theirs_all += theirs;
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64().max(1e-9));
    }
    ratios.sort_by(f64::total_cmp);
    let at = |percent: usize| ratios.get(ratios.len() * percent / 100).copied().unwrap_or(0.0);
    println!(
        "{} messages, as multiples of mail-parser's full parse of the same message:",
        ratios.len()
    );
    println!("  all together {:.2}", ours_all.as_secs_f64() / theirs_all.as_secs_f64());
    println!("  median {:.2}  p90 {:.2}  p99 {:.2}", at(50), at(90), at(99));
    let mean = ours_all / u32::try_from(ratios.len().max(1)).unwrap_or(1);
    println!("  {:.1} us a message on this machine", mean.as_secs_f64() * 1e6);
}

fn read(message: &[u8]) -> replyguard::judge::Case {
    let bytes = message.get(..CLASSIFY_BYTES_MAX).unwrap_or(message);
    read_alone(&Message::new(bytes.to_vec(), Completeness::Whole), &Site::default(), &KEY)
}

/// The fastest of several rounds: what the work itself takes, without what else the machine does.
fn fastest(work: impl Fn()) -> Duration {
    let round = || {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}

fn messages_below(folder: &Path) -> Vec<Vec<u8>> {
    let mut open = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path if path.extension().is_some_and(|ending| ending == "eml") => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    files.iter().filter_map(|path| fs::read(path).ok()).collect()
}
