//! A disk in memory that fills up, fails, tears writes and crashes, for tests of what must stay.
//!
//! What is promised is POSIX and no more: bytes and size of a file are safe after its sync, a name
//! after a sync of its folder. After `crash`, of everything else any part may be there: some of
//! the bytes written since, zeros in their place, some of the names and not others.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use replyguard::audit::disk::{Disk, DiskFile, How};

use crate::random::Random;

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync of their folder, oldest first.
    unsynced: Vec<Change>,
    durable: BTreeMap<PathBuf, usize>,
    /// Bytes that may still be allocated; `None` for no bound.
    free: Option<u64>,
    /// Operations that still go well; then all fail. `None` for no end.
    operations_left: Option<u64>,
    faults: Faults,
    /// A file that cannot be removed.
    stuck: Option<PathBuf>,
    syncs: u64,
}

/// What goes wrong until it is told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes put half of their bytes there and fail.
    pub write: bool,
    /// Syncs of files fail, and what should have been synced is lost.
    pub sync: bool,
    /// Syncs of folders fail.
    pub sync_folder: bool,
    /// Files cannot be opened.
    pub open: bool,
    /// Names cannot be given.
    pub rename: bool,
    /// Room cannot be allocated ahead.
    pub no_allocation: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Bytes that a failed sync lost: they can be read until the system dies, and no later sync
    /// brings them to the disk.
    lost: Vec<Range<usize>>,
    /// Bytes of room beyond which more must be taken from `free`.
    room: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Set(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Unset(PathBuf),
}

impl ModelDisk {
    /// Leaves so many bytes that may still be allocated.
    pub fn leave_free(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().free = bytes;
    }

    /// Sets what goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().unwrap().faults = faults;
    }

    /// From now on this file cannot be removed.
    pub fn stick(&self, path: &Path) {
        self.0.lock().unwrap().stuck = Some(path.to_owned());
    }

    /// Lets so many more operations go well; then the process is as good as dead.
    pub fn die_after(&self, operations: u64) {
        self.0.lock().unwrap().operations_left = Some(operations);
    }

    /// How many file syncs there were.
    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// A file's bytes now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let number = *state.names.get(path)?;
        Some(state.files[number].bytes.clone())
    }

    /// The names there are now.
    pub fn names(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    /// Puts a file there, durable.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap();
        let room = bytes.len() as u64;
        let (bytes, synced) = (bytes.to_vec(), bytes.to_vec());
        state.files.push(Content { bytes, synced, lost: Vec::new(), room });
        let number = state.files.len() - 1;
        state.names.insert(path.to_owned(), number);
        state.durable.insert(path.to_owned(), number);
    }

    /// The process died and the system lives: what was done stays. The old disk stays dead.
    pub fn killed(&self) -> ModelDisk {
        let mut state = self.0.lock().unwrap();
        state.operations_left = Some(0);
        ModelDisk(Arc::new(Mutex::new(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable: state.durable.clone(),
            unsynced: state.unsynced.clone(),
            free: state.free,
            ..State::default()
        })))
    }

    /// The system died: what was not synced is there in any part.
    pub fn crashed(&self, random: &mut Random) -> ModelDisk {
        let mut state = self.0.lock().unwrap();
        state.operations_left = Some(0);
        let mut names = state.durable.clone();
        for change in &state.unsynced {
            if random.below(2) == 0 {
                continue;
            }
            match change {
                Change::Set(path, number) => drop(names.insert(path.clone(), *number)),
                Change::Unset(path) => drop(names.remove(path)),
                Change::Move(from, to, number) => {
                    names.remove(from);
                    names.insert(to.clone(), *number);
                }
            }
        }
        let files: Vec<Content> = state
            .files
            .iter()
            .map(|file| {
                let bytes = torn(file, random);
                let (synced, room) = (bytes.clone(), bytes.len() as u64);
                Content { bytes, synced, lost: Vec::new(), room }
            })
            .collect();
        let durable = names.clone();
        ModelDisk(Arc::new(Mutex::new(State { files, names, durable, ..State::default() })))
    }
}

/// What is left of a file: all that was synced; then some of the rest, zeros for some of it.
fn torn(file: &Content, random: &mut Random) -> Vec<u8> {
    let kept = file.synced.iter().zip(&file.bytes).take_while(|(a, b)| a == b).count();
    if kept < file.synced.len() || random.below(3) == 0 {
        // Cut since the last sync, or nothing of the rest arrived.
        return file.synced.clone();
    }
    let mut bytes = file.bytes.clone();
    bytes.truncate(kept + random.below(bytes.len() - kept + 1));
    if random.below(2) == 0 && bytes.len() > kept {
        let from = kept + random.below(bytes.len() - kept);
        let to = from + random.below(bytes.len() - from + 1);
        bytes[from..to].fill(0);
    }
    bytes
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn take(&mut self, number: usize, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.files[number].room);
        if let Some(free) = &mut self.free {
            *free = free.checked_sub(more).ok_or(ErrorKind::StorageFull)?;
        }
        self.files[number].room += more;
        Ok(())
    }
}

impl Disk for ModelDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        if state.faults.open {
            return Err(io::Error::other("cannot open"));
        }
        let found = state.names.get(path).copied();
        let number = match (found, how) {
            (Some(_), How::New(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (None, How::Read) => return Err(ErrorKind::NotFound.into()),
            (Some(number), _) => number,
            (None, _) => {
                state.files.push(Content::default());
                let number = state.files.len() - 1;
                state.names.insert(path.to_owned(), number);
                state.unsynced.push(Change::Set(path.to_owned(), number));
                number
            }
        };
        drop(state);
        Ok(Arc::new(ModelFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        if state.faults.rename {
            return Err(io::Error::other("cannot rename"));
        }
        let number = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        state.unsynced.push(Change::Move(from.to_owned(), to.to_owned(), number));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        if state.stuck.as_deref() == Some(path) {
            return Err(io::Error::other("cannot remove"));
        }
        let number = state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        let room = state.files[number].room;
        state.free = state.free.map(|free| free + room);
        state.unsynced.push(Change::Unset(path.to_owned()));
        Ok(())
    }

    fn make_folder(&self, _: &Path) -> io::Result<()> {
        self.0.lock().unwrap().step()
    }

    fn each_file(&self, folder: &Path, see: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        for (path, number) in &state.names {
            if path.parent() == Some(folder) {
                let name = path.file_name().unwrap().to_str().unwrap();
                see(name, state.files[*number].bytes.len() as u64);
            }
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        if state.faults.sync_folder {
            return Err(io::Error::other("cannot sync the folder"));
        }
        let other = |path: &PathBuf| path.parent() != Some(folder);
        state.unsynced.retain(|change| match change {
            Change::Set(path, _) | Change::Unset(path) | Change::Move(_, path, _) => other(path),
        });
        let names = state.names.clone();
        state.durable.retain(|path, _| other(path));
        state.durable.extend(names.into_iter().filter(|(path, _)| !other(path)));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().free.unwrap_or(u64::MAX))
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: ModelDisk,
    number: usize,
}

impl ModelFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock().unwrap();
        state.step()?;
        act(&mut state)
    }
}

impl DiskFile for ModelFile {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|state| {
            let size = state.files[self.number].bytes.len();
            let dying = state.operations_left == Some(0);
            if state.faults.write || dying {
                state.files[self.number].bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
                return Err(io::Error::other("cannot write"));
            }
            // In two pieces, so that a death can come between them.
            let count = if bytes.len() > 64 { bytes.len() / 2 } else { bytes.len() };
            state.take(self.number, (size + count) as u64)?;
            state.files[self.number].bytes.extend_from_slice(&bytes[..count]);
            Ok(count)
        })
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|state| {
            let bytes = &state.files[self.number].bytes;
            let rest = bytes.get(usize::try_from(at).unwrap()..).unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.files[self.number].bytes.len() as u64))
    }

    fn cut(&self, size_bytes: u64) -> io::Result<()> {
        self.with(|state| {
            let size = usize::try_from(size_bytes).unwrap();
            let file = &mut state.files[self.number];
            file.bytes.resize(size, 0);
            file.lost.iter_mut().for_each(|lost| lost.end = lost.end.min(size));
            file.lost.retain(|lost| !lost.is_empty());
            let given_back = file.room.saturating_sub(size_bytes);
            file.room -= given_back;
            state.free = state.free.map(|free| free + given_back);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state| {
            state.syncs += 1;
            let failing = state.faults.sync;
            let file = &mut state.files[self.number];
            if failing {
                file.lost.push(file.synced.len().min(file.bytes.len())..file.bytes.len());
                return Err(io::Error::other("cannot sync"));
            }
            file.synced = file.bytes.clone();
            for lost in &file.lost {
                file.synced[lost.clone()].fill(0);
            }
            Ok(())
        })
    }

    fn allocate(&self, _: u64, to: u64) -> io::Result<()> {
        self.with(|state| match state.faults.no_allocation {
            true => Err(ErrorKind::Unsupported.into()),
            false => state.take(self.number, to),
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        self.disk.0.lock().unwrap().names.get(path) == Some(&self.number)
    }
}
