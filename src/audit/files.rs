//! The files of the audit log: their names, their order, and the end of one after a crash.
//!
//! `audit.jsonl` is written; `audit.jsonl.20261121T173859042Z` was, until that moment. Only names
//! of that form are ours: what another program rotates is neither counted nor taken away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::disk::{Disk, DiskFile, How};
use crate::audit::fault::{Error, disk};
use crate::mail::time::Timestamp;

/// Bytes read at once when a file is searched.
const BLOCK_BYTES: usize = 64 * 1024;

/// The moment in the name of a rotated file; sorts by time.
pub type Stamp = String;

/// Where the log is.
#[derive(Clone, Debug)]
pub struct LogFiles {
    path: PathBuf,
}

impl LogFiles {
    /// The log that is written at `path`.
    pub fn new(path: PathBuf) -> LogFiles {
        LogFiles { path }
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of all of them.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// A rotated file.
    pub fn rotated(&self, stamp: &str) -> PathBuf {
        self.beside(stamp)
    }

    /// The next file, made ready before it takes the place of the one that is written.
    pub fn spare(&self) -> PathBuf {
        self.beside("next")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(ending);
        PathBuf::from(name)
    }

    /// Opens the file that is written, made when there is none, and cuts off what is torn at its
    /// end: the file and its bytes.
    pub fn open(
        &self,
        disk_layer: &dyn Disk,
        mode: u32,
    ) -> Result<(Arc<dyn DiskFile>, u64), Error> {
        let path = self.path();
        let file = disk_layer.open(path, How::Append(mode)).map_err(disk("open", path))?;
        let size = file.size_bytes().map_err(disk("read", path))?;
        let whole = whole_bytes(&*file).map_err(disk("read", path))?;
        refuse_foreign(&*file, path, 0)?;
        refuse_foreign(&*file, path, whole)?;
        if whole < size {
            let torn = size.saturating_sub(whole);
            tracing::warn!(path = %path.display(), torn, "cutting off what a crash left torn");
        }
        // Even when nothing is torn: room that was allocated before is not in our books.
        file.cut(whole).map_err(disk("cut", path))?;
        disk_layer.sync_folder(self.folder()).map_err(disk("sync the folder", self.folder()))?;
        Ok((file, whole))
    }

    /// The rotated files, oldest first, with their bytes.
    pub fn list(&self, disk: &dyn Disk) -> io::Result<BTreeMap<Stamp, u64>> {
        let own = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut found = BTreeMap::new();
        disk.each_file(self.folder(), &mut |name, bytes| {
            let stamp = name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'));
            if let Some(stamp) = stamp.filter(|stamp| millis(stamp).is_some()) {
                found.insert(stamp.to_owned(), bytes);
            }
        })?;
        Ok(found)
    }
}

/// Why: a mistyped path must not spoil another file, or cost it its end. What stands at the
/// beginning and behind the last whole line of ours is a record, or zero bytes.
fn refuse_foreign(file: &dyn DiskFile, path: &Path, at: u64) -> Result<(), Error> {
    let mut first = [0];
    let count = file.read_at(&mut first, at).map_err(disk("read", path))?;
    let ours = count == 0 || matches!(first, [b'{' | b'\n' | 0]);
    let what = "a line of it does not begin like a record";
    ours.then_some(()).ok_or_else(|| Error::NotALog { path: path.display().to_string(), what })
}

/// The stamp of `now`, or the one after `latest` when the clock was set back.
pub fn stamp_after(latest: Option<&str>, now: Timestamp) -> Stamp {
    let latest = latest.and_then(millis).unwrap_or(i64::MIN);
    stamp(now.as_millis().max(latest.saturating_add(1)))
}

fn stamp(millis: i64) -> Stamp {
    Timestamp::from_millis(millis).to_string().replace(['-', ':', '.'], "")
}

/// `20261121T173859042Z` → milliseconds; `None` for any other form.
fn millis(text: &str) -> Option<i64> {
    let digit = |at: std::ops::Range<usize>| text.get(at).unwrap_or_default();
    let moment = format!(
        "{}-{}-{}{}:{}:{}.{}",
        digit(0..4),
        digit(4..6),
        digit(6..9),
        digit(9..11),
        digit(11..13),
        digit(13..15),
        digit(15..19),
    );
    let millis = Timestamp::parse_rfc3339(&moment)?.as_millis();
    (stamp(millis) == text).then_some(millis)
}

/// Where the whole lines of a file end. What lies behind is torn: a line without its end, or
/// lines with zero bytes, which a file system leaves that knew the size but not yet the content.
pub fn whole_bytes(file: &dyn DiskFile) -> io::Result<u64> {
    let size = file.size_bytes()?;
    let mut end = line_start(file, size)?;
    while end > 0 {
        let start = line_start(file, end.saturating_sub(1))?;
        if !has_zero(file, start, end)? {
            break;
        }
        end = start;
    }
    Ok(end)
}

/// How many line ends the first `end` bytes have.
pub fn count_lines(file: &dyn DiskFile, end: u64) -> io::Result<u64> {
    let mut lines = 0_u64;
    each_block(file, 0, end, |block| {
        let found = memchr::memchr_iter(b'\n', block).count();
        lines = lines.saturating_add(u64::try_from(found).unwrap_or(u64::MAX));
        true
    })?;
    Ok(lines)
}

/// Behind the last line end that stands before `end`; zero without one.
fn line_start(file: &dyn DiskFile, end: u64) -> io::Result<u64> {
    let block_bytes = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
    let mut upto = end;
    while upto > 0 {
        let from = upto.saturating_sub(block_bytes);
        let mut start = None;
        let mut at = from;
        each_block(file, from, upto, |block| {
            if let Some(found) = memchr::memrchr(b'\n', block) {
                let found = u64::try_from(found).unwrap_or(u64::MAX);
                start = Some(at.saturating_add(found).saturating_add(1));
            }
            at = at.saturating_add(u64::try_from(block.len()).unwrap_or(u64::MAX));
            true
        })?;
        if let Some(start) = start {
            return Ok(start);
        }
        upto = from;
    }
    Ok(0)
}

fn has_zero(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<bool> {
    let mut found = false;
    each_block(file, from, end, |block| {
        found |= memchr::memchr(0, block).is_some();
        !found
    })?;
    Ok(found)
}

/// Shows the bytes of a range in pieces, until the range or the file ends or `see` says no.
pub fn each_block(
    file: &dyn DiskFile,
    from: u64,
    end: u64,
    mut see: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = from;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let count = file.read_at(block.get_mut(..wanted).unwrap_or_default(), at)?;
        let more = see(block.get(..count).unwrap_or_default());
        if count == 0 || !more {
            break;
        }
        at = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::audit::disk::{How, RealDisk, write_all};

    use super::*;

    #[test]
    fn stamps_are_read_as_they_are_written_and_never_go_back() {
        let now = Timestamp::from_millis(1_795_282_739_042);
        let first = stamp_after(None, now);
        assert_eq!(first, "20261121T173859042Z");
        assert_eq!(millis(&first), Some(now.as_millis()));
        let second = stamp_after(Some(&first), Timestamp::from_millis(5));
        assert_eq!(second, "20261121T173859043Z");
        for foreign in ["", "1", "next", "1.gz", "20261121T173859042", "20261321T173859042Z"] {
            assert_eq!(millis(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_our_own_files_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.20261121T173859042Z", "a.jsonl.1", "a.jsonl.next", "b"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = LogFiles::new(folder.path().join("a.jsonl")).list(&RealDisk).unwrap();
        assert_eq!(found, [("20261121T173859042Z".to_owned(), 1)].into());
    }

    fn whole(bytes: &[u8]) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&folder.path().join("x"), How::New(0o600)).unwrap();
        write_all(&*file, bytes).unwrap();
        usize::try_from(whole_bytes(&*file).unwrap()).unwrap()
    }

    #[test]
    fn a_torn_end_is_found() {
        assert_eq!(whole(b""), 0);
        assert_eq!(whole(b"one"), 0);
        assert_eq!(whole(b"one\n"), 4);
        assert_eq!(whole(b"one\ntw"), 4);
        assert_eq!(whole(b"one\n\0\0\0"), 4);
        assert_eq!(whole(b"one\ntw\0\0o\nthree\n"), 4 + 6 + 6);
        assert_eq!(whole(b"one\n\0\0\0o\n"), 4);
        assert_eq!(whole(&[0; 200_000]), 0);
        let long = [b"x".repeat(200_000), b"\n".to_vec(), b"y".repeat(200_000)].concat();
        assert_eq!(whole(&long), 200_001);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_left_is_a_prefix_of_whole_lines(
            lines in prop::collection::vec("[a-z]{0,9}", 0..20), cut in 0_usize..200, zeros in 0_usize..9,
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let cut = cut.min(text.len());
            let mut bytes = text.as_bytes()[..cut].to_vec();
            bytes.extend(vec![0; zeros]);
            let kept = text.get(..cut).unwrap().rfind('\n').map_or(0, |at| at + 1);
            prop_assert_eq!(whole(&bytes), kept);
        }
    }
}
