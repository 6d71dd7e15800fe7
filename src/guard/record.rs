//! Station 9: one record for each recipient, durable before an irrevocable act is answered.

use std::time::Duration;

use crate::audit::Durability;
use crate::audit::fault::Error;
use crate::audit::record::{Ended, Ending, Handled, Record};
use crate::guard::Guard;
use crate::guard::act::{Acted, Told};
use crate::guard::answer;
use crate::guard::outcome::Outcome;
use crate::judge::classify::Guarded;
use crate::mail::reply::Reply;
use crate::wire::endpoint::Protocol;

impl Guard {
    /// The records of a message, still without how it ended.
    pub fn records(&self, acted: &Acted, told: &Told<'_>) -> Vec<Record> {
        let case = told.case;
        let response = case.class.guarded() != Guarded::No;
        let looping = acted.decisions.iter().any(|it| it.loop_finding.is_some());
        let fingerprint = case.fingerprint.to_string();
        let responder: Vec<_> = case.responder.iter().cloned().collect();
        let handled = Handled {
            time: told.now,
            event: acted.event,
            instance: &self.hostname,
            session: &acted.session.to_string(),
            build: env!("CARGO_PKG_VERSION"),
            policy: &told.in_force.hash,
            envelope: &acted.envelope,
            message_id: case.message_id.as_deref(),
            size_bytes: acted.size_bytes,
            class: case.class,
            signals: &case.signals,
            fingerprint: Some(&fingerprint),
            hops: Some(case.hops),
            dated: case.date,
            responder: &responder,
            origin: case.origin,
            original: response.then_some(&case.original),
            evidence: (response || looping).then_some(told.evidence),
        };
        handled.records(&acted.decisions)
    }

    /// Writes the records. An error means that an irrevocable act must not be answered with 250.
    pub async fn record(
        &self,
        acted: &mut Acted,
        told: &Told<'_>,
        took: Duration,
    ) -> Result<(), Error> {
        // Why: a client that left in the middle has its message still; nothing was accepted.
        if acted.outcomes.iter().all(|outcome| *outcome == Outcome::Unanswered) {
            return Ok(());
        }
        let Some(reservation) = acted.reservation.take() else {
            return self.unreserved(acted, told, took).await;
        };
        let records = self.ended(acted, told, took);
        let durability = durability(&acted.outcomes);
        let written = self.trail().append_reserved(reservation, &records, durability).await;
        self.complain(acted, written)
    }

    /// There was no room: everything was deferred, and the record of that is best effort.
    async fn unreserved(
        &self,
        acted: &mut Acted,
        told: &Told<'_>,
        took: Duration,
    ) -> Result<(), Error> {
        let records = self.ended(acted, told, took);
        let written = self.trail().append(&records, durability(&acted.outcomes)).await;
        self.complain(acted, written)
    }

    fn complain(&self, acted: &Acted, written: Result<(), Error>) -> Result<(), Error> {
        written.inspect_err(|fault| {
            tracing::error!(event = %acted.event, %fault, "a record could not be written");
        })
    }

    fn ended(&self, acted: &mut Acted, told: &Told<'_>, took: Duration) -> Vec<Record> {
        let all = answer::replies(&acted.outcomes, Ok(()), acted.protocol, acted.event);
        let records = match std::mem::take(&mut acted.drafts) {
            none if none.is_empty() => self.records(acted, told),
            drafts => drafts,
        };
        let records = records.into_iter().zip(&acted.outcomes);
        let ended = records.enumerate().map(|(index, (record, outcome))| {
            let reply: Option<&Reply> = match acted.protocol {
                Protocol::Smtp => all.first(),
                Protocol::Lmtp => all.get(index),
            };
            let held = match outcome {
                Outcome::Held { id, .. } => Some(*id),
                _ => None,
            };
            let reached = acted.next_hop.as_ref();
            record.ended(&Ending {
                outcome: Some(ended(outcome)),
                reply,
                next_hop: reached.map(|reached| reached.hop.as_str()),
                next_hop_tls: reached.and_then(|reached| reached.tls.as_deref()),
                held,
                size_bytes: acted.size_bytes,
                took,
            })
        });
        ended.collect()
    }
}

fn ended(outcome: &Outcome) -> Ended {
    match outcome {
        Outcome::Relayed(_) => Ended::Relayed,
        Outcome::Held { .. } => Ended::Held,
        Outcome::Discarded { .. } => Ended::Discarded,
        Outcome::Deferred(_) => Ended::Deferred,
        Outcome::Refused(_) => Ended::Refused,
        Outcome::Unanswered => Ended::Unanswered,
    }
}

fn durability(outcomes: &[Outcome]) -> Durability {
    let irrevocable =
        |outcome: &Outcome| matches!(outcome, Outcome::Held { .. } | Outcome::Discarded { .. });
    match outcomes.iter().any(irrevocable) {
        true => Durability::Synced,
        false => Durability::Written,
    }
}
