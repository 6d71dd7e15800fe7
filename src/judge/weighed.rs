//! Station 5 for one recipient: the verdict, with the recorded message that the response answers.
//!
//! Takes: a recipient, the evidence, what was found in the store for him. Gives: `Weighed`. What a
//! tap saw comes before what the response itself shows: it was verified while the client was known.
//! Of several records in question the worst decides; one that is still being verified leaves it
//! open. A record that names the recipient nowhere speaks neither for nor against him.

use std::borrow::Cow;

use crate::judge::correlation::{Answered, Standing, Subject};
use crate::judge::decision::{Scope, Verdict};
use crate::judge::evidence::{Evidence, Gap, GapCause, RecipientEvidence};
use crate::judge::policy::Policy;
use crate::judge::verdict::verdict;
use crate::mail::address::Address;

/// A verdict, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// The verdict.
    pub verdict: Verdict,
    /// Which of the records in question decided, counted from 0; `None` when there are none.
    pub subject: Option<usize>,
    /// What could not be known of this recipient, and why.
    pub gaps: Vec<Gap>,
    /// Whether a signature that no source has looked at could still prove a recipient who failed.
    pub open: bool,
}

/// The verdict for one recipient; `known` is what is known of him alone.
pub fn weighed(
    recipient: &Address,
    evidence: &Evidence,
    known: Option<&RecipientEvidence>,
    policy: &Policy,
) -> Weighed {
    let answered = known.and_then(|known| known.answered.as_ref());
    if let Some(answered) = answered.filter(|found| found.recipient == Standing::ReplyTarget) {
        return worst(recipient, evidence, answered, policy);
    }
    let own = known.map_or(&[][..], |known| &known.gaps);
    let seen = match own {
        [] => Cow::Borrowed(evidence),
        own => Cow::Owned(with(evidence, None, own)),
    };
    let judged = verdict(recipient, &seen, policy);
    let gaps = own.iter().cloned().chain(judged.gaps).collect();
    let verdict = match judged.verdict {
        Verdict::Unknown { .. } if answered.is_some() => Verdict::Unauthenticated,
        verdict => verdict,
    };
    Weighed { verdict, subject: None, gaps, open: judged.open }
}

fn worst(
    recipient: &Address,
    evidence: &Evidence,
    answered: &Answered,
    policy: &Policy,
) -> Weighed {
    let each = answered.subjects.iter().enumerate().map(|(index, subject)| {
        let seen = with(evidence, Some(subject), &subject.gaps);
        let judged = verdict(recipient, &seen, policy);
        let waits = subject.pending && !matches!(judged.verdict, Verdict::Authenticated { .. });
        let pending = waits.then(|| Gap::new(GapCause::Pending, "the tap is still verifying"));
        let gaps = subject.gaps.iter().cloned().chain(pending).chain(judged.gaps).collect();
        let verdict = if waits { Verdict::Unresolved } else { judged.verdict };
        Weighed { verdict, subject: Some(index), gaps, open: judged.open }
    });
    // Why the first of equal ones: it is the nearest.
    let worst = each.min_by_key(|weighed| badness(&weighed.verdict));
    let none = || Weighed {
        verdict: Verdict::Unauthenticated,
        subject: None,
        gaps: Vec::new(),
        open: false,
    };
    worst.unwrap_or_else(none)
}

/// From what speaks against the recipient to what speaks for him. *Unresolved* stands before what
/// is only not known: another try may find it failed.
fn badness(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Failed { .. } => 0,
        Verdict::Unresolved => 1,
        Verdict::Unauthenticated => 2,
        Verdict::Unknown { .. } => 3,
        Verdict::Authenticated { scope: Scope::DomainOnly, .. } => 4,
        Verdict::Authenticated { scope: Scope::Address, .. } => 5,
    }
}

/// The evidence with what one record says in front.
fn with(evidence: &Evidence, subject: Option<&Subject>, gaps: &[Gap]) -> Evidence {
    let recorded = subject.into_iter().flat_map(|subject| &subject.findings);
    // Why without: there is a record, or there could be one; the tap is there.
    let missing = evidence.gaps.iter().filter(|gap| {
        subject.is_none() || !matches!(gap.cause, GapCause::NoTap | GapCause::NotInStore)
    });
    Evidence {
        findings: recorded.chain(&evidence.findings).cloned().collect(),
        domains: evidence.domains.clone(),
        recipients: Vec::new(),
        gaps: gaps.iter().chain(missing).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::correlation::MatchedBy;
    use crate::judge::evidence::{
        AuthResult, DmarcFacts, DmarcPolicy, DmarcRecord, DomainFacts, Evaluated, Findings,
        Receives, Source, SpfFinding,
    };
    use crate::judge::loops::LoopEvidence;
    use crate::judge::original::SubjectKind;
    use crate::judge::subject::TapKind;
    use crate::mail::address::{Domain, ReversePath};
    use crate::mail::time::Timestamp;

    fn findings(result: AuthResult) -> Findings {
        let joe = Address::parse("joe@bank.example").unwrap();
        Findings {
            mail_from: Some(ReversePath::Address(joe.clone())),
            from: vec![joe.clone()],
            spf: vec![SpfFinding {
                address: Some(joe.clone()),
                ..SpfFinding::of(result, joe.domain().cloned())
            }],
            evaluated: Evaluated::ALL,
            ..Findings::of(Source::Tap)
        }
    }

    /// `pass`, `fail`, `temperror`, `neutral`: SPF of the record; `pending`, `nothing`.
    fn subject(word: &str) -> Subject {
        let result = AuthResult::parse(word);
        Subject {
            id: None,
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: None,
            arrived: Timestamp::default(),
            pending: word == "pending",
            mail_from: ReversePath::Null,
            kind: SubjectKind::default(),
            spam: None,
            findings: result.map(findings).into_iter().collect(),
            gaps: match word {
                "nothing" => vec![Gap::new(GapCause::BehindRelay, "gw")],
                _ => Vec::new(),
            },
        }
    }

    fn judged(words: &[&str], recipient: Standing, embedded: &str) -> String {
        let domain = Domain::parse("bank.example").unwrap();
        let record = DmarcRecord {
            published_at: domain.clone(),
            policy: DmarcPolicy::Reject,
            dkim_alignment: Default::default(),
            spf_alignment: Default::default(),
        };
        let dmarc =
            DmarcFacts { organizational: domain.clone(), record: Some(record), above: None };
        let facts = DomainFacts { dmarc: Ok(dmarc), receives: Ok(Receives::Yes) };
        let evidence = Evidence {
            findings: AuthResult::parse(embedded).map(findings).into_iter().collect(),
            domains: [(domain, facts)].into(),
            recipients: Vec::new(),
            gaps: Vec::new(),
        };
        let answered = (!words.is_empty()).then(|| Answered {
            by: MatchedBy::Pair,
            id: None,
            candidates: 1,
            recipient,
            subjects: words.iter().map(|word| subject(word)).collect(),
        });
        let gaps = vec![Gap::new(GapCause::NotInStore, "")];
        let known = RecipientEvidence {
            sent_before: Ok(Default::default()),
            loops: LoopEvidence::default(),
            answered,
            gaps,
        };
        let joe = Address::parse("joe@bank.example").unwrap();
        let Weighed { verdict, subject, .. } =
            weighed(&joe, &evidence, Some(&known), &Policy::default());
        let by = verdict.by().map(|by| format!(" {by}")).unwrap_or_default();
        let at = subject.map(|at| format!(" {at}")).unwrap_or_default();
        format!("{}{by}{at}", verdict.kind())
    }

    #[test]
    fn the_worst_of_those_in_question_decides() {
        for (words, expected) in [
            (&["pass"][..], "authenticated spf 0"),
            (&["pass", "fail"], "failed spf-fail 1"),
            (&["fail", "pass"], "failed spf-fail 0"),
            (&["pass", "temperror"], "unresolved 1"),
            (&["temperror", "fail"], "failed spf-fail 1"),
            (&["pass", "pass"], "authenticated spf 0"),
            (&["pending"], "unresolved 0"),
            (&["pass", "pending"], "unresolved 1"),
            (&["nothing"], "unknown behind-relay 0"),
            (&[], "unknown not-in-store"),
        ] {
            assert_eq!(judged(words, Standing::ReplyTarget, ""), expected, "{words:?}");
        }
    }

    #[test]
    fn what_the_tap_saw_comes_first_and_what_it_leaves_open_is_asked_of_others() {
        let target = Standing::ReplyTarget;
        assert_eq!(judged(&["fail"], target, "pass"), "failed spf-fail 0");
        assert_eq!(judged(&["pass"], target, "fail"), "authenticated spf 0");
        assert_eq!(judged(&["nothing"], target, "pass"), "authenticated spf 0");
    }

    #[test]
    fn a_record_that_does_not_name_him_proves_and_refutes_nothing() {
        assert_eq!(judged(&["pass"], Standing::Stranger, ""), "unauthenticated");
        assert_eq!(judged(&["fail"], Standing::Stranger, ""), "unauthenticated");
        assert_eq!(judged(&["fail"], Standing::Stranger, "pass"), "authenticated spf");
    }
}
