//! Records of inbound messages in one file: the store of one host.
//!
//! Takes: a path in the state directory, `Settings`, the store's keys. Gives: `Embedded`, which one
//! process has, and `Snapshot`, which others may read from meanwhile. What is remembered can be
//! recalled at once, from memory; one thread writes it, when it is `limits_of_memory::STORE_GATHER`
//! old, so a crash loses the last of that, or of a write if that takes longer, and the write after
//! it: some 50 ms, more on a busy machine.
//! Errors: `OpenError` at the start. A damaged file, or one of another version, is set aside, and
//! the store begins anew: it is a cache. A disk that fails later costs records, is told by
//! `health`, and is tried again.
//! Bounds: those of `rows` and `memory`; `limits_of_memory::STORE_QUEUE_MAX` changes wait, and of
//! memory no more than is set, whatever comes in.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use redb::{Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase};
use tokio::sync::oneshot;

use crate::judge::correlation::Recalled;
use crate::judge::subject::{Inbound, InboundId};
use crate::mail::address::Address;
use crate::mail::limits_of_memory::{
    EXPIRED_AT_ONCE_MAX, STORE_BATCH_MAX, STORE_GATHER, STORE_QUEUE_BYTES_MIN, STORE_QUEUE_MAX,
    STORE_RETRY_AFTER,
};
use crate::mail::time::Timestamp;
use crate::store::codec::decoded;
use crate::store::keyed::{Hashed, StoreKey};
use crate::store::memory::{self, Memory};
use crate::store::readers::Readers;
use crate::store::rows::{self, Change, FoundRow, Row, number};
use crate::store::{Asking, Health, Request, Store, StoreError};

/// The settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// What the file may hold.
    pub file: memory::Settings,
    /// Bytes of memory: a quarter for pages of its file, an eighth for what was remembered last, an
    /// eighth for what waits to be written. The rest is what heaps keep: a page that the writer made
    /// and readers let go of stays in the writer's, while theirs grow by another.
    pub memory_bytes_max: usize,
    /// Whether records are kept as they are, not sealed.
    pub plain: bool,
}

/// The store's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What is written with.
    pub current: Arc<StoreKey>,
    /// What was written with before; kept for the retention.
    pub former: Option<Arc<StoreKey>>,
}

/// Why the store cannot be opened; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The file cannot be opened, and not set aside either.
    #[error("{path}: {fault}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: String,
    },
}

/// The store.
pub struct Embedded {
    memory: Memory,
    file: Arc<OpenFile>,
    readers: Readers,
    keys: Keys,
    /// Whether anything was ever remembered, as far as is known: if not, nobody need be asked.
    is_used: AtomicBool,
    changes: Option<SyncSender<Queued>>,
    writer: Option<JoinHandle<()>>,
}

/// The store's file as another process may read it while the daemon writes. It remembers nothing.
pub struct Snapshot {
    database: ReadOnlyDatabase,
    keys: Keys,
    settings: Settings,
}

/// What the writing thread is given, and when.
struct Queued {
    work: Work,
    since: Instant,
}

enum Work {
    Change(Change),
    Expire(Timestamp, oneshot::Sender<usize>),
    Flush(oneshot::Sender<bool>),
}

impl Work {
    /// What it takes in memory while it waits.
    fn bytes(&self) -> usize {
        match self {
            Work::Change(change) => change.bytes() + size_of::<Queued>(),
            Work::Expire(..) | Work::Flush(_) => 0,
        }
    }
}

/// The file, as it stands.
struct OpenFile {
    settings: Settings,
    /// `None` while it is opened anew after a fault.
    database: RwLock<Option<Database>>,
    /// Bytes of changes that wait to be written.
    waiting: AtomicUsize,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Embedded {
    /// Opens the file, or makes it; the second value is what was wrong with it, when it was set
    /// aside.
    ///
    /// Blocks. What stood in a file that was not closed is there again within milliseconds.
    pub fn open(settings: Settings, keys: Keys) -> Result<(Embedded, Option<String>), OpenError> {
        let (database, damage) = open_or_anew(&settings)?;
        let cache = memory::Settings {
            bytes_max: (settings.memory_bytes_max / 8).min(settings.file.bytes_max),
            ..settings.file
        };
        let file = Arc::new(OpenFile {
            settings,
            database: RwLock::new(Some(database)),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            trouble: Mutex::new(None),
        });
        let is_used = AtomicBool::new(!file.is_empty());
        let (changes, work) = sync_channel(STORE_QUEUE_MAX);
        let at = Arc::clone(&file);
        let no_thread = |fault: std::io::Error| OpenError::Disk {
            path: file.settings.path.clone(),
            fault: fault.to_string(),
        };
        let readers = Readers::start().map_err(no_thread)?;
        let writer = std::thread::Builder::new().name("store".to_owned());
        let writer = writer.spawn(move || at.write(&work)).map_err(no_thread)?;
        let memory = Memory::new(cache, Arc::clone(&keys.current));
        let (changes, writer) = (Some(changes), Some(writer));
        Ok((Embedded { memory, file, readers, keys, is_used, changes, writer }, damage))
    }

    fn send(&self, work: Work) -> Result<(), StoreError> {
        let changes = self.changes.as_ref().ok_or(StoreError::Busy)?;
        let bytes = work.bytes();
        let before = self.file.waiting.fetch_add(bytes, Ordering::Relaxed);
        let room = (self.file.settings.memory_bytes_max / 8).max(STORE_QUEUE_BYTES_MIN);
        let sent =
            match before > 0 && bytes > 0 && before.saturating_add(bytes) > room {
                true => Err(StoreError::Busy),
                false => changes.try_send(Queued { work, since: Instant::now() }).map_err(|full| {
                    match full {
                        TrySendError::Full(_) => StoreError::Busy,
                        TrySendError::Disconnected(_) => {
                            StoreError::Failed("its writer has died".to_owned())
                        }
                    }
                }),
            };
        if let Err(fault) = &sent {
            self.file.waiting.fetch_sub(bytes, Ordering::Relaxed);
            let lost = u64::from(*fault == StoreError::Busy);
            self.file.lost.fetch_add(lost, Ordering::Relaxed);
        }
        sent
    }

    fn row(&self, record: &Inbound) -> Option<Row> {
        Row::of(record, &self.keys.current, self.file.settings.plain)
    }
}

impl Drop for Embedded {
    /// Writes what is left.
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store for Embedded {
    fn remember<'a>(&'a self, record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(async {
            self.is_used.store(true, Ordering::Relaxed);
            let record = record.clone().within_limits();
            self.memory.keep(&record)?;
            let row = self.row(&record).ok_or(StoreError::Failed("not sealed".to_owned()))?;
            self.send(Work::Change(Change::Put(record.id, row)))
        })
    }

    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async {
            if !self.is_used.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            let hashed = HashedRequest::new(request, &self.keys);
            let file = Arc::clone(&self.file);
            let rows = self.readers.ask(move || file.find(&hashed)).await?;
            // Why memory wins: it has what is not written yet.
            let remembered = self.memory.find(request);
            let unreadable = rows.as_ref().err().cloned();
            let mut all = opened(&rows.unwrap_or_default(), &self.keys);
            for (id, bytes, answered) in remembered {
                let on_disk = all.get(&number(id)).and_then(|(_, answered)| *answered);
                all.insert(number(id), (bytes.to_vec(), answered.max(on_disk)));
            }
            match unreadable {
                Some(fault) if all.is_empty() => Err(fault),
                _ => Ok(latest_first(all)),
            }
        })
    }

    fn answered<'a>(&'a self, id: InboundId, by: &'a Address, at: Timestamp) -> Asking<'a, ()> {
        Box::pin(async move {
            self.memory.note(id, by, at);
            self.send(Work::Change(Change::Answered(id, self.keys.current.responder(by), at)))
        })
    }

    fn expire(&self, now: Timestamp) -> Asking<'_, usize> {
        Box::pin(async move {
            while self.memory.let_go(now) == EXPIRED_AT_ONCE_MAX {}
            let (done, gone) = oneshot::channel();
            self.send(Work::Expire(now, done))?;
            gone.await.map_err(|_| StoreError::Failed("the file cannot be written".to_owned()))
        })
    }

    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(async move {
            let (done, written) = oneshot::channel();
            self.send(Work::Flush(done))?;
            match written.await {
                Ok(true) => Ok(()),
                _ => Err(StoreError::Failed("the file cannot be written".to_owned())),
            }
        })
    }

    fn health(&self) -> Health {
        let (records, bytes) = self.file.size().unwrap_or_default();
        Health {
            backend: "embedded",
            records,
            bytes,
            lost: self.file.lost.load(Ordering::Relaxed),
            trouble: lock(&self.file.trouble).clone(),
            ..Health::default()
        }
    }
}

impl Snapshot {
    /// Opens the file for reading; an error when there is none, or when its writer crashed.
    pub fn open(settings: Settings, keys: Keys) -> Result<Snapshot, OpenError> {
        let opening = || builder(&settings).open_read_only(&settings.path);
        let database = guarded(opening).map_err(|fault| fault.told(&settings.path))?;
        Ok(Snapshot { database, keys, settings })
    }
}

impl Store for Snapshot {
    fn remember<'a>(&'a self, _record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async {
            let hashed = HashedRequest::new(request, &self.keys);
            let found = hashed.find(&self.database, &self.settings);
            let rows = found.map_err(|fault| StoreError::Failed(fault.to_string()))?;
            Ok(latest_first(opened(&rows, &self.keys)))
        })
    }

    fn answered<'a>(&'a self, _id: InboundId, _by: &'a Address, _at: Timestamp) -> Asking<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn expire(&self, _now: Timestamp) -> Asking<'_, usize> {
        Box::pin(async { Ok(0) })
    }

    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> Health {
        let size = rows::reading(&self.database).and_then(|reading| rows::size(&reading));
        let (records, bytes) = size.unwrap_or_default();
        Health { backend: "embedded", records, bytes, ..Health::default() }
    }
}

/// A request with its names hashed, under each key.
struct HashedRequest {
    names: Vec<Hashed>,
    by: Vec<Hashed>,
    now: Timestamp,
}

impl HashedRequest {
    fn new(request: &Request, keys: &Keys) -> HashedRequest {
        let mut hashed = HashedRequest { names: Vec::new(), by: Vec::new(), now: request.now };
        for key in std::iter::once(&keys.current).chain(&keys.former) {
            hashed.names.extend(request.look_ups.iter().map(|name| key.look_up(name)));
            hashed.by.extend(request.responder.iter().map(|by| key.responder(by)));
        }
        hashed
    }

    fn find(
        &self,
        database: &impl redb::ReadableDatabase,
        settings: &Settings,
    ) -> Result<Vec<FoundRow>, redb::Error> {
        let reading = rows::reading(database)?;
        let retention = i64::try_from(settings.file.retention.as_millis()).unwrap_or(i64::MAX);
        let from = self.now.as_millis().saturating_sub(retention).saturating_add(1);
        rows::find(&reading, &self.names, &self.by, Timestamp::from_millis(from))
    }
}

impl OpenFile {
    fn find(&self, request: &HashedRequest) -> Result<Vec<FoundRow>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else {
            return Err(StoreError::Failed("its file is being opened anew".to_owned()));
        };
        request
            .find(database, &self.settings)
            .map_err(|fault| StoreError::Failed(fault.to_string()))
    }

    /// Records, and their bytes; `None` when that cannot be read.
    fn size(&self) -> Option<(u64, u64)> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let reading = rows::reading(database.as_ref()?).ok()?;
        rows::size(&reading).ok()
    }

    /// Whether it is known to hold nothing.
    fn is_empty(&self) -> bool {
        self.size().is_some_and(|(records, _)| records == 0)
    }

    /// The writing thread: until the other end is gone and everything is written.
    fn write(&self, work: &Receiver<Queued>) {
        while let Ok(first) = work.recv() {
            let batch = gathered(first, work);
            let mut changes = Vec::with_capacity(batch.len());
            let (mut flushes, mut expiries) = (Vec::new(), Vec::new());
            let bytes = batch.iter().map(Work::bytes).sum();
            for item in batch {
                match item {
                    Work::Change(change) => changes.push(change),
                    Work::Expire(now, done) => expiries.push((now, done)),
                    Work::Flush(done) => flushes.push(done),
                }
            }
            let written = changes.is_empty() || self.write_all(&changes);
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            for done in flushes {
                let _ = done.send(written);
            }
            for (now, done) in expiries {
                let settings = &self.settings.file;
                if let Some(gone) = self.attempt(|database| rows::expire(database, settings, now)) {
                    let _ = done.send(gone);
                }
            }
        }
    }

    /// Writes a batch; once more on a file opened anew when it failed. What cannot be written then
    /// is lost to the file.
    fn write_all(&self, changes: &[Change]) -> bool {
        let settings = &self.settings.file;
        let write = |database: &Database| rows::write(database, changes, settings);
        if self.attempt(write).is_some() {
            lock(&self.trouble).take();
            return true;
        }
        self.open_anew();
        let written = self.attempt(write).is_some();
        if written {
            lock(&self.trouble).take();
        } else {
            self.lost.fetch_add(changes.len() as u64, Ordering::Relaxed);
            // Why a pause: a full disk is not less full at once; meanwhile memory serves.
            std::thread::sleep(STORE_RETRY_AFTER);
        }
        written
    }

    fn attempt<T>(&self, act: impl Fn(&Database) -> Result<T, redb::Error>) -> Option<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref()?;
        // Why: redb panics on some damage that it finds late; that must cost records, not mail.
        let done = catch_unwind(AssertUnwindSafe(|| act(database)));
        let fault = match done {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "the file is damaged".to_owned(),
        };
        tracing::error!(path = %self.settings.path.display(), fault, "the store cannot be written");
        *lock(&self.trouble) = Some(fault);
        None
    }

    /// redb does nothing more after a fault of the disk until its file is opened anew.
    fn open_anew(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Before opening: a file can be open once.
        drop(database.take());
        match open_or_anew(&self.settings) {
            Ok((opened, damage)) => {
                if let Some(damage) = damage {
                    tracing::error!(damage, "the store begins anew");
                }
                *database = Some(opened);
            }
            Err(fault) => *lock(&self.trouble) = Some(fault.to_string()),
        }
    }
}

/// What is written at once. Why counted from the arrival of the first: what came in during the write
/// before has waited already.
fn gathered(first: Queued, work: &Receiver<Queued>) -> Vec<Work> {
    let until = first.since + STORE_GATHER;
    let mut batch = vec![first.work];
    while batch.len() < STORE_BATCH_MAX && !matches!(batch.last(), Some(Work::Flush(_))) {
        match work.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(item) => batch.push(item.work),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

/// Records as bytes and the responder's last answer, by their numbers.
type Opened = HashMap<u64, (Vec<u8>, Option<Timestamp>)>;

/// Rows with their bodies opened; what does not open is left out.
fn opened(rows: &[FoundRow], keys: &Keys) -> Opened {
    let opened = rows.iter().filter_map(|row| {
        let mut keys = std::iter::once(&keys.current).chain(&keys.former);
        let body = keys.find_map(|key| key.open(row.body()?))?;
        Some((row.number, (body, row.answered)))
    });
    opened.collect()
}

fn latest_first(all: Opened) -> Vec<Recalled> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    let recalled = all.into_iter().filter_map(|(_, (bytes, answered))| {
        Some(Recalled { record: Arc::new(decoded(&bytes)?), answered })
    });
    recalled.collect()
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    // One process writes; `explain` may read beside it.
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder.set_cache_size(settings.memory_bytes_max / 4);
    builder
}

/// Why a file was not opened.
enum Refused {
    InUse,
    Disk(String),
    Damaged(String),
    OfAnotherVersion,
}

impl Refused {
    fn told(self, path: &Path) -> OpenError {
        match self {
            Refused::InUse => OpenError::InUse(path.to_owned()),
            Refused::Disk(fault) | Refused::Damaged(fault) => {
                OpenError::Disk { path: path.to_owned(), fault }
            }
            Refused::OfAnotherVersion => {
                let fault = "it is of another version".to_owned();
                OpenError::Disk { path: path.to_owned(), fault }
            }
        }
    }
}

/// Opens a file with everything that can go wrong told apart.
fn guarded<T>(open: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, Refused> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(Refused::InUse)
        }
        // Why these alone: a file that is no database, or cut, reads as one that is too short.
        Ok(Err(DatabaseError::Storage(redb::StorageError::Io(fault))))
            if !matches!(
                fault.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            Err(Refused::Disk(fault.to_string()))
        }
        Ok(Err(fault)) => Err(Refused::Damaged(fault.to_string())),
        Err(_) => Err(Refused::Damaged("it is damaged".to_owned())),
    }
}

/// The file, or a new one in place of a damaged one or one of another version, which is set aside;
/// with what was wrong.
fn open_or_anew(settings: &Settings) -> Result<(Database, Option<String>), OpenError> {
    let path = &settings.path;
    let (aside, why) = match opened_file(settings) {
        Ok(database) => return Ok((database, None)),
        Err(Refused::Damaged(damage)) => {
            (path.with_extension("damaged"), format!("was damaged ({damage})"))
        }
        Err(Refused::OfAnotherVersion) => {
            (path.with_extension("former"), "is of another version".to_owned())
        }
        Err(refused) => return Err(refused.told(path)),
    };
    std::fs::rename(path, &aside)
        .map_err(|fault| OpenError::Disk { path: path.clone(), fault: fault.to_string() })?;
    let database = opened_file(settings).map_err(|refused| refused.told(path))?;
    Ok((database, Some(format!("{} {why} and lies at {}", path.display(), aside.display()))))
}

fn opened_file(settings: &Settings) -> Result<Database, Refused> {
    let mut other = false;
    let opened = guarded(|| {
        let database = builder(settings).create(&settings.path)?;
        other = rows::is_of_another_version(&database).map_err(as_of_opening)?;
        if !other {
            rows::prepare(&database).map_err(as_of_opening)?;
        }
        Ok(database)
    })?;
    if other { Err(Refused::OfAnotherVersion) } else { Ok(opened) }
}

fn as_of_opening(fault: redb::Error) -> DatabaseError {
    DatabaseError::Storage(match fault {
        redb::Error::Io(fault) => redb::StorageError::Io(fault),
        other => redb::StorageError::Corrupted(other.to_string()),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what waits for the disk is bounded in bytes, and one record always finds room.
    /// Method: a store whose writer never comes.
    #[test]
    fn what_waits_to_be_written_is_bounded_in_bytes() {
        let bounds = memory::Settings {
            retention: std::time::Duration::from_secs(1),
            records_max: 1000,
            bytes_max: 1 << 30,
        };
        let settings = Settings {
            path: PathBuf::new(),
            file: bounds,
            memory_bytes_max: 16 << 20,
            plain: true,
        };
        let key = Arc::new(StoreKey::new([1; 32]));
        let (changes, _work) = sync_channel(STORE_QUEUE_MAX);
        let store = Embedded {
            memory: Memory::new(bounds, Arc::clone(&key)),
            file: Arc::new(OpenFile {
                settings,
                database: RwLock::new(None),
                waiting: AtomicUsize::new(0),
                lost: AtomicU64::new(0),
                trouble: Mutex::new(None),
            }),
            readers: Readers::start().unwrap(),
            keys: Keys { current: key, former: None },
            is_used: AtomicBool::new(true),
            changes: Some(changes),
            writer: None,
        };
        let of_bytes =
            |bytes| Work::Change(Change::Put(InboundId::from_u128(1), Row::blank(bytes)));
        assert_eq!(store.send(of_bytes(64 << 20)), Ok(()));
        assert_eq!(store.send(of_bytes(1)), Err(StoreError::Busy));
        store.file.waiting.store(0, Ordering::Relaxed);
        let fits = (2 << 20) / (60_000 + size_of::<Queued>());
        for _ in 0..fits {
            assert_eq!(store.send(of_bytes(60_000)), Ok(()));
        }
        assert_eq!(store.send(of_bytes(60_000)), Err(StoreError::Busy));
        assert_eq!(store.health().lost, 2);
        // Who waits for the writer finds room.
        let (done, _gone) = oneshot::channel();
        assert_eq!(store.send(Work::Flush(done)), Ok(()));
    }
}
