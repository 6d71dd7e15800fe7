//! Station 3: what survives forwarding, and what the bounces of one spam run have in common.
//!
//! Takes: a `Reading`, a secret key. Gives: `Fingerprint` (design.md §8.2, strong) and `Campaign`.
//! Bounds: `limits::FINGERPRINT_BODY_BYTES_MAX` of a body; the same for every message, so that one
//! that was cut at `inspect_max` has the fingerprint of the whole.
//!
//! Both are BLAKE3 with a key, 128 bits: peers choose the input, and must not be able to choose the
//! output. Fields that every hop adds or changes (Received, Return-Path, Delivered-To,
//! Authentication-Results, ARC, DKIM-Signature, X-Sieve, X-Spam, our trace) are left out.
//!
//! What a campaign cannot do. It joins only what differs in nothing but addresses and the
//! recipients' own names: a run that changes words, numbers or pictures with every message is as
//! many campaigns. It joins nothing more on purpose: copies of a campaign are stored once, and a
//! release must not show one sender what was sent to another.

use std::fmt;

use serde::Serialize;

use crate::judge::classify::Class;
use crate::judge::original::Original;
use crate::judge::reading::Reading;
use crate::judge::words::folded;
use crate::mail::address::Address;
use crate::mail::header::{Field, Fields};
use crate::mail::limits::FINGERPRINT_BODY_BYTES_MAX;
use crate::mail::message::View;
use crate::mail::report::Form;

/// The key of all fingerprints of one installation.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A key from 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> FingerprintKey {
        FingerprintKey(bytes)
    }

    fn hasher(&self, purpose: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        put(&mut hasher, purpose.as_bytes());
        hasher
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}

/// What a message keeps when it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

/// What the bounces of one spam run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Campaign([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a message.
    pub fn of(view: &View<'_>, bytes: &[u8], key: &FingerprintKey) -> Fingerprint {
        let mut hasher = key.hasher("replyguard fingerprint strong 1");
        for name in ["message-id", "from", "to", "cc", "date", "subject"] {
            for field in view.fields.all(name) {
                put(&mut hasher, name.as_bytes());
                put(&mut hasher, single_spaced(&field.text()).as_bytes());
            }
        }
        let body = bytes.get(view.fields.end()..).unwrap_or_default();
        put(&mut hasher, &normal_lines(body));
        Fingerprint(short(&hasher))
    }

    /// The 128 bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Campaign {
    /// The campaign of a response: its class, and the subject message as it was sent to anybody;
    /// when none is embedded, who answers and with what words.
    pub fn of(
        reading: &Reading<'_>,
        class: Class,
        original: &Original,
        responder: Option<&Address>,
        key: &FingerprintKey,
    ) -> Campaign {
        let mut hasher = key.hasher("replyguard campaign 1");
        put(&mut hasher, class.as_str().as_bytes());
        put(&mut hasher, class.dsn_action().map_or("", |action| action.as_str()).as_bytes());
        let embedded = reading.embedded();
        let quoted = if embedded.is_none() { reading.quoted() } else { None };
        let bytes = embedded.map(|embedded| embedded.bytes.as_ref());
        let bytes = bytes.or(quoted.as_deref().map(str::as_bytes));
        let view = bytes.map(View::read);
        let names = names(original, view.as_ref());
        match view {
            Some(view) => {
                let subject = view.fields.first("subject").map(Field::decoded);
                let subject = folded(&subject.unwrap_or_default(), 1000);
                put(&mut hasher, &impersonal(subject.as_bytes(), &names));
                match embedded.map(|embedded| embedded.form) {
                    Some(Form::Header) => put_header_set(&mut hasher, &view.fields),
                    _ => put(&mut hasher, &impersonal(&first_content(&view), &names)),
                }
            }
            None => {
                put(&mut hasher, responder.map_or("", |address| address.as_str()).as_bytes());
                put(&mut hasher, &impersonal(reading.text().as_bytes(), &names));
            }
        }
        Campaign(short(&hasher))
    }

    /// The 128 bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Campaign {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Adds a piece with its length, so that no two sequences of pieces hash alike.
fn put(hasher: &mut blake3::Hasher, piece: &[u8]) {
    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
    hasher.update(&length.to_le_bytes());
    hasher.update(piece);
}

fn short(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn single_spaced(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for word in value.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The first bytes of a body with LF line ends, without blank lines at its end.
fn normal_lines(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len().min(FINGERPRINT_BODY_BYTES_MAX));
    let mut rest = body;
    while out.len() < FINGERPRINT_BODY_BYTES_MAX && !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n");
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        out.extend_from_slice(line.get(..FINGERPRINT_BODY_BYTES_MAX).unwrap_or(line));
        rest = match after.strip_prefix(b"\r\n") {
            Some(after) => {
                out.push(b'\n');
                after
            }
            None => b"",
        };
    }
    out.truncate(FINGERPRINT_BODY_BYTES_MAX);
    while out.last() == Some(&b'\n') {
        out.pop();
    }
    out
}

/// The decoded content that a person sees first: the text, or else the first part there is.
fn first_content(view: &View<'_>) -> Vec<u8> {
    let part = view.first_text().or_else(|| view.parts().iter().find(|part| !part.is_container));
    part.map(|part| part.decoded(FINGERPRINT_BODY_BYTES_MAX).into_owned()).unwrap_or_default()
}

/// The recipients' local parts, lower case: spam greets people by them.
fn names(original: &Original, view: Option<&View<'_>>) -> Vec<String> {
    let to = view.into_iter().flat_map(|view| view.fields.all("to").take(1));
    let to = to.flat_map(Field::addresses);
    let known = original.failed_recipients.iter().cloned().chain(to).take(NAMES_MAX);
    let names = known.map(|address| address.local().to_lowercase());
    names.filter(|name| name.len() >= NAME_BYTES_MIN).collect()
}

/// Recipients whose names are taken out of a campaign's text.
const NAMES_MAX: usize = 8;

/// Bytes of a name that is taken out; shorter ones are syllables of everything.
const NAME_BYTES_MIN: usize = 3;

/// The words of a text, with `@` in place of addresses and of the recipients' own names.
fn impersonal(text: &[u8], names: &[String]) -> Vec<u8> {
    let text = text.get(..FINGERPRINT_BODY_BYTES_MAX).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len());
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let bare = word.trim_ascii_end();
        let bare = bare.strip_suffix(b",").or_else(|| bare.strip_suffix(b"!")).unwrap_or(bare);
        let is_name = names.iter().any(|name| bare.eq_ignore_ascii_case(name.as_bytes()));
        let is_address =
            memchr::memchr(b'@', word).is_some() || memchr::memmem::find(word, b"%40").is_some();
        if is_name || is_address {
            out.push(b'@');
        } else {
            out.extend_from_slice(word);
        }
        out.push(b' ');
    }
    out
}

/// What is left of a run when only headers are returned: which fields its program wrote, in which
/// order, and the program's name.
fn put_header_set(hasher: &mut blake3::Hasher, fields: &Fields<'_>) {
    let mut last = String::new();
    for field in fields.iter() {
        let name = field.name().to_ascii_lowercase();
        if name == last || ON_THE_WAY.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        put(hasher, name.as_bytes());
        last = name;
    }
    for name in ["x-mailer", "user-agent"] {
        put(hasher, single_spaced(&fields.text(name).unwrap_or_default()).as_bytes());
    }
}

/// Beginnings of fields that servers add on the way, for each recipient differently.
const ON_THE_WAY: &[&str] = &[
    "received",
    "return-path",
    "delivered-to",
    "envelope-to",
    "authentication-results",
    "arc-",
    "dkim-",
    "x-sieve",
    "x-spam",
    "x-original-to",
    "x-replyguard",
    "x-google",
    "x-gm-",
    "x-virus",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::classify::DsnAction;
    use crate::judge::site::Site;
    use crate::mail::address::ReversePath;

    const KEY: FingerprintKey = FingerprintKey::new([7; 32]);

    fn fingerprint(message: &str) -> Fingerprint {
        Fingerprint::of(&View::read(message.as_bytes()), message.as_bytes(), &KEY)
    }

    fn campaign(message: &str) -> Campaign {
        let view = View::read(message.as_bytes());
        let reading = Reading::new(&view, Some(&ReversePath::Null));
        let class = Class::Dsn(DsnAction::Failed);
        let original = Original::of(&reading, class, &Site::default());
        Campaign::of(&reading, class, &original, None, &KEY)
    }

    const PLAIN: &str = "Received: from a by b\nFrom: a@a.test\nTo: b@b.test\nSubject: s\n t\n\
        Date: Thu, 1 Jan 2026 00:00:00 +0000\nMessage-ID: <m@a.test>\n\nbody\n\nend\n";

    #[test]
    fn what_hops_add_or_change_does_not_matter() {
        let same = fingerprint(PLAIN);
        let hop = format!("Delivered-To: c@c.test\nReceived: from b by c\nX-Sieve: x\n{PLAIN}");
        assert_eq!(fingerprint(&hop), same);
        assert_eq!(fingerprint(&PLAIN.replace('\n', "\r\n")), same);
        assert_eq!(fingerprint(&PLAIN.replace("s\n t", "s  t")), same);
        assert_eq!(fingerprint(&format!("{PLAIN}\n\n")), same);
    }

    #[test]
    fn what_people_write_does_matter() {
        let other = fingerprint(PLAIN);
        for (from, to) in [
            ("a@a.test\n", "x@a.test\n"),
            ("b@b.test", "c@b.test"),
            ("s\n t", "u"),
            ("<m@", "<n@"),
            ("00:00:00", "00:00:01"),
            ("body", "bodies"),
            ("body\n\nend", "body\nend"),
        ] {
            assert_ne!(fingerprint(&PLAIN.replace(from, to)), other, "{from}");
        }
        let key = FingerprintKey::new([8; 32]);
        assert_ne!(Fingerprint::of(&View::read(PLAIN.as_bytes()), PLAIN.as_bytes(), &key), other);
        assert_eq!(other.to_string().len(), 32);
        // No piece can pass for two.
        assert_ne!(fingerprint("To: a\nTo: b\n\n"), fingerprint("To: a b\n\n"));
    }

    #[test]
    fn a_message_cut_behind_the_bound_has_the_fingerprint_of_the_whole() {
        let long = format!("Subject: s\n\n{}", "line of text\r\n".repeat(20_000));
        assert_eq!(fingerprint(&long), fingerprint(long.get(..100_000).unwrap()));
        assert_ne!(fingerprint(&long), fingerprint(long.get(..50_000).unwrap()));
    }

    fn bounce(recipient: &str, form: &str, body: &str) -> String {
        format!(
            "From: MAILER-DAEMON@ours.test\nTo: forged-{recipient}\nMessage-ID: <{recipient}>\n\
            Content-Type: multipart/report; report-type=delivery-status; boundary=\"{recipient}\"\n\n\
            --{recipient}\n\nYour message to {recipient} failed.\n--{recipient}\n\
            Content-Type: message/delivery-status\n\nX-Postfix-Queue-ID: {recipient}\n\n\
            Final-Recipient: rfc822;{recipient}\nAction: failed\n--{recipient}\n\
            Content-Type: {form}\n\nReturn-Path: <forged-{recipient}>\n\
            Received: from x by y id {recipient}; x\nMessage-ID: <spam-{recipient}>\n\
            To: {recipient}\nSubject: Hello {}!\nX-Mailer: Spam 1\n\n{body}\n--{recipient}--\n",
            recipient.split('@').next().unwrap()
        )
    }

    #[test]
    fn bounces_of_one_run_share_a_campaign() {
        let body = |who: &str| format!("Dear {who},\nbuy. Leave: http://x.test/?e={who}%40x\n");
        for form in ["message/rfc822", "text/rfc822-headers"] {
            let joe = campaign(&bounce("joe@a.test", form, &body("Joe")));
            let ann = campaign(&bounce("annette@b.test", form, &body("annette")));
            assert_eq!(joe, ann, "{form}");
        }
        let joe = campaign(&bounce("joe@a.test", "message/rfc822", &body("joe")));
        let other = campaign(&bounce("joe@a.test", "message/rfc822", "something else"));
        assert_ne!(joe, other);
        let delayed = bounce("joe@a.test", "message/rfc822", &body("joe"));
        let view = View::read(delayed.as_bytes());
        let reading = Reading::new(&view, None);
        let class = Class::Dsn(DsnAction::Delayed);
        let original = Original::default();
        assert_ne!(Campaign::of(&reading, class, &original, None, &KEY), joe);
    }

    #[test]
    fn replies_that_embed_nothing_are_joined_by_responder_and_words() {
        let reply = |from: &str, to: &str, words: &str| {
            let message =
                format!("From: {from}\nTo: {to}\nMessage-ID: <{to}>\n\nDear {to}: {words}\n");
            let view = View::read(message.as_bytes());
            let reading = Reading::new(&view, Some(&ReversePath::Null));
            let from = Address::parse(from);
            let original = Original::default();
            Campaign::of(&reading, Class::AutoReply, &original, from.as_ref(), &KEY)
        };
        let away = reply("joe@ours.test", "a@a.test", "I am away.");
        assert_eq!(reply("joe@ours.test", "b@b.test", "I am away."), away);
        assert_ne!(reply("ann@ours.test", "b@b.test", "I am away."), away);
        assert_ne!(reply("joe@ours.test", "b@b.test", "I am back."), away);
    }

    proptest! {
        #[test]
        fn line_ends_do_not_matter(body in "(a|b|\n| |\t){0,60}") {
            let lf = format!("Subject: s\n\n{body}");
            prop_assert_eq!(fingerprint(&lf), fingerprint(&lf.replace('\n', "\r\n")));
        }
    }
}
