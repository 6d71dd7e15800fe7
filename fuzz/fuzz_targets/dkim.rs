//! DKIM: any message can be made ready, and any text is a key record or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::auth::dkim::tags::Key;
use replyguard::auth::dkim::{Extent, Prepared};
use replyguard::mail::time::Timestamp;

fuzz_target!(|message: &[u8]| {
    let now = Timestamp::from_millis(1_600_000_000_000);
    let _ = Prepared::read(message, Extent::Whole, now);
    let _ = Prepared::read(message, Extent::Header, now);
    let _ = Key::parse(message);
});
