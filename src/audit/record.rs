//! Record: one JSON line of the audit log for each recipient of a message.
//!
//! Takes: what was handled, in the words of `mail` and `judge`. Gives: `Record`, every field
//! always there, null where it has no value, in a stable order; and the way back from a line.
//! `docs/reference/audit-log.md` explains each field, `docs/reference/audit.schema.json` is their
//! schema. Bounds: `limits::RECORD_BYTES_MAX`. Standards: RFC 3339 for times.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::audit::answered::Match;
use crate::audit::fault::Error;
use crate::audit::findings::RecordedGap;
use crate::audit::held::HeldId;
use crate::audit::seen::{RecordedEvidence, RecordedSignal, RecordedSubject};
use crate::audit::words::{self, harmless};
use crate::judge::classify::{Class, Signal};
use crate::judge::decision::{Action, Decision, LoopFinding, Verdict, VerdictKind};
use crate::judge::evidence::{Evidence, Gap, RecipientEvidence};
use crate::judge::original::{Origin, Original};
use crate::mail::address::{Address, Domain};
use crate::mail::envelope::{Client, Envelope, Recipient};
use crate::mail::limits::{RECORD_BYTES_MAX, RECORD_ENDING_BYTES_MAX};
use crate::mail::reply::Reply;
use crate::mail::time::Timestamp;

/// The version of the schema, in every line.
pub const VERSION: u32 = 1;

/// The JSON Schema of a record, as it is shipped.
pub const SCHEMA: &str = include_str!("../../docs/reference/audit.schema.json");

/// What is written for one recipient. Strings are as in the log; `Option` is null there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    /// Version of this schema.
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    pub v: u32,
    /// When it was decided: RFC 3339, UTC, milliseconds.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub time: String,
    /// ULID of the event: one for each message given to us; it is also in our SMTP reply.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9A-HJKMNP-TV-Z]{26}$")))]
    pub event: String,
    /// Which recipient of the event this is, counted from 1.
    pub n: u32,
    /// Which guard wrote it.
    pub instance: String,
    /// The SMTP session, for finding its other messages.
    pub session: String,
    /// Version of the program.
    pub build: String,
    /// Hash of the policy that decided.
    pub policy: String,
    /// The client's IP address; null for a unix socket.
    pub client: Option<String>,
    /// What the client said of its own client (XFORWARD), in the order it was said.
    pub xforward: Vec<RecordedAttribute>,
    /// What the client called itself.
    pub helo: String,
    /// The version of TLS that the client spoke: `TLSv1.2`, `TLSv1.3`; null in the clear.
    pub tls: Option<String>,
    /// The reverse-path without brackets; `""` for the null one.
    pub mail_from: String,
    /// The recipient without brackets.
    pub rcpt: String,
    /// The message's own Message-ID, without angle brackets.
    pub message_id: Option<String>,
    /// Bytes of the message as received.
    pub size: u64,
    /// What kind of message it is.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::class"))]
    pub class: String,
    /// The action of a DSN (RFC 3464 §2.3.3).
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::dsn_action"))]
    pub dsn_action: Option<String>,
    /// The signs that led to the class; null when they stand in the record of event `same_as`.
    pub signals: Option<Vec<RecordedSignal>>,
    /// Fingerprint of the message, which survives forwarding.
    pub fingerprint: Option<String>,
    /// `Received` lines of the message.
    pub hops: Option<u32>,
    /// The moment its age is counted from: topmost Received line, or Date.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub dated: Option<String>,
    /// Who answers: mailboxes of its From field.
    pub responder: Vec<String>,
    /// Whose response it is; null for what is no response.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::origin"))]
    pub origin: Option<String>,
    /// The message it answers; null for what is no response.
    pub subject_message: Option<RecordedSubject>,
    /// By which name the subject message was found in the store; null when it was not.
    pub r#match: Option<Match>,
    /// What was known; null when nothing was asked, or when it stands in the record of `same_as`.
    pub evidence: Option<RecordedEvidence>,
    /// What could not be known of the subject message, and why.
    pub gaps: Vec<RecordedGap>,
    /// Whether the subject message came from this recipient; null where nobody is judged.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::verdict"))]
    pub verdict: Option<String>,
    /// What decided the verdict.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::verdict_by"))]
    pub verdict_by: Option<String>,
    /// What could not be known of this recipient, and why.
    pub verdict_gaps: Vec<RecordedGap>,
    /// The loop, where there is one.
    pub r#loop: Option<RecordedLoop>,
    /// What was decided, as it could be carried out; `outcome` is what came of it.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::action"))]
    pub action: String,
    /// What would have been done, were we not only observing.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::would"))]
    pub would: Option<String>,
    /// The rule that matched.
    pub rule: String,
    /// Why, from the closed list of `docs/reference/reasons.md`.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::reason"))]
    pub reason: String,
    /// Why, as a plain sentence.
    pub text: String,
    /// What came of it; null when it was not carried out.
    pub outcome: Option<Ended>,
    /// The reply the client got for it; null when it left before.
    pub reply: Option<String>,
    /// The next hop that was spoken to; null when none was.
    pub next_hop: Option<String>,
    /// The version of TLS that was spoken with it; null in the clear.
    pub next_hop_tls: Option<String>,
    /// Where it is held: the name of the files in the quarantine, without ending.
    pub held: Option<String>,
    /// Milliseconds from the end of the message to the reply.
    pub ms: u64,
    /// Event of an earlier record in this file with the same signals and evidence.
    pub same_as: Option<String>,
    /// Fields left null only because the line would have been too long.
    pub left_out: Vec<LeftOut>,
    /// The line as far as it was written already.
    #[serde(skip)]
    begun: Begun,
}

/// The line of a record up to its ending, which is the same however it ends. No part of what the
/// record says: two are equal without.
#[derive(Clone, Debug, Default)]
struct Begun(Option<Unended>);

#[derive(Clone, Debug)]
struct Unended {
    /// The whole line, null where it has no ending yet.
    line: String,
    /// Where the ending begins in it.
    at: usize,
}

impl PartialEq for Begun {
    fn eq(&self, _: &Begun) -> bool {
        true
    }
}

impl Eq for Begun {}

/// The fields of a record that are known when it has ended; the last ones of its line.
#[derive(Serialize)]
struct LastFields<'r> {
    outcome: &'r Option<Ended>,
    reply: &'r Option<String>,
    next_hop: &'r Option<String>,
    next_hop_tls: &'r Option<String>,
    held: &'r Option<String>,
    ms: u64,
    same_as: &'r Option<String>,
    left_out: &'r [LeftOut],
}

/// One `NAME=value` of XFORWARD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedAttribute {
    /// Upper case: NAME ADDR PORT PROTO HELO IDENT SOURCE.
    pub name: String,
    /// The value as it came.
    pub value: String,
}

/// A loop, proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedLoop {
    /// How it was recognised.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::loop_kind"))]
    pub kind: String,
    /// How often the message came back.
    pub laps: u32,
    /// `Received` lines of this copy.
    pub hops: u32,
    /// Both ends, as far as known.
    pub between: Vec<String>,
    /// When it was first seen.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub first_seen: String,
    /// When it was last seen before this copy; null when it was not.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub last_seen: Option<String>,
    /// Copies stopped, as far as is known: this one, unless it is only observed.
    pub stopped: u32,
}

/// A field that can be left out of a line that would be too long; in the order they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// `evidence`.
    Evidence,
    /// `subject_message`.
    SubjectMessage,
    /// `signals`.
    Signals,
    /// `gaps`, `verdict_gaps`, `responder`, `xforward`: the other lists.
    Lists,
}

/// One message that was handled: what its records have in common.
#[derive(Clone, Copy, Debug)]
pub struct Handled<'a> {
    /// When it was decided.
    pub time: Timestamp,
    /// The event.
    pub event: Ulid,
    /// Which guard.
    pub instance: &'a str,
    /// Which session.
    pub session: &'a str,
    /// Version of the program.
    pub build: &'a str,
    /// Hash of the policy.
    pub policy: &'a str,
    /// Who gave it to us, from whom, to whom.
    pub envelope: &'a Envelope,
    /// Its Message-ID, without angle brackets.
    pub message_id: Option<&'a str>,
    /// Its bytes.
    pub size_bytes: u64,
    /// Its class.
    pub class: Class,
    /// The signs that led to the class.
    pub signals: &'a [Signal],
    /// Its fingerprint.
    pub fingerprint: Option<&'a str>,
    /// Its `Received` lines.
    pub hops: Option<u32>,
    /// The moment its age is counted from.
    pub dated: Option<Timestamp>,
    /// Mailboxes of its From field.
    pub responder: &'a [Address],
    /// Whose response it is.
    pub origin: Option<Origin>,
    /// The message it answers.
    pub original: Option<&'a Original>,
    /// What the decision was given; recipients in envelope order.
    pub evidence: Option<&'a Evidence>,
}

/// What came of a decision for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The next hop took it.
    Relayed,
    /// It is held.
    Held,
    /// Nothing is kept but this record.
    Discarded,
    /// The client was told to come again.
    Deferred,
    /// The client was told 5xx.
    Refused,
    /// The client left before an answer.
    Unanswered,
}

/// How it ended for a recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// What came of it.
    pub outcome: Option<Ended>,
    /// The reply the client got.
    pub reply: Option<&'a Reply>,
    /// The next hop that was spoken to.
    pub next_hop: Option<&'a str>,
    /// The version of TLS that was spoken with it.
    pub next_hop_tls: Option<&'a str>,
    /// Where it is held.
    pub held: Option<HeldId>,
    /// Bytes of the message, now that all of it was read.
    pub size_bytes: u64,
    /// From the end of the message to the reply.
    pub took: Duration,
}

impl Handled<'_> {
    /// One record for each recipient, in envelope order, still without ending. `decisions` are in
    /// envelope order too; a recipient without one, which the judge never leaves, gets no record.
    pub fn records(&self, decisions: &[Decision]) -> Vec<Record> {
        let recipients = &self.envelope.recipients;
        let domains: HashSet<&Domain> =
            recipients.iter().filter_map(|recipient| recipient.path.domain()).collect();
        let with_decision = recipients.iter().zip(decisions).enumerate();
        let record = |(index, (rcpt, decision)): (usize, (&Recipient, &Decision))| {
            let other =
                |domain: &Domain| rcpt.path.domain() != Some(domain) && domains.contains(domain);
            let evidence =
                self.evidence.map(|evidence| RecordedEvidence::new(evidence, index, other));
            self.record(index, rcpt, decision, evidence)
        };
        with_decision.map(record).collect()
    }

    fn record(
        &self,
        index: usize,
        rcpt: &Recipient,
        decision: &Decision,
        evidence: Option<RecordedEvidence>,
    ) -> Record {
        let Client { ip, helo, xforward, listener: _, tls } = &self.envelope.client;
        let known = self.evidence.and_then(|evidence| evidence.recipients.get(index));
        let answered = known.and_then(|known| known.answered.as_ref());
        let Decision { verdict, gaps, loop_finding, action, .. } = decision;
        let Decision { would, rule, reason, text, .. } = decision;
        Record {
            v: VERSION,
            time: self.time.to_string(),
            event: self.event.to_string(),
            n: u32::try_from(index.saturating_add(1)).unwrap_or(u32::MAX),
            instance: self.instance.to_owned(),
            session: self.session.to_owned(),
            build: self.build.to_owned(),
            policy: self.policy.to_owned(),
            client: ip.map(|ip| ip.to_string()),
            xforward: xforward
                .iter()
                .map(|said| RecordedAttribute {
                    name: harmless(&said.name),
                    value: harmless(&said.value),
                })
                .collect(),
            helo: harmless(helo),
            tls: tls.as_ref().map(|tls| tls.version.clone()),
            mail_from: self.envelope.reverse_path().to_string(),
            rcpt: rcpt.path.to_string(),
            message_id: self.message_id.map(harmless),
            size: self.size_bytes,
            class: self.class.as_str().to_owned(),
            dsn_action: self.class.dsn_action().map(|action| action.as_str().to_owned()),
            signals: Some(self.signals.iter().map(RecordedSignal::new).collect()),
            fingerprint: self.fingerprint.map(str::to_owned),
            hops: self.hops,
            dated: self.dated.as_ref().map(Timestamp::to_string),
            responder: self.responder.iter().map(Address::to_string).collect(),
            origin: self.origin.map(|origin| origin.as_str().to_owned()),
            subject_message: self
                .original
                .map(|original| RecordedSubject::new(original, self.evidence)),
            r#match: answered.map(|answered| Match::new(answered, decision.subject)),
            evidence,
            gaps: self.gaps(known),
            verdict: verdict.as_ref().map(|verdict| verdict.kind().as_str().to_owned()),
            verdict_by: verdict.as_ref().and_then(Verdict::by).map(str::to_owned),
            verdict_gaps: gaps.iter().map(RecordedGap::new).collect(),
            r#loop: loop_finding.as_ref().map(RecordedLoop::new),
            action: action.as_str().to_owned(),
            would: would.map(|would| would.as_str().to_owned()),
            rule: rule.clone(),
            reason: reason.as_str().to_owned(),
            text: harmless(text),
            outcome: None,
            reply: None,
            next_hop: None,
            next_hop_tls: None,
            held: None,
            ms: 0,
            same_as: None,
            left_out: Vec::new(),
            begun: Begun::default(),
        }
    }

    /// The evidence's gaps with the recipient's own, and those of the subject message that the
    /// evidence does not repeat.
    fn gaps(&self, known: Option<&RecipientEvidence>) -> Vec<RecordedGap> {
        let of_evidence = self.evidence.map_or(&[][..], |evidence| &evidence.gaps);
        let of_recipient = known.map_or(&[][..], |known| &known.gaps);
        let of_original = self.original.map_or(&[][..], |original| &original.gaps);
        let new = |gap: &&Gap| !of_evidence.contains(gap);
        let others = of_recipient.iter().chain(of_original).filter(new);
        of_evidence.iter().chain(others).map(RecordedGap::new).collect()
    }
}

impl RecordedLoop {
    /// The loop in words.
    pub fn new(finding: &LoopFinding) -> RecordedLoop {
        let LoopFinding { kind, laps, hops, between, first_seen, last_seen, stopped } = finding;
        RecordedLoop {
            kind: kind.as_str().to_owned(),
            laps: *laps,
            hops: *hops,
            between: between.iter().map(harmless).collect(),
            first_seen: first_seen.to_string(),
            last_seen: last_seen.map(|seen| seen.to_string()),
            stopped: *stopped,
        }
    }
}

impl Record {
    /// Writes its line up to the ending, which is not there yet; it is not written again then.
    pub fn begin(&mut self) -> Result<(), Error> {
        self.begun = Begun::default();
        let line = self.written()?;
        if line.len() <= RECORD_BYTES_MAX {
            let last = self.last_fields()?;
            let at = line.strip_suffix(last.as_str()).map(str::len);
            self.begun.0 = at.map(|at| Unended { line, at });
        }
        Ok(())
    }

    /// The same record without signals and evidence, which stand in the record of this event.
    pub fn short(&self, same_as: String) -> Record {
        let begun = Begun::default();
        Record { signals: None, evidence: None, same_as: Some(same_as), begun, ..self.clone() }
    }

    /// The record with how it ended.
    pub fn ended(mut self, ending: &Ending<'_>) -> Record {
        if self.size != ending.size_bytes {
            self.begun = Begun::default();
        }
        self.outcome = ending.outcome;
        self.reply = ending.reply.map(|reply| format!("{} {}", reply.code(), reply.text()));
        self.next_hop = ending.next_hop.map(harmless);
        self.next_hop_tls = ending.next_hop_tls.map(str::to_owned);
        self.held = ending.held.map(|held| held.to_string());
        self.size = ending.size_bytes;
        self.ms = u64::try_from(ending.took.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The class; `None` when the record's words are not ours.
    pub fn class(&self) -> Option<Class> {
        words::class(&self.class, self.dsn_action.as_deref())
    }

    /// Whether the verdict is *failed*.
    pub fn is_failed(&self) -> bool {
        self.verdict.as_deref() == Some(VerdictKind::Failed.as_str())
    }

    /// Whether it says that nothing was passed on and the client was told 250: the client forgets
    /// the message, so this must be on disk before.
    pub fn is_irrevocable(&self) -> bool {
        matches!(words::ACTIONS.find(&self.action), Some(Action::Quarantine | Action::Discard))
    }

    /// Whether it says that the next hop took it: that cannot be undone, so the record must not be
    /// lost.
    pub fn is_delivered(&self) -> bool {
        let taken = self.reply.as_deref().is_some_and(|reply| reply.starts_with('2'));
        taken && words::ACTIONS.find(&self.action) == Some(Action::Deliver)
    }

    /// The evidence again, as far as this one recipient was concerned, to decide once more.
    ///
    /// `None` when there is none, or a word of it is not ours, or it stands elsewhere (`same_as`).
    pub fn evidence(&self) -> Option<Evidence> {
        self.evidence.as_ref().and_then(|evidence| evidence.evidence(&self.gaps))
    }

    /// The subject message again; its gaps stand among the record's.
    pub fn original(&self) -> Option<Original> {
        self.subject_message.as_ref().and_then(RecordedSubject::original)
    }

    /// The line without its line end, at most `limits::RECORD_BYTES_MAX` bytes: fields that would
    /// make it longer are null and named in `left_out`.
    pub fn line(&self) -> Result<String, Error> {
        let line = self.written()?;
        if line.len() <= RECORD_BYTES_MAX {
            return Ok(line);
        }
        let mut record = Record { begun: Begun::default(), ..self.clone() };
        let order = [LeftOut::Evidence, LeftOut::SubjectMessage, LeftOut::Signals, LeftOut::Lists];
        for field in order {
            match field {
                LeftOut::Evidence => record.evidence = None,
                LeftOut::SubjectMessage => record.subject_message = None,
                LeftOut::Signals => record.signals = None,
                LeftOut::Lists => {
                    record.gaps.clear();
                    record.verdict_gaps.clear();
                    record.responder.clear();
                    record.xforward.clear();
                }
            }
            record.left_out.push(field);
            let line = record.written()?;
            if line.len() <= RECORD_BYTES_MAX {
                return Ok(line);
            }
        }
        Err(Error::RecordTooLong { event: self.event.clone() })
    }

    /// Bytes that its line will have at most, once it has its ending: what to reserve before the
    /// message is relayed.
    pub fn room_bytes(&self) -> Result<u64, Error> {
        let bytes = match &self.begun.0 {
            Some(begun) => begun.line.len(),
            None => self.line()?.len(),
        };
        Ok(u64::try_from(bytes.saturating_add(RECORD_ENDING_BYTES_MAX)).unwrap_or(u64::MAX))
    }

    fn written(&self) -> Result<String, Error> {
        let Some(begun) = &self.begun.0 else {
            return serde_json::to_string(self).map_err(|fault| self.unwritten(&fault));
        };
        let last = self.last_fields()?;
        // Why one more: a line end comes behind it.
        let mut line = String::with_capacity(begun.at + last.len() + 1);
        line.extend([begun.line.get(..begun.at).unwrap_or_default(), &last]);
        debug_assert_eq!(serde_json::to_string(self).ok().as_ref(), Some(&line));
        Ok(line)
    }

    /// The end of its line, from `outcome` on.
    fn last_fields(&self) -> Result<String, Error> {
        let Record { outcome, reply, next_hop, next_hop_tls, held, ms, same_as, left_out, .. } =
            self;
        let (ms, left_out) = (*ms, left_out.as_slice());
        let last =
            LastFields { outcome, reply, next_hop, next_hop_tls, held, ms, same_as, left_out };
        let mut text = serde_json::to_string(&last).map_err(|fault| self.unwritten(&fault))?;
        // It begins a JSON object of its own; here it goes on with one.
        text.replace_range(..1, ",");
        Ok(text)
    }

    fn unwritten(&self, fault: &serde_json::Error) -> Error {
        Error::Unwritten { event: self.event.clone(), fault: fault.to_string() }
    }

    /// Reads a line; `None` when it is not a record of this version.
    pub fn parse(line: &str) -> Option<Record> {
        let record: Record = serde_json::from_str(line).ok()?;
        (record.v == VERSION).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::{env, fs};

    use proptest::prelude::*;
    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::words::schema::{every_gap_cause, every_verdict};
    use crate::judge::classify::DsnAction;
    use crate::judge::correlation::{Answered, MatchedBy, Standing, Subject};
    use crate::judge::decision::{LoopKind, Reason};
    use crate::judge::evidence::{
        Alignment, AuthResult, DkimFinding, DmarcFacts, DmarcFinding, DmarcPolicy, DmarcRecord,
        DomainFacts, Evaluated, Findings, GapCause, Receives, RecipientEvidence, SentBefore,
        Source, SpfFinding,
    };
    use crate::judge::loops::LoopEvidence;
    use crate::judge::original::{FoundAs, Key, NamedBy, SubjectKind};
    use crate::judge::subject::{SpamScore, TapKind};
    use crate::mail::address::{ForwardPath, ReversePath};
    use crate::mail::envelope::{MailFrom, Parameters, Secured, XforwardAttribute};

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let recipient = |text: &&str| Recipient {
            path: ForwardPath::Address(address(text)),
            path_text: format!("<{text}>"),
            parameters: Parameters::default(),
        };
        Envelope {
            client: Client {
                ip: Some("192.0.2.7".parse().unwrap()),
                helo: "mta.example\x1b[2J".to_owned(),
                xforward: vec![XforwardAttribute { name: "IDENT".into(), value: "4AB".into() }],
                listener: 0,
                tls: None,
            },
            mail: MailFrom {
                path: ReversePath::Null,
                path_text: "<>".to_owned(),
                parameters: Parameters::default(),
            },
            recipients: recipients.iter().map(recipient).collect(),
        }
    }

    fn decision(verdict: Option<Verdict>, action: Action, reason: Reason) -> Decision {
        Decision {
            verdict,
            gaps: Vec::new(),
            subject: None,
            loop_finding: None,
            action,
            would: None,
            counts: false,
            rule: "profile".to_owned(),
            reason,
            text: "joe\u{202e} did not write it".to_owned(),
            otherwise: Vec::new(),
        }
    }

    fn findings() -> Findings {
        Findings {
            mail_from: Some(ReversePath::Address(address("joe@bank.example"))),
            from: vec![address("\"joe smith\"@bank.example")],
            sender: Some(address("ann@bank.example")),
            spf: vec![SpfFinding {
                address: Some(address("joe@bank.example")),
                everybody: Some("+all".to_owned()),
                ..SpfFinding::of(AuthResult::SoftFail, Some(domain("bank.example")))
            }],
            dkim: vec![DkimFinding {
                header_only: true,
                reason: Some("no key is published".to_owned()),
                ..DkimFinding::of(AuthResult::Pass, Some(domain("shop.example")))
            }],
            dmarc: vec![DmarcFinding { result: AuthResult::Fail, from_domain: None }],
            evaluated: Evaluated { spf: true, dkim: true, dmarc: false },
            author_sign: Some(crate::mail::author::AuthorSign::Repeated),
            ..Findings::of(Source::AuthResults { authserv_id: "mx.example".to_owned() })
        }
    }

    fn original(gaps: Vec<Gap>) -> Original {
        Original {
            border: None,
            found_as: FoundAs::Rfc822Headers,
            keys: vec![
                Key::QueueId { host: "mx.example".into(), id: "4ABC".into() },
                Key::MessageId { id: "1@bank.example".into(), named_by: NamedBy::InReplyTo },
                Key::EnvelopeId("e1".into()),
            ],
            return_path: Some(ReversePath::Null),
            from: vec![address("joe@bank.example")],
            sender: None,
            reply_to: vec![address("desk@bank.example")],
            notify: vec![address("receipts@bank.example")],
            subject: Some("Hello".into()),
            date: Some(Timestamp::from_millis(1_795_282_000_000)),
            arrived: Some(Timestamp::from_millis(1_795_282_001_000)),
            failed_recipients: vec![address("nobody@uni.example")],
            kind: SubjectKind { list: Some("List-Id".into()), automatic: None },
            embedded: None,
            findings: Some(Findings {
                source: Source::Arc { sealer: "list.example".to_owned() },
                ..findings()
            }),
            gaps,
        }
    }

    fn facts(known: bool) -> DomainFacts {
        let gap = || Gap::new(GapCause::Dns, "no answer");
        let record = DmarcRecord {
            published_at: domain("bank.example"),
            policy: DmarcPolicy::Reject,
            dkim_alignment: Alignment::Strict,
            spf_alignment: Alignment::Relaxed,
        };
        let organizational = domain("bank.example");
        DomainFacts {
            dmarc: known
                .then_some(DmarcFacts { organizational, record: Some(record), above: None })
                .ok_or_else(gap),
            receives: known.then_some(Receives::NullMx).ok_or_else(gap),
        }
    }

    fn answered() -> Answered {
        let subject = |spam| Subject {
            id: None,
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: Some("4AB".to_owned()),
            arrived: Timestamp::from_millis(1_795_282_730_000),
            pending: false,
            mail_from: ReversePath::Address(address("joe@bank.example")),
            kind: SubjectKind { list: None, automatic: Some("Auto-Submitted: x".to_owned()) },
            spam,
            findings: vec![findings()],
            gaps: vec![Gap::new(GapCause::Pending, "still")],
        };
        Answered {
            by: MatchedBy::MessageId,
            id: Some("1@bank.example".to_owned()),
            candidates: 3,
            recipient: Standing::ReplyTarget,
            subjects: vec![subject(None), subject(SpamScore::parse("5.1"))],
        }
    }

    fn evidence(known: bool) -> Evidence {
        let sent = SentBefore { pair: 1, recipient: 2 };
        let gap = || Gap::new(GapCause::Store, "away");
        let sent_before = known.then_some(sent).ok_or_else(gap);
        let names = ["bank.example", "shop.example", "uni.example"];
        Evidence {
            findings: vec![findings()],
            domains: names.map(|name| (domain(name), facts(known))).into(),
            recipients: vec![RecipientEvidence {
                sent_before,
                loops: LoopEvidence::default(),
                answered: known.then(answered),
                gaps: Vec::new(),
            }],
            gaps: every_gap_cause().iter().map(|cause| Gap::new(*cause, "why")).collect(),
        }
    }

    fn handled<'a>(envelope: &'a Envelope) -> Handled<'a> {
        Handled {
            time: Timestamp::from_millis(1_795_282_739_042),
            event: Ulid::from_parts(1_795_282_739_042, 1),
            instance: "guard1",
            session: "s1",
            build: "0.1.0",
            policy: "abc",
            envelope,
            message_id: Some("2@uni.example"),
            size_bytes: 1234,
            class: Class::Dsn(DsnAction::Failed),
            signals: &[],
            fingerprint: Some("00ff"),
            hops: Some(3),
            dated: None,
            responder: &[],
            origin: Some(Origin::Ours),
            original: None,
            evidence: None,
        }
    }

    fn schema() -> jsonschema::Validator {
        jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
    }

    fn assert_valid(schema: &jsonschema::Validator, line: &str) {
        let value: Value = serde_json::from_str(line).unwrap();
        let faults: Vec<String> =
            schema.iter_errors(&value).map(|f| format!("{}: {f}", f.instance_path)).collect();
        assert!(faults.is_empty(), "{line}\n{}", faults.join("\n"));
    }

    fn close(value: &mut Value) {
        if let Value::Object(fields) = value {
            if fields.get("properties").is_some() {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        } else if let Value::Array(values) = value {
            values.iter_mut().for_each(close);
        }
    }

    /// Goal: the shipped schema is what the types say. `UPDATE=1` writes it.
    #[test]
    fn the_schema_file_is_up_to_date() {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<Record>().to_value();
        schema["title"] = json!("replyguard audit record");
        close(&mut schema);
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if env::var_os("UPDATE").is_some() {
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            return fs::write(root.join("docs/reference/audit.schema.json"), text).unwrap();
        }
        assert_eq!(SCHEMA, text, "run the test again with UPDATE=1");
    }

    #[test]
    fn every_field_is_there_in_a_stable_order() {
        let envelope = envelope(&["joe@bank.example"]);
        let decided = [decision(None, Action::Deliver, Reason::Personal)];
        let record = &handled(&envelope).records(&decided)[0];
        let expected = concat!(
            r#"{"v":1,"time":"2026-11-21T17:38:59.042Z","event":"01M7ZK17V20000000000000001","#,
            r#""n":1,"instance":"guard1","session":"s1","build":"0.1.0","policy":"abc","#,
            r#""client":"192.0.2.7","xforward":[{"name":"IDENT","value":"4AB"}],"#,
            r#""helo":"mta.example\\u{1b}[2J","tls":null,"mail_from":"","rcpt":"joe@bank.example","#,
            r#""message_id":"2@uni.example","size":1234,"class":"dsn","dsn_action":"failed","#,
            r#""signals":[],"fingerprint":"00ff","hops":3,"dated":null,"responder":[],"#,
            r#""origin":"ours","subject_message":null,"#,
            r#""match":null,"evidence":null,"gaps":[],"#,
            r#""verdict":null,"verdict_by":null,"verdict_gaps":[],"loop":null,"#,
            r#""action":"deliver","would":null,"#,
            r#""rule":"profile","reason":"personal","#,
            r#""text":"joe\\u{202e} did not write it","outcome":null,"reply":null,"next_hop":null,"#,
            r#""next_hop_tls":null,"held":null,"ms":0,"same_as":null,"left_out":[]}"#,
        );
        assert_eq!(record.line().unwrap(), expected);
        assert_eq!(Record::parse(expected).as_ref(), Some(record));
    }

    /// Goal: a record says over what the message came and went, and one that was written before it
    /// did is read all the same.
    #[test]
    fn tls_is_told() {
        let mut envelope = envelope(&["joe@bank.example"]);
        let secured =
            |version: &str| Secured { version: version.to_owned(), cipher: "x".to_owned() };
        envelope.client.tls = Some(secured("TLSv1.2"));
        let decided = [decision(None, Action::Deliver, Reason::Personal)];
        let record = handled(&envelope).records(&decided).remove(0);
        let ending = Ending { next_hop_tls: Some("TLSv1.3"), ..Ending::default() };
        let line = record.ended(&ending).line().unwrap();
        assert_valid(&schema(), &line);
        for told in [r#""tls":"TLSv1.2","#, r#""next_hop_tls":"TLSv1.3","#] {
            assert!(line.contains(told), "{line}");
            let older = Record::parse(&line.replace(told, "")).unwrap();
            assert!(older.tls.is_none() || older.next_hop_tls.is_none());
        }
    }

    #[test]
    fn what_a_decision_saw_can_be_had_back() {
        let envelope = envelope(&["joe@bank.example"]);
        let decided = [decision(None, Action::Deliver, Reason::Personal)];
        for known in [true, false] {
            let (evidence, original) = (evidence(known), original(Vec::new()));
            let handled = Handled {
                evidence: Some(&evidence),
                original: Some(&original),
                ..handled(&envelope)
            };
            let line = handled.records(&decided)[0].line().unwrap();
            let record = Record::parse(&line).unwrap();
            assert_eq!(record.class(), Some(handled.class));
            assert_eq!(record.evidence(), Some(evidence));
            assert_eq!(record.original(), Some(original));
        }
    }

    #[test]
    fn findings_and_gaps_are_not_said_twice() {
        let envelope = envelope(&["joe@bank.example"]);
        let evidence = evidence(true);
        let mut original =
            original(vec![Gap::new(GapCause::Truncated, "new"), evidence.gaps[0].clone()]);
        original.findings = Some(findings());
        let handled =
            Handled { evidence: Some(&evidence), original: Some(&original), ..handled(&envelope) };
        let record =
            handled.records(&[decision(None, Action::Deliver, Reason::Personal)]).remove(0);
        assert_eq!(record.subject_message.unwrap().findings, None);
        assert_eq!(record.gaps.len(), evidence.gaps.len() + 1);
    }

    /// The evidence that is decided upon again must be the same, so they stand apart.
    #[test]
    fn what_could_not_be_known_of_a_recipient_stands_apart_from_the_evidence() {
        let (envelope, evidence) = (envelope(&["joe@bank.example"]), evidence(true));
        let handled = Handled { evidence: Some(&evidence), ..handled(&envelope) };
        let gap = Gap::new(GapCause::Dns, "TXT _dmarc.bank.example: no answer");
        let decision = decision(Some(Verdict::Unresolved), Action::Defer, Reason::Unresolved);
        let record = handled.records(&[Decision { gaps: vec![gap.clone()], ..decision }]).remove(0);
        assert_eq!(record.verdict_gaps, [RecordedGap::new(&gap)]);
        assert_eq!(record.evidence().unwrap().gaps, evidence.gaps);
        assert_valid(&schema(), &record.line().unwrap());
    }

    #[test]
    fn a_record_has_the_domains_of_its_own_recipient_only() {
        let envelope = envelope(&["joe@bank.example", "ann@other.example", "bob@uni.example"]);
        let mut evidence = evidence(true);
        evidence.domains.insert(domain("other.example"), facts(true));
        let handled = Handled { evidence: Some(&evidence), ..handled(&envelope) };
        let decided = [0, 1, 2].map(|_| decision(None, Action::Deliver, Reason::Personal));
        let domains = |record: &Record| {
            let evidence = record.evidence.clone().unwrap();
            evidence.domains.into_keys().collect::<Vec<_>>()
        };
        let records = handled.records(&decided);
        // bank.example and shop.example stand in the findings.
        assert_eq!(domains(&records[0]), ["bank.example", "shop.example"]);
        assert_eq!(domains(&records[1]), ["bank.example", "other.example", "shop.example"]);
        assert_eq!(domains(&records[2]), ["bank.example", "shop.example", "uni.example"]);
        assert_eq!(records.iter().map(|record| record.n).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_line_too_long_loses_what_is_least_needed_and_says_so() {
        let envelope = envelope(&["joe@bank.example"]);
        let mut evidence = evidence(true);
        let many = (0..2000).map(|n| (domain(&format!("d{n}.example")), facts(true)));
        evidence.domains = many.collect::<BTreeMap<_, _>>();
        let original = original(Vec::new());
        let handled =
            Handled { evidence: Some(&evidence), original: Some(&original), ..handled(&envelope) };
        let record =
            handled.records(&[decision(None, Action::Deliver, Reason::Personal)]).remove(0);
        let line = record.line().unwrap();
        assert!(line.len() <= RECORD_BYTES_MAX);
        assert_valid(&schema(), &line);
        let record = Record::parse(&line).unwrap();
        assert_eq!(record.left_out, [LeftOut::Evidence]);
        assert!(record.evidence.is_none() && record.subject_message.is_some());
    }

    #[test]
    fn the_ending_fits_into_the_room_that_was_asked_for() {
        let envelope = envelope(&["joe@bank.example"]);
        let record = handled(&envelope)
            .records(&[decision(None, Action::Quarantine, Reason::FailedSpf)])
            .remove(0);
        assert!(record.is_irrevocable());
        let room = record.room_bytes().unwrap();
        let reply = Reply::new(250, "2.0.0", &"\u{202e}\"".repeat(4000));
        let held = HeldId { event: Ulid::from_parts(u64::MAX >> 16, u128::MAX), n: u32::MAX };
        let ending = Ending {
            outcome: Some(Ended::Unanswered),
            reply: Some(&reply),
            next_hop: Some(&"\u{202e}\\".repeat(4000)),
            next_hop_tls: Some("TLSv1.3"),
            held: Some(held),
            size_bytes: u64::MAX,
            took: Duration::MAX,
        };
        let ended = record.ended(&ending);
        let line = ended.line().unwrap();
        assert!(u64::try_from(line.len() + 1).unwrap() <= room, "{} of {room}", line.len());
        assert_valid(&schema(), &line);
        assert_eq!(ended.held.as_deref(), Some(held.to_string().as_str()));
    }

    /// Goal: a line that was begun says the same. Method: with every field, before and behind an
    /// ending, when the message turned out longer, and short.
    #[test]
    fn a_line_that_was_begun_is_no_other() {
        let envelope = envelope(&["joe@bank.example"]);
        let (evidence, original) = (evidence(true), original(Vec::new()));
        let handled =
            Handled { evidence: Some(&evidence), original: Some(&original), ..handled(&envelope) };
        let record =
            || handled.records(&[decision(None, Action::Deliver, Reason::Personal)]).remove(0);
        let mut begun = record();
        begun.begin().unwrap();
        assert!(begun.begun.0.is_some());
        assert_eq!(begun.line(), record().line());
        assert_eq!(begun.room_bytes(), record().room_bytes());
        let reply = Reply::new(250, "2.0.0", "Ok \"queued\"");
        for size_bytes in [record().size, record().size + 1] {
            let ending = Ending {
                outcome: Some(Ended::Relayed),
                reply: Some(&reply),
                next_hop: Some("smtp:[relay.example]:25"),
                size_bytes,
                ..Ending::default()
            };
            let (ended, wanted) = (begun.clone().ended(&ending), record().ended(&ending));
            assert_eq!(ended.line(), wanted.line());
            assert_eq!(ended.short("x".into()).line(), wanted.short("x".into()).line());
        }
        begun.message_id = Some("x".repeat(RECORD_BYTES_MAX));
        begun.begin().unwrap();
        assert!(begun.begun.0.is_none());
    }

    #[test]
    fn a_line_of_another_version_is_no_record() {
        let envelope = envelope(&["joe@bank.example"]);
        let line = handled(&envelope).records(&[decision(None, Action::Deliver, Reason::Personal)])
            [0]
        .line()
        .unwrap();
        assert!(Record::parse(&line).is_some());
        assert_eq!(Record::parse(&line.replacen("\"v\":1", "\"v\":2", 1)), None);
        assert_eq!(Record::parse(line.strip_suffix('}').unwrap()), None);
        assert_eq!(Record::parse("{}"), None);
    }

    #[test]
    fn the_schema_refuses_what_is_not_in_it() {
        let envelope = envelope(&["joe@bank.example"]);
        let record = handled(&envelope)
            .records(&[decision(None, Action::Deliver, Reason::Personal)])
            .remove(0);
        let schema = schema();
        let good = serde_json::to_value(&record).unwrap();
        assert!(schema.is_valid(&good));
        for (field, value) in [
            ("class", json!("response")),
            ("reason", json!("because")),
            ("verdict", json!("pass")),
            ("verdict_by", json!("luck")),
            ("v", json!(2)),
            ("event", json!("x")),
            ("extra", json!(1)),
            ("size", json!("1")),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(!schema.is_valid(&bad), "{field}");
        }
        for field in good.as_object().unwrap().keys() {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(!schema.is_valid(&bad), "{field} may not be absent");
        }
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![
            Class::Personal,
            Class::AutoReply,
            Class::Challenge,
            Class::Dsn(DsnAction::Expanded),
            Class::Dsn(DsnAction::Relayed),
            Class::Mdn,
            Class::DmarcReport,
            Class::FeedbackReport,
            Class::List,
            Class::Bulk,
            Class::Notification,
        ])
    }

    fn any_loop() -> impl Strategy<Value = Option<LoopFinding>> {
        let kinds = vec![
            LoopKind::Lap,
            LoopKind::Progression,
            LoopKind::Hops,
            LoopKind::Conversation,
            LoopKind::ForwardedBounce,
            LoopKind::Misrouting,
        ];
        let finding = (prop::sample::select(kinds), any::<u32>(), any::<i64>(), "\\PC{0,9}")
            .prop_map(|(kind, count, millis, end)| LoopFinding {
                kind,
                laps: count,
                hops: count,
                between: vec![end],
                first_seen: Timestamp::from_millis(millis),
                last_seen: (count % 2 == 0).then_some(Timestamp::from_millis(millis)),
                stopped: count,
            });
        prop::option::of(finding)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Goal: whatever is decided, the line is of the schema, one line, and read back alike.
        #[test]
        fn every_record_is_valid(
            class in any_class(),
            verdict in prop::option::of(prop::sample::select(every_verdict())),
            reason in prop::sample::select(Reason::ALL),
            action in prop::sample::select(vec![
                Action::Deliver, Action::Quarantine, Action::Reject, Action::Discard, Action::Defer,
            ]),
            would in prop::option::of(Just(Action::Discard)),
            loop_finding in any_loop(),
            known in any::<bool>(),
            text in any::<String>(),
        ) {
            let mut envelope = envelope(&["joe@bank.example", "ann@shop.example"]);
            envelope.client.helo = text.clone();
            let (evidence, original) = (evidence(known), original(evidence(!known).gaps));
            let signals = [Signal {
                id: "x".into(), detail: text.clone(), standard: "RFC 3834 §5".into(),
            }];
            let handled = Handled {
                class,
                signals: &signals,
                message_id: Some(&text),
                origin: known.then_some(Origin::Relayed),
                original: known.then_some(&original),
                evidence: Some(&evidence),
                ..handled(&envelope)
            };
            let decision = Decision {
                loop_finding, would, text: text.clone(), ..decision(verdict, action, reason)
            };
            let schema = schema();
            let records = handled.records(&[decision.clone(), decision]);
            prop_assert_eq!(records.len(), 2);
            for record in records {
                let line = record.line().unwrap();
                prop_assert!(!line.contains('\n'));
                assert_valid(&schema, &line);
                prop_assert_eq!(Record::parse(&line), Some(record));
            }
        }
    }
}
