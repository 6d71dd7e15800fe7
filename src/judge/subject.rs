//! Station 4: the record of one inbound message, as a tap saw it come in; and what it is filed
//! under, so that a response can be led back to it.
//!
//! Takes: what a tap knows at the end of data, and later what verification found. Gives:
//! `Inbound`, and the `LookUp`s that name it. A record is *pending* from the end of data until
//! verification ends; both states are remembered under one id, the second replaces the first.
//! Only what was accepted has a record.
//! Bounds: `limits::INBOUND_*`, kept by `Inbound::within_limits`.
//! Standards: RFC 3834 §1 (subject message), RFC 3461 §4.4 (ENVID), RFC 5322 §3.6.4.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::judge::alignment::is_near;
use crate::judge::evidence::{AuthResult, Findings, Gap, SignatureId, SpfFinding, SpfScope};
use crate::judge::original::SubjectKind;
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::limits::{
    INBOUND_FINDINGS_MAX, INBOUND_IDS_MAX, INBOUND_MAILBOXES_MAX, INBOUND_PAIRS_MAX,
    INBOUND_RECIPIENTS_MAX, INBOUND_RESULTS_MAX, INBOUND_TEXT_BYTES_MAX, PENDING_MAX, SIGNALS_MAX,
};
use crate::mail::time::Timestamp;

/// One inbound message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Which record this is.
    pub id: InboundId,
    /// Who saw it.
    pub tap: TapKind,
    /// Our host that accepted it, as it calls itself; lower case.
    pub host: String,
    /// The id it got in that host's queue, as written; `None` when the tap does not learn it.
    pub queue_id: Option<String>,
    /// When its transaction began (MAIL): a queue id is dated between this and `arrived`.
    pub began: Timestamp,
    /// The end of data.
    pub arrived: Timestamp,
    /// Whether verification has ended.
    pub state: State,
    /// The client at the border, as far as it is known: never a gateway's address.
    pub client: Option<IpAddr>,
    /// What that client called itself.
    pub helo: String,
    /// The way it came in.
    pub way: Way,
    /// The argument of MAIL.
    pub mail_from: ReversePath,
    /// ENVID of MAIL, xtext decoded.
    pub envelope_id: Option<String>,
    /// The arguments of RCPT that were accepted; `<postmaster>` is left out.
    pub recipients: Vec<Address>,
    /// Every Message-ID, without angle brackets.
    pub message_ids: Vec<String>,
    /// Mailboxes of all From fields.
    pub from: Vec<Address>,
    /// The mailbox of its Sender field.
    pub sender: Option<Address>,
    /// Mailboxes of its Reply-To field.
    pub reply_to: Vec<Address>,
    /// Mailboxes of its Disposition-Notification-To field: where receipts go, and nothing else.
    pub notify: Vec<Address>,
    /// Whether it is list traffic, or itself automatic.
    pub kind: SubjectKind,
    /// What our spam filter made of it.
    pub spam: Option<SpamScore>,
    /// What each source says of it, best first; empty while pending.
    pub findings: Vec<Findings>,
    /// What could not be known of it, and why.
    pub gaps: Vec<Gap>,
}

/// Which record: a ULID, so that records are in the order in which they arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InboundId(u128);

/// Which kind of tap saw a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapKind {
    /// A milter of the MTA.
    Milter,
    /// The SMTP pass-through.
    Smtp,
    /// Posted by rspamd, or in our own form.
    Http,
}

/// Whether verification has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Not yet.
    Pending,
    /// Yes, with or without results.
    Complete,
}

/// The way a message came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// From outside.
    Outside,
    /// Submitted from inside by one of ours, with the sign that shows it.
    OwnSubmission(String),
    /// Given back by an inside host, such as a content filter, with lines of others below: it
    /// inherits from the record of its first arrival.
    Reinjected,
    /// Through a gateway of ours that hides its client, with the gateway's name.
    BehindRelay(String),
}

/// A spam score in thousandths of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpamScore(i32);

/// One name that a record is filed under, and that a response may know it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LookUp {
    /// The queue id, whatever the host: hosts have several names.
    QueueId(String),
    /// A Message-ID, without angle brackets.
    MessageId(String),
    /// The ENVID.
    EnvelopeId(String),
    /// A reply target and a recipient, both canonical, the recipient without detail.
    Pair(String, String),
    /// A signature that passed without an SPF pass of its domain, as a digest.
    Signature(String),
}

impl InboundId {
    /// From a moment and chance; of `chance` the lower 80 bits count.
    pub fn new(at: Timestamp, chance: u128) -> InboundId {
        let millis = u128::try_from(at.as_millis()).unwrap_or(0) & ((1 << 48) - 1);
        InboundId(millis << 80 | chance & ((1 << 80) - 1))
    }

    /// From the number of a ULID.
    pub const fn from_u128(number: u128) -> InboundId {
        InboundId(number)
    }

    /// The number of the ULID.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The moment in it.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0 >> 80).unwrap_or(i64::MAX))
    }
}

impl TapKind {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            TapKind::Milter => "milter",
            TapKind::Smtp => "smtp",
            TapKind::Http => "http",
        }
    }
}

impl SpamScore {
    /// From thousandths of a point.
    pub const fn from_thousandths(thousandths: i32) -> SpamScore {
        SpamScore(thousandths)
    }

    /// Reads `5`, `5.1`, `-0.25`; further digits are cut off. `None` for anything else.
    pub fn parse(text: &str) -> Option<SpamScore> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (plain(whole) && plain(fraction)).then_some(())?;
        let thousandths: i32 = format!("{fraction}000").get(..3)?.parse().ok()?;
        let whole: i32 = whole.parse().ok()?;
        let all = whole.checked_mul(1000)?.checked_add(thousandths)?;
        Some(SpamScore(sign * all))
    }
}

impl fmt::Display for SpamScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        match format!("{rest:03}").trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

impl Inbound {
    /// The record with nothing in it beyond its bounds: what peers chose is cut.
    pub fn within_limits(mut self) -> Inbound {
        self.recipients.truncate(INBOUND_RECIPIENTS_MAX);
        self.message_ids.retain(|id| !id.is_empty());
        self.message_ids.truncate(INBOUND_IDS_MAX);
        for mailboxes in [&mut self.from, &mut self.reply_to, &mut self.notify] {
            mailboxes.truncate(INBOUND_MAILBOXES_MAX);
        }
        self.findings.truncate(INBOUND_FINDINGS_MAX);
        for findings in &mut self.findings {
            findings.from.truncate(INBOUND_MAILBOXES_MAX);
            findings.spf.truncate(INBOUND_RESULTS_MAX);
            findings.dkim.truncate(INBOUND_RESULTS_MAX);
            findings.dmarc.truncate(INBOUND_RESULTS_MAX);
        }
        self.gaps.truncate(SIGNALS_MAX);
        cut(&mut self.helo);
        cut(&mut self.host);
        // Why not cut: half an id names nothing, or another message.
        let fits = |id: &String| !id.is_empty() && id.len() <= INBOUND_TEXT_BYTES_MAX;
        self.queue_id = self.queue_id.filter(fits);
        self.envelope_id = self.envelope_id.filter(fits);
        self
    }

    /// Whether verification is still under way. A record whose tap died stays pending for
    /// `limits::PENDING_MAX` and no longer.
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.state == State::Pending && now.since(self.arrived) < PENDING_MAX
    }

    /// The addresses that an answer may go to: MAIL FROM, From, Sender, Reply-To.
    pub fn reply_targets(&self) -> impl Iterator<Item = &Address> {
        let named = self.from.iter().chain(&self.sender).chain(&self.reply_to);
        self.mail_from.address().into_iter().chain(named)
    }

    /// Whether an answer to it may go to this address.
    pub fn has_reply_target(&self, address: &Address) -> bool {
        self.reply_targets().any(|target| target.same_mailbox(address))
    }

    /// Whether a receipt for it may go to this address (RFC 8098 §2.1).
    pub fn takes_receipts_at(&self, address: &Address) -> bool {
        self.notify.iter().any(|target| target.same_mailbox(address))
    }

    /// Whether it went to this mailbox; what stands behind a `+` in it does not matter.
    pub fn went_to(&self, mailbox_of: &Address) -> bool {
        let wanted = mailbox_of.canonical_without_detail();
        self.recipients.iter().any(|recipient| recipient.canonical_without_detail() == wanted)
    }

    /// What it is filed under, each once.
    pub fn look_ups(&self) -> Vec<LookUp> {
        let mut all = Vec::new();
        all.extend(self.queue_id.clone().map(LookUp::QueueId));
        all.extend(self.message_ids.iter().cloned().map(LookUp::MessageId));
        all.extend(self.envelope_id.clone().map(LookUp::EnvelopeId));
        let mut pairs: Vec<LookUp> = Vec::new();
        for recipient in &self.recipients {
            for target in self.reply_targets().chain(&self.notify) {
                let pair = LookUp::pair(target, recipient);
                if pairs.len() < INBOUND_PAIRS_MAX && !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
        all.extend(pairs);
        for signature in self.findings.iter().flat_map(unbacked_signatures) {
            let look_up = LookUp::signature(signature);
            if !all.contains(&look_up) {
                all.push(look_up);
            }
        }
        all
    }
}

impl LookUp {
    /// The pair of a reply target and one who answers.
    pub fn pair(target: &Address, responder: &Address) -> LookUp {
        LookUp::Pair(target.canonical(), responder.canonical_without_detail())
    }

    /// A signature.
    pub fn signature(signature: SignatureId) -> LookUp {
        LookUp::Signature(signature.to_string())
    }

    /// The words that a store makes its key of; no two look-ups have the same.
    pub fn words(&self) -> [&str; 3] {
        match self {
            LookUp::QueueId(id) => ["queue-id", id, ""],
            LookUp::MessageId(id) => ["message-id", id, ""],
            LookUp::EnvelopeId(id) => ["envelope-id", id, ""],
            LookUp::Signature(id) => ["signature", id, ""],
            LookUp::Pair(target, responder) => ["pair", target, responder],
        }
    }
}

/// Signatures that passed where SPF did not pass for their domain. With it, the signer's own hosts
/// sent the message, to however many.
fn unbacked_signatures(findings: &Findings) -> impl Iterator<Item = SignatureId> {
    let sends = |spf: &SpfFinding, domain: &Domain| {
        spf.result == AuthResult::Pass
            && spf.scope == SpfScope::MailFrom
            && spf.everybody.is_none()
            && spf.domain.as_ref().is_some_and(|by| is_near(by, domain))
    };
    let passed = findings.dkim.iter().filter(|dkim| dkim.result == AuthResult::Pass);
    let unbacked = passed.filter(move |dkim| {
        let domain = dkim.domain.as_ref();
        domain.is_some_and(|domain| !findings.spf.iter().any(|spf| sends(spf, domain)))
    });
    unbacked.filter_map(|dkim| dkim.signature)
}

fn cut(text: &mut String) {
    if text.len() > INBOUND_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(INBOUND_TEXT_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn inbound() -> Inbound {
        Inbound {
            id: InboundId::new(Timestamp::from_millis(1_795_282_739_000), 7),
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: Some("3AB12C".to_owned()),
            began: Timestamp::from_millis(1_795_282_738_000),
            arrived: Timestamp::from_millis(1_795_282_739_000),
            state: State::Pending,
            client: None,
            helo: String::new(),
            way: Way::Outside,
            mail_from: ReversePath::Address(address("Bounce@bank.example")),
            envelope_id: None,
            recipients: vec![address("ann+news@uni.example"), address("bob@uni.example")],
            message_ids: vec!["one@bank.example".to_owned()],
            from: vec![address("joe@bank.example")],
            sender: None,
            reply_to: vec![address("JOE@bank.example")],
            notify: vec![address("Receipts@bank.example")],
            kind: SubjectKind::default(),
            spam: None,
            findings: Vec::new(),
            gaps: Vec::new(),
        }
    }

    #[test]
    fn it_is_filed_under_every_name_once() {
        let look_ups = inbound().look_ups();
        assert_eq!(look_ups.len(), 1 + 1 + 3 * 2, "{look_ups:?}");
        let pair = LookUp::pair(&address("Joe@Bank.example"), &address("ANN@uni.example"));
        assert!(look_ups.contains(&pair));
        let mut words: Vec<_> = look_ups.iter().map(LookUp::words).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), look_ups.len());
    }

    #[test]
    fn a_subaddress_is_its_mailbox_and_case_does_not_matter() {
        let record = inbound();
        assert!(record.went_to(&address("Ann@uni.example")));
        assert!(!record.went_to(&address("anna@uni.example")));
        assert!(record.has_reply_target(&address("bounce@bank.example")));
        assert!(!record.has_reply_target(&address("bounce+x@bank.example")));
        // Where it asks for a receipt, nothing else goes.
        let receipts = address("receipts@bank.example");
        assert!(record.takes_receipts_at(&receipts) && !record.has_reply_target(&receipts));
        assert!(!record.takes_receipts_at(&address("joe@bank.example")));
    }

    #[test]
    fn a_record_of_a_dead_tap_does_not_stay_pending() {
        let record = inbound();
        assert!(record.is_pending(record.arrived));
        assert!(!record.is_pending(record.arrived.plus(PENDING_MAX)));
        assert!(!Inbound { state: State::Complete, ..inbound() }.is_pending(record.arrived));
    }

    #[test]
    fn what_a_peer_chose_is_bounded() {
        let many = |n: usize| (0..n).map(|n| address(&format!("a{n}@b.example"))).collect();
        let record = Inbound {
            recipients: many(5000),
            from: many(5000),
            reply_to: many(5000),
            notify: many(5000),
            message_ids: (0..5000).map(|n| n.to_string()).collect(),
            helo: "ä".repeat(5000),
            queue_id: Some("x".repeat(5000)),
            ..inbound()
        };
        let record = record.within_limits();
        assert_eq!(record.recipients.len(), INBOUND_RECIPIENTS_MAX);
        assert_eq!(record.queue_id, None);
        assert_eq!(record.notify.len(), INBOUND_MAILBOXES_MAX);
        assert!(record.helo.len() <= INBOUND_TEXT_BYTES_MAX);
        assert!(record.look_ups().len() <= INBOUND_IDS_MAX + INBOUND_PAIRS_MAX + 2);
    }

    #[test]
    fn ids_are_in_the_order_of_time() {
        let at = |millis| InboundId::new(Timestamp::from_millis(millis), u128::MAX);
        assert!(at(1_000) < at(1_001));
        assert_eq!(at(1_001).at(), Timestamp::from_millis(1_001));
        assert_eq!(InboundId::from_u128(at(5).as_u128()), at(5));
    }

    #[test]
    fn a_score_is_read_and_shown() {
        for (text, shown) in [
            ("5", "5"),
            ("5.10", "5.1"),
            ("-0.25", "-0.25"),
            ("+15.0004", "15"),
            ("0.003", "0.003"),
        ] {
            assert_eq!(SpamScore::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "-", "x", "1.", ".5", "1e3", "9999999999", "--1"] {
            assert_eq!(SpamScore::parse(text), None, "{text}");
        }
        assert!(SpamScore::parse("-3") < SpamScore::parse("-2.9"));
    }
}
