//! The recorded inbound message that a response answers, as a record of the log holds it.
//!
//! Takes: values of `judge::correlation`. Gives: plain structs of words, and the way back (law 7).
//! `match` names the one that decided, for people and queries; `evidence.answered` holds all that
//! the decision was given.

use serde::{Deserialize, Serialize};

use crate::audit::findings::{RecordedFindings, RecordedGap, reverse_path};
use crate::audit::words::{MATCHED_BY, STANDINGS, TAPS, harmless};
use crate::judge::correlation::{Answered, Subject};
use crate::judge::original::SubjectKind;
use crate::judge::subject::SpamScore;
use crate::mail::time::Timestamp;

/// By which name the subject message was found in the store, and which record decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Match {
    /// The kind of name.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::matched_by"))]
    pub by: String,
    /// The id; null for a pair, which stands in `responder` and `rcpt`.
    pub id: Option<String>,
    /// How many records came into question.
    pub candidates: u32,
    /// Which kind of tap saw it come in.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::tap"))]
    pub tap: Option<String>,
    /// The host of ours that accepted it.
    pub host: Option<String>,
    /// Its id in that host's queue.
    pub queue_id: Option<String>,
    /// When it came in: RFC 3339.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub arrived: Option<String>,
}

/// All that the decision was given of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedAnswered {
    /// The kind of name.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::matched_by"))]
    pub by: String,
    /// The id; null for a pair.
    pub id: Option<String>,
    /// How many records came into question.
    pub candidates: u32,
    /// What the recipient is to it.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::standing"))]
    pub recipient: String,
    /// The records whose verdicts count, nearest first.
    pub subjects: Vec<RecordedInbound>,
}

/// One inbound message, as a tap saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedInbound {
    /// Which kind of tap.
    #[cfg_attr(test, schemars(schema_with = "crate::audit::words::schema::tap"))]
    pub tap: Option<String>,
    /// The host of ours that accepted it.
    pub host: String,
    /// Its id in that host's queue.
    pub queue_id: Option<String>,
    /// When it came in: RFC 3339.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub arrived: String,
    /// Whether it was still being verified.
    pub pending: bool,
    /// Its reverse-path, `""` for the null one.
    pub mail_from: String,
    /// The field that shows list traffic.
    pub list: Option<String>,
    /// The field that shows an automatic message.
    pub automatic: Option<String>,
    /// The points of our spam filter.
    pub spam: Option<String>,
    /// What each source says of it.
    pub findings: Vec<RecordedFindings>,
    /// What could not be known of it.
    pub gaps: Vec<RecordedGap>,
}

impl Match {
    /// The match in words; `deciding` is the place of the record that decided.
    pub fn new(answered: &Answered, deciding: Option<usize>) -> Match {
        let subject = answered.subjects.get(deciding.unwrap_or(0));
        Match {
            by: MATCHED_BY.word(answered.by).to_owned(),
            id: answered.id.as_deref().map(harmless),
            candidates: answered.candidates,
            tap: subject.map(|subject| TAPS.word(subject.tap).to_owned()),
            host: subject.map(|subject| harmless(&subject.host)),
            queue_id: subject.and_then(|subject| subject.queue_id.as_deref().map(harmless)),
            arrived: subject.map(|subject| subject.arrived.to_string()),
        }
    }
}

impl RecordedAnswered {
    /// The same in words.
    pub fn new(answered: &Answered) -> RecordedAnswered {
        let Answered { by, id, candidates, recipient, subjects } = answered;
        RecordedAnswered {
            by: MATCHED_BY.word(*by).to_owned(),
            id: id.as_deref().map(harmless),
            candidates: *candidates,
            recipient: STANDINGS.word(*recipient).to_owned(),
            subjects: subjects.iter().map(RecordedInbound::new).collect(),
        }
    }

    /// The way back; `None` when a word is not ours.
    pub fn answered(&self) -> Option<Answered> {
        Some(Answered {
            by: MATCHED_BY.find(&self.by)?,
            id: self.id.clone(),
            candidates: self.candidates,
            recipient: STANDINGS.find(&self.recipient)?,
            subjects: self.subjects.iter().map(RecordedInbound::subject).collect::<Option<_>>()?,
        })
    }
}

impl RecordedInbound {
    fn new(subject: &Subject) -> RecordedInbound {
        let Subject { id: _, tap, host, queue_id, arrived, pending, mail_from, .. } = subject;
        let Subject { kind, spam, findings, gaps, .. } = subject;
        RecordedInbound {
            tap: Some(TAPS.word(*tap).to_owned()),
            host: harmless(host),
            queue_id: queue_id.as_deref().map(harmless),
            arrived: arrived.to_string(),
            pending: *pending,
            mail_from: mail_from.to_string(),
            list: kind.list.as_deref().map(harmless),
            automatic: kind.automatic.as_deref().map(harmless),
            spam: spam.map(|spam| spam.to_string()),
            findings: findings.iter().map(RecordedFindings::new).collect(),
            gaps: gaps.iter().map(RecordedGap::new).collect(),
        }
    }

    fn subject(&self) -> Option<Subject> {
        let spam = match &self.spam {
            Some(spam) => Some(SpamScore::parse(spam)?),
            None => None,
        };
        Some(Subject {
            id: None,
            tap: TAPS.find(self.tap.as_deref()?)?,
            host: self.host.clone(),
            queue_id: self.queue_id.clone(),
            arrived: Timestamp::parse_rfc3339(&self.arrived)?,
            pending: self.pending,
            mail_from: reverse_path(&self.mail_from)?,
            kind: SubjectKind { list: self.list.clone(), automatic: self.automatic.clone() },
            spam,
            findings: self
                .findings
                .iter()
                .map(RecordedFindings::findings)
                .collect::<Option<_>>()?,
            gaps: self.gaps.iter().map(RecordedGap::gap).collect::<Option<_>>()?,
        })
    }
}
