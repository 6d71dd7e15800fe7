//! Station 3: what a message's header says of the mailboxes it went through.
//!
//! Takes: the fields of a header. Gives: `LoopMarks`. The fields of others are read and kept, never
//! written: Delivered-To (Postfix, Dovecot, qmail), X-Sieve-Redirected-From (Pigeonhole),
//! X-MS-Exchange-Inbox-Rules-Loop (Exchange). Anybody can write them, so alone they prove nothing.
//! Bounds: `limits::STATIONS_MAX`. Standards: RFC 5322 §3.6.4 and §3.6.6, RFC 9228 (Delivered-To).

use crate::judge::loops::weak::oldest;
use crate::mail::address::Address;
use crate::mail::header::{Field, Fields};
use crate::mail::limits::{MESSAGE_ID_BYTES_MAX, STATIONS_MAX};

/// What a header says of the mailboxes that a message went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopMarks {
    /// The mailboxes, the last one first.
    pub stations: Vec<Station>,
    /// How often a person sent it on as it is (RFC 5322 §3.6.6).
    pub resent: u32,
    /// The first message of its thread: an id without angle brackets.
    pub thread: Option<String>,
    /// Who wrote it.
    pub author: Option<Address>,
    /// What tells it from others with the same content where it has no Message-ID: its oldest
    /// Received line.
    pub past: Option<String>,
    /// Received lines above the newest of our own traces; `None` where there is none.
    pub since_ours: Option<u32>,
    /// Set where it reports the failure of a message that one of our mailboxes forwarded.
    pub forwarded: Option<ForwardedOriginal>,
}

/// A mailbox that a message went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The mailbox.
    pub mailbox: Address,
    /// How often one and the same field names it.
    pub times: u32,
}

/// What the header of an embedded message proves: that we relayed it to an address that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedOriginal {
    /// The mailboxes that it was for before.
    pub by: Vec<Address>,
}

impl LoopMarks {
    /// The marks of a header.
    pub fn of(fields: &Fields<'_>) -> LoopMarks {
        LoopMarks {
            stations: stations(fields),
            resent: u32::try_from(fields.all("resent-from").count()).unwrap_or(u32::MAX),
            thread: thread(fields),
            author: fields.all("from").flat_map(Field::addresses).next(),
            past: oldest(fields).filter(|_| !fields.has("message-id")),
            since_ours: None,
            forwarded: None,
        }
    }

    /// How often the mailbox that is named most is named by one field.
    pub fn most(&self) -> u32 {
        self.stations.iter().map(|station| station.times).max().unwrap_or(0)
    }
}

const STATION_FIELDS: &[&str] =
    &["delivered-to", "x-sieve-redirected-from", "x-ms-exchange-inbox-rules-loop"];

/// The mailboxes, the last one first; each once, with the greatest count of any field.
pub fn stations(fields: &Fields<'_>) -> Vec<Station> {
    let mut counted: Vec<(&str, Address, u32)> = Vec::new();
    for field in fields.iter() {
        let Some(name) = STATION_FIELDS.iter().find(|name| field.is(name)) else { continue };
        let Some(mailbox) = field.addresses().into_iter().next() else { continue };
        let same =
            |(of, known, _): &&mut (&str, Address, u32)| of == name && known.same_mailbox(&mailbox);
        if let Some((_, _, times)) = counted.iter_mut().find(same) {
            *times = times.saturating_add(1);
        } else if counted.len() < STATIONS_MAX {
            counted.push((name, mailbox, 1));
        }
    }
    let mut stations: Vec<Station> = Vec::new();
    for (_, mailbox, times) in counted {
        match stations.iter_mut().find(|known| known.mailbox.same_mailbox(&mailbox)) {
            Some(known) => known.times = known.times.max(times),
            None => stations.push(Station { mailbox, times }),
        }
    }
    stations
}

/// The first id of References; else In-Reply-To, else its own: others will refer to it.
fn thread(fields: &Fields<'_>) -> Option<String> {
    let named = ["references", "in-reply-to", "message-id"];
    named.iter().find_map(|name| first_id(&fields.text(name)?))
}

/// Why not `message_ids`: of a long thread it keeps the last ids, and this is the first.
fn first_id(value: &str) -> Option<String> {
    let (_, rest) = value.split_once('<')?;
    let (id, _) = rest.split_once('>')?;
    let right = !id.is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX;
    right.then(|| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: &str = include_str!("../../../tests/captures/forward-sieve-final-in-bob-inbox.eml");

    fn marks(text: &str) -> LoopMarks {
        LoopMarks::of(&Fields::read(text.as_bytes()))
    }

    fn named(marks: &LoopMarks) -> Vec<(&str, u32)> {
        marks.stations.iter().map(|s| (s.mailbox.as_str(), s.times)).collect()
    }

    #[test]
    fn mailboxes_are_counted_by_field() {
        let ring = marks(RING);
        assert_eq!(named(&ring), [("bob@local.test", 2), ("carol@local.test", 1)]);
        assert_eq!((ring.most(), ring.resent), (2, 0));
        let exchange = marks(
            "X-MS-Exchange-Inbox-Rules-Loop: ann@a.test\nDelivered-To: <Ann@a.test>\n\
             X-MS-Exchange-Inbox-Rules-Loop: ann@A.test\n\n",
        );
        assert_eq!((exchange.stations.len(), exchange.most()), (1, 2));
        assert_eq!(marks("Delivered-To: mailing list x\n\n").most(), 0);
        let many: String = (0..100).map(|n| format!("Delivered-To: u{n}@a.test\n")).collect();
        assert_eq!(marks(&many).stations.len(), STATIONS_MAX);
    }

    #[test]
    fn a_thread_is_its_first_message() {
        let thread = |text: &str| marks(text).thread;
        let all =
            "References: <1@a.test>\n <2@a.test>\nIn-Reply-To: <2@a.test>\nMessage-ID: <3@a>\n";
        assert_eq!(thread(all).as_deref(), Some("1@a.test"));
        assert_eq!(thread("In-Reply-To: <2@a.test>\n").as_deref(), Some("2@a.test"));
        assert_eq!(thread("Message-ID: <3@a.test>\n").as_deref(), Some("3@a.test"));
        assert_eq!(thread("Message-ID: 3@a.test\n"), None);
        let long: String = (0..500).map(|n| format!(" <{n}@a.test>\n")).collect();
        assert_eq!(thread(&format!("References:{long}\n")).as_deref(), Some("0@a.test"));
    }

    #[test]
    fn persons_who_send_on_are_counted() {
        assert_eq!(marks("Resent-From: a@a.test\nResent-From: b@b.test\n\n").resent, 2);
    }
}
