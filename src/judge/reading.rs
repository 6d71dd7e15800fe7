//! Station 3: a message laid open once, for the rules that ask about it.
//!
//! Takes: the `View` of a message and its reverse-path. Gives: `Reading`. What costs time (the
//! text, the quotation in it) is read when a rule first asks.
//! Bounds: `limits::TEXT_BYTES_MAX` of the text are looked at, `limits::WORDS_BYTES_MAX` of it are
//! searched for words.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::judge::border::Trace;
use crate::judge::quote::{Quote, quote};
use crate::judge::signs::{Author, FieldSign, Marks, author, signs};
use crate::judge::words::folded;
use crate::judge::words_of_failure::Said;
use crate::mail::address::ReversePath;
use crate::mail::header::Field;
use crate::mail::limits::{TEXT_BYTES_MAX, WORDS_BYTES_MAX};
use crate::mail::message::View;
use crate::mail::received::Received;
use crate::mail::report::{Content, Embedded, Report, embedded};

/// A message laid open.
#[derive(Debug)]
pub struct Reading<'m> {
    /// Header and parts.
    pub view: &'m View<'m>,
    /// The outermost report.
    pub report: Option<Report>,
    /// What the header's signs speak for.
    pub marks: Marks,
    /// The signs, each with the field that shows it.
    pub signs: Vec<(&'static FieldSign, &'m Field<'m>)>,
    /// What kind of author stands in From.
    pub author: Author,
    /// What is known of the reverse-path.
    pub sender: Sender,
    /// The subject as people read it.
    pub subject: Cow<'m, str>,
    /// The subject, folded, without tags in brackets and without answer prefixes.
    pub subject_words: String,
    /// Whether the subject began with `Re:` or the like: a person may have answered.
    pub is_reply_subject: bool,
    embedded: OnceCell<Option<Embedded<'m>>>,
    text: OnceCell<Cow<'m, str>>,
    quote: OnceCell<Option<Quote>>,
    own_words: OnceCell<String>,
    said: OnceCell<Said>,
    trace: OnceCell<Trace>,
    reporter: OnceCell<Option<String>>,
}

/// What the reverse-path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It is not known.
    Unknown,
    /// The null reverse-path: no failure of this message is to be reported (RFC 5321 §4.5.5).
    Null,
    /// A program of a mail system, by its name.
    Daemon,
    /// A mailbox.
    Mailbox,
}

impl Sender {
    /// Whether nobody waits for a report of this message's failure.
    pub fn is_nobody(self) -> bool {
        matches!(self, Sender::Null | Sender::Daemon)
    }

    fn of(path: Option<&ReversePath>) -> Sender {
        match path {
            None => Sender::Unknown,
            Some(ReversePath::Null) => Sender::Null,
            Some(ReversePath::Address(address)) => {
                match address.local().eq_ignore_ascii_case("mailer-daemon") {
                    true => Sender::Daemon,
                    false => Sender::Mailbox,
                }
            }
        }
    }
}

impl<'m> Reading<'m> {
    /// Lays a message open.
    pub fn new(view: &'m View<'m>, reverse_path: Option<&ReversePath>) -> Reading<'m> {
        let fields = &view.fields;
        let subject = fields.first("subject").map(Field::decoded).unwrap_or_default();
        let folded_subject = folded(&subject, SUBJECT_BYTES_MAX);
        let (subject_words, is_reply_subject) = without_prefixes(&folded_subject);
        let (marks, signs) = signs(fields);
        Reading {
            view,
            report: Report::find(view),
            marks,
            signs,
            author: author(fields),
            sender: Sender::of(reverse_path),
            subject_words: subject_words.to_owned(),
            is_reply_subject,
            subject,
            embedded: OnceCell::new(),
            text: OnceCell::new(),
            quote: OnceCell::new(),
            own_words: OnceCell::new(),
            said: OnceCell::new(),
            trace: OnceCell::new(),
            reporter: OnceCell::new(),
        }
    }

    /// The message or header that stands in this one as a part.
    pub fn embedded(&self) -> Option<&Embedded<'m>> {
        self.embedded.get_or_init(|| embedded(self.view)).as_ref()
    }

    /// The message's own Received lines.
    pub fn trace(&self) -> &Trace {
        self.trace.get_or_init(|| Trace::of(&self.view.fields))
    }

    /// The host that made the response, lower case: Reporting-MTA, or the one that wrote the lowest
    /// Received line.
    pub fn reporter(&self) -> Option<&str> {
        self.reporter.get_or_init(|| self.reporting_host()).as_deref()
    }

    fn reporting_host(&self) -> Option<String> {
        if let Some(Content::Dsn(dsn)) = self.report.as_ref().map(|report| &report.content)
            && dsn.reporting_mta.is_some()
        {
            return dsn.reporting_mta.clone();
        }
        let mut lines = self.view.fields.all("received").rev();
        let lowest = lines.next()?;
        // Why counted: of very many lines the trace has only the upper ones.
        let by = match self.trace.get() {
            Some(trace) if lines.count() < trace.lines.len() => {
                trace.lines.last().and_then(|line| line.by.clone())
            }
            _ => Received::parse(&lowest.text()).by,
        };
        by.map(|by| by.to_ascii_lowercase())
    }

    /// The text that a person reads first.
    pub fn text(&self) -> &str {
        self.text.get_or_init(|| {
            let part = self.view.first_text();
            part.map(|part| part.text(TEXT_BYTES_MAX)).unwrap_or_default()
        })
    }

    /// The message that the text quotes.
    pub fn quoted(&self) -> Option<Cow<'_, str>> {
        self.quote().map(|quote| quote.message(self.text()))
    }

    /// What the writer of the text says himself: all of it, or what stands above the quotation.
    pub fn own_text(&self) -> &str {
        self.quote().map_or(self.text(), |quote| quote.above(self.text()))
    }

    /// The same, folded, as far as it is searched for words.
    pub fn own_words(&self) -> &str {
        self.own_words.get_or_init(|| folded(self.own_text(), WORDS_BYTES_MAX))
    }

    /// What they say.
    pub fn said(&self) -> &Said {
        self.said.get_or_init(|| Said::of(self.own_words()))
    }

    /// Where the text quotes it.
    pub fn quote(&self) -> Option<Quote> {
        *self.quote.get_or_init(|| quote(self.text()))
    }
}

/// Bytes of a folded subject.
const SUBJECT_BYTES_MAX: usize = 1000;

/// Prefixes of answers and forwards in the languages of mail programs, folded.
const ANSWER_PREFIXES: &[&str] = &[
    "re:", "re :", "aw:", "antw:", "sv:", "vs:", "odp:", "rv:", "ris:", "res:", "enc:", "fw:",
    "fwd:", "wg:", "tr:", "i:", "doorst:", "vl:", "ynt:", "ilt:", "回复:", "答复:", "转发:",
    "返信:", "回覆:", "轉寄:", "ref:", "r:", "yt:",
];

/// The subject without `[tags]` and answer prefixes at its start; and whether there were any of
/// the latter.
fn without_prefixes(subject: &str) -> (&str, bool) {
    let mut rest = subject.trim();
    let mut is_reply = false;
    for _ in 0..PREFIXES_MAX {
        let tag = rest.strip_prefix('[').and_then(|tag| tag.split_once(']'));
        let answer = ANSWER_PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix));
        match (tag, answer) {
            (Some((_, behind)), _) if !behind.trim().is_empty() => rest = behind.trim_start(),
            (_, Some(behind)) => {
                is_reply = true;
                rest = behind.trim_start();
            }
            _ => break,
        }
    }
    (rest, is_reply)
}

const PREFIXES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_answer_prefixes_are_taken_off() {
        for (subject, expected) in [
            ("undeliverable: x", ("undeliverable: x", false)),
            ("[postmaster] email delivery failure", ("email delivery failure", false)),
            ("re: [list] aw: undelivered mail", ("undelivered mail", true)),
            ("[only a tag]", ("[only a tag]", false)),
            ("real estate", ("real estate", false)),
        ] {
            assert_eq!(without_prefixes(subject), expected, "{subject}");
        }
    }

    #[test]
    fn the_words_stand_above_the_quotation() {
        let view = View::read(
            b"Subject: x\n\nIt FAILED.\n--- Original message follows.\n\nFrom: a@b.test\nTo: c@d.test\n\nspam\n",
        );
        let reading = Reading::new(&view, Some(&ReversePath::Null));
        assert_eq!(reading.own_words().trim(), "it failed.");
        assert!(reading.quoted().is_some() && reading.sender.is_nobody());
    }
}
