//! Whether automatic responses of ours answer one another.
//!
//! Takes: a case, a recipient. Gives: `Talk`, the words under which it is counted; and, of the
//! counts, which limit is used up. What is counted is what went out (design.md §8.4).
//!
//! Two responders that answer one another write a new message each time: no trace and no
//! fingerprint knows it again. But they are the same two addresses, or an address of ours and ever
//! new ones of one domain; or the same thread, in which our responder answers what answered it.
//! Reports are not counted: one message to a thousand wrong addresses makes a thousand of them.
//! No counter over all our addresses holds anything: a stranger could push it.

use std::time::Duration;

use crate::judge::Case;
use crate::judge::classify::Class;
use crate::judge::original::{Key, NamedBy, Origin};
use crate::mail::address::ForwardPath;
use crate::mail::time::Timestamp;

/// So many in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many may go.
    pub count: u32,
    /// In which time.
    pub span: Duration,
}

/// How much two may talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationLimits {
    /// Responses from one address of ours to one address.
    pub pair: Rate,
    /// The same, over a longer time.
    pub pair_day: Rate,
    /// Responses from one address of ours in one thread, where they answer responses to us.
    pub thread: Rate,
    /// Responses from one address of ours to one domain.
    pub domain: Rate,
    /// Responses from all our addresses to one domain: more is an alarm, and holds nothing.
    pub crowd: Rate,
    /// Messages that look like a person's, from one address to another in one thread.
    pub agents: Rate,
    /// What is done about those.
    pub agents_found: AgentsFound,
}

/// What is done when two talk faster than persons can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentsFound {
    /// An alarm.
    #[default]
    Alarm,
    /// An alarm, and the message is held.
    Hold,
}

impl Default for ConversationLimits {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        let rate = |count, span| Rate { count, span };
        ConversationLimits {
            pair: rate(4, hour),
            pair_day: rate(12, 24 * hour),
            thread: rate(6, 24 * hour),
            domain: rate(60, hour),
            crowd: rate(600, hour),
            agents: rate(60, hour),
            agents_found: AgentsFound::Alarm,
        }
    }
}

impl ConversationLimits {
    /// The longest time that anything is counted in.
    pub fn longest(&self) -> Duration {
        self.all().iter().map(|rate| rate.span).max().unwrap_or_default()
    }

    fn all(&self) -> [Rate; 6] {
        [self.pair, self.pair_day, self.thread, self.domain, self.crowd, self.agents]
    }

    /// The most that anything is counted up to.
    pub fn most(&self) -> u32 {
        self.all().iter().map(|rate| rate.count).max().unwrap_or_default()
    }
}

/// Under which words a message to one recipient is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Whether it is automatic.
    pub kind: TalkKind,
    /// The address of ours that writes, canonical.
    pub own: String,
    /// To whom, canonical.
    pub other: String,
    /// His domain; the same as `other` when he has none.
    pub domain: String,
    /// The first message of the thread.
    pub thread: Option<String>,
    /// Messages that it answers, by their ids.
    pub answers: Vec<String>,
    /// Its own id.
    pub id: Option<String>,
}

/// Who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TalkKind {
    /// A responder of ours.
    Responder,
    /// Somebody who looks like a person.
    Person,
}

/// How much went out before this message, as the memory knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talked {
    /// From this address to that one, in the time of `pair`.
    pub pair: u32,
    /// The same, in the time of `pair_day`.
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
    pub first: Option<Timestamp>,
    /// When the last of them did.
    pub last: Option<Timestamp>,
    /// How many were held since.
    pub stopped: u32,
}

/// Under which words it is counted; `None` for what is no part of a conversation.
pub fn talk(case: &Case, recipient: &ForwardPath) -> Option<Talk> {
    let (kind, own) = match case.class {
        Class::AutoReply | Class::Challenge | Class::Mdn if case.origin == Some(Origin::Ours) => {
            (TalkKind::Responder, case.responder.as_ref()?)
        }
        Class::Personal => (TalkKind::Person, case.marks.author.as_ref()?),
        _ => return None,
    };
    let other = recipient.address()?;
    let answers = case.original.keys.iter().filter_map(|key| match key {
        Key::MessageId { id, named_by: NamedBy::InReplyTo | NamedBy::References } => {
            Some(id.clone())
        }
        _ => None,
    });
    // Why: who writes for the first time talks with nobody yet.
    let thread = case.marks.thread.clone();
    let is_first = kind == TalkKind::Person && thread == case.message_id;
    Some(Talk {
        kind,
        own: own.canonical(),
        other: other.canonical(),
        domain: other.domain().map_or_else(|| other.canonical(), ToString::to_string),
        thread: thread.filter(|_| !is_first),
        answers: answers.collect(),
        id: case.message_id.clone(),
    })
}

/// What is used up, and how much of it went; `None` while they may go on.
pub fn used_up(talked: &Talked, limits: &ConversationLimits) -> Option<u32> {
    let over = |sent: u32, rate: Rate| (sent >= rate.count).then_some(sent);
    over(talked.pair, limits.pair)
        .or_else(|| over(talked.pair_day, limits.pair_day))
        .or_else(|| over(talked.thread, limits.thread).filter(|_| talked.answers_ours))
        .or_else(|| over(talked.domain, limits.domain))
}

/// Whether two persons talk faster than persons can.
pub fn agents(talked: &Talked, limits: &ConversationLimits) -> Option<u32> {
    (talked.agents >= limits.agents.count).then_some(talked.agents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Talked = Talked {
        pair: 3,
        pair_day: 11,
        thread: 5,
        domain: 59,
        agents: 59,
        answers_ours: true,
        first: None,
        last: None,
        stopped: 0,
    };

    #[test]
    fn each_limit_ends_a_conversation_of_responders() {
        let limits = ConversationLimits::default();
        assert_eq!(used_up(&FREE, &limits), None);
        assert_eq!(used_up(&Talked { pair: 4, ..FREE }, &limits), Some(4));
        assert_eq!(used_up(&Talked { pair_day: 12, ..FREE }, &limits), Some(12));
        assert_eq!(used_up(&Talked { thread: 6, ..FREE }, &limits), Some(6));
        assert_eq!(used_up(&Talked { domain: 60, ..FREE }, &limits), Some(60));
    }

    /// A person on holiday is copied on a thread of fifty others: his responder answers each once.
    #[test]
    fn a_thread_of_persons_does_not_end_a_responder() {
        let limits = ConversationLimits::default();
        let busy = Talked { thread: 50, answers_ours: false, pair: 0, pair_day: 0, ..FREE };
        assert_eq!(used_up(&busy, &limits), None);
    }

    #[test]
    fn persons_are_only_counted_against_the_rate_of_agents() {
        let limits = ConversationLimits::default();
        assert_eq!(agents(&FREE, &limits), None);
        assert_eq!(agents(&Talked { agents: 60, ..FREE }, &limits), Some(60));
    }
}
