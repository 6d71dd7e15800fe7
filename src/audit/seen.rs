//! What a decision saw, as a record holds it: the subject message, the evidence, the gaps.
//!
//! Takes: values of `judge`. Gives: plain structs of words, one for each object of the record, and
//! the way back, so that a recorded case can be decided again (law 7).
//! Why structs of their own: the names in the log are stable; those in the code may change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::answered::RecordedAnswered;
use crate::audit::findings::{
    RecordedDomain, RecordedFindings, RecordedGap, addresses, apart, each, parsed, reverse_path,
    together,
};
use crate::audit::rounds::RecordedRounds;
use crate::audit::words::{FOUND_AS, NAMED_BY, harmless};
use crate::judge::classify::Signal;
use crate::judge::evidence::{Evidence, Findings, RecipientEvidence, SentBefore};
use crate::judge::loops::{Laps, LoopEvidence};
use crate::judge::original::{Key, Original, SubjectKind};
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::time::Timestamp;

/// A sign that led to the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedSignal {
    /// Stable name of the sign.
    pub id: String,
    /// What was seen; harmless.
    pub detail: String,
    /// The standard that gives it a meaning; empty when it is only a habit.
    pub standard: String,
}

impl RecordedSignal {
    /// The signal in words.
    pub fn new(signal: &Signal) -> RecordedSignal {
        let Signal { id, detail, standard } = signal;
        let (id, standard) = (id.to_string(), standard.to_string());
        RecordedSignal { id, detail: harmless(detail), standard }
    }
}

/// A way in which the response names its subject message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedKey {
    /// What kind of id it is.
    pub kind: KeyKind,
    /// The id as written, harmless.
    pub id: String,
    /// A queue id's host, lower case; empty when not said; null for other kinds.
    pub host: Option<String>,
    /// The field that named a Message-ID; null for other kinds.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::named_by"))]
    pub named_by: Option<String>,
}

/// What kind of id names a subject message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// The id it had in a queue.
    QueueId,
    /// A Message-ID without angle brackets.
    MessageId,
    /// Original-Envelope-Id (RFC 3464 §2.2.1).
    EnvelopeId,
}

impl RecordedKey {
    fn new(key: &Key) -> RecordedKey {
        let (kind, id, host, named_by) = match key {
            Key::QueueId { host, id } => (KeyKind::QueueId, id, Some(harmless(host)), None),
            Key::MessageId { id, named_by } => {
                let word = NAMED_BY.word(*named_by);
                (KeyKind::MessageId, id, None, Some(word.to_owned()))
            }
            Key::EnvelopeId(id) => (KeyKind::EnvelopeId, id, None, None),
        };
        RecordedKey { kind, id: harmless(id), host, named_by }
    }

    fn key(&self) -> Option<Key> {
        let id = self.id.clone();
        Some(match self.kind {
            KeyKind::QueueId => Key::QueueId { host: self.host.clone()?, id },
            KeyKind::MessageId => {
                Key::MessageId { id, named_by: NAMED_BY.find(self.named_by.as_deref()?)? }
            }
            KeyKind::EnvelopeId => Key::EnvelopeId(id),
        })
    }
}

/// The subject message, as far as the response shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedSubject {
    /// In which form it was found.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::found_as"))]
    pub found_as: String,
    /// Its best Message-ID, without angle brackets.
    pub message_id: Option<String>,
    /// Its reverse-path, `""` for the null one; null when not said or only the peer says it.
    pub return_path: Option<String>,
    /// What names it, best first.
    pub keys: Vec<RecordedKey>,
    /// Mailboxes of its From field.
    pub from: Vec<String>,
    /// The mailbox of its Sender field.
    pub sender: Option<String>,
    /// Mailboxes of its Reply-To field.
    pub reply_to: Vec<String>,
    /// Mailboxes of its Disposition-Notification-To field.
    #[serde(default)]
    pub notify: Vec<String>,
    /// Its subject, decoded, harmless.
    pub subject: Option<String>,
    /// Its Date field, RFC 3339.
    pub date: Option<String>,
    /// When the reporting system got it, RFC 3339.
    pub arrived: Option<String>,
    /// Recipients the report is about.
    pub failed_recipients: Vec<String>,
    /// The field that shows list traffic.
    pub list: Option<String>,
    /// The field that shows an automatic message.
    pub automatic: Option<String>,
    /// What the embedded header proves; null when it stands among the evidence's findings.
    pub findings: Option<RecordedFindings>,
}

impl RecordedSubject {
    /// The subject message in words; findings that the evidence has too are not repeated.
    pub fn new(original: &Original, evidence: Option<&Evidence>) -> RecordedSubject {
        let Original { found_as, keys, return_path, from, sender, reply_to, notify, .. } = original;
        let Original { subject, date, arrived, failed_recipients, kind, findings, .. } = original;
        let repeated = |findings: &&Findings| {
            !evidence.is_some_and(|evidence| evidence.findings.contains(findings))
        };
        RecordedSubject {
            found_as: found_as.as_str().to_owned(),
            message_id: original.message_id().map(harmless),
            return_path: return_path.as_ref().map(ReversePath::to_string),
            keys: keys.iter().map(RecordedKey::new).collect(),
            from: addresses(from),
            sender: sender.as_ref().map(Address::to_string),
            reply_to: addresses(reply_to),
            notify: addresses(notify),
            subject: subject.as_deref().map(harmless),
            date: date.as_ref().map(Timestamp::to_string),
            arrived: arrived.as_ref().map(Timestamp::to_string),
            failed_recipients: addresses(failed_recipients),
            list: kind.list.as_deref().map(harmless),
            automatic: kind.automatic.as_deref().map(harmless),
            findings: findings.as_ref().filter(repeated).map(RecordedFindings::new),
        }
    }

    /// The subject message again, without its place in the response and its gaps, which stand in
    /// the record's own; `None` when a word of it is not ours.
    pub fn original(&self) -> Option<Original> {
        Some(Original {
            found_as: FOUND_AS.find(&self.found_as)?,
            keys: self.keys.iter().map(RecordedKey::key).collect::<Option<_>>()?,
            return_path: each(&self.return_path, |text| reverse_path(text))?,
            from: parsed(&self.from)?,
            sender: each(&self.sender, |text| Address::parse(text))?,
            reply_to: parsed(&self.reply_to)?,
            notify: parsed(&self.notify)?,
            subject: self.subject.clone(),
            date: each(&self.date, |text| Timestamp::parse_rfc3339(text))?,
            arrived: each(&self.arrived, |text| Timestamp::parse_rfc3339(text))?,
            failed_recipients: parsed(&self.failed_recipients)?,
            kind: SubjectKind { list: self.list.clone(), automatic: self.automatic.clone() },
            embedded: None,
            border: None,
            findings: each(&self.findings, RecordedFindings::findings)?,
            gaps: Vec::new(),
        })
    }
}

/// Everything the decision saw beside the message and the policy, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedEvidence {
    /// What each source says of the subject message, the best source first.
    pub findings: Vec<RecordedFindings>,
    /// What DNS says of the recipient's domain and of domains that stand in the findings.
    pub domains: BTreeMap<String, RecordedDomain>,
    /// How many limited responses went out before; null where nothing was counted.
    pub sent_before: Option<RecordedSent>,
    /// Why `sent_before` is not known; null where nothing was asked.
    pub sent_before_gap: Option<RecordedGap>,
    /// How often our own trace proves that the message went to this recipient before.
    pub laps: u32,
    /// When it first did.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub first_lap: Option<String>,
    /// When it last did.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub last_lap: Option<String>,
    /// What else is known of its earlier rounds; null when nothing is.
    pub rounds: Option<RecordedRounds>,
    /// The recorded inbound message that it answers; null when none was found.
    pub answered: Option<RecordedAnswered>,
}

/// How many responses of a kind went out in 24 h, or were on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedSent {
    /// From this responder to this recipient.
    pub pair: u32,
    /// To this recipient, from any responder.
    pub recipient: u32,
}

impl RecordedEvidence {
    /// The evidence for recipient number `index`. Domains for which `others` is true and that
    /// stand in no finding are left out: they are about other recipients.
    ///
    /// Why: with all domains in all records the log would grow with the square of the recipients.
    pub fn new(
        evidence: &Evidence,
        index: usize,
        others: impl Fn(&Domain) -> bool,
    ) -> RecordedEvidence {
        let Evidence { findings, domains, recipients, gaps: _ } = evidence;
        let findings: Vec<_> = findings.iter().map(RecordedFindings::new).collect();
        let found = |domain: &Domain| {
            findings.iter().flat_map(RecordedFindings::domains).any(|name| name == domain.as_str())
        };
        let domains = domains
            .iter()
            .filter(|(domain, _)| !others(domain) || found(domain))
            .map(|(domain, facts)| (domain.to_string(), RecordedDomain::new(facts)))
            .collect();
        let recipient = recipients.get(index);
        let loops = recipient.map(|recipient| &recipient.loops);
        let Laps { count: laps, first, last, .. } = loops.map(|l| l.laps).unwrap_or_default();
        let first_lap = first.map(|first| first.to_string());
        let last_lap = last.map(|last| last.to_string());
        let rounds = loops.and_then(RecordedRounds::new);
        let sent = recipient.map(|recipient| apart(&recipient.sent_before));
        let (sent, sent_before_gap) = sent.unwrap_or_default();
        let sent_before =
            sent.map(|&SentBefore { pair, recipient }| RecordedSent { pair, recipient });
        let answered = recipient.and_then(|recipient| recipient.answered.as_ref());
        let answered = answered.map(RecordedAnswered::new);
        RecordedEvidence {
            findings,
            domains,
            sent_before,
            sent_before_gap,
            laps,
            first_lap,
            last_lap,
            rounds,
            answered,
        }
    }

    /// The evidence again, with one recipient and `gaps`; `None` when a word of it is not ours.
    pub fn evidence(&self, gaps: &[RecordedGap]) -> Option<Evidence> {
        let sent =
            |&RecordedSent { pair, recipient }: &RecordedSent| Some(SentBefore { pair, recipient });
        let sent_before = each(&self.sent_before, sent)?;
        let asked = sent_before.is_some() || self.sent_before_gap.is_some();
        let recipients = match asked {
            true => {
                let sent_before = together(sent_before, &self.sent_before_gap)?;
                let moment = |text: &String| Timestamp::parse_rfc3339(text);
                let (first, last) = (each(&self.first_lap, moment)?, each(&self.last_lap, moment)?);
                let laps = Laps { count: self.laps, first, last, came_back: false };
                let loops = each(&self.rounds, |rounds| rounds.evidence(laps))?;
                let loops = loops.unwrap_or(LoopEvidence { laps, ..LoopEvidence::default() });
                let answered = each(&self.answered, RecordedAnswered::answered)?;
                vec![RecipientEvidence { sent_before, loops, answered, gaps: Vec::new() }]
            }
            false => Vec::new(),
        };
        let domain = |(name, domain): (&String, &RecordedDomain)| {
            Some((Domain::parse(name)?, domain.facts()?))
        };
        Some(Evidence {
            findings: self
                .findings
                .iter()
                .map(RecordedFindings::findings)
                .collect::<Option<_>>()?,
            domains: self.domains.iter().map(domain).collect::<Option<_>>()?,
            recipients,
            gaps: gaps.iter().map(RecordedGap::gap).collect::<Option<_>>()?,
        })
    }
}
