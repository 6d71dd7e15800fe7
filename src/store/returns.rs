//! Whether our next hop sends our own mail back: misrouting (design.md §8.6).
//!
//! Takes: each message that comes from the next hop's address for a recipient it went to before,
//! and how long ago it left us. Gives: whether that is misrouting by now. Bounds: the moments that
//! decide, `limits::MISROUTED_MAX`.
//!
//! One message that comes back goes round. When more than ten a minute do so within seconds, it is
//! the way that goes round, and with it a site's whole mail: that must wait at the client until
//! somebody mends the way, not fill the quarantine. What waited comes again later, and no longer
//! within seconds; so the alarm lasts until nothing has come back for a while.

use std::collections::VecDeque;
use std::time::Duration;

use crate::mail::limits::{MISROUTED_AFTER_MAX, MISROUTED_LASTS, MISROUTED_MAX, MISROUTED_WINDOW};
use crate::mail::time::Timestamp;

/// What came back lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    young: VecDeque<Timestamp>,
    until: Option<Timestamp>,
}

impl Returns {
    /// A message came back from the next hop that long after it left us. Whether the way goes
    /// round.
    pub fn came_back(&mut self, after: Duration, now: Timestamp) -> bool {
        let mut misrouted = self.until.is_some_and(|until| now < until);
        if after <= MISROUTED_AFTER_MAX {
            self.young.retain(|at| now.since(*at) < MISROUTED_WINDOW);
            self.young.push_back(now);
            misrouted |= self.young.len() > MISROUTED_MAX;
            self.young.truncate(MISROUTED_MAX + 1);
        }
        if misrouted {
            self.until = Some(now.plus(MISROUTED_LASTS));
        }
        misrouted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_eleventh_in_a_minute_shows_that_the_way_goes_round() {
        let mut returns = Returns::default();
        for n in 0..10 {
            assert!(!returns.came_back(SECOND, NOW.plus(n * SECOND)));
        }
        assert!(returns.came_back(SECOND, NOW.plus(10 * SECOND)));
        // What was told to wait comes again, and is no longer young.
        let mut now = NOW;
        for _ in 0..20 {
            now = now.plus(600 * SECOND);
            assert!(returns.came_back(600 * SECOND, now));
        }
        assert!(!returns.came_back(600 * SECOND, now.plus(MISROUTED_LASTS)));
    }

    #[test]
    fn few_or_slow_ones_are_loops_of_their_own() {
        let mut returns = Returns::default();
        for n in 0..100 {
            assert!(!returns.came_back(SECOND, NOW.plus(n * 6 * SECOND)));
            assert!(!returns.came_back(6 * SECOND, NOW.plus(n * 6 * SECOND)));
        }
    }
}
