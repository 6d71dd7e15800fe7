//! Error: what went wrong with the trail or the quarantine, where, and what to do.

use std::io;
use std::path::Path;

use crate::audit::held::HeldId;

/// What went wrong, for the administrator. Every variant is `Kind::Temporary` or `Permanent`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk refused an operation.
    #[error("cannot {what} {path}: {fault}; {remedy}")]
    Disk {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file or folder.
        path: String,
        /// What the system said.
        fault: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The audit log has no room for what must be written.
    #[error(
        "{path} may not grow by {needed} bytes: it has {bytes} of max_bytes; \
             raise audit.max_bytes, or make it possible to rotate the file"
    )]
    LogFull {
        /// The file.
        path: String,
        /// Its bytes.
        bytes: u64,
        /// What was to be added.
        needed: u64,
    },
    /// The file at the log's path is something else.
    #[error("{path} is not an audit log ({what}); name another file in audit.path")]
    NotALog {
        /// The file.
        path: String,
        /// What speaks against it.
        what: &'static str,
    },
    /// A record could not be put into JSON: our fault.
    #[error("the record of event {event} cannot be written: {fault}; please report this")]
    Unwritten {
        /// The event.
        event: String,
        /// What the serializer said.
        fault: String,
    },
    /// A record is too long even without all that may be left out: our fault.
    #[error("the record of event {event} is too long; please report this")]
    RecordTooLong {
        /// The event.
        event: String,
    },
    /// The quarantine is at one of its bounds.
    #[error(
        "the quarantine in {path} is full ({bytes} bytes, {messages} messages); release or \
             delete messages, raise quarantine.max_bytes, or set quarantine.on_full = \"drop-oldest\""
    )]
    Full {
        /// The folder.
        path: String,
        /// What it holds, in bytes.
        bytes: u64,
        /// What it holds, in messages.
        messages: usize,
    },
    /// Nothing is held under this id.
    #[error("nothing is held as {0}; it may have been released, deleted or expired")]
    NotHeld(HeldId),
    /// A message of this id is held already: ids must not repeat.
    #[error("something is held as {0} already; please report this")]
    Twice(HeldId),
    /// What is held is not what was put there.
    #[error("{path} is damaged: {what}; restore it from a backup or delete it")]
    Damaged {
        /// The file.
        path: String,
        /// What does not fit.
        what: &'static str,
    },
    /// The program is stopping, or work on the disk came to an unforeseen end.
    #[error("the disk's work was not finished; is the program stopping?")]
    Stopped,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another try may go well: 451.
    Temporary,
    /// It will not change by itself.
    Permanent,
}

impl Error {
    /// Whether trying again may help.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Disk { .. } | Error::LogFull { .. } | Error::Full { .. } | Error::Stopped => {
                Kind::Temporary
            }
            Error::NotALog { .. }
            | Error::Unwritten { .. }
            | Error::RecordTooLong { .. }
            | Error::NotHeld(_)
            | Error::Twice(_)
            | Error::Damaged { .. } => Kind::Permanent,
        }
    }

    /// The disk refused `what` (a verb) on `path`.
    pub fn disk(what: &'static str, path: &Path, fault: &io::Error) -> Error {
        let remedy = match fault.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room on that file system"
            }
            io::ErrorKind::PermissionDenied => "give replyguard's user the right to do so",
            io::ErrorKind::ReadOnlyFilesystem => "mount that file system for writing",
            io::ErrorKind::NotFound => "make that folder, or name another path",
            io::ErrorKind::FileTooLarge => "lift the limit on file sizes (ulimit -f)",
            _ => "look at the system's log for that disk",
        };
        Error::Disk { what, path: path.display().to_string(), fault: fault.to_string(), remedy }
    }
}

/// The same, to stand behind `map_err`.
pub fn disk(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |fault| Error::disk(what, path, &fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let full = io::Error::from_raw_os_error(28);
        let error = Error::disk("write", Path::new("/var/lib/x/audit.jsonl"), &full);
        assert_eq!(error.kind(), Kind::Temporary);
        assert_eq!(
            error.to_string(),
            "cannot write /var/lib/x/audit.jsonl: No space left on device (os error 28); \
             make room on that file system"
        );
    }
}
