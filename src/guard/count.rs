//! Station 9, beside the record: what the metrics say of a message.

use std::time::Duration;

use crate::guard::Guard;
use crate::guard::act::{Acted, Told};
use crate::guard::outcome::Outcome;
use crate::judge::classify::Guarded;
use crate::judge::correlation::Standing;
use crate::judge::decision::{Action, Decision};
use crate::meter::{DECISIONS, GAPS, LOOPS, OUTCOMES, SUBJECTS, VERDICTS, WOULD};

impl Guard {
    /// Counts a message that was answered.
    pub fn count(&self, acted: &Acted, told: &Told<'_>, took: Duration) {
        let meter = self.meter();
        let class = told.case.class.as_str();
        meter.took(took.as_secs_f64());
        for decision in &acted.decisions {
            let reason = ("reason", decision.reason.as_str());
            let action = ("action", decision.action.as_str());
            meter.count(DECISIONS, &[("class", class), action, reason]);
            if let Some(would) = decision.would {
                meter.count(WOULD, &[("class", class), ("action", would.as_str()), reason]);
            }
            self.count_finding(decision);
        }
        self.count_subjects(acted, told);
        for outcome in &acted.outcomes {
            meter.count(OUTCOMES, &[("outcome", word(outcome))]);
        }
        if told.case.class.guarded() != Guarded::No {
            for gap in &told.evidence.gaps {
                meter.count(GAPS, &[("cause", gap.cause.as_str())]);
            }
        }
    }

    /// By what the memory found what the judged recipients are answered for. A response that is to
    /// come again is counted then.
    fn count_subjects(&self, acted: &Acted, told: &Told<'_>) {
        if !self.inquiry().is_tapped || told.case.class.guarded() != Guarded::Response {
            return;
        }
        for (decision, known) in acted.decisions.iter().zip(&told.evidence.recipients) {
            if decision.verdict.is_some() && decision.action != Action::Defer {
                let found = known.answered.as_ref().map_or("none", |found| match found.recipient {
                    Standing::ReplyTarget => found.by.as_str(),
                    Standing::Stranger => found.recipient.as_str(),
                });
                self.meter().count(SUBJECTS, &[("found", found)]);
            }
        }
    }

    fn count_finding(&self, decision: &Decision) {
        if let Some(verdict) = &decision.verdict {
            let by = verdict.by().unwrap_or("none");
            let labels = [("verdict", verdict.kind().as_str()), ("by", by)];
            self.meter().count(VERDICTS, &labels);
        }
        if let Some(found) = &decision.loop_finding {
            self.meter().count(LOOPS, &[("kind", found.kind.as_str())]);
        }
    }
}

/// The outcome's name in the metrics.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Relayed(_) => "relayed",
        Outcome::Held { .. } => "held",
        Outcome::Discarded { .. } => "discarded",
        Outcome::Deferred(_) => "deferred",
        Outcome::Refused(_) => "refused",
        Outcome::Unanswered => "unanswered",
    }
}
