//! The taps before real servers: inbound mail is seen, verified and remembered.

mod exim;
pub mod host;
mod milter;
mod rspamd;
mod vacations;
mod ways;

use base64::prelude::{BASE64_STANDARD, Engine};
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::{DkimSigner, Done};

/// Signs letters, and says what its zone must publish.
pub struct Signer {
    signer: DkimSigner<Ed25519Key, Done>,
    key: String,
}

impl Signer {
    /// A key of this domain, made now.
    pub fn of(domain: &str) -> Self {
        let pkcs8 = Ed25519Key::generate_pkcs8().unwrap();
        let key = Ed25519Key::from_pkcs8_der(&pkcs8).unwrap();
        let record = format!(
            "s._domainkey.{domain} TXT \"v=DKIM1; k=ed25519; p={}\"",
            BASE64_STANDARD.encode(key.public_key())
        );
        let signer = DkimSigner::from_key(key).domain(domain).selector("s");
        let signer = signer.headers(["From", "To", "Subject", "Date", "Message-ID"]);
        Self { signer, key: record }
    }

    /// The line of the zone with the public key.
    pub fn zone(&self) -> &str {
        &self.key
    }

    /// The letter with its signature on top.
    pub fn sign(&self, letter: &str) -> String {
        let signature = self.signer.sign(letter.as_bytes()).unwrap();
        format!("{}{letter}", signature.to_header())
    }
}
