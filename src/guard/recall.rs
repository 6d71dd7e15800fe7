//! Station 4, the part that asks the memory: which inbound message does a response answer?
//!
//! Takes: the response and its case. Gives: `Known` for each recipient. One round trip a message,
//! a second one where an inside host gave a message back. A failure becomes a `Gap`; a record that
//! is still pending is waited for.
//! Bounds: `limits_of_memory::RECALL_DEADLINE` a round trip, `limits_of_memory::PENDING_WAIT_MAX`
//! in all.

use tokio::time::{Instant, sleep, timeout};

use crate::guard::inquiry::Inquiry;
use crate::guard::outcome::Outcome;
use crate::judge::Case;
use crate::judge::classify::{Class, Guarded, Signal};
use crate::judge::correlation::{Answered, Question, Recalled, Standing};
use crate::judge::evidence::{Evidence, Gap, GapCause};
use crate::judge::original::Origin;
use crate::judge::policy::Policy;
use crate::judge::rewritten::foreign_original;
use crate::judge::subject::{Inbound, LookUp, Way};
use crate::mail::address::{Address, Domain};
use crate::mail::envelope::Envelope;
use crate::mail::limits_of_memory::{
    LOOK_UPS_MESSAGE_MAX, PENDING_ASKED_EVERY, PENDING_WAIT_MAX, RECALL_DEADLINE,
};
use crate::mail::time::Timestamp;
use crate::store::Request;

/// What the memory knows for one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The recorded message; `None` when none was found or none was looked for.
    pub answered: Option<Answered>,
    /// Why there is none.
    pub gaps: Vec<Gap>,
}

impl Inquiry {
    /// Looks whether a tap saw this very response come in from outside: then it is relayed,
    /// whatever is left of its header.
    ///
    /// Why not one with an author of ours: whoever guesses the Message-ID of our next answer could
    /// send a message of that name in before, and have the answer pass unjudged.
    pub async fn recognise(&self, envelope: &Envelope, case: &mut Case, policy: &Policy) {
        let is_ours =
            case.class.guarded() == Guarded::Response && case.origin == Some(Origin::Ours);
        let site = &policy.site;
        let is_inside = |author: &Address| {
            let host = author.domain().map(Domain::as_str).unwrap_or_default();
            site.is_local(author) || site.is_own_host(host)
        };
        let author = case.responder.clone().filter(|author| !is_inside(author));
        let (Some(author), Some(id)) = (author, case.message_id.clone()) else { return };
        if !is_ours || !self.is_tapped {
            return;
        }
        let look_ups = vec![LookUp::MessageId(id.clone())];
        // Why no gap: it is judged as ours then, and the memory is asked for more, and says so.
        let Ok(recalled) = self.ask_store(look_ups, case, self.now()).await else { return };
        let is_it = |record: &Inbound| {
            matches!(record.way, Way::Outside | Way::BehindRelay(_))
                && record.from.iter().any(|from| from.same_mailbox(&author))
                && record.mail_from.same_path(envelope.reverse_path())
        };
        if let Some(found) = recalled.iter().find(|found| is_it(&found.record)) {
            let record = &found.record;
            let shown = format!("<{id}> at {}, {}", record.host, record.arrived);
            case.origin = Some(Origin::Relayed);
            case.signals.push(Signal::new("seen-by-tap", &shown, ""));
        }
    }

    /// What the memory knows, in envelope order.
    pub async fn recall(&self, envelope: &Envelope, case: &Case, policy: &Policy) -> Vec<Known> {
        let mut known = vec![Known::default(); envelope.recipients.len()];
        let is_judged =
            case.class.guarded() == Guarded::Response && case.origin != Some(Origin::Relayed);
        if !is_judged {
            return known;
        }
        let recipients = judged(envelope, policy);
        let until = Instant::now() + PENDING_WAIT_MAX;
        loop {
            let found = self.answered(case, &recipients, policy).await;
            let pending = |found: &Found| found.as_ref().is_ok_and(Answered::is_pending);
            if found.iter().any(pending) && Instant::now() < until {
                sleep(PENDING_ASKED_EVERY).await;
                continue;
            }
            for ((index, _), found) in recipients.iter().zip(found) {
                if let Some(known) = known.get_mut(*index) {
                    *known = self.known(found);
                }
            }
            return known;
        }
    }

    /// Notes who was answered: the next response of the same responder answers another message.
    ///
    /// Why only replies: a report names what it is about, and there may be several about one.
    pub async fn note_answers(
        &self,
        case: &Case,
        evidence: &Evidence,
        outcomes: &[Outcome],
        now: Timestamp,
    ) {
        let is_reply = matches!(case.class, Class::AutoReply | Class::Challenge | Class::Mdn);
        let Some(responder) = case.responder.as_ref().filter(|_| is_reply) else { return };
        for (known, outcome) in evidence.recipients.iter().zip(outcomes) {
            let Some(answered) = known.answered.as_ref().filter(|_| outcome.is_delivered()) else {
                continue;
            };
            let nearest = answered.subjects.first().and_then(|subject| subject.id);
            let Some(id) = nearest.filter(|_| answered.recipient == Standing::ReplyTarget) else {
                continue;
            };
            let noting = self.store.answered(id, responder, now);
            match timeout(RECALL_DEADLINE, noting).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => tracing::warn!(%fault, "an answer could not be noted"),
                Err(_elapsed) => tracing::warn!("an answer could not be noted in time"),
            }
        }
    }

    fn known(&self, found: Found) -> Known {
        match found {
            Ok(answered) => Known { answered: Some(answered), gaps: Vec::new() },
            // Why none: the evidence says that no tap is set up, which is why.
            Err(gap) if !self.is_tapped && gap.cause != GapCause::Store => Known::default(),
            Err(gap) => Known { answered: None, gaps: vec![gap] },
        }
    }

    /// For each of these recipients the recorded message, or why there is none.
    async fn answered(
        &self,
        case: &Case,
        recipients: &[(usize, Address)],
        policy: &Policy,
    ) -> Vec<Found> {
        let (site, now) = (&policy.site, self.now());
        let questions: Vec<Question<'_>> = recipients
            .iter()
            .map(|(_, recipient)| Question { case, recipient, site, now })
            .collect();
        let look_ups = questions.iter().flat_map(Question::look_ups).collect();
        let mut recalled = match self.ask_store(look_ups, case, now).await {
            Ok(recalled) => recalled,
            Err(gap) => return vec![Err(gap); questions.len()],
        };
        let parents = questions.first().map(|question| question.look_ups_of_parents(&recalled));
        let parents = parents.filter(|parents| !parents.is_empty());
        if let Some(parents) = parents {
            match self.ask_store(parents, case, now).await {
                Ok(more) => {
                    let known: Vec<_> = recalled.iter().map(|found| found.record.id).collect();
                    let new = more.into_iter().filter(|found| !known.contains(&found.record.id));
                    recalled.extend(new);
                }
                Err(gap) => return vec![Err(gap); questions.len()],
            }
        }
        questions.iter().map(|question| question.answered(&recalled)).collect()
    }

    /// One round trip to the store; a failure is a gap.
    pub(in crate::guard) async fn ask_store(
        &self,
        mut look_ups: Vec<LookUp>,
        case: &Case,
        now: Timestamp,
    ) -> Result<Vec<Recalled>, Gap> {
        let mut seen = std::collections::HashSet::new();
        look_ups.retain(|look_up| seen.insert(look_up.clone()));
        look_ups.truncate(LOOK_UPS_MESSAGE_MAX);
        if look_ups.is_empty() {
            return Ok(Vec::new());
        }
        let request = Request { look_ups, responder: case.responder.clone(), now };
        match timeout(RECALL_DEADLINE, self.store.recall(&request)).await {
            Ok(Ok(recalled)) => Ok(recalled),
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "the memory failed");
                Err(Gap::new(GapCause::Store, &fault.to_string()))
            }
            Err(_elapsed) => Err(Gap::new(GapCause::Store, "it did not answer in time")),
        }
    }
}

type Found = Result<Answered, Gap>;

/// The recipients who are judged, by their place, as the addresses they are judged as.
pub(in crate::guard) fn judged(envelope: &Envelope, policy: &Policy) -> Vec<(usize, Address)> {
    let site = &policy.site;
    let recipients = envelope.recipients.iter().enumerate().filter_map(|(index, recipient)| {
        let address = recipient.path.address()?;
        let original = foreign_original(address, site);
        let own = || (!site.is_local(address)).then(|| address.clone());
        Some((index, original.or_else(own)?))
    });
    recipients.collect()
}
