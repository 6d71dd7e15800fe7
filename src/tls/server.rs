//! The side that shows a certificate: listeners.
//!
//! Takes: a chain and a key in PEM. Gives: `Identity`; an `Acceptor` whose identity can be changed
//! while it serves. Errors: `PemFault`, `HandshakeFault`.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{Error as RustlsError, InconsistentKeys, ServerConfig};

use crate::mail::envelope::Secured;
use crate::mail::limits_of_tls::TLS_BUFFER_BYTES;
use crate::tls::stream::Stream;
use crate::tls::{HandshakeFault, PemFault, VERSIONS, Validity, certificates, made, provider};

/// A certificate chain with its key. Two are equal when their certificates are.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    chain: Vec<u8>,
    /// From when to when the first certificate holds.
    pub validity: Validity,
}

/// Which of two files a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// That of the certificate.
    Certificate,
    /// That of the key.
    Key,
}

impl Identity {
    /// Reads a chain, our own certificate first, and its key.
    pub fn read(chain_pem: &[u8], key_pem: &[u8]) -> Result<Identity, (File, PemFault)> {
        let chain = certificates(chain_pem).map_err(|fault| (File::Certificate, fault))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|fault| match fault {
            PemError::NoItemsFound => (File::Key, PemFault::NoKey),
            fault => (File::Key, PemFault::Broken(fault.to_string())),
        })?;
        let validity = chain.first().map(Validity::of).unwrap_or_default();
        let bytes: Vec<u8> = chain.iter().flat_map(|one| one.iter().copied()).collect();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|fault| match fault {
                RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    (File::Key, PemFault::KeyMismatch)
                }
                RustlsError::InvalidCertificate(fault) => {
                    (File::Certificate, PemFault::Broken(fault.to_string()))
                }
                fault => (File::Key, PemFault::Broken(fault.to_string())),
            })?;
        Ok(Identity { config: Arc::new(config), chain: bytes, validity })
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// Makes handshakes with clients.
#[derive(Debug)]
pub struct Acceptor(ArcSwap<Identity>);

impl Acceptor {
    /// Shows this certificate.
    pub fn new(identity: Identity) -> Acceptor {
        Acceptor(ArcSwap::from_pointee(identity))
    }

    /// From now on shows this one; connections that stand keep theirs. Whether it is another.
    pub fn replace(&self, identity: Identity) -> bool {
        let is_other = **self.0.load() != identity;
        self.0.store(Arc::new(identity));
        is_other
    }

    /// From when to when the certificate that is shown holds.
    pub fn validity(&self) -> Validity {
        self.0.load().validity
    }

    /// The handshake, within `limits_of_tls::HANDSHAKE_DEADLINE`.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Stream<S>, Secured), HandshakeFault> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0.load().config));
        let accepting = acceptor.accept_with(stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        made(accepting).await
    }
}
