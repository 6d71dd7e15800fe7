//! `classify`: what kind of messages files, folders and mboxes hold; no network, no state.
//!
//! Streams: memory is bounded by one message's first `limits::CLASSIFY_BYTES_MAX` bytes, whatever
//! the size of a file. A line of JSON for each message with `--format jsonl`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cmd::exit::Exit;
use crate::judge::fingerprint::FingerprintKey;
use crate::judge::site::Site;
use crate::judge::{Case, read_alone};
use crate::mail::header::Completeness;
use crate::mail::limits::CLASSIFY_BYTES_MAX;
use crate::mail::message::Message;
use crate::mail::shown::Shown;

/// Fingerprints can be compared between runs, so their key is the same everywhere.
const KEY: FingerprintKey = FingerprintKey::new(*b"replyguard classify, the same ke");

/// Classifies everything below these paths, in the order given, folders sorted by name.
pub fn classify(paths: &[PathBuf], jsonl: bool) -> Exit {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files);
    }
    let mut work = Work::new(jsonl, &files);
    for file in &files {
        if let Err(fault) = work.file(file) {
            // Why no error for a closed pipe: `classify … | head` is a way to look.
            if fault.kind() == io::ErrorKind::BrokenPipe {
                return Exit::Done;
            }
            work.fault(file, &fault);
        }
    }
    work.end()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let is_folder = path.as_os_str() != "-" && path.is_dir();
    if !is_folder {
        files.push(path.to_owned());
        return;
    }
    let mut inside: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    inside.sort();
    inside.iter().for_each(|path| collect(path, files));
}

struct Work {
    jsonl: bool,
    out: BufWriter<io::Stdout>,
    progress: ProgressBar,
    site: Site,
    counts: std::collections::BTreeMap<&'static str, usize>,
    faults: usize,
}

impl Work {
    fn new(jsonl: bool, files: &[PathBuf]) -> Work {
        let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok());
        let whole: u64 = sizes.map(|found| found.len()).sum();
        // Why only then: a bar between lines of output helps nobody, and in a pipe it is noise.
        let shows = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let progress = if shows { ProgressBar::new(whole) } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} {msg}")
        {
            progress.set_style(style);
        }
        Work {
            jsonl,
            out: BufWriter::new(io::stdout()),
            progress,
            site: Site::default(),
            counts: std::collections::BTreeMap::new(),
            faults: 0,
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let reader: Box<dyn BufRead> = match path.as_os_str() == "-" {
            true => Box::new(BufReader::new(io::stdin())),
            false => Box::new(BufReader::with_capacity(128 * 1024, File::open(path)?)),
        };
        self.progress.set_message(Shown::new(&path.display().to_string()).into_string());
        let mut messages = Messages::new(reader);
        let mut index = 0;
        while let Some((bytes, completeness, read)) = messages.next()? {
            self.message(path, index, Message::new(bytes, completeness))?;
            self.progress.inc(read);
            index += 1;
        }
        Ok(())
    }

    fn message(&mut self, path: &Path, index: usize, message: Message) -> io::Result<()> {
        let case = read_alone(&message, &self.site, &KEY);
        *self.counts.entry(case.class.as_str()).or_insert(0) += 1;
        match self.jsonl {
            true => writeln!(self.out, "{}", line(path, index, &case)),
            false => {
                let action = case.class.dsn_action().map(|action| format!(" {}", action.as_str()));
                let class = format!("{}{}", case.class, action.unwrap_or_default());
                let signs: Vec<&str> = case.signals.iter().map(|sign| sign.id.as_ref()).collect();
                let place = match index {
                    0 => Shown::new(&path.display().to_string()).into_string(),
                    n => format!("{}#{n}", Shown::new(&path.display().to_string())),
                };
                writeln!(self.out, "{class:<16} {place}  [{}]", signs.join(" "))
            }
        }
    }

    fn fault(&mut self, path: &Path, fault: &io::Error) {
        self.faults += 1;
        let _ = self.out.flush();
        self.progress.suspend(|| eprintln!("{}: {fault}", path.display()));
    }

    fn end(mut self) -> Exit {
        self.progress.finish_and_clear();
        if self.out.flush().is_err() {
            return Exit::Done;
        }
        if !self.jsonl {
            let counts = self.counts.iter().map(|(class, count)| format!("{count} {class}"));
            eprintln!("{}", counts.collect::<Vec<_>>().join(", "));
        }
        if self.faults > 0 { Exit::Usage } else { Exit::Done }
    }
}

fn line(path: &Path, index: usize, case: &Case) -> serde_json::Value {
    json!({
        "path": path.display().to_string(),
        "index": index,
        "class": case.class.as_str(),
        "dsn_action": case.class.dsn_action().map(|action| action.as_str()),
        "signals": case.signals,
        "subject_message": {
            "message_id": case.original.message_id(),
            "return_path": case.original.return_path.as_ref().map(ToString::to_string),
            "found_as": case.original.found_as.as_str(),
        },
        "fingerprint": case.fingerprint.to_string(),
    })
}

/// The messages of a file: one, or those of an mbox, which begins with a `From ` line.
struct Messages<R> {
    reader: R,
    state: State,
    line: Vec<u8>,
}

#[derive(PartialEq, Eq)]
enum State {
    Begin,
    Single,
    Mbox,
    End,
}

/// A message's first bytes, whether they are all, and how much of the file it takes.
type Piece = (Vec<u8>, Completeness, u64);

impl<R: BufRead> Messages<R> {
    fn new(reader: R) -> Messages<R> {
        Messages { reader, state: State::Begin, line: Vec::new() }
    }

    fn next(&mut self) -> io::Result<Option<Piece>> {
        if self.state == State::Begin {
            self.state = match self.read_line()? {
                0 => State::End,
                _ if self.line.starts_with(b"From ") => State::Mbox,
                _ => State::Single,
            };
        } else if self.state == State::Single {
            return Ok(None);
        }
        if self.state == State::End {
            return Ok(None);
        }
        let (mut message, mut size) = (Vec::new(), self.line.len() as u64);
        if self.state == State::Single {
            message.extend_from_slice(&self.line);
        }
        let mut after_blank = false;
        loop {
            let length = self.read_line()?;
            if length == 0 {
                if self.state == State::Mbox {
                    self.state = State::End;
                }
                break;
            }
            if self.state == State::Mbox && after_blank && self.line.starts_with(b"From ") {
                break;
            }
            size += length as u64;
            after_blank = matches!(self.line.as_slice(), b"\n" | b"\r\n");
            let room = CLASSIFY_BYTES_MAX.saturating_sub(message.len());
            message.extend_from_slice(
                unquoted(&self.state, &self.line)
                    .get(..room)
                    .unwrap_or(unquoted(&self.state, &self.line)),
            );
        }
        let completeness = match message.len() >= CLASSIFY_BYTES_MAX {
            true => Completeness::Truncated,
            false => Completeness::Whole,
        };
        Ok(Some((message, completeness, size)))
    }

    /// The next line, or a piece of a very long one; 0 at the end.
    fn read_line(&mut self) -> io::Result<usize> {
        self.line.clear();
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(self.line.len());
            }
            let end = memchr::memchr(b'\n', buffer).map(|at| at + 1);
            let take = end.unwrap_or(buffer.len());
            self.line.extend_from_slice(buffer.get(..take).unwrap_or(buffer));
            self.reader.consume(take);
            if end.is_some() || self.line.len() >= CLASSIFY_BYTES_MAX {
                return Ok(self.line.len());
            }
        }
    }
}

/// `>From ` in an mbox was `From ` in the message.
fn unquoted<'l>(state: &State, line: &'l [u8]) -> &'l [u8] {
    let quoted = line.iter().take_while(|byte| **byte == b'>').count();
    let is_from = line.get(quoted..).is_some_and(|rest| rest.starts_with(b"From "));
    match *state == State::Mbox && quoted > 0 && is_from {
        true => line.get(1..).unwrap_or(line),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(file: &str) -> Vec<String> {
        let mut messages = Messages::new(file.as_bytes());
        let mut found = Vec::new();
        while let Some((bytes, _, _)) = messages.next().unwrap() {
            found.push(String::from_utf8(bytes).unwrap());
        }
        found
    }

    #[test]
    fn a_file_is_one_message_unless_it_is_an_mbox() {
        assert_eq!(messages(""), Vec::<String>::new());
        assert_eq!(messages("Subject: a\n\nFrom me\n"), ["Subject: a\n\nFrom me\n"]);
        let mbox = "From a@b Sat\nSubject: a\n\n>From me\nFrom the start\n\nFrom b@c Sun\nSubject: b\n\nx\n";
        assert_eq!(
            messages(mbox),
            ["Subject: a\n\nFrom me\nFrom the start\n\n", "Subject: b\n\nx\n",]
        );
    }

    #[test]
    fn a_great_message_is_read_in_bounded_memory() {
        let line = format!("{}\n", "x".repeat(999));
        let file =
            format!("From a@b Sat\nSubject: a\n\n{}\nFrom b Sun\nSubject: b\n", line.repeat(2000));
        let mut messages = Messages::new(file.as_bytes());
        let (first, completeness, size) = messages.next().unwrap().unwrap();
        assert_eq!(first.len(), CLASSIFY_BYTES_MAX);
        assert_eq!(completeness, Completeness::Truncated);
        assert!(size > 2_000_000);
        assert_eq!(messages.next().unwrap().unwrap().0, b"Subject: b\n");
    }
}
