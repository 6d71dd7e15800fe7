//! The house rules, checked as text: floors, purity, sizes, headers, the form of references.
//!
//! Goal: an architecture that a newcomer can trust. Method: read every source file and look.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The rooms, with the rooms each may import from beside itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("judge", &["mail"]),
    ("wire", &["mail"]),
    ("meter", &[]),
    ("tls", &["mail"]),
    ("store", &["judge", "mail", "meter"]),
    ("auth", &["judge", "mail", "meter"]),
    ("relay", &["wire", "mail", "meter", "tls"]),
    ("audit", &["judge", "mail", "meter"]),
    ("guard", &["store", "auth", "relay", "audit", "judge", "wire", "mail", "meter"]),
    ("config", &["store", "auth", "relay", "audit", "judge", "wire", "mail", "meter", "tls"]),
    (
        "serve",
        &[
            "config", "guard", "store", "auth", "relay", "audit", "judge", "wire", "mail", "meter",
            "tls",
        ],
    ),
    (
        "cmd",
        &[
            "serve", "config", "guard", "store", "auth", "relay", "audit", "judge", "wire", "mail",
            "meter", "tls",
        ],
    ),
    ("main", &["cmd"]),
    ("lib", &[]),
];

const PURE_ROOMS: &[&str] = &["mail", "judge", "wire"];

/// What a pure room must not name: runtimes, sockets, files, clocks, chance, environment, logs.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "SystemTime",
    "Instant",
    "getrandom",
    "Ulid::new",
    "tracing",
    "println!",
    "eprintln!",
    "Timestamp::now",
    "hickory",
];

struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

impl Source {
    /// The lines before the file's tests, with their numbers from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]")
    }

    /// The same without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let source = root().join("src");
    let files = files_below(&source, "rs");
    assert!(files.len() > 10, "the house test must find the sources");
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&source).unwrap().to_owned();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(root()).unwrap().to_owned(), room, text }
    };
    files.into_iter().map(read).collect()
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_go_down() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == source.room) else {
            faults.push(format!("{}: a room without a floor", source.path.display()));
            continue;
        };
        for (number, line) in source.code() {
            for (_, rest) in line.match_indices("crate::").map(|(at, _)| line.split_at(at + 7)) {
                let room: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if room.is_empty() {
                    faults.push(format!("{}: import item by item", source.at(number)));
                } else if room != source.room && !allowed.contains(&room.as_str()) {
                    faults.push(format!("{}: {} imports {room}", source.at(number), source.room));
                }
            }
            if line.contains("super::") {
                faults.push(format!("{}: write the path from `crate::`", source.at(number)));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| PURE_ROOMS.contains(&source.room.as_str())) {
        for (number, line) in source.code() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}: names {word}", source.at(number)));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn files_have_a_header_and_a_measure() {
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: begins without `//!`", source.path.display()));
        }
        let lines = source.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines before its tests", source.path.display()));
        }
    }
    assert_none(faults);
}

#[test]
fn functions_have_a_measure() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if !is_function(line) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let rest = lines[index..].iter();
            let length = rest.take_while(|line| **line != close).count() + 1;
            let has_body = lines[index..].iter().take(12).any(|line| line.ends_with('{'));
            if has_body && !line.ends_with(';') && length > FUNCTION_LINES_MAX {
                faults.push(format!("{}: a function of {length} lines", source.at(index + 1)));
            }
        }
    }
    assert_none(faults);
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().peekable();
    while words
        .next_if(|word| {
            matches!(*word, "pub" | "async" | "const" | "extern") || word.starts_with("pub(")
        })
        .is_some()
    {}
    words.next() == Some("fn")
}

#[test]
fn references_have_one_form() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for (at, _) in line.match_indices("RFC") {
                let before = line[..at].chars().next_back();
                let rest = &line[at + 3..];
                let digits = rest
                    .strip_prefix(' ')
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                let possessive = rest.starts_with("'s") || rest.starts_with('s');
                if before.is_none_or(|c| !c.is_alphanumeric()) && !digits && !possessive {
                    faults.push(format!("{}: write `RFC 3834 §5.1`", source.at(number + 1)));
                }
            }
            if line.contains("§ ") || line.to_ascii_lowercase().contains("rfc section") {
                faults.push(format!("{}: write `RFC 3834 §5.1`", source.at(number + 1)));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn every_rfc_named_is_listed() {
    let listed = fs::read_to_string(root().join("docs/rfc.md")).unwrap();
    let mut missing = BTreeSet::new();
    for source in sources() {
        for (at, _) in source.text.match_indices("RFC ") {
            let number: String =
                source.text[at + 4..].chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() && !listed.contains(&format!("RFC {number}")) {
                missing.insert(number);
            }
        }
    }
    assert!(missing.is_empty(), "docs/rfc.md says nothing of RFC {missing:?}");
}

#[test]
fn every_reason_is_documented() {
    let documented = fs::read_to_string(root().join("docs/reference/reasons.md")).unwrap();
    let missing: Vec<&str> = replyguard::judge::decision::Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|code| !documented.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "docs/reference/reasons.md lacks {missing:?}");
}

/// Goal: the threat model claims nothing that no test shows. Method: each `file::test` that
/// SECURITY.md names is looked for in a file of that name.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let named: Vec<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 40, "only {} are named", named.len());
    let files: Vec<PathBuf> = ["src", "tests"]
        .iter()
        .flat_map(|folder| files_below(&root().join(folder), "rs"))
        .collect();
    let is_there = |(file, test): &(&str, &str)| {
        files.iter().any(|path| {
            let stem = match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("mod") => path.parent().and_then(Path::file_name).and_then(|n| n.to_str()),
                stem => stem,
            };
            stem == Some(*file)
                && fs::read_to_string(path).unwrap().contains(&format!("fn {test}("))
        })
    };
    let missing: Vec<_> = named.iter().filter(|named| !is_there(named)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
}
