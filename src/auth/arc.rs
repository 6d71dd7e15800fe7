//! ARC: what hosts on the way sealed, and whether the chain of their seals holds.
//!
//! Takes: a whole message and the time. Gives: `Prepared` (pure, the CPU's part), then `ArcReport`
//! (DNS's part). Errors: none; trouble is a result.
//! Bounds: `limits::ARC_SETS_MAX`, `limits::ARC_BYTES_MAX`, `limits::DKIM_*`.
//! Standards: RFC 8617 §4 (fields), §5.2 (validation); RFC 6376 for what they borrow of DKIM.
//!
//! A seal that holds proves only that the sealer wrote the results before it. Whether he is to be
//! believed is a question of names (`ArcReport::believed`): anybody can seal anything.
//!
//! Why not mail-auth's `verify_arc`: it asks a resolver of its own and takes the current clock,
//! fails a body that ends in lines of white space, and believes a signature that leaves From
//! unsigned. Its cryptography is used.

use std::collections::HashSet;

use mail_auth::common::crypto::Algorithm;
use tokio::time::Instant;

use crate::auth::dkim::canonical::{Form, without_signature, write};
use crate::auth::dkim::tags::{Role, Seal, Signature, Tags};
use crate::auth::dkim::{BodyHashes, BodyState, canonical_header, key, signs_all};
use crate::auth::dns::{Dns, Kind, Pending, Question};
use crate::judge::evidence::AuthResult;
use crate::mail::address::Domain;
use crate::mail::author::{Author, AuthorSign};
use crate::mail::authres::AuthResults;
use crate::mail::limits::{ARC_BYTES_MAX, ARC_SETS_MAX, DKIM_HEADER_BYTES_MAX};
use crate::mail::raw::{RawField, split};
use crate::mail::time::Timestamp;

const RESULTS: &str = "ARC-Authentication-Results";
const SIGNATURE: &str = "ARC-Message-Signature";
const SEAL: &str = "ARC-Seal";

/// What the chain of a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcReport {
    /// `none` without ARC fields; `pass` when every seal holds and the last signature covers the
    /// message; `temperror` when a key could not be fetched; otherwise `fail`.
    pub result: AuthResult,
    /// Why it is not `pass`; empty when it is, or when there is no chain.
    pub reason: String,
    /// The sets, that of instance 1 first; as far as they can be read.
    pub sets: Vec<ArcSet>,
    /// What is odd about the From field; such a message authenticates no author.
    pub author_sign: Option<AuthorSign>,
}

/// What one host sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcSet {
    /// d= of its seal.
    pub sealer: Domain,
    /// The results it sealed; `None` when they cannot be read.
    pub results: Option<AuthResults>,
}

impl ArcReport {
    /// The sets that may be believed, the first sealed one first: those of the named sealers from
    /// the last instance down to the first stranger.
    ///
    /// Why only in one piece from the top: whoever seals last can put an old chain of honest seals
    /// on a message of his own. And a sealer passes the chain on only if the signature before his
    /// own still covered the message (RFC 8617 §5.2), so between two who are believed nobody
    /// changed it unseen.
    pub fn believed(&self, sealers: &HashSet<String>) -> &[ArcSet] {
        if self.result != AuthResult::Pass {
            return &[];
        }
        let named = |set: &&ArcSet| sealers.contains(set.sealer.as_str());
        let count = self.sets.iter().rev().take_while(named).count();
        self.sets.get(self.sets.len() - count..).unwrap_or_default()
    }
}

/// A chain made ready: everything but the keys.
#[derive(Clone, Debug)]
pub struct Prepared {
    report: ArcReport,
    open: Option<Open>,
}

/// What is still to be verified.
#[derive(Clone, Debug)]
struct Open {
    signature: Signature,
    canonical_header: Vec<u8>,
    seals: Vec<Sealed>,
    /// The fields of all sets in canonical form, set by set.
    chain: Vec<u8>,
}

/// A seal with what it is of: the chain up to `until`, then its own field.
#[derive(Clone, Debug)]
struct Sealed {
    seal: Seal,
    until: usize,
    own: Vec<u8>,
}

/// The three fields of one instance.
struct Set<'a> {
    results: &'a RawField<'a>,
    signature: (usize, &'a RawField<'a>),
    seal: &'a RawField<'a>,
}

impl Prepared {
    /// Reads the chain and hashes what its last signature covers; `now` is when the message came in.
    /// No I/O; as expensive as one
    /// DKIM signature. A message without its body has no chain that can pass.
    pub fn read(message: &[u8], now: Timestamp) -> Prepared {
        let (fields, body) = split(message);
        let mut report = ArcReport {
            result: AuthResult::None,
            reason: String::new(),
            sets: Vec::new(),
            author_sign: Author::of(&fields).sign,
        };
        let of_arc = || fields.iter().filter(|field| NAMES.iter().any(|name| field.is(name)));
        if of_arc().next().is_none() {
            return Prepared { report, open: None };
        }
        let bytes: usize = of_arc().map(|field| field.value.len()).sum();
        let opened = match bytes {
            _ if message.len() - body.len() > DKIM_HEADER_BYTES_MAX => {
                Err("the header is too long")
            }
            bytes if bytes > ARC_BYTES_MAX => Err("the chain is too long"),
            _ => sets(&fields).and_then(|sets| open(&fields, body, &sets, now, &mut report.sets)),
        };
        report.result = AuthResult::Fail;
        match opened {
            Ok(open) => Prepared { report, open: Some(open) },
            Err(reason) => {
                report.reason = reason.to_owned();
                Prepared { report, open: None }
            }
        }
    }

    /// Whether the last seal has one of these names: otherwise there is nothing to ask DNS for.
    pub fn is_sealed_by(&self, sealers: &HashSet<String>) -> bool {
        let last = self.report.sets.last();
        self.open.is_some() && last.is_some_and(|set| sealers.contains(set.sealer.as_str()))
    }

    /// The report without asking anybody: a chain that could hold fails for it.
    pub fn unverified(self) -> ArcReport {
        self.report
    }

    /// Fetches the keys, all at once, and verifies.
    pub async fn verify(self, dns: &Dns, deadline: Instant) -> ArcReport {
        let Prepared { mut report, open } = self;
        let Some(open) = open else { return report };
        let ask = |name: String| dns.begin(Question::new(Kind::Txt, &name));
        let signature = ask(open.signature.key_name());
        let seals: Vec<Pending> =
            open.seals.iter().map(|sealed| ask(sealed.seal.key_name())).collect();
        let outcome = open.settle(signature, seals, deadline).await;
        (report.result, report.reason) = match outcome {
            Ok(()) => (AuthResult::Pass, String::new()),
            Err(fault) => fault,
        };
        report
    }
}

const NAMES: [&str; 3] = [RESULTS, SIGNATURE, SEAL];

impl Open {
    /// RFC 8617 §5.2 steps 4 to 6: the last signature, then every seal from the last to the first.
    async fn settle(
        &self,
        signature: Pending,
        seals: Vec<Pending>,
        deadline: Instant,
    ) -> Result<(), (AuthResult, String)> {
        let Signature { algorithm, signature: bytes, .. } = &self.signature;
        let signed = Signed { algorithm: *algorithm, signature: bytes };
        let what = || "the last signature".to_owned();
        signed.check(signature, deadline, &self.canonical_header, what).await?;
        for (index, (sealed, pending)) in self.seals.iter().zip(seals).enumerate().rev() {
            let before = self.chain.get(..sealed.until).unwrap_or_default();
            let covered = [before, &sealed.own].concat();
            let Seal { algorithm, signature: bytes, .. } = &sealed.seal;
            let signed = Signed { algorithm: *algorithm, signature: bytes };
            signed.check(pending, deadline, &covered, || format!("seal {}", index + 1)).await?;
        }
        Ok(())
    }
}

/// A signature over bytes.
struct Signed<'a> {
    algorithm: Algorithm,
    signature: &'a [u8],
}

impl Signed<'_> {
    async fn check(
        &self,
        key_answer: Pending,
        deadline: Instant,
        covered: &[u8],
        what: impl Fn() -> String,
    ) -> Result<(), (AuthResult, String)> {
        let answer = key_answer.answer(deadline).await;
        let answer = answer.map_err(|trouble| (AuthResult::TempError, trouble.to_string()))?;
        let failed = |reason| (AuthResult::Fail, format!("{}: {reason}", what()));
        let key = key(&answer).map_err(|refusal| failed(refusal.reason))?;
        let verified = key.verifies(covered, self.signature, self.algorithm);
        verified.then_some(()).ok_or_else(|| failed("it is not of these fields and this key"))
    }
}

/// RFC 8617 §5.2 step 3: instances 1 to N, one field of each kind in each.
fn sets<'a>(fields: &'a [RawField<'a>]) -> Result<Vec<Set<'a>>, &'static str> {
    let of = |name| {
        let all = fields.iter().enumerate().filter(move |(_, field)| field.is(name));
        let numbered = all.map(|(index, field)| Some((instance(field)?, index, field)));
        let numbered: Option<Vec<_>> = numbered.collect();
        let mut numbered = numbered.ok_or("an ARC field without its instance")?;
        numbered.sort_by_key(|(instance, _, _)| *instance);
        let complete = numbered.iter().zip(1..).all(|((found, _, _), wanted)| *found == wanted);
        complete.then_some(numbered).ok_or("instances are missing or there twice")
    };
    let (results, signatures, seals) = (of(RESULTS)?, of(SIGNATURE)?, of(SEAL)?);
    if results.len() != seals.len() || signatures.len() != seals.len() {
        return Err("instances are missing or there twice");
    }
    let three = results.into_iter().zip(signatures).zip(seals);
    let set = three.map(|(((_, _, results), (_, index, signature)), (_, _, seal))| Set {
        results,
        signature: (index, signature),
        seal,
    });
    Ok(set.collect())
}

/// i= of an ARC field, 1 to `limits::ARC_SETS_MAX` (RFC 8617 §4.2.1). In the results it is the
/// first tag, and what follows is no tag list.
fn instance(field: &RawField<'_>) -> Option<usize> {
    let number = match field.is(RESULTS) {
        true => sealed_results(field)?.0,
        false => Tags::read(field.value)?.get("i")?,
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number);
    number.filter(|number| (1..=ARC_SETS_MAX).contains(number))
}

/// `i=1; mx.example; …`: the instance, and the rest, which is an Authentication-Results.
fn sealed_results<'a>(field: &RawField<'a>) -> Option<(&'a str, &'a [u8])> {
    let end = field.value.iter().position(|&byte| byte == b';')?;
    let (tag, rest) = field.value.split_at_checked(end)?;
    let (name, number) = std::str::from_utf8(tag).ok()?.split_once('=')?;
    let is_instance = name.trim_ascii() == "i";
    is_instance.then_some((number.trim_ascii(), rest.get(1..)?))
}

/// Reads the seals and the last signature; what can be known of the sets goes to `known`.
fn open(
    fields: &[RawField<'_>],
    body: &[u8],
    sets: &[Set<'_>],
    now: Timestamp,
    known: &mut Vec<ArcSet>,
) -> Result<Open, &'static str> {
    let mut seals = Vec::with_capacity(sets.len());
    let mut chain = Vec::new();
    for set in sets {
        let tags = Tags::read(set.seal.value).ok_or("a seal that is no tag list")?;
        let seal = Seal::parse(&tags).map_err(|refusal| refusal.reason)?;
        let results =
            sealed_results(set.results).and_then(|(_, rest)| AuthResults::parse(rest).ok());
        known.push(ArcSet { sealer: seal.domain.clone(), results });
        write(set.results, Form::Relaxed, &mut chain);
        write(set.signature.1, Form::Relaxed, &mut chain);
        let until = chain.len();
        let mut own = Vec::new();
        let value = without_signature(set.seal.value);
        write(&RawField { name: set.seal.name, value: &value }, Form::Relaxed, &mut own);
        own.truncate(own.len().saturating_sub(2));
        write(set.seal, Form::Relaxed, &mut chain);
        seals.push(Sealed { seal, until, own });
    }
    chain_is_said_to_hold(&seals)?;
    let last = sets.last().ok_or("instances are missing or there twice")?;
    let (signature, canonical_header) = signature(fields, body, last.signature, now)?;
    Ok(Open { signature, canonical_header, seals, chain })
}

/// RFC 8617 §5.2 steps 2 and 3: cv= is `none` in the first seal and `pass` in every other.
fn chain_is_said_to_hold(seals: &[Sealed]) -> Result<(), &'static str> {
    let said = |seal: &Seal| seal.chain;
    let begins = seals.first().is_some_and(|first| said(&first.seal) == AuthResult::None);
    let goes_on = seals.iter().skip(1).all(|sealed| said(&sealed.seal) == AuthResult::Pass);
    match (begins, goes_on) {
        (true, true) => Ok(()),
        (false, _) => Err("the first seal says that there was a chain before it"),
        (true, false) => Err("a seal says that the chain before it did not hold"),
    }
}

/// The last signature, with the header that it covers (RFC 8617 §5.2 step 4).
fn signature(
    fields: &[RawField<'_>],
    body: &[u8],
    (index, field): (usize, &RawField<'_>),
    now: Timestamp,
) -> Result<(Signature, Vec<u8>), &'static str> {
    let tags = Tags::read(field.value).ok_or("a signature that is no tag list")?;
    let signature = Signature::parse(&tags, Role::ArcMessage).map_err(|refusal| refusal.reason)?;
    if signature.expires.is_some_and(|expires| expires < now) {
        return Err("the last signature has expired");
    }
    // Why: the sealed results speak of an author. One more From would make him another.
    if !signs_all(fields, &signature, "from") {
        return Err("a From is not signed");
    }
    match BodyHashes::new(Some(body)).state(&signature)? {
        BodyState::Covered => {}
        BodyState::Partly => return Err("l= leaves a part of the body unsigned"),
        BodyState::Other | BodyState::Missing => return Err("the body is not the one signed"),
    }
    let canonical_header = canonical_header(fields, index, field, &signature);
    Ok((signature, canonical_header))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sealers: &[&str], result: AuthResult) -> ArcReport {
        let set = |name: &&str| ArcSet { sealer: Domain::parse(name).unwrap(), results: None };
        let sets = sealers.iter().map(set).collect();
        ArcReport { result, reason: String::new(), sets, author_sign: None }
    }

    /// Goal: a stranger's seal on top makes everything below it his word.
    #[test]
    fn seals_are_believed_from_the_last_one_down_to_the_first_stranger() {
        let named: HashSet<String> = ["a.example".to_owned(), "b.example".to_owned()].into();
        for (sealers, believed) in [
            (&["a.example"][..], &["a.example"][..]),
            (&["a.example", "b.example"], &["a.example", "b.example"]),
            (&["x.example", "a.example"], &["a.example"]),
            (&["a.example", "x.example", "b.example"], &["b.example"]),
            (&["a.example", "x.example"], &[]),
            (&["sub.a.example"], &[]),
            (&[], &[]),
        ] {
            let report = report(sealers, AuthResult::Pass);
            let found: Vec<&str> =
                report.believed(&named).iter().map(|set| set.sealer.as_str()).collect();
            assert_eq!(found, believed, "{sealers:?}");
        }
        for result in [AuthResult::Fail, AuthResult::None, AuthResult::TempError] {
            assert!(report(&["a.example"], result).believed(&named).is_empty());
        }
    }

    #[test]
    fn an_instance_is_a_number_from_1_to_50() {
        for (name, value, expected) in [
            (SEAL, "i=1; cv=none", Some(1)),
            (SEAL, "cv=none; i = 50", Some(50)),
            (SEAL, "i=0", None),
            (SEAL, "i=51", None),
            (SEAL, "i=+1", None),
            (SEAL, "i=", None),
            (SEAL, "cv=none", None),
            (RESULTS, " i=2; mx.example; none", Some(2)),
            (RESULTS, "\r\n i = 2 ;mx.example; none", Some(2)),
            (RESULTS, "mx.example; i=2", None),
            (RESULTS, "i=2", None),
        ] {
            let field = RawField { name: name.as_bytes(), value: value.as_bytes() };
            assert_eq!(instance(&field), expected, "{name}: {value}");
        }
    }
}
