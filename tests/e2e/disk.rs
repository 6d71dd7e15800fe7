//! A small disk that can be filled: a file system in memory.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::keeper;
use crate::skipped::skipped;

/// Mounted until dropped.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// A disk of so many KiB; `None`, said by the test's name, where nothing may be mounted.
    pub fn of_kib(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        let size = format!("size={kib}k");
        command.args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path());
        let mounted = command.output().is_ok_and(|output| output.status.success());
        if !mounted {
            skipped("it needs to mount a small file system: root, and not in every container");
            return None;
        }
        keeper(&format!("clear {}", folder.path().display()));
        Some(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves room for so many KiB and no more.
    pub fn fill_but(&self, kib: usize) {
        let mut file = File::create(self.path().join("filler")).unwrap();
        let block = vec![b'x'; 1024];
        let mut written = 0;
        while file.write_all(&block).is_ok() {
            written += block.len();
        }
        file.set_len((written - kib * 1024).try_into().unwrap()).unwrap();
    }

    /// Room again.
    pub fn clear(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that is about to end may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        keeper(&format!("cleared {}", self.path().display()));
    }
}

#[test]
fn a_small_disk_is_full_when_filled() {
    let Some(disk) = SmallDisk::of_kib(64) else { return };
    disk.fill_but(8);
    assert!(fs::write(disk.path().join("fits"), vec![0; 4096]).is_ok());
    assert!(fs::write(disk.path().join("does-not"), vec![0; 8192]).is_err());
    disk.clear();
    assert!(fs::write(disk.path().join("fits-now"), vec![0; 16384]).is_ok());
}
