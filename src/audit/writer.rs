//! The writer of the audit log: one write for each batch, rotation, and what to do when the disk
//! says no.
//!
//! Runs on blocking threads, one batch at a time; a second row of batches syncs, so that a record
//! that need only be written does not wait for somebody else's fdatasync.
//! Every job gets its room before its bytes are written: either it was reserved, or it is
//! allocated now. A write that fails is cut off again: no torn line stays.
//! Bounds: `max_bytes` over all files, `limits::AUDIT_CHUNK_BYTES`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::audit::Settings;
use crate::audit::batch::{Batches, locked};
use crate::audit::disk::{Disk, DiskFile, How, write_all};
use crate::audit::fault::{Error, disk};
use crate::audit::files::{LogFiles, Stamp, stamp_after};
use crate::audit::ledger::{Ledger, RepeatKey, Room, Shared};
use crate::mail::limits::AUDIT_CHUNK_BYTES;
use crate::mail::time::Timestamp;

/// Where an answer goes.
pub type Done<T> = oneshot::Sender<Result<T, Error>>;

/// A job for the writer.
#[derive(Debug)]
pub enum Job {
    /// Write lines.
    Append(Append),
    /// Promise room.
    Reserve {
        /// How much.
        bytes: u64,
        /// The promise.
        done: Done<Room>,
    },
    /// Go over to a new file.
    Reopen(Done<()>),
    /// Try again what could not be done before.
    Retry,
}

/// Whether it is time to try again what failed, or others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Busy,
    ToTryAgain,
}

/// Whether there is a new file; an empty one is not rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    ToNew,
    Not,
}

/// Lines to write.
#[derive(Debug)]
pub struct Append {
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// Room promised to them.
    pub room: Room,
    /// When the caller goes on.
    pub until: Until,
    /// Told when it is done.
    pub done: Done<()>,
}

/// When the caller of an append goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The lines are in the file.
    Written,
    /// The lines are durable.
    Synced,
}

/// One line, its line end included.
#[derive(Clone, Debug)]
pub struct Line {
    /// The whole record.
    pub full: String,
    /// The record that refers to an earlier one; may be written into that generation only.
    pub short: Option<(u64, String)>,
    /// What later records may refer to: the key, and this record's event.
    pub origin: Option<(RepeatKey, String)>,
    /// When the file cannot be written.
    pub spill: Spill,
}

/// Whether a line may wait in memory when the file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spill {
    /// It may.
    May,
    /// Then what it records must not happen.
    MayNot,
}

/// The writer; used by one thread at a time.
#[derive(Debug)]
pub struct Writer {
    disk: Arc<dyn Disk>,
    files: LogFiles,
    settings: Settings,
    shared: Arc<Shared>,
    syncs: Weak<Batches<Done<()>>>,
    rotated: BTreeMap<Stamp, u64>,
    /// Whether the file must be opened again before anything is written.
    lost: bool,
    /// Bytes the file must have before rotation is tried again after it failed.
    rotate_from: u64,
    /// What went wrong in this batch.
    fault: Option<Error>,
}

impl Writer {
    /// Opens the log, cuts off what a crash left torn at its end, and looks for rotated files.
    pub fn open(
        disk_layer: Arc<dyn Disk>,
        settings: &Settings,
    ) -> Result<(Writer, Arc<Shared>), Error> {
        let files = LogFiles::new(settings.path.clone());
        let folder = files.folder();
        disk_layer.make_folder(folder).map_err(disk("make the folder", folder))?;
        let rotated = files.list(&*disk_layer).map_err(disk("list the folder", folder))?;
        match disk_layer.remove(&files.spare()) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(Error::disk("remove", &files.spare(), &fault));
            }
            _ => {}
        }
        let (file, size) = files.open(&*disk_layer, settings.file_mode)?;
        let shared = Shared::new(file, size);
        let writer = Writer {
            disk: disk_layer,
            files,
            settings: settings.clone(),
            shared: Arc::clone(&shared),
            syncs: Weak::new(),
            rotated,
            lost: false,
            rotate_from: 0,
            fault: None,
        };
        Ok((writer, shared))
    }

    /// Where appends wait that must be durable.
    pub fn sync_through(&mut self, syncs: &Arc<Batches<Done<()>>>) {
        self.syncs = Arc::downgrade(syncs);
    }

    /// Whether a batch is nothing but a write into room that is set aside, of lines that nobody
    /// wants on the disk before he goes on.
    pub fn is_quick(&self, jobs: &[Job]) -> bool {
        let quick_bytes = |job: &Job| match job {
            Job::Append(append) if append.until == Until::Written => {
                Some(append.bytes()).filter(|bytes| *bytes <= append.room.bytes)
            }
            _ => None,
        };
        let bytes: Option<u64> = jobs.iter().map(quick_bytes).sum();
        let is_well = !self.lost && self.shared.with(|ledger| ledger.is_well());
        is_well && bytes.is_some_and(|bytes| !self.is_due(bytes))
    }

    /// Serves one batch.
    pub fn serve(&mut self, jobs: Vec<Job>) {
        self.fault = None;
        let retry = jobs.iter().any(|job| matches!(job, Job::Retry));
        let mut usable = self.revive(if retry { Time::ToTryAgain } else { Time::Busy });
        let mut batch = Vec::new();
        for job in jobs {
            match job {
                Job::Append(append) => batch.push(append),
                Job::Reserve { bytes, done } => {
                    let room = usable.clone().and_then(|()| self.reserve(bytes));
                    drop(done.send(room));
                }
                Job::Reopen(done) => {
                    self.append(std::mem::take(&mut batch), &usable);
                    let turned = self.rotate();
                    usable = turned.clone().or(usable);
                    drop(done.send(turned));
                }
                Job::Retry => {}
            }
        }
        self.append(batch, &usable);
        self.report();
    }

    /// Logs when trouble comes and when it goes, not each time that it is met.
    fn report(&mut self) {
        let fault = self.fault.take();
        let (before, waiting) = self.shared.with(|ledger| {
            let kept = ledger.suspect.then(|| ledger.trouble.clone()).flatten();
            let now = fault.clone().or(kept);
            (std::mem::replace(&mut ledger.trouble, now), ledger.has_spilled())
        });
        match (before, fault) {
            (None, Some(fault)) => tracing::warn!(%fault, "the audit log cannot be written"),
            (Some(_), None) => tracing::info!("the audit log is written again"),
            _ => {}
        }
        if waiting {
            self.shared.bell.notify_one();
        }
    }

    /// Makes the file usable again if it is not, and writes what waited for that.
    ///
    /// Why a suspect file only when it is time to try again: all that was lost is written then.
    fn revive(&mut self, time: Time) -> Result<(), Error> {
        let suspect = self.shared.with(|ledger| {
            ledger.suspect.then(|| ledger.trouble.clone().unwrap_or(Error::Stopped))
        });
        let revived = match (suspect, time) {
            (Some(fault), Time::Busy) => Err(fault),
            (suspect, _) => self.have_file().and_then(|()| match suspect {
                Some(_) => self.write_again(),
                None => self.write_spilled(),
            }),
        };
        revived.inspect_err(|fault| self.fault = Some(fault.clone()))
    }

    fn have_file(&mut self) -> Result<(), Error> {
        if self.lost {
            return self.open_again();
        }
        if self.is_moved() {
            self.fault = self.rotate().err();
        }
        Ok(())
    }

    /// Writes what waits in memory, as far as there is room.
    fn write_spilled(&mut self) -> Result<(), Error> {
        while let Some(lines) = self.shared.with(|ledger| ledger.next_spilled()) {
            let bytes = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            let Ok(_room) = self.reserve(bytes) else { break };
            self.put(lines)?;
            self.shared.with(Ledger::spilled_written);
        }
        Ok(())
    }

    /// Writes what a failed sync may have lost, and syncs it; or leaves the file as it was.
    fn write_again(&mut self) -> Result<(), Error> {
        let (file, size) = self.shared.with(|ledger| (Arc::clone(&ledger.file), ledger.size));
        // Why: what the disk lost may read as zero bytes, with no line end behind them.
        let parted = write_all(&*file, b"\n").map_err(disk("write", self.files.path()));
        self.shared.with(|ledger| ledger.size = size.saturating_add(1));
        let done = parted.and_then(|()| self.write_spilled()).and_then(|()| self.sync());
        match &done {
            Ok(()) => self.shared.with(|ledger| ledger.suspect = false),
            Err(fault) => {
                self.shared.with(|ledger| ledger.sync_failed(fault.clone()));
                self.cut_to(size);
            }
        }
        done
    }

    /// Takes back what was written behind `size`. The room set aside goes with it, and is asked
    /// for anew.
    fn cut_to(&mut self, size: u64) {
        let file = self.shared.with(|ledger| {
            (ledger.size, ledger.allocated) = (size, size);
            Arc::clone(&ledger.file)
        });
        self.lost = file.cut(size).is_err();
        if !self.lost {
            drop(self.allocate());
        }
    }

    fn open_again(&mut self) -> Result<(), Error> {
        // Why: lines in a file that was moved away would not be covered by the new one's sync.
        drop(self.sync());
        let (file, size) = self.files.open(&*self.disk, self.settings.file_mode)?;
        self.shared.with(|ledger| ledger.turn_to(file, size, size));
        self.lost = false;
        drop(self.allocate());
        Ok(())
    }

    fn append(&mut self, batch: Vec<Append>, usable: &Result<(), Error>) {
        if batch.is_empty() {
            return;
        }
        if let Err(fault) = usable {
            return batch.into_iter().for_each(|append| self.refuse(append, fault.clone()));
        }
        let bytes = batch.iter().map(Append::bytes).sum();
        if self.is_due(bytes)
            && let Err(fault) = self.rotate()
        {
            // The old file goes on; not every batch tries again.
            let size = self.shared.with(|ledger| ledger.size);
            self.rotate_from = size.saturating_add(AUDIT_CHUNK_BYTES);
            self.fault = Some(fault);
        }
        let mut ready = Vec::with_capacity(batch.len());
        for mut append in batch {
            match self.give_room(&mut append) {
                Ok(()) => ready.push(append),
                Err(fault) => self.refuse(append, fault),
            }
        }
        let generation = self.shared.with(|ledger| ledger.generation);
        let text: String =
            ready.iter().flat_map(|append| &append.lines).map(|line| line.at(generation)).collect();
        match self.put(Bytes::from(text)) {
            Ok(()) => ready.into_iter().for_each(|append| self.finish(append)),
            Err(fault) => ready.into_iter().for_each(|append| self.refuse(append, fault.clone())),
        }
    }

    fn give_room(&mut self, append: &mut Append) -> Result<(), Error> {
        match append.bytes().saturating_sub(append.room.bytes) {
            0 => Ok(()),
            missing => self.reserve(missing).map(|more| append.room.join(more)),
        }
    }

    fn finish(&self, append: Append) {
        self.shared.with(|ledger| {
            let origins = append.lines.iter().filter_map(|line| line.origin.as_ref());
            origins.for_each(|(key, event)| ledger.remember(*key, event));
        });
        drop(append.room);
        match (append.until, self.syncs.upgrade()) {
            (Until::Written, _) => {
                self.shared.bell.notify_one();
                drop(append.done.send(Ok(())));
            }
            (Until::Synced, Some(syncs)) => syncs.push(append.done),
            (Until::Synced, None) => drop(append.done.send(Err(Error::Stopped))),
        }
    }

    fn refuse(&mut self, append: Append, fault: Error) {
        self.fault = Some(fault.clone());
        let spilled = append.lines.iter().filter(|line| line.spill == Spill::May);
        let lines: String = spilled.map(|line| line.full.as_str()).collect();
        if !lines.is_empty() {
            self.shared.with(|ledger| ledger.spill(Bytes::from(lines)));
        }
        let all = append.lines.iter().all(|line| line.spill == Spill::May);
        drop(append.done.send(if all { Ok(()) } else { Err(fault) }));
    }

    /// Writes at the end of the file, all or nothing.
    fn put(&mut self, bytes: Bytes) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, size) = self.shared.with(|ledger| (Arc::clone(&ledger.file), ledger.size));
        let written = write_all(&*file, &bytes);
        let Err(fault) = written else {
            self.shared.with(|ledger| ledger.wrote(bytes));
            return Ok(());
        };
        let fault = Error::disk("write", self.files.path(), &fault);
        self.fault = Some(fault.clone());
        self.cut_to(size);
        Err(fault)
    }

    /// Promises room, making more of it when there is not enough.
    ///
    /// Why first the promise and then the room: nobody else is promised that room meanwhile.
    fn reserve(&mut self, bytes: u64) -> Result<Room, Error> {
        let room = self.shared.promise(bytes);
        match self.allocate() {
            Ok(()) => Ok(room),
            Err(fault) => {
                self.fault = Some(fault.clone());
                Err(fault)
            }
        }
    }

    /// Makes sure that all promises can be kept.
    fn allocate(&mut self) -> Result<(), Error> {
        let (file, size, needed, allocated) = self.shared.with(|ledger| {
            (Arc::clone(&ledger.file), ledger.size, ledger.needed(0), ledger.allocated)
        });
        let path = self.files.path().display().to_string();
        if needed > self.settings.max_bytes {
            return Err(Error::LogFull { path, bytes: size, needed: needed.saturating_sub(size) });
        }
        if needed > allocated {
            let end = self.allocate_in(&*file, self.files.path(), allocated, needed)?;
            self.shared.with(|ledger| ledger.allocated = end);
        }
        Ok(())
    }

    /// Allocates in whole chunks, or to the byte when there is no room for that: the new end.
    fn allocate_in(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        from: u64,
        to: u64,
    ) -> Result<u64, Error> {
        let chunk_end = to.checked_next_multiple_of(AUDIT_CHUNK_BYTES).unwrap_or(to);
        for end in [chunk_end, to] {
            match file.allocate(from, end) {
                Ok(()) => return Ok(end),
                Err(fault) if fault.kind() == io::ErrorKind::Unsupported => {
                    self.shared.with(|ledger| ledger.set_aside = false);
                    // Nothing was set aside for earlier promises either: they count too.
                    let size = file.size_bytes().map_err(disk("read", path))?;
                    return self.enough_free(path, to.saturating_sub(size)).map(|()| to);
                }
                Err(fault) if end == to => return Err(Error::disk("make room in", path, &fault)),
                Err(_) => {}
            }
        }
        Ok(to)
    }

    /// The second best where a file system cannot allocate ahead: somebody else may take it.
    fn enough_free(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        let folder = self.files.folder();
        let free = self.disk.free_bytes(folder).map_err(disk("ask for room on", folder))?;
        let full = || Error::disk("make room in", path, &io::ErrorKind::StorageFull.into());
        (free >= bytes).then_some(()).ok_or_else(full)
    }

    fn is_due(&self, more: u64) -> bool {
        let size = self.shared.with(|ledger| ledger.size);
        size > 0 && size.saturating_add(more) > self.rotate_bytes().max(self.rotate_from)
    }

    /// Whether the file has lost its name, to logrotate or by mistake: lines in it would be lost.
    fn is_moved(&self) -> bool {
        let file = self.shared.with(|ledger| Arc::clone(&ledger.file));
        !file.is_at(self.files.path())
    }

    /// Why at most half: so that a rotated file can go before the bound of all is reached.
    fn rotate_bytes(&self) -> u64 {
        self.settings.rotate_bytes.min(self.settings.max_bytes / 2)
    }

    /// Goes over to a new file; on an error the old one stays in use.
    fn rotate(&mut self) -> Result<(), Error> {
        // Until that is done nobody is promised room in the old one.
        let allocated = self.shared.with(|ledger| std::mem::take(&mut ledger.allocated));
        let turned = self.turn();
        if turned != Ok(Turned::ToNew) {
            self.shared.with(|ledger| ledger.allocated = allocated);
        }
        turned.map(drop)
    }

    /// The new file has the room that was promised before the old one is given up. A file that
    /// another program moved away (logrotate) keeps the name it was given.
    fn turn(&mut self) -> Result<Turned, Error> {
        let (old, size) = self.shared.with(|ledger| (Arc::clone(&ledger.file), ledger.size));
        let path = self.files.path().to_owned();
        let moved = self.is_moved();
        if size == 0 && !moved {
            return Ok(Turned::Not);
        }
        self.sync()?;
        let spare = self.files.spare();
        let mode = self.settings.file_mode;
        let new = self.disk.open(&spare, How::Append(mode)).map_err(disk("make", &spare))?;
        new.cut(0).map_err(disk("empty", &spare))?;
        let promised = self.shared.with(|ledger| ledger.reserved);
        let allocated = match promised {
            0 => 0,
            _ => self.allocate_in(&*new, &spare, 0, promised)?,
        };
        if !moved {
            let latest = self.rotated.last_key_value().map(|(stamp, _)| stamp.as_str());
            let stamp = stamp_after(latest, now());
            self.rename(&path, &self.files.rotated(&stamp))?;
            self.rotated.insert(stamp, size);
        }
        // From here on the log's name is free: if a step fails, the next batch sees that.
        self.sync_folder()?;
        self.rename(&spare, &path)?;
        self.sync_folder()?;
        self.shared.with(|ledger| ledger.turn_to(new, 0, allocated));
        self.rotate_from = 0;
        drop(old.cut(size));
        self.prune();
        Ok(Turned::ToNew)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.disk.rename(from, to).map_err(disk("rename", from))
    }

    /// Why after each name: were both changes lost in a crash but the second, the log's name
    /// would lead to the new file and no name to the old one.
    fn sync_folder(&self) -> Result<(), Error> {
        let folder = self.files.folder();
        self.disk.sync_folder(folder).map_err(disk("sync the folder", folder))
    }

    /// Removes the oldest rotated files until the next file has room within `max_bytes`.
    fn prune(&mut self) {
        let room = self.settings.max_bytes.saturating_sub(self.rotate_bytes());
        while self.rotated.values().sum::<u64>() > room {
            let Some((stamp, bytes)) = self.rotated.pop_first() else { break };
            let path = self.files.rotated(&stamp);
            match self.disk.remove(&path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %fault, "an old audit log stays");
                    self.rotated.insert(stamp, bytes);
                    break;
                }
                _ => {}
            }
        }
    }

    fn sync(&self) -> Result<(), Error> {
        sync(&self.shared, self.files.path(), SyncBy::Writer)
    }
}

impl Append {
    /// Bytes of the lines in full.
    fn bytes(&self) -> u64 {
        self.lines.iter().map(|line| u64::try_from(line.full.len()).unwrap_or(u64::MAX)).sum()
    }
}

impl Line {
    fn at(&self, generation: u64) -> &str {
        match &self.short {
            Some((written_in, short)) if *written_in == generation => short,
            _ => &self.full,
        }
    }
}

/// Makes durable what is written; says so in the books, and what is lost if it cannot be.
///
/// While the file is suspect only the writer may call it good again: it writes the lost lines
/// first. Why one at a time: the kernel tells of a failed sync once, to whoever asks first.
fn sync(shared: &Shared, path: &Path, by: SyncBy) -> Result<(), Error> {
    let _one_at_a_time = locked(&shared.syncing);
    let (file, written, synced, suspect) = shared.with(|ledger| {
        let suspect = ledger.suspect.then(|| ledger.trouble.clone().unwrap_or(Error::Stopped));
        (Arc::clone(&ledger.file), ledger.written, ledger.synced, suspect)
    });
    match (suspect, by) {
        (Some(fault), SyncBy::Waiting) => return Err(fault),
        (None, _) if written == synced => return Ok(()),
        _ => {}
    }
    match file.sync() {
        Ok(()) => {
            shared.with(|ledger| ledger.synced_to(written));
            Ok(())
        }
        Err(fault) => {
            let error = Error::disk("sync", path, &fault);
            tracing::warn!(fault = %error, "the audit log cannot be synced");
            shared.with(|ledger| ledger.sync_failed(error.clone()));
            shared.bell.notify_one();
            Err(error)
        }
    }
}

/// Who wants a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncBy {
    Writer,
    Waiting,
}

/// Serves a batch of those who wait for a sync: each was written before it came here.
pub fn serve_syncs(shared: &Shared, path: &Path, waiting: Vec<Done<()>>) {
    let synced = sync(shared, path, SyncBy::Waiting);
    waiting.into_iter().for_each(|done| drop(done.send(synced.clone())));
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
