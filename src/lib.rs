//! replyguard: an SMTP proxy before outbound delivery that holds automatic replies and bounces to
//! forged senders, cuts forwarding loops, and can say of every message why.
//!
//! A message walks one straight path: front → envelope → classify → evidence → verdict → loop →
//! policy → relay → audit. The floors, from the ground up; a file imports from lower floors and
//! its own folder only (`tests/it/house.rs` checks it):
//!
//! | floor | rooms | may do |
//! |---|---|---|
//! | 5 | `cmd` | talk to the person at the keyboard |
//! | 4 | `serve` | own sockets, tasks, shutdown, reload |
//! | 3 | `guard`, `config` | conduct the path; gather every room's settings |
//! | 2 | `store`, `auth`, `relay`, `audit` | I/O, each one kind |
//! | 1 | `judge`, `wire`, `meter` · `tls` | pure: decide, speak protocols, count · encrypt |
//! | 0 | `mail` | pure: the words |

#![cfg_attr(test, allow(clippy::string_slice, reason = "a test that meets the unexpected fails"))]

pub mod audit;
pub mod auth;
pub mod cmd;
pub mod config;
pub mod guard;
pub mod judge;
pub mod mail;
pub mod meter;
pub mod relay;
pub mod serve;
pub mod store;
pub mod tls;
pub mod wire;
