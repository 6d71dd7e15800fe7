//! The books: every message that was handed in must be in exactly one place for each recipient.
//!
//! A message is known by the mark in it, which its bounces carry too, as they embed it. Copies of a
//! campaign, of which one message is kept, have it in their recipients. Places are what arrived at
//! the next hop, what the guard holds, and what still waits in a server's queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::guard::Guard;
use crate::servers::exim::Exim;
use crate::servers::postfix::Postfix;
use crate::sink::Sink;

/// What stands in front of a mark's number; the rest of the mark is digits and a full stop.
const MARK: &str = "ledger-mark-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Arrived,
    Held,
    Queued,
}

/// A message by its mark, and one recipient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub mark: u32,
    pub recipient: String,
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sent: Vec<Entry>,
    found: Vec<(Entry, Place)>,
}

/// What does not add up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Sent, and in no place.
    pub lost: Vec<Entry>,
    /// In more than one place, or in one place more than once.
    pub doubled: Vec<(Entry, Vec<Place>)>,
    /// In a place, and never sent to that recipient.
    pub strange: Vec<(Entry, Vec<Place>)>,
}

/// The text to put into message number `mark`: into its Message-ID, or before the @ of an address
/// with something behind it.
pub fn mark(mark: u32) -> String {
    format!("{MARK}{mark}.")
}

/// The first mark in a message.
pub fn marked(message: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once(MARK)?;
    rest.split_once('.')?.0.parse().ok()
}

impl Ledger {
    /// A message with this mark must end up somewhere for this recipient.
    pub fn sent(&mut self, mark: u32, recipient: &str) {
        self.sent.push(Entry { mark, recipient: recipient.to_owned() });
    }

    /// What was sent.
    pub fn entries(&self) -> &[Entry] {
        &self.sent
    }

    /// A message is in this place. Messages without a mark are no business of ours.
    pub fn found(&mut self, message: &[u8], recipient: &str, place: Place) {
        if let Some(mark) = marked(recipient.as_bytes()).or_else(|| marked(message)) {
            self.found.push((Entry { mark, recipient: recipient.to_owned() }, place));
        }
    }

    /// Enters everything that a sink has taken.
    pub fn arrived(&mut self, sink: &Sink) {
        for transaction in sink.taken() {
            for recipient in transaction.addresses() {
                self.found(&transaction.message, recipient, Place::Arrived);
            }
        }
    }

    /// Enters everything in the guard's quarantine.
    pub fn held(&mut self, guard: &Guard) {
        for held in guard.quarantine() {
            for recipient in held.recipients() {
                self.found(&held.message, &recipient, Place::Held);
            }
        }
    }

    /// Enters everything in Postfix's queue.
    pub fn queued_postfix(&mut self, postfix: &Postfix) {
        for queued in postfix.queue() {
            let message = postfix.message(&queued.id);
            for (recipient, _) in &queued.recipients {
                self.found(&message, recipient, Place::Queued);
            }
        }
    }

    /// Enters everything in Exim's queue.
    pub fn queued_exim(&mut self, exim: &Exim) {
        for queued in exim.queue() {
            let message = exim.message(&queued.id);
            for recipient in &queued.recipients {
                self.found(&message, recipient, Place::Queued);
            }
        }
    }

    /// How many of the entries are in this place, each counted once.
    pub fn in_place(&self, place: Place, which: impl Fn(&Entry) -> bool) -> usize {
        let found = self.found.iter().filter(|(entry, found)| *found == place && which(entry));
        found.map(|(entry, _)| entry).collect::<BTreeSet<_>>().len()
    }

    pub fn balance(&self) -> Balance {
        let mut places: BTreeMap<&Entry, Vec<Place>> = BTreeMap::new();
        for (entry, place) in &self.found {
            places.entry(entry).or_default().push(*place);
        }
        let mut balance = Balance::default();
        let mut sent = self.sent.clone();
        sent.sort();
        sent.dedup();
        for entry in &sent {
            match places.remove(entry) {
                None => balance.lost.push(entry.clone()),
                Some(places) if places.len() > 1 => balance.doubled.push((entry.clone(), places)),
                Some(_) => {}
            }
        }
        let strange = places.into_iter().map(|(entry, places)| (entry.clone(), places));
        balance.strange = strange.collect();
        balance
    }

    /// Each message is in exactly one place.
    pub fn assert_balanced(&self) {
        let balance = self.balance();
        assert!(balance == Balance::default(), "{balance}");
    }

    /// No message is missing. One may be doubled: what a crash is allowed to do (RFC 5321 §6.1).
    pub fn assert_nothing_lost(&self) {
        let balance = self.balance();
        assert!(balance.lost.is_empty() && balance.strange.is_empty(), "{balance}");
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.lost {
            writeln!(f, "lost: message {} to {}", entry.mark, entry.recipient)?;
        }
        for (entry, places) in &self.doubled {
            writeln!(f, "doubled: message {} to {}: {places:?}", entry.mark, entry.recipient)?;
        }
        for (entry, places) in &self.strange {
            writeln!(f, "never sent: message {} to {}: {places:?}", entry.mark, entry.recipient)?;
        }
        Ok(())
    }
}

#[test]
fn the_books_name_what_is_lost_doubled_and_strange() {
    let message = |number: u32| format!("Message-ID: <{}@sender.example>\r\n", mark(number));
    let mut ledger = Ledger::default();
    for number in 0..3 {
        ledger.sent(number, "bob@far.example");
    }
    ledger.found(message(0).as_bytes(), "bob@far.example", Place::Arrived);
    ledger.found(message(1).as_bytes(), "bob@far.example", Place::Arrived);
    ledger.found(message(1).as_bytes(), "bob@far.example", Place::Held);
    ledger.found(message(2).as_bytes(), "eve@far.example", Place::Queued);
    ledger.found(b"Subject: no mark\r\n", "bob@far.example", Place::Arrived);

    let entry =
        |mark: u32, recipient: &str| Entry { mark, recipient: format!("{recipient}@far.example") };
    let balance = ledger.balance();
    assert_eq!(balance.lost, [entry(2, "bob")]);
    assert_eq!(balance.doubled, [(entry(1, "bob"), vec![Place::Arrived, Place::Held])]);
    assert_eq!(balance.strange, [(entry(2, "eve"), vec![Place::Queued])]);
    assert_eq!(marked(message(4_000_000).as_bytes()), Some(4_000_000));
}
