//! The books of the log's writer: how far it is written and synced, what room is reserved, what
//! is kept in memory until it is safe.
//!
//! One lock, held for a few additions and never while the disk works, so that reserving room and
//! asking for the state never wait for it.
//! Bounds: `limits::AUDIT_KEPT_BYTES_MAX`, `limits::AUDIT_REPEATS_MAX`.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Notify;

use crate::audit::batch::locked;
use crate::audit::disk::DiskFile;
use crate::audit::fault::Error;
use crate::mail::limits::{AUDIT_KEPT_BYTES_MAX, AUDIT_REPEATS_MAX};

/// What writer, syncs, reservations and health share.
#[derive(Debug)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    /// Rung when there is something to sync or to try again.
    pub bell: Arc<Notify>,
    /// Held while the file is synced.
    pub syncing: Mutex<()>,
}

/// The state of the log.
#[derive(Debug)]
pub struct Ledger {
    /// The file that is written, or was last.
    pub file: Arc<dyn DiskFile>,
    /// Its bytes.
    pub size: u64,
    /// Bytes that it can have without asking for more room.
    pub allocated: u64,
    /// Whether that room is really set aside, or was only there when it was looked for.
    pub set_aside: bool,
    /// Bytes promised and not yet written.
    pub reserved: u64,
    /// Bytes written since the start, over all files.
    pub written: u64,
    /// How many of them are durable.
    pub synced: u64,
    /// Counts the files: a reference from line to line never leaves its file.
    pub generation: u64,
    /// Lines written but not yet durable, kept in case that syncing them fails.
    unsynced: Kept,
    /// Lines to be written as soon as that is possible again.
    spilled: Kept,
    /// Whether the disk lost something: nothing counts as written before a sync went well.
    pub suspect: bool,
    /// What stands in the way; `None` when all is well.
    pub trouble: Option<Error>,
    repeats: LruCache<RepeatKey, String>,
}

/// Hash of what identical records have in common.
pub type RepeatKey = [u8; 32];

/// Pieces of the log in memory: the end of each, counted as `written` is, and its bytes.
#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<(u64, Bytes)>,
    bytes: usize,
    lines_lost: u64,
}

/// The state of the log for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailHealth {
    /// What stands in the way of writing; `None` when all is well.
    pub trouble: Option<Error>,
    /// Bytes written since the start.
    pub written_bytes: u64,
    /// Bytes of them that are not yet durable.
    pub unsynced_bytes: u64,
    /// Bytes of records that wait in memory for the file to be back.
    pub waiting_bytes: usize,
    /// Records that were lost because too many waited.
    pub lost: u64,
    /// Records in extra sinks: sent, and dropped.
    pub sinks: Vec<SinkHealth>,
}

/// The state of one extra sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkHealth {
    /// Where it leads.
    pub name: String,
    /// Records sent.
    pub sent: u64,
    /// Records dropped: the sink did not take them in time.
    pub dropped: u64,
}

impl Shared {
    /// The books of a file that was just opened.
    pub fn new(file: Arc<dyn DiskFile>, size: u64) -> Arc<Shared> {
        let repeats =
            LruCache::new(NonZeroUsize::new(AUDIT_REPEATS_MAX).unwrap_or(NonZeroUsize::MIN));
        let ledger = Ledger {
            file,
            size,
            allocated: size,
            set_aside: true,
            reserved: 0,
            written: 0,
            synced: 0,
            generation: 0,
            unsynced: Kept::default(),
            spilled: Kept::default(),
            suspect: false,
            trouble: None,
            repeats,
        };
        Arc::new(Shared {
            ledger: Mutex::new(ledger),
            bell: Arc::new(Notify::new()),
            syncing: Mutex::new(()),
        })
    }

    /// Reads or changes the books.
    pub fn with<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        change(&mut locked(&self.ledger))
    }

    /// Promises room that is already there; `None` when there is not enough of it.
    pub fn room(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let promised = self.with(|ledger| {
            let fits = ledger.needed(bytes) <= ledger.allocated;
            if fits {
                ledger.reserved = ledger.reserved.saturating_add(bytes);
            }
            fits
        });
        promised.then(|| Room { shared: Arc::clone(self), bytes })
    }

    /// Promises room whether it is there or not; the writer sees to it, or drops the promise.
    pub fn promise(self: &Arc<Self>, bytes: u64) -> Room {
        self.with(|ledger| ledger.reserved = ledger.reserved.saturating_add(bytes));
        Room { shared: Arc::clone(self), bytes }
    }
}

/// A promise that so many bytes can be written; given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    shared: Arc<Shared>,
    /// How many.
    pub bytes: u64,
}

impl Room {
    /// Adds another promise to this one.
    pub fn join(&mut self, mut other: Room) {
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let bytes = self.bytes;
        if bytes > 0 {
            self.shared.with(|ledger| ledger.give_back(bytes));
        }
    }
}

impl Ledger {
    /// How large the file gets if all promises and `more` bytes are written.
    pub fn needed(&self, more: u64) -> u64 {
        self.size.saturating_add(self.reserved).saturating_add(more)
    }

    fn give_back(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
        if !self.set_aside {
            // The next promise has to look again.
            self.allocated = self.needed(0);
        }
    }

    /// The writer goes over to another file.
    pub fn turn_to(&mut self, file: Arc<dyn DiskFile>, size: u64, allocated: u64) {
        self.file = file;
        self.size = size;
        self.allocated = allocated;
        self.generation = self.generation.saturating_add(1);
        self.repeats.clear();
    }

    /// These bytes stand in the file now.
    pub fn wrote(&mut self, bytes: Bytes) {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(count);
        self.written = self.written.saturating_add(count);
        // Why: what is kept is only insurance against a sync that fails, and has its bound.
        self.unsynced.push(self.written, bytes);
        self.unsynced.keep_to(AUDIT_KEPT_BYTES_MAX);
    }

    /// Everything written up to here is durable.
    pub fn synced_to(&mut self, written: u64) {
        self.synced = self.synced.max(written);
        while self.unsynced.pieces.front().is_some_and(|(end, _)| *end <= self.synced) {
            self.unsynced.pop();
        }
        if self.synced >= self.written {
            self.unsynced = Kept::default();
        }
    }

    /// A sync failed: what it should have made durable may be gone, although the file still shows
    /// it. It is written again when the disk works.
    ///
    /// Why: after a failed fdatasync the kernel holds the pages for clean; a second one says yes.
    pub fn sync_failed(&mut self, error: Error) {
        let mut again = std::mem::take(&mut self.unsynced);
        again.pieces.append(&mut self.spilled.pieces);
        again.bytes = again.bytes.saturating_add(self.spilled.bytes);
        again.lines_lost = again.lines_lost.saturating_add(self.spilled.lines_lost);
        again.keep_to(AUDIT_KEPT_BYTES_MAX);
        self.spilled = again;
        self.suspect = true;
        self.trouble = Some(error);
    }

    /// Keeps lines in memory until the file is back. Past the bound the oldest are lost.
    pub fn spill(&mut self, lines: Bytes) {
        self.spilled.push(u64::MAX, lines);
        self.spilled.keep_to(AUDIT_KEPT_BYTES_MAX);
    }

    /// The oldest lines that wait for the file.
    pub fn next_spilled(&self) -> Option<Bytes> {
        self.spilled.pieces.front().map(|(_, lines)| lines.clone())
    }

    /// The oldest lines that waited are written.
    pub fn spilled_written(&mut self) {
        self.spilled.pop();
    }

    /// Whether lines wait for the file.
    pub fn has_spilled(&self) -> bool {
        !self.spilled.pieces.is_empty()
    }

    /// The event whose record in this file says the same.
    pub fn same_as(&mut self, key: &RepeatKey) -> Option<String> {
        self.repeats.get(key).cloned()
    }

    /// The record of this event stands in the file in full.
    pub fn remember(&mut self, key: RepeatKey, event: &str) {
        if !self.repeats.contains(&key) {
            self.repeats.put(key, event.to_owned());
        }
    }

    /// Whether what was promised room can be written at once, and nothing waits before it.
    pub fn is_well(&self) -> bool {
        let is_whole = self.trouble.is_none() && !self.suspect && !self.has_spilled();
        is_whole && self.set_aside && self.file.is_quick()
    }

    /// The state, without sinks.
    pub fn health(&self) -> TrailHealth {
        TrailHealth {
            trouble: self.trouble.clone(),
            written_bytes: self.written,
            unsynced_bytes: self.written.saturating_sub(self.synced),
            waiting_bytes: self.spilled.bytes,
            lost: self.spilled.lines_lost,
            sinks: Vec::new(),
        }
    }
}

impl Kept {
    fn push(&mut self, end: u64, bytes: Bytes) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.pieces.push_back((end, bytes));
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, bytes) = self.pieces.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes.len());
        Some(bytes)
    }

    fn keep_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(lost) = self.pop() else { break };
            let lines = memchr::memchr_iter(b'\n', &lost).count();
            self.lines_lost = self.lines_lost.saturating_add(u64::try_from(lines).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::disk::{Disk, How, RealDisk};

    fn shared() -> Arc<Shared> {
        let folder = tempfile::tempdir().unwrap();
        Shared::new(RealDisk.open(&folder.path().join("x"), How::New(0o600)).unwrap(), 0)
    }

    #[test]
    fn what_waits_in_memory_has_a_bound_and_the_oldest_goes() {
        let shared = shared();
        let piece =
            |byte: u8| Bytes::from([vec![byte; AUDIT_KEPT_BYTES_MAX / 3], b"\n".into()].concat());
        for byte in *b"abcd" {
            shared.with(|ledger| ledger.spill(piece(byte)));
        }
        let health = shared.with(|ledger| ledger.health());
        assert!(health.waiting_bytes <= AUDIT_KEPT_BYTES_MAX);
        assert_eq!(health.lost, 2);
        assert_eq!(shared.with(|ledger| ledger.next_spilled()), Some(piece(b'c')));
    }

    #[test]
    fn what_was_synced_need_not_be_written_again() {
        let shared = shared();
        shared.with(|ledger| {
            ledger.wrote(Bytes::from_static(b"one\n"));
            ledger.synced_to(4);
            ledger.wrote(Bytes::from_static(b"two\n"));
            ledger.sync_failed(Error::Stopped);
            ledger.spill(Bytes::from_static(b"three\n"));
            assert_eq!(ledger.next_spilled(), Some(Bytes::from_static(b"two\n")));
            ledger.spilled_written();
            assert_eq!(ledger.next_spilled(), Some(Bytes::from_static(b"three\n")));
            assert_eq!(ledger.health().lost, 0);
        });
    }

    #[test]
    fn a_promise_is_kept_until_it_is_given_back() {
        let shared = shared();
        shared.with(|ledger| ledger.allocated = 100);
        let mut first = shared.room(60).unwrap();
        assert!(shared.room(41).is_none());
        first.join(shared.room(40).unwrap());
        assert_eq!((first.bytes, shared.with(|ledger| ledger.reserved)), (100, 100));
        drop(first);
        assert_eq!(shared.with(|ledger| ledger.reserved), 0);
    }
}
