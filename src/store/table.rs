//! A bounded table of values by key: the least recently used go first, with two exceptions.
//!
//! Takes: keys, hashed by the caller with a key of ours; the owners of an entry, as tags. Gives:
//! values. Bounds: entries; a share of 1 % for each owner.
//! Exceptions. An entry that its user calls *kept* stands in a part of its own (a quarter), which
//! no number of new entries can empty. And an owner who has his share gets new entries only in
//! place of his own: a flood of one sender costs nobody else's memory.
//! Cut into shards, each behind its own lock; the key says which.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::mail::limits::{OWNER_TAGS, TABLE_SHARD_ENTRIES, TABLE_SHARDS_MAX};

/// What is filed: hashed words.
pub type Key = [u64; 2];

/// Who is answerable for an entry: the client, the sender; 0 is nobody.
pub type Owners = [u16; 2];

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It may go when others come.
    Fresh,
    /// It stands in the part that new entries do not empty.
    Kept,
}

/// How a table stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Entries.
    pub entries: usize,
    /// Entries at most.
    pub capacity: usize,
    /// Of these the kept ones.
    pub kept: usize,
    /// Entries that went before their time, since the start.
    pub evicted: u64,
    /// Entries that did not come in because their owner had his share.
    pub refused: u64,
}

/// The table.
#[derive(Debug)]
pub struct Table<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    evicted: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    owners: Owners,
}

#[derive(Debug)]
struct Shard<V> {
    fresh: LruCache<Key, Slot<V>>,
    kept: LruCache<Key, Slot<V>>,
    /// Entries of each owner; owners with the same tag share.
    owned: Box<[u32]>,
    share_max: u32,
}

impl<V: Default> Table<V> {
    /// A table of that many entries.
    pub fn new(capacity: usize) -> Table<V> {
        let count = (capacity / TABLE_SHARD_ENTRIES).clamp(1, TABLE_SHARDS_MAX);
        let shard = || Mutex::new(Shard::new(capacity.div_ceil(count)));
        Table {
            shards: std::iter::repeat_with(shard).take(count).collect(),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Shows the entry, which does not make it younger.
    pub fn look<R>(&self, key: &Key, see: impl FnOnce(Option<&V>) -> R) -> R {
        let Some(shard) = self.shard(key) else { return see(None) };
        let slot = shard.kept.peek(key).or_else(|| shard.fresh.peek(key));
        see(slot.map(|slot| &slot.value))
    }

    /// Changes the entry, a new one when there is none; what `change` says is how it stands then.
    /// A kept entry stays kept.
    pub fn change(&self, key: Key, owners: Owners, change: impl FnOnce(&mut V) -> Rank) {
        let Some(mut shard) = self.shard(&key) else { return };
        let shard = &mut *shard;
        if let Some(slot) = shard.kept.get_mut(&key) {
            change(&mut slot.value);
            return;
        }
        if let Some(slot) = shard.fresh.get_mut(&key) {
            if change(&mut slot.value) == Rank::Kept
                && let Some(slot) = shard.fresh.pop(&key)
            {
                self.count(shard.keep(key, slot));
            }
            return;
        }
        let over = owners.iter().copied().find(|owner| shard.has_share(*owner));
        if let Some(owner) = over
            && !shard.give_way(owner)
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut value = V::default();
        let rank = change(&mut value);
        shard.own(owners, 1);
        let slot = Slot { value, owners };
        match rank {
            Rank::Kept => self.count(shard.keep(key, slot)),
            Rank::Fresh => {
                self.count(shard.add(key, slot));
                if over.is_some() {
                    shard.fresh.demote(&key);
                }
            }
        }
    }

    /// Takes the entry away.
    pub fn remove(&self, key: &Key) {
        let Some(mut shard) = self.shard(key) else { return };
        let slot = shard.fresh.pop(key).or_else(|| shard.kept.pop(key));
        if let Some(slot) = slot {
            shard.own(slot.owners, -1);
        }
    }

    /// Each kept entry, the least recently used of a shard first: put back in this order, they go
    /// in the order in which they would have gone.
    pub fn each_kept(&self, mut see: impl FnMut(&Key, &V)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.kept.iter().rev().for_each(|(key, slot)| see(key, &slot.value));
        }
    }

    /// How it stands.
    pub fn health(&self) -> Health {
        let mut health = Health {
            evicted: self.evicted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            ..Health::default()
        };
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            health.entries += shard.fresh.len() + shard.kept.len();
            health.kept += shard.kept.len();
            health.capacity += shard.fresh.cap().get() + shard.kept.cap().get();
        }
        health
    }

    fn count(&self, evicted: bool) {
        self.evicted.fetch_add(u64::from(evicted), Ordering::Relaxed);
    }

    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, Shard<V>>> {
        let [first, _] = key;
        let index = usize::try_from(first >> 32).ok()?.checked_rem(self.shards.len())?;
        let shard = self.shards.get(index)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V> Shard<V> {
    fn new(capacity: usize) -> Shard<V> {
        let kept = NonZeroUsize::new(capacity / 4).unwrap_or(NonZeroUsize::MIN);
        let fresh = NonZeroUsize::new(capacity - capacity / 4).unwrap_or(NonZeroUsize::MIN);
        Shard {
            fresh: LruCache::new(fresh),
            kept: LruCache::new(kept),
            owned: vec![0; OWNER_TAGS].into(),
            share_max: u32::try_from(capacity / 100).unwrap_or(u32::MAX).max(1),
        }
    }

    /// Whether the oldest had to go.
    fn add(&mut self, key: Key, slot: Slot<V>) -> bool {
        let gone = self.fresh.push(key, slot);
        if let Some((_, slot)) = &gone {
            self.own(slot.owners, -1);
        }
        gone.is_some()
    }

    /// Whether the oldest had to go; what the kept part has no room for goes back among the fresh.
    fn keep(&mut self, key: Key, slot: Slot<V>) -> bool {
        match self.kept.push(key, slot) {
            Some((key, slot)) => self.add(key, slot),
            None => false,
        }
    }

    fn own(&mut self, owners: Owners, more: i32) {
        for owner in owners.iter().filter(|owner| **owner > 0) {
            if let Some(count) = self.owned.get_mut(usize::from(*owner) % OWNER_TAGS) {
                *count = count.saturating_add_signed(more);
            }
        }
    }

    fn owned(&self, owner: Owner) -> u32 {
        self.owned.get(usize::from(owner) % OWNER_TAGS).copied().unwrap_or(0)
    }

    fn has_share(&self, owner: Owner) -> bool {
        owner > 0 && self.owned(owner) >= self.share_max
    }

    /// Makes room for one more entry of an owner who has his share: one of his own goes. His last
    /// ones stand at the end, where they are looked for. Whether there is room now.
    fn give_way(&mut self, owner: Owner) -> bool {
        let mut oldest = self.fresh.iter().rev().take(GIVE_WAY_SEARCHED);
        let own = oldest.find(|(_, slot)| slot.owners.contains(&owner)).map(|(key, _)| *key);
        match own.and_then(|key| self.fresh.pop(&key)) {
            Some(slot) => {
                self.own(slot.owners, -1);
                true
            }
            None => self.owned(owner) <= self.share_max,
        }
    }
}

type Owner = u16;

/// Entries at the end that are searched for one of an owner who has his share.
const GIVE_WAY_SEARCHED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        [n.wrapping_mul(0x9E37_79B9_7F4A_7C15), n]
    }

    fn put(table: &Table<u32>, n: u64, owners: Owners, rank: Rank) {
        table.change(key(n), owners, |value| {
            *value += 1;
            rank
        });
    }

    fn get(table: &Table<u32>, n: u64) -> Option<u32> {
        table.look(&key(n), |value| value.copied())
    }

    #[test]
    fn values_are_found_changed_and_removed() {
        let table = Table::new(100);
        assert_eq!(get(&table, 1), None);
        put(&table, 1, [0, 0], Rank::Fresh);
        put(&table, 1, [0, 0], Rank::Kept);
        put(&table, 1, [0, 0], Rank::Fresh);
        assert_eq!((get(&table, 1), table.health().kept), (Some(3), 1));
        table.remove(&key(1));
        assert_eq!((get(&table, 1), table.health().entries), (None, 0));
    }

    #[test]
    fn a_flood_of_new_entries_empties_only_what_is_fresh() {
        for capacity in [100, 40_000] {
            let table = Table::new(capacity);
            put(&table, 1, [0, 0], Rank::Kept);
            put(&table, 2, [0, 0], Rank::Fresh);
            for n in 3..3 + 2 * capacity as u64 {
                put(&table, n, [0, 0], Rank::Fresh);
            }
            assert_eq!((get(&table, 1), get(&table, 2)), (Some(1), None));
            let health = table.health();
            assert!(health.entries <= capacity + TABLE_SHARDS_MAX, "{health:?}");
            assert!(health.evicted >= capacity as u64, "{health:?}");
        }
    }

    #[test]
    fn what_the_kept_part_has_no_room_for_is_fresh_again() {
        let table = Table::new(100);
        for n in 0..26 {
            put(&table, n, [0, 0], Rank::Kept);
        }
        assert_eq!((table.health().kept, table.health().entries), (25, 26));
        assert_eq!(get(&table, 0), Some(1));
    }

    /// Goal: nobody owns more than 1 %. Method: one owner floods, others are there before.
    #[test]
    fn an_owner_with_his_share_replaces_his_own() {
        let table = Table::new(10_000);
        for n in 0..5000 {
            put(&table, n, [0, u16::try_from(n % 200).unwrap() + 2], Rank::Fresh);
        }
        let before = table.health().entries;
        for n in 0..50_000 {
            put(&table, 1_000_000 + n, [0, 1], Rank::Fresh);
        }
        assert!(table.health().entries <= before + 101, "{:?}", table.health());
        assert_eq!(get(&table, 0), Some(1));
        // The newest of the flood is there, and so are his first.
        assert_eq!(get(&table, 1_049_999), Some(1));
        assert_eq!(get(&table, 1_000_000), Some(1));
        // The other kind of owner counts as well.
        for n in 0..500 {
            put(&table, 2_000_000 + n, [9999, 0], Rank::Fresh);
        }
        assert!(table.health().entries <= before + 202, "{:?}", table.health());
    }
}
