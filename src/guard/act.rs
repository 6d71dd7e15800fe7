//! Station 8: hand it to the next hop, or hold it.
//!
//! Takes: the message as it streams in, and the decisions. Gives: an `Outcome` for each recipient.
//! The order is the law (design of several recipients): held copies are staged and on disk, then
//! the next hop gets the final dot, then on its 250 the held copies are committed. What fails in
//! between leaves everything with the client. Laws 1 and 6.

use bytes::Bytes;
use tokio::time::timeout;
use ulid::Ulid;

use crate::audit::fault::Error;
use crate::audit::quarantine::{Sealed, Stage};
use crate::audit::record::Record;
use crate::audit::{Reservation, Treated};
use crate::guard::inquiry::InForce;
use crate::guard::outcome::{Outcome, Words};
use crate::guard::plan::{Plan, hold_for_line_ends, hold_for_refusal, refuse_for_line_ends};
use crate::guard::{Guard, Incoming, LineEnds, Rest, RestFault};
use crate::judge::Case;
use crate::judge::decide::is_young;
use crate::judge::decision::{Action, Decision, Reason};
use crate::judge::evidence::Evidence;
use crate::judge::fingerprint::Campaign;
use crate::judge::policy::Mode;
use crate::judge::trace::{Arrival, Trace, lines};
use crate::mail::address::ForwardPath;
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::limits::TRACE_LINES_BYTES_MAX;
use crate::mail::reply::Reply;
use crate::mail::time::Timestamp;
use crate::relay::RelayError;
use crate::relay::transaction::{Finished, Reached, Transaction};
use crate::wire::endpoint::Protocol;
use crate::wire::smtp_client::Dots;

/// What was found out before acting.
pub struct Told<'a> {
    /// What the message says of itself.
    pub case: &'a Case,
    /// What is known beside it.
    pub evidence: &'a Evidence,
    /// The policy that decided.
    pub in_force: &'a InForce,
    /// The run that a response belongs to which answers forged mail.
    pub campaign: Option<Campaign>,
    /// When it was decided.
    pub now: Timestamp,
}

/// What was done.
pub struct Acted {
    /// The event.
    pub event: Ulid,
    /// The session.
    pub session: Ulid,
    /// What the client speaks.
    pub protocol: Protocol,
    /// The envelope.
    pub envelope: Envelope,
    /// The decisions as they were carried out. Changed by `decision_mut` alone once there are drafts.
    pub decisions: Vec<Decision>,
    /// The records of these decisions, still without how it ended; empty when none were made yet, or
    /// a decision changed since.
    pub drafts: Vec<Record>,
    /// What came of each.
    pub outcomes: Vec<Outcome>,
    /// Bytes of the message, as far as it was read.
    pub size_bytes: u64,
    /// The next hop that was spoken to.
    pub next_hop: Option<Reached>,
    /// Room in the audit log; `None` when there was none to be had.
    pub reservation: Option<Reservation>,
}

impl Acted {
    /// A decision that is carried out otherwise than it was made.
    pub fn decision_mut(&mut self, index: usize) -> Option<&mut Decision> {
        self.drafts.clear();
        self.decisions.get_mut(index)
    }
}

/// Why the job ends early; the outcome that stands for everybody without one.
pub(in crate::guard) type Stop = Outcome;

/// What the next hop has of a message before its final dot.
enum Streamed {
    /// All; beside it what is held for others.
    Whole(Option<Box<Sealed>>),
    /// The beginning of one whose line ends are not sound: what is held of it for those for whom it
    /// is held anyway, and for those who were to get it.
    Ambiguous(Box<(Option<Stage>, Option<Stage>)>),
}

/// One message's station 8.
pub(in crate::guard) struct Job<'a> {
    pub(in crate::guard) guard: &'a Guard,
    pub(in crate::guard) told: &'a Told<'a>,
    extended: bool,
    pub(in crate::guard) line_ends: LineEnds,
    pub(in crate::guard) acted: Acted,
    /// Outcomes as they become known.
    known: Vec<Option<Outcome>>,
}

impl Guard {
    /// Carries the decisions out.
    pub async fn act<R: Rest>(
        &self,
        incoming: Incoming<'_, R>,
        decisions: Vec<Decision>,
        told: &Told<'_>,
    ) -> Acted {
        let Incoming { event, session, protocol, extended, envelope, first, .. } = incoming;
        let size_bytes = first.len() as u64;
        let known = vec![None; decisions.len()];
        let acted = Acted {
            event,
            session,
            protocol,
            envelope,
            decisions,
            drafts: Vec::new(),
            outcomes: Vec::new(),
            size_bytes,
            next_hop: None,
            reservation: None,
        };
        let line_ends = incoming.line_ends;
        let mut job = Job { guard: self, told, extended, line_ends, acted, known };
        if line_ends != LineEnds::Sound {
            job.line_ends_are_unsound();
        }
        let Incoming { whole, dots, rest, next_hop, .. } = incoming;
        let content = Coming { first, whole, dots, rest };
        let others = job.run(content, next_hop).await.err();
        let rest = others.unwrap_or_else(|| Outcome::later("4.3.0", "not carried out"));
        let known = std::mem::take(&mut job.known);
        let outcomes = known.into_iter().map(|known| known.unwrap_or_else(|| rest.clone()));
        job.acted.outcomes = outcomes.collect();
        job.acted
    }
}

/// The message: what was read, and what is still to come.
pub(in crate::guard) struct Coming<'r, R> {
    pub(in crate::guard) first: Bytes,
    pub(in crate::guard) whole: bool,
    pub(in crate::guard) dots: Dots,
    pub(in crate::guard) rest: &'r mut R,
}

impl Job<'_> {
    /// Everything in its order. An error is the outcome of all recipients that have none yet.
    ///
    /// Why what has to do with the disk is boxed, here and below: its futures are large, and every
    /// message would move them about, though most touch no disk.
    async fn run<R: Rest>(
        &mut self,
        mut content: Coming<'_, R>,
        next_hop: Option<Box<Transaction>>,
    ) -> Result<(), Stop> {
        let mut plan = Plan::new(&mut self.acted.decisions, self.acted.protocol);
        self.settle_without_content(&plan);
        if plan.deliver.is_empty() {
            next_hop.into_iter().for_each(|transaction| transaction.leave());
            self.reserve().await?;
            return Box::pin(self.suppress(&plan, &mut content)).await;
        }
        if let Err(stop) = self.reserve().await {
            next_hop.into_iter().for_each(|transaction| transaction.leave());
            return Err(stop);
        }
        let transaction = self.transaction(next_hop, &mut plan).await?;
        let Some(mut transaction) = transaction else {
            return Box::pin(self.suppress(&plan, &mut content)).await;
        };
        self.acted.next_hop = Some(transaction.reached());
        match transaction.data().await {
            Ok(None) => self.relay(&plan, &mut content, transaction).await,
            Ok(Some(refusal)) => {
                transaction.leave();
                self.refused(&mut plan, refusal)?;
                Box::pin(self.suppress(&plan, &mut content)).await
            }
            Err(fault) => Err(lost(&fault)),
        }
    }

    pub(in crate::guard) fn line_ends_are_unsound(&mut self) {
        let null = self.acted.envelope.reverse_path().is_null();
        let change = if null { hold_for_line_ends } else { refuse_for_line_ends };
        for index in 0..self.acted.decisions.len() {
            if let Some(decision) = self.acted.decision_mut(index) {
                change(decision, self.line_ends);
            }
        }
    }

    pub(in crate::guard) fn refused_for_line_ends(&self) -> Outcome {
        Outcome::Refused(Words::Ours(550, "5.6.0", self.line_ends.fault().to_owned()))
    }

    /// Outcomes that need nothing of the message: deferred, rejected.
    fn settle_without_content(&mut self, plan: &Plan) {
        for index in &plan.defer {
            let decision = self.acted.decisions.get(*index);
            let outcome = match decision.map(|decision| decision.reason) {
                Some(Reason::Unresolved) if decision.is_some_and(Decision::waits_for_tap) => {
                    Outcome::later("4.3.0", "the message that this answers is still being verified")
                }
                Some(Reason::Unresolved) => {
                    Outcome::later("4.4.3", "DNS of the recipient's domain gives no answer yet")
                }
                Some(Reason::Misrouting) => {
                    // RFC 3463 §3.5: a routing loop.
                    Outcome::later("4.4.6", "our next hop sends our own mail back: see the log")
                }
                _ => Outcome::later("4.7.1", "deferred"),
            };
            self.know(*index, outcome);
        }
        for index in &plan.reject {
            let reason = self.acted.decisions.get(*index).map(|decision| decision.reason);
            let outcome = match reason {
                Some(Reason::BareLineEnd) => self.refused_for_line_ends(),
                reason => {
                    let reason = reason.map(|reason| reason.as_str()).unwrap_or_default();
                    Outcome::Refused(Words::Ours(550, "5.7.1", format!("not sent: {reason}")))
                }
            };
            self.know(*index, outcome);
        }
    }

    /// Room for the records of this message, before anybody hears of it.
    async fn reserve(&mut self) -> Result<(), Stop> {
        self.acted.drafts = self.guard.records(&self.acted, self.told);
        let drafts = &mut self.acted.drafts;
        if let Err(fault) = drafts.iter_mut().try_for_each(Record::begin) {
            return Err(self.no_room(&fault));
        }
        // Why: whoever only observes must not be the reason why a response waits.
        let delivers = |decision: &Decision| decision.action == Action::Deliver;
        let observes = self.told.in_force.policy.mode == Mode::Observe;
        let treated = match observes && self.acted.decisions.iter().all(delivers) {
            true => Treated::AsPersonal,
            false => Treated::ByClass,
        };
        match self.guard.trail().reserve_as(&self.acted.drafts, treated).await {
            Ok(reservation) => {
                self.acted.reservation = Some(reservation);
                Ok(())
            }
            Err(fault) => Err(self.no_room(&fault)),
        }
    }

    fn no_room(&self, fault: &Error) -> Stop {
        tracing::warn!(event = %self.acted.event, %fault, "no room in the audit log");
        Outcome::later("4.3.0", "the audit log cannot be written")
    }

    /// The transaction with the next hop for those who get it, ready for DATA. `None`: nobody is
    /// left who gets it, and the plan says what becomes of them.
    async fn transaction(
        &mut self,
        open: Option<Box<Transaction>>,
        plan: &mut Plan,
    ) -> Result<Option<Box<Transaction>>, Stop> {
        let wanted: Vec<Recipient> = self.recipients(&plan.deliver);
        let Some(mut open) = open else { return Box::pin(self.begin(&wanted, plan)).await };
        if plan.deliver.len() == self.acted.envelope.recipients.len() {
            return Ok(Some(open));
        }
        let wanted: Vec<&Recipient> = wanted.iter().collect();
        let replies = Box::pin(open.narrow(&wanted)).await.map_err(|fault| lost(&fault))?;
        self.taken(open, replies, plan)
    }

    /// With the null reverse-path the next hop hears of the message only now.
    async fn begin(
        &mut self,
        wanted: &[Recipient],
        plan: &mut Plan,
    ) -> Result<Option<Box<Transaction>>, Stop> {
        let needs: Vec<_> = wanted.iter().map(|recipient| recipient.parameters.clone()).collect();
        let (mail, client) = (&self.acted.envelope.mail, &self.acted.envelope.client);
        let relay = self.guard.relay();
        let begun = relay.begin(mail, &needs, client, TRACE_LINES_BYTES_MAX as u64).await;
        let mut transaction = begun.map_err(|fault| lost(&fault))?;
        wanted.iter().for_each(|recipient| transaction.rcpt(recipient));
        let replies = transaction.settle_with_data().await.map_err(|fault| lost(&fault))?;
        self.taken(transaction, replies, plan)
    }

    /// What the next hop's replies to MAIL and each RCPT make of the plan. `None`: nobody is left
    /// who gets it.
    fn taken(
        &mut self,
        transaction: Box<Transaction>,
        replies: Vec<Reply>,
        plan: &mut Plan,
    ) -> Result<Option<Box<Transaction>>, Stop> {
        self.acted.next_hop = Some(transaction.reached());
        let mut replies = replies.into_iter();
        if let Some(refusal) = replies.next().filter(|mail| !mail.is_positive()) {
            transaction.leave();
            return self.refused(plan, refusal).map(|()| None);
        }
        let answered: Vec<(usize, Reply)> = plan.deliver.iter().copied().zip(replies).collect();
        let (accepted, refused): (Vec<_>, Vec<_>) =
            answered.into_iter().partition(|(_, reply)| reply.is_positive());
        plan.deliver = accepted.iter().map(|(index, _)| *index).collect();
        let kept = self.some_refused(plan, refused);
        if kept.is_ok() && !plan.deliver.is_empty() {
            return Ok(Some(transaction));
        }
        transaction.leave();
        kept.map(|()| None)
    }

    /// The next hop refused some recipients, of which it had heard before only if there is a
    /// reverse-path.
    fn some_refused(&mut self, plan: &mut Plan, refused: Vec<(usize, Reply)>) -> Result<(), Stop> {
        let lmtp = self.acted.protocol == Protocol::Lmtp;
        let alone = plan.deliver.is_empty() && plan.hold.is_empty() && plan.discard.is_empty();
        if lmtp || alone {
            for (index, reply) in refused {
                self.know(index, Outcome::refusal(reply));
            }
            return Ok(());
        }
        let null = self.acted.envelope.reverse_path().is_null();
        let waits = |reply: &Reply| !null || may_wait(reply, self.told);
        if let Some((_, later)) = refused.iter().find(|(_, reply)| waits(reply)) {
            return Err(self.refused_for_all(plan, later.clone()));
        }
        for (index, reply) in refused {
            if let Some(decision) = self.acted.decision_mut(index) {
                hold_for_refusal(decision, &format!("{} {}", reply.code(), reply.text()));
            }
            plan.hold.push(index);
        }
        Ok(())
    }

    /// Gives the message to the next hop, and holds the copies that are to be held.
    async fn relay<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
        mut transaction: Box<Transaction>,
    ) -> Result<(), Stop> {
        match self.stream(plan, content, &mut transaction).await? {
            Streamed::Whole(sealed) => self.finish(plan, content, transaction, sealed).await,
            Streamed::Ambiguous(stages) => {
                let (held, fallback) = *stages;
                // Dropped without a final dot: the next hop forgets the message.
                drop(transaction);
                Box::pin(self.ambiguous_below(plan, content, held, fallback)).await
            }
        }
    }

    /// Streams the message to the next hop, and to the disk what is held of it.
    async fn stream<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
        transaction: &mut Transaction,
    ) -> Result<Streamed, Stop> {
        let mut held = match plan.hold.is_empty() {
            true => None,
            false => {
                let stage = Box::pin(self.stage(1, &plan.hold)).await;
                Some(stage.map_err(|fault| self.not_held(&fault))?)
            }
        };
        // Why: ambiguous line ends may stand far below; with the null reverse-path such a message
        // is held, and its beginning must not be gone by then.
        let null = self.acted.envelope.reverse_path().is_null();
        let mut fallback = match null && !content.whole {
            true => Box::pin(self.fallback(&plan.deliver)).await.ok(),
            false => None,
        };
        let ours = self.our_lines(&plan.deliver);
        transaction.send(&ours, Dots::Absent).await.map_err(|fault| lost(&fault))?;
        let (mut piece, mut dots) = (Some(content.first.clone()), content.dots);
        while let Some(bytes) = piece {
            transaction.send(&bytes, dots).await.map_err(|fault| lost(&fault))?;
            dots = Dots::Possible;
            if held.is_some() {
                held = Box::pin(self.write(held, &bytes)).await?;
            }
            if fallback.is_some() {
                // Why an error may pass: few messages need it, and one that does is deferred.
                fallback = Box::pin(self.write(fallback, &bytes)).await.unwrap_or_default();
            }
            if content.whole {
                break;
            }
            piece = match content.rest.next().await {
                Ok(piece) => piece,
                Err(RestFault::Gone(_)) => return Err(Outcome::Unanswered),
                Err(RestFault::LineEnds(line_ends)) => {
                    self.line_ends = line_ends;
                    return Ok(Streamed::Ambiguous(Box::new((held, fallback))));
                }
            };
            self.acted.size_bytes += piece.as_ref().map_or(0, Bytes::len) as u64;
        }
        let sealed = match held {
            Some(stage) => {
                let sealed = Box::pin(stage.seal()).await;
                Some(Box::new(sealed.map_err(|fault| self.not_held(&fault))?))
            }
            None => None,
        };
        Ok(Streamed::Whole(sealed))
    }

    /// The final dot, the next hop's answer, and what follows from it.
    async fn finish<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
        transaction: Box<Transaction>,
        sealed: Option<Box<Sealed>>,
    ) -> Result<(), Stop> {
        let finishing = transaction.finish();
        tokio::pin!(finishing);
        let finished = tokio::select! {
            finished = &mut finishing => finished,
            // Why: a client that left cannot be answered, but the record can still be true.
            patience = content.rest.gone() => match timeout(patience, finishing).await {
                Ok(finished) => finished,
                Err(_) => return Err(Outcome::later("4.4.2", "no answer to the final dot")),
            },
        };
        let Finished { replies, fault } = finished;
        if self.acted.protocol == Protocol::Smtp {
            if let Some(fault) = fault {
                return Err(lost(&fault));
            }
            if let Some(refusal) = replies.first().filter(|reply| !reply.is_positive()) {
                return Err(self.refused_for_all(plan, refusal.clone()));
            }
        }
        if let Some(sealed) = sealed {
            let id = sealed.id();
            // Law 1. Why no 451 on an error: the others have it, and this copy stays on disk under
            // its pending names; it is held at the next try, or at the next start.
            if let Err(fault) = Box::pin(sealed.commit()).await {
                self.keeps_pending_names(&plan.hold, &fault);
            }
            self.know_held(&plan.hold, id);
        }
        self.know_discarded(&plan.discard);
        let outcome = |reply: &Reply| match reply.is_positive() {
            true => Outcome::Relayed(reply.clone()),
            false => Outcome::refusal(reply.clone()),
        };
        // One reply for all with SMTP, one for each with LMTP, where some may be missing.
        let rest = fault.map(|fault| lost(&fault)).or(replies.last().map(outcome));
        for (position, index) in plan.deliver.iter().enumerate() {
            if let Some(known) = replies.get(position).map(outcome).or(rest.clone()) {
                self.know(*index, known);
            }
        }
        Ok(())
    }

    /// Our two lines on top of the message.
    fn our_lines(&self, deliver: &[usize]) -> Vec<u8> {
        let recipients: Vec<ForwardPath> =
            self.recipients(deliver).into_iter().map(|recipient| recipient.path).collect();
        let mut fill = [0; 256];
        if recipients.len() > 1 {
            // Why an error may pass: then the padding shows how many recipients there are.
            let _ = getrandom::fill(&mut fill);
        }
        let envelope = &self.acted.envelope;
        let utf8 = envelope.mail.parameters.has("SMTPUTF8");
        let with = with(self.acted.protocol, self.extended, utf8, envelope.client.tls.is_some());
        let event = self.acted.event.to_string();
        let inquiry = self.guard.inquiry();
        let lap = u32::try_from(self.told.case.laps.len()).unwrap_or(u32::MAX);
        let site = inquiry.site_of(envelope);
        let trace = Trace { site: &site, event: &event, lap, recipients: &recipients };
        let arrival = Arrival {
            helo: &envelope.client.helo,
            ip: envelope.client.ip,
            with,
            tls: envelope.client.tls.as_ref(),
            hostname: &self.guard.hostname,
            at: self.told.now,
        };
        lines(&inquiry.trace_key, &trace, &arrival, &fill)
    }

    pub(in crate::guard) fn of(&self, indices: &[usize]) -> Vec<(&Recipient, &Decision)> {
        let both = |index: &usize| {
            Some((self.acted.envelope.recipients.get(*index)?, self.acted.decisions.get(*index)?))
        };
        indices.iter().filter_map(both).collect()
    }

    fn recipients(&self, indices: &[usize]) -> Vec<Recipient> {
        self.of(indices).into_iter().map(|(recipient, _)| recipient.clone()).collect()
    }

    pub(in crate::guard) fn know(&mut self, index: usize, outcome: Outcome) {
        if let Some(known) = self.known.get_mut(index) {
            *known = Some(outcome);
        }
    }

    /// The next hop refused everybody who was to get it. With LMTP that is said to them alone, and
    /// what is to be held for others is held.
    fn refused(&mut self, plan: &mut Plan, refusal: Reply) -> Result<(), Stop> {
        if self.acted.protocol == Protocol::Smtp {
            return Err(self.refused_for_all(plan, refusal));
        }
        for index in std::mem::take(&mut plan.deliver) {
            self.know(index, Outcome::refusal(refusal.clone()));
        }
        Ok(())
    }

    /// The one reply of SMTP when the next hop refuses. If some copies were to be held, the client
    /// must come again for all: a 5xx would make it bounce those too.
    fn refused_for_all(&self, plan: &Plan, refusal: Reply) -> Stop {
        let alone = plan.hold.is_empty() && plan.discard.is_empty();
        match refusal.code() >= 500 && !alone {
            true => Outcome::later(
                "4.3.0",
                format!("the next hop refuses one recipient's copy: {}", refusal.text()),
            ),
            false => Outcome::refusal(refusal),
        }
    }
}

/// Whether all recipients of a message may wait until the next hop takes this one too.
///
/// Why not for ever: a mailbox that is over quota for days would keep everybody else's copies out
/// until the client gives up. And what has too many recipients has them at every try.
fn may_wait(refusal: &Reply, told: &Told<'_>) -> bool {
    match refusal.code() {
        421 => true,
        // RFC 5321 §4.5.3.1.10: too many recipients.
        452 if refusal.enhanced().as_deref() == Some("4.5.3") => false,
        code => code < 500 && is_young(told.case.date, told.now),
    }
}

/// What our `Received` line says it came with. RFC 3848 has no word for SMTP over TLS without EHLO.
fn with(protocol: Protocol, extended: bool, utf8: bool, tls: bool) -> &'static str {
    match (protocol, utf8, tls) {
        (Protocol::Lmtp, false, false) => "LMTP",
        (Protocol::Lmtp, false, true) => "LMTPS",
        (Protocol::Lmtp, true, false) => "UTF8LMTP",
        (Protocol::Lmtp, true, true) => "UTF8LMTPS",
        (Protocol::Smtp, true, false) => "UTF8SMTP",
        (Protocol::Smtp, true, true) => "UTF8SMTPS",
        (Protocol::Smtp, false, false) if extended => "ESMTP",
        (Protocol::Smtp, false, true) if extended => "ESMTPS",
        (Protocol::Smtp, false, _) => "SMTP",
    }
}

fn lost(fault: &RelayError) -> Stop {
    Outcome::later("4.4.1", fault.to_string())
}
