//! Certificates for tests: an authority that nobody else trusts, and what it signs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use replyguard::mail::hex::hex;
use replyguard::tls::client::{Connector, Trust};
use replyguard::tls::server::{Acceptor, Identity};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
}

/// Whether a certificate holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// From 1975 to 4096.
    Always,
    /// It ended in 2020.
    Ended,
    /// It ends three days from now.
    EndsSoon,
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names or addresses.
    pub fn issue(&self, names: &[&str], dates: Dates) -> Issued {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        match dates {
            Dates::Always => {}
            Dates::Ended => {
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            Dates::EndsSoon => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                params.not_after =
                    date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3 * 86_400);
            }
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let hash = digest(&SHA256, certificate.der());
        Issued {
            fingerprint: hex(hash.as_ref()),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Who trusts this authority.
    pub fn connector(&self) -> Connector {
        Connector::new(Trust::authorities(self.pem().as_bytes()).unwrap()).unwrap()
    }
}

impl Issued {
    /// As files of an administrator: certificate and key, for nobody else to read.
    pub fn files(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, &self.certificate).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        (certificate, key)
    }

    /// To be shown to clients.
    pub fn identity(&self) -> Identity {
        Identity::read(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// Who shows it.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor::new(self.identity())
    }
}
