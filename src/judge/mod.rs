//! The decision, pure: what a message is, what it answers, whether its recipient is genuine, and
//! what to do.
//!
//! Two doors and no others. `read` says what a message says about itself; what to ask DNS and the
//! store is known only then. `decide` takes the answers and gives one `Decision` for each
//! recipient. No I/O, no clock, no log: a log line is a `Reason`, a moment is an argument.

pub mod alignment;
pub mod classify;
pub mod decide;
pub mod decision;
pub mod evidence;
pub mod lists;
pub mod loops;
pub mod original;
pub mod policy;
pub mod ruling;
pub mod site;
pub mod tell;
pub mod trace;
pub mod verdict;

use crate::judge::classify::Class;
use crate::judge::original::{Origin, Original};
use crate::mail::address::Address;
use crate::mail::time::Timestamp;

/// Temporary.
#[derive(Clone, Debug)]
pub struct Case {
    /// class
    pub class: Class,
    /// origin
    pub origin: Option<Origin>,
    /// original
    pub original: Original,
    /// responder
    pub responder: Option<Address>,
    /// date
    pub date: Option<Timestamp>,
    /// hops
    pub hops: u32,
}
