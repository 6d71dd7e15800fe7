//! What `decide` is given beside case and evidence: the rules, as data.
//!
//! Takes: settings, checked by `config`. `judge::ruling` applies them, first match wins.

use std::collections::HashSet;

use ipnet::IpNet;

use crate::judge::classify::{Class, DsnAction};
use crate::judge::decision::VerdictKind;
use crate::judge::lists::{List, Pattern};
use crate::judge::loops::conversation::ConversationLimits;
use crate::judge::original::Origin;
use crate::judge::site::Site;
use crate::judge::subject::SpamScore;

/// Whether decisions are carried out or only recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Deliver everything; record what would have happened.
    #[default]
    Observe,
    /// Act.
    Enforce,
}

/// The table that decides when no rule before it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Deliver what is proven, limit what is not known, hold what failed.
    #[default]
    Balanced,
    /// Deliver only what is proven.
    Strict,
}

/// What suppressing means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suppress {
    /// Keep it in quarantine and answer 250.
    #[default]
    Quarantine,
    /// Answer 550.
    Reject,
    /// Answer 250 and keep only the record.
    Discard,
}

/// When an SPF softfail means *failed*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftfailMeans {
    /// When the organizational domain publishes DMARC.
    #[default]
    WithDmarc,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a DMARC record with p=none means when nothing passed aligned with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PnoneMeans {
    /// Failed, as with any other policy.
    #[default]
    Fail,
    /// Nothing.
    Neutral,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Relay it.
    Deliver,
    /// Relay it while the class's limits allow, hold the excess.
    Limit,
    /// Hold, reject or discard it, as `policy.suppress` says.
    Suppress,
    /// Hold it.
    Quarantine,
    /// Answer 550.
    Reject,
    /// Answer 250, keep the record only.
    Discard,
    /// Answer 451 while the response is young, then as *unknown*.
    Defer,
}

/// One rule of the configuration. All conditions that are set must hold; an empty list is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, in records.
    pub name: String,
    /// Any of these classes.
    pub classes: Vec<ClassPattern>,
    /// Any of these verdicts.
    pub verdicts: Vec<VerdictKind>,
    /// The recipient is any of these.
    pub rcpt: Vec<Pattern>,
    /// Who answers (From of the response) is any of these.
    pub responder: Vec<Pattern>,
    /// The client lies in any of these networks.
    pub client: Vec<IpNet>,
    /// Whose response it is.
    pub origin: Option<Origin>,
    /// What it does.
    pub action: RuleAction,
    /// Whether this rule only observes; `None`: as the whole guard.
    pub mode: Option<Mode>,
}

/// A class, or one kind of DSN: `dsn`, `dsn.failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassPattern {
    /// This class; for a DSN the action does not matter.
    Class(Class),
    /// DSNs of any action.
    AnyDsn,
    /// DSNs of this action.
    Dsn(DsnAction),
}

/// What `decide` is given beside case and evidence.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whether decisions are carried out.
    pub mode: Mode,
    /// The table.
    pub profile: Profile,
    /// What suppressing means.
    pub suppress: Suppress,
    /// Rules before the profile, in order.
    pub rules: Vec<Rule>,
    /// What is ours.
    pub site: Site,
    /// Whom to answer whatever the verdict.
    pub allow: List,
    /// Whom to answer never.
    pub deny: List,
    /// When softfail means failed.
    pub softfail: SoftfailMeans,
    /// What p=none means.
    pub pnone: PnoneMeans,
    /// Sealers whose ARC results are believed.
    pub arc_sealers: HashSet<String>,
    /// From which spam score of the subject message on responses to it are limited.
    pub spam_limit: Option<SpamScore>,
    /// From which score on they are suppressed.
    pub spam_suppress: Option<SpamScore>,
    /// When mail goes round.
    pub loops: LoopLimits,
}

impl Policy {
    /// Everything in it as text in a fixed order, to make a hash of: equal policies, equal text.
    pub fn in_order(&self) -> String {
        let Policy { site, allow, deny, arc_sealers, .. } = self;
        let mut lines: Vec<String> = vec![format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {}",
            self.mode,
            self.profile,
            self.suppress,
            self.rules,
            self.softfail,
            self.pnone,
            self.spam_limit,
            self.spam_suppress,
            self.loops,
            site.networks,
            site.trusted_relays,
            site.authserv_stripped,
            site.authserv_below,
        )];
        let mut sorted = |name: &str, mut words: Vec<String>| {
            words.sort_unstable();
            lines.push(format!("{name} {words:?}"));
        };
        sorted("domains", site.domains.iter().map(ToString::to_string).collect());
        sorted("hosts", site.hosts.iter().cloned().collect());
        sorted("ids", site.authserv_ids.iter().cloned().collect());
        sorted("sealers", arc_sealers.iter().cloned().collect());
        sorted("allow", allow.iter().map(|entry| format!("{entry:?}")).collect());
        sorted("deny", deny.iter().map(|entry| format!("{entry:?}")).collect());
        lines.join("\n")
    }
}

/// When mail goes round (design of loops: laps are proven by our own trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopLimits {
    /// How often a message may come back; a response may not at all.
    pub laps_max: u32,
    /// `Received` lines of a response beyond which it is held.
    pub hops_max_response: u32,
    /// `Received` lines of other mail beyond which it is held, if it also bears our trace.
    pub hops_max: u32,
    /// How much two may talk.
    pub conversation: ConversationLimits,
}

impl Default for LoopLimits {
    fn default() -> Self {
        let conversation = ConversationLimits::default();
        LoopLimits { laps_max: 1, hops_max_response: 25, hops_max: 60, conversation }
    }
}

impl ClassPattern {
    /// Reads `auto-reply`, `dsn`, `dsn.failed`…; `None` for what is no guarded class.
    pub fn parse(text: &str) -> Option<ClassPattern> {
        let dsn = |action| Some(ClassPattern::Dsn(action));
        match text {
            "dsn" => Some(ClassPattern::AnyDsn),
            "dsn.failed" => dsn(DsnAction::Failed),
            "dsn.delayed" => dsn(DsnAction::Delayed),
            "dsn.delivered" => dsn(DsnAction::Delivered),
            "dsn.relayed" => dsn(DsnAction::Relayed),
            "dsn.expanded" => dsn(DsnAction::Expanded),
            "auto-reply" => Some(ClassPattern::Class(Class::AutoReply)),
            "challenge" => Some(ClassPattern::Class(Class::Challenge)),
            "mdn" => Some(ClassPattern::Class(Class::Mdn)),
            "dmarc-report" => Some(ClassPattern::Class(Class::DmarcReport)),
            "feedback-report" => Some(ClassPattern::Class(Class::FeedbackReport)),
            _ => None,
        }
    }

    /// Whether the class is meant.
    pub fn matches(self, class: Class) -> bool {
        match self {
            ClassPattern::Class(wanted) => wanted == class,
            ClassPattern::AnyDsn => class.dsn_action().is_some(),
            ClassPattern::Dsn(action) => class.dsn_action() == Some(action),
        }
    }
}
