//! How many limited responses went to whom: counted in a sliding window, in bounded memory.
//!
//! Takes: keys, hashed with a key of ours so that nobody can choose where they fall. Gives: counts
//! before this one. What a limit lets out is reserved, so that copies in flight at the same time
//! see one another, and confirmed or given back after the outcome; looking alone counts nothing.
//! Bounds: `limits::ANSWERS_MAX` keys, least recently used go first; `limits::ANSWERS_SEEN_MAX`
//! moments a key.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::mail::keyed::keyed_hash;
use crate::mail::limits::{ANSWERS_MAX, ANSWERS_SEEN_MAX, LIMIT_WINDOW};
use crate::mail::time::Timestamp;

/// What is counted: hashed words.
pub type Key = u128;

#[derive(Debug, Default)]
struct Seen {
    /// When the confirmed ones went out, oldest first.
    sent: Vec<Timestamp>,
    in_flight: u32,
}

impl Seen {
    /// How many went out within the window, or are in flight.
    fn before(&mut self, now: Timestamp) -> u32 {
        self.sent.retain(|sent| now.since(*sent) < LIMIT_WINDOW);
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX).saturating_add(self.in_flight)
    }
}

/// The counters.
#[derive(Debug)]
pub struct Answers {
    hash_key: [u8; 32],
    seen: Mutex<LruCache<Key, Seen>>,
}

impl Answers {
    /// No count yet. `hash_key` is chance, new at each start.
    pub fn new(hash_key: [u8; 32]) -> Arc<Answers> {
        let capacity = NonZeroUsize::new(ANSWERS_MAX).unwrap_or(NonZeroUsize::MIN);
        Arc::new(Answers { hash_key, seen: Mutex::new(LruCache::new(capacity)) })
    }

    /// The key for these words; no two lists of words have the same one.
    pub fn key(&self, words: &[&str]) -> Key {
        Key::from_le_bytes(keyed_hash(&self.hash_key, words))
    }

    /// How many there were for each key, those in flight included, in their order.
    pub fn before(&self, keys: &[Key], now: Timestamp) -> Vec<u32> {
        let mut seen = self.lock();
        let count = |key| seen.get_mut(key).map_or(0, |entry: &mut Seen| entry.before(now));
        keys.iter().map(count).collect()
    }

    /// Counts one more in flight for each key; gives how many there were before, in their order.
    pub fn reserve(self: &Arc<Answers>, keys: Vec<Key>, now: Timestamp) -> (Reserved, Vec<u32>) {
        let mut seen = self.lock();
        let counts = keys
            .iter()
            .map(|key| {
                let entry = seen.get_or_insert_mut(*key, Seen::default);
                let before = entry.before(now);
                entry.in_flight = entry.in_flight.saturating_add(1);
                before
            })
            .collect();
        drop(seen);
        (Reserved { answers: Arc::clone(self), keys }, counts)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn land(&self, keys: &[Key], sent: Option<Timestamp>) {
        let mut seen = self.lock();
        for key in keys {
            // Why: an entry pushed out meanwhile has nothing left to give back.
            let Some(entry) = seen.get_mut(key) else { continue };
            entry.in_flight = entry.in_flight.saturating_sub(1);
            if let Some(now) = sent {
                entry.sent.push(now);
                if entry.sent.len() > ANSWERS_SEEN_MAX {
                    entry.sent.remove(0);
                }
            }
            if entry.sent.is_empty() && entry.in_flight == 0 {
                seen.pop(key);
            }
        }
    }
}

/// Counts in flight; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    answers: Arc<Answers>,
    keys: Vec<Key>,
}

impl Reserved {
    /// The response went out: it counts.
    pub fn confirm(mut self, now: Timestamp) {
        let keys = std::mem::take(&mut self.keys);
        self.answers.land(&keys, Some(now));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.answers.land(&self.keys, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

    #[test]
    fn copies_in_flight_see_one_another_and_are_given_back() {
        let answers = Answers::new([1; 32]);
        let key = answers.key(&["auto-reply", "ann", "joe"]);
        let (first, before) = answers.reserve(vec![key], NOW);
        assert_eq!(before, [0]);
        let (second, before) = answers.reserve(vec![key], NOW);
        assert_eq!(before, [1]);
        drop(second);
        assert_eq!(answers.before(&[key, 7], NOW), [1, 0]);
        first.confirm(NOW);
        assert_eq!((answers.before(&[key, 7], NOW), answers.lock().len()), (vec![1, 0], 1));
        assert_eq!(answers.reserve(vec![key], NOW).1, [1]);
        let later = NOW.plus(LIMIT_WINDOW - Duration::from_millis(1));
        assert_eq!(answers.reserve(vec![key], later).1, [1]);
        assert_eq!(answers.reserve(vec![key], NOW.plus(LIMIT_WINDOW)).1, [0]);
    }

    #[test]
    fn words_do_not_run_into_one_another() {
        let answers = Answers::new([1; 32]);
        assert_ne!(answers.key(&["ab", "c"]), answers.key(&["a", "bc"]));
        assert_ne!(answers.key(&["a"]), Answers::new([2; 32]).key(&["a"]));
    }

    #[test]
    fn memory_is_bounded_in_keys_and_in_moments() {
        let answers = Answers::new([1; 32]);
        for n in 0..ANSWERS_MAX + 10 {
            answers.reserve(vec![n as Key], NOW).0.confirm(NOW);
        }
        assert_eq!(answers.lock().len(), ANSWERS_MAX);
        for _ in 0..ANSWERS_SEEN_MAX + 10 {
            answers.reserve(vec![7], NOW).0.confirm(NOW);
        }
        assert_eq!(answers.reserve(vec![7], NOW).1, [u32::try_from(ANSWERS_SEEN_MAX).unwrap()]);
    }

    #[test]
    fn nothing_is_left_of_what_never_went_out() {
        let answers = Answers::new([1; 32]);
        drop(answers.reserve(vec![1, 2, 3], NOW));
        assert_eq!(answers.lock().len(), 0);
    }
}
