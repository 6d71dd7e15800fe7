//! Station 8: hand it to the next hop.
//!
//! Sockets around `wire::smtp_client`. Gives: what all next hops promise (`offer`), and
//! transactions (`begin`). Sessions are taken at MAIL, bounded in number, kept and rotated.
//! Errors: `RelayError`, all temporary; the client keeps the message.
//! Standards: RFC 5321, RFC 2033, RFC 2920, RFC 1870, RFC 3207, RFC 4954.

pub mod connect;
pub mod hop;
pub mod pool;
pub mod session;
pub mod transaction;

use std::sync::Arc;

use crate::mail::envelope::{Client, MailFrom, Parameters};
use crate::relay::connect::{Connect, Sockets};
use crate::relay::hop::Hop;
use crate::relay::pool::Pool;
use crate::relay::session::HopFault;
use crate::relay::transaction::Transaction;
use crate::wire::endpoint::{Endpoint, NextHop};
use crate::wire::keywords::Keywords;
use crate::wire::secure::Channel;

/// What the relay is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tried in order; at least one.
    pub next_hops: Vec<Hop>,
    /// Sessions with next hops at once, idle ones included.
    pub sessions_max: usize,
    /// Further EHLO keywords to pass on, upper case.
    pub pass_keywords: Vec<String>,
    /// What we call ourselves in EHLO.
    pub hostname: String,
}

impl Default for Settings {
    fn default() -> Self {
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 10026 };
        Settings {
            next_hops: vec![Hop::clear(NextHop { endpoint, lmtp: false, tls: false })],
            sessions_max: 40,
            pass_keywords: Vec::new(),
            hostname: "localhost".to_owned(),
        }
    }
}

/// Why nothing can be relayed now; always temporary.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No next hop can be reached; what the last one tried did.
    #[error("no next hop takes mail now ({hop}: {fault})")]
    NoNextHop {
        /// The last one tried.
        hop: String,
        /// What it did.
        fault: Arc<HopFault>,
    },
    /// Every next hop that can be reached offers less than the message needs.
    #[error("no next hop that can be reached offers {0}")]
    OffersLess(String),
    /// All sessions were in use for too long.
    #[error("all sessions with the next hop are in use")]
    Busy,
    /// The next hop was lost in the middle.
    #[error("next hop {hop}: {fault}")]
    Lost {
        /// Which one.
        hop: String,
        /// What it did.
        fault: HopFault,
    },
}

/// How the relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayHealth {
    /// Sessions in use now.
    pub sessions: usize,
    /// At most.
    pub sessions_max: usize,
    /// The next hops, in their order.
    pub hops: Vec<HopHealth>,
    /// Sessions that failed since the start for TLS or AUTH.
    pub failed: Failed,
}

/// Sessions with next hops that failed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// Handshakes; where TLS is opportunistic the session went on in the clear.
    pub tls: u64,
    /// AUTH.
    pub auth: u64,
}

/// How a next hop is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopHealth {
    /// As in the settings.
    pub name: String,
    /// Whether it answered when last tried; `None` before the first try.
    pub up: Option<bool>,
    /// What the last session with it had; `None` before the first.
    pub channel: Option<Channel>,
}

/// Relays to the next hops.
pub struct Relay {
    pool: Arc<Pool>,
}

impl Relay {
    /// A relay over the system's sockets.
    pub fn new(settings: Settings) -> Relay {
        Relay::with(settings, Arc::new(Sockets))
    }

    /// A relay over other connections.
    pub fn with(settings: Settings, connect: Arc<dyn Connect>) -> Relay {
        Relay { pool: Arc::new(Pool::new(settings, connect)) }
    }

    /// The end-to-end keywords that every next hop offered when last seen, which is at most
    /// `limits::EHLO_AGE_MAX` ago; SIZE less `added_bytes`. An error: none can be reached.
    pub async fn offer(&self, added_bytes: u64) -> Result<Keywords, RelayError> {
        self.pool.offer(added_bytes).await
    }

    /// A transaction with the first next hop that can be reached and offers what MAIL and RCPT
    /// need. Nothing is sent yet.
    pub async fn begin(
        &self,
        mail: &MailFrom,
        rcpt: &[Parameters],
        client: &Client,
        added_bytes: u64,
    ) -> Result<Box<Transaction>, RelayError> {
        Transaction::begin(Arc::clone(&self.pool), mail, rcpt, client, added_bytes).await
    }

    /// How it goes: for status and metrics.
    pub fn health(&self) -> RelayHealth {
        self.pool.health()
    }

    /// Says QUIT in every idle session.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Closes sessions that have been idle for too long. To be called now and then.
    pub async fn tidy(&self) {
        self.pool.tidy().await;
    }
}
