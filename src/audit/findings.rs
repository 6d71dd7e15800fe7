//! What sources and DNS say, as a record holds it: findings, facts of domains, gaps.
//!
//! Takes: values of `judge::evidence`. Gives: structs of words, and the way back.

use serde::{Deserialize, Serialize};

use crate::audit::words::{
    ALIGNMENTS, AUTHOR_SIGNS, DMARC_POLICIES, GAP_CAUSES, RECEIVES, SPF_SCOPES, harmless,
};
use crate::judge::evidence::{
    AuthResult, DkimFinding, DmarcFacts, DmarcFinding, DmarcRecord, DomainFacts, Evaluated,
    Findings, Gap, Known, SignatureId, Source, SpfFinding,
};
use crate::mail::address::{Address, Domain, ReversePath};

/// What could not be known, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedGap {
    /// The cause, from a closed list.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::gap_cause"))]
    pub cause: String,
    /// What was asked and what stood in the way; harmless.
    pub detail: String,
}

impl RecordedGap {
    /// The gap in words.
    pub fn new(gap: &Gap) -> RecordedGap {
        let Gap { cause, detail } = gap;
        RecordedGap { cause: cause.as_str().to_owned(), detail: harmless(detail) }
    }

    /// The gap again; `None` when its cause is not of our list.
    pub fn gap(&self) -> Option<Gap> {
        Some(Gap::new(GAP_CAUSES.find(&self.cause)?, &self.detail))
    }
}

/// What one source says of the subject message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedFindings {
    /// Who says it.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::source"))]
    pub source: String,
    /// The authserv-id of an Authentication-Results line, the sealer of an ARC chain; null for
    /// other sources.
    pub authserv_id: Option<String>,
    /// The subject message's reverse-path as this source believes it, `""` for the null one.
    pub mail_from: Option<String>,
    /// Mailboxes of its From field.
    pub from: Vec<String>,
    /// The mailbox of its Sender field.
    pub sender: Option<String>,
    /// SPF results, in order.
    pub spf: Vec<RecordedSpf>,
    /// DKIM results, one for each signature.
    pub dkim: Vec<RecordedDkim>,
    /// DMARC results.
    pub dmarc: Vec<RecordedDmarc>,
    /// Which methods this source evaluated at all: an absent method is not `none`.
    pub evaluated: RecordedEvaluated,
    /// The sign that shows own submission; null when it was none.
    pub own_submission: Option<String>,
    /// What is odd about its From field; null when nothing is.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::author_sign"))]
    pub author_sign: Option<String>,
}

/// Which methods a source evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedEvaluated {
    /// SPF of the MAIL FROM identity.
    pub spf: bool,
    /// DKIM signatures; of very many the topmost.
    pub dkim: bool,
    /// DMARC of the From domain.
    pub dmarc: bool,
}

/// One SPF result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedSpf {
    /// The result, in the words of RFC 8601 §2.7.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::auth_result"))]
    pub result: String,
    /// Which identity.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::spf_scope"))]
    pub scope: String,
    /// The identity's domain.
    pub domain: Option<String>,
    /// The whole address, when the source names more than the domain.
    pub address: Option<String>,
    /// The term that lets everybody in, where a pass rests on one: it proves nobody.
    pub everybody: Option<String>,
    /// Whether the record was guessed, because the domain publishes none.
    pub guessed: bool,
}

/// One DKIM result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedDkim {
    /// The result, in the words of RFC 8601 §2.7.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::auth_result"))]
    pub result: String,
    /// d= of the signature.
    pub domain: Option<String>,
    /// Whether From is covered.
    pub signs_from: bool,
    /// Whether Sender is known to be covered.
    pub signs_sender: bool,
    /// Whether the signature is right for the header alone.
    pub header_only: bool,
    /// Why it is no pass; null when it is one, or the source does not say.
    pub reason: Option<String>,
    /// A digest of the signature, the same wherever it is sent; null when the source does not show
    /// the signature.
    #[serde(default)]
    pub signature: Option<String>,
    /// For how many recipients messages with this signature came in without an SPF pass of its
    /// domain; 0 where nobody counted.
    #[serde(default)]
    pub recipients: u32,
}

/// One DMARC result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedDmarc {
    /// The result, in the words of RFC 8601 §2.7.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::auth_result"))]
    pub result: String,
    /// The From domain it is about.
    pub from_domain: Option<String>,
}

impl RecordedFindings {
    /// The findings in words.
    pub fn new(findings: &Findings) -> RecordedFindings {
        let Findings { source, mail_from, from, sender, .. } = findings;
        let Findings { spf, dkim, dmarc, evaluated, own_submission, author_sign, .. } = findings;
        let Evaluated { spf: spf_too, dkim: dkim_too, dmarc: dmarc_too } = *evaluated;
        let authserv_id = match source {
            Source::AuthResults { authserv_id } => Some(harmless(authserv_id)),
            Source::Arc { sealer } => Some(harmless(sealer)),
            Source::OwnReceived | Source::Reverified | Source::Tap => None,
        };
        RecordedFindings {
            source: source.as_str().to_owned(),
            authserv_id,
            mail_from: mail_from.as_ref().map(ReversePath::to_string),
            from: addresses(from),
            sender: sender.as_ref().map(Address::to_string),
            spf: spf.iter().map(RecordedSpf::new).collect(),
            dkim: dkim.iter().map(RecordedDkim::new).collect(),
            dmarc: dmarc.iter().map(RecordedDmarc::new).collect(),
            evaluated: RecordedEvaluated { spf: spf_too, dkim: dkim_too, dmarc: dmarc_too },
            own_submission: own_submission.as_deref().map(harmless),
            author_sign: author_sign.map(|sign| sign.as_str().to_owned()),
        }
    }

    /// The findings again; `None` when a word of them is not ours.
    pub fn findings(&self) -> Option<Findings> {
        let RecordedEvaluated { spf, dkim, dmarc } = self.evaluated;
        let source = match &self.authserv_id {
            Some(sealer) if self.source == "arc" => Source::Arc { sealer: sealer.clone() },
            Some(authserv_id) => Source::AuthResults { authserv_id: authserv_id.clone() },
            None if self.source == Source::Reverified.as_str() => Source::Reverified,
            None if self.source == Source::Tap.as_str() => Source::Tap,
            None => Source::OwnReceived,
        };
        (source.as_str() == self.source).then_some(())?;
        Some(Findings {
            source,
            mail_from: each(&self.mail_from, |text| reverse_path(text))?,
            from: parsed(&self.from)?,
            sender: each(&self.sender, |text| Address::parse(text))?,
            spf: self.spf.iter().map(RecordedSpf::finding).collect::<Option<_>>()?,
            dkim: self.dkim.iter().map(RecordedDkim::finding).collect::<Option<_>>()?,
            dmarc: self.dmarc.iter().map(RecordedDmarc::finding).collect::<Option<_>>()?,
            evaluated: Evaluated { spf, dkim, dmarc },
            own_submission: self.own_submission.clone(),
            author_sign: each(&self.author_sign, |word| AUTHOR_SIGNS.find(word))?,
        })
    }

    /// Domains that stand in the results.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let spf = self.spf.iter().filter_map(|found| found.domain.as_deref());
        let dkim = self.dkim.iter().filter_map(|found| found.domain.as_deref());
        let dmarc = self.dmarc.iter().filter_map(|found| found.from_domain.as_deref());
        spf.chain(dkim).chain(dmarc)
    }
}

impl RecordedSpf {
    fn new(finding: &SpfFinding) -> RecordedSpf {
        let SpfFinding { result, scope, domain, address, everybody, guessed } = finding;
        RecordedSpf {
            result: result.as_str().to_owned(),
            scope: SPF_SCOPES.word(*scope).to_owned(),
            domain: domain.as_ref().map(Domain::to_string),
            address: address.as_ref().map(Address::to_string),
            everybody: everybody.as_deref().map(harmless),
            guessed: *guessed,
        }
    }

    fn finding(&self) -> Option<SpfFinding> {
        Some(SpfFinding {
            result: AuthResult::parse(&self.result)?,
            scope: SPF_SCOPES.find(&self.scope)?,
            domain: each(&self.domain, |text| Domain::parse(text))?,
            address: each(&self.address, |text| Address::parse(text))?,
            everybody: self.everybody.clone(),
            guessed: self.guessed,
        })
    }
}

impl RecordedDkim {
    fn new(finding: &DkimFinding) -> RecordedDkim {
        let DkimFinding { result, domain, signs_from, signs_sender, .. } = finding;
        let DkimFinding { header_only, reason, signature, recipients, .. } = finding;
        RecordedDkim {
            result: result.as_str().to_owned(),
            domain: domain.as_ref().map(Domain::to_string),
            signs_from: *signs_from,
            signs_sender: *signs_sender,
            header_only: *header_only,
            reason: reason.as_deref().map(harmless),
            signature: signature.map(|signature| signature.to_string()),
            recipients: *recipients,
        }
    }

    fn finding(&self) -> Option<DkimFinding> {
        Some(DkimFinding {
            result: AuthResult::parse(&self.result)?,
            domain: each(&self.domain, |text| Domain::parse(text))?,
            signs_from: self.signs_from,
            signs_sender: self.signs_sender,
            header_only: self.header_only,
            reason: self.reason.clone(),
            signature: each(&self.signature, |text| SignatureId::parse(text))?,
            recipients: self.recipients,
        })
    }
}

impl RecordedDmarc {
    fn new(finding: &DmarcFinding) -> RecordedDmarc {
        let DmarcFinding { result, from_domain } = finding;
        let from_domain = from_domain.as_ref().map(Domain::to_string);
        RecordedDmarc { result: result.as_str().to_owned(), from_domain }
    }

    fn finding(&self) -> Option<DmarcFinding> {
        Some(DmarcFinding {
            result: AuthResult::parse(&self.result)?,
            from_domain: each(&self.from_domain, |text| Domain::parse(text))?,
        })
    }
}

/// What DNS says of one domain. A fact that is null is explained by the gap beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedDomain {
    /// Its organizational domain, and the DMARC record that applies.
    pub dmarc: Option<RecordedDmarcFacts>,
    /// Why `dmarc` is not known.
    pub dmarc_gap: Option<RecordedGap>,
    /// Whether it can receive mail.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::receives"))]
    pub receives: Option<String>,
    /// Why `receives` is not known.
    pub receives_gap: Option<RecordedGap>,
}

/// What the DMARC tree walk found (RFC 9989 §4.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedDmarcFacts {
    /// The organizational domain; the domain itself when nothing is published.
    pub organizational: String,
    /// The record that applies; null when nobody publishes one.
    pub record: Option<RecordedDmarcRecord>,
    /// Why a public suffix above gave no answer; the facts stand without it.
    pub above: Option<RecordedGap>,
}

/// The DMARC record that applies to a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedDmarcRecord {
    /// Where it is published, without `_dmarc.`.
    pub published_at: String,
    /// p=, sp= or np=, whichever applies.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::dmarc_policy"))]
    pub policy: String,
    /// adkim=.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::alignment"))]
    pub dkim_alignment: String,
    /// aspf=.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::alignment"))]
    pub spf_alignment: String,
}

impl RecordedDomain {
    /// The facts in words.
    pub fn new(facts: &DomainFacts) -> RecordedDomain {
        let DomainFacts { dmarc, receives } = facts;
        let (dmarc, dmarc_gap) = apart(dmarc);
        let (receives, receives_gap) = apart(receives);
        RecordedDomain {
            dmarc: dmarc.map(RecordedDmarcFacts::new),
            dmarc_gap,
            receives: receives.map(|fact| RECEIVES.word(*fact).to_owned()),
            receives_gap,
        }
    }

    /// The facts again; `None` when a word of them is not ours.
    pub fn facts(&self) -> Option<DomainFacts> {
        let dmarc = each(&self.dmarc, RecordedDmarcFacts::facts)?;
        let receives = each(&self.receives, |word| RECEIVES.find(word))?;
        Some(DomainFacts {
            dmarc: together(dmarc, &self.dmarc_gap)?,
            receives: together(receives, &self.receives_gap)?,
        })
    }
}

impl RecordedDmarcFacts {
    fn new(facts: &DmarcFacts) -> RecordedDmarcFacts {
        let DmarcFacts { organizational, record, above } = facts;
        let record = record.as_ref().map(|record| {
            let DmarcRecord { published_at, policy, dkim_alignment, spf_alignment } = record;
            RecordedDmarcRecord {
                published_at: published_at.to_string(),
                policy: DMARC_POLICIES.word(*policy).to_owned(),
                dkim_alignment: ALIGNMENTS.word(*dkim_alignment).to_owned(),
                spf_alignment: ALIGNMENTS.word(*spf_alignment).to_owned(),
            }
        });
        RecordedDmarcFacts {
            organizational: organizational.to_string(),
            record,
            above: above.as_ref().map(RecordedGap::new),
        }
    }

    fn facts(&self) -> Option<DmarcFacts> {
        let record = |record: &RecordedDmarcRecord| {
            Some(DmarcRecord {
                published_at: Domain::parse(&record.published_at)?,
                policy: DMARC_POLICIES.find(&record.policy)?,
                dkim_alignment: ALIGNMENTS.find(&record.dkim_alignment)?,
                spf_alignment: ALIGNMENTS.find(&record.spf_alignment)?,
            })
        };
        Some(DmarcFacts {
            organizational: Domain::parse(&self.organizational)?,
            record: each(&self.record, record)?,
            above: each(&self.above, RecordedGap::gap)?,
        })
    }
}

/// Addresses as they were written.
pub fn addresses(list: &[Address]) -> Vec<String> {
    list.iter().map(Address::to_string).collect()
}

/// The addresses again; `None` when one is none.
pub fn parsed(list: &[String]) -> Option<Vec<Address>> {
    list.iter().map(|text| Address::parse(text)).collect()
}

/// The reverse-path again; `""` is the null one.
pub fn reverse_path(text: &str) -> Option<ReversePath> {
    match text.is_empty() {
        true => Some(ReversePath::Null),
        false => Address::parse(text).map(ReversePath::Address),
    }
}

/// Nothing stays nothing; something that cannot be read is `None`.
pub fn each<T, U>(value: &Option<T>, read: impl Fn(&T) -> Option<U>) -> Option<Option<U>> {
    match value {
        None => Some(None),
        Some(value) => read(value).map(Some),
    }
}

/// A fact, or the gap in its place.
pub fn apart<T>(known: &Known<T>) -> (Option<&T>, Option<RecordedGap>) {
    match known {
        Ok(fact) => (Some(fact), None),
        Err(gap) => (None, Some(RecordedGap::new(gap))),
    }
}

/// The way back from `apart`; `None` unless there is exactly one of the two.
pub fn together<T>(fact: Option<T>, gap: &Option<RecordedGap>) -> Option<Known<T>> {
    match (fact, gap) {
        (Some(fact), None) => Some(Ok(fact)),
        (None, Some(gap)) => Some(Err(gap.gap()?)),
        _ => None,
    }
}
