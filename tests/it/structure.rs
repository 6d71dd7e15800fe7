//! Hostile structure: messages made of nothing but nesting, parts, fields or comments; and what
//! must not matter: line ends and packets.
//!
//! Goal: what is read of them has a bound, whatever their size, and they end nobody's process.
//! Method: shapes at two sizes; what is counted is what was read, not time. How the work grows is
//! counted in instructions: `scripts/bench hostile`.

use std::fs;
use std::path::Path;

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::select;
use replyguard::judge::classify::Class;
use replyguard::judge::fingerprint::{Campaign, FingerprintKey};
use replyguard::judge::site::Site;
use replyguard::judge::{Case, read_alone};
use replyguard::mail::address::ReversePath;
use replyguard::mail::header::Completeness;
use replyguard::mail::limits::{
    FAILED_RECIPIENTS_MAX, FIELDS_MAX, ORIGINAL_KEYS_MAX, PART_DEPTH_MAX, PARTS_MAX,
    RAW_FIELDS_MAX, SIGNALS_MAX,
};
use replyguard::mail::message::{Message, View};
use replyguard::mail::raw::split;
use replyguard::wire::line::{Content, ContentReader};

#[path = "../support/hostile.rs"]
mod hostile;

use hostile::{SHAPES, Shape};

fn depth(view: &View<'_>, part: usize) -> usize {
    std::iter::successors(Some(part), |part| view.parts()[*part].parent).count()
}

/// The sizes of the measure: 20,000 nested or flat parts, 300,000 fields.
#[test]
fn what_is_read_of_a_hostile_message_has_a_bound() {
    for Shape { name, full, make, .. } in SHAPES {
        for size in [full / 10, *full] {
            let message = Message::new(make(size), Completeness::Whole);
            let view = message.view();
            assert!(view.fields.len() <= FIELDS_MAX, "{name}: {} fields", view.fields.len());
            assert!(view.parts().len() <= PARTS_MAX, "{name}: {} parts", view.parts().len());
            let deepest = (0..view.parts().len()).map(|part| depth(&view, part)).max();
            assert!(deepest <= Some(PART_DEPTH_MAX + 1), "{name}: {deepest:?} deep");
            assert!(split(message.bytes()).0.len() <= RAW_FIELDS_MAX, "{name}");

            let case = read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]));
            assert!(case.signals.len() <= SIGNALS_MAX, "{name}");
            assert!(usize::try_from(case.hops).unwrap() <= FIELDS_MAX, "{name}");
            assert!(case.original.keys.len() <= ORIGINAL_KEYS_MAX, "{name}");
            let failed = case.original.failed_recipients.len();
            assert!(failed <= FAILED_RECIPIENTS_MAX, "{name}: {failed}");
            println!("{name} {size}: {}, {} parts", case.class, view.parts().len());
        }
    }
}

/// What stands behind or around the hostile part is still read, where it stands within the bounds.
#[test]
fn a_bounce_is_a_bounce_whatever_it_returns() {
    for Shape { name, full, make, .. } in SHAPES {
        let mut bounce = b"From: MAILER-DAEMON@uni.example\r\nReturn-Path: <>\r\n\
            Content-Type: multipart/report; report-type=delivery-status; boundary=\"ours\"\r\n\r\n\
            --ours\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.uni.example\
            \r\n\r\nFinal-Recipient: rfc822; gone@uni.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
            \r\n--ours\r\nContent-Type: message/rfc822\r\n\r\n"
            .to_vec();
        bounce.extend(make(*full));
        bounce.extend(b"\r\n--ours--\r\n");
        let message = Message::new(bounce, Completeness::Whole);
        let case = read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]));
        assert!(matches!(case.class, Class::Dsn(_)), "{name}: {}", case.class);
        let failed: Vec<String> =
            case.original.failed_recipients.iter().map(ToString::to_string).collect();
        assert_eq!(failed, ["gone@uni.example"], "{name}");
    }
}

/// Goal: what a message is, what it answers and what it reports do not depend on what ends its
/// lines. Method: every message of real servers with LF, with CRLF, and with both in turn.
#[test]
fn line_ends_change_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let lf = fs::read(&path).unwrap().into_iter().filter(|byte| *byte != b'\r');
        let lf: Vec<u8> = lf.collect();
        let lines = || lf.split_inclusive(|byte| *byte == b'\n').enumerate();
        let with_crlf = |every: usize| {
            lines().fold(Vec::new(), |mut out: Vec<u8>, (index, line)| {
                match line.strip_suffix(b"\n") {
                    Some(text) if index % every == 0 => out.extend([text, b"\r\n"].concat()),
                    _ => out.extend(line),
                }
                out
            })
        };
        let read = |bytes: Vec<u8>| {
            let message = Message::new(bytes, Completeness::Whole);
            let mut case = read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]));
            // Where it stands is counted in bytes.
            case.original.embedded = None;
            case
        };
        let wanted = read(lf.clone());
        assert_eq!(read(with_crlf(1)), wanted, "{}", path.display());
        assert_eq!(read(with_crlf(2)), wanted, "{}", path.display());
    }
}

/// What a message may be made of, so that its structure is seldom sound and often meant.
const PIECES: &[&[u8]] = &[
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
    b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.a.test\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\nFrom: a@a.test\r\nSubject: x\r\n\r\nbody\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: base64\r\n\r\nVW5kZWxpdmVyYWJsZQ==\r\n",
    b"Auto-Submitted: auto-replied\r\n",
    b"Final-Recipient: rfc822; joe@a.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
    b"Return-Path: <>\r\n",
    b"Received: from a (b [192.0.2.1])\r\n\tby mx.a.test (Postfix) id 1; x\r\n",
    b"From: MAILER-DAEMON\r\n",
    b"Subject: =?utf-8?q?Un?=\r\n =?utf-8?q?deliverable?=\r\n",
    b"In-Reply-To: <m@a.test>\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"\r\n",
    b"--- Below this line is a copy of the message.\r\n",
    b"<joe@a.test>: user unknown\r\n",
    b"..\r\n",
    b" ",
    b"\r",
    b"=\r\n",
    b"\xff\0",
];

fn read(bytes: Vec<u8>) -> (Case, Option<Campaign>) {
    let (message, key) = (Message::new(bytes, Completeness::Whole), FingerprintKey::new([1; 32]));
    let case = read_alone(&message, &Site::default(), &key);
    let campaign = Campaign::of_response(&ReversePath::Null, &message, &case, &key);
    (case, campaign)
}

/// What comes out of the reader of a message's content, fed with these packets.
fn arrived(packets: &[&[u8]]) -> Vec<u8> {
    let (mut reader, mut buffer) = (ContentReader::default(), BytesMut::new());
    let mut message = Vec::new();
    for packet in packets {
        buffer.extend_from_slice(packet);
        while let Some(content) = reader.next(&mut buffer) {
            match content {
                Content::Bytes(bytes) => message.extend_from_slice(&bytes),
                Content::Ambiguous => {}
                Content::End => return message,
            }
        }
    }
    message
}

proptest! {
    /// Goal: no message ends the process, and what it is, with its campaign, depends neither on how
    /// its bytes came in packets nor on what ends its lines. Method: pieces of responses in any
    /// order, cut anywhere; CRLF and LF.
    #[test]
    fn what_a_message_is_depends_on_its_bytes_alone(
        pieces in proptest::collection::vec(select(PIECES), 0..24),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let wire = [&pieces.concat()[..], b"\r\n.\r\n"].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let packets: Vec<&[u8]> = cuts.windows(2).map(|two| &wire[two[0]..two[1]]).collect();
        let whole = arrived(&[&wire]);
        let mut case = read(whole.clone());
        prop_assert_eq!(&read(arrived(&packets)), &case);

        let lf = String::from_utf8_lossy(&whole).replace("\r\n", "\n");
        prop_assume!(!lf.contains('\r') && std::str::from_utf8(&whole).is_ok());
        let mut with_lf = read(lf.into_bytes());
        (case.0.original.embedded, with_lf.0.original.embedded) = (None, None);
        prop_assert_eq!(with_lf, case);
    }
}
