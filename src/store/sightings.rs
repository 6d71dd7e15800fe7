//! Which messages came by for whom, with how many hops: what finds a loop that left no trace.
//!
//! Takes: a copy's keys, one for each fingerprint and recipient; its hops. Gives: what was seen of
//! it before. A copy is reserved before it goes to the next hop, confirmed on the next hop's 250,
//! and given back otherwise: a client that tries again after 4xx makes no lap. Copies on their way
//! see one another.
//! Bounds: `Settings::entries`, of which each copy for each recipient takes two; `Settings::window`
//! since it was last seen. An entry whose hops rose is kept from eviction (`store::table`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::judge::loops::Seen;
use crate::judge::loops::progression::{TRACK_BYTES, Track};
use crate::mail::time::Timestamp;
use crate::store::table::{Health, Key, Owners, Rank, Table};

/// How much is remembered, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries.
    pub entries: usize,
    /// How long after the last sighting.
    pub window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { entries: 1_000_000, window: Duration::from_secs(24 * 3600) }
    }
}

/// One message for one recipient. Seconds in 32 bits are enough until 2106, and there are millions
/// of these.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    track: Track,
    past: u32,
    sightings: u16,
    stopped: u16,
    first_s: u32,
    last_s: u32,
}

/// One copy, under one of its fingerprints.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// Fingerprint and recipient, hashed.
    pub key: Key,
    /// Who is answerable for it.
    pub owners: Owners,
    /// Its hops.
    pub hops: u32,
    /// Where it began, hashed; 0 where its fingerprint alone says which message it is. Copies that
    /// began in different places are different messages, and make no progression.
    pub past: u32,
}

/// A copy on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flying {
    hops: u32,
    past: u32,
}

/// The memory.
#[derive(Debug)]
pub struct Sightings {
    table: Table<Sighting>,
    /// Copies on their way.
    flying: Mutex<HashMap<Key, Vec<Flying>>>,
    window_s: u32,
    changes: AtomicU64,
}

/// How a file of saved entries begins: the form of those below.
const SAVED: &[u8] = b"replyguard sightings 1\n";

/// Bytes of a saved entry.
const SAVED_BYTES: usize = 16 + TRACK_BYTES + 4 + 2 + 2 + 4 + 4;

impl Sightings {
    /// Nothing seen yet.
    pub fn new(settings: &Settings) -> Arc<Sightings> {
        let window_s = u32::try_from(settings.window.as_secs()).unwrap_or(u32::MAX);
        let flying = Mutex::new(HashMap::new());
        let (table, changes) = (Table::new(settings.entries), AtomicU64::new(0));
        Arc::new(Sightings { table, flying, window_s, changes })
    }

    /// Sends copies on their way; what was seen of each before, in their order.
    pub fn reserve(
        self: &Arc<Sightings>,
        copies: Vec<Copied>,
        now: Timestamp,
    ) -> (Flight, Vec<Option<Seen>>) {
        let now_s = seconds(now);
        let mut flying = self.flying();
        let seen = copies.iter().map(|copy| {
            let others = flying.entry(copy.key).or_default();
            let seen = self.seen(copy, others, now_s);
            others.push(Flying { hops: copy.hops, past: copy.past });
            seen
        });
        let seen = seen.collect();
        drop(flying);
        (Flight { sightings: Arc::clone(self), copies }, seen)
    }

    /// How it stands.
    pub fn health(&self) -> Health {
        self.table.health()
    }

    /// How often something changed that must survive a restart.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// What must survive a restart: the messages that may be going round, `SAVED_BYTES` each.
    pub fn saved(&self) -> Vec<u8> {
        let mut saved = SAVED.to_vec();
        self.table.each_kept(|[first, second], known| {
            saved.extend(first.to_le_bytes());
            saved.extend(second.to_le_bytes());
            saved.extend(known.track.to_bytes());
            saved.extend(known.past.to_le_bytes());
            saved.extend(known.sightings.to_le_bytes());
            saved.extend(known.stopped.to_le_bytes());
            saved.extend(known.first_s.to_le_bytes());
            saved.extend(known.last_s.to_le_bytes());
        });
        saved
    }

    /// Remembers what was saved and is not too old; gives how many entries. What is no such file,
    /// or is cut, is passed over.
    pub fn restore(&self, saved: &[u8], now: Timestamp) -> usize {
        let entries = saved.strip_prefix(SAVED).unwrap_or_default();
        let entries = entries.as_chunks::<SAVED_BYTES>().0.iter();
        let young =
            entries.filter_map(read).filter(|(_, known)| self.is_young(known, seconds(now)));
        let mut count = 0;
        for (key, known) in young.take(self.table.health().capacity) {
            count += 1;
            self.table.change(key, [0, 0], |entry| {
                *entry = known;
                Rank::Kept
            });
        }
        count
    }

    fn seen(&self, copy: &Copied, flying: &[Flying], now_s: u32) -> Option<Seen> {
        let before = self.table.look(&copy.key, |known| known.copied());
        let before = before.filter(|known| self.is_young(known, now_s));
        if before.is_none() && flying.is_empty() {
            return None;
        }
        let before =
            before.unwrap_or(Sighting { first_s: now_s, last_s: now_s, ..Sighting::default() });
        let Sighting { mut track, past, sightings, stopped, first_s, last_s } = before;
        if !same_past(past, copy.past) {
            track = Track::default();
        }
        let others = flying.iter().filter(|other| same_past(other.past, copy.past));
        others.for_each(|other| track.pass(other.hops));
        let flying = u32::try_from(flying.len()).unwrap_or(u32::MAX);
        Some(Seen {
            sightings: u32::from(sightings).saturating_add(flying),
            rises: track.rises(copy.hops),
            mixed: track.is_mixed(),
            first: moment(first_s),
            last: moment(last_s),
            stopped: u32::from(stopped),
        })
    }

    fn is_young(&self, known: &Sighting, now_s: u32) -> bool {
        known.sightings > 0 && now_s.saturating_sub(known.last_s) < self.window_s
    }

    fn land(&self, copy: &Copied, end: End, now: Timestamp) {
        {
            let mut flying = self.flying();
            if let Some(others) = flying.get_mut(&copy.key) {
                let this = Flying { hops: copy.hops, past: copy.past };
                if let Some(at) = others.iter().position(|other| *other == this) {
                    others.remove(at);
                }
                if others.is_empty() {
                    flying.remove(&copy.key);
                }
            }
        }
        if end == End::Back {
            return;
        }
        let now_s = seconds(now);
        self.table.change(copy.key, copy.owners, |known| {
            if !self.is_young(known, now_s) {
                *known = Sighting { first_s: now_s, ..Sighting::default() };
            }
            known.last_s = now_s;
            if !same_past(known.past, copy.past) {
                known.track = Track::default();
            }
            known.past = if copy.past == 0 { known.past } else { copy.past };
            match end {
                End::Stopped => known.stopped = known.stopped.saturating_add(1),
                _ => known.track.pass(copy.hops),
            }
            known.sightings = known.sightings.saturating_add(1);
            match known.track.has_risen() {
                true => {
                    self.changes.fetch_add(1, Ordering::Relaxed);
                    Rank::Kept
                }
                false => Rank::Fresh,
            }
        });
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<Key, Vec<Flying>>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    On,
    Stopped,
    Back,
}

/// Copies on their way; given back when dropped.
#[derive(Debug)]
pub struct Flight {
    sightings: Arc<Sightings>,
    copies: Vec<Copied>,
}

impl Flight {
    /// The next hop took them.
    pub fn confirm(self, now: Timestamp) {
        self.end(End::On, now);
    }

    /// They were held because they go round: it counts as seen and stopped.
    pub fn stop(self, now: Timestamp) {
        self.end(End::Stopped, now);
    }

    fn end(mut self, end: End, now: Timestamp) {
        let copies = std::mem::take(&mut self.copies);
        copies.iter().for_each(|copy| self.sightings.land(copy, end, now));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let nowhere = Timestamp::from_millis(0);
        self.copies.iter().for_each(|copy| self.sightings.land(copy, End::Back, nowhere));
    }
}

fn read(entry: &[u8; SAVED_BYTES]) -> Option<(Key, Sighting)> {
    let (first, rest) = entry.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    let (track, rest) = rest.split_first_chunk()?;
    let (past, rest) = rest.split_first_chunk()?;
    let (sightings, rest) = rest.split_first_chunk()?;
    let (stopped, rest) = rest.split_first_chunk()?;
    let (first_s, rest) = rest.split_first_chunk()?;
    let (last_s, _) = rest.split_first_chunk()?;
    let known = Sighting {
        track: Track::from_bytes(*track),
        past: u32::from_le_bytes(*past),
        sightings: u16::from_le_bytes(*sightings),
        stopped: u16::from_le_bytes(*stopped),
        first_s: u32::from_le_bytes(*first_s),
        last_s: u32::from_le_bytes(*last_s),
    };
    Some(([u64::from_le_bytes(*first), u64::from_le_bytes(*second)], known))
}

/// Whether two copies may have begun in the same place: where nothing is known, they may.
fn same_past(one: u32, other: u32) -> bool {
    one == other || one == 0 || other == 0
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

    fn sightings(entries: usize) -> Arc<Sightings> {
        Sightings::new(&Settings { entries, ..Settings::default() })
    }

    fn copy(n: u64, hops: u32) -> Copied {
        Copied { key: [n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n], owners: [0, 0], hops, past: 0 }
    }

    /// What was seen before a copy that goes on.
    fn pass(memory: &Arc<Sightings>, n: u64, hops: u32, now: Timestamp) -> Option<Seen> {
        let (flight, seen) = memory.reserve(vec![copy(n, hops)], now);
        flight.confirm(now);
        seen[0]
    }

    fn rises(seen: Option<Seen>) -> u32 {
        seen.map_or(0, |seen| seen.rises)
    }

    #[test]
    fn a_copy_is_seen_once_the_next_hop_took_it_or_while_it_is_on_its_way() {
        let memory = sightings(1000);
        for _ in 0..10 {
            let (retry, seen) = memory.reserve(vec![copy(1, 3)], NOW);
            assert_eq!(seen, [None]);
            drop(retry);
        }
        assert_eq!(memory.health().entries, 0);
        let (first, _) = memory.reserve(vec![copy(1, 3)], NOW);
        let (second, seen) = memory.reserve(vec![copy(1, 5)], NOW);
        assert_eq!((seen[0].unwrap().sightings, rises(seen[0])), (1, 1));
        let (_third, seen) = memory.reserve(vec![copy(1, 7)], NOW);
        assert_eq!((seen[0].unwrap().sightings, rises(seen[0])), (2, 2));
        // Confirmed in any order, they are seen in that of their hops.
        first.confirm(NOW);
        second.confirm(NOW);
        let seen = memory.reserve(vec![copy(1, 9)], NOW).1[0];
        assert_eq!((seen.unwrap().sightings, rises(seen)), (3, 3));
        assert!(memory.reserve(vec![copy(2, 9)], NOW).1[0].is_none());
    }

    #[test]
    fn what_is_stopped_is_counted_and_is_no_lap() {
        let memory = sightings(1000);
        pass(&memory, 1, 1, NOW);
        pass(&memory, 1, 2, NOW);
        pass(&memory, 1, 3, NOW);
        for stopped in 0..3 {
            let later = NOW.plus(Duration::from_secs(1));
            let (flight, seen) = memory.reserve(vec![copy(1, 4)], later);
            let seen = seen[0].unwrap();
            assert_eq!((seen.rises, seen.stopped, seen.first), (3, stopped, NOW));
            flight.stop(later);
        }
    }

    /// Generated mail without Message-ID: the same content, each time a new message.
    #[test]
    fn copies_that_began_in_different_places_make_no_progression() {
        let memory = sightings(1000);
        for hops in 1..10 {
            let other = Copied { past: 100 + hops, ..copy(1, hops) };
            let (flight, seen) = memory.reserve(vec![other], NOW);
            assert_eq!(rises(seen[0]), 0);
            // On its way it hides nothing of another's way, either.
            let (_, beside) = memory.reserve(vec![Copied { past: 7, ..copy(1, hops + 1) }], NOW);
            assert_eq!(rises(beside[0]), 0);
            flight.confirm(NOW);
        }
        for (lap, hops) in [(0, 10), (1, 12), (2, 14), (3, 16)] {
            let (flight, seen) = memory.reserve(vec![Copied { past: 5, ..copy(1, hops) }], NOW);
            assert_eq!(rises(seen[0]), lap);
            flight.confirm(NOW);
        }
    }

    #[test]
    fn the_window_begins_anew_with_each_sighting() {
        let memory = sightings(1000);
        let day = Duration::from_secs(24 * 3600);
        pass(&memory, 1, 1, NOW);
        let later = NOW.plus(day - Duration::from_secs(1));
        assert_eq!(rises(pass(&memory, 1, 2, later)), 1);
        assert_eq!(pass(&memory, 1, 3, later.plus(day)), None);
    }

    #[test]
    fn a_running_loop_outlives_a_restart() {
        let memory = sightings(1000);
        for (lap, hops) in [(0, 1), (1, 3), (2, 5)] {
            assert_eq!(rises(pass(&memory, 1, hops, NOW)), lap);
        }
        pass(&memory, 2, 7, NOW);
        assert!(memory.changes() > 0);
        let saved = memory.saved();
        let after = sightings(1000);
        assert_eq!(after.restore(&saved, NOW), 1);
        let seen = after.reserve(vec![copy(1, 7)], NOW).1[0].unwrap();
        assert_eq!((seen.rises, seen.sightings, seen.first), (3, 3, NOW));
        // What is too old, cut or something else is passed over.
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(sightings(1000).restore(&saved, NOW.plus(day)), 0);
        assert_eq!(sightings(1000).restore(&saved[..saved.len() - 1], NOW), 0);
        assert_eq!(sightings(1000).restore(b"something else", NOW), 0);
    }

    /// Goal: no flood of other messages makes a running loop forgotten. Method: a hundred thousand
    /// of them between any two laps, in a table of ten thousand.
    #[test]
    fn a_running_loop_outlives_a_flood() {
        let memory = sightings(10_000);
        pass(&memory, 0, 1, NOW);
        pass(&memory, 0, 3, NOW);
        let mut other = 1;
        for lap in 2..=3 {
            for _ in 0..100_000 {
                pass(&memory, other, 1, NOW);
                other += 1;
            }
            assert_eq!(rises(pass(&memory, 0, 1 + 2 * lap, NOW)), lap);
        }
        assert!(memory.health().entries <= 10_000);
    }
}
