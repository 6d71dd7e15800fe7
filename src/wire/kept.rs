//! The part of a message that a tap keeps: its header, and the body where a signature could cover
//! it.
//!
//! Takes: content in pieces, dots not stuffed. Gives: bytes, and `Kept`. Bounds:
//! `limits::TAP_HEADER_BYTES_MAX`, and the bytes of a body that the caller allows.

use bytes::{Bytes, BytesMut};

use crate::mail::limits::TAP_HEADER_BYTES_MAX;
use crate::mail::message::Kept;

/// Keeps a message as it passes.
#[derive(Debug)]
pub struct Keeper {
    bytes: BytesMut,
    body_bytes_max: usize,
    part: Part,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    /// The body, which begins here.
    Body(usize),
    /// Nothing more is kept.
    Rest,
}

impl Keeper {
    /// Nothing is kept yet.
    pub fn new(body_bytes_max: usize) -> Keeper {
        Keeper { bytes: BytesMut::new(), body_bytes_max, part: Part::Header, kept: Kept::Whole }
    }

    /// The next piece.
    pub fn push(&mut self, piece: &[u8]) {
        if self.part == Part::Rest {
            return;
        }
        let before = self.bytes.len().saturating_sub(3);
        self.bytes.extend_from_slice(piece);
        if self.part == Part::Header {
            self.look_for_body(before);
        }
        if let Part::Body(start) = self.part
            && self.bytes.len() - start > self.body_bytes_max
        {
            self.give_up_body();
        }
    }

    /// Lets go of the body that was kept, and of what comes of it.
    ///
    /// Why all of it: a signature over a part of what is kept could not be verified.
    pub fn give_up_body(&mut self) {
        if let Part::Body(start) = self.part {
            self.bytes.truncate(start);
            self.part = Part::Rest;
            self.kept = Kept::Header;
        }
    }

    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was kept.
    pub fn finish(self) -> (Bytes, Kept) {
        (self.bytes.freeze(), self.kept)
    }

    fn look_for_body(&mut self, from: usize) {
        let ahead = self.bytes.get(from..).unwrap_or_default();
        let found = memchr::memmem::find(ahead, b"\r\n\r\n").map(|at| from + at + 4);
        let start = if self.bytes.starts_with(b"\r\n") { Some(2) } else { found };
        match start {
            _ if start.unwrap_or(self.bytes.len()) > TAP_HEADER_BYTES_MAX => {
                self.bytes.truncate(TAP_HEADER_BYTES_MAX);
                self.part = Part::Rest;
                self.kept = Kept::PartOfHeader;
            }
            Some(start) if is_signed(self.bytes.get(..start).unwrap_or_default()) => {
                self.part = Part::Body(start);
            }
            Some(start) => {
                self.bytes.truncate(start);
                self.part = Part::Rest;
            }
            None => {}
        }
    }
}

/// Whether a signature could cover the body that follows this header.
pub fn is_signed(header: &[u8]) -> bool {
    const NAMES: [&[u8]; 2] = [b"dkim-signature", b"arc-message-signature"];
    header.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        NAMES.iter().any(|signed| name.trim_ascii_end().eq_ignore_ascii_case(signed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(message: &str, cut: usize, body_bytes_max: usize) -> (String, Kept) {
        let mut keeper = Keeper::new(body_bytes_max);
        message.as_bytes().chunks(cut).for_each(|piece| keeper.push(piece));
        let (bytes, kept) = keeper.finish();
        (String::from_utf8(bytes.to_vec()).unwrap(), kept)
    }

    #[test]
    fn a_body_is_kept_where_it_is_signed_and_short_enough_however_it_arrives() {
        let signed = "From: x\r\nDKIM-Signature: y\r\n\r\nbody\r\n";
        let header = "From: x\r\nDKIM-Signature: y\r\n\r\n";
        for cut in [1, 2, 3, 5, 1000] {
            assert_eq!(keep(signed, cut, 6), (signed.to_owned(), Kept::Whole));
            assert_eq!(keep(signed, cut, 5), (header.to_owned(), Kept::Header));
            let plain = keep("From: x\r\n\r\nbody\r\n", cut, 100);
            assert_eq!(plain, ("From: x\r\n\r\n".to_owned(), Kept::Whole));
            assert_eq!(keep("\r\nDKIM-Signature: y", cut, 9), ("\r\n".to_owned(), Kept::Whole));
        }
    }

    #[test]
    fn a_header_without_end_is_cut() {
        let (bytes, kept) = keep(&"X: y\r\n".repeat(200_000), 4096, 100);
        assert_eq!((bytes.len(), kept), (TAP_HEADER_BYTES_MAX, Kept::PartOfHeader));
    }
}
