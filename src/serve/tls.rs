//! TLS of listeners: what is offered, the handshake, what is counted of it.
//!
//! Takes: the settings, a stream of a client. Gives: the stream, encrypted. Errors: none; a failed
//! handshake is logged and counted, and the session is over.
//! Bounds: `limits_of_tls::HANDSHAKE_DEADLINE`; a session in its handshake has a place among all.
//! Standards: RFC 3207, RFC 8314 §3.3.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::mail::envelope::Secured;
use crate::serve::gone::Gone;
use crate::serve::smtp::Stopping;
use crate::tls::server::Acceptor;
use crate::tls::stream::Stream;
use crate::wire::endpoint::Listen;
use crate::wire::secure::Starttls;

/// Handshakes since the start.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// Those that were made.
    pub made: AtomicU64,
    /// Those that failed.
    pub failed: AtomicU64,
    /// Sessions that ended because something came in the clear behind STARTTLS.
    pub injected: AtomicU64,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// When the client says STARTTLS.
    Asked,
    /// With the first byte.
    AtOnce,
}

impl Begins {
    /// As the settings have it.
    pub fn of(listen: &Listen) -> Begins {
        if listen.tls { Begins::AtOnce } else { Begins::Asked }
    }
}

/// The TLS of one listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Shows the certificate.
    pub acceptor: Arc<Acceptor>,
    /// What is offered in the clear.
    pub starttls: Starttls,
    /// When it begins.
    pub begins: Begins,
    /// What is counted, for all listeners of a role.
    pub handshakes: Arc<Handshakes>,
}

impl ListenerTls {
    /// That of a role's listeners, which TLS begins in when asked for.
    pub fn new(acceptor: &Arc<Acceptor>, starttls: Starttls) -> ListenerTls {
        let (acceptor, handshakes) = (Arc::clone(acceptor), Arc::default());
        ListenerTls { acceptor, starttls, begins: Begins::Asked, handshakes }
    }

    /// Whether TLS comes before anything is said.
    pub fn is_first(tls: Option<&ListenerTls>) -> bool {
        tls.is_some_and(|tls| tls.begins == Begins::AtOnce)
    }

    /// The stream as a session begins on it, and what was agreed on where TLS comes first; `None`
    /// when that failed.
    pub async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        tls: Option<&ListenerTls>,
        stream: S,
        client: Option<IpAddr>,
        stopping: &mut watch::Receiver<Stopping>,
    ) -> Option<(Stream<S>, Option<Secured>)> {
        let Some(tls) = tls.filter(|tls| tls.begins == Begins::AtOnce) else {
            return Some((Stream::Clear(stream), None));
        };
        // Why boxed: ten thousand idle sessions should not each keep room for a handshake.
        let (stream, secured) = Box::pin(tls.secure(stream, client, stopping)).await?;
        Some((stream, Some(secured)))
    }

    /// The handshake behind STARTTLS, on a stream that was in the clear.
    pub async fn start<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Stream<S>,
        client: Option<IpAddr>,
        stopping: &mut watch::Receiver<Stopping>,
    ) -> Result<Secured, Gone> {
        let clear = stream.take_clear().ok_or(Gone::Closed)?;
        let made = self.secure(clear, client, stopping).await;
        let (encrypted, secured) = made.ok_or(Gone::Closed)?;
        *stream = encrypted;
        Ok(secured)
    }

    /// Looks whether something came in the clear behind STARTTLS: somebody on the way put it there,
    /// or the client is broken. It is not read (RFC 3207 §6, CVE-2011-0411).
    pub fn nothing_behind(&self, input: &[u8], client: Option<IpAddr>) -> Result<(), Gone> {
        if input.is_empty() {
            return Ok(());
        }
        self.handshakes.injected.fetch_add(1, Ordering::Relaxed);
        warn!(?client, "commands in the clear behind STARTTLS: not read, session over");
        Err(Gone::Injected)
    }

    /// The handshake; `None` when it failed, or when the server drains.
    async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        client: Option<IpAddr>,
        stopping: &mut watch::Receiver<Stopping>,
    ) -> Option<(Stream<S>, Secured)> {
        let made = tokio::select! {
            biased;
            _ = stopping.wait_for(|stage| *stage != Stopping::No) => return None,
            made = self.acceptor.accept(stream) => made,
        };
        match made {
            Ok(made) => {
                self.handshakes.made.fetch_add(1, Ordering::Relaxed);
                Some(made)
            }
            Err(fault) => {
                self.handshakes.failed.fetch_add(1, Ordering::Relaxed);
                info!(?client, %fault, "no TLS with a client");
                None
            }
        }
    }
}
