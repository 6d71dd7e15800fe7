//! The conductor: a message walks one straight path, from top to bottom of `Guard::pass`.
//!
//! Read, gather, decide, hold or relay, record, remember, answer. A station never calls another;
//! it returns a value. Takes: an `Incoming` message. Gives: the replies for the client.

pub mod act;
pub mod answer;
pub mod clock;
pub mod count;
pub mod evidence;
pub mod hold;
pub mod ids;
pub mod inquiry;
pub mod limited;
pub mod loops;
pub mod outcome;
pub mod plan;
pub mod recall;
pub mod record;
pub mod replay;
pub mod reverify;
pub mod sealed;
pub mod stamp;
pub mod tap;
pub mod tapped;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use ulid::Ulid;

use crate::audit::Trail;
use crate::audit::quarantine::Quarantine;
use crate::guard::act::{Acted, Told};
use crate::guard::evidence::Gathered;
use crate::guard::ids::Ids;
use crate::guard::inquiry::Inquiry;
use crate::guard::limited::Decided;
use crate::guard::outcome::Outcome;
use crate::mail::envelope::Envelope;
use crate::mail::header::Completeness;
use crate::mail::message::Message;
use crate::mail::reply::Reply;
use crate::mail::time::Timestamp;
use crate::meter::Meter;
use crate::relay::Relay;
use crate::relay::transaction::Transaction;
use crate::store::answers::Reserved;
use crate::wire::endpoint::Protocol;
use crate::wire::smtp_client::Dots;

/// A message that a client hands in: what is known at DATA, its first bytes, and the rest.
pub struct Incoming<'a, R> {
    /// The event's id.
    pub event: Ulid,
    /// The session's id.
    pub session: Ulid,
    /// What the client speaks: LMTP wants a reply for each recipient.
    pub protocol: Protocol,
    /// Whether it said EHLO or LHLO.
    pub extended: bool,
    /// Envelope with the recipients accepted.
    pub envelope: Envelope,
    /// The first `inspect_max` bytes, or all.
    pub first: Bytes,
    /// Whether `first` is all of it.
    pub whole: bool,
    /// Whether its line ends are sound, as far as it was read.
    pub line_ends: LineEnds,
    /// Whether a line of `first` may begin with a dot, which must be stuffed.
    pub dots: Dots,
    /// The bytes that are still to come.
    pub rest: &'a mut R,
    /// The transaction with the next hop; `None` with the null reverse-path, which the next hop
    /// hears of after the decision only.
    pub next_hop: Option<Box<Transaction>>,
}

/// Whether another server could read the end of the message somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// All servers read it alike.
    Sound,
    /// There is a bare CR or LF, and the settings refuse those.
    Bare,
    /// A line of dots stands between bare line ends: it must not go to a next hop.
    Ambiguous,
}

impl LineEnds {
    /// What is wrong with them, for a reply.
    pub fn fault(self) -> &'static str {
        match self {
            LineEnds::Sound => "",
            LineEnds::Bare => "bare CR or LF in the message: not taken here",
            LineEnds::Ambiguous => "bare CR or LF beside a line of dots: could be read as the end",
        }
    }
}

/// The rest of a message that is still on its way in.
pub trait Rest: Send {
    /// The next bytes; `None` at the end of the message.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, RestFault>> + Send;

    /// Waits until nobody waits for the answer any more: the client has gone away, or the server
    /// stops. Gives how long it is still worth waiting for. To be called after the end only.
    fn gone(&mut self) -> impl Future<Output = Duration> + Send;
}

/// Why the rest of a message cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestFault {
    /// Its line ends are not sound. Said once of each fault; what follows can still be read.
    LineEnds(LineEnds),
    /// The client is gone: nobody is left to answer.
    Gone(String),
}

/// The guard.
pub struct Guard {
    inquiry: Arc<Inquiry>,
    relay: Relay,
    trail: Trail,
    quarantine: Quarantine,
    hostname: String,
    ids: Ids,
    meter: Meter,
}

impl Guard {
    /// A guard of these parts. `hostname` is our own name.
    pub fn new(
        inquiry: Arc<Inquiry>,
        relay: Relay,
        trail: Trail,
        quarantine: Quarantine,
        hostname: &str,
    ) -> Guard {
        let (hostname, ids, meter) = (hostname.to_owned(), Ids::default(), Meter::default());
        Guard { inquiry, relay, trail, quarantine, hostname, ids, meter }
    }

    /// The whole path of one message: the replies for the client, one, or with LMTP one for each
    /// recipient. None when the client is gone.
    pub async fn pass<R: Rest>(&self, incoming: Incoming<'_, R>) -> Vec<Reply> {
        let began = Instant::now();
        let in_force = self.inquiry.in_force();
        let (event, protocol) = (incoming.event, incoming.protocol);
        let (message, policy) = (incoming.message(), &in_force.policy);
        let mut case = self.inquiry.read(&incoming.envelope, &message, policy);
        // Why nothing is asked otherwise: whatever the answers, it does not go out.
        let mut gathered = match incoming.line_ends {
            LineEnds::Sound => {
                self.inquiry.recognise(&incoming.envelope, &mut case, policy).await;
                self.inquiry.gather(&incoming.envelope, &message, &case, policy).await
            }
            LineEnds::Bare | LineEnds::Ambiguous => Gathered::default(),
        };
        let rounds = std::mem::take(&mut gathered.rounds);
        let now = self.now();
        let Decided { decisions, reserved } =
            self.inquiry.decide(&incoming.envelope, &case, &mut gathered, policy, now);
        let campaign = self.inquiry.campaign(&incoming.envelope, &message, &case, &decisions);
        let evidence = &gathered.evidence;
        let told = Told { case: &case, evidence, in_force: &in_force, campaign, now };
        let mut acted = self.act(incoming, decisions, &told).await;
        let recorded = self.record(&mut acted, &told, began.elapsed()).await;
        remember(reserved, &acted, now);
        self.inquiry.note_answers(&case, &gathered.evidence, &acted.outcomes, now).await;
        self.count(&acted, &told, began.elapsed());
        loops::remember(rounds, &acted, &told, &self.meter);
        answer::replies(&acted.outcomes, recorded, protocol, event)
    }

    /// The next hops.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// The audit log.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The quarantine.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Stations 3 to 7, and the policy in force.
    pub fn inquiry(&self) -> &Arc<Inquiry> {
        &self.inquiry
    }

    /// What is counted.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What we call ourselves.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// A new id for an event or a session.
    pub fn new_id(&self) -> Ulid {
        self.ids.next(self.now())
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.inquiry.now()
    }
}

impl<R> Incoming<'_, R> {
    /// What was read of the message.
    fn message(&self) -> Message {
        let completeness = match self.whole {
            true => Completeness::Whole,
            false => Completeness::Truncated,
        };
        Message::new(self.first.clone(), completeness)
    }
}

/// Counts what went out, or would have while only observing; gives back what did not.
fn remember(reserved: Vec<(usize, Reserved)>, acted: &Acted, now: Timestamp) {
    for (index, reserved) in reserved {
        let went = acted.outcomes.get(index).is_some_and(Outcome::is_delivered);
        let counts = acted.decisions.get(index).is_some_and(|decision| decision.counts);
        if went && counts {
            reserved.confirm(now);
        }
    }
}
