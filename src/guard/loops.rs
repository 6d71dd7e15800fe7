//! Stations 4 and 9 of loops: what is known of a message's earlier rounds, and what is remembered
//! of this one.
//!
//! Takes: a case and its envelope. Gives: `LoopEvidence` for each recipient, and `Rounds`, which
//! are confirmed for those whom the next hop took, and given back for the others.
//! Every key is hashed with a key of ours: who writes the mail cannot choose where it falls.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::guard::act::{Acted, Told};
use crate::guard::outcome::Outcome;
use crate::judge::Case;
use crate::judge::decision::LoopKind;
use crate::judge::fingerprint::{Fingerprint, FingerprintKey};
use crate::judge::loops::conversation::{ConversationLimits, Talk, TalkKind, Talked, talk};
use crate::judge::loops::laps::left;
use crate::judge::loops::{Alarm, Laps, LoopEvidence, Seen, alarm};
use crate::judge::trace::TraceKey;
use crate::mail::address::{Address, ForwardPath};
use crate::mail::envelope::Envelope;
use crate::mail::limits::OWNER_TAGS;
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;
use crate::meter::{ALARMS, Meter};
use crate::store::returns::Returns;
use crate::store::sightings::{Copied, Flight, Settings, Sightings};
use crate::store::table::{Health, Key, Owners};
use crate::store::windows::{Before, Pending, Windows};

/// What is remembered of rounds.
pub struct LoopMemory {
    key: FingerprintKey,
    /// Whose rounds they are: what comes by another listener is on its way, not going round.
    site: String,
    sightings: Arc<Sightings>,
    talks: Arc<Windows>,
    returns: Mutex<Returns>,
    next_hops: Vec<IpAddr>,
}

/// One copy for one recipient, on its way.
#[derive(Debug)]
pub struct Round {
    flight: Flight,
    pending: Option<Pending>,
}

/// How the memory of loops stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopHealth {
    /// Sightings of messages.
    pub sightings: Health,
    /// Counts of conversations.
    pub talks: Health,
}

impl Round {
    /// The next hop took it.
    pub fn confirm(self, now: Timestamp) {
        self.flight.confirm(now);
        if let Some(pending) = self.pending {
            pending.confirm(now);
        }
    }

    /// It was held because it goes round.
    pub fn stop(self, now: Timestamp) {
        self.flight.stop(now);
    }
}

impl LoopMemory {
    /// Nothing remembered yet. `next_hops` are the addresses that our mail goes to.
    pub fn new(
        key: FingerprintKey,
        site: &str,
        settings: &Settings,
        limits: &ConversationLimits,
        next_hops: Vec<IpAddr>,
    ) -> LoopMemory {
        LoopMemory {
            key,
            site: site.to_owned(),
            sightings: Sightings::new(settings),
            talks: Windows::new(limits.most()),
            returns: Mutex::default(),
            next_hops,
        }
    }

    /// A memory of its own for one question: nothing is in it.
    pub fn blank(key: FingerprintKey) -> LoopMemory {
        let settings = Settings { entries: 0, ..Settings::default() };
        LoopMemory::new(key, "", &settings, &ConversationLimits::default(), Vec::new())
    }

    /// What is known of the earlier rounds to one recipient; this one is on its way from now on.
    pub fn ask(
        &self,
        envelope: &Envelope,
        case: &Case,
        recipient: &ForwardPath,
        with: &Asking<'_>,
    ) -> (Round, LoopEvidence) {
        let owners = self.owners(envelope, case);
        let to = recipient.canonical();
        let past = case.marks.past.as_deref().map(|past| self.hashed(&["past", past]));
        let past = past.and_then(|[first, _]| u32::try_from(first >> 32).ok()).unwrap_or(0);
        let copied = |fingerprint: &Fingerprint, kind: &str| Copied {
            key: self.hashed(&["sighting", kind, &self.site, &fingerprint.to_string(), &to]),
            owners,
            hops: case.hops,
            past,
        };
        let copies = vec![copied(&case.fingerprint, "strong"), copied(&case.weak, "weak")];
        let (flight, seen) = self.sightings.reserve(copies, with.now);
        let laps = Laps::of(case, recipient, with.trace_key, with.now);
        let (pending, talked) = match talk(case, recipient) {
            Some(talk) => {
                let (pending, talked) = self.talked(&talk, owners, with);
                (Some(pending), Some(talked))
            }
            None => (None, None),
        };
        let known = |index: usize| -> Option<Seen> { seen.get(index).copied().flatten() };
        let evidence = LoopEvidence {
            laps,
            strong: known(0),
            weak: known(1),
            talked,
            misrouted: laps.count > 0 && self.is_misrouted(envelope, case, recipient, with),
        };
        (Round { flight, pending }, evidence)
    }

    /// How often something changed that must survive a restart.
    pub fn changes(&self) -> u64 {
        self.sightings.changes()
    }

    /// What must survive a restart.
    pub fn saved(&self) -> Vec<u8> {
        self.sightings.saved()
    }

    /// Remembers what was saved; gives how many entries.
    pub fn restore(&self, saved: &[u8], now: Timestamp) -> usize {
        self.sightings.restore(saved, now)
    }

    /// How it stands.
    pub fn health(&self) -> LoopHealth {
        LoopHealth { sightings: self.sightings.health(), talks: self.talks.health() }
    }

    fn talked(&self, talk: &Talk, owners: Owners, with: &Asking<'_>) -> (Pending, Talked) {
        let Talk { own, other, domain, .. } = talk;
        let thread = talk.thread.as_deref();
        let word = |id: &str| self.hashed(&["answer", own, id]);
        let mut keys: Vec<Key> = Vec::new();
        match (talk.kind, thread) {
            (TalkKind::Responder, _) => {
                keys.push(self.hashed(&["pair", own, other]));
                keys.push(self.hashed(&["domain", own, domain]));
                // Why a key of its own where nothing names the thread: then nothing is counted.
                let thread = thread.or(talk.id.as_deref()).unwrap_or_default();
                keys.push(self.hashed(&["thread", own, thread]));
                keys.extend(talk.id.as_deref().map(word));
            }
            (TalkKind::Person, Some(thread)) => {
                keys.push(self.hashed(&["agents", own, other, thread]));
            }
            (TalkKind::Person, None) => {}
        }
        let ours = |id: &String| self.talks.before(&word(id), with.now).last().is_some();
        let answers_ours = talk.kind == TalkKind::Responder && talk.answers.iter().any(ours);
        let keys = keys.into_iter().map(|key| (key, owners)).collect();
        let (pending, before) = self.talks.reserve(keys, with.now);
        let within = |index: usize, span| before.get(index).map_or(0, |b: &Before| b.within(span));
        let limits = with.limits;
        let first = before.first();
        let (first, last) = (first.and_then(Before::first), first.and_then(Before::last));
        let talked = match talk.kind {
            TalkKind::Responder => Talked {
                pair: within(0, limits.pair.span),
                pair_day: within(0, limits.pair_day.span),
                domain: within(1, limits.domain.span),
                thread: within(2, limits.thread.span),
                answers_ours,
                first,
                last,
                ..Talked::default()
            },
            TalkKind::Person => {
                let agents = within(0, limits.agents.span);
                Talked { agents, first, last, ..Talked::default() }
            }
        };
        (pending, talked)
    }

    /// Whether our next hop sends our own mail back: this message came straight from it, for the
    /// recipient that we sent it to, as much of our mail does just now.
    ///
    /// Why straight: what was forwarded on the way, or has seen another server, goes round by
    /// itself.
    fn is_misrouted(
        &self,
        envelope: &Envelope,
        case: &Case,
        recipient: &ForwardPath,
        with: &Asking<'_>,
    ) -> bool {
        let client = envelope.client.ip.map(|ip| ip.to_canonical());
        let from_next_hop = client.is_some_and(|ip| self.next_hops.contains(&ip));
        let newest = case.laps.first().is_some_and(|lap| lap.went_to(recipient, with.trace_key));
        let straight = case.marks.since_ours.is_some_and(|hops| hops <= 1);
        let Some(left) = left(case, with.now) else { return false };
        if !(from_next_hop && newest && straight) {
            return false;
        }
        let mut returns = self.returns.lock().unwrap_or_else(PoisonError::into_inner);
        returns.came_back(with.now.since(left), with.now)
    }

    /// The client, where the one that speaks to us names it (XFORWARD), and the sender.
    ///
    /// Why not the one that speaks to us: that is our own MTA, with everybody's mail.
    fn owners(&self, envelope: &Envelope, case: &Case) -> Owners {
        let client = envelope.client.xforward_value("ADDR");
        let sender = envelope.reverse_path().address().or(case.marks.author.as_ref());
        let sender = sender.map(Address::canonical);
        let tag = |kind: &str, name: &str| {
            let [first, _] = self.hashed(&["owner", kind, name]);
            let tags = u64::try_from(OWNER_TAGS - 1).unwrap_or(1);
            u16::try_from(first % tags + 1).unwrap_or(1)
        };
        [
            client.map_or(0, |client| tag("client", client)),
            sender.map_or(0, |sender| tag("sender", &sender)),
        ]
    }

    fn hashed(&self, words: &[&str]) -> Key {
        let pieces: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let hash = Fingerprint::of_pieces("replyguard loop memory 1", &pieces, &self.key);
        let both = u128::from_le_bytes(*hash.as_bytes());
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        [half(both), half(both >> 64)]
    }
}

/// Remembers the copies that went on, and those that were stopped because they go round; and lets
/// the administrator hear of what is only suspected.
pub(in crate::guard) fn remember(
    rounds: Vec<Round>,
    acted: &Acted,
    told: &Told<'_>,
    meter: &Meter,
) {
    let sound = |name| meter.count(ALARMS, &[("alarm", name)]);
    for (index, round) in rounds.into_iter().enumerate() {
        let looping = acted.decisions.get(index).and_then(|it| it.loop_finding.as_ref());
        match acted.outcomes.get(index) {
            Some(Outcome::Relayed(_)) => round.confirm(told.now),
            Some(Outcome::Held { .. }) if looping.is_some() => round.stop(told.now),
            _ => drop(round),
        }
        let recipient = acted.envelope.recipients.get(index).map(|recipient| &recipient.path);
        let (event, to) = (acted.event, recipient.map(ToString::to_string).unwrap_or_default());
        let to = Shown::new(&to);
        if looping.is_some_and(|found| found.kind == LoopKind::Misrouting) {
            sound("misrouting");
            tracing::error!(
                %event, %to,
                "misrouting: the next hop sends our own mail back; correct its route for this \
                 recipient, the mail waits at the client until then"
            );
        }
        let known = told.evidence.recipients.get(index);
        match known.and_then(|known| alarm(told.case, &known.loops, &told.in_force.policy.loops)) {
            Some(Alarm::ManyHops(hops)) => {
                sound("many-hops");
                tracing::warn!(%event, %to, hops, "so many hops that it may go round");
            }
            Some(Alarm::Agents(sent)) => {
                sound("agents");
                tracing::warn!(%event, %to, sent, "two write faster than persons can");
            }
            None => {}
        }
    }
}

/// What asking needs beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The key of our traces.
    pub trace_key: &'a TraceKey,
    /// The times in which conversations are counted.
    pub limits: &'a ConversationLimits,
    /// Now.
    pub now: Timestamp,
}
