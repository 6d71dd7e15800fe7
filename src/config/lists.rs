//! Files of the administrator: lists of domains, allow and deny lists.
//!
//! Takes: text, a line an entry. Gives: domains; list entries. Errors: `Fault`s with line and
//! remedy, all at once. Bounds: `limits::LIST_ENTRIES_MAX`.
//!
//! A list file: `PATTERN [expires=2026-12-31] [author=NAME] [forged] [reason words]`; PATTERN is an
//! address, a domain, or `.domain` for all below it too; `#` begins a comment.
//! A domains file: one domain a line, or a Postfix text map, of which the first column counts.

use std::time::Duration;

use crate::config::file::Source;
use crate::config::values;
use crate::judge::lists::{Entry, Pattern};
use crate::mail::address::Domain;
use crate::mail::limits::{FORGED_ENTRY_MAX, LIST_ENTRIES_MAX};
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// Which list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whom to answer.
    Allow,
    /// Whom to answer never.
    Deny,
}

/// Reads a list file. Faults go to `source`.
pub fn entries(source: &mut Source<'_>, kind: Kind, now: Timestamp) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (number, at, line) in lines(source.text) {
        match entry(line, kind, now) {
            Ok(mut entry) => {
                entry.written_at = format!("{}:{number}", source.name);
                entries.push(entry);
            }
            Err(what) => source.fault(at..at, what),
        }
        if entries.len() > LIST_ENTRIES_MAX {
            source.fault(at..at, format!("more than {LIST_ENTRIES_MAX} entries"));
            break;
        }
    }
    entries
}

fn entry(line: &str, kind: Kind, now: Timestamp) -> Result<Entry, String> {
    let mut words = line.split_whitespace().peekable();
    let pattern = words.next().unwrap_or_default();
    let mut written = WrittenEntry { pattern, ..WrittenEntry::default() };
    while let Some(word) = words.peek().copied() {
        match word.split_once('=') {
            Some(("expires", value)) => written.expires = Some(value),
            Some(("author", value)) => written.author = value,
            _ if word == "forged" => written.forged = true,
            _ => break,
        }
        words.next();
    }
    let reason = words.collect::<Vec<_>>().join(" ");
    written.reason = &reason;
    written.check(kind, now)
}

/// An entry as it was written, wherever that was.
#[derive(Clone, Copy, Debug, Default)]
pub struct WrittenEntry<'a> {
    /// Address, domain or `.domain`.
    pub pattern: &'a str,
    /// A date or moment.
    pub expires: Option<&'a str>,
    /// Who put it there.
    pub author: &'a str,
    /// Why it stands there.
    pub reason: &'a str,
    /// Whether it helps against *failed* too.
    pub forged: bool,
}

impl WrittenEntry<'_> {
    /// The entry; the error says what is wrong and what to do.
    pub fn check(&self, kind: Kind, now: Timestamp) -> Result<Entry, String> {
        let shown = Shown::at_most(self.pattern, 80);
        let pattern = Pattern::parse(self.pattern).ok_or_else(|| {
            format!("{shown:?} is no address, domain or .domain", shown = shown.as_str())
        })?;
        if matches!(&pattern, Pattern::Domain(domain) if domain.label_count() == 1) {
            return Err(format!("{:?} is no domain: a domain has a dot", shown.as_str()));
        }
        let expires = self.expires.map(values::expiry).transpose()?;
        if self.forged && kind == Kind::Deny {
            return Err("`forged` has a meaning on the allow list only: take it out".to_owned());
        }
        if self.forged {
            // Why: a date stands for the end of its day.
            let soon = |at: Timestamp| at <= now.plus(FORGED_ENTRY_MAX + DAY);
            if !expires.is_some_and(soon) {
                return Err(format!(
                    "a `forged` entry lets answers to forged senders out: give it an `expires` \
                     within {} days",
                    FORGED_ENTRY_MAX.as_secs() / 86_400
                ));
            }
        }
        Ok(Entry {
            pattern,
            expires,
            reason: self.reason.to_owned(),
            author: self.author.to_owned(),
            forged: self.forged,
            written_at: String::new(),
        })
    }
}

/// Reads a domains file. Faults go to `source`.
pub fn domains(source: &mut Source<'_>) -> Vec<Domain> {
    let mut domains = Vec::new();
    for (_, at, line) in lines(source.text) {
        let first = line.split_whitespace().next().unwrap_or_default();
        // Why: virtual maps hold addresses, transport maps `.domain`; neither is a domain of ours.
        if first.contains('@') || first.starts_with('.') {
            continue;
        }
        match Domain::parse(first) {
            Some(domain) => domains.push(domain),
            None => source.fault(at..at, "the first column is no domain: take the line out"),
        }
        if domains.len() > LIST_ENTRIES_MAX {
            source.fault(at..at, format!("more than {LIST_ENTRIES_MAX} domains"));
            break;
        }
    }
    domains
}

/// Each line with something in it: its number from 1, its place, and its text without comment.
fn lines(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    let mut at = 0;
    let placed = text.split_inclusive('\n').map(move |line| {
        let place = at;
        at += line.len();
        (place, line)
    });
    placed.enumerate().filter_map(|(index, (place, line))| {
        let comment = line.match_indices('#').map(|(at, _)| at).find(|at| {
            line.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t']))
        });
        let line = line.get(..comment.unwrap_or(line.len())).unwrap_or(line).trim();
        (!line.is_empty()).then_some((index + 1, place, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

    #[test]
    fn an_entry_a_line_with_expiry_author_and_reason() {
        let text = "# partners\nbank.example expires=2026-12-31 author=ann they know us # really\n\
                    .uni.example\n\njoe@shop.example forged expires=2026-12-01 joe#1 said so\n";
        let mut source = Source::new("allow.list", text);
        let entries = entries(&mut source, Kind::Allow, NOW);
        assert_eq!(source.faults, []);
        let shown: Vec<String> = entries
            .iter()
            .map(|entry| {
                let expires = entry.expires.map(|at| at.to_string()).unwrap_or_default();
                let (pattern, reason) = (&entry.pattern, &entry.reason);
                let (author, forged, at) = (&entry.author, entry.forged, &entry.written_at);
                format!("{pattern}|{expires}|{author}|{forged}|{reason}|{at}")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "bank.example|2026-12-31T23:59:59.999Z|ann|false|they know us|allow.list:2",
                ".uni.example|||false||allow.list:3",
                "joe@shop.example|2026-12-01T23:59:59.999Z||true|joe#1 said so|allow.list:5",
            ]
        );
    }

    #[test]
    fn every_fault_of_a_list_is_found() {
        let text = "a b@c\n@x.example\nbank.example expires=soon\nbank.example forged\n\
                    bank.example forged expires=2027-12-01\nok.example\n";
        let mut source = Source::new("allow.list", text);
        assert_eq!(entries(&mut source, Kind::Allow, NOW).len(), 1);
        let lines: Vec<usize> = source.faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5], "{:#?}", source.faults);
        let mut source = Source::new("deny.list", "bank.example forged expires=2026-12-01\n");
        assert!(entries(&mut source, Kind::Deny, NOW).is_empty());
        assert_eq!(source.faults.len(), 1);
    }

    #[test]
    fn an_expired_entry_is_read_and_does_not_count() {
        let mut source = Source::new("allow.list", "bank.example expires=2020-01-01");
        let entries = entries(&mut source, Kind::Allow, NOW);
        assert!(entries[0].expires.unwrap() < NOW.plus(Duration::ZERO));
        assert_eq!(source.faults, []);
    }

    #[test]
    fn a_postfix_map_gives_its_first_column() {
        let text = "uni.example OK\n  bücher.example\tvirtual # x\nann@uni.example ann\n\
                    .uni.example smtp:[x]\nnot/a/domain x\n";
        let mut source = Source::new("domains", text);
        let found: Vec<String> = domains(&mut source).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["uni.example", "xn--bcher-kva.example"]);
        assert_eq!(source.faults.len(), 1);
        assert_eq!(source.faults[0].line, 5);
    }
}
