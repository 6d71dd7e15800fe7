//! A record as bytes: a version, then its fields in order, without names (postcard).
//!
//! Why not JSON: a record takes a third of the room, and a site keeps millions. Why a version: a
//! record of another version counts as never seen; it is a cache.

use crate::judge::subject::Inbound;

/// To be raised with every change of `Inbound` or of what it holds.
const VERSION: u8 = 2;

/// The bytes; `None` for what cannot be written, which no record is.
pub fn encoded(record: &Inbound) -> Option<Vec<u8>> {
    postcard::to_extend(record, vec![VERSION]).ok()
}

/// The record again; `None` for another version, or bytes that are no record.
pub fn decoded(bytes: &[u8]) -> Option<Inbound> {
    match bytes.split_first()? {
        (&VERSION, rest) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}
