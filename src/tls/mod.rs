//! TLS over any stream: certificates and trust in, connections out; no sockets of its own.
//!
//! Takes: PEM text, streams. Gives: `Identity` and `Acceptor` for listeners, `Connector` for next
//! hops, both sides' `Stream`. Errors: `PemFault` for the administrator, `HandshakeFault`.
//! Bounds: `limits_of_tls`. TLS 1.2 and 1.3, cryptography of aws-lc, all through rustls.
//! Standards: RFC 5246, RFC 8446, RFC 6125, RFC 7672 §3.1.1 in spirit (a pinned certificate needs
//! neither name nor date).

pub mod client;
pub mod server;
pub mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::{
    CertificateError, CommonState, Error as RustlsError, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion, version,
};

use crate::mail::envelope::Secured;
use crate::mail::limits_of_tls::HANDSHAKE_DEADLINE;
use crate::mail::time::Timestamp;
use crate::tls::stream::Stream;

/// What is spoken: nothing below TLS 1.2 (RFC 8996).
const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// Why certificates or a key cannot be used; for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// No section that could be one.
    #[error("holds no certificate: it must be PEM, \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    /// No section that could be one.
    #[error(
        "holds no private key: it must be PEM without password, \"-----BEGIN PRIVATE KEY-----\""
    )]
    NoKey,
    /// Broken PEM or DER.
    #[error("is broken: {0}")]
    Broken(String),
    /// Of another certificate.
    #[error("the key does not belong to the certificate: name the key it was requested with")]
    KeyMismatch,
}

/// Why there is no TLS with a peer; its fault or ours, as the words say.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// It took too long.
    #[error("no TLS handshake within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The certificate of the next hop is not what the settings trust.
    #[error("its certificate is not trusted: {0}; see docs/tls.md")]
    Certificate(CertificateError),
    /// Everything else, in rustls' words.
    #[error("TLS: {0}")]
    Tls(RustlsError),
    /// The connection.
    #[error("TLS: {0}")]
    Io(io::Error),
}

impl From<io::Error> for HandshakeFault {
    fn from(fault: io::Error) -> HandshakeFault {
        match fault.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(RustlsError::InvalidCertificate(fault)) => {
                HandshakeFault::Certificate(fault.clone())
            }
            Some(fault) => HandshakeFault::Tls(fault.clone()),
            None => HandshakeFault::Io(fault),
        }
    }
}

/// One cryptography for all.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates of a PEM text, one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(PemFault::NoCertificate),
        Ok(found) => Ok(found),
        Err(fault) => Err(PemFault::Broken(fault.to_string())),
    }
}

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Before it, it does not; `None` when that cannot be read.
    pub from: Option<Timestamp>,
    /// After it, it does no more.
    pub until: Option<Timestamp>,
}

impl Validity {
    /// Why this way: who verifies a certificate at the end of time is told when it ended, and the
    /// same at the beginning. So nothing but the verifier reads X.509.
    fn of(certificate: &CertificateDer<'_>) -> Validity {
        let verdict = |now: UnixTime| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone().into_owned()).ok()?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
            let name = rustls_pki_types::ServerName::try_from("localhost").ok()?;
            match verifier.build().ok()?.verify_server_cert(certificate, &[], &name, &[], now) {
                Err(RustlsError::InvalidCertificate(fault)) => Some(fault),
                _ => None,
            }
        };
        let at = |time: UnixTime| i64::try_from(time.as_secs()).ok()?.checked_mul(1000);
        let last = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));
        Validity {
            from: match verdict(UnixTime::since_unix_epoch(Duration::ZERO)) {
                Some(CertificateError::NotValidYetContext { not_before, .. }) => at(not_before),
                _ => None,
            }
            .map(Timestamp::from_millis),
            until: match verdict(last) {
                Some(CertificateError::ExpiredContext { not_after, .. }) => at(not_after),
                _ => None,
            }
            .map(Timestamp::from_millis),
        }
    }
}

/// Waits for a handshake, within `HANDSHAKE_DEADLINE`.
async fn made<S, T: Into<TlsStream<S>>>(
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<(Stream<S>, Secured), HandshakeFault> {
    let stream = match timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(made) => made?.into(),
        Err(_) => return Err(HandshakeFault::Deadline(HANDSHAKE_DEADLINE)),
    };
    let facts = secured(stream.get_ref().1);
    Ok((Stream::Encrypted(Box::new(stream)), facts))
}

/// What was agreed on, as `Received` lines and records have it.
fn secured(connection: &CommonState) -> Secured {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    // rustls says TLS13_ where everybody else says TLS_ (RFC 8446 §B.4).
    let cipher = suite.unwrap_or("unknown").replacen("TLS13_", "TLS_", 1);
    Secured { version: version.to_owned(), cipher }
}
