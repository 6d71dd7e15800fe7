//! Station 3: the message that this one answers, embedded or referenced; and whose response it is.
//!
//! Gives: `Original` (RFC 3834's subject message, as far as the response names it) and `Origin`.
//! Standards: RFC 3461 §6.3, RFC 3464 §2, RFC 5322 §3.6.4, RFC 8098 §3.2.5.

use std::ops::Range;

use crate::judge::evidence::{Findings, Gap};
use crate::mail::address::{Address, ReversePath};
use crate::mail::time::Timestamp;

/// Whether a response was made by our systems or only passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Our systems made it.
    Ours,
    /// It came from outside and one of our users forwards it.
    Relayed,
}

impl Origin {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Ours => "ours",
            Origin::Relayed => "relayed",
        }
    }
}

/// In which form the response holds the subject message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FoundAs {
    /// A message/rfc822 or message/global part.
    Rfc822,
    /// A text/rfc822-headers or message/global-headers part.
    Rfc822Headers,
    /// Quoted in the plain text of the report.
    Text,
    /// Named by In-Reply-To, References or another key.
    Reference,
    /// Not at all.
    #[default]
    None,
}

impl FoundAs {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            FoundAs::Rfc822 => "rfc822",
            FoundAs::Rfc822Headers => "rfc822-headers",
            FoundAs::Text => "text",
            FoundAs::Reference => "reference",
            FoundAs::None => "none",
        }
    }
}

/// What a response names its subject message by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The queue id the subject message had on the host that reports.
    QueueId {
        /// The Reporting-MTA or the `by` name; lower case, empty when not said.
        host: String,
        /// The id, as written.
        id: String,
    },
    /// A Message-ID, without angle brackets.
    MessageId {
        /// The id.
        id: String,
        /// The field that named it.
        named_by: NamedBy,
    },
    /// Original-Envelope-Id, xtext decoded (RFC 3464 §2.2.1).
    EnvelopeId(String),
}

/// The field that named a Message-ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The embedded header itself.
    EmbeddedHeader,
    /// Original-Message-ID of an MDN (RFC 8098 §3.2.5).
    OriginalMessageId,
    /// In-Reply-To (RFC 5322 §3.6.4).
    InReplyTo,
    /// X-MS-Exchange-Parent-Message-Id.
    ExchangeParent,
    /// References, nearest first.
    References,
    /// Quoted in the text of a report.
    Text,
}

/// What the header of the subject message says about being automatic or list traffic
/// (RFC 3834 §2, RFC 5230 §4.6): no auto-reply should have answered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectKind {
    /// The field that shows list traffic, harmless; `None` when nothing does.
    pub list: Option<String>,
    /// The field that shows an automatic message, harmless; `None` when nothing does.
    pub automatic: Option<String>,
}

/// The subject message, as far as the response shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// In which form it was found.
    pub found_as: FoundAs,
    /// What names it, best first; at most `limits::ORIGINAL_KEYS_MAX`.
    pub keys: Vec<Key>,
    /// Its reverse-path, as the reporting system wrote it (Return-Path above our own lines,
    /// X-Postfix-Sender); `None` when not said or only the peer says it.
    pub return_path: Option<ReversePath>,
    /// Mailboxes of its From field, in order; several, or none, are a sign in themselves.
    pub from: Vec<Address>,
    /// The mailbox of its Sender field.
    pub sender: Option<Address>,
    /// Mailboxes of its Reply-To field.
    pub reply_to: Vec<Address>,
    /// Its subject, decoded; for people.
    pub subject: Option<String>,
    /// Its Date field.
    pub date: Option<Timestamp>,
    /// When the reporting system got it (Arrival-Date of the DSN, or its topmost Received).
    pub arrived: Option<Timestamp>,
    /// Recipients the report is about (Final-Recipient, X-Failed-Recipients).
    pub failed_recipients: Vec<Address>,
    /// Whether it was list traffic or itself automatic.
    pub kind: SubjectKind,
    /// Where its bytes stand in the response, when the whole message or header is embedded.
    pub embedded: Option<Range<usize>>,
    /// What the embedded header proves, above the border line.
    pub findings: Option<Findings>,
    /// What could not be known of it, and why.
    pub gaps: Vec<Gap>,
}

impl Original {
    /// The best Message-ID, without angle brackets; `None` when no field named one.
    pub fn message_id(&self) -> Option<&str> {
        self.keys.iter().find_map(|key| match key {
            Key::MessageId { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }
}
