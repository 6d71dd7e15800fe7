//! The side that looks at a certificate: next hops.
//!
//! Takes: whom to trust. Gives: `Connector`. Errors: `PemFault`, `RootsFault`, `HandshakeFault`.
//! Why the system's roots (rustls-native-certs) and no list of our own: a list that is compiled in
//! ages with the binary, and what an administrator adds to or takes from the system counts.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme,
};

use crate::mail::envelope::Secured;
use crate::mail::hex::hex;
use crate::mail::limits_of_tls::TLS_BUFFER_BYTES;
use crate::tls::stream::Stream;
use crate::tls::{HandshakeFault, PemFault, VERSIONS, certificates, made, provider};

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads 64 hexadecimal digits, with or without colons, as `openssl x509 -fingerprint -sha256`
    /// prints them.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| *byte != b':')
            .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high * 16 + low).collect();
        rest.is_empty().then(|| bytes.try_into().ok().map(Fingerprint)).flatten()
    }

    fn of(certificate: &CertificateDer<'_>) -> Option<Fingerprint> {
        digest(&SHA256, certificate).as_ref().try_into().ok().map(Fingerprint)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever answers: nobody can listen in, but anybody can answer.
    Anyone,
    /// Whoever has a certificate for the name, of an authority that the system trusts.
    System,
    /// Whoever has a certificate for the name, of one of these authorities.
    Authorities(Vec<CertificateDer<'static>>),
    /// Whoever has one of these certificates, whatever name and date stand in it.
    Pinned(Vec<Fingerprint>),
}

impl Trust {
    /// Authorities of a PEM text.
    pub fn authorities(pem: &[u8]) -> Result<Trust, PemFault> {
        Ok(Trust::Authorities(certificates(pem)?))
    }
}

/// Why nobody can be trusted; for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustFault {
    /// The system has no certificates of authorities, or none can be read.
    #[error(
        "the system has no certificates of authorities: install ca-certificates, or set `ca_file`"
    )]
    NoSystemRoots,
    /// A certificate of an authority cannot be used.
    #[error("a certificate in it cannot be that of an authority: {0}")]
    Unusable(String),
}

/// Makes handshakes with next hops. Two are equal when they trust the same.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    trust: Trust,
}

impl Connector {
    /// Trusts these.
    pub fn new(trust: Trust) -> Result<Connector, TrustFault> {
        let unusable = |fault: &dyn fmt::Display| TrustFault::Unusable(fault.to_string());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|fault| unusable(&fault))?;
        let roots = match &trust {
            Trust::Anyone | Trust::Pinned(_) => None,
            Trust::System => Some(system_roots()?),
            Trust::Authorities(all) => {
                let mut roots = RootCertStore::empty();
                for one in all {
                    roots.add(one.clone()).map_err(|fault| unusable(&fault))?;
                }
                Some(roots)
            }
        };
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            Some(roots) => {
                let roots = Arc::new(roots);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
                verifier.build().map_err(|fault| unusable(&fault))?
            }
            None => Arc::new(Pins { trust: trust.clone(), provider: provider() }),
        };
        let config =
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Connector { config: Arc::new(config), trust })
    }

    /// Whether who answers has to show who it is.
    pub fn verifies(&self) -> bool {
        self.trust != Trust::Anyone
    }

    /// The handshake with who should have this name, within `limits_of_tls::HANDSHAKE_DEADLINE`.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> Result<(Stream<S>, Secured), HandshakeFault> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connecting = connector.connect_with(name, stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        made(connecting).await
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Connector) -> bool {
        self.trust == other.trust
    }
}

impl Eq for Connector {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trust {
            Trust::Authorities(all) => write!(f, "Connector({} authorities)", all.len()),
            trust => write!(f, "Connector({trust:?})"),
        }
    }
}

/// Those that can be used: one odd certificate of a system must not cost all the others.
fn system_roots() -> Result<RootCertStore, TrustFault> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match added {
        0 => Err(TrustFault::NoSystemRoots),
        _ => Ok(roots),
    }
}

/// Looks at the certificate alone, or at nothing. That the peer has its key is looked at in any case.
#[derive(Debug)]
struct Pins {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let trusted = match &self.trust {
            Trust::Anyone => true,
            Trust::Pinned(pins) => {
                Fingerprint::of(end_entity).is_some_and(|shown| pins.contains(&shown))
            }
            Trust::System | Trust::Authorities(_) => false,
        };
        match trusted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
        let plain = "00".repeat(31) + "aF";
        let colons = format!("{}AF", "00:".repeat(31));
        assert_eq!(Fingerprint::parse(&plain), Fingerprint::parse(&colons));
        assert!(format!("{:?}", Fingerprint::parse(&plain).unwrap()).ends_with("00af"));
        for text in ["", "ab", &plain[1..], &format!("{plain}00"), &plain.replace('a', "g")] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }
}
