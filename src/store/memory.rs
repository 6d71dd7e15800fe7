//! Records of inbound messages in memory: lost at a restart.
//!
//! Takes: `Settings`. Bounds: records and bytes, the least recently used go first; nobody who can
//! choose what comes in (a client, a MAIL FROM) owns more than `limits_of_memory::OWNER_SHARE` of
//! them, his oldest go first. What is too old is not given, whether it was let go yet or not.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::judge::correlation::Recalled;
use crate::judge::subject::{Inbound, InboundId};
use crate::mail::address::Address;
use crate::mail::limits::RECALLED_MAX;
use crate::mail::limits_of_memory::{
    EXPIRED_AT_ONCE_MAX, OWNER_SHARE, RECORD_ANSWERS_MAX, STORE_SHARDS,
};
use crate::mail::time::Timestamp;
use crate::store::codec::{decoded, encoded};
use crate::store::keyed::{Hashed, StoreKey};
use crate::store::rows::number;
use crate::store::{Asking, Health, Request, Store, StoreError};

// What a record takes beside its own bytes, as `scripts/bench store` measures it: its entries in the
// tables of records and of times, in that of names, in that of owners, with what a heap adds.
const ENTRY_BYTES: usize = 450;
const NAME_BYTES: usize = 100;
const OWNER_BYTES: usize = 150;

/// The bounds of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a record is kept.
    pub retention: Duration,
    /// Records at most.
    pub records_max: usize,
    /// Bytes at most, all tables together.
    pub bytes_max: usize,
}

/// The memory.
pub struct Memory {
    settings: Settings,
    key: Arc<StoreKey>,
    records: Shards<Shard>,
    index: Shards<Index>,
    owners: Shards<HashMap<Hashed, Owned>>,
    by_time: Mutex<BTreeSet<InboundId>>,
    lost: AtomicU64,
}

/// What is filed under each key, oldest first.
type Index = HashMap<Hashed, Vec<InboundId>>;

struct Shard {
    kept: LruCache<InboundId, Kept>,
    bytes: usize,
}

struct Kept {
    bytes: Arc<[u8]>,
    keys: Box<[Hashed]>,
    owners: Box<[Hashed]>,
    arrived: Timestamp,
    answered: Vec<(Hashed, Timestamp)>,
}

impl Kept {
    fn cost(&self) -> usize {
        let entries = self.keys.len() * NAME_BYTES + self.owners.len() * OWNER_BYTES;
        self.bytes.len() + entries + ENTRY_BYTES
    }
}

/// What one client or MAIL FROM owns, oldest first.
struct Owned {
    records: VecDeque<(InboundId, usize)>,
    bytes: usize,
}

impl Owned {
    fn of_one() -> Owned {
        Owned { records: VecDeque::with_capacity(1), bytes: 0 }
    }
}

impl Memory {
    /// An empty one.
    pub fn new(settings: Settings, key: Arc<StoreKey>) -> Memory {
        Memory {
            settings,
            key,
            // Why unbounded: the shard is kept within bounds of records and bytes by hand, because
            // what leaves it must leave the other tables too.
            records: Shards::new(|| Shard { kept: LruCache::unbounded(), bytes: 0 }),
            index: Shards::new(HashMap::new),
            owners: Shards::new(HashMap::new),
            by_time: Mutex::new(BTreeSet::new()),
            lost: AtomicU64::new(0),
        }
    }

    /// Remembers a record at once.
    pub fn keep(&self, record: &Inbound) -> Result<(), StoreError> {
        let bytes = encoded(record).ok_or(StoreError::Failed("no record".to_owned()))?;
        let mut keys: Vec<Hashed> =
            record.look_ups().iter().map(|look_up| self.key.look_up(look_up)).collect();
        keys.sort_unstable();
        keys.dedup();
        let before = self.take(record.id);
        let kept = Kept {
            bytes: bytes.into(),
            keys: keys.into(),
            owners: self.key.owners(record).into(),
            arrived: record.arrived,
            answered: before.map(|before| before.answered).unwrap_or_default(),
        };
        self.put(record.id, kept);
        Ok(())
    }

    /// The records filed under these names, each once, latest first.
    pub fn find(&self, request: &Request) -> Vec<(InboundId, Arc<[u8]>, Option<Timestamp>)> {
        let mut ids = BTreeSet::new();
        for look_up in &request.look_ups {
            let hashed = self.key.look_up(look_up);
            let index = self.index(hashed);
            let filed = index.get(&hashed).into_iter().flatten().rev();
            ids.extend(filed.take(RECALLED_MAX).copied());
        }
        let by = request.responder.as_ref().map(|responder| self.key.responder(responder));
        let found = ids.into_iter().rev().filter_map(|id| {
            let mut shard = self.shard(id);
            let kept = shard.kept.get(&id)?;
            let fresh = request.now.since(kept.arrived) < self.settings.retention;
            let last = kept.answered.iter().filter(|(who, _)| Some(*who) == by);
            let last = last.map(|(_, at)| *at).max();
            fresh.then(|| (id, Arc::clone(&kept.bytes), last))
        });
        found.collect()
    }

    /// Notes an answer, if the record is there.
    pub fn note(&self, id: InboundId, by: &Address, at: Timestamp) {
        let by = self.key.responder(by);
        let mut shard = self.shard(id);
        let Some(kept) = shard.kept.get_mut(&id) else { return };
        kept.answered.retain(|(who, _)| *who != by);
        if kept.answered.len() >= RECORD_ANSWERS_MAX {
            kept.answered.remove(0);
        }
        kept.answered.push((by, at));
    }

    /// Lets go of some records that are too old; gives how many.
    pub fn let_go(&self, now: Timestamp) -> usize {
        let mut old = Vec::new();
        {
            let by_time = lock(&self.by_time);
            let is_old = |id: &&InboundId| now.since(id.at()) >= self.settings.retention;
            old.extend(by_time.iter().take(EXPIRED_AT_ONCE_MAX).take_while(is_old));
        }
        old.into_iter().filter(|id| self.take(*id).is_some()).count()
    }

    /// Records and bytes now.
    pub fn size(&self) -> (usize, usize) {
        let shards = self.records.all().map(|shard| {
            let shard = lock(shard);
            (shard.kept.len(), shard.bytes)
        });
        shards.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    fn put(&self, id: InboundId, kept: Kept) {
        let cost = kept.cost();
        let (keys, owners) = (kept.keys.clone(), kept.owners.clone());
        let mut leaving: Vec<InboundId> = Vec::new();
        {
            let mut shard = self.shard(id);
            shard.bytes += cost;
            shard.kept.put(id, kept);
            let records_max = (self.settings.records_max / STORE_SHARDS).max(1);
            let bytes_max = (self.settings.bytes_max / STORE_SHARDS).max(cost);
            let mut excess = shard.bytes.saturating_sub(bytes_max);
            let mut count = shard.kept.len().saturating_sub(records_max);
            let oldest = shard.kept.iter().rev();
            leaving.extend(oldest.map_while(|(id, kept)| {
                let goes = excess > 0 || count > 0;
                excess = excess.saturating_sub(kept.cost());
                count = count.saturating_sub(1);
                goes.then_some(*id)
            }));
        }
        for key in keys {
            let mut index = self.index(key);
            // Why room for one: most names and owners never have a second record.
            let filed = index.entry(key).or_insert_with(|| Vec::with_capacity(1));
            let place = filed.partition_point(|other| *other < id);
            filed.insert(place, id);
        }
        lock(&self.by_time).insert(id);
        for owner in owners {
            self.own(owner, id, cost, &mut leaving);
        }
        self.lost.fetch_add(leaving.len() as u64, Ordering::Relaxed);
        leaving.into_iter().for_each(|id| drop(self.take(id)));
    }

    /// Counts a record under its owner; what he has too much goes.
    fn own(&self, owner: Hashed, id: InboundId, cost: usize, leaving: &mut Vec<InboundId>) {
        let records_max = (self.settings.records_max / OWNER_SHARE).max(1);
        let bytes_max = (self.settings.bytes_max / OWNER_SHARE).max(cost);
        let mut owners = self.owners.lock(owner);
        let owned = owners.entry(owner).or_insert_with(Owned::of_one);
        owned.records.push_back((id, cost));
        owned.bytes += cost;
        while owned.records.len() > records_max || owned.bytes > bytes_max {
            let Some((oldest, cost)) = owned.records.pop_front() else { break };
            owned.bytes -= cost;
            leaving.push(oldest);
        }
    }

    /// Takes a record out of every table.
    fn take(&self, id: InboundId) -> Option<Kept> {
        let kept = {
            let mut shard = self.shard(id);
            let kept = shard.kept.pop(&id)?;
            shard.bytes = shard.bytes.saturating_sub(kept.cost());
            kept
        };
        for key in &kept.keys {
            let mut index = self.index(*key);
            if let Some(filed) = index.get_mut(key) {
                filed.retain(|other| *other != id);
                if filed.is_empty() {
                    index.remove(key);
                }
            }
        }
        lock(&self.by_time).remove(&id);
        for owner in &kept.owners {
            let mut owners = self.owners.lock(*owner);
            let Some(owned) = owners.get_mut(owner) else { continue };
            if let Some(place) = owned.records.iter().position(|(other, _)| *other == id) {
                owned.bytes -= owned.records.remove(place).map_or(0, |(_, cost)| cost);
            }
            if owned.records.is_empty() {
                owners.remove(owner);
            }
        }
        Some(kept)
    }

    fn shard(&self, id: InboundId) -> MutexGuard<'_, Shard> {
        self.records.lock(number(id))
    }

    fn index(&self, key: Hashed) -> MutexGuard<'_, Index> {
        self.index.lock(key)
    }
}

impl Store for Memory {
    fn remember<'a>(&'a self, record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(async { self.keep(&record.clone().within_limits()) })
    }

    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async {
            let found = self.find(request).into_iter().filter_map(|(_, bytes, answered)| {
                Some(Recalled { record: Arc::new(decoded(&bytes)?), answered })
            });
            Ok(found.collect())
        })
    }

    fn answered<'a>(&'a self, id: InboundId, by: &'a Address, at: Timestamp) -> Asking<'a, ()> {
        Box::pin(async move {
            self.note(id, by, at);
            Ok(())
        })
    }

    fn expire(&self, now: Timestamp) -> Asking<'_, usize> {
        Box::pin(async move { Ok(self.let_go(now)) })
    }

    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> Health {
        let (records, bytes) = self.size();
        Health {
            backend: "memory",
            records: records as u64,
            bytes: bytes as u64,
            lost: self.lost.load(Ordering::Relaxed),
            ..Health::default()
        }
    }
}

/// The same thing several times, so that tasks seldom wait for one another.
struct Shards<T> {
    first: Mutex<T>,
    others: Vec<Mutex<T>>,
}

impl<T> Shards<T> {
    fn new(make: impl Fn() -> T) -> Shards<T> {
        let others = (1..STORE_SHARDS).map(|_| Mutex::new(make())).collect();
        Shards { first: Mutex::new(make()), others }
    }

    /// The one for a key. Its lower bits are chance: hashes have nothing else, numbers end with it.
    fn lock(&self, key: u64) -> MutexGuard<'_, T> {
        let number = usize::try_from(key % STORE_SHARDS as u64).unwrap_or(0);
        lock(number.checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.first))
    }

    fn all(&self) -> impl Iterator<Item = &Mutex<T>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
