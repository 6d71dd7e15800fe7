//! Station 3: what a message keeps even where forwarders rewrite it.
//!
//! Takes: its header, a secret key. Gives: a `Fingerprint`, the weak one (design.md §8.2).
//!
//! A forwarder can give a message a new Message-ID and Date, put `[EXT]` before its subject, a
//! banner above its text and a disclaimer below, with every lap some more of them. What it does not
//! touch is the message's past: it writes its own Received line on top, and the oldest one, with
//! the queue id and the moment of the message's very first server, stays at the bottom. So this is
//! the key: the oldest Received line, the author's addresses, the subject's words without what
//! stands before and behind them. The body is not in it, nor are To and Cc.
//!
//! What it cannot do. Two messages are one to it when the same author's program handed both to the
//! same server with the same subject, and that server writes lines without queue id, in the same
//! second. A message without any Received line has no past: nobody can have rewritten it, its weak
//! fingerprint is the strong one, and this first sighting is not joined with the later ones. A
//! forwarder that removes older Received lines, or makes a new message (an attachment, a
//! quotation), makes a stranger of it; and the From that a list rewrites for DMARC joins only what
//! comes after the rewriting.

use crate::judge::fingerprint::{Fingerprint, FingerprintKey, single_spaced};
use crate::judge::words::folded;
use crate::mail::header::{Field, Fields};
use crate::mail::limits::{SUBJECT_BYTES_MAX, SUBJECT_TAGS_MAX};
use crate::mail::message::View;

/// The weak fingerprint of a message whose strong one is `strong`.
pub fn weak(view: &View<'_>, strong: Fingerprint, key: &FingerprintKey) -> Fingerprint {
    let fields = &view.fields;
    let Some(oldest) = oldest(fields) else { return strong };
    let mut authors: Vec<String> =
        fields.author_addresses().map(|author| author.canonical()).collect();
    authors.sort_unstable();
    authors.dedup();
    let subject = fields.first("subject").map(Field::decoded).unwrap_or_default();
    let subject = folded(&subject, SUBJECT_BYTES_MAX);
    let authors = authors.join(" ");
    let pieces = [oldest.as_bytes(), authors.as_bytes(), plain_subject(&subject).as_bytes()];
    Fingerprint::of_pieces("replyguard fingerprint weak 1", &pieces, key)
}

/// The oldest Received line, the words of it; `None` where there is none.
pub fn oldest(fields: &Fields<'_>) -> Option<String> {
    fields.all("received").next_back().map(|line| single_spaced(&line.text()))
}

/// A folded subject without what mail programs and filters put before and behind it: `[list]`,
/// `(ext)`, `{spam?}`, `***spam***`, and short words with a colon (`re:`, `wg:`, `extern:`).
///
/// Why any short word and no list of them: each language and each filter has its own.
fn plain_subject(subject: &str) -> &str {
    let mut rest = subject.trim();
    for _ in 0..SUBJECT_TAGS_MAX {
        let shorter = without_tag_before(rest).or_else(|| without_tag_behind(rest));
        match shorter.map(str::trim) {
            Some(shorter) if !shorter.is_empty() => rest = shorter,
            _ => break,
        }
    }
    rest
}

fn without_tag_before(subject: &str) -> Option<&str> {
    let bracket = |open, close| {
        subject.strip_prefix(open)?.split_once(close).map(|(_, behind): (&str, &str)| behind)
    };
    let found = bracket('[', ']').or_else(|| bracket('(', ')')).or_else(|| bracket('{', '}'));
    if found.is_some() {
        return found;
    }
    if let Some(rest) = subject.strip_prefix("***") {
        return rest.split_once("***").map(|(_, behind)| behind);
    }
    let (word, behind) = subject.split_once([':', '：'])?;
    let word = word.trim_end();
    let short = word.chars().count() <= PREFIX_CHARS_MAX;
    (short && word.chars().all(char::is_alphanumeric)).then_some(behind)
}

fn without_tag_behind(subject: &str) -> Option<&str> {
    let bracket = |open, close| {
        subject.strip_suffix(close)?.rsplit_once(open).map(|(before, _): (&str, &str)| before)
    };
    bracket('[', ']').or_else(|| bracket('(', ')'))
}

/// Characters of a word that stands before a colon and is no word of the subject: `external`.
const PREFIX_CHARS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: FingerprintKey = FingerprintKey::new([7; 32]);

    const LETTER: &str = "Received: from list (list [192.0.2.1]) by mx.b.test id 2; x\n\
        Received: from pc (pc [192.0.2.9])\n by mx.a.test (Postfix) id 1;\n x\n\
        From: Ann <Ann@a.test>\nTo: b@b.test\nSubject: Lunch on Tuesday\n\
        Date: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <m@a.test>\n\nbody\n";

    fn of(message: &str) -> Fingerprint {
        let view = View::read(message.as_bytes());
        weak(&view, Fingerprint::of(&view, message.as_bytes(), &KEY), &KEY)
    }

    #[test]
    fn what_forwarders_rewrite_does_not_matter() {
        let same = of(LETTER);
        for (from, to) in [
            ("<m@a.test>", "<other@forwarder.test>"),
            ("1 Jan 2026", "2 Jan 2026"),
            ("Lunch on Tuesday", "[EXT] Lunch on Tuesday"),
            ("Lunch on Tuesday", "Re: [list] WG: AW: [EXT] [EXT] Lunch  on tuesday"),
            ("Lunch on Tuesday", "=?utf-8?q?***SPAM***_Extern:_Lunch_on_Tuesday?= (fwd) [ext]"),
            (
                "\n\nbody\n",
                "\n\n<p>CAUTION: external</p>\nbody\n-- \nThis message is confidential.\n",
            ),
            ("To: b@b.test", "To: c@c.test\nCc: d@d.test\nReply-To: e@e.test"),
            ("Received: from list", "Received: by new id 3; y\nReceived: from list"),
            ("\n by mx.a.test", " by\n\tmx.a.test"),
            ("Ann <Ann@a.test>", "\"Ann via EXT\" <ann@A.test>"),
        ] {
            assert!(LETTER.contains(from), "{from}");
            assert_eq!(of(&LETTER.replace(from, to)), same, "{to}");
        }
        assert_eq!(of(&LETTER.replace('\n', "\r\n")), same);
    }

    #[test]
    fn another_past_another_author_or_another_subject_is_another_message() {
        let same = of(LETTER);
        for (from, to) in [("id 1;", "id 7;"), ("Ann@", "Eve@"), ("Lunch", "Dinner")] {
            assert_ne!(of(&LETTER.replace(from, to)), same, "{to}");
        }
    }

    #[test]
    fn a_message_without_a_past_is_its_strong_fingerprint() {
        let (_, fresh) = LETTER.split_once("From:").unwrap();
        let view = View::read(fresh.as_bytes());
        assert_eq!(of(fresh), Fingerprint::of(&view, fresh.as_bytes(), &KEY));
    }

    #[test]
    fn what_is_nothing_but_tags_stays_as_it_is() {
        for (subject, expected) in [
            ("[ext] [list] hello", "hello"),
            ("[ext]", "[ext]"),
            ("re:", "re:"),
            ("re: re: re: re: re: re: re: re: re: re: re: re: x", "x"),
            ("x (fwd) [ext]", "x"),
            ("minutes of the board: draft", "minutes of the board: draft"),
            ("[open", "[open"),
        ] {
            assert_eq!(plain_subject(subject), expected, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_one(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let view = View::read(&bytes);
            weak(&view, Fingerprint::of(&view, &bytes, &KEY), &KEY);
        }

        #[test]
        fn tags_are_taken_off_however_many(tags in "(\\[ext\\] |re: |wg: |\\[list\\] ){0,20}") {
            prop_assert_eq!(
                of(&LETTER.replace("Lunch", &format!("{tags}Lunch"))),
                of(LETTER)
            );
        }
    }
}
