//! What the taps did since the start, for `status` and the metrics: each tap for itself.
//!
//! Takes: what happened, and when. Gives: counts, messages a minute, and how long verification
//! takes lately. Bounds: three taps, some numbers each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::judge::subject::TapKind;
use crate::mail::time::Timestamp;

/// What all taps did.
#[derive(Debug, Default)]
pub struct Counts {
    milter: OfTap,
    smtp: OfTap,
    http: OfTap,
    /// Connections that found no place, or were not allowed.
    pub refused: AtomicU64,
}

/// What one tap did.
#[derive(Debug, Default)]
pub struct OfTap {
    /// Messages answered before their verification ended.
    pub late: AtomicU64,
    /// Messages not verified, because too many were.
    pub overloaded: AtomicU64,
    /// Records that the store did not take.
    pub store_failed: AtomicU64,
    /// Connections or posts that ended for a fault of the other side.
    pub faults: AtomicU64,
    pace: Mutex<Pace>,
}

/// How many messages there are, and how long they take.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    seen: u64,
    /// The minute that runs, its messages, and those of the minute before.
    minute: i64,
    now: u64,
    before: u64,
    /// Microseconds, each new message counting for an eighth.
    lag: Option<u64>,
}

impl Counts {
    /// Those of one tap.
    pub fn of(&self, tap: TapKind) -> &OfTap {
        match tap {
            TapKind::Milter => &self.milter,
            TapKind::Smtp => &self.smtp,
            TapKind::Http => &self.http,
        }
    }

    /// One more.
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl OfTap {
    /// A message was seen.
    pub fn saw(&self, at: Timestamp) {
        self.with(|pace| {
            pace.seen += 1;
            pace.turn(at);
            pace.now += 1;
        });
    }

    /// A message was verified so long after it had come.
    pub fn took(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.with(|pace| {
            pace.lag = Some(pace.lag.map_or(lag, |lately| lately - lately / 8 + lag / 8));
        });
    }

    /// Messages seen.
    pub fn seen(&self) -> u64 {
        self.with(|pace| pace.seen)
    }

    /// Messages of the last sixty seconds; the minute before counts as evenly spread.
    pub fn per_minute(&self, at: Timestamp) -> u64 {
        self.with(|pace| {
            pace.turn(at);
            let left = 60_000 - u64::try_from(at.as_millis().rem_euclid(60_000)).unwrap_or(0);
            pace.now + pace.before.saturating_mul(left) / 60_000
        })
    }

    /// How long it takes lately from the end of a message to its results; `None` before the first.
    pub fn lag(&self) -> Option<Duration> {
        self.with(|pace| pace.lag).map(Duration::from_micros)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pace) -> T) -> T {
        act(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pace {
    fn turn(&mut self, at: Timestamp) {
        let minute = at.as_millis().div_euclid(60_000);
        if minute == self.minute {
            return;
        }
        self.before = if minute == self.minute + 1 { self.now } else { 0 };
        (self.minute, self.now) = (minute, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_minute() {
        let tap = OfTap::default();
        let at = |seconds: i64| Timestamp::from_millis(1_600_000_020_000 + seconds * 1000);
        assert_eq!(at(0).as_millis() % 60_000, 0);
        for second in 0..60 {
            tap.saw(at(second));
        }
        assert_eq!((tap.seen(), tap.per_minute(at(59))), (60, 60));
        assert_eq!(tap.per_minute(at(75)), 45);
        tap.saw(at(90));
        assert_eq!(tap.per_minute(at(90)), 31);
        assert_eq!((tap.seen(), tap.per_minute(at(300))), (61, 0));
    }

    #[test]
    fn the_lag_follows_what_happens() {
        let tap = OfTap::default();
        assert_eq!(tap.lag(), None);
        tap.took(Duration::from_millis(80));
        assert_eq!(tap.lag(), Some(Duration::from_millis(80)));
        tap.took(Duration::from_millis(160));
        assert_eq!(tap.lag(), Some(Duration::from_millis(90)));
        (0..100).for_each(|_| tap.took(Duration::from_secs(5)));
        assert!(tap.lag().unwrap() > Duration::from_millis(4900));
    }
}
