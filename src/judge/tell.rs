//! The decision in plain words: one sentence why, and what would have changed it.
//!
//! Takes: what was asked and what came out. Gives: text for records and for `explain`; peer text
//! in it is harmless. No rule lives here.

use crate::judge::border::End;
use crate::judge::classify::Class;
use crate::judge::decide::{Settled, limits_of};
use crate::judge::decision::{
    Action, FailureKind, LoopFinding, LoopKind, ProofKind, Reason, Scope, Verdict,
};
use crate::judge::evidence::{Gap, GapCause};
use crate::judge::lists::List;
use crate::judge::ruling::Asked;
use crate::mail::limits::SIGNED_RECIPIENT_MAX;
use crate::mail::shown::Shown;

/// Why, in one sentence.
pub fn sentence(asked: &Asked<'_>, settled: &Settled) -> String {
    let to = Shown::new(&asked.recipient.to_string());
    let kind = kind(asked.case.class);
    match settled.reason {
        Reason::Personal => "It is no automatic response, so nobody is judged.".to_owned(),
        Reason::List => "It is list traffic, so nobody is judged.".to_owned(),
        Reason::Bulk => "It is bulk mail, so nobody is judged.".to_owned(),
        Reason::Notification => {
            "A machine sends it unasked; it answers nobody, so nobody is judged.".to_owned()
        }
        Reason::Loop
        | Reason::Hops
        | Reason::Conversation
        | Reason::ForwardedBounce
        | Reason::Misrouting => loop_sentence(asked, to.as_str()),
        Reason::NullSubject => {
            format!("The message it answers had a null reverse-path: nobody waits for this {kind}.")
        }
        Reason::NoSuchDomain => format!("The domain of {to} does not exist."),
        Reason::NullMx => format!("The domain of {to} says that it takes no mail (null MX)."),
        Reason::LocalDomain => format!("{to} lies in a domain of ours, which is not judged."),
        Reason::LocalPostmaster => format!("{to} is a desk of our own hosts."),
        Reason::RelayedResponse => format!(
            "This {kind} came from outside and one of our users forwards it: it is not ours to judge."
        ),
        Reason::ConfiguredRule => {
            format!(
                "The rule {:?} of the configuration says so.",
                Shown::new(&settled.rule).as_str()
            )
        }
        Reason::DenyList => entry_sentence("deny", &asked.policy.deny, asked),
        Reason::AllowList => entry_sentence("allow", &asked.policy.allow, asked),
        Reason::AllowListForged => format!(
            "FORGED: the message it answers did not come from {to}, and still it goes out. {}",
            entry_sentence("allow", &asked.policy.allow, asked)
        ),
        Reason::SubjectList => format!("It answers list traffic, which no {kind} should."),
        Reason::SubjectAutomatic => {
            format!("It answers a message that was automatic itself, which no {kind} should.")
        }
        Reason::SubjectSpam => spam_sentence(asked),
        Reason::Report => "Reports are limited, whoever gets them.".to_owned(),
        Reason::ReportOnReport => "It reports on a report.".to_owned(),
        Reason::LimitPair | Reason::LimitRecipient => limit_sentence(asked, settled.reason),
        Reason::BareLineEnd => {
            "It holds line ends that the next hop could read as the end of the message.".to_owned()
        }
        Reason::NextHopRefuses => format!("The next hop refuses {to}, and not the others."),
        _ => verdict_sentence(asked, settled, to.as_str()),
    }
}

fn spam_sentence(asked: &Asked<'_>) -> String {
    let score = asked.subject.and_then(|subject| subject.spam);
    let score = score.map(|score| score.to_string()).unwrap_or_default();
    format!("The message it answers has {score} points of our spam filter.")
}

fn kind(class: Class) -> &'static str {
    match class {
        Class::AutoReply => "automatic reply",
        Class::Challenge => "challenge",
        Class::Dsn(_) => "delivery report",
        Class::Mdn => "disposition notification",
        Class::DmarcReport | Class::FeedbackReport => "report",
        Class::Personal | Class::List | Class::Bulk | Class::Notification => "message",
    }
}

fn verdict_sentence(asked: &Asked<'_>, settled: &Settled, to: &str) -> String {
    let Some(verdict) = asked.verdict else { return String::new() };
    let domain = asked.recipient.domain().map(ToString::to_string).unwrap_or_default();
    match verdict {
        Verdict::Authenticated { by, domain: proven, scope: Scope::Address } => {
            format!("The message it answers came from {to}: {} {proven}.", proof(*by))
        }
        Verdict::Authenticated { by, domain: proven, scope: Scope::DomainOnly } => format!(
            "The message it answers came from {proven} ({}), but {to} itself is not proven: limited.",
            proof(*by)
        ),
        Verdict::Failed { by } => {
            let says = match by {
                FailureKind::Spf => format!("SPF of {domain} says that it did not"),
                FailureKind::SoftFail => {
                    format!(
                        "SPF of {domain} says that it probably did not, and {domain} publishes DMARC"
                    )
                }
                FailureKind::Dmarc => {
                    format!("{domain} publishes DMARC, and neither SPF nor DKIM passed for it")
                }
            };
            format!("The message it answers claims to come from {to}; {says}.")
        }
        Verdict::Unauthenticated => {
            format!("Nothing proves that the message it answers came from {to}, nothing denies it.")
        }
        Verdict::Unresolved if GapCause::Pending.is_among(asked.gaps) => {
            "The tap is still verifying the message it answers.".to_owned()
        }
        Verdict::Unresolved if settled.action == Action::Defer => {
            format!("DNS of {domain} gives no answer now; the client tries again later.")
        }
        Verdict::Unresolved => {
            format!(
                "DNS of {domain} gave no answer for too long: treated as if nothing were known."
            )
        }
        Verdict::Unknown { cause } => {
            format!("Nothing is known of the message it answers: {}.", cause_words(*cause))
        }
    }
}

fn proof(by: ProofKind) -> &'static str {
    match by {
        ProofKind::Spf => "SPF passed for",
        ProofKind::Dkim => "it bears a DKIM signature of",
        ProofKind::DkimHeader => "its header alone bears a DKIM signature of",
        ProofKind::SpfGuess => "SPF would pass, had it a record, for",
        ProofKind::Dmarc => "DMARC passed for",
        ProofKind::OwnSubmission => "it was submitted from inside, by",
    }
}

/// What a cause means, for people.
pub fn cause_words(cause: GapCause) -> &'static str {
    match cause {
        GapCause::NoTap => "no tap watches the inbound mail",
        GapCause::NotInStore => "the tap has no record of it",
        GapCause::Pending => "the tap is still verifying it",
        GapCause::NoKey => "the response names it by nothing",
        GapCause::BehindRelay => "it came through a gateway that hides its client",
        GapCause::Truncated => "the response was read only in part",
        GapCause::NoAuthResults => {
            "its embedded header has no Authentication-Results of ours above the border line"
        }
        GapCause::NotStripped => {
            "its Authentication-Results may be forged: our border is not declared to remove foreign ones"
        }
        GapCause::NotEvaluated => "what would be needed was not evaluated",
        GapCause::Dns => "DNS gave no answer",
        GapCause::Store => "the memory failed",
    }
}

fn loop_sentence(asked: &Asked<'_>, to: &str) -> String {
    let Some(found) = asked.loop_finding else { return String::new() };
    let other = found.between.get(1).map(|other| Shown::new(other).into_string());
    let between = other.as_ref().map(|other| format!(" between {other} and {to}"));
    let between = between.unwrap_or_default();
    let LoopFinding { laps, hops, .. } = found;
    match found.kind {
        LoopKind::Lap => {
            format!("It goes round{between}: it was here for {to} {laps} time(s) before.")
        }
        LoopKind::Progression => format!(
            "It goes round{between}: it came by for {to} again and again, and its hops rose by the \
             same step {laps} times in a row, to {hops}."
        ),
        LoopKind::Hops => format!("It has {hops} hops behind it, more than any way needs."),
        LoopKind::Conversation => {
            let other = other.unwrap_or_else(|| "our address".to_owned());
            format!("{other} and {to} answer one another: {laps} of these went out lately.")
        }
        LoopKind::ForwardedBounce => {
            let other = other.unwrap_or_else(|| "another address".to_owned());
            format!(
                "It is the bounce of a message that was forwarded to {other} or from there to {to}, \
                 and would be forwarded again."
            )
        }
        LoopKind::Misrouting => "Our next hop sends our own mail back to us: its route for this \
             recipient ends here. Correct that route; until then the mail waits at the client."
            .to_owned(),
    }
}

fn limit_sentence(asked: &Asked<'_>, reason: Reason) -> String {
    let to = Shown::new(&asked.recipient.to_string());
    let (pair, recipient) = limits_of(asked.case.class);
    let kind = kind(asked.case.class);
    match reason {
        Reason::LimitPair => {
            let from = asked.case.responder.as_ref().map(ToString::to_string).unwrap_or_default();
            let about = match asked.case.class {
                Class::Dsn(_) => "about the same recipient".to_owned(),
                Class::Mdn => "about the same message".to_owned(),
                _ => format!("from {}", Shown::new(&from)),
            };
            format!("{to} is not proven and got {pair} such {kind} {about} in 24 h.")
        }
        _ if asked.verdict.is_some_and(Verdict::is_replayable) => format!(
            "{to} is proven by a signature alone, which can be sent again, and got \
             {SIGNED_RECIPIENT_MAX} {kind}s in 24 h."
        ),
        _ => format!("{to} is not proven and got {} {kind}s in 24 h.", recipient.unwrap_or(pair)),
    }
}

fn entry_sentence(name: &str, list: &List, asked: &Asked<'_>) -> String {
    let entry = asked.recipient.address().and_then(|to| list.entry_for(to, asked.now));
    let Some(entry) = entry else { return format!("It stands on the {name} list.") };
    let mut text = format!("{} stands on the {name} list", Shown::new(&entry.pattern.to_string()));
    if !entry.reason.is_empty() {
        text.push_str(&format!(": {}", Shown::new(&entry.reason)));
    }
    if entry.forged {
        text.push_str(" (even when forged)");
    }
    text.push('.');
    text
}

/// What would have changed it, as sentences for `explain`; none where nothing is judged.
pub fn otherwise(asked: &Asked<'_>, settled: &Settled) -> Vec<String> {
    let Some(verdict) = asked.verdict else { return Vec::new() };
    let to = Shown::new(&asked.recipient.to_string());
    let domain = asked.recipient.domain().map(ToString::to_string).unwrap_or_default();
    let mut ways = Vec::new();
    match settled.reason {
        Reason::LimitPair | Reason::LimitRecipient => {
            ways.push("It would go out once 24 h have passed since the earlier ones.".to_owned());
        }
        Reason::DenyList => {
            ways.push("It would be judged without its entry on the deny list.".to_owned())
        }
        Reason::ConfiguredRule => ways.push("It would be judged without that rule.".to_owned()),
        _ => {}
    }
    match verdict {
        Verdict::Authenticated { scope: Scope::Address, .. } => ways.push(format!(
            "It would be held if SPF of {domain} failed, or if {domain} published DMARC and nothing passed."
        )),
        Verdict::Authenticated { scope: Scope::DomainOnly, .. } => {
            ways.push(format!("SPF pass with {to} as MAIL FROM, or a signed From of {to}, would prove it."));
        }
        Verdict::Failed { .. } => {
            ways.push(format!(
                "SPF pass with {to} as MAIL FROM, or a DKIM signature of {domain} over a From of {to}, would prove it."
            ));
            ways.push(format!("An allow-list entry for {domain} marked `forged`, with an expiry, would let it out."));
        }
        Verdict::Unauthenticated | Verdict::Unresolved | Verdict::Unknown { .. } => {
            ways.push(format!("An allow-list entry for {to} or {domain} would let it out without limit."));
        }
    }
    let gaps = asked.evidence.gaps.iter().chain(&asked.case.original.gaps).chain(asked.gaps);
    // Why: what embeds nothing brings no results along, whoever stamps them.
    let embeds = asked.case.original.border.is_some();
    let gaps = gaps.filter(|gap| gap.cause != GapCause::NoAuthResults || embeds);
    // Why: a host that nobody declared is the commonest fault of a set-up, and looks like a forgery.
    if asked.case.original.border.as_ref().is_some_and(|border| border.end == End::Foreign) {
        let host = "If the host of its topmost Received line is ours, name it in `local.hosts`.";
        ways.push(host.to_owned());
    }
    for remedy in gaps.filter_map(remedy) {
        if !ways.iter().any(|way| way == remedy) {
            ways.push(remedy.to_owned());
        }
    }
    ways
}

fn remedy(gap: &Gap) -> Option<&'static str> {
    match gap.cause {
        GapCause::NoTap => {
            Some("A tap on the inbound mail would know who sent the message it answers.")
        }
        GapCause::NoAuthResults => Some(
            "An inbound filter that stamps Authentication-Results, named in `local.authserv_ids`, would say it.",
        ),
        GapCause::NotStripped => Some(
            "Let the border remove foreign Authentication-Results of our id, then set `local.authserv_stripped`.",
        ),
        GapCause::BehindRelay => {
            Some("Let the gateway stamp Authentication-Results, or tap the mail before it.")
        }
        GapCause::Truncated => Some("A greater `outbound.inspect_max` would have read all of it."),
        GapCause::Dns => Some("DNS that answers would decide it."),
        GapCause::NotInStore
        | GapCause::Pending
        | GapCause::NoKey
        | GapCause::NotEvaluated
        | GapCause::Store => None,
    }
}
