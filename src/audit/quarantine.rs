//! Quarantine: plain files that hold what was not let out, until somebody releases or deletes it.
//!
//! Takes: a message as it streams in, with its envelope and decisions. Gives: a `HeldId` when it is
//! on disk for good. Errors: `Error`; everything but damage is temporary, and the caller answers
//! 451. Bounds: `Settings`, `limits::QUARANTINE_WRITES_MAX`.
//! Law 1: held copies are durable before our 250. Law 2: a crash may hold twice, never lose.
//!
//! Several recipients: `stage` and `seal` before the relay, `commit` after the next hop's 250, from
//! when on nothing is taken away; a stage that is dropped before is taken away again.
//! `docs/reference/quarantine.md` describes the files.

use std::io::{BufRead, BufReader};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, oneshot};

use crate::audit::batch::{Batches, locked};
use crate::audit::campaigns::{Join, serve_joins};
use crate::audit::disk::{Disk, DiskFile, Stream};
use crate::audit::expiry::{Expired, expire};
use crate::audit::fault::{Error, disk};
use crate::audit::folder::{Folder, Held, on_disk};
use crate::audit::held::{CopySlip, HeldId, Holding, Part, Slip};
use crate::audit::recovery::{Recovered, recover};
use crate::audit::writer::Done;
use crate::mail::limits::{HELD_LIST_MAX, QUARANTINE_WRITES_MAX};
use crate::mail::time::Timestamp;

/// Bytes written or read at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// What the quarantine is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub path: PathBuf,
    /// Bytes on disk of all held messages.
    pub max_bytes: u64,
    /// Held messages; copies of a campaign count as one.
    pub max_messages: usize,
    /// How long responses and reports are held.
    pub max_age: Duration,
    /// What happens when it is full.
    pub on_full: OnFull,
}

impl Default for Settings {
    /// The documented defaults, with an empty path.
    fn default() -> Settings {
        Settings {
            path: PathBuf::new(),
            max_bytes: 1 << 30,
            max_messages: 100_000,
            max_age: Duration::from_secs(14 * 24 * 3600),
            on_full: OnFull::Defer,
        }
    }
}

/// What happens when the quarantine is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// The message gets 451.
    #[default]
    Defer,
    /// The oldest message goes whose verdict is *failed*; when there is none, as `Defer`.
    DropOldest,
}

/// The quarantine.
#[derive(Debug)]
pub struct Quarantine {
    folder: Arc<Folder>,
    names: Arc<Batches<Done<()>>>,
    joins: Arc<Batches<Join>>,
    permits: Arc<Semaphore>,
}

/// The state of the quarantine for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineHealth {
    /// Held messages.
    pub messages: usize,
    /// Further copies of campaigns.
    pub copies: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Messages on their way.
    pub arriving: usize,
    /// Messages dropped since the start because it was full.
    pub dropped: u64,
}

/// A held message in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub id: HeldId,
    /// Its slip.
    pub slip: Slip,
    /// Further copies of its campaign.
    pub copies: u64,
}

/// A held message, opened for reading.
#[derive(Debug)]
pub struct Opened {
    /// Its slip.
    pub slip: Slip,
    /// Further copies of its campaign.
    pub copies: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    at: u64,
    hasher: blake3::Hasher,
}

/// A message on its way into the quarantine. Dropped, it is taken away again.
#[derive(Debug)]
pub struct Stage {
    arrival: Arrival,
    file: Arc<dyn DiskFile>,
    slip: Slip,
    waiting: BytesMut,
    /// Boxed, as it is two kilobytes, which every message would move about that could be held.
    hasher: Box<blake3::Hasher>,
}

/// A message that is whole and durable, but not yet held. Dropped before `commit`, it is taken away
/// again.
#[derive(Debug)]
pub struct Sealed {
    arrival: Arrival,
    held: Held,
}

/// What there is of a message on disk and in the books before it is held.
#[derive(Debug)]
struct Arrival {
    folder: Arc<Folder>,
    names: Arc<Batches<Done<()>>>,
    permits: Arc<Semaphore>,
    id: HeldId,
    claimed_bytes: u64,
    /// What is done for it when the quarantine is full.
    on_full: OnFull,
    /// What it was said to have at most.
    size_bytes: u64,
    fate: Fate,
}

/// What becomes of an arrival that is dropped.
#[derive(Debug)]
enum Fate {
    /// There is nothing of it on disk yet.
    NotBegun,
    /// Nobody was told that it is held: it is taken away.
    Goes,
    /// Others have got their copies: it stays under the names it has, and gets its own later.
    Stays(Held),
    /// It is held.
    Kept,
}

impl Quarantine {
    /// Opens the folder, makes it when there is none, and brings in order what a crash left.
    ///
    /// An error here is for the administrator, at start.
    pub async fn open(
        disk: Arc<dyn Disk>,
        settings: Settings,
    ) -> Result<(Quarantine, Recovered), Error> {
        let open = move || {
            let folder = Folder::open(disk, settings)?;
            recover(&folder).map(|recovered| (folder, recovered))
        };
        let (folder, recovered) = blocking(open).await?;
        let names = {
            let folder = Arc::clone(&folder);
            Batches::new(move |waiting: Vec<Done<()>>| {
                let synced = folder.sync();
                waiting.into_iter().for_each(|done| drop(done.send(synced.clone())));
            })
        };
        let joins = {
            let folder = Arc::clone(&folder);
            Batches::new(move |joins| serve_joins(&folder, joins))
        };
        let permits = Arc::new(Semaphore::new(QUARANTINE_WRITES_MAX));
        Ok((Quarantine { folder, names, joins, permits }, recovered))
    }

    /// Begins to hold a message whose bytes are still coming in.
    pub async fn stage(&self, holding: &Holding<'_>) -> Result<Stage, Error> {
        // Why nothing held goes for one of unknown size: it may never fit.
        let size_bytes = holding.envelope.mail.parameters.size_bytes();
        self.begin(holding, self.arrival(holding.id, size_bytes)).await
    }

    /// The same for a message that will most likely be delivered: nothing held goes for it.
    pub async fn stage_in_case(&self, holding: &Holding<'_>) -> Result<Stage, Error> {
        self.begin(holding, self.arrival(holding.id, None)).await
    }

    async fn begin(&self, holding: &Holding<'_>, arrival: Arrival) -> Result<Stage, Error> {
        let slip = holding.slip();
        let (arrival, file) = arrival.on_disk(Arrival::begin).await?;
        let waiting = BytesMut::new();
        let hasher = Box::default();
        Ok(Stage { arrival, file, slip, waiting, hasher })
    }

    /// Holds a whole message at once; durable when it returns.
    pub async fn hold(&self, holding: &Holding<'_>, message: Bytes) -> Result<HeldId, Error> {
        let mut slip = holding.slip();
        let size_bytes = u64::try_from(message.len()).ok();
        let arrival = self.arrival(holding.id, size_bytes);
        let write = move |arrival: &mut Arrival| {
            let mut hasher = blake3::Hasher::new();
            let file = arrival.begin()?;
            arrival.write(&*file, &message, &mut hasher, &mut slip)?;
            let held = arrival.seal(&*file, &hasher, &mut slip)?;
            arrival.folder.name(arrival.id)?;
            Ok(held)
        };
        let (arrival, held) = arrival.on_disk(write).await?;
        arrival.names_durable().await?;
        Ok(arrival.keep(held))
    }

    /// Takes a further copy of a campaign in, whose first copy is held: its id. `None` when there
    /// is none, or it has copies enough, or the verdict is not *failed*: then hold it in full.
    ///
    /// The copy is durable when it returns.
    pub async fn join(&self, holding: &Holding<'_>) -> Result<Option<HeldId>, Error> {
        let key = holding.campaign.filter(|_| holding.is_failed());
        let first = key.and_then(|key| self.folder.books(|books| books.first_of(key)));
        let Some(first) = first else { return Ok(None) };
        let copy = serde_json::to_string(&holding.copy());
        let mut line = copy.map_err(|fault| unwritten(holding.id, &fault))?;
        line.push('\n');
        let (done, result) = oneshot::channel();
        self.joins.push(Join { first, line, time: holding.time, done });
        let joined = result.await.map_err(|_| Error::Stopped)??;
        Ok(joined.then_some(first))
    }

    /// Held messages after `after`, oldest first, at most `count_max` and `limits::HELD_LIST_MAX`.
    /// What is released meanwhile, or cannot be read, is left out.
    pub async fn list(
        &self,
        after: Option<HeldId>,
        count_max: usize,
    ) -> Result<Vec<Listed>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found: Vec<(HeldId, u64)> = self.folder.books(|books| {
            let later = books.held.range((from, Bound::Unbounded));
            later.take(count_max.min(HELD_LIST_MAX)).map(|(id, held)| (*id, held.copies)).collect()
        });
        let folder = Arc::clone(&self.folder);
        let read = move |(id, copies)| {
            let slip = folder.slip(id, Part::Slip).ok()?;
            Some(Listed { id, slip, copies })
        };
        blocking(move || Ok(found.into_iter().filter_map(read).collect())).await
    }

    /// Opens a held message for reading.
    pub async fn read(&self, id: HeldId) -> Result<Opened, Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let held = folder.books(|books| books.held.get(&id).map(|held| held.copies));
            let copies = held.ok_or(Error::NotHeld(id))?;
            let slip = folder.slip(id, Part::Slip)?;
            let (file, _) = folder.read(id, Part::Message)?;
            let path = folder.file(id, Part::Message);
            Ok(Opened { slip, copies, path, file, at: 0, hasher: blake3::Hasher::new() })
        })
        .await
    }

    /// Further copies of a campaign, from number `from` (0 is the first) on, at most `count_max`.
    pub async fn copies(
        &self,
        id: HeldId,
        from: usize,
        count_max: usize,
    ) -> Result<Vec<CopySlip>, Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let bytes = folder.books(|books| books.held.get(&id).map(|held| held.copies_bytes));
            if bytes.ok_or(Error::NotHeld(id))? == 0 {
                return Ok(Vec::new());
            }
            let path = folder.file(id, Part::Copies);
            let (file, _) = folder.read(id, Part::Copies)?;
            let lines = BufReader::new(Stream::new(file)).lines();
            let mut copies = Vec::new();
            for line in lines.skip(from).take(count_max.min(HELD_LIST_MAX)) {
                let line = line.map_err(disk("read", &path))?;
                copies.extend(serde_json::from_str::<CopySlip>(&line).ok());
            }
            Ok(copies)
        })
        .await
    }

    /// Lets no further copy join a held message. Before a release: a copy that joined after the
    /// copies were read would be taken away with them.
    pub async fn detach(&self, id: HeldId) -> Result<(), Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || {
            let _changing = locked(&folder.changing);
            let detached = folder
                .books(|books| books.held.get_mut(&id).map(|held| held.detached = true).is_some());
            detached.then_some(()).ok_or(Error::NotHeld(id))
        })
        .await
    }

    /// Takes a held message away for good, with its copies: it was released or deleted.
    pub async fn remove(&self, id: HeldId) -> Result<(), Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.take_away(id)).await?;
        sync_names(&self.names).await
    }

    /// Takes away responses and reports older than `max_age`, counted from their last copy; names
    /// those that never go by themselves and are held for more than a day. Before that, holds what
    /// was sealed and could not get its name. What cannot be done is counted, and the rest is done.
    pub async fn expire(&self, now: Timestamp) -> Result<Expired, Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || Ok(expire(&folder, now))).await
    }

    /// How it goes: for status and metrics.
    pub fn health(&self) -> QuarantineHealth {
        self.folder.books(|books| QuarantineHealth {
            messages: books.held.len(),
            copies: books.held.values().map(|held| held.copies).sum(),
            bytes: books.bytes,
            arriving: books.arriving,
            dropped: books.dropped,
        })
    }

    /// `size_bytes` is what the message has at most, as far as that is known before.
    fn arrival(&self, id: HeldId, size_bytes: Option<u64>) -> Arrival {
        let on_full = match size_bytes {
            Some(_) => self.folder.settings().on_full,
            None => OnFull::Defer,
        };
        Arrival {
            on_full,
            size_bytes: size_bytes.unwrap_or_default(),
            folder: Arc::clone(&self.folder),
            names: Arc::clone(&self.names),
            permits: Arc::clone(&self.permits),
            id,
            claimed_bytes: 0,
            fate: Fate::NotBegun,
        }
    }
}

impl Stage {
    /// Takes the next bytes of the message, as received. On an error the stage is of no use any
    /// more; the caller answers 451.
    pub async fn write(mut self, bytes: &[u8]) -> Result<Stage, Error> {
        self.waiting.extend_from_slice(bytes);
        match self.waiting.len() < CHUNK_BYTES {
            true => Ok(self),
            false => self.write_out().await,
        }
    }

    async fn write_out(self) -> Result<Stage, Error> {
        let Stage { arrival, file, mut slip, mut waiting, mut hasher } = self;
        let write = move |arrival: &mut Arrival| {
            arrival.write(&*file, &waiting, &mut hasher, &mut slip)?;
            waiting.clear();
            Ok((file, slip, waiting, hasher))
        };
        let (arrival, (file, slip, waiting, hasher)) = arrival.on_disk(write).await?;
        Ok(Stage { arrival, file, slip, waiting, hasher })
    }

    /// The message is whole: makes it and its slip durable under their pending names. From now
    /// on a crash leads to a held message.
    pub async fn seal(self) -> Result<Sealed, Error> {
        let Stage { arrival, file, mut slip, waiting, mut hasher } = self;
        let seal = move |arrival: &mut Arrival| {
            arrival.write(&*file, &waiting, &mut hasher, &mut slip)?;
            arrival.seal(&*file, &hasher, &mut slip)
        };
        let (arrival, held) = arrival.on_disk(seal).await?;
        arrival.names_durable().await?;
        Ok(Sealed { arrival, held })
    }

    /// The message is whole, and nobody gets it: holds it; durable when it returns. On an error
    /// it is taken away again: the caller answers 451 to all.
    pub async fn hold(self) -> Result<HeldId, Error> {
        let Sealed { arrival, held } = self.seal().await?;
        let name = |arrival: &mut Arrival| arrival.folder.name(arrival.id);
        let (arrival, ()) = arrival.on_disk(name).await?;
        arrival.names_durable().await?;
        Ok(arrival.keep(held))
    }
}

impl Sealed {
    /// The name that it will be held under.
    pub fn id(&self) -> HeldId {
        self.arrival.id
    }

    /// The others have got their copies: holds it; durable when it returns.
    ///
    /// Law 1: nothing takes it away any more. On an error, and if the caller goes away meanwhile,
    /// it stays on disk as it was sealed, and is held when `expire` tries again, or at the next
    /// start.
    pub async fn commit(self) -> Result<HeldId, Error> {
        let Sealed { mut arrival, held } = self;
        arrival.fate = Fate::Stays(held.clone());
        let name = |arrival: &mut Arrival| arrival.folder.name(arrival.id);
        let (arrival, ()) = arrival.on_disk(name).await?;
        arrival.names_durable().await?;
        Ok(arrival.keep(held))
    }
}

impl Opened {
    /// The next bytes of the message; `None` at its end, when they were what was put in.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let path = self.path.clone();
        let read = move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = file.read_at(&mut chunk, at).map_err(disk("read", &path))?;
            chunk.truncate(count);
            Ok(Bytes::from(chunk))
        };
        let chunk = blocking(read).await?;
        self.hasher.update(&chunk);
        self.at = self.at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if !chunk.is_empty() {
            return Ok(Some(chunk));
        }
        let whole = self.at == self.slip.size
            && self.hasher.finalize().to_hex().as_str() == self.slip.blake3;
        let path = self.path.display().to_string();
        let what = "not the bytes that were put there";
        whole.then_some(None).ok_or(Error::Damaged { path, what })
    }
}

impl Arrival {
    /// Does a step on a blocking thread.
    ///
    /// The arrival goes there and comes back: if the caller is gone meanwhile, it is dropped when
    /// the step is done, and what there is on disk is taken away, not before.
    async fn on_disk<T: Send + 'static>(
        mut self,
        step: impl FnOnce(&mut Arrival) -> Result<T, Error> + Send + 'static,
    ) -> Result<(Arrival, T), Error> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.map_err(|_| Error::Stopped)?;
        blocking(move || {
            let _permit = permit;
            let done = step(&mut self)?;
            Ok((self, done))
        })
        .await
    }

    /// Makes room and the file.
    fn begin(&mut self) -> Result<Arc<dyn DiskFile>, Error> {
        // Why: what can never fit must not push others out.
        if !self.folder.could_take(self.size_bytes) {
            self.on_full = OnFull::Defer;
        }
        self.folder.claim(0, 1, self.on_full)?;
        let file = self.folder.begin(self.id).inspect_err(|_| self.folder.unclaim(0, 1))?;
        self.fate = Fate::Goes;
        Ok(file)
    }

    /// Writes bytes of the message; `slip.size` counts them.
    fn write(
        &mut self,
        file: &dyn DiskFile,
        bytes: &[u8],
        hasher: &mut blake3::Hasher,
        slip: &mut Slip,
    ) -> Result<(), Error> {
        let size = slip.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if size > self.size_bytes {
            self.on_full = OnFull::Defer;
        }
        self.claim_to(on_disk(size))?;
        self.folder.write(self.id, file, bytes)?;
        hasher.update(bytes);
        slip.size = size;
        Ok(())
    }

    /// Makes message and slip durable; what the books will say of them.
    fn seal(
        &mut self,
        file: &dyn DiskFile,
        hasher: &blake3::Hasher,
        slip: &mut Slip,
    ) -> Result<Held, Error> {
        slip.blake3 = hasher.finalize().to_hex().to_string();
        let text = serde_json::to_vec_pretty(&slip).map_err(|fault| unwritten(self.id, &fault))?;
        let bytes = on_disk(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.claim_to(on_disk(slip.size).saturating_add(bytes))?;
        self.folder.seal(self.id, file, &text)?;
        Ok(Held::new(slip, self.claimed_bytes))
    }

    fn claim_to(&mut self, bytes: u64) -> Result<(), Error> {
        self.folder.claim(bytes.saturating_sub(self.claimed_bytes), 0, self.on_full)?;
        self.claimed_bytes = self.claimed_bytes.max(bytes);
        Ok(())
    }

    /// Waits until the names that were given are durable, together with others who wait for it.
    async fn names_durable(&self) -> Result<(), Error> {
        sync_names(&self.names).await
    }

    /// It is held.
    fn keep(mut self, held: Held) -> HeldId {
        self.fate = Fate::Kept;
        self.folder.books(|books| books.arrived(self.id, held));
        self.id
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.fate, Fate::Kept) {
            Fate::NotBegun | Fate::Kept => return,
            Fate::Stays(held) => {
                self.folder.books(|books| books.unnamed.insert(self.id, held));
                return;
            }
            Fate::Goes => {}
        }
        let (folder, id, bytes) = (Arc::clone(&self.folder), self.id, self.claimed_bytes);
        let forget = move || {
            folder.forget(id);
            folder.unclaim(bytes, 1);
        };
        // Outside a runtime there is nobody whom this could hold up.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(forget)),
            Err(_) => forget(),
        }
    }
}

async fn sync_names(names: &Arc<Batches<Done<()>>>) -> Result<(), Error> {
    let (done, result) = oneshot::channel();
    names.push(done);
    result.await.map_err(|_| Error::Stopped)?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped)?
}

fn unwritten(id: HeldId, fault: &serde_json::Error) -> Error {
    Error::Unwritten { event: id.event.to_string(), fault: fault.to_string() }
}
