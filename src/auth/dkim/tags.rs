//! The tag lists of DKIM and ARC: signatures, seals, key records (RFC 6376 §3.2, RFC 8617 §4.1).
//!
//! Takes: the value of the field, or the text of the TXT record. Gives: `Signature`, `Seal`,
//! `Key`.
//! Errors: `Refusal`: the result that this signature has without being looked at further.
//! Standards: RFC 6376 §3.5 (signature), §3.6.1 (key), RFC 8301 (no SHA-1, no short keys),
//! RFC 8463 (Ed25519).

use mail_auth::common::crypto::{Algorithm, VerifyingKey};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_parser::decoders::base64::base64_decode;

use crate::auth::dkim::canonical::Form;
use crate::judge::evidence::AuthResult;
use crate::mail::address::Domain;
use crate::mail::limits::{DKIM_FIELDS_SIGNED_MAX, DKIM_KEY_BITS_MIN, DKIM_TAGS_MAX};
use crate::mail::time::Timestamp;

/// A DKIM-Signature that can be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// a=; never rsa-sha1.
    pub algorithm: Algorithm,
    /// b=.
    pub signature: Vec<u8>,
    /// bh=.
    pub body_hash: Vec<u8>,
    /// c=, the header's part.
    pub header_form: Form,
    /// c=, the body's part.
    pub body_form: Form,
    /// d=.
    pub domain: Domain,
    /// s=.
    pub selector: String,
    /// h=, lower case, in order; From is among them.
    pub signed: Vec<String>,
    /// The domain of i=; within `domain`.
    pub identity: Domain,
    /// l=.
    pub body_bytes: Option<u64>,
    /// x=.
    pub expires: Option<Timestamp>,
}

/// A public key, ready to verify.
pub struct Key {
    verifier: DomainKey,
    is_strict: bool,
}

/// What a signature or key that can't be used is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `permerror` for what is wrong, `policy` for what is refused.
    pub result: AuthResult,
    /// Why.
    pub reason: &'static str,
}

impl Refusal {
    /// It is not what the standard says, or its key is not there.
    pub fn wrong(reason: &'static str) -> Refusal {
        Refusal { result: AuthResult::PermError, reason }
    }

    fn refused(reason: &'static str) -> Refusal {
        Refusal { result: AuthResult::Policy, reason }
    }
}

/// The tags in order, at most `limits::DKIM_TAGS_MAX`.
pub struct Tags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Tags<'a> {
    /// Reads `name = value ; …` with white space and folds anywhere between. `None` for what is no
    /// tag list, has a tag twice (RFC 6376 §3.2) or too many of them.
    pub fn read(text: &'a [u8]) -> Option<Tags<'a>> {
        let text = std::str::from_utf8(text).ok()?.trim_ascii();
        let text = text.strip_suffix(';').unwrap_or(text);
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for tag in text.split(';') {
            let (name, value) = tag.split_once('=')?;
            let (name, value) = (name.trim_ascii(), value.trim_ascii());
            let right = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let too_many = tags.len() == DKIM_TAGS_MAX;
            if !right || too_many || tags.iter().any(|(known, _)| *known == name) {
                return None;
            }
            tags.push((name, value));
        }
        Some(Tags(tags))
    }

    /// The value of a tag, white space inside kept; names are case-sensitive (RFC 6376 §3.2).
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Whether a colon-separated list has this word, or is not there.
    fn admits(&self, name: &str, words: &[&str]) -> bool {
        let has = |list: &str| {
            list.split(':')
                .any(|word| words.iter().any(|w| word.trim_ascii().eq_ignore_ascii_case(w)))
        };
        self.get(name).is_none_or(has)
    }
}

/// Which field a signature stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// DKIM-Signature.
    Dkim,
    /// ARC-Message-Signature: there is no v=, and i= is the instance (RFC 8617 §4.1.2).
    ArcMessage,
}

/// An ARC-Seal that can be verified (RFC 8617 §4.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// a=; never rsa-sha1.
    pub algorithm: Algorithm,
    /// b=.
    pub signature: Vec<u8>,
    /// d=.
    pub domain: Domain,
    /// s=.
    pub selector: String,
    /// cv=: `none`, `pass` or `fail`.
    pub chain: AuthResult,
}

impl Seal {
    /// Reads the value of an ARC-Seal field.
    pub fn parse(tags: &Tags<'_>) -> Result<Seal, Refusal> {
        let required = |name, reason| tags.get(name).ok_or(Refusal::wrong(reason));
        // RFC 8617 §4.1.3: "If the 'h' tag is found in an ARC-Seal, the Chain Validation Status
        // MUST be 'fail'".
        if tags.get("h").is_some() {
            return Err(Refusal::wrong("a seal with h="));
        }
        let chain = match required("cv", "no state of the chain")?.to_ascii_lowercase().as_str() {
            "none" => AuthResult::None,
            "pass" => AuthResult::Pass,
            "fail" => AuthResult::Fail,
            _ => return Err(Refusal::wrong("no state of the chain")),
        };
        let domain = Domain::parse(required("d", "no domain")?);
        Ok(Seal {
            algorithm: algorithm(required("a", "no algorithm")?)?,
            signature: base64(required("b", "no signature")?)?,
            domain: domain.ok_or(Refusal::wrong("d= is no domain"))?,
            selector: required("s", "no selector")?.to_ascii_lowercase(),
            chain,
        })
    }

    /// Where its key is published.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

impl Signature {
    /// Reads the value of a DKIM-Signature field (RFC 6376 §3.5, §6.1.1), or of its like in ARC.
    pub fn parse(tags: &Tags<'_>, role: Role) -> Result<Signature, Refusal> {
        let required = |name, reason| tags.get(name).ok_or(Refusal::wrong(reason));
        if role == Role::Dkim && required("v", "no version")? != "1" {
            return Err(Refusal::wrong("another version"));
        }
        let algorithm = algorithm(required("a", "no algorithm")?)?;
        let domain = Domain::parse(required("d", "no domain")?);
        let domain = domain.ok_or(Refusal::wrong("d= is no domain"))?;
        let identity = match tags.get("i").filter(|_| role == Role::Dkim) {
            None => domain.clone(),
            Some(identity) => {
                let host = identity.rsplit_once('@').and_then(|(_, host)| Domain::parse(host));
                let host = host.filter(|host| host.is_within(&domain));
                host.ok_or(Refusal::wrong("i= is not within d="))?
            }
        };
        let signed = required("h", "no list of fields")?.split(':');
        let signed: Vec<String> =
            signed.map(|name| name.trim_ascii().to_ascii_lowercase()).collect();
        if signed.len() > DKIM_FIELDS_SIGNED_MAX {
            return Err(Refusal::wrong("too many fields signed"));
        }
        // RFC 6376 §6.1.1: "If the 'h=' tag does not include the From header field, the Verifier
        // MUST ignore the DKIM-Signature header field".
        if !signed.iter().any(|name| name == "from") {
            return Err(Refusal::wrong("From is not signed"));
        }
        if !tags.admits("q", &["dns/txt", "dns"]) {
            return Err(Refusal::wrong("another way to query keys"));
        }
        let (header_form, body_form) = forms(tags.get("c").unwrap_or("simple"))?;
        let time = number(tags, "t")?;
        let expires = number(tags, "x")?;
        if let (Some(time), Some(expires)) = (time, expires)
            && expires <= time
        {
            return Err(Refusal::wrong("x= is not after t="));
        }
        let expires = expires.map(|seconds| {
            Timestamp::from_millis(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX))
        });
        Ok(Signature {
            algorithm,
            signature: base64(required("b", "no signature")?)?,
            body_hash: base64(required("bh", "no body hash")?)?,
            header_form,
            body_form,
            domain,
            selector: required("s", "no selector")?.to_ascii_lowercase(),
            signed,
            identity,
            body_bytes: number(tags, "l")?,
            expires,
        })
    }

    /// Where its key is published.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

impl Key {
    /// Reads a key record (RFC 6376 §3.6.1, §6.1.2).
    pub fn parse(text: &[u8]) -> Result<Key, Refusal> {
        let tags = Tags::read(text).ok_or(Refusal::wrong("the key record is no tag list"))?;
        if tags.get("v").is_some_and(|version| version != "DKIM1") {
            return Err(Refusal::wrong("another version of the key record"));
        }
        if !tags.admits("h", &["sha256"]) {
            return Err(Refusal::wrong("the key is not for SHA-256"));
        }
        if !tags.admits("s", &["*", "email"]) {
            return Err(Refusal::wrong("the key is not for mail"));
        }
        match tags.get("p") {
            None => return Err(Refusal::wrong("the key record has no key")),
            Some("") => return Err(Refusal::wrong("the key was revoked")),
            Some(_) => {}
        }
        let is_strict = tags.get("t").is_some() && tags.admits("t", &["s"]);
        let verifier = DomainKey::parse(text);
        let verifier = verifier.map_err(|_| Refusal::wrong("the key cannot be read"))?;
        if verifier.p.public_key_bits() < DKIM_KEY_BITS_MIN {
            return Err(Refusal::refused("the key has less than 1024 bits"));
        }
        Ok(Key { verifier, is_strict })
    }

    /// Whether i= must be d= itself (t=s).
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether this is the signature of these canonical bytes.
    pub fn verifies(&self, covered: &[u8], signature: &[u8], algorithm: Algorithm) -> bool {
        let key: &dyn VerifyingKey = self.verifier.p.as_ref();
        key.verify_bytes(covered, signature, algorithm).is_ok()
    }
}

fn algorithm(name: &str) -> Result<Algorithm, Refusal> {
    match name.to_ascii_lowercase().as_str() {
        "rsa-sha256" => Ok(Algorithm::RsaSha256),
        "ed25519-sha256" => Ok(Algorithm::Ed25519Sha256),
        // RFC 8301 §3.1: "rsa-sha1 MUST NOT be used for signing or verifying".
        "rsa-sha1" => Err(Refusal::refused("rsa-sha1")),
        _ => Err(Refusal::wrong("another algorithm")),
    }
}

/// c=: `header/body`; the body is simple when not said (RFC 6376 §3.5).
fn forms(value: &str) -> Result<(Form, Form), Refusal> {
    let (header, body) = value.split_once('/').unwrap_or((value, "simple"));
    let form = |word: &str| match word.trim_ascii().to_ascii_lowercase().as_str() {
        "simple" => Ok(Form::Simple),
        "relaxed" => Ok(Form::Relaxed),
        _ => Err(Refusal::wrong("another canonical form")),
    };
    Ok((form(header)?, form(body)?))
}

/// Digits; more than a number can hold is as good as the largest (RFC 6376 §3.5, t=).
fn number(tags: &Tags<'_>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(digits) = tags.get(name) else { return Ok(None) };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::wrong("a number that is none"));
    }
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}

/// Base64 with white space anywhere.
fn base64(text: &str) -> Result<Vec<u8>, Refusal> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = base64_decode(&text).filter(|bytes| !bytes.is_empty());
    decoded.ok_or(Refusal::wrong("a signature that is no Base64"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_list_is_read_whole_or_not_at_all() {
        let read = |text: &str| Tags::read(text.as_bytes()).map(|tags| tags.0.len());
        assert_eq!(read(" a = b c\r\n d ;\r\n e=;"), Some(2));
        assert_eq!(Tags::read(b"a = b c\r\n d; e=").unwrap().get("a"), Some("b c\r\n d"));
        for text in
            ["", ";", "a", "a=b;;c=d", "=b", "1a=b", "a b=c", "a=b; a=c", "a=b; c", "\u{e4}=b"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(Tags::read(b"a=\xff").map(|tags| tags.0.len()), None);
    }

    #[test]
    fn a_long_tag_list_is_refused_before_it_costs_time() {
        let list = |count: usize| (0..count).map(|n| format!("t{n}=x;")).collect::<String>();
        let read = |text: &str| Tags::read(text.as_bytes()).map(|tags| tags.0.len());
        assert_eq!(read(&list(DKIM_TAGS_MAX)), Some(DKIM_TAGS_MAX));
        assert_eq!(read(&list(DKIM_TAGS_MAX + 1)), None);
    }

    #[test]
    fn a_signature_is_read_with_its_defaults() {
        let tags = " v=1; a=Ed25519-SHA256; d=A.example; s=Sel; h=To : From:\r\n\tfrom; \
                    bh=AA\r\n AA; b=BBBB; x=99999999999999999999; l=0; z=any; q=dns/txt:other";
        let signature =
            Signature::parse(&Tags::read(tags.as_bytes()).unwrap(), Role::Dkim).unwrap();
        assert_eq!(signature.key_name(), "sel._domainkey.a.example");
        assert_eq!(signature.signed, ["to", "from", "from"]);
        assert_eq!((signature.header_form, signature.body_form), (Form::Simple, Form::Simple));
        assert_eq!(signature.identity, signature.domain);
        assert_eq!((signature.body_hash, signature.body_bytes), (vec![0; 3], Some(0)));
        assert_eq!(signature.expires, Some(Timestamp::from_millis(i64::MAX)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_refused(text in vec(any::<u8>(), 0..80)) {
            let _ = Key::parse(&text);
            let _ = Key::parse(&[b"v=DKIM1; p=".to_vec(), text].concat());
        }
    }
}
