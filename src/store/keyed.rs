//! Names made into keys: a keyed hash, so that nobody can choose where they fall and a store that
//! is copied tells nothing; and the seal on what is kept under them.
//!
//! Takes: words, bytes, a key of 32 bytes. Gives: `Hashed`, sealed bytes. Errors: what does not
//! open with the key, or was changed, is `None`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::judge::subject::{Inbound, LookUp};
use crate::mail::address::Address;
use crate::mail::keyed::keyed_hash;

/// A name, hashed. Why no longer: two names with one hash are met once in millions of years, and who
/// reads a record compares its names anyway; every table of the store has it many times.
pub type Hashed = u64;

/// In the first byte of what is kept: whether it is sealed.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// One store key: what names are hashed with, and what records are sealed with.
pub struct StoreKey {
    hash: [u8; 32],
    seal: Option<LessSafeKey>,
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey")
    }
}

impl StoreKey {
    /// From 32 bytes of chance, which the caller keeps.
    pub fn new(key: [u8; 32]) -> StoreKey {
        let derived = |purpose| blake3::derive_key(purpose, &key);
        let seal = UnboundKey::new(&AES_256_GCM, &derived("replyguard store 2026 seal")).ok();
        StoreKey { hash: derived("replyguard store 2026 hash"), seal: seal.map(LessSafeKey::new) }
    }

    /// The key of these words; no two lists of words have the same.
    pub fn hashed(&self, words: &[&str]) -> Hashed {
        Hashed::from_le_bytes(keyed_hash(&self.hash, words))
    }

    /// The key of a name.
    pub fn look_up(&self, look_up: &LookUp) -> Hashed {
        self.hashed(&look_up.words())
    }

    /// The key of one who answers.
    pub fn responder(&self, responder: &Address) -> Hashed {
        self.hashed(&["responder", &responder.canonical_without_detail()])
    }

    /// Whom a record is counted under: its client (of IPv6 the /64, which one host has whole), and
    /// its MAIL FROM.
    pub fn owners(&self, record: &Inbound) -> Vec<Hashed> {
        let client = record.client.map(|ip| match ip.to_canonical() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("{:x}", u128::from(ip) >> 64),
        });
        let client = client.map(|client| self.hashed(&["client", &client]));
        let mail_from = record.mail_from.address().map(Address::canonical).unwrap_or_default();
        let mail_from = self.hashed(&["mail-from", &mail_from]);
        client.into_iter().chain([mail_from]).collect()
    }

    /// The bytes sealed, under a nonce of chance; `None` when there is no chance to be had.
    pub fn seal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = bytes.to_vec();
        let with = Nonce::assume_unique_for_key(nonce);
        self.seal.as_ref()?.seal_in_place_append_tag(with, Aad::empty(), &mut sealed).ok()?;
        let mut all = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        all.push(SEALED);
        all.extend_from_slice(&nonce);
        all.append(&mut sealed);
        Some(all)
    }

    /// The bytes as they are (`store.plain`).
    pub fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::with_capacity(1 + bytes.len());
        all.push(PLAIN);
        all.extend_from_slice(bytes);
        all
    }

    /// What was sealed or kept plain; `None` when it is neither, or not of this key.
    pub fn open(&self, kept: &[u8]) -> Option<Vec<u8>> {
        match kept.split_first()? {
            (&PLAIN, bytes) => Some(bytes.to_vec()),
            (&SEALED, rest) => {
                let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut bytes = sealed.to_vec();
                let opened = self.seal.as_ref()?.open_in_place(nonce, Aad::empty(), &mut bytes);
                let length = opened.ok()?.len();
                bytes.truncate(length);
                Some(bytes)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_with_its_key_only_and_shows_every_change() {
        let key = StoreKey::new([1; 32]);
        let sealed = key.seal(b"joe@bank.example").unwrap();
        assert!(!sealed.windows(3).any(|window| window == b"joe"));
        assert_ne!(sealed, key.seal(b"joe@bank.example").unwrap());
        assert_eq!(key.open(&sealed).unwrap(), b"joe@bank.example");
        assert_eq!(StoreKey::new([2; 32]).open(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x20;
            assert_eq!(key.open(&changed), None, "{at}");
        }
        assert_eq!(key.open(&sealed[..10]), None);
        assert_eq!(key.open(&[]), None);
        assert_eq!(key.open(&StoreKey::plain(b"x")).unwrap(), b"x");
    }

    #[test]
    fn names_are_hashed_apart_by_kind_and_key() {
        let key = StoreKey::new([1; 32]);
        let id = || "x".to_owned();
        let hashes = [
            key.look_up(&LookUp::QueueId(id())),
            key.look_up(&LookUp::MessageId(id())),
            key.look_up(&LookUp::EnvelopeId(id())),
            key.look_up(&LookUp::Pair(id(), String::new())),
            StoreKey::new([2; 32]).look_up(&LookUp::QueueId(id())),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash));
        }
    }
}
