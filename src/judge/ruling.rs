//! Station 7: so what do we do? The rules in their order; the first that matches decides.
//!
//! Takes: what was asked of one recipient. Gives: a `Ruling`. The order is data: `ORDER`.
//! Why this order: what goes round or cannot arrive is never sent; then the administrator's own
//! rules; then what is not judged; then what he knows better; then the table of the profile.
//! Standards: RFC 3834 §2, RFC 5230 §4.6, RFC 5321 §4.5.5, RFC 7505.

use crate::judge::Case;
use crate::judge::classify::{Class, DsnAction, Guarded};
use crate::judge::correlation::{Answered, Subject};
use crate::judge::decision::{LoopFinding, LoopKind, Reason, Scope, Verdict, VerdictKind};
use crate::judge::evidence::{Evidence, Gap, Receives};
use crate::judge::lists::Entry;
use crate::judge::original::Origin;
use crate::judge::policy::{Mode, Policy, Profile, Rule, RuleAction};
use crate::judge::rewritten::{foreign_original, is_unreadable};
use crate::judge::subject::SpamScore;
use crate::mail::address::{Address, ForwardPath, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::time::Timestamp;

/// What is asked of one recipient.
pub struct Asked<'a> {
    /// The envelope.
    pub envelope: &'a Envelope,
    /// The recipient.
    pub recipient: &'a ForwardPath,
    /// What the message says of itself.
    pub case: &'a Case,
    /// What is known beside it.
    pub evidence: &'a Evidence,
    /// The rules.
    pub policy: &'a Policy,
    /// Now.
    pub now: Timestamp,
    /// The verdict; `None` where nobody is judged.
    pub verdict: Option<&'a Verdict>,
    /// What could not be known of the recipient.
    pub gaps: &'a [Gap],
    /// The loop; `None` where there is none.
    pub loop_finding: Option<&'a LoopFinding>,
    /// The recorded message it answers; `None` when none was found.
    pub answered: Option<&'a Answered>,
    /// The one of the records in question that decided the verdict.
    pub subject: Option<&'a Subject>,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What to do.
    pub action: RuleAction,
    /// The rule's name.
    pub rule: String,
    /// Why.
    pub reason: Reason,
    /// Whether this rule only observes or acts, whatever the guard does; `None`: as the guard.
    pub mode: Option<Mode>,
}

/// One rule: its say, or `None` when it does not match.
type Station = fn(&Asked<'_>) -> Option<Ruling>;

/// The order of the rules. The last one always matches.
const ORDER: &[Station] = &[
    going_round,
    unguarded,
    cannot_receive,
    configured,
    own_rewritten,
    local,
    null_subject,
    relayed,
    denied,
    subject_not_to_answer,
    subject_spam,
    allowed,
    table,
];

/// The ruling for one recipient.
pub fn ruling(asked: &Asked<'_>) -> Ruling {
    let found = ORDER.iter().find_map(|station| station(asked));
    // Why: `table` matches always; deferring is what cannot do harm should that ever be untrue.
    found.unwrap_or_else(|| rule("none", RuleAction::Defer, Reason::Unknown))
}

/// The first configured rule that only observes and would have decided otherwise.
pub fn observed<'a>(asked: &Asked<'a>) -> Option<&'a Rule> {
    let mut rules = asked.policy.rules.iter();
    rules.find(|rule| rule.mode == Some(Mode::Observe) && matches(rule, asked))
}

impl Asked<'_> {
    fn address(&self) -> Option<&Address> {
        self.recipient.address()
    }

    fn is_response(&self) -> bool {
        self.case.class.guarded() == Guarded::Response
    }

    fn is_relayed(&self) -> bool {
        self.case.origin == Some(Origin::Relayed)
    }
}

fn rule(name: &str, action: RuleAction, reason: Reason) -> Ruling {
    Ruling { action, rule: name.to_owned(), reason, mode: None }
}

fn going_round(asked: &Asked<'_>) -> Option<Ruling> {
    let reason = match asked.loop_finding?.kind {
        LoopKind::Hops => Reason::Hops,
        LoopKind::Lap | LoopKind::Progression => Reason::Loop,
        LoopKind::Conversation => Reason::Conversation,
        LoopKind::ForwardedBounce => Reason::ForwardedBounce,
        // Why no quarantine: it would take a site's whole mail until somebody mends the way.
        LoopKind::Misrouting => return Some(rule("loop", RuleAction::Defer, Reason::Misrouting)),
    };
    // Why: a loop is held whatever `policy.suppress` says: a 5xx makes one more message of it.
    Some(rule("loop", RuleAction::Quarantine, reason))
}

fn unguarded(asked: &Asked<'_>) -> Option<Ruling> {
    let reason = match asked.case.class {
        Class::Personal => Reason::Personal,
        Class::List => Reason::List,
        Class::Bulk => Reason::Bulk,
        Class::Notification => Reason::Notification,
        _ => return None,
    };
    Some(rule("not-judged", RuleAction::Deliver, reason))
}

fn cannot_receive(asked: &Asked<'_>) -> Option<Ruling> {
    let domain = asked.recipient.domain()?;
    let reason = match asked.evidence.domains.get(domain)?.receives {
        Ok(Receives::NoSuchDomain) => Reason::NoSuchDomain,
        Ok(Receives::NullMx) => Reason::NullMx,
        Ok(Receives::Yes) | Err(_) => return None,
    };
    Some(rule("cannot-receive", RuleAction::Suppress, reason))
}

/// RFC 3834 §2, RFC 5321 §4.5.5: what had a null reverse-path is answered by nothing.
///
/// Why behind `local`: a postmaster wants the copies of double bounces (Postfix `2bounce`).
fn null_subject(asked: &Asked<'_>) -> Option<Ruling> {
    let null = asked.case.original.return_path == Some(ReversePath::Null)
        || asked.subject.is_some_and(|subject| subject.mail_from.is_null());
    let ours = asked.is_response() && !asked.is_relayed();
    (null && ours).then(|| rule("null-subject", RuleAction::Suppress, Reason::NullSubject))
}

fn configured(asked: &Asked<'_>) -> Option<Ruling> {
    let mut rules = asked.policy.rules.iter();
    let found = rules.find(|rule| rule.mode != Some(Mode::Observe) && matches(rule, asked))?;
    Some(configured_ruling(found))
}

/// What a rule of the configuration says.
pub fn configured_ruling(found: &Rule) -> Ruling {
    Ruling { mode: found.mode, ..rule(&found.name, found.action, Reason::ConfiguredRule) }
}

fn matches(rule: &Rule, asked: &Asked<'_>) -> bool {
    let one_of = |patterns: &[crate::judge::lists::Pattern], address: Option<&Address>| {
        patterns.is_empty()
            || address.is_some_and(|address| patterns.iter().any(|p| p.matches(address)))
    };
    let class = asked.case.class;
    let kind = asked.verdict.map(Verdict::kind);
    (rule.classes.is_empty() || rule.classes.iter().any(|pattern| pattern.matches(class)))
        && (rule.verdicts.is_empty() || kind.is_some_and(|kind| rule.verdicts.contains(&kind)))
        && one_of(&rule.rcpt, asked.address())
        && one_of(&rule.responder, asked.case.responder.as_ref())
        && (rule.client.is_empty()
            || asked.envelope.client.ip.is_some_and(|ip| {
                rule.client.iter().any(|network| network.contains(&ip.to_canonical()))
            }))
        && rule.origin.is_none_or(|origin| asked.case.origin == Some(origin))
}

/// An address of ours that stands for somebody else's: that somebody is judged, and the answer is
/// limited at the least. Never more, unless that somebody stands on the deny list: it is our own
/// forwarder that vouches for the form.
fn own_rewritten(asked: &Asked<'_>) -> Option<Ruling> {
    let (address, site) = (asked.address()?, &asked.policy.site);
    let original = foreign_original(address, site);
    let is_read = original.is_some();
    if !is_read && !is_unreadable(address, site) {
        return None;
    }
    let verdict = asked.verdict?;
    if original.is_some_and(|original| is_denied(asked, &original)) {
        return Some(rule("deny-list", RuleAction::Suppress, Reason::DenyList));
    }
    let proven = is_read && matches!(verdict, Verdict::Authenticated { scope: Scope::Address, .. });
    let action = if proven { RuleAction::Deliver } else { RuleAction::Limit };
    Some(rule("own-rewritten", action, reason_of(verdict)))
}

/// Our own mailboxes are not judged, nor are our own postmaster and abuse desks.
///
/// Why only our own: a spammer who forges `postmaster@` of somebody else's domain must not get
/// our bounces sent there.
fn local(asked: &Asked<'_>) -> Option<Ruling> {
    let deliver = |reason| Some(rule("local-domain", RuleAction::Deliver, reason));
    let address = match asked.recipient {
        ForwardPath::Postmaster(_) => return deliver(Reason::LocalPostmaster),
        ForwardPath::Address(address) => address,
    };
    let site = &asked.policy.site;
    if site.is_local(address) {
        return deliver(Reason::LocalDomain);
    }
    let desk = ["postmaster", "abuse"].iter().any(|d| address.local().eq_ignore_ascii_case(d));
    let own_host = address.domain().is_some_and(|domain| site.is_own_host(domain.as_str()));
    if desk && own_host { deliver(Reason::LocalPostmaster) } else { None }
}

fn relayed(asked: &Asked<'_>) -> Option<Ruling> {
    let relayed = asked.is_relayed();
    relayed.then(|| rule("relayed-response", RuleAction::Deliver, Reason::RelayedResponse))
}

fn denied(asked: &Asked<'_>) -> Option<Ruling> {
    let denied = is_denied(asked, asked.address()?);
    denied.then(|| rule("deny-list", RuleAction::Suppress, Reason::DenyList))
}

fn is_denied(asked: &Asked<'_>, address: &Address) -> bool {
    asked.policy.deny.entry_for(address, asked.now).is_some()
}

/// RFC 5230 §4.6 and RFC 3834 §2: list traffic and automatic messages get no automatic answer.
fn subject_not_to_answer(asked: &Asked<'_>) -> Option<Ruling> {
    if !matches!(asked.case.class, Class::AutoReply | Class::Challenge) {
        return None;
    }
    let kinds = || {
        let recorded = asked.subject.into_iter().map(|subject| &subject.kind);
        std::iter::once(&asked.case.original.kind).chain(recorded)
    };
    if kinds().any(|kind| kind.list.is_some()) {
        return Some(rule("subject-list", RuleAction::Suppress, Reason::SubjectList));
    }
    let automatic = kinds().any(|kind| kind.automatic.is_some());
    automatic.then(|| rule("subject-automatic", RuleAction::Suppress, Reason::SubjectAutomatic))
}

/// What our spam filter holds for spam is answered less, or not at all: whose address it bears
/// matters little then.
fn subject_spam(asked: &Asked<'_>) -> Option<Ruling> {
    let score = asked.subject?.spam?;
    let reaches = |threshold: Option<SpamScore>| threshold.is_some_and(|from| score >= from);
    let proven = asked.verdict.map(Verdict::kind) == Some(VerdictKind::Authenticated);
    let action = match () {
        () if reaches(asked.policy.spam_suppress) => RuleAction::Suppress,
        // Why only then: the table limits all others already, or does more.
        () if reaches(asked.policy.spam_limit) && proven => RuleAction::Limit,
        () => return None,
    };
    Some(rule("subject-spam", action, Reason::SubjectSpam))
}

/// The allow list lifts verdict rules and limits; against *failed* only an entry that says so.
fn allowed(asked: &Asked<'_>) -> Option<Ruling> {
    allow_entry(asked)?;
    // Why another reason: nobody should have to search for answers that went to forged senders.
    let reason = if is_failed(asked) { Reason::AllowListForged } else { Reason::AllowList };
    Some(rule("allow-list", RuleAction::Deliver, reason))
}

fn is_failed(asked: &Asked<'_>) -> bool {
    asked.verdict.map(Verdict::kind) == Some(VerdictKind::Failed)
}

/// The entry of the allow list that helps this recipient.
pub fn allow_entry<'a>(asked: &Asked<'a>) -> Option<&'a Entry> {
    let entry = asked.policy.allow.entry_for(asked.recipient.address()?, asked.now)?;
    (!is_failed(asked) || entry.forged).then_some(entry)
}

fn table(asked: &Asked<'_>) -> Option<Ruling> {
    let Some(verdict) = asked.verdict else { return Some(report(asked)) };
    Some(table_row(asked.policy.profile, asked.case.class, verdict))
}

/// Reports are limited in every case, and there is no report about a report.
fn report(asked: &Asked<'_>) -> Ruling {
    let about_report = asked.case.original.kind.automatic.is_some();
    match about_report {
        true => rule("report-on-report", RuleAction::Suppress, Reason::ReportOnReport),
        false => rule("report", RuleAction::Limit, Reason::Report),
    }
}

/// The table of the profile: one row for each class, one column for each verdict.
pub fn table_row(profile: Profile, class: Class, verdict: &Verdict) -> Ruling {
    let kind = verdict.kind();
    let action = match (profile, kind) {
        (_, VerdictKind::Authenticated) => RuleAction::Deliver,
        (_, VerdictKind::Failed) => RuleAction::Suppress,
        (Profile::Strict, VerdictKind::Unresolved) => strict_unresolved(class),
        (Profile::Strict, _) => RuleAction::Suppress,
        (Profile::Balanced, kind) => balanced(class, kind),
    };
    let domain_only = matches!(verdict, Verdict::Authenticated { scope: Scope::DomainOnly, .. });
    let profile = match profile {
        Profile::Balanced => "balanced",
        Profile::Strict => "strict",
    };
    let rule = match class.dsn_action() {
        Some(action) => [profile, ".dsn-", action.as_str(), ".", kind.as_str()].concat(),
        None => [profile, ".", class.as_str(), ".", kind.as_str()].concat(),
    };
    Ruling {
        action: if domain_only { RuleAction::Limit } else { action },
        rule,
        reason: reason_of(verdict),
        mode: None,
    }
}

/// The columns unauthenticated, unresolved and unknown of the profile `balanced`.
fn balanced(class: Class, kind: VerdictKind) -> RuleAction {
    match class {
        Class::AutoReply | Class::Mdn | Class::Dsn(DsnAction::Failed) => match kind {
            VerdictKind::Unresolved => RuleAction::Defer,
            _ => RuleAction::Limit,
        },
        // Why: nobody misses a challenge, a delay notice or a receipt that he did not ask for.
        _ => RuleAction::Suppress,
    }
}

fn strict_unresolved(class: Class) -> RuleAction {
    balanced(class, VerdictKind::Unresolved)
}

fn reason_of(verdict: &Verdict) -> Reason {
    use crate::judge::decision::FailureKind;
    match verdict {
        Verdict::Authenticated { scope: Scope::Address, .. } => Reason::Authenticated,
        Verdict::Authenticated { scope: Scope::DomainOnly, .. } => Reason::DomainOnly,
        Verdict::Failed { by: FailureKind::Spf } => Reason::FailedSpf,
        Verdict::Failed { by: FailureKind::SoftFail } => Reason::FailedSoftfail,
        Verdict::Failed { by: FailureKind::Dmarc } => Reason::FailedDmarc,
        Verdict::Unauthenticated => Reason::Unauthenticated,
        Verdict::Unresolved => Reason::Unresolved,
        Verdict::Unknown { .. } => Reason::Unknown,
    }
}
