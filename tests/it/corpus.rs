//! Reading measured against mail that nobody here wrote.
//!
//! Goal: answers are told from the rest, and their subject messages are found, in the wild. Method:
//! read every message of the shared corpus and compare with its labels, which are wrong for one or
//! two in a hundred. The corpus is not part of the project: without it each measure says SKIPPED.

use std::collections::BTreeMap;
use std::fs;

use crate::skipped::{corpus, is_strict, without_corpus};
use replyguard::judge::classify::Guarded;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::site::Site;
use replyguard::judge::{Case, read_alone};
use replyguard::mail::header::{Completeness, Fields};
use replyguard::mail::message::Message;

/// Labels of messages that answer another one, with the classes that are right for them.
const ANSWERS: &[(&str, &[&str])] = &[
    ("bounce", &["dsn"]),
    ("auto-reply", &["auto-reply"]),
    ("mdn", &["mdn"]),
    ("challenge-response", &["challenge"]),
    // Three are authentication failure reports (RFC 6591): same media type, but a domain's.
    ("feedback-report", &["feedback-report", "dmarc-report"]),
];

/// Messages whose label we believe to be wrong, each with the reason; not counted.
const DOUBTED: &[(&str, &str)] = &[];

/// How many answers may be missed where their Return-Path is gone.
const MISSED_MAX: usize = 6;

/// A message of the corpus, with what its index says of it.
pub struct Row {
    pub path: String,
    pub label: String,
    pub message_id: String,
    pub found_as: String,
    pub bytes: Vec<u8>,
}

/// The classes that are right for a label; `None` for what is no answer.
pub fn answer_classes(label: &str) -> Option<&'static [&'static str]> {
    ANSWERS.iter().find(|(answer, _)| *answer == label).map(|(_, classes)| *classes)
}

impl Row {
    fn answer_classes(&self) -> Option<&'static [&'static str]> {
        answer_classes(&self.label)
    }
}

/// The scored messages; none when the corpus is missing.
pub fn rows() -> Vec<Row> {
    let folder = corpus("messages");
    let Ok(index) = fs::read_to_string(folder.join("index.tsv")) else {
        assert!(!folder.exists() || !is_strict(), "{}: incomplete", folder.display());
        without_corpus(&format!("no corpus at {}", folder.display()));
        return Vec::new();
    };
    let mut rows = Vec::new();
    for line in index.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [path, label, _, _, _, _, message_id, _, _, _, _, found_as, ..] = columns.as_slice()
        else {
            continue;
        };
        let doubted = DOUBTED.iter().any(|(doubted, _)| doubted == path);
        if *label == "ambiguous" || doubted {
            continue;
        }
        let Ok(bytes) = fs::read(folder.join(path)) else {
            assert!(!is_strict(), "{path}: missing");
            without_corpus(path);
            continue;
        };
        let plain = |text: &str| text.trim_matches(['<', '>']).to_owned();
        rows.push(Row {
            path: path.to_string(),
            label: label.to_string(),
            message_id: plain(message_id),
            found_as: found_as.to_string(),
            bytes,
        });
    }
    rows
}

pub fn case(bytes: Vec<u8>) -> Case {
    let message = Message::new(bytes, Completeness::Whole);
    read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]))
}

fn is_answer(case: &Case) -> bool {
    case.class.guarded() != Guarded::No
}

fn signs(case: &Case) -> String {
    case.signals.iter().map(|signal| format!(" {}={}", signal.id, signal.detail)).collect()
}

#[test]
fn answers_are_told_from_the_rest() {
    let mut matrix: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut missed, mut alarms) = (Vec::new(), Vec::new());
    let (mut answers, mut right) = (0, 0);
    for row in rows() {
        let case = case(row.bytes.clone());
        let action = case.class.dsn_action().map(|action| format!(" {}", action.as_str()));
        let class = format!("{}{}", case.class, action.unwrap_or_default());
        *matrix.entry((row.label.clone(), class)).or_default() += 1;
        match (row.answer_classes(), is_answer(&case)) {
            (Some(classes), is_answer) => {
                answers += 1;
                right += usize::from(classes.contains(&case.class.as_str()));
                if !is_answer {
                    missed.push(format!("{}: {}{}", row.path, case.class, signs(&case)));
                }
            }
            (None, true) => {
                alarms.push(format!("{}: {}{}", row.path, case.class, signs(&case)));
            }
            (None, false) => {}
        }
    }
    for ((label, class), count) in &matrix {
        println!("{label:20} {class:20} {count:4}");
    }
    println!(
        "answers {answers}, missed {}, right class {right}, false alarms {}",
        missed.len(),
        alarms.len()
    );
    // As measured: of what got better nothing may get worse unseen.
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
    assert!(alarms.is_empty(), "false alarms:\n{}", alarms.join("\n"));
    assert_eq!(right, answers);
}

#[test]
fn subject_messages_are_found() {
    let (mut named, mut found, mut wrong) = (0, 0, Vec::new());
    for row in rows().into_iter().filter(|row| !row.message_id.is_empty()) {
        named += 1;
        match case(row.bytes).original.message_id() {
            Some(id) if id == row.message_id => found += 1,
            Some(id) => wrong.push(format!("{}: {id} for {}", row.path, row.message_id)),
            None => println!("{}: {} not found", row.path, row.message_id),
        }
    }
    println!("subject messages {named}, found {found}, wrong {}", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(found, named);
}

/// Whether a message refers to another one, or has the subject of an answer.
fn is_answering(bytes: &[u8]) -> bool {
    let fields = Fields::read(bytes);
    let subject = fields.text("subject").unwrap_or_default().to_ascii_lowercase();
    let is_answer = ["re:", "fw:", "fwd:"].iter().any(|prefix| subject.contains(prefix));
    is_answer || fields.has("in-reply-to") || fields.has("references")
}

/// Vacations have a null reverse-path, but so have newsletters, tickets and journal copies. Left out
/// is what answers a message: with a null reverse-path only responders do that.
#[test]
fn a_null_reverse_path_makes_no_answer_of_the_rest() {
    let mut alarms = Vec::new();
    let rest = rows().into_iter().filter(|row| row.answer_classes().is_none());
    let (answering, rest): (Vec<_>, Vec<_>) = rest.partition(|row| is_answering(&row.bytes));
    println!("{} of the rest; {} more answer a message", rest.len(), answering.len());
    for row in rest {
        let case = case([b"Return-Path: <>\n", row.bytes.as_slice()].concat());
        if is_answer(&case) {
            alarms.push(format!("{}: {}{}", row.path, case.class, signs(&case)));
        }
    }
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
}

/// Return-Path is written at final delivery; on the way out there is only the envelope.
#[test]
fn few_answers_are_known_by_their_return_path_alone() {
    let (mut answers, mut missed) = (0, Vec::new());
    for row in rows().into_iter().filter(|row| row.answer_classes().is_some()) {
        answers += 1;
        let text = String::from_utf8_lossy(&row.bytes);
        let kept = text.split_inclusive('\n');
        let kept = kept.filter(|line| !line.to_ascii_lowercase().starts_with("return-path:"));
        if !is_answer(&case(kept.collect::<String>().into_bytes())) {
            missed.push(row.path);
        }
    }
    assert!(missed.len() <= MISSED_MAX, "{} of {answers}: {missed:?}", missed.len());
}
