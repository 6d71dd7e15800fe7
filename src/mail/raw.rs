//! A header's fields as raw bytes, whatever their names look like.
//!
//! Takes: the bytes of a message or header, any line ends. Gives: each field with its bytes as they
//! stand, and the body. For those who must see what a verifier signs and what a reader may be
//! fooled by; everybody else reads `mail::header`.
//! Bounds: `limits::RAW_FIELDS_MAX`. Standards: RFC 5322 §2.2, RFC 6376 §3.4.

use crate::mail::limits::RAW_FIELDS_MAX;

/// One raw field: the name up to the colon, and what follows with its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawField<'a> {
    /// As written, white space before the colon included.
    pub name: &'a [u8],
    /// As written, line end included.
    pub value: &'a [u8],
}

impl RawField<'_> {
    /// Whether this is its name, in any letter case. White space before the colon is obsolete
    /// but allowed (RFC 5322 §4.5); white space inside a name makes it another name.
    pub fn is(&self, name: &str) -> bool {
        self.name.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a message, at most `limits::RAW_FIELDS_MAX`, and its body.
pub fn split(message: &[u8]) -> (Vec<RawField<'_>>, &[u8]) {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        if let Some(body) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            return (fields, body);
        }
        let (field, behind) = rest.split_at_checked(field_length(rest)).unwrap_or((rest, b""));
        rest = behind;
        let colon = field.iter().position(|&byte| byte == b':');
        let parts = colon.and_then(|colon| field.split_at_checked(colon));
        if let Some((name, value)) = parts
            && fields.len() < RAW_FIELDS_MAX
        {
            fields.push(RawField { name, value: value.get(1..).unwrap_or_default() });
        }
    }
    (fields, b"")
}

/// The bytes up to the line end that no white space follows.
fn field_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line) = memchr::memchr(b'\n', rest) else { return bytes.len() };
        at += line + 1;
        if !matches!(bytes.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}
