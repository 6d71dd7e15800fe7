//! Station 8, the part that keeps: stages, held messages, campaigns.
//!
//! Takes: the message as it streams in. Gives: what the quarantine made of it. Law 1: what is held
//! is on disk before anybody is told 250.

use bytes::Bytes;

use crate::audit::fault::Error;
use crate::audit::held::{CampaignKey, HeldId, Holding};
use crate::audit::quarantine::Stage;
use crate::guard::act::{Coming, Job, Stop};
use crate::guard::outcome::Outcome;
use crate::guard::plan::{Plan, hold_for_line_ends};
use crate::guard::{LineEnds, Rest, RestFault};
use crate::judge::decision::{Action, Decision};
use crate::mail::envelope::Recipient;

impl Job<'_> {
    /// Nobody gets it: what is to be held is held, the rest is forgotten.
    pub(in crate::guard) async fn suppress<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
    ) -> Result<(), Stop> {
        if !plan.hold.is_empty() {
            let held = match content.whole {
                true => self.hold_whole(plan, content.first.clone()).await,
                false => self.hold_streaming(plan, content).await?,
            };
            let id = held.map_err(|fault| self.not_held(&fault))?;
            self.know_held(&plan.hold, id);
        }
        self.know_discarded(&plan.discard);
        Ok(())
    }

    pub(in crate::guard) async fn hold_whole(
        &self,
        plan: &Plan,
        message: Bytes,
    ) -> Result<HeldId, Error> {
        let recipients = self.of(&plan.hold);
        let holding = self.holding(1, &recipients);
        match self.guard.quarantine().join(&holding).await? {
            Some(id) => Ok(id),
            None => self.guard.quarantine().hold(&holding, message).await,
        }
    }

    pub(in crate::guard) async fn hold_streaming<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
    ) -> Result<Result<HeldId, Error>, Stop> {
        let mut stage = match self.stage(1, &plan.hold).await {
            Ok(stage) => stage,
            Err(fault) => return Ok(Err(fault)),
        };
        stage = match stage.write(&content.first).await {
            Ok(stage) => stage,
            Err(fault) => return Ok(Err(fault)),
        };
        loop {
            match content.rest.next().await {
                Ok(Some(bytes)) => {
                    self.acted.size_bytes += bytes.len() as u64;
                    stage = match stage.write(&bytes).await {
                        Ok(stage) => stage,
                        Err(fault) => return Ok(Err(fault)),
                    };
                }
                Ok(None) => break,
                // Why: it is held already; nobody will read its end elsewhere.
                Err(RestFault::LineEnds(_)) => {}
                Err(RestFault::Gone(_)) => return Err(Outcome::Unanswered),
            }
        }
        Ok(stage.hold().await)
    }

    /// Line ends that are not sound after the next hop got the beginning.
    pub(in crate::guard) async fn ambiguous_below<R: Rest>(
        &mut self,
        plan: &Plan,
        content: &mut Coming<'_, R>,
        held: Option<Stage>,
        fallback: Option<Stage>,
    ) -> Result<(), Stop> {
        self.acted.next_hop = None;
        let Some(fallback) = fallback else {
            self.line_ends_are_unsound();
            return Err(match self.acted.envelope.reverse_path().is_null() {
                true => Outcome::later("4.3.1", "the quarantine cannot hold it now"),
                false => self.refused_for_line_ends(),
            });
        };
        let mut stages = [held, Some(fallback)];
        loop {
            match content.rest.next().await {
                Ok(Some(bytes)) => {
                    self.acted.size_bytes += bytes.len() as u64;
                    for stage in &mut stages {
                        *stage = Box::pin(self.write(stage.take(), &bytes)).await?;
                    }
                }
                Ok(None) => break,
                Err(RestFault::LineEnds(_)) => {}
                Err(RestFault::Gone(_)) => return Err(Outcome::Unanswered),
            }
        }
        for (stage, indices) in stages.into_iter().zip([&plan.hold, &plan.deliver]) {
            let Some(stage) = stage else { continue };
            let id = stage.hold().await.map_err(|fault| self.not_held(&fault))?;
            self.know_held(indices, id);
        }
        self.know_discarded(&plan.discard);
        Ok(())
    }

    pub(in crate::guard) async fn write(
        &self,
        stage: Option<Stage>,
        bytes: &[u8],
    ) -> Result<Option<Stage>, Stop> {
        match stage {
            None => Ok(None),
            Some(stage) => {
                stage.write(bytes).await.map(Some).map_err(|fault| self.not_held(&fault))
            }
        }
    }

    pub(in crate::guard) async fn stage(&self, n: u32, indices: &[usize]) -> Result<Stage, Error> {
        let recipients = self.of(indices);
        self.guard.quarantine().stage(&self.holding(n, &recipients)).await
    }

    /// A stage for those who get it, in case their copy turns out to be ambiguous.
    pub(in crate::guard) async fn fallback(&mut self, indices: &[usize]) -> Result<Stage, Error> {
        let kept: Vec<Decision> = self.acted.decisions.clone();
        for index in indices {
            if let Some(decision) = self.acted.decision_mut(*index) {
                hold_for_line_ends(decision, LineEnds::Ambiguous);
            }
        }
        let recipients = self.of(indices);
        let stage = self.guard.quarantine().stage_in_case(&self.holding(2, &recipients)).await;
        self.acted.decisions = kept;
        stage
    }

    pub(in crate::guard) fn holding<'h>(
        &'h self,
        n: u32,
        recipients: &'h [(&'h Recipient, &'h Decision)],
    ) -> Holding<'h> {
        Holding {
            id: HeldId { event: self.acted.event, n },
            time: self.told.now,
            envelope: &self.acted.envelope,
            recipients,
            message_id: self.told.case.message_id.as_deref(),
            class: self.told.case.class,
            campaign: self
                .told
                .campaign
                .map(|key| CampaignKey(u128::from_be_bytes(*key.as_bytes()))),
        }
    }

    pub(in crate::guard) fn know_held(&mut self, indices: &[usize], id: HeldId) {
        for index in indices {
            let Some(decision) = self.acted.decisions.get(*index) else { continue };
            let mut reason = decision.reason;
            if decision.action != Action::Quarantine
                && let Some(decision) = self.acted.decision_mut(*index)
            {
                hold_for_line_ends(decision, self.line_ends);
                reason = decision.reason;
            }
            self.know(*index, Outcome::Held { id, reason });
        }
    }

    /// A held copy whose names could not be given; the others have theirs.
    pub(in crate::guard) fn keeps_pending_names(&mut self, indices: &[usize], fault: &Error) {
        tracing::error!(event = %self.acted.event, %fault, "a held copy keeps its pending names");
        for index in indices {
            if let Some(decision) = self.acted.decision_mut(*index) {
                decision.text.push_str(
                    " Its files could not be named: they end in .pending until the next try or \
                     start.",
                );
            }
        }
    }

    pub(in crate::guard) fn know_discarded(&mut self, indices: &[usize]) {
        for index in indices {
            let Some(decision) = self.acted.decisions.get(*index) else { continue };
            let reason = decision.reason;
            self.know(*index, Outcome::Discarded { reason });
        }
    }

    pub(in crate::guard) fn not_held(&self, fault: &Error) -> Stop {
        tracing::error!(event = %self.acted.event, %fault, "the quarantine cannot hold a message");
        Outcome::later("4.3.1", "the quarantine cannot hold it now")
    }
}
