//! Lines and the end of a message: no panic, the same however it is cut, and what is given out ends
//! a message under no reading of line ends.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use replyguard::mail::limits::COMMAND_LINE_BYTES_MAX;
use replyguard::wire::line::{Content, ContentReader, LineReader};
use replyguard::wire::smtp_client::{Dots, Stuffer};
use replyguard_fuzz::{packets, seeded};

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    content: Vec<u8>,
    /// How much of the content was given out before it was called ambiguous.
    safe: Option<usize>,
    has_bare: bool,
    has_stuffed_dots: bool,
    /// What stands behind the final dot; `None` when there was none.
    behind: Option<Vec<u8>>,
}

fn content(packets: &[&[u8]]) -> Read {
    let (mut reader, mut buffer, mut read) =
        (ContentReader::default(), BytesMut::new(), Read::default());
    for packet in packets {
        buffer.extend_from_slice(packet);
        while read.behind.is_none() {
            match reader.next(&mut buffer) {
                None => break,
                Some(Content::Bytes(bytes)) => read.content.extend_from_slice(&bytes),
                Some(Content::Ambiguous) => {
                    assert!(read.safe.is_none(), "said twice");
                    read.safe = Some(read.content.len());
                }
                Some(Content::End) => read.behind = Some(Vec::new()),
            }
        }
        if let Some(behind) = &mut read.behind {
            behind.append(&mut buffer.split().to_vec());
        }
    }
    assert_eq!(reader.is_ambiguous(), read.safe.is_some());
    read.has_bare = reader.has_bare_line_end();
    read.has_stuffed_dots = reader.has_stuffed_dots();
    if read.behind.is_none() {
        // Why: what is held back at the end depends on nothing but what the end could become.
        read.content.extend_from_slice(&buffer);
    }
    read
}

/// RFC 5321 §4.5.2 and nothing else: the content, and what stands behind the final dot.
fn by_the_book(wire: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut content = Vec::new();
    let mut rest = wire;
    loop {
        if let Some(behind) = rest.strip_prefix(b".\r\n") {
            return Some((content, behind));
        }
        rest = rest.strip_prefix(b".").unwrap_or(rest);
        let (line, after) = rest.split_at(memchr::memmem::find(rest, b"\r\n")? + 2);
        content.extend_from_slice(line);
        rest = after;
    }
}

/// Whether a server that takes any of CR, LF and CRLF for a line end, and skips NULs, could see the
/// end of the message in it.
fn could_end(wire: &[u8]) -> bool {
    let loose: Vec<u8> = wire.iter().copied().filter(|byte| *byte != 0).collect();
    let mut lines = loose.split(|byte| matches!(byte, b'\r' | b'\n'));
    // What follows the last line end is no line yet.
    lines.next_back();
    lines.any(|line| line.trim_ascii_end() == b".")
}

fn stuffed(content: &[u8], dots: Dots) -> Vec<u8> {
    let mut out = Vec::new();
    Stuffer::default().stuff(content, dots, &mut out);
    out
}

fn lines(packets: &[&[u8]]) -> Vec<String> {
    let (mut reader, mut buffer, mut lines) = (LineReader::default(), BytesMut::new(), Vec::new());
    for packet in packets {
        buffer.extend_from_slice(packet);
        while let Some(line) = reader.next(&mut buffer) {
            lines.push(format!("{line:?}"));
        }
        assert!(buffer.len() <= COMMAND_LINE_BYTES_MAX);
    }
    lines
}

fuzz_target!(|input: &[u8]| {
    let (seed, wire) = seeded(input);
    let cut = packets(seed, wire);
    assert_eq!(lines(&cut), lines(&[wire]));

    let read = content(&[wire]);
    assert_eq!(content(&cut), read);
    let expected = by_the_book(wire);
    assert_eq!(read.behind.as_deref(), expected.as_ref().map(|(_, behind)| *behind));
    if let Some((content, _)) = expected {
        assert_eq!(read.content, content);
        let given = &read.content[..read.safe.unwrap_or(read.content.len())];
        let sent = stuffed(given, Dots::Possible);
        if !read.has_stuffed_dots {
            assert_eq!(stuffed(given, Dots::Absent), sent);
        }
        assert!(!could_end(&sent), "{}", sent.escape_ascii());
    }
});
