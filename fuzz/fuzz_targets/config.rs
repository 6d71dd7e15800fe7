//! Configuration: any text is a configuration, or faults that stand in it; never a panic, and the
//! same each time.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use replyguard::config::{Config, World};
use replyguard::mail::time::Timestamp;

fuzz_target!(|text: &str| {
    let world = World {
        hostname: "guard.example".to_owned(),
        state_dir: PathBuf::from("/nonexistent/state"),
        now: Timestamp::from_millis(1_795_282_739_000),
    };
    // Why: what a path names is none of the text, and may be a device without an end.
    if ["/dev", "/proc", "/sys", "..", "\\"].iter().any(|path| text.contains(path)) {
        return;
    }
    let read = || Config::read("fuzzed", text, Path::new("/nonexistent"), &world);
    match (read(), read()) {
        (Ok(config), Ok(_)) => {
            let _ = (config.warnings(), config.enforces());
        }
        (Err(faults), Err(again)) => {
            assert!(!faults.is_empty());
            assert_eq!(format!("{faults:?}"), format!("{again:?}"));
            for fault in &faults {
                assert!(fault.line <= text.lines().count() + 1, "{fault}");
                assert!(!fault.what.is_empty(), "{fault}");
            }
        }
        _ => panic!("read differently a second time"),
    }
});
