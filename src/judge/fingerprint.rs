//! Station 3: what survives forwarding, and what the bounces of one spam run have in common.
//!
//! Takes: a `Reading`, a secret key. Gives: `Fingerprint` (design.md §8.2, strong) and `Campaign`.
//! Bounds: `limits::FINGERPRINT_BODY_BYTES_MAX` of a body for a fingerprint; the same for every
//! message, so that one that was cut at `inspect_max` has the fingerprint of the whole. A campaign
//! covers all of what is embedded, which `inspect_max` bounds.
//!
//! Both have a key and 128 bits: peers choose the input, and must not be able to choose the output.
//! The fingerprint is HighwayHash, as every message has one; the campaign is BLAKE3, as it says what
//! may be shown to whom. Fields that every hop adds or changes (Received, Return-Path, Delivered-To,
//! Authentication-Results, ARC, DKIM-Signature, X-Sieve, X-Spam, our trace) are left out.
//!
//! What a campaign joins: bounces and replies that return a whole message, of one author's domain,
//! one subject and the same parts, that differ in nothing but addresses and the recipients' own
//! names. A run that changes words, numbers or pictures with every message is as many campaigns,
//! and a response that returns a header or nothing has none. More would be joined wrongly: copies
//! of a campaign are stored once, and a release must not show one sender what was sent to another.

use std::borrow::Cow;
use std::fmt;

use highway::{HighwayHash, HighwayHasher};
use serde::Serialize;

use crate::judge::Case;
use crate::judge::classify::{Class, Guarded};
use crate::judge::evidence::GapCause;
use crate::judge::original::Original;
use crate::judge::reading::Reading;
use crate::judge::words::folded;
use crate::mail::address::{Domain, ReversePath};
use crate::mail::header::Field;
use crate::mail::hex::hex;
use crate::mail::keyed::{first, put};
use crate::mail::limits::FINGERPRINT_BODY_BYTES_MAX;
use crate::mail::message::{Message, View};
use crate::mail::report::Form;

/// The key of all fingerprints of one installation.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A key from 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> FingerprintKey {
        FingerprintKey(bytes)
    }

    /// The hash of these bytes and those behind them.
    fn hash(&self, bytes: &[u8], behind: &[u8]) -> [u8; 16] {
        let (words, _) = self.0.as_chunks::<8>();
        let mut key = highway::Key::default();
        key.0.iter_mut().zip(words).for_each(|(key, word)| *key = u64::from_le_bytes(*word));
        let mut hasher = HighwayHasher::new(key);
        hasher.append(bytes);
        hasher.append(behind);
        let [low, high] = hasher.finalize128();
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
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
        let mut pieces = Vec::with_capacity(HEADER_BYTES_USUAL);
        put(&mut pieces, b"replyguard fingerprint strong 2");
        for name in ["message-id", "from", "to", "cc", "date", "subject"] {
            for field in view.fields.all(name) {
                put(&mut pieces, name.as_bytes());
                put(&mut pieces, single_spaced(&field.text()).as_bytes());
            }
        }
        let body = bytes.get(view.fields.end()..).unwrap_or_default();
        let body = with_crlf(body, FINGERPRINT_BODY_BYTES_MAX);
        let body = without_blank_end(&body);
        pieces.extend_from_slice(&(body.len() as u64).to_le_bytes());
        Fingerprint(key.hash(&pieces, body))
    }

    /// The fingerprint of these pieces; `purpose` keeps kinds apart.
    pub fn of_pieces(purpose: &str, pieces: &[&[u8]], key: &FingerprintKey) -> Fingerprint {
        let mut joined = Vec::with_capacity(HEADER_BYTES_USUAL);
        put(&mut joined, purpose.as_bytes());
        pieces.iter().for_each(|piece| put(&mut joined, piece));
        Fingerprint(key.hash(&joined, &[]))
    }

    /// The 128 bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Campaign {
    /// The campaign of a message with this reverse-path; `None` for what is no response, or does not
    /// return a whole message.
    ///
    /// Why not in `Case`: only what is held because it answers forged mail has any use of it.
    pub fn of_response(
        path: &ReversePath,
        message: &Message,
        case: &Case,
        key: &FingerprintKey,
    ) -> Option<Campaign> {
        let Case { class, original, .. } = case;
        let is_cut = GapCause::Truncated.is_among(&original.gaps);
        if class.guarded() != Guarded::Response || is_cut {
            return None;
        }
        let view = message.view();
        Campaign::of(&Reading::new(&view, Some(path)), *class, original, key)
    }

    /// The class, and the subject message as it was sent to anybody; `None` when the response does
    /// not hold all of it.
    fn of(
        reading: &Reading<'_>,
        class: Class,
        original: &Original,
        key: &FingerprintKey,
    ) -> Option<Campaign> {
        let embedded = reading.embedded().filter(|embedded| embedded.form == Form::Message)?;
        let view = View::read(&embedded.bytes);
        let leaves = || view.parts().iter().filter(|part| !part.is_container);
        leaves().find(|part| !part.decoded(usize::MAX).trim_ascii().is_empty())?;
        let names = names(original, &view);
        let mut pieces = Vec::with_capacity(embedded.bytes.len());
        put(&mut pieces, b"replyguard campaign 4");
        put(&mut pieces, class.as_str().as_bytes());
        put(&mut pieces, class.dsn_action().map_or("", |action| action.as_str()).as_bytes());
        for author in view.fields.author_addresses() {
            put(&mut pieces, author.domain().map_or("", Domain::as_str).as_bytes());
        }
        let subject = view.fields.first("subject").map(Field::decoded);
        let subject = folded(&subject.unwrap_or_default(), 1000);
        put(&mut pieces, &impersonal(subject.as_bytes(), &names));
        for part in leaves() {
            put(&mut pieces, part.media.kind.as_bytes());
            let content = part.decoded(usize::MAX);
            match part.media.kind.starts_with("text/") {
                true => put(&mut pieces, &impersonal(&content, &names)),
                false => put(&mut pieces, &with_crlf(&content, usize::MAX)),
            }
        }
        Some(Campaign(first(&blake3::keyed_hash(&key.0, &pieces))))
    }

    /// The 128 bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
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

/// Bytes of a fingerprint's header fields that are made room for.
const HEADER_BYTES_USUAL: usize = 1024;

/// The words of a text, each with one space before the next.
pub fn single_spaced(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for word in value.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Bytes with CRLF in place of LF, the first `bytes_max` of them: the same message has the one at
/// rest and the other on the wire, where nothing need be changed.
fn with_crlf(bytes: &[u8], bytes_max: usize) -> Cow<'_, [u8]> {
    let bytes = bytes.get(..bytes_max).unwrap_or(bytes);
    if !has_bare_lf(bytes) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / LINE_BYTES_USUAL);
    let mut from = 0;
    for at in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes.get(from..at).unwrap_or_default();
        out.extend_from_slice(line);
        out.extend_from_slice(if line.ends_with(b"\r") { b"\n" } else { b"\r\n" });
        from = at + 1;
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out.truncate(bytes_max);
    Cow::Owned(out)
}

/// Whether there is an LF without CR before it.
fn has_bare_lf(bytes: &[u8]) -> bool {
    let Some((first, second)) = bytes.split_first() else { return false };
    // Why without a branch: so many bytes are compared with one instruction.
    let bare = bytes.iter().zip(second).fold(0, |bare, (&first, &second)| {
        bare | (u8::from(second == b'\n') & u8::from(first != b'\r'))
    });
    bare != 0 || *first == b'\n'
}

/// Bytes of a line, as a rule: so many less than the CRs that are put in need room.
const LINE_BYTES_USUAL: usize = 16;

/// A body without the line ends at its end.
fn without_blank_end(mut body: &[u8]) -> &[u8] {
    while let Some(before) = body.strip_suffix(b"\r\n") {
        body = before;
    }
    body
}

/// The recipients' local parts, lower case: spam greets people by them.
fn names(original: &Original, view: &View<'_>) -> Vec<String> {
    let to = view.fields.all("to").take(1).flat_map(Field::addresses);
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
    let mut out = Vec::with_capacity(text.len());
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let bare = word.trim_ascii_end();
        let bare = bare.strip_suffix(b",").or_else(|| bare.strip_suffix(b"!")).unwrap_or(bare);
        let is_name = names.iter().any(|name| bare.eq_ignore_ascii_case(name.as_bytes()));
        let is_address =
            memchr::memchr(b'@', word).is_some() || word.windows(3).any(|three| three == b"%40");
        if is_name || is_address {
            out.push(b'@');
        } else {
            out.extend_from_slice(word);
        }
        out.push(b' ');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::classify::DsnAction;
    use crate::judge::site::Site;

    const KEY: FingerprintKey = FingerprintKey::new([7; 32]);

    fn fingerprint(message: &str) -> Fingerprint {
        Fingerprint::of(&View::read(message.as_bytes()), message.as_bytes(), &KEY)
    }

    fn campaign(message: &str) -> Option<Campaign> {
        let view = View::read(message.as_bytes());
        let reading = Reading::new(&view, Some(&ReversePath::Null));
        let class = Class::Dsn(DsnAction::Failed);
        let original = Original::of(&reading, class, &Site::default());
        Campaign::of(&reading, class, &original, &KEY)
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
            From: Shop <shop@evil.test>\nTo: {recipient}\nSubject: Hello {}!\nX-Mailer: Spam 1\n\n{body}\n--{recipient}--\n",
            recipient.split('@').next().unwrap()
        )
    }

    #[test]
    fn bounces_of_one_run_share_a_campaign() {
        let body = |who: &str| format!("Dear {who},\nbuy. Leave: http://x.test/?e={who}%40x\n");
        let joe = bounce("joe@a.test", "message/rfc822", &body("Joe"));
        let ann = bounce("annette@b.test", "message/rfc822", &body("annette"));
        assert!(campaign(&joe).is_some());
        assert_eq!(campaign(&joe), campaign(&ann));
        let view = View::read(joe.as_bytes());
        let reading = Reading::new(&view, None);
        let delayed = Class::Dsn(DsnAction::Delayed);
        let delayed = Campaign::of(&reading, delayed, &Original::default(), &KEY);
        assert_ne!(delayed, campaign(&joe));
    }

    #[test]
    fn what_may_not_be_shown_to_one_another_shares_none() {
        let multipart = |picture: &str, html: &str| {
            let part = format!("\n\nbuy\n--s\nContent-Type: text/html\n\n{html}\n--s\n");
            let body = format!("--s{part}Content-Type: image/png\n\n{picture}\n--s--\n");
            bounce("joe@a.test", "message/rfc822", &body)
                .replace("X-Mailer: Spam 1", "Content-Type: multipart/mixed; boundary=s")
        };
        let same = campaign(&multipart("PNG", "buy"));
        assert!(same.is_some());
        assert_eq!(campaign(&multipart("PNG", "buy")), same);
        assert_ne!(campaign(&multipart("GIF", "buy")), same);
        assert_ne!(campaign(&multipart("PNG", "invoice")), same);
        let other_author = multipart("PNG", "buy").replace("evil.test", "bank.test");
        assert_ne!(campaign(&other_author), same);
        let other_subject = multipart("PNG", "buy").replace("Hello", "Invoice");
        assert_ne!(campaign(&other_subject), same);
        let long = |end: &str| format!("{}{end}", "word ".repeat(20_000));
        assert_ne!(
            campaign(&multipart("PNG", &long("a"))),
            campaign(&multipart("PNG", &long("b")))
        );
    }

    #[test]
    fn line_ends_make_no_other_campaign() {
        for form in ["image/png", "message/rfc822", "text/plain", "application/x; charset=utf-8"] {
            let body = format!("--s\nContent-Type: {form}\n\na b\n\nc\n--s--\n");
            let message = bounce("joe@a.test", "message/rfc822", &body)
                .replace("X-Mailer: Spam 1", "Content-Type: multipart/mixed; boundary=s");
            assert!(campaign(&message).is_some());
            assert_eq!(campaign(&message.replace('\n', "\r\n")), campaign(&message), "{form}");
        }
    }

    #[test]
    fn what_returns_no_whole_message_has_no_campaign() {
        assert_eq!(campaign(&bounce("joe@a.test", "text/rfc822-headers", "")), None);
        assert_eq!(campaign(&bounce("joe@a.test", "message/rfc822", "")), None);
        assert_eq!(campaign("From: joe@ours.test\nSubject: away\n\nI am away.\n"), None);
        let quoted = "From: MAILER-DAEMON@ours.test\nSubject: failure notice\n\nIt failed.\n\
            --- Below this line is a copy of the message.\n\nReceived: x\nMessage-ID: <m@a.test>\n\
            Subject: s\n\nbuy\n";
        assert_eq!(campaign(quoted), None);
    }

    proptest! {
        #[test]
        fn line_ends_do_not_matter(body in "(a|b|\n| |\t){0,60}") {
            let lf = format!("Subject: s\n\n{body}");
            prop_assert_eq!(fingerprint(&lf), fingerprint(&lf.replace('\n', "\r\n")));
        }
    }
}
