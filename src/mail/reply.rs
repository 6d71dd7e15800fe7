//! An SMTP reply: three digits, an enhanced status, text; and the bytes it stands in.
//!
//! Takes: lines of a next hop, passed on byte-exact; or our own words.
//! Gives: `Reply`. Bounds: `limits::REPLY_LINES_MAX`, `limits::REPLY_LINE_BYTES_MAX`.
//! Standards: RFC 5321 §4.2, RFC 3463 §2, RFC 2034 §4.

use bytes::Bytes;

use crate::mail::limits::OWN_REPLY_BYTES_MAX;
use crate::mail::shown::Shown;

/// What an SMTP server answers to a command, with the bytes as they stand on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    wire: Bytes,
}

/// The first digit of a reply, which is all a client may rely on (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// 2yz: done.
    Positive,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: not now; the client keeps the message and tries again.
    Transient,
    /// 5yz: no; the client must not try again unchanged.
    Permanent,
}

impl Reply {
    /// A reply of ours on one line: `250 2.0.0 text`.
    ///
    /// `enhanced` is like `"2.0.0"`, or empty for the few replies that have none (354, EHLO).
    /// `text` must be ours: ASCII without line ends; other characters are made harmless.
    pub fn new(code: u16, enhanced: &str, text: &str) -> Reply {
        let text = Shown::new(text);
        let space = if enhanced.is_empty() { "" } else { " " };
        Reply { code, wire: Bytes::from(format!("{code} {enhanced}{space}{text}\r\n")) }
    }

    /// A reply of ours that ends with an id, by which a line of the client's log finds ours:
    /// `451 4.4.1 text ID`.
    ///
    /// `text` may hold what a peer said. Why it is cut: the id must stay within the line
    /// (RFC 5321 §4.5.3.1.5). Why only ASCII: the client may know no other (RFC 6531 §3.7.4.2).
    pub fn with_id(code: u16, enhanced: &str, text: &str, id: &str) -> Reply {
        let mut wire = format!("{code} {enhanced} ");
        let free = OWN_REPLY_BYTES_MAX.saturating_sub(wire.len() + id.len() + " \r\n".len());
        let text = Shown::new(text).into_string();
        wire.reserve(text.len() + id.len() + " \r\n".len());
        match text.is_ascii() && text.len() <= free {
            true => wire.push_str(&text),
            false => {
                wire.extend(text.chars().map(|c| if c.is_ascii() { c } else { '?' }).take(free));
            }
        }
        wire.extend([" ", id, "\r\n"]);
        Reply { code, wire: Bytes::from(wire) }
    }

    /// A reply of ours on several lines, as EHLO's; `lines` must be ours and must not be empty.
    pub fn lines<S: AsRef<str>>(code: u16, lines: &[S]) -> Reply {
        let mut wire = String::new();
        for (index, line) in lines.iter().enumerate() {
            let mark = if index + 1 == lines.len() { ' ' } else { '-' };
            wire.push_str(&format!("{code}{mark}{}\r\n", Shown::new(line.as_ref())));
        }
        Reply { code, wire: Bytes::from(wire) }
    }

    /// A peer's reply: its code and every one of its lines with their CRLF, unchanged.
    pub fn from_peer(code: u16, wire: Bytes) -> Reply {
        Reply { code, wire }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The bytes as they stand on the wire, the last CRLF included.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// What the first digit says; anything that is not 2, 3 or 4 is read as `Permanent`.
    pub fn severity(&self) -> Severity {
        match self.code / 100 {
            2 => Severity::Positive,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    /// Whether the first digit is 2.
    pub fn is_positive(&self) -> bool {
        self.severity() == Severity::Positive
    }

    /// The lines after code and mark, joined by a space and made harmless; for logs and records.
    pub fn text(&self) -> String {
        let text: Vec<String> = self
            .wire
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.get(4..))
            .map(|line| String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
            .collect();
        Shown::new(text.join(" ").trim_end()).into_string()
    }

    /// The enhanced status code at the start of the text, such as `5.1.1`; `None` without one.
    pub fn enhanced(&self) -> Option<String> {
        let text = self.wire.get(4..)?;
        let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let word = std::str::from_utf8(text.get(..end)?).ok()?;
        let mut digits = word.split('.');
        let right = matches!(digits.next(), Some("2" | "4" | "5"))
            && digits.clone().count() == 2
            && digits.all(|part| (1..=3).contains(&part.len()));
        right.then(|| word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_replies_have_the_form_of_rfc_5321() {
        let reply = Reply::new(250, "2.0.0", "suppressed 01J failed-spf");
        assert_eq!(&reply.wire()[..], b"250 2.0.0 suppressed 01J failed-spf\r\n");
        assert_eq!(reply.enhanced().as_deref(), Some("2.0.0"));
        assert_eq!(reply.text(), "2.0.0 suppressed 01J failed-spf");
        let reply = Reply::lines(250, &["mx.example", "SIZE 10"]);
        assert_eq!(&reply.wire()[..], b"250-mx.example\r\n250 SIZE 10\r\n");
        assert_eq!(reply.enhanced(), None);
    }

    #[test]
    fn the_id_stands_at_the_end_whatever_a_peer_said() {
        let reply = Reply::with_id(451, "4.4.1", "gr\u{fc}\u{df}e\r\n250 ok", "01J");
        assert_eq!(&reply.wire()[..], b"451 4.4.1 gr??e\\u{d}\\u{a}250 ok 01J\r\n");
        for length in [0, 400, 480, 500, 600, 100_000] {
            let reply = Reply::with_id(451, "4.4.1", &"\u{1b}x".repeat(length), "01J");
            assert!(
                reply.wire().len() <= OWN_REPLY_BYTES_MAX && reply.wire().ends_with(b" 01J\r\n")
            );
        }
    }

    #[test]
    fn a_line_end_in_our_text_cannot_split_the_reply() {
        let reply = Reply::new(550, "5.7.1", "no\r\n250 yes");
        assert_eq!(reply.wire().iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn severity_is_the_first_digit() {
        for (code, severity) in [
            (250, Severity::Positive),
            (354, Severity::Intermediate),
            (451, Severity::Transient),
            (550, Severity::Permanent),
            (199, Severity::Permanent),
        ] {
            assert_eq!(Reply::new(code, "", "x").severity(), severity);
        }
    }
}
