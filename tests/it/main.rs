//! The integration tests, one binary; one module for each kind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unreachable,
    reason = "a test that meets the unexpected fails"
)]

mod admin;
mod arc;
mod audit;
mod auth;
mod captures;
#[path = "../support/certificates.rs"]
mod certificates;
mod config;
mod corpus;
mod daemon;
mod dialogues;
mod disk;
mod dkim;
#[path = "../support/dns.rs"]
mod dns;
mod evidence;
mod fingerprints;
mod front;
mod hard;
mod hop;
mod house;
mod killed;
mod known;
mod licences;
mod loops;
mod quarantine;
#[path = "../support/random.rs"]
mod random;
mod records;
mod relay;
mod remembered;
mod rig;
mod rounds;
#[path = "../support/schema.rs"]
mod schema;
mod sim;
#[path = "../support/skipped.rs"]
mod skipped;
mod speed;
mod spf;
mod store;
mod storm;
mod structure;
mod taps;
mod tls;
mod tls_settings;
mod vacation;
