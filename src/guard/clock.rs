//! The one clock. Everything below takes the moment as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::mail::time::Timestamp;

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's.
    System,
    /// A moment, and what the runtime's clock adds to it; for tests and simulation, where the
    /// runtime's clock stands still unless it is moved.
    From(Timestamp, Instant),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Clock::From(start, instant) => start.plus(instant.elapsed()),
        }
    }
}
