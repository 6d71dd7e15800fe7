//! Station 3: a message that a plain text quotes, as bounces without MIME do.
//!
//! Takes: the text of a part. Gives: `Quote`: the writer's own words, and the message below them.
//! Bounds: `limits::QUOTE_LINES_MAX` lines are searched, `limits::QUOTE_BYTES_MAX` bytes kept.
//! Standards: RFC 5322 §2.2 (what a header line is).
//!
//! The first quotation counts, and only it: what stands below it is the quoted message, whose
//! writer may have written another "original message" into it.

use std::borrow::Cow;

use crate::judge::words::{SEPARATOR, folded};
use crate::mail::header::line_at;
use crate::mail::limits::{QUOTE_BYTES_MAX, QUOTE_LINES_MAX};

/// Where a text quotes a message, in bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    above: usize,
    start: usize,
    indent: usize,
}

impl Quote {
    /// What the writer of the text says himself, above the quotation.
    pub fn above<'t>(&self, text: &'t str) -> &'t str {
        text.get(..self.above).unwrap_or_default()
    }

    /// The quoted message or header, without the indent or `>` before its lines; at most
    /// `limits::QUOTE_BYTES_MAX`.
    pub fn message<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let rest = text.get(self.start..).unwrap_or_default();
        let rest = rest.get(..rest.floor_char_boundary(QUOTE_BYTES_MAX)).unwrap_or(rest);
        let Some(prefix) = rest.get(..self.indent).filter(|prefix| !prefix.is_empty()) else {
            return Cow::Borrowed(rest);
        };
        let lines = rest.split_inclusive('\n');
        Cow::Owned(lines.map(|line| line.strip_prefix(prefix).unwrap_or(line)).collect())
    }
}

/// Fields that begin quoted headers, in lower case. `strong`: people don't quote them by hand.
const KNOWN: &[(&str, Strength)] = &[
    ("received", Strength::Strong),
    ("message-id", Strength::Strong),
    ("return-path", Strength::Strong),
    ("mime-version", Strength::Strong),
    ("dkim-signature", Strength::Strong),
    ("content-type", Strength::Strong),
    ("from", Strength::Plain),
    ("to", Strength::Plain),
    ("cc", Strength::Plain),
    ("subject", Strength::Plain),
    ("date", Strength::Plain),
    ("sender", Strength::Plain),
    ("reply-to", Strength::Plain),
    ("in-reply-to", Strength::Plain),
    ("references", Strength::Plain),
    ("delivered-to", Strength::Plain),
    ("x-mailer", Strength::Plain),
    ("x-originating-ip", Strength::Plain),
    ("authentication-results", Strength::Plain),
    ("content-transfer-encoding", Strength::Plain),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Plain,
    Strong,
}

/// How many known fields make a header without a separator line above it, one of them strong.
const FIELDS_ALONE_MIN: usize = 3;

/// Lines that may stand between a separator line and the header: blank ones, rules, an mbox line.
const LINES_BETWEEN_MAX: usize = 6;

/// Lines of a quoted header that are counted.
const HEADER_LINES_MAX: usize = 80;

/// The first quotation in a text.
pub fn quote(text: &str) -> Option<Quote> {
    let mut may_begin = lines_with(b':', text, QUOTE_LINES_MAX);
    may_begin.find_map(|(at, line)| quote_at(text, at, line))
}

/// The quotation that begins with this line of the text.
fn quote_at(text: &str, at: usize, line: &str) -> Option<Quote> {
    let indent = indent_of(line);
    strength(name(line.get(indent..)?)?)?;
    let header = weigh(text.get(at..)?, line.get(..indent)?);
    if header.known < 2 && header.strong == 0 {
        return None;
    }
    let mut above = lines_above(text, at).take(LINES_BETWEEN_MAX);
    let separator = above.find(|(_, line)| is_separator(line));
    let alone = header.known >= FIELDS_ALONE_MIN && header.strong > 0;
    let above = separator.map(|(start, _)| start).or(alone.then_some(at))?;
    Some(Quote { above, start: at, indent })
}

/// The message that a text part consists of: its first line that is not blank begins a header.
pub fn whole(text: &str) -> Option<&str> {
    let start = text.trim_start_matches(['\r', '\n']);
    let header = weigh(start, "");
    (header.known >= FIELDS_ALONE_MIN && header.strong > 0).then_some(start)
}

/// Whether a line announces a quotation.
///
/// Why: beside the phrase it must look like a heading: dashes before it, or a colon or full stop
/// behind it, on a short line. "I got your message, but" is a sentence of a text.
pub fn is_separator(line: &str) -> bool {
    let line = line.trim();
    let is_ruled = line.starts_with(['-', '=', '*', '_', '>', '|', '#']);
    let is_short = line.len() <= SEPARATOR_BYTES_MAX;
    let ends = line.ends_with([':', '.', '-', '=', '*', '_', '|', '>', '：', '。']);
    if !is_short || !(is_ruled || ends) {
        return false;
    }
    let text = folded(line, 2 * SEPARATOR_BYTES_MAX);
    text.len() > 4 && SEPARATOR.find(&text).is_some()
}

/// Bytes of a separator line; those in UTF-8 are longer than they look.
const SEPARATOR_BYTES_MAX: usize = 120;

/// Each line with where it begins, line ends left out.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at += line_at(text.as_bytes(), start)?.len();
        text.get(start..at).map(|line| (start, without_ends(line)))
    })
}

/// Those of the first `lines_max` lines that have this byte, ASCII, in them.
pub fn lines_with(byte: u8, text: &str, lines_max: usize) -> impl Iterator<Item = (usize, &str)> {
    let all = text.as_bytes();
    let mut ends = memchr::memchr_iter(b'\n', all);
    let end = lines_max.checked_sub(1).and_then(|last| ends.nth(last));
    let searched = end.and_then(|end| all.get(..end)).unwrap_or(all);
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = searched.get(from..)?;
        let found = memchr::memchr(byte, rest)?;
        let before = rest.get(..found).and_then(|before| memchr::memrchr(b'\n', before));
        let start = from + before.map_or(0, |line_end| line_end + 1);
        from = start + line_at(all, start)?.len();
        text.get(start..from).map(|line| (start, without_ends(line)))
    })
}

fn without_ends(line: &str) -> &str {
    let ends = line.bytes().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    line.get(..line.len() - ends).unwrap_or_default()
}

/// The lines above the one that starts at `at`, the nearest first, as `lines` gives them.
fn lines_above(text: &str, at: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut end = at;
    std::iter::from_fn(move || {
        let above = text.get(..end)?;
        let inner = above.strip_suffix('\n').unwrap_or(above);
        let start = memchr::memrchr(b'\n', inner.as_bytes()).map_or(0, |line_end| line_end + 1);
        let line = above.get(start..).filter(|line| !line.is_empty())?;
        end = start;
        Some((start, without_ends(line)))
    })
}

/// How many bytes of indent a line has: white space and `>`.
fn indent_of(line: &str) -> usize {
    line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'>')).count()
}

/// The strength of a known field; `None` of any other.
fn strength(name: &str) -> Option<Strength> {
    KNOWN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, strength)| *strength)
}

/// How many known fields stand in the header at the start of a text.
#[derive(Default)]
struct Header {
    known: usize,
    strong: usize,
}

fn weigh(text: &str, prefix: &str) -> Header {
    let mut header = Header::default();
    for (_, line) in lines(text).take(HEADER_LINES_MAX) {
        let Some(line) = line.strip_prefix(prefix) else { break };
        if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
            continue;
        }
        let Some(name) = name(line) else { break };
        match strength(name) {
            Some(strength) => {
                header.known += 1;
                header.strong += usize::from(strength == Strength::Strong);
            }
            None if is_name(name) => {}
            None => break,
        }
    }
    header
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Without white space at its end.
fn without_space(name: &str) -> &str {
    match name.as_bytes().last() {
        Some(last) if last.is_ascii_graphic() => name,
        _ => name.trim_end(),
    }
}

/// What stands before the colon.
fn name(line: &str) -> Option<&str> {
    let colon = memchr::memchr(b':', line.as_bytes())?;
    line.get(..colon).map(without_space)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> Option<(&str, String)> {
        quote(text).map(|quote| (quote.above(text), quote.message(text).into_owned()))
    }

    const HEADER: &str = "Received: from a by b; x\nMessage-ID: <m@a.test>\nSubject: s\n\nbody\n";

    #[test]
    fn what_servers_put_above_a_message() {
        for separator in [
            "--- Below this line is a copy of the message.",
            "------ This is a copy of the message, including all the headers. ------",
            "----- Original message -----",
            "   ----- Unsent message follows -----",
            "Original message follows.",
            "Message headers follow.",
            "--- The header of the original message is following. ---",
            "Included is a copy of the message header:\n-----------------------------------------",
            "------- Returned Message --------",
            "|------------------------- Message text follows: ------------------------|",
            "--- Below the next line is a copy of the message.",
            "-------- Ursprüngliche Nachricht --------",
            "-------original message",
            "----- Исходное сообщение -----",
        ] {
            for gap in ["\n", "\n\n"] {
                let text = format!("It failed.\n{separator}{gap}{HEADER}");
                let (above, message) = quoted(&text).unwrap_or_else(|| panic!("{separator}"));
                assert_eq!((above.trim(), message.as_str()), ("It failed.", HEADER), "{separator}");
            }
            // Behind a separator less is enough.
            let text = format!("It failed.\n{separator}\n\nFrom: a@b.test\nTo: c@d.test\n");
            assert!(quote(&text).is_some(), "{separator}");
        }
    }

    #[test]
    fn a_header_without_a_separator_is_found_too() {
        let text = format!("It failed.\n\n{HEADER}");
        let (above, message) = quoted(&text).unwrap();
        assert_eq!((above.trim(), message.as_str()), ("It failed.", HEADER));
        let indented: String = HEADER.lines().map(|line| format!("   > {line}\n")).collect();
        assert_eq!(quoted(&format!("Failed:\n{indented}")).unwrap().1, HEADER);
        assert_eq!(whole(&format!("\n{HEADER}")), Some(HEADER));
    }

    #[test]
    fn texts_that_quote_nothing() {
        for text in [
            "",
            "Your message\n\n  To:      x@a.test\n  Subject: s\n  Sent:    today\n\ndid not reach",
            "Hello,\nDate: tomorrow\nI got your message, but\nFrom: here it is far.\n",
            "Reporting-MTA: dns; a.test\nFinal-Recipient: rfc822; b@c.test\nAction: failed\n",
        ] {
            assert_eq!(quote(text), None, "{text}");
        }
        assert_eq!(whole("Dear Sir,\nFrom: x\nMessage-ID: y\nTo: z"), None);
    }

    #[test]
    fn the_first_quotation_counts() {
        let nested = HEADER.replace(
            "body",
            "--- Below this line is a copy of the message.\n\n\
            Message-ID: <forged@evil.test>\nReceived: from x\nReturn-Path: <bank@bank.test>\n\n",
        );
        let text = format!(
            "Hi. This is qmail.\n--- Below this line is a copy of the message.\n\n{nested}"
        );
        let (above, message) = quoted(&text).unwrap();
        assert_eq!(above, "Hi. This is qmail.\n");
        assert!(message.starts_with("Received: from a by b; x\nMessage-ID: <m@a.test>"));
    }

    #[test]
    fn a_hostile_text_costs_its_bound() {
        for piece in ["From: x\n", "----- original message -----\n", "> ", "From: ", "\n"] {
            let _ = quote(&piece.repeat(200_000));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_searched(text in "\\PC{0,200}") {
            let _ = (quote(&text), whole(&text));
        }

        #[test]
        fn lines_with_a_byte_are_those_of_all_that_have_it(
            text in "(a|:|@|\n|\r\n|ä){0,20}",
            lines_max in 1usize..8,
        ) {
            let all = text.lines().take(lines_max).filter(|line| line.contains('@'));
            let found = lines_with(b'@', &text, lines_max);
            prop_assert!(found.map(|(_, line)| line).eq(all));
        }

        #[test]
        fn line_ends_do_not_matter(text in "(From: a|Received: b|Message-ID: c|To: d|--- original message|x| |\n|> ){0,30}") {
            let crlf = text.replace('\n', "\r\n");
            let lf = quoted(&text).map(|(above, message)| (above.to_owned(), message));
            let crlf = quoted(&crlf).map(|(above, message)| (above.replace('\r', ""), message.replace('\r', "")));
            prop_assert_eq!(lf, crlf);
        }
    }
}
