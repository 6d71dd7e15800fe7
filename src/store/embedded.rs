//! Records of inbound messages in one file: the store of one host.
//!
//! Takes: a path in the state directory, `Settings`, the store's keys. Gives: `Embedded`, which one
//! process has, and `Snapshot`, which others may read from meanwhile. What is remembered can be
//! recalled at once, from memory; one thread writes it, gathering for
//! `limits_of_memory::STORE_GATHER`, so a crash loses the last of that and one write: some 50 ms,
//! more on a busy machine.
//! Errors: `OpenError` at the start. A damaged file is set aside, and the store begins anew: it is
//! a cache. A disk that fails later costs records, is told by `health`, and is tried again.
//! Bounds: those of `rows` and `memory`; `limits_of_memory::STORE_QUEUE_MAX` changes wait.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
    EXPIRED_AT_ONCE_MAX, STORE_BATCH_MAX, STORE_GATHER, STORE_QUEUE_MAX, STORE_RETRY_AFTER,
};
use crate::mail::time::Timestamp;
use crate::store::codec::decoded;
use crate::store::keyed::{Hashed, StoreKey};
use crate::store::memory::{self, Memory};
use crate::store::rows::{self, Change, FoundRow, Row};
use crate::store::{Asking, Health, Request, Store, StoreError};

/// The settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// What the file may hold.
    pub file: memory::Settings,
    /// Bytes of memory for what was remembered last, and as many for pages of the file.
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
    keys: Keys,
    changes: Option<SyncSender<Work>>,
    writer: Option<JoinHandle<()>>,
}

/// The store's file as another process may read it while the daemon writes. It remembers nothing.
pub struct Snapshot {
    database: ReadOnlyDatabase,
    keys: Keys,
    settings: Settings,
}

/// What the writing thread is given.
enum Work {
    Change(Change),
    Expire(Timestamp, oneshot::Sender<usize>),
    Flush(oneshot::Sender<bool>),
}

/// The file, as it stands.
struct OpenFile {
    settings: Settings,
    /// `None` while it is opened anew after a fault.
    database: RwLock<Option<Database>>,
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
            bytes_max: settings.memory_bytes_max.min(settings.file.bytes_max),
            ..settings.file
        };
        let file = Arc::new(OpenFile {
            settings,
            database: RwLock::new(Some(database)),
            lost: AtomicU64::new(0),
            trouble: Mutex::new(None),
        });
        let (changes, work) = sync_channel(STORE_QUEUE_MAX);
        let at = Arc::clone(&file);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || at.write(&work))
            .map_err(|fault| OpenError::Disk {
                path: file.settings.path.clone(),
                fault: fault.to_string(),
            })?;
        let memory = Memory::new(cache, Arc::clone(&keys.current));
        let (changes, writer) = (Some(changes), Some(writer));
        Ok((Embedded { memory, file, keys, changes, writer }, damage))
    }

    fn send(&self, work: Work) -> Result<(), StoreError> {
        let changes = self.changes.as_ref().ok_or(StoreError::Busy)?;
        changes.try_send(work).map_err(|fault| match fault {
            TrySendError::Full(_) => {
                self.file.lost.fetch_add(1, Ordering::Relaxed);
                StoreError::Busy
            }
            TrySendError::Disconnected(_) => StoreError::Failed("its writer has died".to_owned()),
        })
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
            let record = record.clone().within_limits();
            self.memory.keep(&record)?;
            let row = self.row(&record).ok_or(StoreError::Failed("not sealed".to_owned()))?;
            self.send(Work::Change(Change::Put(record.id, row)))
        })
    }

    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async {
            let hashed = HashedRequest::new(request, &self.keys);
            let file = Arc::clone(&self.file);
            let rows = tokio::task::spawn_blocking(move || file.find(&hashed)).await;
            let rows = rows.map_err(|fault| StoreError::Failed(fault.to_string()))?;
            // Why memory wins: it has what is not written yet.
            let remembered = self.memory.find(request);
            let mut all = HashMap::new();
            let unreadable = rows.as_ref().err().cloned();
            for (id, body, answered) in opened(rows.unwrap_or_default(), &self.keys) {
                all.insert(id, (body, answered));
            }
            for (id, bytes, answered) in remembered {
                let on_disk = all.get(&id).and_then(|(_, answered)| *answered);
                all.insert(id, (bytes.to_vec(), answered.max(on_disk)));
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
        let (records, bytes) = self.file.size();
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
            let all = opened(rows, &self.keys).map(|(id, body, answered)| (id, (body, answered)));
            Ok(latest_first(all.collect()))
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
    keys: Vec<Hashed>,
    by: Vec<Hashed>,
    now: Timestamp,
}

impl HashedRequest {
    fn new(request: &Request, keys: &Keys) -> HashedRequest {
        let mut hashed = HashedRequest { keys: Vec::new(), by: Vec::new(), now: request.now };
        for key in std::iter::once(&keys.current).chain(&keys.former) {
            hashed.keys.extend(request.look_ups.iter().map(|name| key.look_up(name)));
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
        rows::find(&reading, &self.keys, &self.by, Timestamp::from_millis(from), self.now)
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

    fn size(&self) -> (u64, u64) {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let reading = database.as_ref().map(rows::reading);
        let size = reading.and_then(Result::ok).map(|reading| rows::size(&reading));
        size.and_then(Result::ok).unwrap_or_default()
    }

    /// The writing thread: until the other end is gone and everything is written.
    fn write(&self, work: &Receiver<Work>) {
        while let Ok(first) = work.recv() {
            let batch = gathered(first, work);
            let mut changes = Vec::with_capacity(batch.len());
            let (mut flushes, mut expiries) = (Vec::new(), Vec::new());
            for item in batch {
                match item {
                    Work::Change(change) => changes.push(change),
                    Work::Expire(now, done) => expiries.push((now, done)),
                    Work::Flush(done) => flushes.push(done),
                }
            }
            let written = changes.is_empty() || self.write_all(&changes);
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

fn gathered(first: Work, work: &Receiver<Work>) -> Vec<Work> {
    let until = Instant::now() + STORE_GATHER;
    let mut batch = vec![first];
    while batch.len() < STORE_BATCH_MAX && !matches!(batch.last(), Some(Work::Flush(_))) {
        match work.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(item) => batch.push(item),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

/// Rows with their bodies opened; what does not open is left out.
fn opened(
    rows: Vec<FoundRow>,
    keys: &Keys,
) -> impl Iterator<Item = (InboundId, Vec<u8>, Option<Timestamp>)> {
    rows.into_iter().filter_map(|(id, bytes, answered)| {
        let row: Row = postcard::from_bytes(&bytes).ok()?;
        let mut keys = std::iter::once(&keys.current).chain(&keys.former);
        let body = keys.find_map(|key| key.open(&row.body))?;
        Some((id, body, answered))
    })
}

fn latest_first(all: HashMap<InboundId, (Vec<u8>, Option<Timestamp>)>) -> Vec<Recalled> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let recalled = all.into_iter().filter_map(|(_, (bytes, answered))| {
        Some(Recalled { record: Arc::new(decoded(&bytes)?), answered })
    });
    recalled.collect()
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    // One process writes; `explain` may read beside it.
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder.set_cache_size(settings.memory_bytes_max);
    builder
}

/// Why a file was not opened.
enum Refused {
    InUse,
    Disk(String),
    Damaged(String),
}

impl Refused {
    fn told(self, path: &Path) -> OpenError {
        match self {
            Refused::InUse => OpenError::InUse(path.to_owned()),
            Refused::Disk(fault) | Refused::Damaged(fault) => {
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

/// The file, or a new one in place of a damaged one, which is set aside; with what was wrong.
fn open_or_anew(settings: &Settings) -> Result<(Database, Option<String>), OpenError> {
    let path = &settings.path;
    let open = || {
        guarded(|| {
            let database = builder(settings).create(path)?;
            rows::prepare(&database).map_err(|fault| match fault {
                redb::Error::Io(fault) => DatabaseError::Storage(redb::StorageError::Io(fault)),
                other => {
                    let what = other.to_string();
                    DatabaseError::Storage(redb::StorageError::Corrupted(what))
                }
            })?;
            Ok(database)
        })
    };
    let damage = match open() {
        Ok(database) => return Ok((database, None)),
        Err(Refused::Damaged(damage)) => damage,
        Err(refused) => return Err(refused.told(path)),
    };
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside)
        .map_err(|fault| OpenError::Disk { path: path.clone(), fault: fault.to_string() })?;
    let database = open().map_err(|refused| refused.told(path))?;
    let told = format!("{} was damaged ({damage}) and lies at {}", path.display(), aside.display());
    Ok((database, Some(told)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
