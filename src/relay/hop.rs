//! A next hop: where it is, how it is spoken to, and who we are to it.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::mail::envelope::Secured;
use crate::tls::HandshakeFault;
use crate::tls::client::Connector;
use crate::tls::stream::Stream;
use crate::wire::endpoint::NextHop;
use crate::wire::opening::{Login, Wish};
use crate::wire::secure::{Channel, TlsUse};

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where it is and what it speaks.
    pub at: NextHop,
    /// The TLS that is spoken; `None`: everything is said in the clear.
    pub tls: Option<HopTls>,
    /// Who we are to it, where it asks.
    pub login: Option<Login>,
    /// Whether that may be said in the clear.
    pub login_in_clear: bool,
}

/// How TLS is spoken with a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopTls {
    /// Whether there may be none.
    pub is_required: bool,
    /// Whom to trust.
    pub connector: Arc<Connector>,
    /// The name that its certificate must have, where names are looked at.
    pub name: ServerName<'static>,
}

impl Hop {
    /// One that is spoken to in the clear, without a name.
    pub fn clear(at: NextHop) -> Hop {
        Hop { at, tls: None, login: None, login_in_clear: false }
    }

    /// Whether TLS is wanted.
    pub fn tls_use(&self) -> TlsUse {
        match &self.tls {
            None => TlsUse::Off,
            Some(tls) if tls.is_required => TlsUse::Required,
            Some(_) => TlsUse::Opportunistic,
        }
    }

    /// What is wanted of a session; TLS may be left away this time.
    pub fn wish(&self, hostname: &str, tls: TlsUse) -> Wish {
        Wish {
            protocol: self.at.protocol(),
            hostname: hostname.to_owned(),
            tls,
            login: self.login.clone(),
            login_in_clear: self.login_in_clear,
        }
    }
}

impl HopTls {
    /// The handshake.
    pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Stream<S>, Secured), HandshakeFault> {
        self.connector.connect(self.name.clone(), stream).await
    }

    /// What a connection has after it.
    pub fn channel(&self) -> Channel {
        match self.connector.verifies() {
            true => Channel::Verified,
            false => Channel::Encrypted,
        }
    }
}
