//! Station 4: which recorded message a response answers.
//!
//! Takes: a case, the recipient it is judged for, and the records found under the names it knows
//! its subject message by. Gives: `Answered`, or the `Gap` that says why there is none. Pure: the
//! store is asked in between, by `guard`.
//! Bounds: `limits_of_memory::SUBJECTS_MAX` records in question, `limits_of_memory::LOOK_UPS_MAX`
//! names.
//! Standards: RFC 3461 §6.3, RFC 3834 §3.1.5, RFC 5322 §3.6.4, RFC 8098 §3.2.5.
//!
//! The rule is *nearest unanswered*: of the best kind of name the latest record that came before
//! the response and that this responder has not answered yet. Why not the worst: one forged mail
//! would silence all replies to its victim. Why not simply the latest: a forger would ride on a
//! genuine mail. Only where two cannot be told apart (within `limits_of_memory::ALIKE_WITHIN`, or
//! when the responder is no recipient of either) the worst verdict counts.

use std::sync::Arc;

use crate::judge::Case;
use crate::judge::classify::Class;
use crate::judge::evidence::{Findings, Gap, GapCause};
use crate::judge::original::{Key, NamedBy, SubjectKind};
use crate::judge::site::Site;
use crate::judge::subject::{Inbound, InboundId, LookUp, SpamScore, TapKind, Way};
use crate::mail::address::{Address, ReversePath};
use crate::mail::limits::CLOCK_SKEW_MAX;
use crate::mail::limits_of_memory::{
    ALIKE_WITHIN, DATES_AGREE_WITHIN, LOOK_UPS_MAX, PAIR_WITHIN, REINJECTED_WITHIN, SUBJECTS_MAX,
};
use crate::mail::time::Timestamp;

/// The recorded message that a response to one recipient answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// By which kind of name it was found.
    pub by: MatchedBy,
    /// The id; `None` for a pair.
    pub id: Option<String>,
    /// How many records came into question.
    pub candidates: u32,
    /// What the recipient is to it.
    pub recipient: Standing,
    /// The records whose verdicts count, nearest first; of several the worst decides.
    pub subjects: Vec<Subject>,
}

/// What is known of one recorded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which record; `None` where it was read back from a log.
    pub id: Option<InboundId>,
    /// Which tap saw it.
    pub tap: TapKind,
    /// Our host that accepted it.
    pub host: String,
    /// Its id in that host's queue.
    pub queue_id: Option<String>,
    /// The end of data.
    pub arrived: Timestamp,
    /// Whether the tap was still verifying.
    pub pending: bool,
    /// The argument of MAIL.
    pub mail_from: ReversePath,
    /// Whether it was list traffic, or itself automatic.
    pub kind: SubjectKind,
    /// What our spam filter made of it.
    pub spam: Option<SpamScore>,
    /// What each source says of it, best first.
    pub findings: Vec<Findings>,
    /// What could not be known of it.
    pub gaps: Vec<Gap>,
}

/// By which kind of name a record was found, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedBy {
    /// The queue id on our host.
    QueueId,
    /// A Message-ID.
    MessageId,
    /// The ENVID.
    EnvelopeId,
    /// Recipient and responder, soon after it came in.
    Pair,
}

/// What the recipient of a response is to the message it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An answer to it may go to him.
    ReplyTarget,
    /// He has nothing to do with it: why the response goes to him, nothing says.
    Stranger,
}

/// A record that was found, and whether the responder answered it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The record.
    pub record: Arc<Inbound>,
    /// When the responder's last answer to it was delivered; `None` when none was.
    pub answered: Option<Timestamp>,
}

/// What is asked: which message does this response to this recipient answer?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The response.
    pub case: &'a Case,
    /// The recipient it is judged for.
    pub recipient: &'a Address,
    /// What is ours.
    pub site: &'a Site,
    /// Now.
    pub now: Timestamp,
}

impl MatchedBy {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchedBy::QueueId => "queue-id",
            MatchedBy::MessageId => "message-id",
            MatchedBy::EnvelopeId => "envelope-id",
            MatchedBy::Pair => "pair",
        }
    }
}

impl Standing {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::ReplyTarget => "reply-target",
            Standing::Stranger => "stranger",
        }
    }
}

/// One name that the response knows its subject message by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    look_up: LookUp,
    how: How,
}

/// What a name of this kind asks of a record beside being its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    /// The queue id of a report, with the host that gave it and when. Short ids repeat.
    Reported { host: String, at: Option<Timestamp> },
    /// The queue id in a Message-ID that our own host made up, with the moment in it.
    MadeUp { at: Option<Timestamp> },
    /// Nothing.
    Id,
    /// That it came in just before.
    Pair,
}

impl Named {
    fn by(&self) -> MatchedBy {
        match self.look_up {
            LookUp::QueueId(_) => MatchedBy::QueueId,
            LookUp::MessageId(_) => MatchedBy::MessageId,
            LookUp::EnvelopeId(_) => MatchedBy::EnvelopeId,
            LookUp::Pair(..) | LookUp::Signature(_) => MatchedBy::Pair,
        }
    }

    fn id(&self) -> Option<String> {
        match &self.look_up {
            LookUp::QueueId(id) | LookUp::MessageId(id) | LookUp::EnvelopeId(id) => {
                Some(id.clone())
            }
            LookUp::Pair(..) | LookUp::Signature(_) => None,
        }
    }
}

/// A record in question, with the moment from which it can have been answered.
#[derive(Clone, Copy)]
struct Candidate<'r> {
    recalled: &'r Recalled,
    arrived: Timestamp,
    orphan: bool,
}

impl Question<'_> {
    /// The names to look up, best first.
    pub fn look_ups(&self) -> Vec<LookUp> {
        self.names().into_iter().map(|named| named.look_up).collect()
    }

    /// Names of earlier arrivals that are still missing: a record that an inside host gave back
    /// inherits from one that may be filed under other names. None when there is nothing to ask.
    pub fn look_ups_of_parents(&self, recalled: &[Recalled]) -> Vec<LookUp> {
        let mut look_ups = Vec::new();
        for found in recalled.iter().filter(|found| found.record.way == Way::Reinjected) {
            if parent(&found.record, recalled).is_none() {
                look_ups.extend(found.record.look_ups());
            }
        }
        look_ups.retain(|look_up| !matches!(look_up, LookUp::QueueId(_)));
        look_ups.truncate(LOOK_UPS_MAX);
        look_ups
    }

    /// The recorded message; or why there is none.
    pub fn answered(&self, recalled: &[Recalled]) -> Result<Answered, Gap> {
        let names = self.names();
        let mut strangers = None;
        for named in &names {
            let (targets, others): (Vec<_>, Vec<_>) = self
                .candidates(named, recalled)
                .into_iter()
                .partition(|candidate| self.fits_recipient(named, candidate));
            if let (true, false, None) = (targets.is_empty(), others.is_empty(), &strangers) {
                strangers = Some(self.found(named, others.len(), Standing::Stranger, others));
            } else if !targets.is_empty() {
                let count = targets.len();
                let chosen = self.chosen(named, targets);
                return Ok(self.found(named, count, Standing::ReplyTarget, chosen));
            }
        }
        strangers.ok_or_else(|| match names.is_empty() {
            true => Gap::new(GapCause::NoKey, "nothing names it, and nobody answers"),
            false => Gap::new(GapCause::NotInStore, "no record under any of its names"),
        })
    }

    /// What the response knows its subject message by, best first.
    fn names(&self) -> Vec<Named> {
        let original = &self.case.original;
        let mut names: Vec<Named> = Vec::new();
        let mut add = |look_up, how| {
            let named = Named { look_up, how };
            if names.len() < LOOK_UPS_MAX && !names.contains(&named) {
                names.push(named);
            }
        };
        for key in &original.keys {
            match key {
                Key::QueueId { host, id } => {
                    let (host, at) = (host.clone(), original.arrived);
                    add(LookUp::QueueId(id.clone()), How::Reported { host, at });
                }
                Key::MessageId { id, named_by } => {
                    add(LookUp::MessageId(id.clone()), How::Id);
                    // Why not what a report embeds: it has the queue id itself.
                    if *named_by != NamedBy::EmbeddedHeader
                        && let Some((id, at)) = made_up(id, self.site)
                    {
                        add(LookUp::QueueId(id), How::MadeUp { at });
                    }
                }
                Key::EnvelopeId(id) => add(LookUp::EnvelopeId(id.clone()), How::Id),
            }
        }
        if let (true, Some(responder)) = (self.is_reply(), &self.case.responder) {
            add(LookUp::pair(self.recipient, responder), How::Pair);
        }
        names
    }

    /// Whether it is a mailbox that answers, and not a server that reports.
    fn is_reply(&self) -> bool {
        matches!(self.case.class, Class::AutoReply | Class::Challenge | Class::Mdn)
    }

    /// When the response was made: by its own date, where that is credible. A response that was
    /// deferred must not be led to what came in since.
    fn made_at(&self) -> Timestamp {
        let credible = |date: &Timestamp| *date <= self.now.plus(CLOCK_SKEW_MAX);
        self.case.date.filter(credible).map_or(self.now, |date| date.min(self.now))
    }

    /// The records of this name that came before the response, each message once, latest first.
    fn candidates<'r>(&self, named: &Named, recalled: &'r [Recalled]) -> Vec<Candidate<'r>> {
        // Why the slack: dates have whole seconds, and hosts their own clocks.
        let made = self.made_at().plus(DATES_AGREE_WITHIN);
        let mut candidates: Vec<Candidate<'r>> = Vec::new();
        for found in recalled {
            let record = &found.record;
            let is_named = record.look_ups().contains(&named.look_up);
            if !is_named || record.arrived > made || !self.fits(named, record) {
                continue;
            }
            let inherits = record.way == Way::Reinjected;
            let parent = inherits.then(|| parent(record, recalled)).flatten();
            candidates.push(Candidate {
                recalled: parent.unwrap_or(found),
                arrived: record.arrived,
                orphan: inherits && parent.is_none(),
            });
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.arrived));
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let id = candidate.recalled.record.id;
            let new = !seen.contains(&id);
            seen.push(id);
            new
        });
        candidates
    }

    /// What the kind of name asks of a record.
    fn fits(&self, named: &Named, record: &Inbound) -> bool {
        match &named.how {
            How::Reported { host, at } => {
                hosts_agree(host, &record.host, self.site) && dates_agree(*at, record)
            }
            How::MadeUp { at } => dates_agree(*at, record),
            How::Id => true,
            How::Pair => self.made_at().since(record.arrived) <= PAIR_WITHIN,
        }
    }

    /// Whether an answer to it goes to the recipient. A report goes to MAIL FROM and nowhere else,
    /// so a queue id that it names must be one of his.
    fn fits_recipient(&self, named: &Named, candidate: &Candidate<'_>) -> bool {
        let record = &candidate.recalled.record;
        match named.how {
            How::Reported { .. } => record
                .mail_from
                .address()
                .is_some_and(|address| address.same_mailbox(self.recipient)),
            _ => record.has_reply_target(self.recipient) || self.is_receipt_of(record),
        }
    }

    /// Whether it is the receipt that the record's Disposition-Notification-To asks for.
    fn is_receipt_of(&self, record: &Inbound) -> bool {
        self.case.class == Class::Mdn && record.takes_receipts_at(self.recipient)
    }

    /// Of several the nearest unanswered, and those that cannot be told from it.
    fn chosen<'r>(&self, named: &Named, mut targets: Vec<Candidate<'r>>) -> Vec<Candidate<'r>> {
        if matches!(named.how, How::Reported { .. }) {
            targets.truncate(1);
            return targets;
        }
        let dated = |candidate: &&Candidate<'_>| {
            let at = self.case.original.arrived;
            at.is_some() && dates_agree(at, &candidate.recalled.record)
        };
        let at_that_time: Vec<_> = targets.iter().filter(dated).copied().collect();
        if !at_that_time.is_empty() {
            targets = at_that_time;
        }
        let tied: Vec<_> =
            targets.iter().filter(|candidate| self.is_tied(candidate)).copied().collect();
        if tied.is_empty() {
            return targets;
        }
        // Why: responders leave alone what is automatic (RFC 3834 §2); only where nothing names
        // the message can that tell it from another.
        let answerable: Vec<_> = tied
            .iter()
            .filter(|candidate| named.how != How::Pair || is_answerable(&candidate.recalled.record))
            .copied()
            .collect();
        let tied = if answerable.is_empty() { tied } else { answerable };
        let unanswered: Vec<_> = tied
            .iter()
            .filter(|candidate| candidate.recalled.answered.is_none())
            .copied()
            .collect();
        let open = if unanswered.is_empty() { tied } else { unanswered };
        let nearest = open.first().map(|candidate| candidate.arrived);
        let alike = |candidate: &Candidate<'_>| {
            nearest.is_some_and(|nearest| nearest.since(candidate.arrived) <= ALIKE_WITHIN)
        };
        open.into_iter().filter(alike).collect()
    }

    /// Whether the responder, or whoever the report is about, is one of its recipients.
    fn is_tied(&self, candidate: &Candidate<'_>) -> bool {
        let record = &candidate.recalled.record;
        match self.is_reply() {
            true => self.case.responder.as_ref().is_some_and(|from| record.went_to(from)),
            false => self.case.original.failed_recipients.iter().any(|to| record.went_to(to)),
        }
    }

    fn found(
        &self,
        named: &Named,
        candidates: usize,
        recipient: Standing,
        chosen: Vec<Candidate<'_>>,
    ) -> Answered {
        let subjects = chosen.iter().take(SUBJECTS_MAX);
        Answered {
            by: named.by(),
            id: named.id(),
            candidates: u32::try_from(candidates).unwrap_or(u32::MAX),
            recipient,
            subjects: subjects.map(|candidate| candidate.subject(self.now)).collect(),
        }
    }
}

impl Candidate<'_> {
    fn subject(&self, now: Timestamp) -> Subject {
        let record = &self.recalled.record;
        let mut gaps = record.gaps.clone();
        if self.orphan {
            let what = "an inside host gave it back, and its first arrival has no record";
            gaps.push(Gap::new(GapCause::NotInStore, what));
        }
        if let Way::BehindRelay(relay) = &record.way {
            gaps.push(Gap::new(GapCause::BehindRelay, relay));
        }
        let pending = record.is_pending(now);
        if record.findings.is_empty() && !pending && gaps.is_empty() {
            gaps.push(Gap::new(GapCause::NotEvaluated, "the tap did not finish verifying it"));
        }
        // Why none for an orphan: what was verified is the way from an inside host.
        let findings = if self.orphan { Vec::new() } else { record.findings.clone() };
        Subject {
            id: Some(record.id),
            tap: record.tap,
            host: record.host.clone(),
            queue_id: record.queue_id.clone(),
            arrived: self.arrived,
            pending,
            mail_from: record.mail_from.clone(),
            kind: record.kind.clone(),
            spam: record.spam,
            findings,
            gaps,
        }
    }
}

impl Answered {
    /// Whether the tap is still verifying one of those in question.
    pub fn is_pending(&self) -> bool {
        self.recipient == Standing::ReplyTarget && self.subjects.iter().any(|s| s.pending)
    }
}

/// The record of the first arrival of a message that an inside host gave back: the latest before
/// it with the same MAIL FROM that shares a Message-ID or, when it had none, a recipient.
fn parent<'r>(child: &Inbound, recalled: &'r [Recalled]) -> Option<&'r Recalled> {
    let before = recalled.iter().filter(|found| {
        let record = &found.record;
        let apart = child.arrived.since(record.arrived);
        record.way != Way::Reinjected
            && record.id != child.id
            && record.arrived <= child.arrived.plus(DATES_AGREE_WITHIN)
            && apart <= REINJECTED_WITHIN
            && record.mail_from.same_path(&child.mail_from)
            && match child.message_ids.is_empty() || are_both_without_id(record, child) {
                true => child.recipients.iter().any(|to| record.went_to(to)),
                false => child.message_ids.iter().any(|id| record.message_ids.contains(id)),
            }
    });
    before.max_by_key(|found| found.record.arrived)
}

/// Whether a message had no Message-ID, and the MTA that took it back made one of the queue id it
/// gave it then.
fn are_both_without_id(first: &Inbound, back: &Inbound) -> bool {
    let queue_id = back.queue_id.as_deref().filter(|id| !id.is_empty());
    first.message_ids.is_empty()
        && back.message_ids.iter().all(|id| {
            let local = id.split('@').next().unwrap_or_default();
            queue_id.is_some_and(|queue_id| local.ends_with(queue_id))
        })
}

/// Whether a well-behaved responder may have answered it.
fn is_answerable(record: &Inbound) -> bool {
    let SubjectKind { list, automatic } = &record.kind;
    !record.mail_from.is_null() && list.is_none() && automatic.is_none()
}

/// Whether a moment that a report names lies within the record's transaction; when it names none,
/// nothing speaks against it.
fn dates_agree(at: Option<Timestamp>, record: &Inbound) -> bool {
    at.is_none_or(|at| {
        let first = record.began.min(record.arrived);
        first <= at.plus(DATES_AGREE_WITHIN) && at <= record.arrived.plus(DATES_AGREE_WITHIN)
    })
}

/// Whether two names may be those of one host: one of them is often only the first label, or not
/// said at all.
fn hosts_agree(one: &str, other: &str, site: &Site) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let short = |name: &str| !name.contains('.');
    one.is_empty()
        || other.is_empty()
        || one.eq_ignore_ascii_case(other)
        || (site.is_own_host(one) && site.is_own_host(other))
        || ((short(one) || short(other)) && first(one) == first(other))
}

/// The queue id in a Message-ID that one of our hosts made for a message without one, and its
/// moment: `20261121173859.3AB12C@mx` (Postfix), `E1abcde-0000000012A-0abc@mx` (Exim).
fn made_up(message_id: &str, site: &Site) -> Option<(String, Option<Timestamp>)> {
    let (local, host) = message_id.rsplit_once('@')?;
    site.is_own_host(host).then_some(())?;
    if let Some(id) = local.strip_prefix('E').filter(|id| id.split('-').count() == 3) {
        return Some((id.to_owned(), None));
    }
    let (front, id) = local.rsplit_once('.')?;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| (id.to_owned(), moment(front)))
}

/// `20261121173859` as UTC.
fn moment(digits: &str) -> Option<Timestamp> {
    let is_moment = digits.len() == 14 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_moment.then_some(())?;
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
    Timestamp::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..12),
        part(12..14)
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::evidence::{Evaluated, Source};
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::read_alone;
    use crate::judge::subject::State;
    use crate::mail::address::Domain;
    use crate::mail::header::Completeness;
    use crate::mail::message::Message;

    /// 2026-11-21 17:38:59 UTC.
    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn site() -> Site {
        Site {
            domains: [Domain::parse("uni.example").unwrap()].into(),
            hosts: ["mx.uni.example".into(), "mx2.uni.example".into()].into(),
            ..Site::default()
        }
    }

    fn before(seconds: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() - i64::try_from(seconds).unwrap() * 1000)
    }

    /// A message from `joe@bank.example` to `ann@uni.example`, so many seconds before the response.
    fn inbound(number: u32, seconds: u64) -> Inbound {
        let arrived = before(seconds);
        let joe = address("joe@bank.example");
        let findings = Findings {
            mail_from: Some(ReversePath::Address(joe.clone())),
            from: vec![joe.clone()],
            evaluated: Evaluated::ALL,
            ..Findings::of(Source::Tap)
        };
        Inbound {
            id: InboundId::new(arrived, number.into()),
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: Some(format!("Q{number}")),
            began: arrived,
            arrived,
            state: State::Complete,
            client: None,
            helo: String::new(),
            way: Way::Outside,
            mail_from: ReversePath::Address(joe.clone()),
            envelope_id: None,
            recipients: vec![address("ann@uni.example")],
            message_ids: vec![format!("m{number}@bank.example")],
            from: vec![joe],
            sender: None,
            reply_to: Vec::new(),
            notify: Vec::new(),
            kind: SubjectKind::default(),
            spam: None,
            findings: vec![findings],
            gaps: Vec::new(),
        }
    }

    /// Records as words: `1@5` is number 1, five seconds before the response; behind commas what
    /// is other about it than in `inbound`.
    fn records(words: &str) -> Vec<Recalled> {
        words.split_whitespace().map(recorded).collect()
    }

    fn recorded(word: &str) -> Recalled {
        let mut parts = word.split(',');
        let (number, seconds) = parts.next().unwrap().split_once('@').unwrap();
        let mut record = inbound(number.parse().unwrap(), seconds.parse().unwrap());
        let mut answered = None;
        for part in parts {
            let (what, value) = part.split_once('=').unwrap_or((part, ""));
            let text = || value.to_owned();
            match what {
                "no-id" => record.message_ids = Vec::new(),
                "id" => record.message_ids = vec![format!("{value}@bank.example")],
                "to" => record.recipients = vec![address(&format!("{value}@uni.example"))],
                "path" => record.mail_from = ReversePath::Address(address(value)),
                "from" => {
                    record.mail_from = ReversePath::Address(address(value));
                    record.from = vec![address(value)];
                }
                "reply-to" => record.reply_to = vec![address(value)],
                "notify" => record.notify = vec![address(value)],
                "list" => record.kind.list = Some("List-Id: x".to_owned()),
                "queue" => record.queue_id = Some(text()),
                "host" => record.host = text(),
                "envid" => record.envelope_id = Some(text()),
                "began" => record.began = before(value.parse().unwrap()),
                "answered" => answered = Some(record.arrived),
                "back" => {
                    record.way = Way::Reinjected;
                    record.findings = Vec::new();
                }
                "pending" => {
                    record.state = State::Pending;
                    record.findings = Vec::new();
                }
                other => panic!("{other}"),
            }
        }
        Recalled { record: Arc::new(record), answered }
    }

    fn case(text: &str) -> Case {
        let message = Message::new(text.to_owned(), Completeness::Whole);
        read_alone(&message, &site(), &FingerprintKey::new([1; 32]))
    }

    fn vacation(header: &str) -> Case {
        case(&format!(
            "Return-Path: <>\nFrom: Ann <ann@uni.example>\nTo: joe@bank.example\n\
             Subject: Away\nAuto-Submitted: auto-replied\n{header}\nI am away.\n"
        ))
    }

    fn receipt(fields: &str) -> Case {
        case(&format!(
            "Return-Path: <>\nFrom: Ann <ann@uni.example>\nTo: joe@bank.example\n\
             Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n\
             --b\n\nRead.\n--b\nContent-Type: message/disposition-notification\n\n\
             Final-Recipient: rfc822; ann@uni.example\n{fields}\
             Disposition: manual-action/MDN-sent-manually; displayed\n\n--b--\n"
        ))
    }

    fn dsn(fields: &str, original: &str) -> Case {
        case(&format!(
            "Return-Path: <>\nFrom: MAILER-DAEMON@mx.uni.example\nTo: joe@bank.example\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
             --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.uni.example\n\
             {fields}\nFinal-Recipient: rfc822; ann@uni.example\nAction: failed\n\
             Status: 5.1.1\n\n--b\nContent-Type: text/rfc822-headers\n\n{original}\n--b--\n"
        ))
    }

    /// `queue-id 1 of 2: 4 5` - by what, how many candidates, the numbers in question; `stranger`
    /// before it; or the gap.
    fn found(case: &Case, recalled: &[Recalled]) -> String {
        let (recipient, site) = (address("joe@bank.example"), site());
        let question = Question { case, recipient: &recipient, site: &site, now: NOW };
        match question.answered(recalled) {
            Ok(answered) => {
                let numbers = answered.subjects.iter().map(|subject| {
                    let id = subject.id.unwrap().as_u128() & 0xffff;
                    let orphan = GapCause::NotInStore.is_among(&subject.gaps);
                    format!(" {id}{}", if orphan { "?" } else { "" })
                });
                let numbers: String = numbers.collect();
                let stranger = match answered.recipient {
                    Standing::Stranger => "stranger ",
                    Standing::ReplyTarget => "",
                };
                format!("{stranger}{} of {}:{numbers}", answered.by.as_str(), answered.candidates)
            }
            Err(gap) => gap.cause.as_str().to_owned(),
        }
    }

    /// Each row: what it is about, the reply's own field, the records, what is found.
    fn assert_found(rows: &[(&str, &str, &str, &str)]) {
        for (what, header, recalled, expected) in rows {
            assert_eq!(&found(&vacation(header), &records(recalled)), expected, "{what}");
        }
    }

    const NAMED: &str = "In-Reply-To: <m1@bank.example>\n";

    #[test]
    fn a_reply_is_led_to_the_message_that_it_names() {
        let both = "References: <m1@bank.example> <m2@bank.example>\n";
        let exchange = "X-MS-Exchange-Parent-Message-Id: <m1@bank.example>\n";
        let made = "In-Reply-To: <20261121173800.Q1@mx.uni.example>\n";
        let made_there = "In-Reply-To: <20261121173800.Q1@mx.theirs.example>\n";
        let exim = "In-Reply-To: <E1vMzA1-0000000012A-0abc@mx.uni.example>\n";
        let reply_to = "1@5,from=x@spam.example,reply-to=Joe@bank.example";
        assert_found(&[
            ("In-Reply-To", NAMED, "1@5 2@1", "message-id of 1: 1"),
            ("References, last first", both, "1@1 2@5", "message-id of 1: 2"),
            ("Exchange's parent", exchange, "1@5 2@1", "message-id of 1: 1"),
            ("days later", NAMED, "1@400000", "message-id of 1: 1"),
            ("nothing there", NAMED, "", "not-in-store"),
            ("the pair, where the name leads nowhere", NAMED, "2@5", "pair of 1: 2"),
            ("not for him", NAMED, "1@5,from=x@spam.example", "stranger message-id of 1: 1"),
            ("for him by Reply-To", NAMED, reply_to, "message-id of 1: 1"),
            ("an id of our host's", made, "1@59 2@50000,queue=Q1", "queue-id of 1: 1"),
            ("an id of another host's", made_there, "1@5000", "not-in-store"),
            ("Exim's", exim, "1@59,queue=1vMzA1-0000000012A-0abc", "queue-id of 1: 1"),
        ]);
    }

    /// RFC 8098 §2.1: a receipt goes to whom Disposition-Notification-To names, and nobody else's
    /// answer does.
    #[test]
    fn a_receipt_is_led_to_the_message_that_asked_for_it() {
        let named = receipt("Original-Message-ID: <m1@bank.example>\n");
        let asked = "1@5,from=desk@bank.example,notify=Joe@bank.example";
        let elsewhere = "1@5,from=desk@bank.example,notify=eve@spam.example";
        for (what, case, recalled, expected) in [
            ("by its own field", &named, asked, "message-id of 1: 1"),
            ("by its two ends", &receipt(""), asked, "pair of 1: 1"),
            ("to MAIL FROM", &named, "1@5", "message-id of 1: 1"),
            ("asked for elsewhere", &named, elsewhere, "stranger message-id of 1: 1"),
            ("a vacation", &vacation(NAMED), asked, "stranger message-id of 1: 1"),
            ("a vacation by its two ends", &vacation(""), asked, "stranger pair of 1: 1"),
        ] {
            assert_eq!(found(case, &records(recalled)), expected, "{what}");
        }
    }

    #[test]
    fn a_reply_that_names_nothing_is_led_by_its_two_ends() {
        let dated = "Date: Sat, 21 Nov 2026 17:30:00 +0000\n";
        assert_found(&[
            ("the pair", "", "1@5", "pair of 1: 1"),
            ("too late", "", "1@601", "not-in-store"),
            ("a subaddress", "", "1@5,to=Ann+list", "pair of 1: 1"),
            ("of somebody else", "", "1@5,to=bob", "not-in-store"),
            ("what came after it", dated, "1@500 2@545", "pair of 1: 2"),
            // Responders leave it alone, so the answer is to the other.
            ("list mail in between", "", "1@200 2@5,list", "pair of 2: 1"),
            ("list mail alone", "", "2@5,list", "pair of 1: 2"),
        ]);
    }

    #[test]
    fn of_several_the_nearest_unanswered_counts_and_of_alike_ones_all() {
        assert_found(&[
            // A genuine Message-ID reused by a forger, long after.
            ("the same id again", NAMED, "1@5000,id=m1 2@5,id=m1", "message-id of 2: 2"),
            // The later was answered, so this is the answer to the other.
            ("a forged one before", NAMED, "1@5000 2@3,id=m1,answered", "message-id of 2: 1"),
            ("answered already", "", "2@90,answered 1@200", "pair of 2: 1"),
            ("all answered", "", "2@90,answered 1@200,answered", "pair of 2: 2"),
            ("alike", "", "1@70 2@11", "pair of 2: 2 1"),
            ("not alike", "", "1@75 2@11", "pair of 2: 2"),
            ("alike, but answered", "", "1@30 2@11,answered", "pair of 2: 1"),
            (
                "an untied responder",
                NAMED,
                "1@50,to=bob 2@4000,to=info,id=m1",
                "message-id of 2: 1 2",
            ),
            ("a tied one before others", NAMED, "1@500 2@5,to=info,id=m1", "message-id of 2: 1"),
        ]);
    }

    #[test]
    fn a_report_is_led_by_its_queue_id_and_its_date() {
        let date = "Arrival-Date: Sat, 21 Nov 2026 17:38:00 +0000\n";
        let queue = |id: &str| format!("X-Postfix-Queue-ID: {id}\n{date}");
        let original = "From: joe@bank.example\nMessage-ID: <m1@bank.example>\n";
        let (one, two) = (dsn(&queue("Q1"), original), dsn(&queue("Q2"), original));
        let (dated, envid) = (dsn(date, original), dsn("Original-Envelope-Id: e7\n", ""));
        let nameless = dsn("", "From: joe@bank.example\n");
        for (what, case, recalled, expected) in [
            ("exact", &one, "1@59 2@59", "queue-id of 1: 1"),
            ("a queue id that repeats", &one, "1@59 2@4000,queue=Q1", "queue-id of 1: 1"),
            ("a long transaction", &one, "1@5,began=60", "queue-id of 1: 1"),
            // The queue id of a stranger's mail says nothing; the Message-ID goes on.
            ("another MAIL FROM", &two, "1@300 2@59,from=x@spam.example", "message-id of 1: 1"),
            ("another host", &two, "1@59 2@59,host=mx.theirs.example", "message-id of 1: 1"),
            ("our host's other name", &two, "2@59,host=mx2", "not-in-store"),
            ("our host's first label", &two, "2@59,host=MX", "queue-id of 1: 2"),
            ("its own time", &dated, "1@59 2@20,id=m1", "message-id of 2: 1"),
            ("ENVID", &envid, "1@59,envid=e7", "envelope-id of 1: 1"),
            ("never the pair", &nameless, "1@5", "no-key"),
        ] {
            assert_eq!(found(case, &records(recalled)), expected, "{what}");
        }
    }

    #[test]
    fn what_an_inside_host_gave_back_inherits_from_its_first_arrival() {
        assert_found(&[
            ("named", NAMED, "1@9 2@8,back,id=m1", "message-id of 1: 1"),
            // The pair counts from when it came back: the filter took its time.
            ("a slow filter", "", "1@900 2@8,back,id=m1", "pair of 1: 1"),
            ("no first arrival", "", "2@8,back,id=m1", "pair of 1: 2?"),
            ("an id made up", "", "1@9,no-id 2@8,back,queue=Q2,id=7.Q2", "pair of 1: 1"),
            ("one of its own", "", "1@700,no-id 2@8,back,queue=Q2,id=m1", "pair of 1: 2?"),
            ("somebody else's", "", "1@700,path=eve@spam.example 2@8,back,id=m1", "pair of 1: 2?"),
            // A forger who reuses the id: his own first arrival is the nearest.
            ("the forger's", NAMED, "1@5000 3@10,id=m1 2@8,back,id=m1", "message-id of 2: 3"),
        ]);
        let (recipient, site, case) = (address("joe@bank.example"), site(), vacation(NAMED));
        let question = Question { case: &case, recipient: &recipient, site: &site, now: NOW };
        assert_eq!(question.look_ups_of_parents(&records("1@9 2@8,back,id=m1")), []);
        let missing = question.look_ups_of_parents(&records("2@8,back,id=m1"));
        assert!(missing.contains(&LookUp::MessageId("m1@bank.example".to_owned())));
    }

    #[test]
    fn a_pending_record_is_waited_for_only_where_it_counts() {
        let (recipient, site, case) = (address("joe@bank.example"), site(), vacation(""));
        let question = Question { case: &case, recipient: &recipient, site: &site, now: NOW };
        let answered = |words: &str| question.answered(&records(words)).unwrap();
        assert!(answered("1@2,pending").is_pending());
        assert!(answered("1@2 2@5,pending").is_pending());
        assert!(!answered("1@2 2@90,pending").is_pending());
        // The tap has died.
        let dead = answered("1@31,pending");
        assert!(!dead.is_pending());
        assert_eq!(dead.subjects[0].gaps[0].cause, GapCause::NotEvaluated);
    }

    #[test]
    fn what_is_looked_up_is_bounded_and_best_first() {
        let ids: String = (0..100).map(|n| format!(" <r{n}@bank.example>")).collect();
        let case = vacation(&format!("In-Reply-To: <m1@bank.example>\nReferences:{ids}\n"));
        let (recipient, site) = (address("joe@bank.example"), site());
        let question = Question { case: &case, recipient: &recipient, site: &site, now: NOW };
        let look_ups = question.look_ups();
        assert!(look_ups.len() <= LOOK_UPS_MAX);
        assert_eq!(look_ups[0], LookUp::MessageId("m1@bank.example".to_owned()));
        assert_eq!(look_ups[1], LookUp::MessageId("r99@bank.example".to_owned()));
        assert!(matches!(look_ups.last(), Some(LookUp::Pair(..))));
        let early = Timestamp::from_millis(0).plus(Duration::from_secs(1));
        assert_eq!(Question { now: early, ..question }.made_at(), early);
    }
}
