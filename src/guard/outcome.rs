//! What came of the message for one recipient.

use crate::audit::held::HeldId;
use crate::judge::decision::Reason;
use crate::mail::reply::Reply;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop took it, with these words.
    Relayed(Reply),
    /// It is held; the client is told 250.
    Held {
        /// Where.
        id: HeldId,
        /// Why, for the reply.
        reason: Reason,
    },
    /// Nothing is kept but the record; the client is told 250.
    Discarded {
        /// Why, for the reply.
        reason: Reason,
    },
    /// The client is to try again: our words, or the next hop's.
    Deferred(Words),
    /// The client is told 5xx: our words, or the next hop's.
    Refused(Words),
    /// The client went away before an answer; whether the next hop took it is not known.
    Unanswered,
}

/// Whose words an answer is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// The next hop's, byte for byte.
    NextHop(Reply),
    /// Ours: code, enhanced status, text without the event id.
    Ours(u16, &'static str, String),
}

impl Outcome {
    /// Whether the next hop took it.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Outcome::Relayed(_))
    }

    /// 451 in our words.
    pub fn later(enhanced: &'static str, text: impl Into<String>) -> Outcome {
        Outcome::Deferred(Words::Ours(451, enhanced, text.into()))
    }

    /// A next hop's refusal as it stands: 5xx is refused, everything else is deferred.
    ///
    /// Why not 421: it says that the connection will be closed (RFC 5321 §3.8), and ours will not.
    pub fn refusal(reply: Reply) -> Outcome {
        match reply.code() {
            421 => Outcome::later("4.4.2", format!("next hop: {}", reply.text())),
            500.. => Outcome::Refused(Words::NextHop(reply)),
            _ => Outcome::Deferred(Words::NextHop(reply)),
        }
    }
}
