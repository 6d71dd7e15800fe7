//! Ids of events and sessions: ULIDs that rise.

use std::sync::{Mutex, PoisonError};

use ulid::Ulid;

use crate::mail::time::Timestamp;

/// Gives ids, each greater than the one before.
#[derive(Debug, Default)]
pub struct Ids {
    last: Mutex<Ulid>,
}

impl Ids {
    /// A new id of this moment.
    ///
    /// Why it rises even within a millisecond, or when the clock is set back: held messages and
    /// records are found and ordered by it.
    pub fn next(&self, now: Timestamp) -> Ulid {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut chance = [0; 16];
        // Why an error may pass: then the number behind the moment only rises by one.
        let random = match getrandom::fill(&mut chance) {
            Ok(()) => u128::from_le_bytes(chance),
            Err(_) => 0,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Ulid::from_parts(millis, random);
        *last = match fresh > *last {
            true => fresh,
            false => last.increment().unwrap_or(fresh),
        };
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_whatever_the_clock_does() {
        let ids = Ids::default();
        let mut last = Ulid::nil();
        for millis in [5, 5, 5, 9, 3, 3, 10] {
            let id = ids.next(Timestamp::from_millis(millis));
            assert!(id > last);
            last = id;
        }
    }
}
