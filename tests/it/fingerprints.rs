//! What the two fingerprints of a message survive, and what makes another message of it.
//!
//! Goal: forwarders may do to a message what real ones do, and people may not. Method: any letter,
//! any order and number of such changes. The real forwards are in `loops.rs`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use replyguard::judge::fingerprint::{Fingerprint, FingerprintKey};
use replyguard::judge::loops::weak::weak;
use replyguard::mail::limits::FINGERPRINT_BODY_BYTES_MAX;
use replyguard::mail::message::View;

const KEY: FingerprintKey = FingerprintKey::new([5; 32]);

fn strong_of(message: &str) -> Fingerprint {
    Fingerprint::of(&View::read(message.as_bytes()), message.as_bytes(), &KEY)
}

fn weak_of(message: &str) -> Fingerprint {
    let view = View::read(message.as_bytes());
    weak(&view, strong_of(message), &KEY)
}

/// A letter: its fields, in any order, and its body.
#[derive(Clone, Debug)]
struct Letter {
    fields: Vec<(&'static str, String)>,
    body: Vec<String>,
}

impl Letter {
    fn text(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{}\r\n{}\r\n", fields.collect::<String>(), self.body.join("\r\n"))
    }

    /// The same letter with this change to the first field of this name.
    fn with(&self, name: &str, change: impl Fn(&str) -> String) -> Letter {
        let mut letter = self.clone();
        let field = letter.fields.iter_mut().find(|(found, _)| *found == name).unwrap();
        field.1 = change(&field.1);
        letter
    }
}

fn letter() -> impl Strategy<Value = Letter> {
    let word = "[a-zA-Z0-9äß.]{1,12}";
    let address = "[a-z]{1,8}@[a-z]{1,8}\\.example";
    let name = vec("[A-Z][a-z]{0,8}", 1..4);
    let line = vec(word, 0..12).prop_map(|words| words.join(" "));
    let fields = (address, address, address, name, vec(word, 1..12), "[a-z0-9]{1,20}", 1..29u32);
    (fields, vec(line, 1..12)).prop_map(|((from, to, cc, name, subject, id, day), mut body)| {
        // A body that is blank has no last line to change.
        body.push("Goodbye".to_owned());
        let fields = vec![
            ("From", format!("{} <{from}>", name.join(" "))),
            ("To", format!("Somebody Else <{to}>")),
            ("Cc", cc),
            ("Subject", subject.join(" ")),
            ("Date", format!("Sat, {day} Nov 2026 10:00:00 +0000")),
            ("Message-ID", format!("<{id}@sender.example>")),
            ("Received", "from pc by mx.sender.example with ESMTP id 4B1; Sat".to_owned()),
        ];
        Letter { fields, body }
    })
}

/// What hops write and take away: never a part of a message.
const OF_HOPS: &[&str] = &[
    "Received",
    "Return-Path",
    "Delivered-To",
    "Authentication-Results",
    "ARC-Seal",
    "ARC-Message-Signature",
    "ARC-Authentication-Results",
    "DKIM-Signature",
    "X-Sieve",
    "X-Sieve-Redirected-From",
    "X-Spam-Status",
    "X-Spam-Flag",
    "X-Replyguard-Trace",
    "X-MS-Exchange-Inbox-Rules-Loop",
    "X-MS-Exchange-ForwardingLoop",
    "Envelope-To",
];

proptest! {
    /// Our traces and other hops' lines on top, theirs in between, in any number.
    #[test]
    fn lines_of_hops_change_no_strong_fingerprint(
        letter in letter(),
        lines in vec((select(OF_HOPS), "[a-z0-9;=. ]{0,200}", any::<Index>()), 0..20),
    ) {
        let before = strong_of(&letter.text());
        let mut forwarded = letter;
        for (name, value, place) in lines {
            let at = place.index(forwarded.fields.len() + 1);
            forwarded.fields.insert(at, (name, value));
        }
        prop_assert_eq!(strong_of(&forwarded.text()), before);
    }

    /// Folds where there is white space, more or less of it, at each place or none.
    #[test]
    fn folds_change_no_fingerprint(
        letter in letter(),
        folds in vec(select(vec![" ", "  ", "\t", "\r\n ", "\r\n\t", " \r\n  "]), 1..20),
    ) {
        let before = (strong_of(&letter.text()), weak_of(&letter.text()));
        let mut folded = letter;
        for (number, (_, value)) in folded.fields.iter_mut().enumerate() {
            let mut pieces = value.split(' ').map(str::to_owned);
            let first = pieces.next().unwrap_or_default();
            *value = pieces.enumerate().fold(first, |text, (at, piece)| {
                text + folds[(number + at) % folds.len()] + &piece
            });
        }
        prop_assert_eq!((strong_of(&folded.text()), weak_of(&folded.text())), before);
    }

    /// CRLF or LF, and blank lines at the end.
    #[test]
    fn line_ends_change_no_fingerprint(letter in letter(), blank in 0..9usize) {
        let text = letter.text();
        let before = (strong_of(&text), weak_of(&text));
        let more = text.clone() + &"\r\n".repeat(blank);
        prop_assert_eq!((strong_of(&more), weak_of(&more)), before);
        let lf = more.replace("\r\n", "\n");
        prop_assert_eq!((strong_of(&lf), weak_of(&lf)), before);
    }

    #[test]
    fn another_from_is_another_message(letter in letter(), other in "[A-Z][a-z]{9,12}") {
        let changed = letter.with("From", |from| format!("{other} {from}"));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
        let author = letter.with("From", |from| from.replace('@', "x@"));
        prop_assert_ne!(strong_of(&author.text()), strong_of(&letter.text()));
        prop_assert_ne!(weak_of(&author.text()), weak_of(&letter.text()));
    }

    #[test]
    fn another_to_or_cc_is_another_message(letter in letter(), name in select(vec!["To", "Cc"])) {
        let changed = letter.with(name, |to| format!("{to}, one@more.example"));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
        let changed = letter.with(name, |to| to.replace('@', "x@"));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
    }

    #[test]
    fn another_subject_is_another_message(letter in letter(), more in "[a-z]{9,12}") {
        let changed = letter.with("Subject", |subject| format!("{subject} {more}"));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
        prop_assert_ne!(weak_of(&changed.text()), weak_of(&letter.text()));
    }

    #[test]
    fn another_date_is_another_message(letter in letter(), seconds in 1..60u32) {
        let changed = letter.with("Date", |date| date.replace(":00 ", &format!(":{seconds:02} ")));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
    }

    #[test]
    fn another_message_id_is_another_message(letter in letter(), more in "[a-z]{1,9}") {
        let changed = letter.with("Message-ID", |id| id.replace('@', &format!("{more}@")));
        prop_assert_ne!(strong_of(&changed.text()), strong_of(&letter.text()));
    }

    /// A line more, a line less, a letter changed; a blank line in between is a change as well.
    #[test]
    fn another_body_is_another_message(
        letter in letter(), place in any::<Index>(), more in select(vec!["", "x", "two words"]),
    ) {
        let before = strong_of(&letter.text());
        let at = place.index(letter.body.len());
        let mut longer = letter.clone();
        longer.body.insert(at, more.to_owned());
        prop_assert_ne!(strong_of(&longer.text()), before);
        let mut changed = letter.clone();
        changed.body[at].push('x');
        prop_assert_ne!(strong_of(&changed.text()), before);
        let mut shorter = letter;
        shorter.body.pop();
        prop_assert_ne!(strong_of(&shorter.text()), before);
    }

    /// What forwarders rewrite: id, date, recipients, tags before and behind the subject, a banner
    /// above the text and disclaimers below, lap after lap.
    #[test]
    fn the_weak_fingerprint_survives_forwarders_that_rewrite(
        letter in letter(),
        laps in vec((select(vec!["[EXT] ", "[list] ", "Re: ", "WG: ", "AW: ", "Fwd: ", "***SPAM*** "]),
            "[a-z0-9]{1,12}", vec("[a-zA-Z ]{0,60}", 0..4)), 1..8),
    ) {
        let before = weak_of(&letter.text());
        let mut rewritten = letter;
        for (tag, id, lines) in laps {
            let hop = format!("from x by forward.example id {id}; Sat");
            rewritten.fields.insert(0, ("Received", hop));
            rewritten = rewritten
                .with("Message-ID", |_| format!("<{id}@forward.example>"))
                .with("Date", |_| format!("Sun, 22 Nov 2026 11:00:00 +0000 ({id})"))
                .with("To", |_| format!("{id}@forward.example"))
                .with("Subject", |subject| format!("{tag}{subject}"));
            rewritten.body.insert(0, format!("CAUTION: this came from outside ({id})."));
            rewritten.body.push("-- ".to_owned());
            rewritten.body.extend(lines);
            prop_assert_eq!(weak_of(&rewritten.text()), before);
        }
    }
}

/// What no fingerprint sees, as docs/loops.md says: the body beyond its first 64 KiB, and to the
/// weak one the body at all.
#[test]
fn what_fingerprints_cannot_see() {
    let text = |end: &str| format!("Subject: s\r\n\r\n{}{end}\r\n", "0123456789".repeat(7000));
    const { assert!(7000 * 10 > FINGERPRINT_BODY_BYTES_MAX) };
    assert_eq!(strong_of(&text("one")), strong_of(&text("other")));
    let text = |body: &str| format!("Received: by mx id 1; x\r\nSubject: s\r\n\r\n{body}\r\n");
    assert_eq!(weak_of(&text("one")), weak_of(&text("other")));
}
