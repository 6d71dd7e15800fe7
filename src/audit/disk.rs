//! The file layer under trail and quarantine: the few operations they need, and nothing else.
//!
//! Why a trait: what a crash, a full disk or a failing one leaves behind is the whole point of
//! this room, and only an invented disk can show every such state. `RealDisk` is the kernel's.
//! Every call blocks; the room calls from blocking threads only.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// How a file is opened; the number is the permission bits of a file made by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// For reading; it must exist.
    Read,
    /// For reading and for writing at its end; made when missing.
    Append(u32),
    /// As `Append`, and it must not exist yet.
    New(u32),
}

/// Operations on names.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; a file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it, for our user only; one that is there is left alone.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Shows each plain file of a folder: its name and its bytes, in no order.
    fn each_file(&self, folder: &Path, see: &mut dyn FnMut(&str, u64)) -> io::Result<()>;
    /// Names made, changed or taken away in this folder are durable when it returns.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Bytes that may still be written below this folder.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// Operations on one open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes some of the bytes at the end: how many, at least one unless there are none.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads some bytes from a place: how many, zero at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// How many bytes it has.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Cuts it to this many bytes, and gives back room allocated behind them.
    fn cut(&self, size_bytes: u64) -> io::Result<()>;
    /// Bytes and size are durable when it returns.
    fn sync(&self) -> io::Result<()>;
    /// Makes sure that the bytes of this range can be written without asking for more room; the
    /// file's size stays. `ErrorKind::Unsupported` where the file system knows no such thing.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Whether this very file still stands under the name.
    fn is_at(&self, path: &Path) -> bool;
    /// Whether a write into room that is allocated comes back at once, as a rule: the system takes
    /// it into its memory.
    fn is_quick(&self) -> bool {
        false
    }
}

/// Writes all bytes at the end. On an error some of them may stand there: the caller cuts them.
pub fn write_all(file: &dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An open file as a stream from its beginning.
#[derive(Debug)]
pub struct Stream {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Stream {
    /// From the file's beginning.
    pub fn new(file: Arc<dyn DiskFile>) -> Stream {
        Stream { file, at: 0 }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

/// The kernel's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match how {
            How::Read => options.read(true),
            How::Append(mode) => options.read(true).append(true).create(true).mode(mode),
            How::New(mode) => options.read(true).append(true).create_new(true).mode(mode),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    fn each_file(&self, folder: &Path, see: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let (Some(name), true) = (name.to_str(), entry.file_type()?.is_file()) else {
                continue;
            };
            match entry.metadata() {
                Ok(found) => see(name, found.len()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn is_quick(&self) -> bool {
        true
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(into, at)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.0.metadata().map(|found| found.len())
    }

    fn cut(&self, size_bytes: u64) -> io::Result<()> {
        self.0.set_len(size_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // Why not sync_all: the size is covered by fdatasync, and times need not be durable.
        self.0.sync_data()
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let keep = FallocateFlags::KEEP_SIZE;
        match to.checked_sub(from) {
            None | Some(0) => Ok(()),
            Some(bytes) => Ok(fallocate(&self.0, keep, from, bytes)?),
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let same = |ours: fs::Metadata| {
            fs::metadata(path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()))
        };
        self.0.metadata().is_ok_and(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_room_changes_no_size_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = RealDisk.open(&path, How::New(0o600)).unwrap();
        write_all(&*file, b"one\n").unwrap();
        match file.allocate(4, 1 << 20) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return println!("SKIPPED: this file system cannot allocate ahead");
            }
            done => done.unwrap(),
        }
        let blocks = || fs::metadata(&path).unwrap().blocks();
        assert_eq!(file.size_bytes().unwrap(), 4);
        assert!(blocks() >= (1 << 20) / 512);
        file.cut(4).unwrap();
        assert!(blocks() < 64, "{} blocks stay", blocks());
    }

    #[test]
    fn a_file_knows_when_its_name_was_given_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("x"), folder.path().join("y"));
        let file = RealDisk.open(&path, How::Append(0o600)).unwrap();
        assert!(file.is_at(&path));
        RealDisk.rename(&path, &moved).unwrap();
        assert!(!file.is_at(&path));
        RealDisk.open(&path, How::Append(0o600)).unwrap();
        assert!(!file.is_at(&path) && file.is_at(&moved));
    }
}
