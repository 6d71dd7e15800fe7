//! Station 3: what speaks for a bounce that has no machine-readable form.
//!
//! Takes: a `Reading`. Gives: `Failure`. How many of its signs are needed, and from whom, says
//! `classify`. Bounds: those of `Reading`, and `REPLY_CODES_MAX`.
//! Standards: RFC 5321 §4.2 (reply codes), RFC 3463 §2 (status codes).

use crate::judge::reading::Reading;
use crate::judge::words::labelled;
use crate::judge::words_of_failure::{DELAY, FAILURE_SUBJECT};
use crate::judge::words_of_reply::REPLY_LABEL;

/// What speaks for a bounce that has no machine-readable form.
#[derive(Debug)]
pub struct Failure {
    /// A phrase of its text.
    pub text: Option<&'static str>,
    /// The text says nothing else but that a mailbox is full. Warnings to its owner do too.
    is_full: bool,
    /// A phrase of its subject, when no answer prefix stands before it.
    pub subject: Option<&'static str>,
    /// It holds a message, as a part or quoted in its text.
    pub encloses: bool,
    /// Its text holds a reply of an SMTP server, or a status code.
    pub has_reply_code: bool,
}

impl Failure {
    /// The signs that a message has.
    pub fn of(reading: &Reading<'_>) -> Failure {
        let is_answer =
            reading.is_reply_subject || labelled(REPLY_LABEL, &reading.subject_words).is_some();
        let subject = || {
            FAILURE_SUBJECT
                .find(&reading.subject_words)
                .or_else(|| DELAY.find(&reading.subject_words))
        };
        let said = reading.said();
        let text = said.failure.or(said.delay);
        let subject = if is_answer { None } else { subject() };
        Failure {
            text,
            subject,
            is_full: text.is_none() && subject.is_none() && said.full_mailbox.is_some(),
            encloses: reading.embedded().is_some() || reading.quote().is_some(),
            has_reply_code: has_reply_code(reading.own_words()),
        }
    }

    /// Whether its words speak of a failure.
    pub fn has_words(&self) -> bool {
        self.text.is_some() || self.subject.is_some() || self.is_full && self.has_form()
    }

    /// Whether there is more than words.
    pub fn has_form(&self) -> bool {
        self.encloses || self.has_reply_code
    }

    /// How many of the signs are there.
    pub fn count(&self) -> usize {
        usize::from(self.text.is_some())
            + usize::from(self.subject.is_some())
            + usize::from(self.encloses)
            + usize::from(self.has_reply_code)
    }
}

/// Whether a folded text holds a refusal of an SMTP server (`550 5.1.1 …`, `said: 452-…`) or a
/// status code (`#5.1.1`).
///
/// Why more than the digits: texts are full of prices, weights and version numbers.
fn has_reply_code(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_start = |at: usize| match at.checked_sub(1).and_then(|before| bytes.get(before)) {
        None => true,
        Some(before) => b" :(#[<\"'".contains(before),
    };
    let starts = memchr::memchr2_iter(b'4', b'5', bytes).filter(|at| is_start(*at));
    starts.take(REPLY_CODES_MAX).any(|at| {
        let before = text.get(text.floor_char_boundary(at.saturating_sub(24))..at);
        let before = before.unwrap_or_default();
        let behind = text.get(at..text.floor_char_boundary(at + 48)).unwrap_or_default();
        let is_said = || SERVER_WORDS.iter().any(|word| before.contains(word));
        match behind.as_bytes() {
            [_, b'0'..=b'9', b'0'..=b'9', b' ' | b'-', b'4' | b'5', b'.', ..] => true,
            [_, b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..] => behind.contains('@') || is_said(),
            [_, b'.', b'0'..=b'7', b'.', b'0'..=b'9', ..] => before.ends_with('#') || is_said(),
            _ => false,
        }
    })
}

/// Places of a text where a reply code is looked for.
const REPLY_CODES_MAX: usize = 1000;

/// What stands in front of the code where a text quotes a server, folded.
const SERVER_WORDS: &[&str] = &[
    "smtp",
    "esmtp",
    "said",
    "server",
    "remote",
    "host",
    "error",
    "response",
    "reply",
    "status",
    "code",
    "reason",
    "rcpt",
    "<<<",
    ">>>",
    "received",
    "failure",
    "diagnostic",
    "because",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_refuse_with_is_told_from_prices_and_versions() {
        for text in [
            "550 5.1.1 no such user",
            "smtp; 550-5.7.1",
            "sorry, no mailbox here by that name. (#5.1.1)",
            "remote host said: 550 no",
            "<<< 452 too many",
            "550 u@b.test... no such user",
            "status: 5.2.2",
        ] {
            assert!(has_reply_code(text), "{text}");
        }
        for text in [
            "450 eur",
            "weighs 500 g",
            "version 5.1.1 is out",
            "room 404 ",
            "450 mb of 500 mb",
            "tel. 555-1234",
            "",
            "5",
        ] {
            assert!(!has_reply_code(text), "{text}");
        }
        has_reply_code(&"4".repeat(100_000));
        has_reply_code(&" 4ä".repeat(100_000));
    }
}
