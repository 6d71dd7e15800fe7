//! Station 8, first half: the decisions sorted into what is done together.
//!
//! Pure. Takes: a decision for each recipient. Gives: a `Plan`, in which SMTP's one reply for all
//! recipients is taken into account (`docs/adr/0005-several-recipients-one-reply.md`).

use crate::guard::LineEnds;
use crate::judge::decision::{Action, Decision, Reason};
use crate::wire::endpoint::Protocol;

/// Recipients by what is done with their copy; indices in envelope order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Relayed.
    pub deliver: Vec<usize>,
    /// Held.
    pub hold: Vec<usize>,
    /// Forgotten but for the record.
    pub discard: Vec<usize>,
    /// Answered with 550.
    pub reject: Vec<usize>,
    /// Answered with 451.
    pub defer: Vec<usize>,
}

impl Plan {
    /// Sorts the decisions, and changes those that one reply cannot carry out.
    pub fn new(decisions: &mut [Decision], protocol: Protocol) -> Plan {
        if protocol == Protocol::Smtp {
            one_reply(decisions);
        }
        let mut plan = Plan::default();
        for (index, decision) in decisions.iter().enumerate() {
            match decision.action {
                Action::Deliver => plan.deliver.push(index),
                Action::Quarantine => plan.hold.push(index),
                Action::Discard => plan.discard.push(index),
                Action::Reject => plan.reject.push(index),
                Action::Defer => plan.defer.push(index),
            }
        }
        plan
    }
}

fn one_reply(decisions: &mut [Decision]) {
    let is = |action: Action| move |decision: &Decision| decision.action == action;
    if decisions.iter().any(is(Action::Defer)) {
        // Why: a 451 brings the message again for all recipients; whoever had it would get it
        // twice.
        for decision in decisions.iter_mut().filter(|decision| decision.action != Action::Defer) {
            decision.action = Action::Defer;
            decision
                .text
                .push_str(" Another recipient's copy must wait, and one reply is for all.");
        }
        return;
    }
    if !decisions.iter().all(is(Action::Reject)) {
        // Why: a 550 would bounce the others' copies too.
        let rejected = decisions.iter_mut().filter(|decision| decision.action == Action::Reject);
        for decision in rejected {
            decision.action = Action::Quarantine;
            decision.text.push_str(" One reply is for all recipients: held instead of rejected.");
        }
    }
}

/// What was decided becomes: held, because the message's line ends are not sound.
pub fn hold_for_line_ends(decision: &mut Decision, line_ends: LineEnds) {
    decision.action = Action::Quarantine;
    decision.would = None;
    decision.counts = false;
    decision.rule = "line-ends".to_owned();
    decision.reason = Reason::BareLineEnd;
    decision.text = format!("{} With the null reverse-path it is held.", said_of(line_ends));
}

/// What was decided becomes: refused, because the message's line ends are not sound.
pub fn refuse_for_line_ends(decision: &mut Decision, line_ends: LineEnds) {
    hold_for_line_ends(decision, line_ends);
    decision.action = Action::Reject;
    decision.text = format!("{} Its sender is told.", said_of(line_ends));
}

fn said_of(line_ends: LineEnds) -> &'static str {
    match line_ends {
        LineEnds::Sound => "",
        LineEnds::Bare => {
            "It holds a bare CR or LF, which the settings refuse (`outbound.bare_line_end`)."
        }
        LineEnds::Ambiguous => {
            "It holds a line of dots between line ends that the next hop could read as the end of \
             the message."
        }
    }
}

/// What was decided becomes: held, because the next hop refuses this recipient and takes others.
pub fn hold_for_refusal(decision: &mut Decision, said: &str) {
    decision.action = Action::Quarantine;
    decision.would = None;
    decision.counts = false;
    decision.rule = "next-hop-refuses".to_owned();
    decision.reason = Reason::NextHopRefuses;
    decision.text = format!(
        "The next hop refuses this recipient ({said}) and takes others of the same message; one \
         reply cannot say both, so this copy is held."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(actions: &[Action]) -> Vec<Decision> {
        let decision = |action: &Action| Decision {
            verdict: None,
            gaps: Vec::new(),
            subject: None,
            loop_finding: None,
            action: *action,
            would: None,
            counts: false,
            rule: String::new(),
            reason: Reason::Personal,
            text: String::new(),
            otherwise: Vec::new(),
        };
        actions.iter().map(decision).collect()
    }

    #[test]
    fn one_reply_carries_out_what_it_can() {
        use Action::{Defer, Deliver, Discard, Quarantine, Reject};
        for (given, smtp) in [
            (vec![Deliver, Quarantine, Discard], vec![Deliver, Quarantine, Discard]),
            (vec![Deliver, Defer, Quarantine], vec![Defer, Defer, Defer]),
            (vec![Reject, Reject], vec![Reject, Reject]),
            (vec![Reject, Deliver], vec![Quarantine, Deliver]),
            (vec![Reject, Quarantine], vec![Quarantine, Quarantine]),
        ] {
            let mut changed = decisions(&given);
            Plan::new(&mut changed, Protocol::Smtp);
            let actions: Vec<Action> = changed.iter().map(|decision| decision.action).collect();
            assert_eq!(actions, smtp);
            let mut kept = decisions(&given);
            Plan::new(&mut kept, Protocol::Lmtp);
            let actions: Vec<Action> = kept.iter().map(|decision| decision.action).collect();
            assert_eq!(actions, given);
        }
    }

    #[test]
    fn every_recipient_stands_in_the_plan_once() {
        use Action::{Defer, Deliver, Discard, Quarantine, Reject};
        let mut all = decisions(&[Deliver, Quarantine, Discard, Reject, Defer]);
        let plan = Plan::new(&mut all, Protocol::Lmtp);
        assert_eq!(
            plan,
            Plan {
                deliver: vec![0],
                hold: vec![1],
                discard: vec![2],
                reject: vec![3],
                defer: vec![4],
            }
        );
    }
}
