//! Station 9: what happened.

pub mod disk;
pub mod fault;
pub mod findings;
pub mod held;
pub mod pseudonym;
pub mod record;
pub mod seen;
pub mod words;
