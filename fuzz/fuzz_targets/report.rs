//! Reports: only the outermost one counts, whatever its parts and the message inside it say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::mail::limits::REPORT_GROUPS_MAX;
use replyguard::mail::message::View;
use replyguard::mail::report::{Content, Report, embedded};

/// A report of ours whose status part and embedded message are both given.
fn report(status: &[u8], original: &[u8]) -> Vec<u8> {
    let mut message =
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=ours\n\n\
        --ours\nContent-Type: message/delivery-status\n\n"
            .to_vec();
    message.extend_from_slice(status);
    message.extend_from_slice(b"\n--ours\nContent-Type: message/rfc822\n\n");
    message.extend_from_slice(original);
    message.extend_from_slice(b"\n--ours--\n");
    message
}

fn dsn(message: &[u8]) -> Option<replyguard::mail::report::Dsn> {
    match Report::find(&View::read(message))?.content {
        Content::Dsn(dsn) => Some(dsn),
        _ => None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let view = View::read(bytes);
    let _ = Report::find(&view);
    if let Some(embedded) = embedded(&view) {
        if let Some(range) = embedded.range {
            assert_eq!(bytes.get(range), Some(&*embedded.bytes));
        }
    }
    // What stands in the embedded message changes nothing of what the report says. A peer cannot
    // know our boundary.
    if memchr::memmem::find(bytes, b"--ours").is_none() {
        let plain = b"Final-Recipient: rfc822; joe@a.example\nAction: failed\n";
        let honest = dsn(&report(plain, b"Subject: x\n\ny\n"));
        assert!(honest.is_some());
        assert_eq!(dsn(&report(plain, bytes)), honest);
        if let Some(said) = dsn(&report(bytes, b"Subject: x\n\ny\n")) {
            assert!(said.recipients.len() <= REPORT_GROUPS_MAX);
        }
    }
});
