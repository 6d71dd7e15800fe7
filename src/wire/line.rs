//! Lines, and the end of a message.
//!
//! Takes: bytes as they came from the network, cut anywhere. Gives: command lines; and a
//! message's content with the stuffed dots removed (RFC 5321 §4.5.2), until CRLF.CRLF and nothing
//! else ends it. Errors: `LineFault`; `Content::Ambiguous` where a line of dots is touched by a
//! bare CR, a bare LF or a NUL, with or without blanks at its end: another server could read that
//! as the end of the message, and what follows as commands (SMTP smuggling).
//! Bounds: `limits::COMMAND_LINE_BYTES_MAX`, `limits::DOT_RUN_BYTES_MAX`.

use bytes::{Buf, Bytes, BytesMut};

use crate::mail::limits::{COMMAND_LINE_BYTES_MAX, DOT_RUN_BYTES_MAX};

/// Why a command line cannot be read; the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Longer than `limits::COMMAND_LINE_BYTES_MAX`; all of it has been skipped.
    #[error("line too long")]
    BoundLength,
    /// It ends in LF without CR, or holds a CR or NUL (RFC 5321 §2.3.8).
    #[error("bare CR, bare LF or NUL in a command")]
    PeerLineEnd,
}

/// Reads command lines.
#[derive(Debug, Default)]
pub struct LineReader {
    skipping: bool,
}

impl LineReader {
    /// The next line without its CRLF; `None` when the buffer holds no whole line.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Result<Bytes, LineFault>> {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            if buffer.len() > COMMAND_LINE_BYTES_MAX {
                self.skipping = true;
                buffer.clear();
            }
            return None;
        };
        let line = buffer.split_to(end + 1).freeze();
        if std::mem::take(&mut self.skipping) || line.len() > COMMAND_LINE_BYTES_MAX {
            return Some(Err(LineFault::BoundLength));
        }
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Some(Err(LineFault::PeerLineEnd));
        };
        match memchr::memchr2(b'\r', 0, text) {
            Some(_) => Some(Err(LineFault::PeerLineEnd)),
            None => Some(Ok(line.slice(..text.len()))),
        }
    }
}

/// What a message's content is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The next bytes of the message, stuffed dots removed: where they were read.
    Bytes(BytesMut),
    /// What follows could be read as the end of the message elsewhere. Said once; the content
    /// goes on, and must not go to a next hop.
    Ambiguous,
    /// CRLF.CRLF: the message is whole.
    End,
}

/// How the line that begins here was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// By CRLF, or by the 354 that all servers read as one.
    Properly,
    /// By a bare CR or LF: a line for some servers only.
    Barely,
    /// Not a beginning: in the middle of a line.
    Not,
}

/// What the bytes at the beginning of a line turn out to be.
enum Beginning {
    /// Ordinary content.
    Ordinary,
    /// A dot that was stuffed, and content behind it.
    Stuffed,
    /// The final dot.
    Final,
    /// A line of dots that not every server reads alike.
    Ambiguous,
    /// More bytes are needed to tell.
    Open,
}

/// Reads a message's content.
#[derive(Debug)]
pub struct ContentReader {
    opened: Opened,
    ambiguous: bool,
    bare: bool,
    stuffed: bool,
}

impl Default for ContentReader {
    fn default() -> Self {
        ContentReader { opened: Opened::Properly, ambiguous: false, bare: false, stuffed: false }
    }
}

impl ContentReader {
    /// The next piece of content; `None` when more bytes are needed.
    ///
    /// Bytes that could still turn out to be a line of dots stay in the buffer, so nothing
    /// dangerous is given out before `Ambiguous` is said.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Content> {
        let mut safe = 0;
        loop {
            let ahead = buffer.get(safe..).unwrap_or_default();
            if self.opened != Opened::Not {
                match self.beginning(ahead) {
                    Beginning::Ordinary => self.opened = Opened::Not,
                    Beginning::Open => return give(buffer, safe),
                    _ if safe > 0 => return give(buffer, safe),
                    Beginning::Ambiguous => {
                        self.ambiguous = true;
                        return Some(Content::Ambiguous);
                    }
                    Beginning::Stuffed => {
                        buffer.advance(1);
                        self.opened = Opened::Not;
                        self.stuffed = true;
                    }
                    Beginning::Final => {
                        buffer.advance(3);
                        return Some(Content::End);
                    }
                }
                continue;
            }
            let ahead = match sound_lines(ahead) {
                0 => ahead,
                sound => {
                    safe += sound;
                    buffer.get(safe..).unwrap_or_default()
                }
            };
            let Some(end) = memchr::memchr2(b'\r', b'\n', ahead) else {
                return give(buffer, buffer.len());
            };
            let after = safe + end + 1;
            safe = match (ahead.get(end), ahead.get(end + 1)) {
                (Some(b'\r'), None) => return give(buffer, safe + end),
                (Some(b'\r'), Some(b'\n')) => {
                    self.opened = Opened::Properly;
                    after + 1
                }
                _ => {
                    self.opened = Opened::Barely;
                    self.bare = true;
                    after
                }
            };
        }
    }

    /// Whether a bare CR or LF was seen anywhere.
    pub fn has_bare_line_end(&self) -> bool {
        self.bare
    }

    /// Whether a stuffed dot was removed anywhere. Otherwise no line of the content, as CRLF parts
    /// it, begins with a dot.
    pub fn has_stuffed_dots(&self) -> bool {
        self.stuffed
    }

    /// Whether `Ambiguous` was said.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    fn beginning(&self, ahead: &[u8]) -> Beginning {
        if matches!(ahead, [first, _, ..] if begins_no_dots(*first)) {
            return Beginning::Ordinary;
        }
        let run = ahead.iter().take(DOT_RUN_BYTES_MAX).take_while(|b| matches!(b, b'.' | 0));
        let run = run.count();
        let dots = ahead.get(..run).unwrap_or_default();
        // Why blanks too, and VT and FF among them: many a program compares the line without those
        // at its end with a dot, as Python's `strip` and C's `isspace` have them.
        let blanks = ahead.iter().take(DOT_RUN_BYTES_MAX).skip(run);
        let blanks =
            blanks.take_while(|byte| matches!(byte, b' ' | b'\t' | 0x0B | 0x0C | 0)).count();
        let blanks = if dots.contains(&b'.') { blanks } else { 0 };
        let run = run + blanks;
        let stuffed = match self.opened == Opened::Properly && dots.first() == Some(&b'.') {
            true => Beginning::Stuffed,
            false => Beginning::Ordinary,
        };
        // Why: a line of so many dots would need as many servers in a row, each of which takes one
        // dot away and reads line ends in another way than the one before.
        if run == DOT_RUN_BYTES_MAX {
            return stuffed;
        }
        let proper_end = match (ahead.get(run), ahead.get(run + 1)) {
            (None, _) | (Some(b'\r'), None) => return Beginning::Open,
            (Some(b'\r'), Some(b'\n')) => true,
            (Some(b'\r' | b'\n'), _) => false,
            _ => return stuffed,
        };
        if !dots.contains(&b'.') {
            return Beginning::Ordinary;
        }
        let proper = proper_end && self.opened == Opened::Properly && !dots.contains(&0);
        match (proper, dots.len()) {
            (true, _) if blanks > 0 => stuffed,
            (true, 1) => Beginning::Final,
            (true, _) => Beginning::Stuffed,
            (false, _) if self.ambiguous => stuffed,
            (false, _) => Beginning::Ambiguous,
        }
    }
}

/// Gives out the first `length` bytes; `None` when that is nothing.
fn give(buffer: &mut BytesMut, length: usize) -> Option<Content> {
    (length > 0).then(|| Content::Bytes(buffer.split_to(length)))
}

/// Whether a line that begins so is none of dots.
fn begins_no_dots(first: u8) -> bool {
    !matches!(first, b'.' | 0)
}

/// Bytes at the beginning of these that nobody could misread, up to the beginning of a line: lines
/// that end in CRLF and hold no other CR or LF, each followed by one that does not begin as a line
/// of dots does. Nearly all mail is made of nothing else, so it is worth a look of its own.
///
/// Why in blocks: bytes are compared many at a time. Why the first ones are small: who writes a
/// fault every few bytes shall not have much looked at in vain.
fn sound_lines(ahead: &[u8]) -> usize {
    let (mut sound, mut from) = (0, 0);
    if ahead.first() == Some(&b'\n') {
        return 0;
    }
    for size in SOUND_BLOCKS.into_iter().chain(std::iter::repeat(SOUND_BLOCK_MAX)) {
        // Each block ends with the first byte of the next one: pairs of bytes are looked at.
        let block = ahead.get(from..ahead.len().min(from + size + 1)).unwrap_or_default();
        let Some((_, seen)) = block.split_last().filter(|_| is_sound(block)) else { break };
        if let Some(end) = memchr::memrchr(b'\n', seen) {
            sound = from + end + 1;
        }
        from += seen.len();
        if seen.len() < size {
            break;
        }
    }
    sound
}

/// Bytes that are looked at together: of the first blocks, and of all behind them.
const SOUND_BLOCKS: [usize; 4] = [64, 128, 512, 2048];
const SOUND_BLOCK_MAX: usize = 8192;

/// Whether in these bytes CR and LF stand side by side only, and no line behind them begins as a
/// line of dots does.
///
/// Why without a branch: so the compiler compares sixteen bytes or more with one instruction.
fn is_sound(block: &[u8]) -> bool {
    let Some((_, second)) = block.split_first() else { return true };
    let odd = block.iter().zip(second).fold(0, |odd, (&first, &second)| {
        let alone = u8::from(first == b'\r') ^ u8::from(second == b'\n');
        let dots = u8::from(first == b'\n') & u8::from(!begins_no_dots(second));
        odd | alone | dots
    });
    odd == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::wire::smtp_client::{Dots, Stuffer};

    const PIECES: &[&[u8]] =
        &[b".", b"\r", b"\n", b"\0", b"\r\n", b"text", b" ", b"\r\n.", b"\r\n.\r\n"];

    /// Reads `wire` cut at the given places: the content, and whether it ended or was ambiguous.
    fn read(wire: &[u8], cuts: &[usize]) -> (Vec<u8>, bool, bool, Vec<u8>) {
        let mut reader = ContentReader::default();
        let mut buffer = BytesMut::new();
        let (mut content, mut ended, mut before_ambiguous) = (Vec::new(), false, None);
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([wire.len()]) {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended {
                match reader.next(&mut buffer) {
                    None => break,
                    Some(Content::Bytes(bytes)) => content.extend_from_slice(&bytes),
                    Some(Content::Ambiguous) => before_ambiguous = Some(content.clone()),
                    Some(Content::End) => ended = true,
                }
            }
        }
        if !reader.has_stuffed_dots() {
            let text = [b"\r\n", &content[..]].concat();
            assert_eq!(memchr::memmem::find(&text, b"\r\n."), None, "{}", text.escape_ascii());
        }
        (content, ended, reader.is_ambiguous(), before_ambiguous.unwrap_or_default())
    }

    /// As `sound_lines`, from line to line.
    fn walked(ahead: &[u8]) -> usize {
        let mut sound = 0;
        for end in memchr::memchr_iter(b'\n', ahead) {
            let line = ahead[sound..end].strip_suffix(b"\r");
            let is_sound = line.is_some_and(|line| !line.contains(&b'\r'));
            if !is_sound || !ahead.get(end + 1).is_some_and(|first| begins_no_dots(*first)) {
                break;
            }
            sound = end + 1;
        }
        sound
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        for (wire, content) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
            (b"..a\r\n.b\r\n.\r\n", b".a\r\nb\r\n"),
            (b"a\rb\nc\r\n.\r\n", b"a\rb\nc\r\n"),
            (b"a\n.b\r\n.\r\n", b"a\n.b\r\n"),
            (b"a\r\r\n.\r\n", b"a\r\r\n"),
            (b"\r\n\0\r\n.\r\n", b"\r\n\0\r\n"),
            (b"\0.a\r\n.\r\n", b"\0.a\r\n"),
            (b". \r\n .\r\n.\t.\r\n.\r\n", b" \r\n .\r\n\t.\r\n"),
            (b"a\n. b\r\n.\r\n", b"a\n. b\r\n"),
        ] {
            let (found, ended, ambiguous, _) = read(wire, &[]);
            assert_eq!((&found[..], ended, ambiguous), (content, true, false), "{wire:?}");
        }
    }

    /// Goal: none of the smuggling variants ends the message, and each is named before any byte of
    /// it is given out. Method: each in the middle of a message that ends properly.
    #[test]
    fn no_other_line_of_dots_passes() {
        for variant in [
            &b"\n.\n"[..],
            b"\r.\r",
            b"\r.\n",
            b"\n.\r",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\n..\n",
            b"\r\n..\r",
            b"\r\0\n.\r\n",
            b"\r\n.\r\0\n",
            b"\n.\0\n",
            b"\n. \r\n",
            b"\r\n.\t\n",
            b"\r\n\0. \r\n",
            b"\n.\x0c\x0b\r",
        ] {
            let wire = [b"head\r\n\r\nbody", variant, b"MAIL FROM:<x@y>\r\n.\r\n"].concat();
            let (_, ended, ambiguous, before) = read(&wire, &[]);
            assert!(ended, "{variant:?} ended too early or never");
            assert!(ambiguous, "{variant:?} is not named");
            assert!(before.starts_with(b"head\r\n\r\nbody"));
            assert!(!before.contains(&b'.'), "{variant:?} was given out before it was named");
        }
    }

    #[test]
    fn a_line_of_very_many_dots_is_content() {
        let line = [".".repeat(DOT_RUN_BYTES_MAX + 7).into_bytes(), b"\r\n".to_vec()].concat();
        let wire = [&line[..], b".\r\n"].concat();
        let (content, ended, ambiguous, _) = read(&wire, &[]);
        assert_eq!((&content[..], ended, ambiguous), (&line[1..], true, false));
    }

    proptest! {
        /// Goal: how the bytes are cut into packets changes nothing.
        #[test]
        fn packets_do_not_matter(
            pieces in proptest::collection::vec(
                select(PIECES),
                0..40,
            ),
            cuts in proptest::collection::vec(0usize..100, 0..20),
        ) {
            let wire = pieces.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= wire.len()).collect();
            cuts.sort_unstable();
            prop_assert_eq!(read(&wire, &[]), read(&wire, &cuts));
        }

        /// Goal: what is given out before `Ambiguous` ends a message under no reading of line ends.
        #[test]
        fn nothing_dangerous_is_given_out(
            pieces in proptest::collection::vec(
                select(&PIECES[..7]),
                0..40,
            ),
        ) {
            let wire = pieces.concat();
            let (content, _, ambiguous, before) = read(&wire, &[]);
            let safe = if ambiguous { before } else { content };
            // As our client sends it: stuffed where a line begins after CRLF.
            let mut sent = Vec::new();
            Stuffer::default().stuff(&safe, Dots::Possible, &mut sent);
            let loose: Vec<u8> = sent.iter().copied().filter(|byte| *byte != 0).collect();
            let mut lines = loose.split(|byte| matches!(byte, b'\r' | b'\n'));
            // Why: the last piece is not a line yet; nothing follows it before the real end.
            let last = lines.next_back();
            prop_assert!(last.is_some());
            for line in lines {
                prop_assert_ne!(line.trim_ascii_end(), b".", "in {:?}", String::from_utf8_lossy(&sent));
            }
        }

        /// Goal: what is passed over quickly is what a walk from line to line passes over. Method:
        /// long texts, so that they are looked at in several blocks, with a fault here and there.
        #[test]
        fn sound_lines_are_sound(
            lines in proptest::collection::vec(
                select(&["", "a line of text that is fifty bytes long, as many are", "x", "\r", "\n", ".", "\0"]),
                0..400,
            ),
            faults in 0..3usize,
        ) {
            let ordinary = |line: &&str| line.is_empty() || line.len() > 1 || *line == "x";
            let mut seen = 0;
            let lines = lines.into_iter().filter(|line| {
                seen += usize::from(!ordinary(line));
                ordinary(line) || seen <= faults
            });
            let text: String = lines.map(|line| format!("{line}\r\n")).collect();
            let (found, walked) = (sound_lines(text.as_bytes()), walked(text.as_bytes()));
            prop_assert!(found <= walked);
            prop_assert!(found == 0 || text[..found].ends_with("\r\n"));
            if faults == 0 {
                prop_assert_eq!(found, walked);
            }
        }

        #[test]
        fn command_lines_do_not_depend_on_packets(text in "[a-z\\r\\n]{0,60}", cut in 0usize..60) {
            let wire = text.as_bytes();
            let whole = |pieces: &[&[u8]]| {
                let (mut reader, mut buffer) = (LineReader::default(), BytesMut::new());
                let mut lines = Vec::new();
                for piece in pieces {
                    buffer.extend_from_slice(piece);
                    while let Some(line) = reader.next(&mut buffer) {
                        lines.push(line);
                    }
                }
                lines
            };
            let cut = cut.min(wire.len());
            prop_assert_eq!(whole(&[wire]), whole(&[&wire[..cut], &wire[cut..]]));
        }
    }

    #[test]
    fn an_endless_line_is_skipped_in_bounded_memory() {
        let (mut reader, mut buffer) = (LineReader::default(), BytesMut::new());
        for _ in 0..100 {
            buffer.extend_from_slice(&[b'x'; 1000]);
            assert_eq!(reader.next(&mut buffer), None);
            assert!(buffer.len() <= COMMAND_LINE_BYTES_MAX + 1000);
        }
        buffer.extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(reader.next(&mut buffer), Some(Err(LineFault::BoundLength)));
        assert_eq!(reader.next(&mut buffer), Some(Ok(Bytes::from_static(b"NOOP"))));
    }

    #[test]
    fn a_command_line_ends_in_crlf_only() {
        for wire in [&b"NOOP\n"[..], b"NO\rOP\r\n", b"NO\0OP\r\n"] {
            let mut buffer = BytesMut::from(wire);
            let line = LineReader::default().next(&mut buffer);
            assert_eq!(line, Some(Err(LineFault::PeerLineEnd)));
        }
    }
}
