//! How long reading takes: classification and the subject message, beside mail-parser's full parse
//! of the same bytes in the same run. Ratios only; seconds depend on the machine. `--each` prints
//! them one by one.
//!
//! `scripts/bench reading` prints them; `scripts/bench instructions` counts instructions instead,
//! which repeat exactly, of reading alone and of both doors of the judge, and compares them with
//! `benches/instructions.txt`. `scripts/bench hostile` counts them for messages made of nothing but
//! structure, at one size and at twice the size. Takes the messages of `tests/captures`, and of
//! `../shared/corpus` or `REPLYGUARD_CORPUS` if there.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use replyguard::judge::classify::{Guarded, classify};
use replyguard::judge::decide::decide;
use replyguard::judge::evidence::Evidence;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::original::Original;
use replyguard::judge::policy::Policy;
use replyguard::judge::reading::Reading;
use replyguard::judge::site::Site;
use replyguard::judge::trace::TraceKey;
use replyguard::judge::{self, Keys, read_alone};
use replyguard::mail::address::{Address, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::{Completeness, reverse_path};
use replyguard::mail::limits::CLASSIFY_BYTES_MAX;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;

#[path = "../tests/support/hostile.rs"]
mod hostile;
mod shared;

use shared::fastest;

const KEY: FingerprintKey = FingerprintKey::new([0; 32]);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--hostile") {
        return read_hostile(arguments.get(at + 1), arguments.get(at + 2));
    }
    let mut messages: Vec<_> = shared::captures().into_iter().map(message).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--once") {
        for (_, message) in &messages {
            black_box(read(message));
        }
        return;
    }
    if has("--decide") {
        return messages.iter().for_each(|(_, message)| decide_once(message));
    }
    messages.extend(shared::corpus().into_iter().map(message));
    let (mut judged, mut whole) = (Measured::default(), Measured::default());
    for (path, message) in &messages {
        let bytes = message.bytes();
        let theirs = fastest(|| drop(black_box(mail_parser::MessageParser::new().parse(bytes))));
        let ratio = judged.add(fastest(|| classified(message)), theirs);
        whole.add(fastest(|| drop(black_box(read(message)))), theirs);
        if has("--each") {
            println!("{ratio:.2} {} bytes {}", bytes.len(), path.display());
        }
    }
    println!("{} messages, as multiples of mail-parser's full parse:", messages.len());
    judged.print("classification and subject message");
    whole.print("with fingerprints and marks of loops");
}

/// How long something takes, message by message, beside mail-parser.
#[derive(Default)]
struct Measured {
    ratios: Vec<f64>,
    ours: Duration,
    theirs: Duration,
}

impl Measured {
    fn add(&mut self, ours: Duration, theirs: Duration) -> f64 {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64().max(1e-9);
        self.ours += ours;
        self.theirs += theirs;
        self.ratios.push(ratio);
        ratio
    }

    fn print(&mut self, what: &str) {
        self.ratios.sort_by(f64::total_cmp);
        let count = self.ratios.len().max(1);
        let at = |percent: usize| self.ratios.get(count * percent / 100).copied().unwrap_or(0.0);
        let within = self.ratios.iter().filter(|ratio| **ratio <= 3.0).count();
        let all = self.ours.as_secs_f64() / self.theirs.as_secs_f64().max(1e-9);
        println!(
            "  {what}: all together {all:.2}, median {:.2}, p90 {:.2}, p99 {:.2},",
            at(50),
            at(90),
            at(99)
        );
        let mean = self.ours / u32::try_from(count).unwrap_or(u32::MAX);
        let micros = mean.as_secs_f64() * 1e6;
        println!("    {} of 100 within 3; {micros:.1} us a message here", within * 100 / count);
    }
}

/// What is read of a message for the judgement alone.
fn classified(message: &Message) {
    let view = message.view();
    let path = view.fields.first("return-path").and_then(|field| reverse_path(&field.text()));
    let reading = Reading::new(&view, path.as_ref());
    let (class, signals) = classify(&reading);
    let is_read = class.guarded() != Guarded::No;
    let original = is_read.then(|| Original::of(&reading, class, &Site::default()));
    black_box((signals, original));
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

/// Both doors of the judge: reads a message that came with the null reverse-path for one recipient,
/// and decides about it with nothing known.
fn decide_once(message: &Message) {
    let envelope = Envelope {
        client: Client::default(),
        mail: MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        },
        recipients: Address::parse("joe@bank.example")
            .map(|address| Recipient {
                path: ForwardPath::Address(address),
                path_text: "<joe@bank.example>".to_owned(),
                parameters: Parameters::default(),
            })
            .into_iter()
            .collect(),
    };
    let trace = TraceKey::new([0; 32]);
    let keys = Keys { fingerprint: &KEY, trace: &trace, loop_site: "here" };
    let case = judge::read(&envelope, message, &Site::default(), &keys);
    let now = Timestamp::from_millis(1_795_282_739_000);
    black_box(decide(&envelope, &case, &Evidence::default(), &Policy::default(), now));
}

/// As much of a message as the daemon would read.
fn message((path, mut bytes): (PathBuf, Vec<u8>)) -> (PathBuf, Message) {
    bytes.truncate(CLASSIFY_BYTES_MAX);
    (path, Message::new(bytes, Completeness::Whole))
}
