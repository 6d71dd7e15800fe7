//! The client side of SMTP and LMTP, without sockets: commands and stuffed content out, replies in.
//!
//! Takes: bytes of a next hop, cut anywhere. Gives: `Reply`s, byte-exact; command lines; content
//! with its dots stuffed. Errors: `ReplyFault`; the session is of no use then.
//! Bounds: `limits::REPLY_LINE_BYTES_MAX`, `limits::REPLY_LINES_MAX`.
//! Standards: RFC 5321 §4.2 and §4.5.2, RFC 2033, Postfix's XFORWARD.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::mail::envelope::{MailFrom, Recipient, XforwardAttribute};
use crate::mail::limits::{REPLY_LINE_BYTES_MAX, REPLY_LINES_MAX, XFORWARD_LINE_BYTES_MAX};
use crate::mail::reply::Reply;
use crate::wire::endpoint::Protocol;

/// Why a next hop's bytes are no reply; its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// Not three digits and a space or hyphen; or the digits change within one reply.
    #[error("no SMTP reply")]
    PeerSyntax,
    /// Longer than `limits::REPLY_LINE_BYTES_MAX` or `limits::REPLY_LINES_MAX`.
    #[error("reply too long")]
    BoundLength,
}

/// Reads replies.
#[derive(Debug, Default)]
pub struct ReplyReader {
    lines: BytesMut,
    count: usize,
    code: Option<u16>,
}

impl ReplyReader {
    /// The next whole reply; `None` when more bytes are needed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Result<Reply, ReplyFault>> {
        loop {
            let Some(end) = memchr::memchr(b'\n', buffer) else {
                // Why one more: the CR of the line end may be there already, and is not counted.
                let endless = buffer.len() > REPLY_LINE_BYTES_MAX + 1;
                return endless.then_some(Err(ReplyFault::BoundLength));
            };
            let line = buffer.split_to(end + 1);
            let text = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n"));
            match self.take(text.unwrap_or(&line)) {
                Ok(None) => {}
                Ok(Some(code)) => {
                    let wire: Bytes = self.lines.split().freeze();
                    *self = ReplyReader::default();
                    return Some(Ok(Reply::from_peer(code, wire)));
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
    }

    /// Takes one line; gives the code when it was the last of its reply.
    fn take(&mut self, line: &[u8]) -> Result<Option<u16>, ReplyFault> {
        self.count += 1;
        if self.count > REPLY_LINES_MAX || line.len() > REPLY_LINE_BYTES_MAX {
            return Err(ReplyFault::BoundLength);
        }
        let digits = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code: Option<u16> = digits.and_then(|digits| digits.parse().ok());
        let code = code.filter(|code| (200..600).contains(code)).ok_or(ReplyFault::PeerSyntax)?;
        if self.code.is_some_and(|first| first != code) {
            return Err(ReplyFault::PeerSyntax);
        }
        self.code = Some(code);
        self.lines.extend_from_slice(line);
        self.lines.extend_from_slice(b"\r\n");
        match line.get(3) {
            None | Some(b' ') => Ok(Some(code)),
            Some(b'-') => Ok(None),
            Some(_) => Err(ReplyFault::PeerSyntax),
        }
    }
}

/// EHLO or LHLO.
pub fn hello_command(protocol: Protocol, hostname: &str) -> String {
    match protocol {
        Protocol::Smtp => format!("EHLO {hostname}\r\n"),
        Protocol::Lmtp => format!("LHLO {hostname}\r\n"),
    }
}

/// MAIL as it came, SIZE grown by the bytes we add.
pub fn mail_command(mail: &MailFrom, added_bytes: u64) -> String {
    format!("MAIL FROM:{}{}\r\n", mail.path_text, mail.parameters.to_send(added_bytes))
}

/// RCPT as it came.
pub fn rcpt_command(recipient: &Recipient) -> String {
    format!("RCPT TO:{}{}\r\n", recipient.path_text, recipient.parameters.to_send(0))
}

/// XFORWARD with those attributes that the next hop takes (`offered`: what stands behind the
/// keyword in its EHLO), in as many lines as are needed; empty when it takes none.
pub fn xforward_commands(attributes: &[XforwardAttribute], offered: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let taken = |name: &str| offered.split(' ').any(|word| word.eq_ignore_ascii_case(name));
    for attribute in attributes.iter().filter(|attribute| taken(&attribute.name)) {
        let word = format!(" {}={}", attribute.name, attribute.value);
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 2 <= XFORWARD_LINE_BYTES_MAX => {
                line.push_str(&word);
            }
            _ => lines.push(format!("XFORWARD{word}")),
        }
    }
    lines.iter_mut().for_each(|line| line.push_str("\r\n"));
    lines
}

/// Where the content stands between two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    LineStart,
    Cr,
    Other,
}

/// Whether a line of some content, as CRLF parts it, begins with a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dots {
    /// None does; who says so has seen all of it.
    Absent,
    /// Nobody has looked, or one does.
    Possible,
}

/// Why kept: made anew for each of them, it takes longer than the search for the next one.
static LINE_WITH_DOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// Stuffs dots (RFC 5321 §4.5.2): where a line begins after CRLF with a dot, one more.
#[derive(Debug)]
pub struct Stuffer {
    last: Last,
}

impl Default for Stuffer {
    fn default() -> Self {
        Stuffer { last: Last::LineStart }
    }
}

impl Stuffer {
    /// Appends `content` to `out`, stuffed.
    pub fn stuff(&mut self, content: &[u8], dots: Dots, out: &mut Vec<u8>) {
        let mut rest = content;
        while let Some(at) = self.first_dot(rest, dots) {
            let (before, dotted) = rest.split_at(at);
            out.extend_from_slice(before);
            out.push(b'.');
            // What stands behind this dot is looked at from the dot on.
            self.last = Last::Other;
            rest = dotted;
        }
        out.extend_from_slice(rest);
        self.sent(rest);
    }

    /// The bytes at the beginning of `content` that need no dot more, if they are at least so many;
    /// they count as sent.
    pub fn plain<'c>(
        &mut self,
        content: &'c [u8],
        dots: Dots,
        bytes_min: usize,
    ) -> Option<&'c [u8]> {
        let plain = content.get(..self.first_dot(content, dots).unwrap_or(content.len()))?;
        if plain.len() < bytes_min {
            return None;
        }
        self.sent(plain);
        Some(plain)
    }

    /// Where a line begins with a dot.
    fn first_dot(&self, content: &[u8], dots: Dots) -> Option<usize> {
        if dots == Dots::Absent {
            debug_assert_eq!(self.first_dot(content, Dots::Possible), None, "a dot to be stuffed");
            return None;
        }
        match (self.last, content) {
            (Last::LineStart, [b'.', ..]) => Some(0),
            (Last::Cr, [b'\n', b'.', ..]) => Some(1),
            _ => LINE_WITH_DOT.find(content).map(|at| at + 2),
        }
    }

    fn sent(&mut self, content: &[u8]) {
        self.last = match content {
            [] => self.last,
            [.., b'\r'] => Last::Cr,
            [.., b'\r', b'\n'] => Last::LineStart,
            [b'\n'] if self.last == Last::Cr => Last::LineStart,
            _ => Last::Other,
        };
    }

    /// Appends what ends the message: CRLF when its last line has none, and the final dot.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.last != Last::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        self.last = Last::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::line::{Content, ContentReader};

    fn replies(wire: &[u8]) -> Vec<Result<Reply, ReplyFault>> {
        let (mut reader, mut buffer) = (ReplyReader::default(), BytesMut::from(wire));
        let mut found = Vec::new();
        while let Some(reply) = reader.next(&mut buffer) {
            let fault = reply.is_err();
            found.push(reply);
            if fault {
                break;
            }
        }
        found
    }

    #[test]
    fn replies_are_passed_on_byte_for_byte() {
        for wire in [
            "250 2.1.0 Ok  \r\n",
            "250-a\r\n250-b c\r\n250 d\r\n",
            "354\r\n",
            "550-\r\n550 \x01\r\n",
        ] {
            let found = replies(wire.as_bytes());
            assert_eq!(found.len(), 1);
            assert_eq!(&found[0].as_ref().unwrap().wire()[..], wire.as_bytes());
        }
        assert_eq!(replies(b"250 a\r\n451 b\r\n").len(), 2);
        assert_eq!(replies(b"250-a\r\n").len(), 0);
    }

    #[test]
    fn what_is_no_reply_is_a_fault() {
        for wire in ["hello\r\n", "25\r\n", "250_a\r\n", "250-a\r\n251 b\r\n", "999 x\r\n"] {
            assert_eq!(replies(wire.as_bytes())[0], Err(ReplyFault::PeerSyntax), "{wire}");
        }
        let endless = "250-x\r\n".repeat(REPLY_LINES_MAX + 1);
        assert_eq!(replies(endless.as_bytes())[0], Err(ReplyFault::BoundLength));
        let long = "2".repeat(REPLY_LINE_BYTES_MAX + 2);
        assert_eq!(replies(long.as_bytes())[0], Err(ReplyFault::BoundLength));
    }

    /// The longest line is read alike, wherever its line end is cut.
    #[test]
    fn the_longest_line_does_not_depend_on_packets() {
        for length in [REPLY_LINE_BYTES_MAX - 1, REPLY_LINE_BYTES_MAX, REPLY_LINE_BYTES_MAX + 1] {
            let wire = format!("250 {}\r\n", "x".repeat(length - 4)).into_bytes();
            let whole = replies(&wire);
            for cut in [wire.len() - 2, wire.len() - 1] {
                let (mut reader, mut buffer) =
                    (ReplyReader::default(), BytesMut::from(&wire[..cut]));
                let early = reader.next(&mut buffer);
                buffer.extend_from_slice(&wire[cut..]);
                let found = early.or_else(|| reader.next(&mut buffer));
                assert_eq!(found.as_ref(), whole.first(), "{length} bytes, cut at {cut}");
            }
        }
    }

    #[test]
    fn xforward_says_what_the_next_hop_takes() {
        let attribute = |name: &str, value: &str| XforwardAttribute {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let given = [attribute("NAME", "a.example"), attribute("ADDR", "192.0.2.1")];
        assert_eq!(
            xforward_commands(&given, "NAME ADDR PROTO"),
            ["XFORWARD NAME=a.example ADDR=192.0.2.1\r\n"]
        );
        assert_eq!(xforward_commands(&given, "addr"), ["XFORWARD ADDR=192.0.2.1\r\n"]);
        assert!(xforward_commands(&given, "").is_empty());
        let long: Vec<_> = (0..7).map(|_| attribute("NAME", &"x".repeat(250))).collect();
        let lines = xforward_commands(&long, "NAME");
        assert_eq!(lines.len(), 7);
        assert!(lines.iter().all(|line| line.len() <= XFORWARD_LINE_BYTES_MAX));
    }

    proptest! {
        /// Goal: what is stuffed is read back as it was, however it is cut. Method: our reader.
        #[test]
        fn stuffing_is_undone_by_reading(
            lines in proptest::collection::vec("[.a ]{0,5}", 0..20),
            cuts in proptest::collection::vec(0usize..120, 0..10),
            bytes_min in 0usize..20,
        ) {
            let content: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < content.len()).collect();
            cuts.sort_unstable();
            let (mut stuffer, mut wire, mut from) = (Stuffer::default(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([content.len()]) {
                let mut piece = &content[from..cut];
                if let Some(plain) = stuffer.plain(piece, Dots::Possible, bytes_min) {
                    wire.extend_from_slice(plain);
                    piece = &piece[plain.len()..];
                }
                stuffer.stuff(piece, Dots::Possible, &mut wire);
                from = cut;
            }
            stuffer.end(&mut wire);
            let (mut reader, mut buffer) = (ContentReader::default(), BytesMut::from(&wire[..]));
            let mut read = Vec::new();
            loop {
                match reader.next(&mut buffer) {
                    Some(Content::Bytes(bytes)) => read.extend_from_slice(&bytes),
                    Some(Content::End) => break,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            prop_assert_eq!(read, content);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn replies_do_not_depend_on_packets(
            wire in "(25[01][ -][a-z]{0,3}\r\n){1,6}", cut in 0usize..60,
        ) {
            let cut = cut.min(wire.len());
            let (mut reader, mut buffer) = (ReplyReader::default(), BytesMut::new());
            let mut found = Vec::new();
            for piece in [&wire.as_bytes()[..cut], &wire.as_bytes()[cut..]] {
                buffer.extend_from_slice(piece);
                while let Some(reply) = reader.next(&mut buffer) {
                    let fault = reply.is_err();
                    found.push(reply);
                    if fault { break }
                }
            }
            let whole = replies(wire.as_bytes());
            prop_assert_eq!(found.first(), whole.first());
        }
    }
}
