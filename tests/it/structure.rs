//! Hostile structure: messages made of nothing but nesting, parts, fields or comments; and what
//! must not matter: line ends.
//!
//! Goal: what is read of them has a bound, whatever their size, and they end nobody's process.
//! Method: shapes at two sizes; what is counted is what was read, not time. How the work grows is
//! counted in instructions: `scripts/bench hostile`.

use std::fs;
use std::path::Path;

use replyguard::judge::classify::Class;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::read_alone;
use replyguard::judge::site::Site;
use replyguard::mail::header::Completeness;
use replyguard::mail::limits::{
    FAILED_RECIPIENTS_MAX, FIELDS_MAX, ORIGINAL_KEYS_MAX, PART_DEPTH_MAX, PARTS_MAX,
    RAW_FIELDS_MAX, SIGNALS_MAX,
};
use replyguard::mail::message::{Message, View};
use replyguard::mail::raw::split;

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
            // Where it stands is counted in bytes; and copies of one campaign came the same way, so
            // that their line ends are the same.
            (case.original.embedded, case.campaign) = (None, None);
            case
        };
        let wanted = read(lf.clone());
        assert_eq!(read(with_crlf(1)), wanted, "{}", path.display());
        assert_eq!(read(with_crlf(2)), wanted, "{}", path.display());
    }
}
