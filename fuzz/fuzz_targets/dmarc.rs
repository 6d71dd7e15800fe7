//! DMARC records: any text is a record or none, and what asks for nothing known changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::auth::dmarc::Published;

fuzz_target!(|text: &[u8]| {
    let Some(read) = Published::parse(text) else { return };
    let more = [text, b"; zz=unknown"].concat();
    assert_eq!(Published::parse(&more), Some(read), "{text:?}");
});
