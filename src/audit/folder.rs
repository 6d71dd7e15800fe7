//! The quarantine's folder: its books, and the steps on disk. Every function here blocks.
//!
//! A message comes in as `.pending` files, each synced, and is held once both have their names and
//! the folder is synced. It goes message first, slip last: a slip without its message is a removal
//! that a crash cut short. Between those two moments nothing of it is ever written again but the
//! file of copies. Bounds: `Settings` of `quarantine.rs`, `limits::SLIP_BYTES_MAX`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::audit::batch::locked;
use crate::audit::disk::{Disk, DiskFile, How, write_all};
use crate::audit::fault::{Error, disk};
use crate::audit::files::each_block;
use crate::audit::held::{CampaignKey, HeldId, Part, Slip};
use crate::audit::quarantine::{OnFull, Settings};
use crate::judge::classify::{Class, Guarded};
use crate::mail::limits::{CAMPAIGNS_MAX, DROP_FAULTS_MAX, SLIP_BYTES_MAX};
use crate::mail::time::Timestamp;

/// Permission bits of the files: they are people's mail.
const FILE_MODE: u32 = 0o600;

/// What is wrong with a slip that was not written to its end.
pub const TORN: &str = "cut short";

/// What a file takes on disk at least.
const BLOCK_BYTES: u64 = 4096;

/// The folder of the quarantine.
#[derive(Debug)]
pub struct Folder {
    disk: Arc<dyn Disk>,
    settings: Settings,
    books: Mutex<Books>,
    /// Held while files of held messages are written to or taken away.
    pub changing: Mutex<()>,
}

/// What stands in the folder.
#[derive(Debug)]
pub struct Books {
    /// The held messages, oldest first.
    pub held: BTreeMap<HeldId, Held>,
    /// Those of them that may go when it is full.
    droppable: BTreeSet<HeldId>,
    /// Bytes on disk, those of messages on their way included.
    pub bytes: u64,
    /// Messages on their way, those without their names included.
    pub arriving: usize,
    /// Messages on their way that nobody may take away any more: sealed, and their names could
    /// not be given.
    pub unnamed: BTreeMap<HeldId, Held>,
    /// The first copy of each campaign.
    campaigns: LruCache<CampaignKey, HeldId>,
    /// Messages dropped since the start because it was full.
    pub dropped: u64,
}

/// A held message, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Bytes on disk of message and slip.
    pub bytes: u64,
    /// When it was held, or its last copy.
    pub last: Timestamp,
    /// Its class; `None` when the slip's words are not ours.
    pub class: Option<Class>,
    /// Whether the verdict was *failed* for all of its recipients.
    pub failed: bool,
    /// The fingerprint its campaign goes by.
    pub campaign: Option<CampaignKey>,
    /// Further copies of its campaign.
    pub copies: u64,
    /// Bytes of their file.
    pub copies_bytes: u64,
    /// Whether the name of that file is durable.
    pub copies_named: bool,
    /// Whether no further copy may join, because it is being released.
    pub detached: bool,
}

impl Held {
    /// From its slip.
    pub fn new(slip: &Slip, bytes: u64) -> Held {
        Held {
            bytes,
            last: slip.held_at(),
            class: slip.class(),
            failed: slip.is_failed(),
            campaign: slip.campaign_key(),
            copies: 0,
            copies_bytes: 0,
            copies_named: false,
            detached: false,
        }
    }

    /// Bytes on disk of all its files.
    fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(on_disk(self.copies_bytes))
    }

    /// Whether it goes by itself when it is old: what machines answered, never what people wrote.
    pub fn expires(&self) -> bool {
        self.class.is_some_and(|class| class.guarded() != Guarded::No)
    }
}

impl Books {
    /// Takes a held message in.
    pub fn insert(&mut self, id: HeldId, held: Held) {
        if let Some(key) = held.campaign {
            self.campaigns.put(key, id);
        }
        if held.failed {
            self.droppable.insert(id);
        }
        self.held.insert(id, held);
    }

    /// A message on its way is held.
    pub fn arrived(&mut self, id: HeldId, held: Held) {
        self.arriving = self.arriving.saturating_sub(1);
        self.insert(id, held);
    }

    /// Takes a held message out, with its bytes.
    fn remove(&mut self, id: HeldId) -> Option<Held> {
        self.droppable.remove(&id);
        let held = self.held.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(held.all_bytes());
        Some(held)
    }

    /// The first copy of a campaign, if it is held.
    pub fn first_of(&mut self, key: CampaignKey) -> Option<HeldId> {
        let id = *self.campaigns.get(&key)?;
        self.held.get(&id).is_some_and(|held| !held.detached).then_some(id)
    }
}

/// Bytes that a file of this size takes.
pub fn on_disk(size_bytes: u64) -> u64 {
    size_bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

impl Folder {
    /// The folder, made when there is none; its books are empty until it is scanned.
    pub fn open(disk_layer: Arc<dyn Disk>, settings: Settings) -> Result<Arc<Folder>, Error> {
        let path = settings.path.as_path();
        disk_layer.make_folder(path).map_err(disk("make the folder", path))?;
        let books = Books {
            held: BTreeMap::new(),
            droppable: BTreeSet::new(),
            bytes: 0,
            arriving: 0,
            unnamed: BTreeMap::new(),
            campaigns: LruCache::new(NonZeroUsize::new(CAMPAIGNS_MAX).unwrap_or(NonZeroUsize::MIN)),
            dropped: 0,
        };
        let (books, changing) = (Mutex::new(books), Mutex::new(()));
        Ok(Arc::new(Folder { disk: disk_layer, settings, books, changing }))
    }

    /// Reads or changes the books; not while the disk works.
    pub fn books<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        change(&mut locked(&self.books))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// The file layer.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// A file of a held message.
    pub fn file(&self, id: HeldId, part: Part) -> PathBuf {
        self.settings.path.join(part.name(id))
    }

    /// Makes names durable.
    pub fn sync(&self) -> Result<(), Error> {
        self.disk.sync_folder(self.path()).map_err(disk("sync the folder", self.path()))
    }

    /// Opens a file for reading; its bytes.
    pub fn read(&self, id: HeldId, part: Part) -> Result<(Arc<dyn DiskFile>, u64), Error> {
        let path = self.file(id, part);
        let file = match self.disk.open(&path, How::Read) {
            Ok(file) => file,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotHeld(id));
            }
            Err(fault) => return Err(Error::disk("open", &path, &fault)),
        };
        let size = file.size_bytes().map_err(disk("read", &path))?;
        Ok((file, size))
    }

    /// Reads a slip.
    pub fn slip(&self, id: HeldId, part: Part) -> Result<Slip, Error> {
        let path = self.file(id, part);
        let damaged = |what| Error::Damaged { path: path.display().to_string(), what };
        let (file, size) = self.read(id, part)?;
        if size > SLIP_BYTES_MAX {
            return Err(damaged("longer than a slip can be"));
        }
        let mut bytes = Vec::new();
        each_block(&*file, 0, size, |block| {
            bytes.extend_from_slice(block);
            true
        })
        .map_err(disk("read", &path))?;
        let torn = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err();
        let what = if torn { TORN } else { "not the slip of this message, or of another version" };
        Slip::parse(&bytes, id).ok_or_else(|| damaged(what))
    }

    /// Counts `bytes` more and `messages` more, dropping old messages where `on_full` allows it.
    ///
    /// Must not be called while `changing` is held by the caller.
    pub fn claim(&self, bytes: u64, messages: usize, on_full: OnFull) -> Result<(), Error> {
        let mut after = Bound::Unbounded;
        let mut faults = Vec::new();
        loop {
            let (claimed, oldest) = self.books(|books| {
                let count = books.held.len().saturating_add(books.arriving);
                let fits = books.bytes.saturating_add(bytes) <= self.settings.max_bytes
                    && (messages == 0
                        || count.saturating_add(messages) <= self.settings.max_messages);
                if fits {
                    books.bytes = books.bytes.saturating_add(bytes);
                    books.arriving = books.arriving.saturating_add(messages);
                }
                (fits, books.droppable.range((after, Bound::Unbounded)).next().copied())
            });
            let oldest = oldest.filter(|_| faults.len() < DROP_FAULTS_MAX);
            match (claimed, on_full, oldest) {
                (true, _, _) => return Ok(()),
                (false, OnFull::DropOldest, Some(oldest)) => {
                    after = Bound::Excluded(oldest);
                    match self.take_away(oldest) {
                        Ok(()) => {
                            self.books(|books| books.dropped = books.dropped.saturating_add(1))
                        }
                        // Somebody else took it away meanwhile.
                        Err(Error::NotHeld(_)) => {}
                        // One that the disk does not let go stops nobody; the next one goes.
                        Err(fault) => faults.push(fault),
                    }
                }
                (false, _, _) => {
                    return Err(faults.into_iter().next().unwrap_or_else(|| self.full()));
                }
            }
        }
    }

    /// Whether a message of this size could get room, if all went that may go.
    pub fn could_take(&self, size_bytes: u64) -> bool {
        // Its slip takes a block, seldom two.
        let needed = on_disk(size_bytes).saturating_add(BLOCK_BYTES);
        self.books(|books| {
            let mut bytes = books.bytes.saturating_add(needed);
            let mut droppable = books.droppable.iter();
            while bytes > self.settings.max_bytes {
                let Some(oldest) = droppable.next().and_then(|id| books.held.get(id)) else {
                    return false;
                };
                bytes = bytes.saturating_sub(oldest.all_bytes());
            }
            true
        })
    }

    /// Gives back what was claimed.
    pub fn unclaim(&self, bytes: u64, messages: usize) {
        self.books(|books| {
            books.bytes = books.bytes.saturating_sub(bytes);
            books.arriving = books.arriving.saturating_sub(messages);
        });
    }

    /// The error of a full quarantine.
    pub fn full(&self) -> Error {
        let (bytes, messages) = self.books(|books| (books.bytes, books.held.len()));
        Error::Full { path: self.path().display().to_string(), bytes, messages }
    }

    /// Makes a file on its way.
    pub fn begin(&self, id: HeldId) -> Result<Arc<dyn DiskFile>, Error> {
        let path = self.file(id, Part::PendingMessage);
        if self.books(|books| books.held.contains_key(&id)) {
            return Err(Error::Twice(id));
        }
        match self.disk.open(&path, How::New(FILE_MODE)) {
            Ok(file) => Ok(file),
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => Err(Error::Twice(id)),
            Err(fault) => Err(Error::disk("make", &path, &fault)),
        }
    }

    /// Writes to a file on its way.
    pub fn write(&self, id: HeldId, file: &dyn DiskFile, bytes: &[u8]) -> Result<(), Error> {
        write_all(file, bytes).map_err(disk("write", &self.file(id, Part::PendingMessage)))
    }

    /// Makes the message on its way durable, and its slip.
    pub fn seal(&self, id: HeldId, message: &dyn DiskFile, slip: &[u8]) -> Result<(), Error> {
        let path = self.file(id, Part::PendingSlip);
        let file = self.disk.open(&path, How::New(FILE_MODE)).map_err(disk("make", &path))?;
        write_all(&*file, slip).map_err(disk("write", &path))?;
        message.sync().map_err(disk("sync", &self.file(id, Part::PendingMessage)))?;
        file.sync().map_err(disk("sync", &path))
    }

    /// Gives message and slip their names; durable once the folder is synced.
    pub fn name(&self, id: HeldId) -> Result<(), Error> {
        self.rename(id, Part::PendingMessage, Part::Message)?;
        self.rename(id, Part::PendingSlip, Part::Slip)
    }

    /// The same for one whose names were perhaps given before, or one of them.
    pub fn name_again(&self, id: HeldId) -> Result<(), Error> {
        for (from, to) in [(Part::PendingMessage, Part::Message), (Part::PendingSlip, Part::Slip)] {
            if let Err(fault) = self.rename(id, from, to) {
                self.read(id, to).map_err(|_| fault)?;
            }
        }
        Ok(())
    }

    /// Gives one file of a message another name.
    pub fn rename(&self, id: HeldId, from: Part, to: Part) -> Result<(), Error> {
        let (from, to) = (self.file(id, from), self.file(id, to));
        self.disk.rename(&from, &to).map_err(disk("rename", &from))
    }

    /// Takes away what there is of a message that was not held; what cannot be taken away is
    /// looked at again at the next start.
    pub fn forget(&self, id: HeldId) {
        let parts = [Part::PendingMessage, Part::Message, Part::PendingSlip, Part::Slip];
        for part in parts {
            let path = self.file(id, part);
            match self.disk.remove(&path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %fault, "cannot remove");
                    return;
                }
                _ => {}
            }
        }
    }

    /// Takes a held message away, with its copies.
    pub fn take_away(&self, id: HeldId) -> Result<(), Error> {
        self.take_away_if(id, |_| true)
    }

    /// The same, if it is still so: a copy may have joined since. `NotHeld` when it is not.
    pub fn take_away_if(&self, id: HeldId, so: impl FnOnce(&Held) -> bool) -> Result<(), Error> {
        let _changing = locked(&self.changing);
        let held = self.books(|books| {
            let still = books.held.get(&id).is_some_and(so);
            still.then(|| books.remove(id)).flatten()
        });
        let held = held.ok_or(Error::NotHeld(id))?;
        let gone = self.remove_parts(id);
        if gone.is_err() {
            self.books(|books| {
                books.bytes = books.bytes.saturating_add(held.all_bytes());
                books.insert(id, held);
            });
        }
        gone
    }

    /// Removes the files of a message: slip last, so that a crash meanwhile shows.
    pub fn remove_parts(&self, id: HeldId) -> Result<(), Error> {
        for part in [Part::Message, Part::Copies, Part::Slip] {
            let path = self.file(id, part);
            match self.disk.remove(&path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::disk("remove", &path, &fault));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
