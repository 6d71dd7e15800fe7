//! Stations 4 and 9 of loops: what is known of a message's earlier rounds, and what is remembered
//! of this one.
//!
//! Takes: a case and its envelope. Gives: `LoopEvidence` for each recipient, and `Rounds`, which
//! are confirmed for those whom the next hop took, and given back for the others.
//! Every key is hashed with a key of ours: who writes the mail cannot choose where it falls.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

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
    /// Whose rounds they are; see `site_of`.
    site: String,
    sightings: Arc<Sightings>,
    talks: Arc<Windows>,
    returns: Mutex<Returns>,
    next_hops: ArcSwap<Vec<IpAddr>>,
}

/// What of it must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The messages that may be going round.
    pub sightings: Vec<u8>,
    /// What two said to one another more than once.
    pub conversations: Vec<u8>,
}

/// One copy for one recipient, on its way.
#[derive(Debug)]
pub struct Round {
    flight: Flight,
    pending: Option<Pending>,
    crowd: Option<u32>,
    /// Where it is counted when it is held.
    stopped: Option<Stopped>,
}

#[derive(Debug)]
struct Stopped {
    talks: Arc<Windows>,
    key: Key,
    owners: Owners,
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

    /// How many responses all our addresses together sent to this domain lately, where that is
    /// more than they should and nobody was told of it yet.
    pub fn crowd(&self) -> Option<u32> {
        self.crowd
    }

    /// It was held because it goes round.
    pub fn stop(self, now: Timestamp) {
        self.flight.stop(now);
        if let Some(Stopped { talks, key, owners }) = self.stopped {
            talks.happened(key, owners, now);
        }
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
            next_hops: ArcSwap::from_pointee(next_hops),
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
        let site = site_of(&self.site, envelope.client.listener);
        let copied = |fingerprint: &Fingerprint, kind: &str| Copied {
            key: self.hashed(&["sighting", kind, &site, &fingerprint.to_string(), &to]),
            owners,
            hops: case.hops,
            past,
        };
        let copies = vec![copied(&case.fingerprint, "strong"), copied(&case.weak, "weak")];
        let (flight, seen) = self.sightings.reserve(copies, with.now);
        let laps = Laps::of(case, recipient, with.trace_key, with.now);
        // Why only at its first round: what the guard sees twice was said once.
        let talk = talk(case, recipient).filter(|_| laps.count == 0);
        let (mut pending, mut talked, mut crowd, mut stopped) = (None, None, None, None);
        if let Some(talk) = talk {
            let spoken = Spoken { talk: &talk, site: &site, owners };
            let said = self.talked(&spoken, with);
            (pending, talked, crowd) = (Some(said.0), Some(said.1), said.2);
            let (talks, key) = (Arc::clone(&self.talks), self.stopped(&spoken));
            stopped = Some(Stopped { talks, key, owners });
        }
        let known = |index: usize| -> Option<Seen> { seen.get(index).copied().flatten() };
        let evidence = LoopEvidence {
            laps,
            strong: known(0),
            weak: known(1),
            talked,
            misrouted: laps.count > 0 && self.is_misrouted(envelope, case, recipient, with),
        };
        (Round { flight, pending, crowd, stopped }, evidence)
    }

    /// How often something changed that must survive a restart.
    pub fn changes(&self) -> u64 {
        self.sightings.changes().wrapping_add(self.talks.changes())
    }

    /// What must survive a restart.
    pub fn saved(&self) -> Saved {
        Saved { sightings: self.sightings.saved(), conversations: self.talks.saved() }
    }

    /// Remembers what was saved; gives how many entries.
    pub fn restore(&self, saved: &Saved, now: Timestamp) -> usize {
        let sightings = self.sightings.restore(&saved.sightings, now);
        sightings.saturating_add(self.talks.restore(&saved.conversations, now))
    }

    /// From now on our mail goes to these addresses.
    pub fn follow(&self, next_hops: Vec<IpAddr>) {
        self.next_hops.store(Arc::new(next_hops));
    }

    /// How it stands.
    pub fn health(&self) -> LoopHealth {
        LoopHealth { sightings: self.sightings.health(), talks: self.talks.health() }
    }

    fn talked(&self, spoken: &Spoken<'_>, with: &Asking<'_>) -> (Pending, Talked, Option<u32>) {
        let Spoken { talk, site, owners } = *spoken;
        let limits = with.limits;
        let ours = |id: &String| {
            let word = self.hashed(&["answer", site, &talk.own, id]);
            self.talks.before(&word, with.now).last().is_some()
        };
        let answers_ours = talk.kind == TalkKind::Responder && talk.answers.iter().any(ours);
        let keys = self.keys(spoken).into_iter().map(|key| (key, owners));
        let (crowded, crowd) = self.crowded(spoken, with);
        let (pending, before) = self.talks.reserve(keys.chain(crowded).collect(), with.now);
        let within = |index: usize, span| before.get(index).map_or(0, |b: &Before| b.within(span));
        let first = before.first();
        let (first, last) = (first.and_then(Before::first), first.and_then(Before::last));
        let stopped = self.talks.before(&self.stopped(spoken), with.now);
        let stopped = stopped.within(limits.longest());
        let talked = match talk.kind {
            TalkKind::Responder => Talked {
                pair: within(0, limits.pair.span),
                pair_day: within(0, limits.pair_day.span),
                domain: within(1, limits.domain.span),
                thread: within(2, limits.thread.span),
                answers_ours,
                first,
                last,
                stopped,
                ..Talked::default()
            },
            TalkKind::Person => {
                let agents = within(0, limits.agents.span);
                Talked { agents, first, last, stopped, ..Talked::default() }
            }
        };
        (pending, talked, crowd)
    }

    /// Under what is counted that was held of two.
    fn stopped(&self, spoken: &Spoken<'_>) -> Key {
        let Spoken { talk: Talk { own, other, .. }, site, .. } = spoken;
        self.hashed(&["stopped", site, own, other])
    }

    /// Under what it is counted: pair, domain and thread of a responder, and its own id, by which an
    /// answer to it is known; the thread of persons.
    fn keys(&self, spoken: &Spoken<'_>) -> Vec<Key> {
        let Spoken { talk: Talk { kind, own, other, domain, thread, id, .. }, site, .. } = *spoken;
        match (kind, thread) {
            (TalkKind::Responder, thread) => {
                // Why a key of its own where nothing names the thread: then nothing is counted.
                let thread = thread.as_ref().or(id.as_ref()).map_or("", String::as_str);
                let mut keys = vec![
                    self.hashed(&["pair", site, own, other]),
                    self.hashed(&["domain", site, own, domain]),
                    self.hashed(&["thread", site, own, thread]),
                ];
                keys.extend(id.iter().map(|id| self.hashed(&["answer", site, own, id])));
                keys
            }
            (TalkKind::Person, Some(thread)) => {
                vec![self.hashed(&["agents", site, own, other, thread])]
            }
            (TalkKind::Person, None) => Vec::new(),
        }
    }

    /// What all our addresses sent to one domain, where that is too much and nobody was told of it
    /// in this time. Nobody owns these keys: they are everybody's.
    fn crowded(&self, spoken: &Spoken<'_>, with: &Asking<'_>) -> (Vec<(Key, Owners)>, Option<u32>) {
        let Spoken { talk, site, .. } = *spoken;
        if talk.kind == TalkKind::Person {
            return (Vec::new(), None);
        }
        let (limit, nobody) = (with.limits.crowd, [0, 0]);
        let all = self.hashed(&["crowd", site, &talk.domain]);
        let told = self.hashed(&["crowd told", site, &talk.domain]);
        let within = |key: &Key| self.talks.before(key, with.now).within(limit.span);
        let sent = within(&all);
        match sent >= limit.count && within(&told) == 0 {
            true => (vec![(all, nobody), (told, nobody)], Some(sent)),
            false => (vec![(all, nobody)], None),
        }
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
        let from_next_hop = client.is_some_and(|ip| self.next_hops.load().contains(&ip));
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
        let crowd = round.crowd();
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
        if let Some(sent) =
            crowd.filter(|_| acted.outcomes.get(index).is_some_and(Outcome::is_delivered))
        {
            sound("crowd");
            tracing::warn!(
                %event, %to, sent,
                "our addresses together answer this domain more than usual: is it a forged sender, \
                 or a program that answers ours? Nothing is held for it"
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

/// Whose traces and rounds they are that came by one of our listeners: each has a site of its own.
///
/// Why: a scanner may take mail from one listener and hand it to the other. That is a way, no loop.
pub fn site_of(site: &str, listener: usize) -> Cow<'_, str> {
    match listener {
        0 => Cow::Borrowed(site),
        n => Cow::Owned(format!("{site}/{}", n.saturating_add(1))),
    }
}

/// A message that is part of a conversation.
#[derive(Clone, Copy)]
struct Spoken<'a> {
    talk: &'a Talk,
    site: &'a str,
    owners: Owners,
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
