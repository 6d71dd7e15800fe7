//! Station 3: what a message's header says of the mailboxes it went through.
//!
//! Takes: the fields of a header. Gives: `LoopMarks`. The fields of others are read and kept, never
//! written: Delivered-To (Postfix, Dovecot, qmail), X-Sieve-Redirected-From (Pigeonhole),
//! X-MS-Exchange-Inbox-Rules-Loop and X-MS-Exchange-ForwardingLoop (Exchange). Anybody can write
//! them, so alone they prove nothing.
//! Bounds: `limits::VIA_MAX`. Standards: RFC 5322 §3.6.4 and §3.6.6, RFC 9228 (Delivered-To).

use crate::judge::loops::weak::oldest;
use crate::mail::address::Address;
use crate::mail::header::{Field, Fields};
use crate::mail::limits::{MESSAGE_ID_BYTES_MAX, TAKEN_FOR_LINES_MAX, VIA_MAX};
use crate::mail::received::Received;

/// What a header says of the mailboxes that a message went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopMarks {
    /// The mailboxes, the last one first.
    pub via: Vec<Via>,
    /// The mailboxes that servers say they took it for, the last one first; each once.
    pub taken_for: Vec<Address>,
    /// How often a person sent it on as it is (RFC 5322 §3.6.6).
    pub resent: u32,
    /// The first message of its thread: an id without angle brackets.
    pub thread: Option<String>,
    /// Who wrote it.
    pub author: Option<Address>,
    /// Of a report, for whom it says it is: the first few of its To.
    pub to: Vec<Address>,
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
pub struct Via {
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
    /// The marks of a header with these Received lines.
    pub fn of(fields: &Fields<'_>, lines: &[Received]) -> LoopMarks {
        LoopMarks {
            via: via(fields),
            taken_for: taken_for(lines),
            resent: u32::try_from(fields.all("resent-from").count()).unwrap_or(u32::MAX),
            thread: thread(fields),
            author: fields.author_addresses().next().cloned(),
            to: Vec::new(),
            past: if fields.has("message-id") { None } else { oldest(fields) },
            since_ours: None,
            forwarded: None,
        }
    }

    /// How often the mailbox that is named most is named by one field.
    pub fn most(&self) -> u32 {
        self.via.iter().map(|via| via.times).max().unwrap_or(0)
    }
}

const VIA_FIELDS: &[&str] =
    &["delivered-to", "x-sieve-redirected-from", "x-ms-exchange-inbox-rules-loop", FORWARDING_LOOP];

/// Of it only the first half names a mailbox: `ann@a.test;TENANT`.
const FORWARDING_LOOP: &str = "x-ms-exchange-forwardingloop";

/// The mailboxes, the last one first; each once, with the greatest count of any field.
pub fn via(fields: &Fields<'_>) -> Vec<Via> {
    let mut counted: Vec<(&str, Address, u32)> = Vec::new();
    for field in fields.iter() {
        let Some(name) = VIA_FIELDS.iter().find(|name| field.is(name)) else { continue };
        let Some(mailbox) = mailbox(field) else { continue };
        let same =
            |(of, known, _): &&mut (&str, Address, u32)| of == name && known.same_mailbox(&mailbox);
        if let Some((_, _, times)) = counted.iter_mut().find(same) {
            *times = times.saturating_add(1);
        } else if counted.len() < VIA_MAX {
            counted.push((name, mailbox, 1));
        }
    }
    let mut via: Vec<Via> = Vec::new();
    for (_, mailbox, times) in counted {
        match via.iter_mut().find(|known| known.mailbox.same_mailbox(&mailbox)) {
            Some(known) => known.times = known.times.max(times),
            None => via.push(Via { mailbox, times }),
        }
    }
    via
}

fn mailbox(field: &Field<'_>) -> Option<Address> {
    match field.is(FORWARDING_LOOP) {
        true => Address::parse(field.text().split(';').next()?.trim()),
        false => field.addresses().into_iter().next(),
    }
}

/// Whom the newest Received lines say the message was for.
fn taken_for(lines: &[Received]) -> Vec<Address> {
    let mut mailboxes: Vec<Address> = Vec::new();
    for line in lines.iter().take(TAKEN_FOR_LINES_MAX) {
        let named = line.recipient.as_deref();
        let mailbox = named.and_then(|name| Address::parse(name.trim_matches(['<', '>'])));
        let Some(mailbox) = mailbox else { continue };
        if !mailboxes.iter().any(|known| known.same_mailbox(&mailbox)) {
            mailboxes.push(mailbox);
        }
    }
    mailboxes
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
    use crate::judge::border::Trace;

    const RING: &str = include_str!("../../../tests/captures/forward-sieve-final-in-bob-inbox.eml");

    fn marks(text: &str) -> LoopMarks {
        let fields = Fields::read(text.as_bytes());
        LoopMarks::of(&fields, &Trace::of(&fields).lines)
    }

    fn named(marks: &LoopMarks) -> Vec<(&str, u32)> {
        marks.via.iter().map(|s| (s.mailbox.as_str(), s.times)).collect()
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
        assert_eq!((exchange.via.len(), exchange.most()), (1, 2));
        let forwarding = marks(
            "X-MS-Exchange-ForwardingLoop: ann@a.test;\n\tf7a17af6-1c5c-4a36-aa8b-f5be247aa4ba\n\
             X-MS-Exchange-ForwardingLoop: Ann@a.test;f7a17af6\n\
             X-MS-Exchange-ForwardingLoop: ForwardingHandled;2109ce83\n\n",
        );
        assert_eq!(named(&forwarding), [("ann@a.test", 2)]);
        assert_eq!(marks("Delivered-To: mailing list x\n\n").most(), 0);
        let many: String = (0..100).map(|n| format!("Delivered-To: u{n}@a.test\n")).collect();
        assert_eq!(marks(&many).via.len(), VIA_MAX);
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
    fn whom_servers_took_it_for_is_known() {
        let ring = marks(RING);
        let names: Vec<&str> = ring.taken_for.iter().map(Address::as_str).collect();
        assert_eq!(names, ["bob@local.test", "carol@local.test"]);
    }

    #[test]
    fn persons_who_send_on_are_counted() {
        assert_eq!(marks("Resent-From: a@a.test\nResent-From: b@b.test\n\n").resent, 2);
    }
}
