//! Audit records: any line is a record or none, and a record is written and read back as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::audit::record::Record;
use replyguard::mail::limits::RECORD_BYTES_MAX;

fuzz_target!(|line: &str| {
    let Some(record) = Record::parse(line) else { return };
    let _ = (record.class(), record.evidence(), record.original());
    let _ = (record.is_failed(), record.is_irrevocable(), record.is_delivered());
    let Ok(written) = record.line() else { return };
    assert!(written.len() <= RECORD_BYTES_MAX && !written.contains(['\r', '\n']));
    let again = Record::parse(&written);
    assert!(again.is_some(), "{written}");
    // Above the bound, fields are left out and named.
    if again.as_ref().is_some_and(|again| again.left_out == record.left_out) {
        assert_eq!(again.as_ref(), Some(&record));
        assert_eq!(again.and_then(|again| again.line().ok()), Some(written));
    }
});
