//! Stations 5, 6 and 7 in a row: one `Decision` for each recipient. The second door.
//!
//! Takes: envelope, case, evidence, policy, now. Gives: decisions, in envelope order. Pure: the
//! same in, the same out, on every machine. Law 7.

use crate::judge::Case;
use crate::judge::classify::{Class, Guarded};
use crate::judge::decision::{Action, Decision, Reason, Verdict};
use crate::judge::evidence::{Evidence, GapCause, SentBefore};
use crate::judge::loops::loop_finding;
use crate::judge::original::Origin;
use crate::judge::policy::{Mode, Policy, Profile, RuleAction, Suppress};
use crate::judge::rewritten::foreign_original;
use crate::judge::ruling::{
    Asked, Ruling, allow_entry, configured_ruling, observed, ruling, table_row,
};
use crate::judge::tell;
use crate::judge::weighed::{Weighed, weighed};
use crate::mail::address::ForwardPath;
use crate::mail::envelope::Envelope;
use crate::mail::limits::{
    AUTO_REPLY_PAIR_MAX, AUTO_REPLY_RECIPIENT_MAX, CLOCK_SKEW_MAX, DEFER_AGE_MAX, DSN_PAIR_MAX,
    DSN_RECIPIENT_MAX, MDN_PAIR_MAX, MDN_RECIPIENT_MAX, REPORT_PAIR_MAX, SIGNED_RECIPIENT_MAX,
};
use crate::mail::time::Timestamp;

/// One decision for each recipient, in envelope order.
pub fn decide(
    envelope: &Envelope,
    case: &Case,
    evidence: &Evidence,
    policy: &Policy,
    now: Timestamp,
) -> Vec<Decision> {
    let recipients = envelope.recipients.iter().enumerate();
    recipients
        .map(|(index, recipient)| {
            decision(envelope, case, evidence, policy, now, (index, &recipient.path))
        })
        .collect()
}

fn decision(
    envelope: &Envelope,
    case: &Case,
    evidence: &Evidence,
    policy: &Policy,
    now: Timestamp,
    (index, recipient): (usize, &ForwardPath),
) -> Decision {
    let known = evidence.recipients.get(index);
    let judged = is_judged(case).then(|| recipient.address()).flatten();
    let weighed = judged.map(|address| match foreign_original(address, &policy.site) {
        Some(original) => weighed(&original, evidence, known, policy),
        None => weighed(address, evidence, known, policy),
    });
    let answered = known.and_then(|known| known.answered.as_ref());
    let (judged, deciding, gaps) = match weighed {
        Some(Weighed { verdict, subject, gaps, .. }) => (Some(verdict), subject, gaps),
        None => (None, None, Vec::new()),
    };
    let mut looping =
        known.and_then(|known| loop_finding(case, recipient, &known.loops, &policy.loops, now));
    let asked = Asked {
        envelope,
        recipient,
        case,
        evidence,
        policy,
        now,
        verdict: judged.as_ref(),
        gaps: &gaps,
        loop_finding: looping.as_ref(),
        answered,
        subject: answered.zip(deciding).and_then(|(answered, at)| answered.subjects.get(at)),
    };
    let sent_before = known.and_then(|known| known.sent_before.as_ref().ok().copied());
    let settled = settle(&asked, ruling(&asked), sent_before);
    let mut would = None;
    let mut action = settled.action;
    if let Some(rule) = observed(&asked) {
        let tried = settle(&asked, configured_ruling(rule), sent_before).action;
        would = (tried != action).then_some(tried);
    }
    if settled.mode.unwrap_or(policy.mode) == Mode::Observe {
        would = (action != Action::Deliver).then_some(action).or(would);
        action = Action::Deliver;
    }
    let (text, otherwise) = (tell::sentence(&asked, &settled), tell::otherwise(&asked, &settled));
    if let Some(found) = looping.as_mut().filter(|_| action == Action::Deliver) {
        found.stopped = found.stopped.saturating_sub(1);
    }
    Decision {
        text,
        otherwise,
        gaps,
        action,
        would,
        counts: settled.counts,
        rule: settled.rule,
        reason: settled.reason,
        verdict: judged,
        subject: deciding,
        loop_finding: looping,
    }
}

/// Responses of ours are judged; relayed ones and everything else are not.
fn is_judged(case: &Case) -> bool {
    case.class.guarded() == Guarded::Response && case.origin != Some(Origin::Relayed)
}

/// A ruling made into an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What to do, before observing is taken into account.
    pub action: Action,
    /// Whether it counts against the limits.
    pub counts: bool,
    /// The rule's name.
    pub rule: String,
    /// Why.
    pub reason: Reason,
    /// Whether the rule observes or acts, whatever the guard does.
    pub mode: Option<Mode>,
}

fn settle(asked: &Asked<'_>, ruling: Ruling, sent_before: Option<SentBefore>) -> Settled {
    let Ruling { action, rule, reason, mode } = ruling;
    let settled =
        |action, reason| Settled { action, counts: false, rule: rule.clone(), reason, mode };
    match action {
        RuleAction::Deliver if rests_on_signature(asked, reason) => {
            match sent_before.unwrap_or_default().recipient >= SIGNED_RECIPIENT_MAX {
                true => settled(Action::Quarantine, Reason::LimitRecipient),
                false => Settled { action: Action::Deliver, counts: true, rule, reason, mode },
            }
        }
        RuleAction::Deliver => settled(Action::Deliver, reason),
        RuleAction::Suppress => settled(suppressed(asked.policy.suppress), reason),
        RuleAction::Quarantine => settled(Action::Quarantine, reason),
        RuleAction::Reject => settled(Action::Reject, reason),
        RuleAction::Discard => settled(Action::Discard, reason),
        // Why: an entry of the allow list lifts the limits, whichever rule imposed them.
        RuleAction::Limit if allow_entry(asked).is_some() => settled(Action::Deliver, reason),
        RuleAction::Limit => match over_limit(asked, sent_before.unwrap_or_default()) {
            Some(limit) => settled(Action::Quarantine, limit),
            None => Settled { action: Action::Deliver, counts: true, rule, reason, mode },
        },
        RuleAction::Defer
            if reason == Reason::Misrouting || is_young(asked.case.date, asked.now) =>
        {
            settled(Action::Defer, reason)
        }
        RuleAction::Defer => {
            let unknown = Verdict::Unknown { cause: GapCause::Dns };
            let row = table_row(asked.policy.profile, asked.case.class, &unknown);
            match row.action {
                RuleAction::Defer => settled(suppressed(asked.policy.suppress), row.reason),
                _ => settle(asked, row, sent_before),
            }
        }
    }
}

/// Whether it goes out because of a signature alone: then it counts, but is not limited otherwise.
///
/// Why: whoever has one signed message of a mailbox can send it to all our users, with that mailbox
/// for the reverse-path, and each of the answers would be proven.
fn rests_on_signature(asked: &Asked<'_>, reason: Reason) -> bool {
    reason == Reason::Authenticated
        && asked.verdict.is_some_and(Verdict::is_replayable)
        && allow_entry(asked).is_none()
}

fn suppressed(suppress: Suppress) -> Action {
    match suppress {
        Suppress::Quarantine => Action::Quarantine,
        Suppress::Reject => Action::Reject,
        Suppress::Discard => Action::Discard,
    }
}

/// Whether a deferred message may still wait: by its own topmost `Received`, or its Date.
///
/// Why: no memory is needed for it, and a message without a date cannot wait for ever.
pub fn is_young(date: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(date) = date else { return false };
    let ahead = date > now.plus(CLOCK_SKEW_MAX);
    !ahead && now.since(date) < DEFER_AGE_MAX
}

/// Which limit is used up; `None` when the response may go.
fn over_limit(asked: &Asked<'_>, sent: SentBefore) -> Option<Reason> {
    let (pair_max, recipient_max) = limits_of(asked.case.class);
    if sent.pair >= pair_max {
        return Some(Reason::LimitPair);
    }
    // Why: without a tap every answer to a stranger is unknown; a limit for all of them together
    // would hold genuine auto-replies of a busy day. Of reports nobody gets that many in a day but
    // whose name is forged.
    let no_tap = matches!(asked.verdict, Some(Verdict::Unknown { cause: GapCause::NoTap }));
    let is_reply = matches!(asked.case.class, Class::AutoReply | Class::Challenge);
    let is_exempt = no_tap && is_reply && asked.policy.profile == Profile::Balanced;
    let limited = recipient_max.filter(|_| !is_exempt);
    limited.filter(|max| sent.recipient >= *max).map(|_| Reason::LimitRecipient)
}

/// The limits of a class in `limits::LIMIT_WINDOW`: for the pair, for the recipient.
pub fn limits_of(class: Class) -> (u32, Option<u32>) {
    match class {
        Class::AutoReply | Class::Challenge => {
            (AUTO_REPLY_PAIR_MAX, Some(AUTO_REPLY_RECIPIENT_MAX))
        }
        Class::Mdn => (MDN_PAIR_MAX, Some(MDN_RECIPIENT_MAX)),
        Class::DmarcReport | Class::FeedbackReport => (REPORT_PAIR_MAX, None),
        _ => (DSN_PAIR_MAX, Some(DSN_RECIPIENT_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::classify::DsnAction;
    use crate::judge::decision::VerdictKind;
    use crate::judge::evidence::{
        AuthResult, DkimFinding, DmarcFacts, DomainFacts, Evaluated, Findings, Gap, Receives,
        RecipientEvidence, Source, SpfFinding,
    };
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::lists::{Entry, List, Pattern};
    use crate::judge::loops::{Laps, LoopEvidence};
    use crate::judge::original::Original;
    use crate::judge::policy::{ClassPattern, Rule};
    use crate::judge::read_alone;
    use crate::judge::site::Site;
    use crate::mail::address::{Address, Domain, ReversePath};
    use crate::mail::envelope::{Client, MailFrom, Parameters, Recipient};
    use crate::mail::header::Completeness;
    use crate::mail::message::Message;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
    const TO: &str = "joe@bank.example";

    /// One message on its way, everything at its simplest; each test changes what it is about.
    struct Scene {
        to: &'static str,
        verdict: &'static str,
        case: Case,
        policy: Policy,
        sent: SentBefore,
        laps: u32,
        receives: Receives,
        asked: Evaluated,
    }

    fn scene(class: Class, verdict: &'static str) -> Scene {
        let empty = Message::new("", Completeness::Whole);
        let case = Case {
            class,
            origin: Some(Origin::Ours),
            original: Original::default(),
            responder: Address::parse("ann@uni.example"),
            date: Some(NOW),
            hops: 1,
            ..read_alone(&empty, &Site::default(), &FingerprintKey::new([1; 32]))
        };
        let policy = Policy { mode: Mode::Enforce, ..Policy::default() };
        let receives = Receives::Yes;
        let (sent, asked) =
            (SentBefore::default(), Evaluated { spf: true, dkim: true, dmarc: false });
        Scene { to: TO, verdict, case, policy, sent, laps: 0, receives, asked }
    }

    impl Scene {
        fn decided(&self) -> Decision {
            let path = match self.to {
                "postmaster" => ForwardPath::Postmaster(self.to.to_owned()),
                to => ForwardPath::Address(Address::parse(to).unwrap()),
            };
            let recipient = Recipient {
                path: path.clone(),
                path_text: format!("<{}>", self.to),
                parameters: Parameters::default(),
            };
            let envelope = Envelope {
                client: Client { ip: Some("127.0.0.1".parse().unwrap()), ..Client::default() },
                mail: MailFrom {
                    path: ReversePath::Null,
                    path_text: "<>".to_owned(),
                    parameters: Parameters::default(),
                },
                recipients: vec![recipient],
            };
            let evidence = self.evidence(&path);
            let mut decisions = decide(&envelope, &self.case, &evidence, &self.policy, NOW);
            decisions.remove(0)
        }

        fn evidence(&self, path: &ForwardPath) -> Evidence {
            let mut evidence = Evidence::default();
            let spf = |result, address: &str| Findings {
                spf: vec![SpfFinding {
                    address: Address::parse(address),
                    ..SpfFinding::of(result, Some(Domain::parse("bank.example").unwrap()))
                }],
                evaluated: self.asked,
                ..Findings::of(Source::AuthResults { authserv_id: "mx.uni.example".to_owned() })
            };
            match self.verdict {
                "authenticated" => evidence.findings.push(spf(AuthResult::Pass, TO)),
                "signed" => {
                    let mut signed = spf(AuthResult::Fail, TO);
                    signed.from = vec![Address::parse(TO).unwrap()];
                    signed.dkim =
                        vec![DkimFinding::of(AuthResult::Pass, Domain::parse("bank.example"))];
                    evidence.findings.push(signed);
                }
                "domain-only" => evidence.findings.push(spf(AuthResult::Pass, "x@bank.example")),
                "failed" => evidence.findings.push(spf(AuthResult::Fail, TO)),
                "unauthenticated" => evidence.findings.push(spf(AuthResult::Neutral, TO)),
                "unresolved" => evidence.findings.push(spf(AuthResult::TempError, TO)),
                "unknown" => evidence.gaps.push(Gap::new(GapCause::NotInStore, "")),
                "no-tap" => evidence.gaps.push(Gap::new(GapCause::NoTap, "")),
                other => panic!("{other}"),
            }
            if let Some(domain) = path.domain() {
                let dmarc =
                    Ok(DmarcFacts { organizational: domain.clone(), record: None, above: None });
                let facts = DomainFacts { dmarc, receives: Ok(self.receives) };
                evidence.domains.insert(domain.clone(), facts);
            }
            evidence.recipients.push(RecipientEvidence {
                sent_before: Ok(self.sent),
                loops: LoopEvidence {
                    laps: Laps { count: self.laps, ..Laps::default() },
                    ..LoopEvidence::default()
                },
                answered: None,
                gaps: Vec::new(),
            });
            evidence
        }

        fn outcome(&self) -> (Action, Reason) {
            let decision = self.decided();
            (decision.action, decision.reason)
        }
    }

    const RESPONSES: &[Class] = &[
        Class::AutoReply,
        Class::Mdn,
        Class::Challenge,
        Class::Dsn(DsnAction::Failed),
        Class::Dsn(DsnAction::Delayed),
        Class::Dsn(DsnAction::Delivered),
        Class::Dsn(DsnAction::Relayed),
        Class::Dsn(DsnAction::Expanded),
    ];

    const VERDICTS: &[&str] =
        &["authenticated", "failed", "unauthenticated", "unresolved", "unknown"];

    fn entry(pattern: &str, forged: bool) -> Entry {
        Entry {
            pattern: Pattern::parse(pattern).unwrap(),
            expires: Some(NOW.plus(Duration::from_secs(3600))),
            reason: "known".to_owned(),
            author: String::new(),
            forged,
            written_at: String::new(),
        }
    }

    fn rule(action: RuleAction, mode: Option<Mode>) -> Rule {
        Rule {
            name: "mine".to_owned(),
            classes: vec![ClassPattern::AnyDsn],
            verdicts: Vec::new(),
            rcpt: Vec::new(),
            responder: Vec::new(),
            client: Vec::new(),
            origin: None,
            action,
            mode,
        }
    }

    /// Goal: every cell of the table. Method: the table as the documentation prints it:
    /// d deliver, s suppress, l limited (deliver and count), w wait (451).
    #[test]
    fn every_cell_of_the_table() {
        let balanced: &[(&str, &[Class])] = &[
            ("d s l w l", &[Class::AutoReply, Class::Mdn, Class::Dsn(DsnAction::Failed)]),
            (
                "d s s s s",
                &[
                    Class::Challenge,
                    Class::Dsn(DsnAction::Delayed),
                    Class::Dsn(DsnAction::Delivered),
                    Class::Dsn(DsnAction::Relayed),
                    Class::Dsn(DsnAction::Expanded),
                ],
            ),
        ];
        let strict: &[(&str, &[Class])] = &[
            ("d s s w s", &[Class::AutoReply, Class::Mdn, Class::Dsn(DsnAction::Failed)]),
            ("d s s s s", &[Class::Challenge, Class::Dsn(DsnAction::Delayed)]),
        ];
        let mut cells = 0;
        for (profile, rows) in [(Profile::Balanced, balanced), (Profile::Strict, strict)] {
            for (row, classes) in rows {
                for (cell, verdict) in row.split(' ').zip(VERDICTS) {
                    for class in *classes {
                        let mut scene = scene(*class, verdict);
                        scene.policy.profile = profile;
                        let decision = scene.decided();
                        let found = match (decision.action, decision.counts) {
                            (Action::Deliver, false) => "d",
                            (Action::Deliver, true) => "l",
                            (Action::Quarantine, false) => "s",
                            (Action::Defer, false) => "w",
                            _ => "?",
                        };
                        assert_eq!(found, cell, "{profile:?} {class:?} {verdict}: {decision:?}");
                        assert_eq!(
                            decision.verdict.as_ref().map(|v| v.kind().as_str()),
                            Some(*verdict)
                        );
                        cells += 1;
                    }
                }
            }
        }
        assert_eq!(cells, 8 * 5 + 5 * 5);
    }

    #[test]
    fn what_is_no_response_is_never_judged() {
        for (class, reason) in [
            (Class::Personal, Reason::Personal),
            (Class::List, Reason::List),
            (Class::Bulk, Reason::Bulk),
            (Class::Notification, Reason::Notification),
        ] {
            for verdict in VERDICTS {
                let mut scene = scene(class, verdict);
                scene.policy.deny = List::new([entry("bank.example", false)]);
                scene.receives = Receives::NullMx;
                let decision = scene.decided();
                assert_eq!((decision.action, decision.reason), (Action::Deliver, reason));
                assert_eq!(decision.verdict, None);
            }
        }
    }

    /// Goal: each rule comes before all that stand below it. Method: one scene in which every rule
    /// matches; take the first away, and the next one decides.
    #[test]
    fn the_rules_stand_in_their_order() {
        let mut scene = scene(Class::AutoReply, "failed");
        scene.laps = 1;
        scene.receives = Receives::NullMx;
        scene.case.original.return_path = Some(ReversePath::Null);
        let mut own = rule(RuleAction::Discard, None);
        own.classes.clear();
        scene.policy.rules = vec![own];
        let bank = Domain::parse("bank.example").unwrap();
        scene.policy.site = Site { domains: [bank].into(), ..Site::default() };
        scene.policy.deny = List::new([entry("bank.example", false)]);
        scene.case.original.kind.list = Some("List-Id".to_owned());
        scene.case.original.kind.automatic = Some("Auto-Submitted".to_owned());
        scene.policy.allow = List::new([entry(TO, true)]);

        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::Loop));
        scene.laps = 0;
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::NullMx));
        scene.receives = Receives::NoSuchDomain;
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::NoSuchDomain));
        scene.receives = Receives::Yes;
        assert_eq!(scene.outcome(), (Action::Discard, Reason::ConfiguredRule));
        scene.policy.rules.clear();
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::LocalDomain));
        scene.policy.site = Site::default();
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::NullSubject));
        scene.case.original.return_path = None;
        scene.case.origin = Some(Origin::Relayed);
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::RelayedResponse));
        scene.case.origin = Some(Origin::Ours);
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::DenyList));
        scene.policy.deny = List::default();
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::SubjectList));
        scene.case.original.kind.list = None;
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::SubjectAutomatic));
        scene.case.original.kind.automatic = None;
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::AllowListForged));
        scene.policy.allow = List::default();
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::FailedSpf));
    }

    #[test]
    fn a_relayed_response_is_not_judged_but_must_be_able_to_arrive() {
        let mut scene = scene(Class::Dsn(DsnAction::Failed), "failed");
        scene.case.origin = Some(Origin::Relayed);
        scene.case.original.return_path = Some(ReversePath::Null);
        let decision = scene.decided();
        assert_eq!((decision.action, decision.verdict), (Action::Deliver, None));
        scene.receives = Receives::NullMx;
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::NullMx));
        scene.receives = Receives::Yes;
        scene.laps = 1;
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::Loop));
    }

    #[test]
    fn list_and_automatic_subjects_stop_auto_replies_only() {
        for class in RESPONSES {
            let mut scene = scene(*class, "authenticated");
            scene.case.original.kind.list = Some("List-Id".to_owned());
            let stopped = matches!(class, Class::AutoReply | Class::Challenge);
            let expected = if stopped { Reason::SubjectList } else { Reason::Authenticated };
            assert_eq!(scene.decided().reason, expected, "{class:?}");
        }
    }

    /// Mail to an SRS address of ours leaves again, to whom it stands for.
    #[test]
    fn an_address_of_ours_that_stands_for_another_is_judged_for_that_other() {
        for (verdict, counts) in [
            ("authenticated", false),
            ("domain-only", true),
            ("failed", true),
            ("unauthenticated", true),
            ("unknown", true),
        ] {
            let mut scene = scene(Class::Dsn(DsnAction::Failed), verdict);
            let uni = Domain::parse("uni.example").unwrap();
            scene.policy.site = Site { domains: [uni].into(), ..Site::default() };
            scene.to = "SRS0=ab=cd=bank.example=joe@uni.example";
            let decision = scene.decided();
            assert_eq!(decision.action, Action::Deliver, "{verdict}");
            assert_eq!((decision.counts, decision.rule.as_str()), (counts, "own-rewritten"));
            scene.sent = SentBefore { pair: 1, recipient: 1 };
            let expected = if counts { Action::Quarantine } else { Action::Deliver };
            assert_eq!(scene.decided().action, expected, "{verdict}");
            scene.to = "joe@uni.example";
            assert_eq!(scene.decided().reason, Reason::LocalDomain);
        }
    }

    #[test]
    fn an_address_of_ours_that_may_stand_for_anybody_is_limited_and_a_denied_one_is_held() {
        let mut scene = scene(Class::Dsn(DsnAction::Failed), "unknown");
        let uni = Domain::parse("uni.example").unwrap();
        scene.policy.site = Site { domains: [uni].into(), ..Site::default() };
        for to in ["SRS0=ab=cd@uni.example", "\"SRS0=ab=cd=bank.example=a b\"@uni.example"] {
            scene.to = to;
            let decision = scene.decided();
            assert_eq!((decision.action, decision.counts), (Action::Deliver, true), "{to}");
            assert_eq!(decision.rule, "own-rewritten");
        }
        scene.to = "SRS0=ab=cd=bank.example=joe@uni.example";
        scene.policy.deny = List::new([entry("bank.example", false)]);
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::DenyList));
        scene.to = "SRS0=ab=cd=other.example=joe@uni.example";
        assert_eq!(scene.outcome().0, Action::Deliver);
    }

    /// A listed name can be forged: against *failed* only an entry that says so helps.
    #[test]
    fn the_allow_list_lifts_verdict_and_limits_but_not_forgery() {
        for verdict in ["unauthenticated", "unresolved", "unknown", "domain-only"] {
            for class in RESPONSES {
                let mut scene = scene(*class, verdict);
                scene.policy.allow = List::new([entry(".example", false)]);
                scene.sent = SentBefore { pair: 99, recipient: 99 };
                let decision = scene.decided();
                assert_eq!(decision.action, Action::Deliver, "{class:?} {verdict}");
                assert!(!decision.counts);
            }
        }
        let mut scene = scene(Class::AutoReply, "failed");
        scene.policy.allow = List::new([entry(TO, false)]);
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::FailedSpf));
        scene.policy.allow = List::new([entry(TO, false), entry("bank.example", true)]);
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::FailedSpf));
        scene.policy.allow = List::new([entry(TO, false), entry(TO, true)]);
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::AllowListForged));
        assert!(scene.decided().text.contains("FORGED"), "{}", scene.decided().text);
        // Where nothing failed, the entry is one like any other.
        scene.verdict = "unauthenticated";
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::AllowList));
        assert!(!scene.decided().text.contains("FORGED"), "{}", scene.decided().text);
    }

    #[test]
    fn limits_hold_the_excess_of_what_is_not_proven() {
        let limited = |class, verdict, pair, recipient| {
            let mut scene = scene(class, verdict);
            scene.sent = SentBefore { pair, recipient };
            scene.outcome()
        };
        let failed = Class::Dsn(DsnAction::Failed);
        for (class, verdict, pair, recipient, expected) in [
            (Class::AutoReply, "unknown", 0, 4, (Action::Deliver, Reason::Unknown)),
            (Class::AutoReply, "unknown", 1, 1, (Action::Quarantine, Reason::LimitPair)),
            (Class::AutoReply, "unknown", 0, 5, (Action::Quarantine, Reason::LimitRecipient)),
            (Class::AutoReply, "no-tap", 0, 5, (Action::Deliver, Reason::Unknown)),
            (Class::AutoReply, "no-tap", 1, 1, (Action::Quarantine, Reason::LimitPair)),
            (Class::AutoReply, "domain-only", 1, 1, (Action::Quarantine, Reason::LimitPair)),
            (Class::AutoReply, "authenticated", 9, 9, (Action::Deliver, Reason::Authenticated)),
            (failed, "unauthenticated", 0, 19, (Action::Deliver, Reason::Unauthenticated)),
            (failed, "unauthenticated", 0, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (failed, "unauthenticated", 1, 1, (Action::Quarantine, Reason::LimitPair)),
            (Class::Mdn, "unknown", 1, 1, (Action::Quarantine, Reason::LimitPair)),
            (failed, "no-tap", 0, 19, (Action::Deliver, Reason::Unknown)),
            (failed, "no-tap", 0, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (Class::Mdn, "unknown", 0, 19, (Action::Deliver, Reason::Unknown)),
            (Class::Mdn, "unknown", 0, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (Class::Mdn, "no-tap", 0, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (Class::DmarcReport, "unknown", 99, 99, (Action::Deliver, Reason::Report)),
            (Class::FeedbackReport, "failed", 100, 100, (Action::Quarantine, Reason::LimitPair)),
        ] {
            assert_eq!(limited(class, verdict, pair, recipient), expected, "{class:?} {verdict}");
        }
    }

    /// One signed message can be sent to all our users, with its author for the reverse-path.
    #[test]
    fn what_a_signature_alone_proves_counts_and_ends_at_a_number() {
        let failed = Class::Dsn(DsnAction::Failed);
        let srs = "SRS0=a=b=bank.example=joe@uni.example";
        for (class, to, recipient, expected) in [
            (Class::AutoReply, TO, 19, (Action::Deliver, Reason::Authenticated)),
            (Class::AutoReply, TO, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (failed, TO, 19, (Action::Deliver, Reason::Authenticated)),
            (failed, TO, 20, (Action::Quarantine, Reason::LimitRecipient)),
            (failed, srs, 20, (Action::Quarantine, Reason::LimitRecipient)),
        ] {
            for profile in [Profile::Balanced, Profile::Strict] {
                let mut scene = scene(class, "signed");
                let uni = Domain::parse("uni.example").unwrap();
                scene.policy.site = Site { domains: [uni].into(), ..Site::default() };
                (scene.to, scene.policy.profile) = (to, profile);
                // Many answers about one thing are no sign of it.
                scene.sent = SentBefore { pair: 99, recipient };
                let decision = scene.decided();
                assert_eq!((decision.action, decision.reason), expected, "{class:?} {to}");
                assert_eq!(decision.counts, decision.action == Action::Deliver);
            }
        }
        let mut scene = scene(failed, "signed");
        scene.sent = SentBefore { pair: 99, recipient: 99 };
        assert!(scene.decided().text.contains("signature"), "{}", scene.decided().text);
        scene.policy.allow = List::new([entry(TO, false)]);
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::AllowList));
    }

    #[test]
    fn there_is_no_report_about_a_report() {
        let mut scene = scene(Class::DmarcReport, "unknown");
        scene.case.original.kind.automatic = Some("Auto-Submitted".to_owned());
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::ReportOnReport));
    }

    #[test]
    fn a_response_waits_for_dns_four_hours_and_no_longer() {
        let mut scene = scene(Class::AutoReply, "unresolved");
        scene.case.date = Some(Timestamp::from_millis(NOW.as_millis() - 4 * 3_600_000 + 1));
        assert_eq!(scene.outcome(), (Action::Defer, Reason::Unresolved));
        scene.case.date = Some(Timestamp::from_millis(NOW.as_millis() - 4 * 3_600_000));
        let decision = scene.decided();
        assert_eq!((decision.action, decision.reason), (Action::Deliver, Reason::Unknown));
        assert!(decision.counts);
        assert_eq!(decision.verdict, Some(Verdict::Unresolved));
        // Without a date, or with one from the future, it would wait for ever.
        scene.case.date = None;
        assert_eq!(scene.outcome().0, Action::Deliver);
        scene.case.date = Some(NOW.plus(Duration::from_secs(86_400)));
        assert_eq!(scene.outcome().0, Action::Deliver);
        scene.policy.profile = Profile::Strict;
        assert_eq!(scene.outcome().0, Action::Quarantine);
    }

    #[test]
    fn suppress_means_what_the_setting_says() {
        for (suppress, action) in [
            (Suppress::Quarantine, Action::Quarantine),
            (Suppress::Reject, Action::Reject),
            (Suppress::Discard, Action::Discard),
        ] {
            let mut scene = scene(Class::AutoReply, "failed");
            scene.policy.suppress = suppress;
            assert_eq!(scene.outcome().0, action);
            // A loop is never answered with 5xx.
            scene.laps = 1;
            assert_eq!(scene.outcome().0, Action::Quarantine);
        }
    }

    #[test]
    fn observing_delivers_and_says_what_would_have_been() {
        for verdict in VERDICTS {
            let mut scene = scene(Class::Challenge, verdict);
            let enforced = scene.decided().action;
            scene.policy.mode = Mode::Observe;
            let decision = scene.decided();
            assert_eq!(decision.action, Action::Deliver);
            assert_eq!(decision.would, (enforced != Action::Deliver).then_some(enforced));
        }
    }

    #[test]
    fn a_rule_can_observe_or_enforce_by_itself() {
        let failed = Class::Dsn(DsnAction::Failed);
        let mut scene = scene(failed, "authenticated");
        scene.policy.rules = vec![rule(RuleAction::Suppress, Some(Mode::Observe))];
        let decision = scene.decided();
        assert_eq!((decision.action, decision.would), (Action::Deliver, Some(Action::Quarantine)));
        assert_eq!(decision.reason, Reason::Authenticated);
        // An observing rule never lets out what the profile holds.
        scene.verdict = "failed";
        scene.policy.rules = vec![rule(RuleAction::Deliver, Some(Mode::Observe))];
        let decision = scene.decided();
        assert_eq!((decision.action, decision.would), (Action::Quarantine, Some(Action::Deliver)));
        // And an enforcing one acts while everything else observes.
        scene.policy.mode = Mode::Observe;
        scene.policy.rules = vec![rule(RuleAction::Suppress, Some(Mode::Enforce))];
        assert_eq!(scene.outcome(), (Action::Quarantine, Reason::ConfiguredRule));
    }

    /// A rule that has the name of a row of the table does not make that row act.
    #[test]
    fn the_rule_that_decided_says_whether_it_acts_and_not_its_name() {
        let mut scene = scene(Class::Dsn(DsnAction::Failed), "failed");
        let row = scene.decided().rule;
        scene.policy.mode = Mode::Observe;
        let elsewhere = vec![Pattern::parse("other.example").unwrap()];
        let named =
            Rule { name: row, rcpt: elsewhere, ..rule(RuleAction::Discard, Some(Mode::Enforce)) };
        scene.policy.rules = vec![named];
        let decision = scene.decided();
        assert_eq!((decision.action, decision.would), (Action::Deliver, Some(Action::Quarantine)));
    }

    #[test]
    fn what_could_not_be_known_of_a_recipient_stands_in_the_decision() {
        let mut scene = scene(Class::AutoReply, "unauthenticated");
        assert_eq!(scene.decided().gaps, []);
        scene.asked = Evaluated { spf: true, ..Evaluated::default() };
        let decision = scene.decided();
        assert_eq!(decision.gaps[0].cause, GapCause::NotEvaluated);
        assert_eq!(decision.gaps.len(), 1);
    }

    #[test]
    fn a_loop_says_when_it_was_seen_and_whether_it_was_stopped() {
        let mut scene = scene(Class::AutoReply, "authenticated");
        scene.laps = 1;
        let found = scene.decided().loop_finding.unwrap();
        assert_eq!((found.first_seen, found.last_seen, found.stopped), (NOW, None, 1));
        scene.policy.mode = Mode::Observe;
        assert_eq!(scene.decided().loop_finding.unwrap().stopped, 0);
    }

    #[test]
    fn rules_match_by_every_condition_they_set() {
        let failed = Class::Dsn(DsnAction::Failed);
        let base = || rule(RuleAction::Discard, None);
        let pattern = |text: &str| vec![Pattern::parse(text).unwrap()];
        let rules = [
            (true, base()),
            (true, Rule { verdicts: vec![VerdictKind::Unknown], ..base() }),
            (false, Rule { verdicts: vec![VerdictKind::Failed], ..base() }),
            (true, Rule { classes: vec![ClassPattern::Dsn(DsnAction::Failed)], ..base() }),
            (false, Rule { classes: vec![ClassPattern::Dsn(DsnAction::Delayed)], ..base() }),
            (false, Rule { classes: vec![ClassPattern::Class(Class::Mdn)], ..base() }),
            (true, Rule { rcpt: pattern(".example"), ..base() }),
            (false, Rule { rcpt: pattern("ann@bank.example"), ..base() }),
            (true, Rule { responder: pattern("uni.example"), ..base() }),
            (false, Rule { responder: pattern("other.example"), ..base() }),
            (true, Rule { client: vec!["127.0.0.0/8".parse().unwrap()], ..base() }),
            (false, Rule { client: vec!["192.0.2.0/24".parse().unwrap()], ..base() }),
            (false, Rule { origin: Some(Origin::Relayed), ..base() }),
        ];
        for (matches, rule) in rules {
            let mut scene = scene(failed, "unknown");
            scene.policy.rules = vec![rule.clone()];
            let expected = if matches { Reason::ConfiguredRule } else { Reason::Unknown };
            assert_eq!(scene.decided().reason, expected, "{rule:?}");
        }
    }

    #[test]
    fn only_our_own_desks_are_not_judged() {
        let mut scene = scene(Class::AutoReply, "failed");
        scene.to = "postmaster";
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::LocalPostmaster));
        scene.to = "postmaster@bank.example";
        assert_eq!(scene.outcome().0, Action::Quarantine);
        scene.policy.site.hosts = ["bank.example".to_owned()].into();
        assert_eq!(scene.outcome(), (Action::Deliver, Reason::LocalPostmaster));
        scene.to = TO;
        assert_eq!(scene.outcome().0, Action::Quarantine);
    }

    #[test]
    fn loops_are_held_by_laps_and_by_hops_of_responses() {
        for (class, laps, hops, held) in [
            (Class::AutoReply, 0, 25, false),
            (Class::AutoReply, 1, 2, true),
            (Class::AutoReply, 0, 26, true),
            (Class::Personal, 1, 2, false),
            (Class::Personal, 2, 2, true),
            (Class::Personal, 0, 99, false),
            (Class::Personal, 1, 61, true),
        ] {
            let mut scene = scene(class, "authenticated");
            scene.laps = laps;
            scene.case.hops = hops;
            let decision = scene.decided();
            assert_eq!(decision.action == Action::Quarantine, held, "{class:?} {laps} {hops}");
            assert_eq!(decision.loop_finding.is_some(), held);
        }
    }

    #[test]
    fn every_decision_says_why_in_a_sentence() {
        for class in RESPONSES.iter().chain(&[Class::Personal, Class::DmarcReport]) {
            for verdict in VERDICTS.iter().chain(&["domain-only", "no-tap"]) {
                let decision = scene(*class, verdict).decided();
                assert!(decision.text.ends_with('.') && decision.text.len() > 20, "{decision:?}");
            }
        }
    }
}
