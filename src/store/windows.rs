//! How often something happened lately: moments by key, counted over any time up to the longest.
//!
//! Takes: keys, hashed by the caller. Gives: how often each happened before. Reserved, confirmed or
//! given back like sightings. Bounds: `limits::WINDOWS_MAX` keys; the settings' number of moments
//! each, 4 bytes a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mail::limits::WINDOWS_MAX;
use crate::mail::time::Timestamp;
use crate::store::table::{Health, Key, Owners, Rank, Table};

/// The counters.
#[derive(Debug)]
pub struct Windows {
    table: Table<Moments>,
    flying: Mutex<HashMap<Key, u32>>,
    moments_max: usize,
}

/// When it happened: seconds, the oldest first.
type Moments = Vec<u32>;

/// What happened before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    moments: Moments,
    flying: u32,
    now_s: u32,
}

impl Before {
    /// How often within this time, what is on its way included.
    pub fn within(&self, span: Duration) -> u32 {
        let span_s = u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        let young = self.moments.iter().filter(|at| self.now_s.saturating_sub(**at) < span_s);
        u32::try_from(young.count()).unwrap_or(u32::MAX).saturating_add(self.flying)
    }

    /// When it first happened, as far as it is remembered.
    pub fn first(&self) -> Option<Timestamp> {
        self.moments.first().map(|at| moment(*at))
    }

    /// When it last did.
    pub fn last(&self) -> Option<Timestamp> {
        self.moments.last().map(|at| moment(*at))
    }
}

impl Windows {
    /// Nothing has happened. Of each key the last `moments_max` moments are kept: what counts
    /// further is over every limit.
    pub fn new(moments_max: u32) -> Arc<Windows> {
        let moments_max = usize::try_from(moments_max).unwrap_or(usize::MAX);
        let flying = Mutex::new(HashMap::new());
        Arc::new(Windows { table: Table::new(WINDOWS_MAX), flying, moments_max })
    }

    /// Counts one more on its way for each key; gives what was before, in their order.
    pub fn reserve(
        self: &Arc<Windows>,
        keys: Vec<(Key, Owners)>,
        now: Timestamp,
    ) -> (Pending, Vec<Before>) {
        let now_s = seconds(now);
        let mut flying = self.flying();
        let before = keys.iter().map(|(key, _)| {
            let others = flying.entry(*key).or_default();
            let moments = self.table.look(key, |known| known.cloned().unwrap_or_default());
            let before = Before { moments, flying: *others, now_s };
            *others = others.saturating_add(1);
            before
        });
        let before = before.collect();
        drop(flying);
        (Pending { windows: Arc::clone(self), keys }, before)
    }

    /// How often something happened that is only looked at.
    pub fn before(&self, key: &Key, now: Timestamp) -> Before {
        let moments = self.table.look(key, |known| known.cloned().unwrap_or_default());
        let flying = self.flying().get(key).copied().unwrap_or(0);
        Before { moments, flying, now_s: seconds(now) }
    }

    /// How it stands.
    pub fn health(&self) -> Health {
        self.table.health()
    }

    fn land(&self, key: Key, owners: Owners, happened: Option<Timestamp>) {
        {
            let mut flying = self.flying();
            if let Some(others) = flying.get_mut(&key) {
                *others = others.saturating_sub(1);
                if *others == 0 {
                    flying.remove(&key);
                }
            }
        }
        let Some(now) = happened else { return };
        self.table.change(key, owners, |moments| {
            if moments.len() >= self.moments_max && !moments.is_empty() {
                moments.remove(0);
            }
            moments.push(seconds(now));
            if moments.len() > 1 { Rank::Kept } else { Rank::Fresh }
        });
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is on its way; given back when dropped.
#[derive(Debug)]
pub struct Pending {
    windows: Arc<Windows>,
    keys: Vec<(Key, Owners)>,
}

impl Pending {
    /// It happened.
    pub fn confirm(mut self, now: Timestamp) {
        for (key, owners) in std::mem::take(&mut self.keys) {
            self.windows.land(key, owners, Some(now));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        for (key, owners) in std::mem::take(&mut self.keys) {
            self.windows.land(key, owners, None);
        }
    }
}

fn seconds(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis() / 1000).unwrap_or(0)
}

fn moment(seconds: u32) -> Timestamp {
    Timestamp::from_millis(i64::from(seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn happen(windows: &Arc<Windows>, n: u64, now: Timestamp) -> Before {
        let (pending, before) = windows.reserve(vec![([n, n], [0, 0])], now);
        pending.confirm(now);
        before[0].clone()
    }

    #[test]
    fn what_happened_is_counted_over_any_time() {
        let windows = Windows::new(10);
        assert_eq!(happen(&windows, 1, NOW).within(HOUR), 0);
        assert_eq!(happen(&windows, 1, NOW.plus(HOUR / 2)).within(HOUR), 1);
        let before = happen(&windows, 1, NOW.plus(HOUR));
        assert_eq!((before.within(HOUR), before.within(24 * HOUR)), (1, 2));
        assert_eq!((before.first(), before.last()), (Some(NOW), Some(NOW.plus(HOUR / 2))));
        assert_eq!(happen(&windows, 2, NOW).within(HOUR), 0);
    }

    #[test]
    fn what_is_on_its_way_counts_and_is_given_back() {
        let windows = Windows::new(10);
        let (first, _) = windows.reserve(vec![([1, 1], [0, 0])], NOW);
        assert_eq!(windows.before(&[1, 1], NOW).within(HOUR), 1);
        drop(first);
        assert_eq!(windows.before(&[1, 1], NOW).within(HOUR), 0);
        assert_eq!(windows.health().entries, 0);
    }

    #[test]
    fn only_as_many_moments_are_kept_as_count() {
        let windows = Windows::new(4);
        for second in 0..20 {
            happen(&windows, 1, NOW.plus(Duration::from_secs(second)));
        }
        assert_eq!(windows.before(&[1, 1], NOW).within(HOUR), 4);
    }
}
