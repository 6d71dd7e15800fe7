//! Station 6: is this going round?
//!
//! Takes: a case, and what traces and memory know of its rounds. Gives: a `LoopFinding`, or
//! nothing. What is only suspected is never held: it is an `Alarm`. Standards: RFC 5321 §6.3.

pub mod conversation;
pub mod laps;
pub mod marks;
pub mod progression;
pub mod weak;

use crate::judge::Case;
use crate::judge::classify::{Class, Guarded};
use crate::judge::decision::{LoopFinding, LoopKind};
use crate::judge::loops::conversation::{AgentsFound, Talked, agents, used_up};
use crate::judge::policy::LoopLimits;
use crate::mail::address::{Address, ForwardPath};
use crate::mail::limits::{
    RESENT_FORGIVEN_MAX, RISES_MIXED, RISES_STRONG, RISES_WEAK, VIA_TIMES_MAX,
};
use crate::mail::time::Timestamp;

/// What is known of a message's earlier rounds to one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopEvidence {
    /// What our own traces prove.
    pub laps: Laps,
    /// What the memory has under its strong fingerprint.
    pub strong: Option<Seen>,
    /// What the memory has under its weak one.
    pub weak: Option<Seen>,
    /// How much the two talked before; `None` for what is no part of a conversation.
    pub talked: Option<Talked>,
    /// Whether our next hop sends our own mail back.
    pub misrouted: bool,
}

/// What our own traces in a message prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Laps {
    /// How often it went to this recipient before.
    pub count: u32,
    /// Whether it went to this recipient alone, then to somebody else, and came back for him.
    pub came_back: bool,
    /// When it first went to him.
    pub first: Option<Timestamp>,
    /// When it last did.
    pub last: Option<Timestamp>,
}

/// What the memory has of a message and a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Copies that went on before, those on their way included.
    pub sightings: u32,
    /// How often the hops rose by one step, up to this copy.
    pub rises: u32,
    /// Whether copies came by several paths.
    pub mixed: bool,
    /// When the first was seen.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
    /// Copies that were stopped.
    pub stopped: u32,
}

/// What an administrator should hear of, and nobody's mail is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// So many hops that it may go round.
    ManyHops(u32),
    /// Two write to one another faster than persons can.
    Agents(u32),
}

/// The loop that this copy for this recipient is in; `None` when nothing proves one.
pub fn loop_finding(
    case: &Case,
    recipient: &ForwardPath,
    known: &LoopEvidence,
    limits: &LoopLimits,
    now: Timestamp,
) -> Option<LoopFinding> {
    let Proof { kind, laps, first, last, stopped } = lap(case, known, limits)
        .or_else(|| progression(case, known))
        .or_else(|| hops(case, known, limits))
        .or_else(|| forwarded_bounce(case, recipient, known))
        .or_else(|| conversation(case, known, limits))?;
    Some(LoopFinding {
        kind,
        laps,
        hops: case.hops,
        between: ends(case, recipient, kind),
        first_seen: first.unwrap_or(now),
        last_seen: last,
        stopped: stopped.saturating_add(1),
    })
}

/// What is not held, and should be heard of all the same.
pub fn alarm(case: &Case, known: &LoopEvidence, limits: &LoopLimits) -> Option<Alarm> {
    if case.hops > limits.hops_max {
        return Some(Alarm::ManyHops(case.hops));
    }
    agents(known.talked.as_ref()?, &limits.conversation).map(Alarm::Agents)
}

/// What proves a loop.
struct Proof {
    kind: LoopKind,
    laps: u32,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    stopped: u32,
}

fn is_response(case: &Case) -> bool {
    case.class.guarded() == Guarded::Response
}

fn lap(case: &Case, known: &LoopEvidence, limits: &LoopLimits) -> Option<Proof> {
    let laps = known.laps;
    // Why: who sends a message on by hand to somebody who had it before makes a lap of it.
    let by_hand = case.marks.resent.min(RESENT_FORGIVEN_MAX);
    let proven = match is_response(case) {
        true => laps.count > 0,
        false => {
            let round = laps.came_back && by_hand == 0 && limits.laps_max <= 1;
            round || laps.count.saturating_sub(by_hand) > limits.laps_max
        }
    };
    let seen = known.strong.or(known.weak);
    proven.then_some(Proof {
        kind: if known.misrouted { LoopKind::Misrouting } else { LoopKind::Lap },
        laps: laps.count,
        first: laps.first,
        last: laps.last,
        stopped: seen.map_or(0, |seen| seen.stopped),
    })
}

/// Hops that rise by one step, again and again, where no trace is left.
///
/// Why lists and what persons send on need more rises: lists inside one another, or a person who
/// sends the same message on several times, make copies with more hops each.
fn progression(case: &Case, known: &LoopEvidence) -> Option<Proof> {
    let careful = matches!(case.class, Class::List | Class::Bulk) || case.marks.resent > 0;
    let proves = |seen: &Seen, needed: u32| {
        let needed = if careful || seen.mixed { needed + RISES_MIXED } else { needed };
        seen.rises >= needed
    };
    let strong = known.strong.filter(|seen| proves(seen, RISES_STRONG));
    let seen = strong.or_else(|| known.weak.filter(|seen| proves(seen, RISES_WEAK)))?;
    Some(Proof {
        kind: LoopKind::Progression,
        laps: seen.rises,
        first: Some(seen.first),
        last: Some(seen.last),
        stopped: seen.stopped,
    })
}

/// Why hops alone prove nothing of mail that is no response: long paths exist.
fn hops(case: &Case, known: &LoopEvidence, limits: &LoopLimits) -> Option<Proof> {
    let many = match is_response(case) {
        true => case.hops > limits.hops_max_response,
        false => {
            let traced = known.laps.count > 0 || !case.laps.is_empty();
            let marked = traced || case.marks.most() >= VIA_TIMES_MAX;
            case.hops > limits.hops_max && marked
        }
    };
    many.then_some(Proof {
        kind: LoopKind::Hops,
        laps: known.laps.count,
        first: known.laps.first,
        last: known.laps.last,
        stopped: known.strong.map_or(0, |seen| seen.stopped),
    })
}

/// The bounce of what a mailbox of ours forwards, on its way to that mailbox, or already forwarded
/// by it to the address that refused.
fn forwarded_bounce(case: &Case, recipient: &ForwardPath, known: &LoopEvidence) -> Option<Proof> {
    let to = recipient.address()?;
    case.class.dsn_action()?;
    let is = |other: &Address| other.same_mailbox(to);
    // Why: it was forwarded only where it says that it is for somebody else. Who wrote to himself is
    // told of it, whatever mailbox the bounce went through.
    let again = case.original.failed_recipients.iter().any(is)
        && case.marks.via.iter().any(|via| !is(&via.mailbox))
        && !case.marks.to.iter().any(is);
    let back = case.marks.forwarded.as_ref().is_some_and(|original| original.by.iter().any(is));
    (again || back).then_some(Proof {
        kind: LoopKind::ForwardedBounce,
        laps: 1,
        first: case.original.arrived,
        last: None,
        stopped: known.strong.map_or(0, |seen| seen.stopped),
    })
}

fn conversation(case: &Case, known: &LoopEvidence, limits: &LoopLimits) -> Option<Proof> {
    let talked = known.talked.as_ref()?;
    let limits = &limits.conversation;
    let laps = match is_response(case) {
        true => used_up(talked, limits)?,
        false => agents(talked, limits).filter(|_| limits.agents_found == AgentsFound::Hold)?,
    };
    Some(Proof {
        kind: LoopKind::Conversation,
        laps,
        first: talked.first,
        last: talked.last,
        stopped: talked.stopped,
    })
}

/// Both ends, as far as known: the recipient, and whoever sent it here.
fn ends(case: &Case, recipient: &ForwardPath, kind: LoopKind) -> Vec<String> {
    let to = recipient.address();
    let other = match kind {
        LoopKind::Conversation => case.responder.as_ref().or(case.marks.author.as_ref()),
        LoopKind::ForwardedBounce => {
            let failed = case.original.failed_recipients.iter();
            let via = case.marks.via.iter().map(|via| &via.mailbox);
            failed.chain(via).find(|end| to.is_none_or(|to| !end.same_mailbox(to)))
        }
        _ => {
            let via = case.marks.via.iter().map(|via| &via.mailbox);
            let mut ends = via.chain(&case.marks.taken_for);
            ends.find(|end| to.is_none_or(|to| !end.same_mailbox(to)))
        }
    };
    let other = other.map(ToString::to_string);
    std::iter::once(recipient.to_string()).chain(other).collect()
}
