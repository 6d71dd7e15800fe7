//! Pseudonyms: the audit log without the names of people (`audit.pseudonymise = true`).
//!
//! Takes: a record. Gives: the same with every local part replaced by a keyed hash; the domain
//! stays, because verdicts are about domains. One mailbox has one pseudonym as long as the key is
//! kept. What is replaced: every address, wherever it stands in the record's texts, but not in ids
//! (Message-ID, queue id), which are needed to find a message.
//! Limits: a person's name in a text is not found; a decision about one address cannot be replayed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::audit::disk::{Disk, DiskFile, How, write_all};
use crate::audit::fault::{Error, disk};
use crate::audit::record::Record;
use crate::mail::address::Address;

/// Fields whose `@` is no address.
const IDS: &[&str] = &["message_id", "id"];

const KEY_BYTES: usize = 32;

/// The key that pseudonyms are made with.
#[derive(Clone)]
pub struct Pseudonyms {
    key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms")
    }
}

impl Pseudonyms {
    /// With a key that the caller keeps.
    pub fn new(key: [u8; KEY_BYTES]) -> Pseudonyms {
        Pseudonyms { key }
    }

    /// With the key in this file; a new one is made, readable by us alone, when there is none.
    ///
    /// Blocks. A file of another size is an error: pseudonyms must not change unnoticed.
    pub fn open(disk_layer: &dyn Disk, path: &Path) -> Result<Pseudonyms, Error> {
        let file = match disk_layer.open(path, How::Read) {
            Ok(file) => file,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                return Pseudonyms::create(disk_layer, path);
            }
            Err(fault) => return Err(Error::disk("read", path, &fault)),
        };
        let mut key = [0; KEY_BYTES];
        let whole = file.size_bytes().map_err(disk("read", path))? == 32
            && file.read_at(&mut key, 0).map_err(disk("read", path))? == KEY_BYTES;
        let path = path.display().to_string();
        whole.then_some(Pseudonyms { key }).ok_or(Error::Damaged { path, what: "not 32 bytes" })
    }

    fn create(disk_layer: &dyn Disk, path: &Path) -> Result<Pseudonyms, Error> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)
            .map_err(|fault| Error::disk("make a key for", path, &io::Error::other(fault)))?;
        let write = || -> io::Result<()> {
            let file: Arc<dyn DiskFile> = disk_layer.open(path, How::New(0o600))?;
            write_all(&*file, &key)?;
            file.sync()?;
            disk_layer.sync_folder(path.parent().unwrap_or(Path::new(".")))
        };
        write().map_err(disk("write", path))?;
        Ok(Pseudonyms { key })
    }

    /// The address with its local part replaced; what is no address stays.
    pub fn address(&self, text: &str) -> String {
        let Some(address) = Address::parse(text) else { return text.to_owned() };
        let (_, domain) = text.rsplit_once('@').unwrap_or_default();
        self.pseudonym(address.local(), domain)
    }

    /// The text with every address in it replaced.
    pub fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('@') {
            let local_at = local_start(before);
            let (front, local) = before.split_at_checked(local_at).unwrap_or((before, ""));
            let domain_end = after.find(|c: char| !is_domain(c)).unwrap_or(after.len());
            let (domain, behind) = after.split_at_checked(domain_end).unwrap_or((after, ""));
            out.push_str(front);
            match local.is_empty() || domain.is_empty() {
                true => {
                    out.push_str(local);
                    out.push('@');
                    rest = after;
                }
                false => {
                    out.push_str(&self.pseudonym(local, domain));
                    rest = behind;
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// The record without names. Text fields are searched for addresses; a field that is one
    /// address is read as such, so that a quoted local part is found too.
    pub fn record(&self, record: &Record) -> Result<Record, Error> {
        let unwritten = |fault: serde_json::Error| Error::Unwritten {
            event: record.event.clone(),
            fault: fault.to_string(),
        };
        let mut value = serde_json::to_value(record).map_err(unwritten)?;
        self.replace(&mut value);
        serde_json::from_value(value).map_err(unwritten)
    }

    // Why over the JSON and not field by field: a field added later is covered without a thought.
    fn replace(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.contains('@') => {
                let whole = Address::parse(text).is_some();
                *text = if whole { self.address(text) } else { self.text(text) };
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.replace(value)),
            Value::Object(fields) => {
                let named = fields.iter_mut().filter(|(name, _)| !IDS.contains(&name.as_str()));
                named.for_each(|(_, value)| self.replace(value));
            }
            _ => {}
        }
    }

    /// Why the domain is hashed too: one name at two domains must not show as one person.
    fn pseudonym(&self, local: &str, domain: &str) -> String {
        let domain = domain.trim_end_matches('.');
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(local.trim_matches('"').to_ascii_lowercase().as_bytes());
        hasher.update(b"@");
        hasher.update(domain.to_ascii_lowercase().as_bytes());
        let hash = hasher.finalize().to_hex();
        format!("p-{}@{domain}", hash.as_str().get(..16).unwrap_or_default())
    }
}

/// Where the local part begins that stands at the end of this text, quoted or not.
fn local_start(before: &str) -> usize {
    let opening = before.strip_suffix('"').and_then(|rest| rest.rfind('"'));
    let bare = || before.char_indices().rev().take_while(|(_, c)| is_local(*c)).last();
    opening.or_else(|| bare().map(|(at, _)| at)).unwrap_or(before.len())
}

fn is_local(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"'".contains(c)
}

fn is_domain(c: char) -> bool {
    c.is_alphanumeric() || "-_.[]:".contains(c)
}

#[cfg(test)]
mod tests {
    use crate::audit::disk::RealDisk;

    use super::*;

    #[test]
    fn the_domain_stays_and_one_mailbox_has_one_pseudonym() {
        let pseudonyms = Pseudonyms::new([7; 32]);
        let joe = pseudonyms.address("Joe@bank.example");
        assert_eq!(joe, pseudonyms.address("joe@bank.example"));
        assert_eq!(joe, pseudonyms.address("\"joe\"@bank.example"));
        assert!(joe.starts_with("p-") && joe.ends_with("@bank.example"), "{joe}");
        assert!(Address::parse(&joe).is_some());
        assert_ne!(joe, pseudonyms.address("ann@bank.example"));
        let elsewhere = pseudonyms.address("joe@shop.example");
        assert_ne!(joe.split('@').next(), elsewhere.split('@').next());
        assert_ne!(joe, Pseudonyms::new([8; 32]).address("joe@bank.example"));
        assert_eq!(pseudonyms.address(""), "");
    }

    #[test]
    fn addresses_in_a_text_are_found() {
        let pseudonyms = Pseudonyms::new([7; 32]);
        let joe = pseudonyms.address("joe@bank.example");
        for (text, expected) in [
            ("550 5.1.1 <joe@bank.example>: unknown", format!("550 5.1.1 <{joe}>: unknown")),
            ("joe@bank.example, joe@bank.example", format!("{joe}, {joe}")),
            ("to joe@bank.example; for", format!("to {joe}; for")),
            ("at 10:00 @ the office", "at 10:00 @ the office".to_owned()),
            ("@", "@".to_owned()),
            ("ä@", "ä@".to_owned()),
        ] {
            assert_eq!(pseudonyms.text(text), expected);
        }
        for text in ["for \"joe smith\"@bank.example", "mailfrom=joe@bank.example", "<joe@b.x@c>"] {
            assert!(!pseudonyms.text(text).contains("joe"), "{text}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_a_broken_one_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let first = Pseudonyms::open(&RealDisk, &path).unwrap();
        let second = Pseudonyms::open(&RealDisk, &path).unwrap();
        assert_eq!(first.address("joe@bank.example"), second.address("joe@bank.example"));
        std::fs::write(&path, b"short").unwrap();
        let error = Pseudonyms::open(&RealDisk, &path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}
