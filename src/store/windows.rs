//! How often something happened lately: moments by key, counted over any time up to the longest.
//!
//! Takes: keys, hashed by the caller. Gives: how often each happened before. Reserved, confirmed or
//! given back like sightings. What happened more than once can be saved, so that a restart gives
//! nobody a new window. Bounds: `limits::WINDOWS_MAX` keys; the settings' number of moments each, 4
//! bytes a moment, none older than `limits::RATE_SPAN_MAX`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mail::limits::{RATE_SPAN_MAX, WINDOWS_MAX};
use crate::mail::time::Timestamp;
use crate::store::table::{Health, Key, Owners, Rank, Table};

/// The counters.
#[derive(Debug)]
pub struct Windows {
    table: Table<Moments>,
    flying: Mutex<HashMap<Key, u32>>,
    moments_max: usize,
    changes: AtomicU64,
}

/// How a file of saved entries begins. Each entry: its key, how many moments, the moments.
const SAVED: &[u8] = b"replyguard conversations 1\n";

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
        let changes = AtomicU64::new(0);
        Arc::new(Windows { table: Table::new(WINDOWS_MAX), flying, moments_max, changes })
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

    /// How often something changed that must survive a restart.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// What must survive a restart: what happened more than once, the least recently used first.
    pub fn saved(&self) -> Vec<u8> {
        let mut saved = SAVED.to_vec();
        self.table.each_kept(|[first, second], moments| {
            let Ok(count) = u16::try_from(moments.len()) else { return };
            saved.extend(first.to_le_bytes());
            saved.extend(second.to_le_bytes());
            saved.extend(count.to_le_bytes());
            moments.iter().for_each(|at| saved.extend(at.to_le_bytes()));
        });
        saved
    }

    /// Remembers what was saved and is not too old; gives how many entries. What is no such file,
    /// or is cut, is passed over.
    pub fn restore(&self, saved: &[u8], now: Timestamp) -> usize {
        let mut rest = saved.strip_prefix(SAVED).unwrap_or_default();
        let mut count = 0;
        while count < self.table.health().capacity
            && let Some((key, mut moments, behind)) = read(rest)
        {
            rest = behind;
            moments.retain(|at| is_young(*at, seconds(now)));
            let oldest = moments.len().saturating_sub(self.moments_max);
            moments.drain(..oldest);
            if moments.is_empty() {
                continue;
            }
            count += 1;
            self.table.change(key, [0, 0], |known| {
                *known = moments;
                Rank::Kept
            });
        }
        count
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
        if let Some(now) = happened {
            self.happened(key, owners, now);
        }
    }

    /// It happened, on its way or not.
    pub fn happened(&self, key: Key, owners: Owners, now: Timestamp) {
        self.table.change(key, owners, |moments| {
            moments.retain(|at| is_young(*at, seconds(now)));
            if moments.len() >= self.moments_max && !moments.is_empty() {
                moments.remove(0);
            }
            moments.push(seconds(now));
            if moments.len() < 2 {
                return Rank::Fresh;
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            Rank::Kept
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

fn read(saved: &[u8]) -> Option<(Key, Moments, &[u8])> {
    let (first, rest) = saved.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let bytes = usize::from(u16::from_le_bytes(*count)).checked_mul(4)?;
    let (moments, rest) = rest.split_at_checked(bytes)?;
    let moments = moments.as_chunks().0.iter().map(|at| u32::from_le_bytes(*at)).collect();
    Some(([u64::from_le_bytes(*first), u64::from_le_bytes(*second)], moments, rest))
}

/// Whether any limit still counts it.
fn is_young(at_s: u32, now_s: u32) -> bool {
    u64::from(now_s.saturating_sub(at_s)) < RATE_SPAN_MAX.as_secs()
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

    /// Goal: a conversation that runs gets no new window by a restart. Method: what is saved is
    /// read by another table, whole, cut at each byte, or too late.
    #[test]
    fn what_happened_more_than_once_outlives_a_restart() {
        let windows = Windows::new(3);
        for minute in 0..5 {
            happen(&windows, 1, NOW.plus(minute * HOUR / 60));
        }
        happen(&windows, 2, NOW);
        assert!(windows.changes() > 0);
        let saved = windows.saved();
        let later = NOW.plus(HOUR / 2);
        let after = Windows::new(3);
        assert_eq!(after.restore(&saved, later), 1);
        let before = after.before(&[1, 1], later);
        assert_eq!((before.within(HOUR), before.within(HOUR / 2 - 3 * HOUR / 60)), (3, 1));
        assert_eq!((after.before(&[2, 2], later).within(HOUR), after.health().kept), (0, 1));
        // Fewer moments are kept now, and the last ones.
        let narrow = Windows::new(2);
        narrow.restore(&saved, later);
        assert_eq!(narrow.before(&[1, 1], later).within(HOUR), 2);
        assert_eq!(Windows::new(3).restore(&saved, NOW.plus(8 * 24 * HOUR)), 0);
        for end in 0..saved.len() {
            assert_eq!(Windows::new(3).restore(&saved[..end], later), 0);
        }
        assert_eq!(Windows::new(3).restore(b"something else", later), 0);
    }

    /// What no limit counts any more takes no memory.
    #[test]
    fn moments_are_forgotten_after_a_week() {
        let windows = Windows::new(100);
        for day in 0..50 {
            happen(&windows, 1, NOW.plus(day * 24 * HOUR));
        }
        let now = NOW.plus(49 * 24 * HOUR);
        assert_eq!(windows.before(&[1, 1], now).within(1000 * 24 * HOUR), 7);
    }
}
