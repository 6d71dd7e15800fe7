//! DKIM: who signed a message, and what of it.
//!
//! Takes: a message, or its header alone, and the time. Gives: `Prepared` (pure, the CPU's part),
//! then `DkimReport` (DNS's part), one outcome for each signature up to a cap.
//! Errors: none; trouble is a result. Bounds: `limits::DKIM_*`.
//! Standards: RFC 6376, RFC 8301, RFC 8463; RFC 5322 §3.6.2 (From).
//!
//! mail-auth does the cryptography; what is signed is decided here, because the outcome must say
//! more than pass or fail: which fields stand under the signature, whether the header alone is
//! proven (a DSN that returns only headers), and whether a failure speaks against the message.

pub mod canonical;
pub mod tags;

use mail_auth::common::crypto::HashAlgorithm;
use tokio::time::Instant;

use crate::auth::dkim::canonical::{Body, Form, without_signature, write};
use crate::auth::dkim::tags::{Key, Refusal, Role, Signature, Tags};
use crate::auth::dns::{Answer, Dns, Kind, Question, Record};
use crate::judge::evidence::{AuthResult, DkimFinding, SignatureId};
use crate::mail::address::Domain;
use crate::mail::author::Author;
use crate::mail::limits::{
    DKIM_CANONICAL_BYTES_MAX, DKIM_HEADER_BYTES_MAX, DKIM_KEYS_MAX, DKIM_SIGNATURES_MAX,
};
use crate::mail::raw::{RawField, split};
use crate::mail::time::Timestamp;

/// How much of the message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The header only; the body was not returned or not read.
    Header,
}

/// What a signature proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// The signed fields only: the body is another, partly unsigned, or not there. Less than
    /// `pass`, never to be reported as such; and a signature can be replayed.
    Header,
    /// The signed fields and the whole body.
    Message,
}

/// What one signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimOutcome {
    /// The result, in the words of RFC 8601 §2.7.1.
    pub result: AuthResult,
    /// What is proven of the message.
    pub proof: Proof,
    /// d=; `None` when it cannot be read.
    pub domain: Option<Domain>,
    /// s=; empty when it cannot be read.
    pub selector: String,
    /// Whether every From field there is stands under the signature.
    pub signs_from: bool,
    /// Whether there is a Sender field, and every one stands under the signature.
    pub signs_sender: bool,
    /// Why it is not `pass`; empty when it is.
    pub reason: String,
    /// Which signature it is; `None` when it cannot be read.
    pub signature: Option<SignatureId>,
}

impl DkimOutcome {
    /// The finding for the judge.
    pub fn finding(&self) -> DkimFinding {
        DkimFinding {
            signs_from: self.signs_from,
            signs_sender: self.signs_sender,
            header_only: self.proof == Proof::Header,
            reason: (!self.reason.is_empty()).then(|| self.reason.clone()),
            signature: self.signature,
            ..DkimFinding::of(self.result, self.domain.clone())
        }
    }
}

/// What all signatures say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimReport {
    /// One for each DKIM-Signature, from the top, at most `limits::DKIM_SIGNATURES_MAX`, and no more
    /// than fit `limits::DKIM_CANONICAL_BYTES_MAX`.
    pub signatures: Vec<DkimOutcome>,
    /// How many more there were.
    pub signatures_left_out: usize,
    /// Who claims to have written it.
    pub author: Author,
}

/// A message made ready: everything but the keys.
#[derive(Clone, Debug)]
pub struct Prepared {
    candidates: Vec<Candidate>,
    left_out: usize,
    author: Author,
}

#[derive(Clone, Debug)]
struct Candidate {
    outcome: DkimOutcome,
    /// What is still to be verified; `None` when the outcome stands already.
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    signature: Signature,
    canonical_header: Vec<u8>,
    body: BodyState,
}

/// How the body stands to a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// It is the one signed, all of it.
    Covered,
    /// It is another.
    Other,
    /// It goes on behind what is signed.
    Partly,
    /// It is not there.
    Missing,
}

impl Prepared {
    /// The signing domain that is asked first; empty when none is.
    pub fn first_domain(&self) -> &str {
        let mut open = self.candidates.iter().filter(|candidate| candidate.open.is_some());
        open.find_map(|candidate| candidate.outcome.domain.as_ref()).map_or("", Domain::as_str)
    }

    /// Which signatures there are that can be read, each with its domain.
    pub fn signatures(&self) -> impl Iterator<Item = (&Domain, SignatureId)> {
        let outcomes = self.candidates.iter().map(|candidate| &candidate.outcome);
        outcomes.filter_map(|outcome| outcome.domain.as_ref().zip(outcome.signature))
    }

    /// Reads the signatures and hashes what they sign. No I/O; the body is hashed at most twice,
    /// so a large message belongs on a thread that may block. `now` is when the message came in:
    /// a signature that was good then has not expired since.
    pub fn read(message: &[u8], extent: Extent, now: Timestamp) -> Prepared {
        let (mut fields, body) = split(message);
        if message.len() - body.len() > DKIM_HEADER_BYTES_MAX {
            fields.clear();
        }
        let author = Author::of(&fields);
        let mut prepared = Prepared { candidates: Vec::new(), left_out: 0, author };
        let mut hashes = BodyHashes::new(match extent {
            Extent::Whole => Some(body),
            Extent::Header => None,
        });
        let signatures = fields.iter().enumerate().filter(|(_, field)| field.is("DKIM-Signature"));
        let mut kept = 0;
        for (index, field) in signatures {
            if prepared.candidates.len() == DKIM_SIGNATURES_MAX {
                prepared.left_out += 1;
                continue;
            }
            let candidate = candidate(&fields, index, field, &mut hashes, now);
            let bytes = candidate.open.as_ref().map_or(0, |open| open.canonical_header.len());
            if kept + bytes > DKIM_CANONICAL_BYTES_MAX {
                prepared.left_out += 1;
                continue;
            }
            kept += bytes;
            prepared.candidates.push(candidate);
        }
        prepared
    }

    /// `temperror` for each signature whose key would have to be asked for.
    pub fn unanswered(self, reason: &str) -> DkimReport {
        let settled = |mut candidate: Candidate| {
            if candidate.open.is_some() {
                candidate.outcome.result = AuthResult::TempError;
                candidate.outcome.reason = reason.to_owned();
            }
            candidate.outcome
        };
        let signatures = self.candidates.into_iter().map(settled).collect();
        DkimReport { signatures, signatures_left_out: self.left_out, author: self.author }
    }

    /// Fetches the keys, all at once, and verifies.
    pub async fn verify(self, dns: &Dns, deadline: Instant) -> DkimReport {
        let ask = |candidate: Candidate| {
            let open = candidate.open.map(|open| {
                let question = Question::new(Kind::Txt, &open.signature.key_name());
                (open, dns.begin(question))
            });
            (candidate.outcome, open)
        };
        let asked: Vec<_> = self.candidates.into_iter().map(ask).collect();
        let mut signatures = Vec::with_capacity(asked.len());
        for (mut outcome, open) in asked {
            if let Some((open, pending)) = open {
                match pending.answer(deadline).await {
                    Ok(answer) => outcome.settle(&open, &answer),
                    Err(trouble) => {
                        outcome.result = AuthResult::TempError;
                        outcome.reason = trouble.to_string();
                    }
                }
            }
            signatures.push(outcome);
        }
        DkimReport { signatures, signatures_left_out: self.left_out, author: self.author }
    }
}

impl DkimOutcome {
    fn refuse(&mut self, refusal: &Refusal) {
        self.result = refusal.result;
        self.reason = refusal.reason.to_owned();
    }

    /// What the signature is worth, now that the answer with the key is there.
    fn settle(&mut self, open: &Open, answer: &Answer) {
        let key = match key(answer) {
            Ok(key) => key,
            Err(refusal) => return self.refuse(&refusal),
        };
        let signature = &open.signature;
        let (result, reason) = if key.is_strict() && signature.identity != signature.domain {
            (AuthResult::Fail, "i= is not d=, as the key asks for")
        } else if !key.verifies(&open.canonical_header, &signature.signature, signature.algorithm) {
            (AuthResult::Fail, "the signature is not of this header and key")
        } else {
            self.proof = Proof::Header;
            match open.body {
                BodyState::Covered => {
                    self.proof = Proof::Message;
                    (AuthResult::Pass, "")
                }
                BodyState::Other => (AuthResult::Neutral, "the body is not the one signed"),
                BodyState::Partly => (AuthResult::Policy, "l= leaves a part of the body unsigned"),
                BodyState::Missing => (AuthResult::Neutral, "the body is not there"),
            }
        };
        self.result = result;
        self.reason = reason.to_owned();
    }
}

/// The key of an answer: of several records the first that can be used (RFC 6376 §3.6.2.2).
pub fn key(answer: &Answer) -> Result<Key, Refusal> {
    let mut refusal = Refusal::wrong("no key is published");
    for (index, record) in answer.records().iter().take(DKIM_KEYS_MAX).enumerate() {
        let Record::Text(text) = record else { continue };
        match Key::parse(text) {
            Ok(key) => return Ok(key),
            Err(first) if index == 0 => refusal = first,
            Err(_) => {}
        }
    }
    Err(refusal)
}

fn candidate(
    fields: &[RawField<'_>],
    index: usize,
    field: &RawField<'_>,
    hashes: &mut BodyHashes<'_>,
    now: Timestamp,
) -> Candidate {
    let tags = Tags::read(field.value);
    let tag = |name| tags.as_ref().and_then(|tags| tags.get(name));
    let mut outcome = DkimOutcome {
        result: AuthResult::PermError,
        proof: Proof::Nothing,
        domain: tag("d").and_then(Domain::parse),
        selector: tag("s").unwrap_or_default().to_ascii_lowercase(),
        signs_from: false,
        signs_sender: false,
        reason: "no tag list".to_owned(),
        signature: None,
    };
    let signature = match tags.as_ref().map(|tags| Signature::parse(tags, Role::Dkim)) {
        Some(Ok(signature)) => signature,
        Some(Err(refusal)) => {
            outcome.refuse(&refusal);
            return Candidate { outcome, open: None };
        }
        None => return Candidate { outcome, open: None },
    };
    outcome.signature = Some(SignatureId::of(&signature.signature));
    outcome.signs_from = signs_all(fields, &signature, "from");
    outcome.signs_sender = signs_all(fields, &signature, "sender");
    if signature.expires.is_some_and(|expires| expires < now) {
        outcome.result = AuthResult::Neutral;
        outcome.reason = "expired".to_owned();
        return Candidate { outcome, open: None };
    }
    let body = match hashes.state(&signature) {
        Ok(body) => body,
        Err(reason) => {
            outcome.reason = reason.to_owned();
            return Candidate { outcome, open: None };
        }
    };
    let canonical_header = canonical_header(fields, index, field, &signature);
    Candidate { outcome, open: Some(Open { signature, canonical_header, body }) }
}

/// Whether there is such a field and each of them stands under the signature. A signature covers
/// the lowest ones, as many as h= names it: one more on top is not the signer's.
pub fn signs_all(fields: &[RawField<'_>], signature: &Signature, name: &str) -> bool {
    let there = fields.iter().filter(|field| field.is(name)).count();
    let signed = signature.signed.iter().filter(|signed| *signed == name).count();
    (1..=signed).contains(&there)
}

/// What the signature is of (RFC 6376 §3.7): the fields of h=, each time the next one from the
/// bottom, one that is not there as nothing; then the signature itself without b=.
pub fn canonical_header(
    fields: &[RawField<'_>],
    index: usize,
    own: &RawField<'_>,
    signature: &Signature,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut taken = vec![false; fields.len()];
    for name in &signature.signed {
        let unsigned = fields.iter().zip(taken.iter_mut()).enumerate().rev();
        let mut wanted =
            unsigned.filter(|(at, (field, taken))| *at != index && !**taken && field.is(name));
        if let Some((_, (field, taken))) = wanted.next() {
            *taken = true;
            write(field, signature.header_form, &mut out);
        }
    }
    let value = without_signature(own.value);
    write(&RawField { name: own.name, value: &value }, signature.header_form, &mut out);
    // RFC 6376 §3.7: "without a trailing CRLF".
    out.truncate(out.len().saturating_sub(2));
    out
}

/// The body's hash and length in each form, computed when first asked for.
pub struct BodyHashes<'a> {
    body: Option<&'a [u8]>,
    known: Vec<(Form, Vec<u8>, u64)>,
}

impl<'a> BodyHashes<'a> {
    /// Of this body; `None` when it is not there.
    pub fn new(body: Option<&'a [u8]>) -> BodyHashes<'a> {
        BodyHashes { body, known: Vec::new() }
    }

    /// How the body stands to a signature; the error says what is wrong with its l=.
    pub fn state(&mut self, signature: &Signature) -> Result<BodyState, &'static str> {
        let Some(bytes) = self.body else { return Ok(BodyState::Missing) };
        let form = signature.body_form;
        if !self.known.iter().any(|(known, _, _)| *known == form) {
            let body = Body { form, bytes };
            let hash = HashAlgorithm::Sha256.hash(body).as_ref().to_vec();
            self.known.push((form, hash, body.length()));
        }
        let Some((_, hash, length)) = self.known.iter().find(|(known, _, _)| *known == form) else {
            return Ok(BodyState::Missing);
        };
        match signature.body_bytes {
            // RFC 6376 §3.5: l= "MUST NOT be larger than the actual number of octets".
            Some(signed) if signed > *length => Err("l= is longer than the body"),
            Some(signed) if signed < *length => Ok(BodyState::Partly),
            _ if *hash == signature.body_hash => Ok(BodyState::Covered),
            _ => Ok(BodyState::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_its_keys_is_bounded() {
        let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from:x-big; \
                         bh=AAAA; b=AAAA\r\n";
        let big = format!("X-Big: {}\r\n", "x".repeat(DKIM_CANONICAL_BYTES_MAX / 3));
        let message = format!("{}{big}From: joe@a.example\r\n\r\nx\r\n", signature.repeat(10));
        let now = Timestamp::from_millis(0);
        let report = Prepared::read(message.as_bytes(), Extent::Whole, now).unanswered("late");
        assert_eq!((report.signatures.len(), report.signatures_left_out), (2, 8));
        let small = message.replace(&big, "");
        let report = Prepared::read(small.as_bytes(), Extent::Whole, now).unanswered("late");
        assert_eq!((report.signatures.len(), report.signatures_left_out), (10, 0));
    }
}
