//! End-to-end tests against real servers: Postfix, Exim, Dovecot with Pigeonhole.
//!
//! `scripts/setup` brings the servers. Without them each test says `SKIPPED` and why.
//!
//! A test puts together what it needs, from the far end to the near one, and all of it is gone when
//! the test ends, however it ends:
//!
//! ```text
//! let sink = Sink::smtp();                                              // the world outside
//! let guard = Guard::start(guard::Settings::before(sink.address()));
//! let postfix = Postfix::start(&postfix::Settings::default().variant_a(guard.address()));
//! Client::from_outside(postfix.border(), "192.0.2.55", "mail.forger.example").deliver(&mail);
//! ```
//!
//! The tests are plain functions; only the sink runs on an asynchronous runtime, out of sight.
//! Nothing waits for a fixed time: `wait::until` polls, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unreachable,
    reason = "a test that meets the unexpected fails"
)]

#[allow(dead_code, reason = "the other binary needs more of it")]
#[path = "../support/certificates.rs"]
mod certificates;
mod claim;
mod client;
mod disk;
#[path = "../support/dns.rs"]
mod dns;
mod guard;
mod hostile;
mod ledger;
mod mail;
mod pass;
mod process;
#[path = "../support/random.rs"]
mod random;
mod scenarios;
#[path = "../support/schema.rs"]
mod schema;
mod servers;
mod sink;
#[path = "../support/skipped.rs"]
mod skipped;
mod smoke;
mod smuggling;
mod taps;
mod wait;
