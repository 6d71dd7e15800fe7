//! Bounds of what is written to disk, each with its reason.

use std::time::Duration;

/// How long a write may take that is expected to come back at once.
pub const QUICK_MAX: Duration = Duration::from_millis(20);

/// How long threads of their own write after one took longer: a disk that stalls holds up sessions
/// for a hundredth of the time at most, as a rule.
pub const ASIDE_FOR: Duration = Duration::from_secs(60);
