//! Authentication-Results: any bytes are read or refused, and what was read has its promised form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::mail::authres::AuthResults;

fuzz_target!(|value: &[u8]| {
    let Ok(read) = AuthResults::parse(value) else { return };
    assert!(!read.authserv_id.is_empty());
    let keyword = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !word.bytes().any(|b| b.is_ascii_uppercase())
    };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = quoted(&read.authserv_id);
    text.extend(read.version.map(|version| format!(" {version}")));
    if read.results.is_empty() {
        text.push_str("; none");
    }
    for result in &read.results {
        assert!(keyword(&result.method) && keyword(&result.result));
        text.push_str(&format!(";{}", result.method));
        text.extend(result.version.map(|version| format!("/{version}")));
        text.push_str(&format!("={}", result.result));
        text.extend(result.reason.iter().map(|reason| format!(" reason={}", quoted(reason))));
        for property in &result.properties {
            assert!(keyword(&property.name));
            if !property.ptype.is_empty() {
                assert!(keyword(&property.ptype));
                text.push_str(&format!(" {}.", property.ptype));
            }
            let space = if property.ptype.is_empty() { " " } else { "" };
            text.push_str(&format!("{space}{}={}", property.name, quoted(&property.value)));
        }
    }
    // The same said plainly is read as the same; a rendering may be longer than the bound.
    if let Ok(again) = AuthResults::parse(text.as_bytes()) {
        assert_eq!(again, read);
    } else {
        assert!(text.len() > replyguard::mail::limits::AUTH_RESULTS_BYTES_MAX, "{text}");
    }
});
