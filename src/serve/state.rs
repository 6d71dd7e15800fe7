//! The state directory: one process at a time, and the keys that must survive a restart.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::audit::held::LOCK;
use crate::judge::fingerprint::FingerprintKey;
use crate::judge::trace::TraceKey;
use crate::store::embedded::Keys;
use crate::store::keyed::StoreKey;

/// Why the state directory cannot be used; for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{path} is in use by another replyguard: give each its own `{key}`")]
    InUse {
        /// The directory, or the log.
        path: PathBuf,
        /// The key that names it.
        key: &'static str,
    },
    /// The system says no.
    #[error("{path}: {fault} (does the user that runs replyguard own it?)")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: io::Error,
    },
    /// A key file that is none.
    #[error("{path} should hold a key of 32 bytes and holds something else: move it away")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// The file of the key of our traces. To replace it, name it `TRACE_KEY_BEFORE` and start again.
pub const TRACE_KEY: &str = "trace.key";

/// The file of the key before it, whose traces still count for a week.
pub const TRACE_KEY_BEFORE: &str = "trace.key.before";

/// The file of the store's key. To replace it, name it `STORE_KEY_OLD` and start again.
pub const STORE_KEY: &str = "store.key";

/// The file of the key before it, until nothing is kept any more that was written with it.
pub const STORE_KEY_OLD: &str = "store.key.old";

/// The file of messages that may be going round.
pub const SIGHTINGS: &str = "sightings";

/// The file of what two said to one another more than once.
pub const CONVERSATIONS: &str = "conversations";

/// A state directory that is ours as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory when there is none, and locks it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let fault = |path: &Path, fault: io::Error| StateError::Io { path: path.to_owned(), fault };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder.create(path).map_err(|error| fault(path, error))?;
        let lock = lock(&path.join(LOCK), path, "state_dir")?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// The key of our traces, and the one it replaced, if there is one. Guards that share a
    /// `loops.site` must share these files.
    pub fn trace_key(&self) -> Result<TraceKey, StateError> {
        let current = TraceKey::new(self.key(TRACE_KEY)?);
        Ok(match self.path.join(TRACE_KEY_BEFORE).exists() {
            true => current.and_before(self.key(TRACE_KEY_BEFORE)?),
            false => current,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key of fingerprints.
    pub fn fingerprint_key(&self) -> Result<FingerprintKey, StateError> {
        self.key("fingerprint.key").map(FingerprintKey::new)
    }

    /// The key of the store, and the one before it, where the administrator moved that to
    /// `store.key.old`: what was written with it is read for the retention.
    pub fn store_keys(&self) -> Result<Keys, StateError> {
        let current = Arc::new(StoreKey::new(self.key(STORE_KEY)?));
        let former = key_beside(&self.path, STORE_KEY_OLD);
        Ok(Keys { current, former: former.map(|key| Arc::new(StoreKey::new(key))) })
    }

    /// 32 bytes of chance that need not survive.
    pub fn chance(&self) -> Result<[u8; 32], StateError> {
        chance(&self.path)
    }

    fn key(&self, name: &str) -> Result<[u8; 32], StateError> {
        let path = self.path.join(name);
        let fault = |fault: io::Error| StateError::Io { path: path.clone(), fault };
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(33).read_to_end(&mut bytes).map_err(fault)?;
                bytes.try_into().map_err(|_| StateError::NoKey { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = chance(&path)?;
                write_new(&self.path, &path, &key).map_err(fault)?;
                Ok(key)
            }
            Err(error) => Err(fault(error)),
        }
    }
}

/// The quarantine's folder and the log, ours as long as this lives.
///
/// Why beside the lock on the state directory: two with directories of their own may still name
/// one folder or one log.
#[derive(Debug)]
pub struct Locks {
    _quarantine: File,
    _log: File,
}

impl Locks {
    /// Makes the quarantine's folder when there is none, and locks both.
    pub fn take(quarantine: &Path, log: &Path) -> Result<Locks, StateError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let fault = |fault| StateError::Io { path: quarantine.to_owned(), fault };
        builder.create(quarantine).map_err(fault)?;
        let mut beside = log.as_os_str().to_owned();
        beside.push(".lock");
        Ok(Locks {
            _quarantine: lock(&quarantine.join(LOCK), quarantine, "quarantine.path")?,
            _log: lock(Path::new(&beside), log, "audit.path")?,
        })
    }
}

fn lock(file: &Path, path: &Path, key: &'static str) -> Result<File, StateError> {
    let fault = |fault| StateError::Io { path: file.to_owned(), fault };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let lock = options.open(file).map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned(), key }),
        Err(TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// Removes the store's former key when it and the present one are older than the retention: the last
/// record written with it is gone by then. Whether it did.
///
/// Why the time of the last change of its inode: moving a file does not change its date.
pub fn remove_former_key(path: &Path, retention: Duration, now: SystemTime) -> io::Result<bool> {
    let (former, current) = (path.join(STORE_KEY_OLD), path.join(STORE_KEY));
    let moved = match std::fs::metadata(&former) {
        Ok(of) => UNIX_EPOCH + Duration::from_secs(u64::try_from(of.ctime()).unwrap_or(0)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(fault) => return Err(fault),
    };
    let made = std::fs::metadata(&current)?.modified()?;
    let since = moved.max(made);
    if now.duration_since(since).unwrap_or_default() <= retention {
        return Ok(false);
    }
    std::fs::remove_file(&former)?;
    File::open(path)?.sync_all()?;
    Ok(true)
}

/// A key of a state directory that may be another's; `None` when it cannot be read.
pub fn key_beside(state_dir: &Path, name: &str) -> Option<[u8; 32]> {
    std::fs::read(state_dir.join(name)).ok()?.try_into().ok()
}

fn chance(path: &Path) -> Result<[u8; 32], StateError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StateError::Io {
        path: path.to_owned(),
        fault: io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

/// Written, synced, renamed: a crash leaves the whole file, the one before it, or none.
pub fn write_new(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let pending = path.with_extension("pending");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&pending)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&pending, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_key_that_is_renamed_is_replaced_and_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let first = state.key(TRACE_KEY).unwrap();
        std::fs::rename(folder.path().join(TRACE_KEY), folder.path().join(TRACE_KEY_BEFORE))
            .unwrap();
        state.trace_key().unwrap();
        assert_ne!(state.key(TRACE_KEY).unwrap(), first);
        assert_eq!(state.key(TRACE_KEY_BEFORE).unwrap(), first);
        std::fs::write(folder.path().join(TRACE_KEY_BEFORE), b"short").unwrap();
        assert!(matches!(state.trace_key(), Err(StateError::NoKey { .. })));
    }

    #[test]
    fn a_store_key_that_was_replaced_goes_after_the_retention() {
        let folder = tempfile::tempdir().unwrap();
        let (at, week) = (folder.path(), Duration::from_secs(7 * 86_400));
        let gone = |after| remove_former_key(at, week, SystemTime::now() + after).unwrap();
        let state = StateDir::open(at).unwrap();
        let first = state.key(STORE_KEY).unwrap();
        assert!(!gone(week * 2), "there is no former key");
        std::fs::rename(at.join(STORE_KEY), at.join(STORE_KEY_OLD)).unwrap();
        // Made long ago, moved just now.
        let old = File::options().write(true).open(at.join(STORE_KEY_OLD)).unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert!(state.store_keys().unwrap().former.is_some());
        assert_ne!(state.key(STORE_KEY).unwrap(), first);
        assert!(!gone(Duration::ZERO) && !gone(week - Duration::from_secs(60)));
        assert!(gone(week + Duration::from_secs(60)));
        assert!(!at.join(STORE_KEY_OLD).exists() && at.join(STORE_KEY).exists());
        assert!(state.store_keys().unwrap().former.is_none());
    }

    #[test]
    fn one_process_has_a_quarantine_and_a_log_whatever_their_state_directories() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let first = Locks::take(&at("q"), &at("a.jsonl")).unwrap();
        for (quarantine, log, key) in
            [("q", "b.jsonl", "quarantine.path"), ("r", "a.jsonl", "audit.path")]
        {
            let fault = Locks::take(&at(quarantine), &at(log)).unwrap_err().to_string();
            assert!(fault.contains("is in use by another replyguard"), "{fault}");
            assert!(fault.ends_with(&format!("give each its own `{key}`")), "{fault}");
        }
        Locks::take(&at("r"), &at("b.jsonl")).unwrap();
        drop(first);
        Locks::take(&at("q"), &at("a.jsonl")).unwrap();
    }

    #[test]
    fn one_process_has_a_state_directory_and_its_keys_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        let key = first.key("trace.key").unwrap();
        drop(first);
        let second = StateDir::open(&path).unwrap();
        assert_eq!(second.key("trace.key").unwrap(), key);
        std::fs::write(path.join("trace.key"), b"short").unwrap();
        assert!(matches!(second.key("trace.key"), Err(StateError::NoKey { .. })));
    }
}
