//! What is decided for one recipient, and what came of it.
//!
//! Gives: `Verdict`, `LoopFinding`, `Action`, `Reason`, `Decision`. The reasons are a closed list
//! of stable codes: they stand in the audit log, in SMTP replies and in
//! `docs/reference/reasons.md`.

use std::fmt;

use crate::judge::evidence::{Gap, GapCause};
use crate::mail::address::Domain;
use crate::mail::time::Timestamp;

/// Whether the recipient of a response is who the subject message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The subject message came from the recipient, or at least from its domain.
    Authenticated {
        /// What proves it.
        by: ProofKind,
        /// The domain that was authenticated.
        domain: Domain,
        /// Whether the address itself is proven, or only its domain.
        scope: Scope,
    },
    /// The recipient's domain says that the subject message did not come from it.
    Failed {
        /// What says so.
        by: FailureKind,
    },
    /// Results are known, and none speaks for the recipient.
    Unauthenticated,
    /// DNS trouble: another try may know more.
    Unresolved,
    /// Nothing is known.
    Unknown {
        /// Why.
        cause: GapCause,
    },
}

/// The five verdicts without their particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VerdictKind {
    /// See `Verdict::Authenticated`.
    Authenticated,
    /// See `Verdict::Failed`.
    Failed,
    /// See `Verdict::Unauthenticated`.
    Unauthenticated,
    /// See `Verdict::Unresolved`.
    Unresolved,
    /// See `Verdict::Unknown`.
    Unknown,
}

/// How much an authenticated verdict proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Only the domain: the response is limited, or anyone with an account at a provider could
    /// point our answers at its other users.
    DomainOnly,
    /// The address.
    Address,
}

/// What proved the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofKind {
    /// SPF pass of the MAIL FROM identity.
    Spf,
    /// An aligned DKIM signature.
    Dkim,
    /// An aligned DKIM signature that is right for the header alone.
    DkimHeader,
    /// SPF pass under a record that the domain does not publish but might.
    SpfGuess,
    /// DMARC pass of the From domain.
    Dmarc,
    /// It was submitted from inside, by one of ours.
    OwnSubmission,
}

/// What failed the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// SPF fail for the recipient's domain.
    Spf,
    /// SPF softfail, and the domain publishes DMARC (or a setting makes softfail enough).
    SoftFail,
    /// The domain publishes DMARC, and neither SPF nor DKIM passed aligned with it.
    Dmarc,
}

impl Verdict {
    /// The verdict without its particulars.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Verdict::Authenticated { .. } => VerdictKind::Authenticated,
            Verdict::Failed { .. } => VerdictKind::Failed,
            Verdict::Unauthenticated => VerdictKind::Unauthenticated,
            Verdict::Unresolved => VerdictKind::Unresolved,
            Verdict::Unknown { .. } => VerdictKind::Unknown,
        }
    }

    /// Whether the address is proven by a signature alone, or by a DMARC pass that may rest on one:
    /// whoever has such a message can send it again, with any reverse-path (RFC 6376 §8.6).
    pub fn is_replayable(&self) -> bool {
        let Verdict::Authenticated { by, scope, .. } = self else { return false };
        *scope == Scope::Address && matches!(by, ProofKind::Dkim | ProofKind::Dmarc)
    }

    /// What decided it, as records name it: `spf`, `dmarc`, `spf-fail`, `no-tap`…
    pub fn by(&self) -> Option<&'static str> {
        match self {
            Verdict::Authenticated { by, scope, .. } => Some(match (by, scope) {
                (ProofKind::Spf, Scope::Address) => "spf",
                (ProofKind::Spf, Scope::DomainOnly) => "spf-domain-only",
                (ProofKind::Dkim, Scope::Address) => "dkim",
                (ProofKind::Dkim, Scope::DomainOnly) => "dkim-domain-only",
                (ProofKind::Dmarc, Scope::Address) => "dmarc",
                (ProofKind::Dmarc, Scope::DomainOnly) => "dmarc-domain-only",
                (ProofKind::DkimHeader, _) => "dkim-header-domain-only",
                (ProofKind::SpfGuess, _) => "spf-guess-domain-only",
                (ProofKind::OwnSubmission, _) => "own-submission",
            }),
            Verdict::Failed { by } => Some(match by {
                FailureKind::Spf => "spf-fail",
                FailureKind::SoftFail => "spf-softfail",
                FailureKind::Dmarc => "dmarc-fail",
            }),
            Verdict::Unknown { cause } => Some(cause.as_str()),
            Verdict::Unauthenticated | Verdict::Unresolved => None,
        }
    }
}

impl VerdictKind {
    /// All five, in the order of the policy table.
    pub const ALL: [VerdictKind; 5] = [
        VerdictKind::Authenticated,
        VerdictKind::Failed,
        VerdictKind::Unauthenticated,
        VerdictKind::Unresolved,
        VerdictKind::Unknown,
    ];

    /// The stable name in records and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            VerdictKind::Authenticated => "authenticated",
            VerdictKind::Failed => "failed",
            VerdictKind::Unauthenticated => "unauthenticated",
            VerdictKind::Unresolved => "unresolved",
            VerdictKind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done with the message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Relay it to the next hop.
    Deliver,
    /// Keep it in quarantine and answer 250.
    Quarantine,
    /// Answer 550.
    Reject,
    /// Answer 250 and keep only the record.
    Discard,
    /// Answer 451: the client keeps it and tries again.
    Defer,
}

impl Action {
    /// The stable name in records and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Deliver => "deliver",
            Action::Quarantine => "quarantine",
            Action::Reject => "reject",
            Action::Discard => "discard",
            Action::Defer => "defer",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a loop was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopKind {
    /// Our own trace for the same recipient came back.
    Lap,
    /// Hops rise by the same step.
    Progression,
    /// Too many hops.
    Hops,
    /// Responders answer one another.
    Conversation,
    /// The bounce of a message that the recipient forwards.
    ForwardedBounce,
    /// Our next hop sends our own mail back.
    Misrouting,
}

impl LoopKind {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            LoopKind::Lap => "lap",
            LoopKind::Progression => "progression",
            LoopKind::Hops => "hops",
            LoopKind::Conversation => "conversation",
            LoopKind::ForwardedBounce => "forwarded-bounce",
            LoopKind::Misrouting => "misrouting",
        }
    }
}

/// A loop, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopFinding {
    /// How it was recognised.
    pub kind: LoopKind,
    /// How often the message came back.
    pub laps: u32,
    /// `Received` lines of this copy.
    pub hops: u32,
    /// Both ends, as far as known.
    pub between: Vec<String>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen before this copy; `None` when it was not.
    pub last_seen: Option<Timestamp>,
    /// Copies stopped, as far as is known: this one, unless it is only observed.
    pub stopped: u32,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why, as a short stable code; a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The stable code.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// Not a response: a person wrote it, or we cannot tell.
    Personal = "personal",
    /// Not a response: list traffic.
    List = "list",
    /// Not a response: a newsletter.
    Bulk = "bulk",
    /// Not a response: a machine sends it unasked.
    Notification = "notification",
    /// It goes round.
    Loop = "loop",
    /// Responders answer one another.
    Conversation = "conversation",
    /// The bounce of what its recipient forwards.
    ForwardedBounce = "forwarded-bounce",
    /// Our next hop sends our own mail back.
    Misrouting = "misrouting",
    /// The subject message had a null reverse-path: nobody waits for an answer.
    NullSubject = "null-subject",
    /// The recipient's domain does not exist.
    NoSuchDomain = "no-such-domain",
    /// The recipient's domain publishes a null MX.
    NullMx = "null-mx",
    /// The recipient lies in a domain of ours.
    LocalDomain = "local-domain",
    /// The recipient is the postmaster or abuse desk of one of our hosts.
    LocalPostmaster = "local-postmaster",
    /// A response from outside that one of our users forwards.
    RelayedResponse = "relayed-response",
    /// A rule of the configuration matched.
    ConfiguredRule = "configured-rule",
    /// The recipient stands on the deny list.
    DenyList = "deny-list",
    /// The recipient stands on the allow list.
    AllowList = "allow-list",
    /// The recipient stands on the allow list with an entry that lets out answers to forged senders.
    AllowListForged = "allow-list-forged",
    /// An auto-reply to list traffic (RFC 5230 §4.6).
    SubjectList = "subject-list",
    /// An auto-reply to an automatic message (RFC 3834 §2).
    SubjectAutomatic = "subject-automatic",
    /// Our spam filter gave the subject message so many points.
    SubjectSpam = "subject-spam",
    /// The recipient is proven.
    Authenticated = "authenticated",
    /// Only the recipient's domain is proven.
    DomainOnly = "domain-only",
    /// SPF says that the subject message did not come from the recipient's domain.
    FailedSpf = "failed-spf",
    /// SPF says that it probably did not, and the domain publishes DMARC.
    FailedSoftfail = "failed-softfail",
    /// The recipient's domain publishes DMARC and nothing passed aligned with it.
    FailedDmarc = "failed-dmarc",
    /// Too many hops.
    Hops = "hops",
    /// Nothing speaks for the recipient.
    Unauthenticated = "unauthenticated",
    /// DNS trouble: not decided yet.
    Unresolved = "unresolved",
    /// Nothing is known of the subject message.
    Unknown = "unknown",
    /// A report about a report.
    ReportOnReport = "report-on-report",
    /// A report to a domain's owner.
    Report = "report",
    /// This recipient got such a response from this responder already.
    LimitPair = "limit-pair",
    /// This recipient got as many such responses as one may get.
    LimitRecipient = "limit-recipient",
    /// The message holds line ends that the next hop could read as the end of the message.
    BareLineEnd = "bare-line-end",
    /// The next hop refuses this recipient for good, but takes others of the same message.
    NextHopRefuses = "next-hop-refuses",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is decided for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict; `None` where nobody is judged.
    pub verdict: Option<Verdict>,
    /// What could not be known of this recipient, and why. Law 5.
    pub gaps: Vec<Gap>,
    /// Which of the recorded messages in question decided the verdict, counted from 0; `None` when
    /// there were none.
    pub subject: Option<usize>,
    /// The loop, where there is one.
    pub loop_finding: Option<LoopFinding>,
    /// What is done.
    pub action: Action,
    /// What would have been done, where only observing keeps it from being done.
    pub would: Option<Action>,
    /// Whether this delivery counts against the limits of its recipient.
    pub counts: bool,
    /// The name of the rule that matched.
    pub rule: String,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, as a plain sentence.
    pub text: String,
    /// What would have changed it, as plain sentences; for `explain`.
    pub otherwise: Vec<String>,
}

impl Decision {
    /// Whether it is open because a tap is still verifying the subject message, and not because
    /// DNS is silent.
    pub fn waits_for_tap(&self) -> bool {
        GapCause::Pending.is_among(&self.gaps)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reason_codes_are_distinct_and_plain() {
        let codes: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        let plain = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(codes.iter().all(plain));
    }
}
