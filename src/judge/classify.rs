//! Station 3: what kind of message is it, and which signs say so?
//!
//! Gives: a `Class` and the `Signal`s that led to it. When in doubt the class is `Personal`.
//! Standards: RFC 3464, RFC 3834 §5, RFC 5965, RFC 8098, RFC 2919.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A person wrote it, or we cannot tell.
    Personal,
    /// Vacation, out-of-office, acknowledgement of a ticket.
    AutoReply,
    /// "Confirm that you are human".
    Challenge,
    /// A delivery status notification, of the RFC 3464 form or of a vendor's.
    Dsn(DsnAction),
    /// A message disposition notification (RFC 8098): read receipt, Sieve reject in MDN form.
    Mdn,
    /// DMARC aggregate or failure report, TLS report.
    DmarcReport,
    /// Abuse report (RFC 5965).
    FeedbackReport,
    /// List traffic.
    List,
    /// Newsletters.
    Bulk,
    /// What machines send unasked: alerts, calendar answers, journal reports, digests.
    Notification,
}

/// The Action field of a DSN (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DsnAction {
    /// Delivery failed for good.
    Failed,
    /// Not yet delivered, still trying.
    Delayed,
    /// Delivered to the mailbox.
    Delivered,
    /// Handed to a system that gives no notice.
    Relayed,
    /// Delivered to a list or alias.
    Expanded,
}

/// How a class is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Answers a message: the recipient is judged.
    Response,
    /// Reports to a domain's owner: limited in every case.
    Report,
    /// Nobody is judged.
    No,
}

impl Class {
    /// The stable name in records and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Personal => "personal",
            Class::AutoReply => "auto-reply",
            Class::Challenge => "challenge",
            Class::Dsn(_) => "dsn",
            Class::Mdn => "mdn",
            Class::DmarcReport => "dmarc-report",
            Class::FeedbackReport => "feedback-report",
            Class::List => "list",
            Class::Bulk => "bulk",
            Class::Notification => "notification",
        }
    }

    /// The DSN's action; `None` for every other class.
    pub fn dsn_action(self) -> Option<DsnAction> {
        match self {
            Class::Dsn(action) => Some(action),
            _ => None,
        }
    }

    /// How the class is guarded.
    pub fn guarded(self) -> Guarded {
        match self {
            Class::AutoReply | Class::Challenge | Class::Dsn(_) | Class::Mdn => Guarded::Response,
            Class::DmarcReport | Class::FeedbackReport => Guarded::Report,
            Class::Personal | Class::List | Class::Bulk | Class::Notification => Guarded::No,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DsnAction {
    /// The stable name, as RFC 3464 §2.3.3 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            DsnAction::Failed => "failed",
            DsnAction::Delayed => "delayed",
            DsnAction::Delivered => "delivered",
            DsnAction::Relayed => "relayed",
            DsnAction::Expanded => "expanded",
        }
    }
}

/// One sign that led to the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signal {
    /// Stable name of the sign, lower case with hyphens.
    pub id: Cow<'static, str>,
    /// What was seen: peer text, harmless and at most `limits::SIGNAL_DETAIL_BYTES_MAX`.
    pub detail: String,
    /// The standard that gives it a meaning, with section; empty when it is only a habit.
    pub standard: Cow<'static, str>,
}
