//! Waiting for something to become true: polled, with a deadline, never a sleep to be right.

use std::time::{Duration, Instant};

/// How long a local server may take for anything, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(10);

/// What `probe` gives at last. Panics with `what` when the deadline passes.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    let found = within(PATIENCE, probe);
    found.unwrap_or_else(|| panic!("waited {} s in vain: {what}", PATIENCE.as_secs()))
}

/// What `probe` gives at last; `None` when the deadline passes.
pub fn within<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if start.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
