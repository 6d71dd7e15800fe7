//! Ids of events and sessions: ULIDs that rise.

use std::sync::{Mutex, PoisonError};

use ulid::Ulid;

use crate::mail::time::Timestamp;

/// Gives ids, each greater than the one before.
#[derive(Default)]
pub struct Ids(Mutex<State>);

#[derive(Default)]
struct State {
    last: Ulid,
    /// Chance that no id has used yet.
    chance: Vec<[u8; 16]>,
}

/// Ids that are given chance at once: each time the system is asked.
const CHANCES: usize = 32;

impl Ids {
    /// A new id of this moment.
    ///
    /// Why it rises even within a millisecond, or when the clock is set back: held messages and
    /// records are found and ordered by it.
    pub fn next(&self, now: Timestamp) -> Ulid {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Why without any it may pass: then the number behind the moment only rises by one.
        let random = state.chance().map_or(0, u128::from_le_bytes);
        let fresh = Ulid::from_parts(millis, random);
        state.last = match fresh > state.last {
            true => fresh,
            false => state.last.increment().unwrap_or(fresh),
        };
        state.last
    }
}

impl State {
    fn chance(&mut self) -> Option<[u8; 16]> {
        if self.chance.is_empty() {
            let mut chance = [[0; 16]; CHANCES];
            getrandom::fill(chance.as_flattened_mut()).ok()?;
            self.chance.extend(chance);
        }
        self.chance.pop()
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
