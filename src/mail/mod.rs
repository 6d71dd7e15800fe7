//! The words of the field, as values: addresses, envelopes, messages, replies, times and bounds.
//!
//! Floor 0: pure, and it imports nothing of ours. Every room above speaks in these words.

pub mod address;
pub mod author;
pub mod authres;
pub mod envelope;
pub mod header;
pub mod hex;
pub mod keyed;
pub mod limits;
pub mod limits_of_clients;
pub mod limits_of_disk;
pub mod limits_of_memory;
pub mod limits_of_tls;
pub mod message;
pub mod raw;
pub mod received;
pub mod reply;
pub mod report;
pub mod shown;
pub mod time;
