//! What a decision saw of a message's earlier rounds, as a record holds it.
//!
//! Takes: `LoopEvidence`. Gives: a plain struct of words, and the way back, so that a recorded case
//! can be decided again (law 7).

use serde::{Deserialize, Serialize};

use crate::audit::findings::each;
use crate::judge::loops::conversation::Talked;
use crate::judge::loops::{Laps, LoopEvidence, Seen};
use crate::mail::time::Timestamp;

/// What is known of a message's earlier rounds to one recipient, beside `laps` and when they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedRounds {
    /// Whether our own traces prove that it went to this recipient, then elsewhere, and came back.
    pub came_back: bool,
    /// What the memory has under its strong fingerprint; null when it has nothing.
    pub strong: Option<RecordedSeen>,
    /// What the memory has under its weak fingerprint; null when it has nothing.
    pub weak: Option<RecordedSeen>,
    /// How much the two talked before; null for what is no part of a conversation.
    pub talked: Option<RecordedTalked>,
    /// Whether our next hop sends our own mail back.
    pub misrouted: bool,
}

/// What the memory has of a message and a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedSeen {
    /// Copies that went on before, those on their way included.
    pub sightings: u32,
    /// How often the hops rose by one step, up to this copy.
    pub rises: u32,
    /// Whether copies came by several paths.
    pub mixed: bool,
    /// When the first was seen.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub first: String,
    /// When the last was.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub last: String,
    /// Copies that were stopped.
    pub stopped: u32,
}

/// How much went out before, in the times of the limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordedTalked {
    /// From this address to that one, in the time of `loops.conversation.pair`.
    pub pair: u32,
    /// The same, in the time of `loops.conversation.pair_day`.
    pub pair_day: u32,
    /// From this address in this thread.
    pub thread: u32,
    /// From this address to that domain.
    pub domain: u32,
    /// From this address to that one in this thread, both of them persons.
    pub agents: u32,
    /// Whether it answers a message that answered a response of ours.
    pub answers_ours: bool,
    /// When the first of them went out.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub first: Option<String>,
    /// When the last of them did.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub last: Option<String>,
    /// How many were held since.
    #[serde(default)]
    pub stopped: u32,
}

impl RecordedRounds {
    /// The evidence in words; `None` when there is nothing in it.
    pub fn new(known: &LoopEvidence) -> Option<RecordedRounds> {
        let LoopEvidence { laps, strong, weak, talked, misrouted } = known;
        let only_laps = LoopEvidence { laps: *laps, ..LoopEvidence::default() };
        (*known != only_laps || laps.came_back).then(|| RecordedRounds {
            came_back: laps.came_back,
            strong: strong.as_ref().map(RecordedSeen::new),
            weak: weak.as_ref().map(RecordedSeen::new),
            talked: talked.as_ref().map(RecordedTalked::new),
            misrouted: *misrouted,
        })
    }

    /// The evidence again, with what stands beside it; `None` when a word of it is not ours.
    pub fn evidence(&self, laps: Laps) -> Option<LoopEvidence> {
        Some(LoopEvidence {
            laps: Laps { came_back: self.came_back, ..laps },
            strong: each(&self.strong, RecordedSeen::seen)?,
            weak: each(&self.weak, RecordedSeen::seen)?,
            talked: each(&self.talked, RecordedTalked::talked)?,
            misrouted: self.misrouted,
        })
    }
}

impl RecordedSeen {
    fn new(seen: &Seen) -> RecordedSeen {
        let Seen { sightings, rises, mixed, first, last, stopped } = *seen;
        let (first, last) = (first.to_string(), last.to_string());
        RecordedSeen { sightings, rises, mixed, first, last, stopped }
    }

    fn seen(&self) -> Option<Seen> {
        let RecordedSeen { sightings, rises, mixed, stopped, .. } = *self;
        let first = Timestamp::parse_rfc3339(&self.first)?;
        let last = Timestamp::parse_rfc3339(&self.last)?;
        Some(Seen { sightings, rises, mixed, first, last, stopped })
    }
}

impl RecordedTalked {
    fn new(talked: &Talked) -> RecordedTalked {
        let Talked { pair, pair_day, thread, domain, agents, answers_ours, stopped, .. } = *talked;
        let (first, last) = (written(talked.first), written(talked.last));
        RecordedTalked {
            pair,
            pair_day,
            thread,
            domain,
            agents,
            answers_ours,
            first,
            last,
            stopped,
        }
    }

    fn talked(&self) -> Option<Talked> {
        let RecordedTalked {
            pair, pair_day, thread, domain, agents, answers_ours, stopped, ..
        } = *self;
        let first = each(&self.first, |text| Timestamp::parse_rfc3339(text))?;
        let last = each(&self.last, |text| Timestamp::parse_rfc3339(text))?;
        Some(Talked { pair, pair_day, thread, domain, agents, answers_ours, first, last, stopped })
    }
}

fn written(moment: Option<Timestamp>) -> Option<String> {
    moment.map(|moment| moment.to_string())
}
