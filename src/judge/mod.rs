//! The decision, pure: what a message is, what it answers, whether its recipient is genuine, and
//! what to do.
//!
//! Two doors and no others. `read` says what a message says about itself; what to ask DNS and the
//! store is known only then. `decide` takes the answers and gives one `Decision` for each
//! recipient. No I/O, no clock, no log: a log line is a `Reason`, a moment is an argument.

pub mod border;
pub mod classify;
pub mod decision;
pub mod evidence;
pub mod findings;
pub mod keys;
pub mod lists;
pub mod original;
pub mod policy;
pub mod quote;
pub mod reading;
pub mod signs;
pub mod site;
pub mod words;
pub mod words_of_failure;
pub mod words_of_reply;
