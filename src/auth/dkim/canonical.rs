//! Fields and bodies in the form that is signed (RFC 6376 §3.4).
//!
//! Takes: raw fields and bodies, any line ends. Gives: their canonical bytes, line ends CRLF:
//! a message that was stored with bare LF is the message that was signed.
//! Standards: RFC 6376 §3.4, §3.7.
//!
//! Why not mail-auth's: 0.13.3 counts lines of white space at the end of a relaxed body, which
//! RFC 6376 §3.4.4 leaves out, and so fails valid signatures.

use mail_auth::common::headers::{Writable, Writer};

use crate::mail::raw::RawField;

/// How strictly white space counts (RFC 6376 §3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Everything counts.
    #[default]
    Simple,
    /// Letter case of names, folds, runs of white space do not.
    Relaxed,
}

/// Appends the canonical field with its CRLF.
pub fn write(field: &RawField<'_>, form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Simple => {
            out.extend_from_slice(field.name);
            out.push(b':');
            for line in lines(field.value) {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            if field.value.is_empty() {
                out.extend_from_slice(b"\r\n");
            }
        }
        Form::Relaxed => {
            out.extend(field.name.trim_ascii_end().iter().map(u8::to_ascii_lowercase));
            out.push(b':');
            let is_gap = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            let words = field.value.split(is_gap).filter(|word| !word.is_empty());
            for (index, word) in words.enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(word);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A DKIM-Signature's value as it is signed: what stands behind `b=` deleted, and no line end
/// (RFC 6376 §3.7).
pub fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    let value = value.trim_ascii_end();
    for (index, tag) in value.split(|&byte| byte == b';').enumerate() {
        if index > 0 {
            kept.push(b';');
        }
        let equals = tag.iter().position(|&byte| byte == b'=').unwrap_or(tag.len());
        let (name, _) = tag.split_at_checked(equals).unwrap_or((tag, b""));
        match name.trim_ascii() {
            b"b" => kept.extend_from_slice(tag.get(..=equals).unwrap_or(tag)),
            _ => kept.extend_from_slice(tag),
        }
    }
    kept
}

/// A body, to be hashed.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// How strictly.
    pub form: Form,
    /// As it stands.
    pub bytes: &'a [u8],
}

impl Body<'_> {
    /// Writes the canonical body: every line with CRLF, empty lines at the end left out; a simple
    /// body without any line is one CRLF, a relaxed one nothing (RFC 6376 §3.4.3, §3.4.4).
    fn pieces(&self, mut write: impl FnMut(&[u8])) {
        let mut empty_lines = 0_usize;
        let mut has_written = false;
        for line in lines(self.bytes) {
            let line = match self.form {
                Form::Simple => line,
                Form::Relaxed => trim_end_wsp(line),
            };
            if line.is_empty() {
                empty_lines += 1;
                continue;
            }
            (0..std::mem::take(&mut empty_lines)).for_each(|_| write(b"\r\n"));
            match self.form {
                Form::Simple => write(line),
                Form::Relaxed => write_relaxed(line, &mut write),
            }
            write(b"\r\n");
            has_written = true;
        }
        if self.form == Form::Simple && !has_written {
            write(b"\r\n");
        }
    }

    /// How many bytes the canonical body has.
    pub fn length(&self) -> u64 {
        let mut length = 0_u64;
        self.pieces(|piece| length += u64::try_from(piece.len()).unwrap_or(u64::MAX));
        length
    }
}

impl Writable for Body<'_> {
    fn write(self, writer: &mut impl Writer) {
        self.pieces(|piece| writer.write(piece));
    }
}

/// Runs of white space become one space; the line has none at its end.
fn write_relaxed(line: &[u8], write: &mut impl FnMut(&[u8])) {
    let mut rest = line;
    while !rest.is_empty() {
        let is_wsp = |byte: &u8| matches!(byte, b' ' | b'\t');
        let gap = rest.iter().position(|byte| !is_wsp(byte)).unwrap_or(rest.len());
        if gap > 0 {
            write(b" ");
        }
        rest = rest.get(gap..).unwrap_or_default();
        let word = rest.iter().position(is_wsp).unwrap_or(rest.len());
        write(rest.get(..word).unwrap_or_default());
        rest = rest.get(word..).unwrap_or_default();
    }
}

fn trim_end_wsp(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    line.get(..end.map_or(0, |last| last + 1)).unwrap_or_default()
}

/// The lines without their line ends; CRLF and LF both end one, a last line need not end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = bytes.split_inclusive(|&byte| byte == b'\n');
    all.map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(form: Form, bytes: &str) -> String {
        let mut out = Vec::new();
        Body { form, bytes: bytes.as_bytes() }.write(&mut out);
        assert_eq!(Body { form, bytes: bytes.as_bytes() }.length(), out.len() as u64);
        String::from_utf8(out).unwrap()
    }

    fn field(form: Form, name: &str, value: &str) -> String {
        let mut out = Vec::new();
        write(&RawField { name: name.as_bytes(), value: value.as_bytes() }, form, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_example_of_rfc_6376_has_its_canonical_forms() {
        let text = " C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(body(Form::Relaxed, text), " C\r\nD E\r\n");
        assert_eq!(body(Form::Simple, text), " C \r\nD \t E\r\n");
        assert_eq!(field(Form::Relaxed, "A", " X\r\n"), "a:X\r\n");
        assert_eq!(field(Form::Relaxed, "B ", "\tY\t\r\n\tZ  \r\n"), "b:Y Z\r\n");
        assert_eq!(field(Form::Simple, "B ", "\tY\t\r\n\tZ  \r\n"), "B :\tY\t\r\n\tZ  \r\n");
    }

    #[test]
    fn lines_of_white_space_at_the_end_do_not_count_when_relaxed() {
        for (text, relaxed, simple) in [
            ("", "", "\r\n"),
            ("\r\n\r\n", "", "\r\n"),
            (" \t\r\n \r\n", "", " \t\r\n \r\n"),
            ("a\r\n \t\r\n\r\n", "a\r\n", "a\r\n \t\r\n"),
            ("a", "a\r\n", "a\r\n"),
            ("a\n\nb\n", "a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"),
            ("a\r\n \r\nb \t c ", "a\r\n\r\nb c\r\n", "a\r\n \r\nb \t c \r\n"),
            ("a\rb\r\n", "a\rb\r\n", "a\rb\r\n"),
        ] {
            assert_eq!(body(Form::Relaxed, text), relaxed, "{text:?}");
            assert_eq!(body(Form::Simple, text), simple, "{text:?}");
        }
    }

    #[test]
    fn only_the_signature_is_taken_out() {
        for (value, expected) in [
            (" v=1; b=AB\r\n C=; bh=b=\r\n", " v=1; b=; bh=b="),
            (" v=1; bh=x; b = AB \r\n\tC \r\n", " v=1; bh=x; b ="),
            (" v=1;b=a;b=c", " v=1;b=;b="),
            (" v=1; b", " v=1; b"),
            ("", ""),
        ] {
            assert_eq!(without_signature(value.as_bytes()), expected.as_bytes(), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn the_line_end_style_and_a_second_time_change_nothing(text in "[ab \t\n]{0,40}") {
            for form in [Form::Simple, Form::Relaxed] {
                let once = body(form, &text);
                prop_assert_eq!(&body(form, &text.replace('\n', "\r\n")), &once);
                prop_assert_eq!(body(form, &once), once);
            }
        }
    }
}
