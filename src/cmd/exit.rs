//! Exit codes: 0 done, 1 "no", 64 usage, 69 daemon away, 75 try later, 78 configuration.

use std::process::ExitCode;

/// How a command ended (sysexits.h for all but "no").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for a question: yes.
    Done,
    /// The answer is no: `explain` of a message that would not be delivered.
    No,
    /// The arguments, or the input they name, are of no use.
    Usage,
    /// What is needed is in use or away.
    Away,
    /// Try later.
    Later,
    /// The configuration has faults.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 64,
            Exit::Away => 69,
            Exit::Later => 75,
            Exit::Configuration => 78,
        })
    }
}
