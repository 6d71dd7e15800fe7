//! The answers to a case's questions; and the gaps: what could not be known, and why.
//!
//! Gives: `Findings` (what one source says of the subject message), `DomainFacts` (what DNS says
//! of a recipient's domain), `Gap`. Law 5: what cannot be known is a `Gap` with a cause, never a
//! silent false. Standards: RFC 8601 §2.7 (result names), RFC 9989 (DMARC), RFC 7505 (null MX).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::judge::correlation::Answered;
use crate::judge::loops::LoopEvidence;
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::author::AuthorSign;
use crate::mail::limits_of_memory::SIGNATURE_RECIPIENTS_MAX;
use crate::mail::shown::Shown;

/// The result of an authentication method, in the words of RFC 8601 §2.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthResult {
    /// The method says yes.
    Pass,
    /// The method says no.
    Fail,
    /// SPF: probably no (RFC 7208 §2.6.5).
    SoftFail,
    /// The domain says nothing for or against; also DKIM whose body hash does not match.
    Neutral,
    /// Nothing is published, or nothing is signed.
    None,
    /// DNS trouble: another try may say something else.
    TempError,
    /// What is published cannot be used.
    PermError,
    /// Local policy refused a result (RFC 8601 §2.7.1).
    Policy,
}

impl AuthResult {
    /// The word of RFC 8601 §2.7.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthResult::Pass => "pass",
            AuthResult::Fail => "fail",
            AuthResult::SoftFail => "softfail",
            AuthResult::Neutral => "neutral",
            AuthResult::None => "none",
            AuthResult::TempError => "temperror",
            AuthResult::PermError => "permerror",
            AuthResult::Policy => "policy",
        }
    }

    /// Reads the word of RFC 8601 §2.7 in any letter case, `hardfail` (RFC 5451) for `fail` too.
    pub fn parse(word: &str) -> Option<AuthResult> {
        Some(match word.to_ascii_lowercase().as_str() {
            "pass" => AuthResult::Pass,
            "fail" | "hardfail" => AuthResult::Fail,
            "softfail" => AuthResult::SoftFail,
            "neutral" => AuthResult::Neutral,
            "none" => AuthResult::None,
            "temperror" => AuthResult::TempError,
            "permerror" => AuthResult::PermError,
            "policy" => AuthResult::Policy,
            _ => return None,
        })
    }
}

impl fmt::Display for AuthResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one source says of the subject message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Who says it.
    pub source: Source,
    /// The subject message's reverse-path, as believed by this source.
    pub mail_from: Option<ReversePath>,
    /// Mailboxes of its From field.
    pub from: Vec<Address>,
    /// The mailbox of its Sender field.
    pub sender: Option<Address>,
    /// SPF results, in order.
    pub spf: Vec<SpfFinding>,
    /// DKIM results, one for each signature.
    pub dkim: Vec<DkimFinding>,
    /// DMARC results.
    pub dmarc: Vec<DmarcFinding>,
    /// Which methods this source evaluated at all: an absent method is not `none`.
    pub evaluated: Evaluated,
    /// Set when the subject message came from our own submission, with the sign that shows it.
    pub own_submission: Option<String>,
    /// What is odd about its From field: then neither DKIM nor DMARC proves its author.
    pub author_sign: Option<AuthorSign>,
}

impl Findings {
    /// Of a source that has not said anything yet.
    pub fn of(source: Source) -> Findings {
        Findings {
            source,
            mail_from: None,
            from: Vec::new(),
            sender: None,
            spf: Vec::new(),
            dkim: Vec::new(),
            dmarc: Vec::new(),
            evaluated: Evaluated::default(),
            own_submission: None,
            author_sign: None,
        }
    }
}

/// The methods a source evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluated {
    /// SPF of the MAIL FROM identity.
    pub spf: bool,
    /// DKIM signatures; of very many the topmost.
    pub dkim: bool,
    /// DMARC of the From domain.
    pub dmarc: bool,
}

impl Evaluated {
    /// All of them.
    pub const ALL: Evaluated = Evaluated { spf: true, dkim: true, dmarc: true };
}

/// Who says a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An Authentication-Results line of ours in the embedded header.
    AuthResults {
        /// Its authserv-id.
        authserv_id: String,
    },
    /// The way it came in, as our own Received lines show it.
    OwnReceived,
    /// What we verified ourselves, when the response came: the signatures of the embedded message,
    /// SPF of the client that our border line names.
    Reverified,
    /// A tap: verified when the subject message came in.
    Tap,
    /// What a host on the way found out when the message came to it, and sealed (RFC 8617): its
    /// chain holds, and the configuration names it. Only what passed stands here.
    Arc {
        /// The sealer's d=.
        sealer: String,
    },
}

impl Source {
    /// The stable name in records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Source::AuthResults { .. } => "authentication-results",
            Source::OwnReceived => "own-received",
            Source::Reverified => "reverified",
            Source::Tap => "tap",
            Source::Arc { .. } => "arc",
        }
    }
}

/// Which identity an SPF result is about (RFC 7208 §2.3, §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpfScope {
    /// MAIL FROM.
    MailFrom,
    /// HELO: never authenticates anybody.
    Helo,
    /// Not said.
    Unnamed,
}

/// One SPF result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpfFinding {
    /// The result.
    pub result: AuthResult,
    /// Which identity.
    pub scope: SpfScope,
    /// The identity's domain; `None` when not said.
    pub domain: Option<Domain>,
    /// The whole address, when the source names more than the domain.
    pub address: Option<Address>,
    /// The term of the record that lets everybody in, where the pass rests on one: it proves
    /// nobody (`+all`, more than a /8 of IPv4 or a /16 of IPv6, `exists`, `ptr`).
    pub everybody: Option<String>,
    /// Whether the domain publishes no SPF and a guess was made for it.
    pub guessed: bool,
}

impl SpfFinding {
    /// Of the MAIL FROM identity, of which the domain alone is said.
    pub fn of(result: AuthResult, domain: Option<Domain>) -> SpfFinding {
        let scope = SpfScope::MailFrom;
        SpfFinding { result, scope, domain, address: None, everybody: None, guessed: false }
    }
}

/// One DKIM result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimFinding {
    /// The result.
    pub result: AuthResult,
    /// d= of the signature; `None` when not said.
    pub domain: Option<Domain>,
    /// Whether From is covered: required by RFC 6376 §5.4, so true wherever a verifier passed it.
    pub signs_from: bool,
    /// Whether Sender is known to be covered.
    pub signs_sender: bool,
    /// Whether the signature is right for the header alone: the body was not returned, or is
    /// another. Less than a pass, and never one.
    pub header_only: bool,
    /// Why it is no pass, where the source says so; for people.
    pub reason: Option<String>,
    /// Which signature it is; `None` where the source does not show it.
    pub signature: Option<SignatureId>,
    /// For how many recipients messages with this signature came in without an SPF pass of its
    /// domain; 0 where nobody counted.
    pub recipients: u32,
}

impl DkimFinding {
    /// Of a signature of which nothing else is said: From is covered where it passed, because a
    /// verifier passes no other (RFC 6376 §5.4).
    pub fn of(result: AuthResult, domain: Option<Domain>) -> DkimFinding {
        DkimFinding {
            result,
            domain,
            signs_from: result == AuthResult::Pass,
            signs_sender: false,
            header_only: false,
            reason: None,
            signature: None,
            recipients: 0,
        }
    }

    /// Whether so many recipients got this signature that it must have been sent again by others
    /// (RFC 6376 §8.6): then it proves its domain at the most.
    pub fn is_replayed(&self) -> bool {
        self.recipients > SIGNATURE_RECIPIENTS_MAX
    }
}

/// One signature, in whatever message it stands: a digest of the bytes that `b=` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignatureId(u64);

impl SignatureId {
    /// Of the decoded `b=`: whoever sends it again can change its spelling, and not its bytes.
    pub fn of(signature: &[u8]) -> SignatureId {
        let digest = blake3::hash(signature);
        let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        SignatureId(u64::from_le_bytes(first))
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<SignatureId> {
        (text.len() == 16).then_some(())?;
        u64::from_str_radix(text, 16).ok().map(SignatureId)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for SignatureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One DMARC result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmarcFinding {
    /// The result.
    pub result: AuthResult,
    /// The From domain it is about; `None` when not said.
    pub from_domain: Option<Domain>,
}

/// A fact, or why it is not known.
pub type Known<T> = Result<T, Gap>;

/// What DNS says of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainFacts {
    /// Its DMARC record and organizational domain (RFC 9989 §4.10).
    pub dmarc: Known<DmarcFacts>,
    /// Whether it can receive mail at all.
    pub receives: Known<Receives>,
}

/// What the DMARC tree walk found for a domain (RFC 9989 §4.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcFacts {
    /// The organizational domain; the domain itself when nothing is published.
    pub organizational: Domain,
    /// The record that applies; `None` when nobody publishes one.
    pub record: Option<DmarcRecord>,
    /// Set when a public suffix above gave no answer. What it publishes can hardly matter, and
    /// the facts stand; but they stand without it.
    pub above: Option<Gap>,
}

/// The record that applies to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcRecord {
    /// Where it is published, without `_dmarc.`.
    pub published_at: Domain,
    /// The policy that applies to the domain: p=, sp= or np=, as it stands to the record.
    pub policy: DmarcPolicy,
    /// adkim=.
    pub dkim_alignment: Alignment,
    /// aspf=.
    pub spf_alignment: Alignment,
}

/// p= of a DMARC record (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcPolicy {
    /// p=none.
    None,
    /// p=quarantine.
    Quarantine,
    /// p=reject.
    Reject,
}

/// adkim= or aspf= (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// Same organizational domain.
    #[default]
    Relaxed,
    /// Same domain.
    Strict,
}

/// Whether a domain can receive mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Nothing speaks against it.
    Yes,
    /// It publishes a null MX (RFC 7505).
    NullMx,
    /// It does not exist, confirmed by a second answer.
    NoSuchDomain,
}

/// How many responses of a kind went out before, or are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentBefore {
    /// From this responder to this recipient (for a DSN: about this failed recipient) in 24 h.
    pub pair: u32,
    /// To this recipient, from any responder, in 24 h.
    pub recipient: u32,
}

/// What is known of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientEvidence {
    /// How many limited responses it got before; a gap when the memory failed.
    pub sent_before: Known<SentBefore>,
    /// What is known of this message's earlier rounds to it.
    pub loops: LoopEvidence,
    /// The recorded message that a response to it answers; `None` when none was found.
    pub answered: Option<Answered>,
    /// What could not be known for it alone, and why.
    pub gaps: Vec<Gap>,
}

/// Everything `decide` sees beside the case and the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What each source says of the subject message, the best source first.
    pub findings: Vec<Findings>,
    /// What DNS says of the recipients' domains and of domains that stand in the findings.
    pub domains: BTreeMap<Domain, DomainFacts>,
    /// One for each recipient, in envelope order.
    pub recipients: Vec<RecipientEvidence>,
    /// What could not be known of the subject message, and why.
    pub gaps: Vec<Gap>,
}

/// What could not be known, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The cause, from a closed list.
    pub cause: GapCause,
    /// What was asked and what stood in the way; harmless text.
    pub detail: String,
}

impl Gap {
    /// A gap with its cause; `detail` is made harmless.
    pub fn new(cause: GapCause, detail: &str) -> Gap {
        Gap { cause, detail: Shown::new(detail).into_string() }
    }
}

/// Why something could not be known. Stable names, in records and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// No tap watches the inbound mail.
    NoTap,
    /// A tap watches, but the store has no record of the subject message.
    NotInStore,
    /// The store has its record, and the tap is still verifying.
    Pending,
    /// The response names its subject message by nothing.
    NoKey,
    /// The subject message came through a gateway that hides its client.
    BehindRelay,
    /// The response was read only in part.
    Truncated,
    /// The embedded header has no Authentication-Results line of ours above the border line.
    NoAuthResults,
    /// It has one, but our border is not declared to remove foreign ones of that id.
    NotStripped,
    /// The source did not evaluate what would have been needed.
    NotEvaluated,
    /// DNS gave no answer in time, or a server failed.
    Dns,
    /// The memory failed.
    Store,
}

impl GapCause {
    /// Whether one of these gaps has it.
    pub fn is_among(self, gaps: &[Gap]) -> bool {
        gaps.iter().any(|gap| gap.cause == self)
    }

    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            GapCause::NoTap => "no-tap",
            GapCause::NotInStore => "not-in-store",
            GapCause::Pending => "pending",
            GapCause::NoKey => "no-key",
            GapCause::BehindRelay => "behind-relay",
            GapCause::Truncated => "truncated",
            GapCause::NoAuthResults => "no-auth-results",
            GapCause::NotStripped => "not-stripped",
            GapCause::NotEvaluated => "not-evaluated",
            GapCause::Dns => "dns",
            GapCause::Store => "store",
        }
    }
}
