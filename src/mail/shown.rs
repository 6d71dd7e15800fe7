//! Peer text made harmless for a terminal, a log line or a page.
//!
//! Takes: any text or bytes a peer chose. Gives: `Shown`, whose `Display` has no control
//! character, no escape sequence, no direction override and at most a given length.
//! Law 10: peer text reaches people only in this form.

use std::fmt;

use crate::mail::limits::SHOWN_CHARS_MAX;

/// Peer text that may be printed: control characters stand as `\u{…}`, the end is cut with `…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Makes `text` harmless, at most `SHOWN_CHARS_MAX` characters of it.
    pub fn new(text: &str) -> Shown {
        Shown::at_most(text, SHOWN_CHARS_MAX)
    }

    /// Makes bytes harmless; what is not UTF-8 stands as U+FFFD.
    pub fn bytes(bytes: &[u8]) -> Shown {
        let kept = bytes.get(..SHOWN_CHARS_MAX.saturating_mul(4)).unwrap_or(bytes);
        Shown::new(&String::from_utf8_lossy(kept))
    }

    /// Makes `text` harmless, at most `chars_max` characters of it.
    pub fn at_most(text: &str, chars_max: usize) -> Shown {
        if text.len() <= chars_max && is_plain(text) {
            return Shown(text.to_owned());
        }
        let mut shown = String::with_capacity(text.len().min(chars_max));
        for (count, c) in text.chars().enumerate() {
            if count == chars_max {
                shown.push('…');
                break;
            }
            if is_harmless(c) {
                shown.push(c);
            } else {
                shown.extend(c.escape_unicode());
            }
        }
        Shown(shown)
    }

    /// The harmless text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The harmless text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether every character is printable ASCII. Why without a branch: so many bytes are compared with
/// one instruction.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

/// Why: beside the control characters, the direction marks and the line and paragraph separators
/// can make a line of a log read as something else than it is.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{FEFF}')
        && !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_survives() {
        let shown = Shown::new("a\x1b[2Jb\r\nc\u{202E}d\u{9b}e").to_string();
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{d}\\u{a}c\\u{202e}d\\u{9b}e");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(Shown::at_most("äbcdef", 3).as_str(), "äbc…");
        assert_eq!(Shown::bytes(b"ok \xff").as_str(), "ok \u{fffd}");
    }
}
