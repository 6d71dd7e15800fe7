//! How long reading takes: classification and the subject message, beside mail-parser's full parse of
//! the same bytes in the same run. Ratios only; seconds depend on the machine. `--each` prints them
//! one by one.
//!
//! `scripts/bench reading` prints them; `scripts/bench instructions` counts instructions instead, which
//! repeat exactly, and compares them with `benches/instructions.txt`. `scripts/bench hostile` counts
//! them for messages made of nothing but structure, at one size and at twice the size.
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

#[path = "../tests/support/hostile.rs"]
mod hostile;

const KEY: FingerprintKey = FingerprintKey::new([0; 32]);

fn main() {
    let counts_instructions = std::env::args().any(|argument| argument == "--once");
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--hostile") {
        return read_hostile(arguments.get(at + 1), arguments.get(at + 2));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut messages = messages_below(&root.join("tests/captures"));
    if counts_instructions {
        for (_, message) in &messages {
            black_box(read(message));
        }
        return;
    }
    let corpus = std::env::var_os("REPLYGUARD_CORPUS").map(PathBuf::from);
    messages
        .extend(messages_below(&corpus.unwrap_or(root.join("../shared/corpus")).join("messages")));
    let mut ratios = Vec::new();
    let (mut ours_all, mut theirs_all) = (Duration::ZERO, Duration::ZERO);
    for (path, message) in &messages {
        let bytes = message.bytes();
        let theirs = fastest(|| drop(black_box(mail_parser::MessageParser::new().parse(bytes))));
        let ours = fastest(|| drop(black_box(read(message))));
        ours_all += ours;
        theirs_all += theirs;
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64().max(1e-9);
        if arguments.iter().any(|argument| argument == "--each") {
            println!("{ratio:.2} {} bytes {}", bytes.len(), path.display());
        }
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |percent: usize| ratios.get(ratios.len() * percent / 100).copied().unwrap_or(0.0);
    println!(
        "{} messages, as multiples of mail-parser's full parse of the same message:",
        ratios.len()
    );
    println!("  all together {:.2}", ours_all.as_secs_f64() / theirs_all.as_secs_f64());
    println!("  median {:.2}  p90 {:.2}  p99 {:.2}", at(50), at(90), at(99));
    let within = ratios.iter().filter(|ratio| **ratio <= 3.0).count();
    println!("  {} of 100 within 3", within * 100 / ratios.len().max(1));
    let mean = ours_all / u32::try_from(ratios.len().max(1)).unwrap_or(1);
    println!("  {:.1} us a message on this machine", mean.as_secs_f64() * 1e6);
}

/// Reads one hostile message, `share` hundredths of the full size; without arguments prints the
/// names of the shapes. The whole message is read, not only as much of it as the daemon would.
fn read_hostile(name: Option<&String>, share: Option<&String>) {
    for shape in hostile::SHAPES {
        match name {
            None => println!("{}", shape.name),
            Some(name) if name != shape.name => {}
            Some(_) => {
                let share: usize = share.and_then(|share| share.parse().ok()).unwrap_or(100);
                let bytes = (shape.make)(shape.full * share / 100);
                let message = Message::new(bytes, Completeness::Whole);
                black_box(read_alone(&message, &Site::default(), &KEY));
            }
        }
    }
}

fn read(message: &Message) -> replyguard::judge::Case {
    read_alone(message, &Site::default(), &KEY)
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

/// The messages below a folder, as much of them as the daemon would read.
fn messages_below(folder: &Path) -> Vec<(PathBuf, Message)> {
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
    let read = |path: PathBuf| {
        let mut bytes = fs::read(&path).ok()?;
        bytes.truncate(CLASSIFY_BYTES_MAX);
        Some((path, Message::new(bytes, Completeness::Whole)))
    };
    files.into_iter().filter_map(read).collect()
}
