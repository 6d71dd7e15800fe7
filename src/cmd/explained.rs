//! What `explain` prints: for people as a good colleague would say it, for programs as JSON.
//!
//! `explain --format json` has the form of the contract: class, signals, recipients, each with
//! rcpt, verdict, verdict_by, evidence, gaps, loop, action, rule, reason; more may be added.

use serde_json::{Value, json};

use crate::audit::record::RecordedLoop;
use crate::audit::seen::RecordedEvidence;
use crate::cmd::paint::{Paint, Tone};
use crate::config::Config;
use crate::guard::inquiry::Explained;
use crate::judge::Case;
use crate::judge::border::{Border, End, Inside};
use crate::judge::classify::{Class, DsnAction, Guarded};
use crate::judge::decision::{Action, Decision, LoopFinding};
use crate::judge::evidence::{
    DmarcPolicy, DomainFacts, Evidence, Findings, Gap, Receives, Source, SpfScope,
};
use crate::judge::original::{FoundAs, Origin, Original};
use crate::judge::tell::cause_words;
use crate::mail::address::{Domain, ForwardPath};
use crate::mail::envelope::Envelope;
use crate::mail::shown::Shown;

/// What is explained, beside the decision.
pub struct Place<'a> {
    /// The configuration it was decided under.
    pub config: &'a Config,
    /// The envelope it was decided for.
    pub envelope: &'a Envelope,
}

/// The decision for people.
pub fn text(explained: &Explained, place: &Place<'_>, paint: Paint) -> String {
    let mut page = Page { text: String::new(), paint };
    let case = &explained.case;
    page.line("What it is", &what_it_is(case));
    for signal in &case.signals {
        let standard = match signal.standard.is_empty() {
            true => String::new(),
            false => format!("  ({})", signal.standard),
        };
        page.item(&format!("{}: {}{standard}", signal.id, signal.detail));
    }
    if case.signals.is_empty() {
        page.item("no sign of an automatic message");
    }
    if let (Some(origin), Some(border)) = (case.origin, &case.border) {
        page.line("Whose it is", &whose(origin, border));
    }
    if case.class.guarded() != Guarded::No {
        page.line("It answers", &answered(&case.original));
    }
    let recipients = place.envelope.recipients.iter().zip(&explained.decisions);
    for (recipient, decision) in recipients {
        page.heading(&format!("To {}", Shown::new(&recipient.path.to_string())));
        known(&mut page, explained, &recipient.path, decision);
        outcome(&mut page, decision);
    }
    if !place.config.enforces() {
        page.heading("");
        page.line(
            "Mode",
            "observe: everything is delivered, and the record says what would have been done",
        );
    }
    page.text
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn heading(&mut self, words: &str) {
        self.text.push_str(&format!("\n{}\n", self.paint.paint(Tone::Strong, words)));
    }

    fn line(&mut self, name: &str, words: &str) {
        let name = self.paint.paint(Tone::Strong, &format!("{name:<13}"));
        self.text.push_str(&format!("{name} {words}\n"));
    }

    fn item(&mut self, words: &str) {
        self.text.push_str(&format!("{:<13} - {words}\n", ""));
    }
}

fn what_it_is(case: &Case) -> String {
    let what = match case.class {
        Class::Personal => "a message of a person, or we cannot tell",
        Class::AutoReply => "an automatic reply",
        Class::Challenge => "a challenge: \"confirm that you are human\"",
        Class::Dsn(DsnAction::Failed) => "a delivery report: delivery failed",
        Class::Dsn(DsnAction::Delayed) => "a delivery report: delivery is delayed",
        Class::Dsn(DsnAction::Delivered) => "a delivery report: delivered",
        Class::Dsn(DsnAction::Relayed) => "a delivery report: relayed",
        Class::Dsn(DsnAction::Expanded) => "a delivery report: expanded",
        Class::Mdn => "a disposition notification: a receipt or a refusal by the reader's program",
        Class::DmarcReport => "a DMARC or TLS report",
        Class::FeedbackReport => "an abuse report",
        Class::List => "list traffic",
        Class::Bulk => "bulk mail",
        Class::Notification => "a notification that a machine sends unasked",
    };
    let subject = case.subject.as_deref().unwrap_or("(no subject)");
    format!("{what} ({}), \"{}\"", case.class, Shown::at_most(subject, 70))
}

fn whose(origin: Origin, border: &Border) -> String {
    let whose = match origin {
        Origin::Ours => "ours",
        Origin::Relayed => "not ours: it came from outside and is forwarded",
    };
    let sign = match &border.end {
        End::NoLine => "it has no Received line".to_owned(),
        End::Foreign => {
            "its topmost Received line is of a host that `local.hosts` does not name".to_owned()
        }
        End::Inside(Inside::Made) => "no Received line from outside".to_owned(),
        End::Inside(Inside::Authenticated) => "handed in by an authenticated user".to_owned(),
        End::Inside(Inside::Reinjected) => {
            "handed in from inside, with lines of others below".to_owned()
        }
        End::Outside(line) => format!("{} took it from {}", Shown::new(&line.by), line.ip),
        End::Unsaid => "one of our Received lines does not say who the client was".to_owned(),
        End::BehindRelay { relay } => format!("it came through the gateway {relay}"),
        End::MadeByRelay { relay } => {
            format!("it came from the gateway {relay}, and nobody gave it to the gateway")
        }
    };
    format!("{whose} ({sign})")
}

fn answered(original: &Original) -> String {
    let found = match original.found_as {
        FoundAs::Rfc822 => "embedded whole",
        FoundAs::Rfc822Headers => "its header is embedded",
        FoundAs::Text => "quoted in the text",
        FoundAs::Reference => "only named",
        FoundAs::None => return "a message that it does not name".to_owned(),
    };
    let id =
        original.message_id().map_or("a message without id".to_owned(), |id| format!("<{id}>"));
    let mut text = format!("{} ({found})", Shown::new(&id));
    if let Some(from) = original.from.first() {
        text.push_str(&format!(", said to be from {}", Shown::new(from.as_str())));
    }
    if let Some(path) = &original.return_path {
        text.push_str(&format!(", return path <{}>", Shown::new(&path.to_string())));
    }
    text
}

fn known(page: &mut Page, explained: &Explained, recipient: &ForwardPath, decision: &Decision) {
    let evidence = &explained.evidence;
    let mut any = false;
    for findings in &evidence.findings {
        page.line("Known", &source(findings));
        any = true;
        for line in results(findings) {
            page.item(&line);
        }
    }
    if let Some(domain) = recipient.domain()
        && let Some(facts) = evidence.domains.get(domain)
    {
        page.line(if any { "" } else { "Known" }, &published(domain, facts));
    }
    let gaps = gaps(evidence, &explained.case.original, decision);
    for (index, gap) in gaps.into_iter().enumerate() {
        let name = if index == 0 { "Not known" } else { "" };
        page.line(name, &format!("{} ({})", cause_words(gap.cause), gap.detail));
    }
}

/// Everything that could not be known, each gap once.
fn gaps<'a>(
    evidence: &'a Evidence,
    original: &'a Original,
    decision: &'a Decision,
) -> Vec<&'a Gap> {
    let mut gaps: Vec<&Gap> = Vec::new();
    for gap in evidence.gaps.iter().chain(&original.gaps).chain(&decision.gaps) {
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
    gaps
}

fn source(findings: &Findings) -> String {
    match (&findings.source, &findings.own_submission) {
        (_, Some(sign)) => format!("own submission: {}", Shown::new(sign)),
        (Source::AuthResults { authserv_id }, None) => {
            format!("Authentication-Results of {}, above the border line", Shown::new(authserv_id))
        }
        (Source::OwnReceived, None) => "our own Received lines".to_owned(),
        (Source::Tap, None) => "verified by the tap when it came in".to_owned(),
        (Source::Arc { sealer }, None) => {
            format!("sealed (ARC) by {}, whose seals are believed", Shown::new(sealer))
        }
        (Source::Reverified, None) => {
            "verified now, from the embedded message and our border line".to_owned()
        }
    }
}

fn results(findings: &Findings) -> Vec<String> {
    let named = |domain: &Option<Domain>| {
        domain.as_ref().map_or(String::new(), |domain| format!(" for {domain}"))
    };
    let spf = findings.spf.iter().map(|spf| {
        let scope = match spf.scope {
            SpfScope::MailFrom => "MAIL FROM",
            SpfScope::Helo => "HELO, which proves nobody",
            SpfScope::Unnamed => "an identity it does not name",
        };
        let everybody = spf.everybody.as_ref().map(|term| {
            format!(", by `{}`, which lets everybody in and proves nobody", Shown::new(term))
        });
        let guessed = if spf.guessed { ", of a record that was guessed" } else { "" };
        let everybody = everybody.unwrap_or_default();
        format!("spf={} of {scope}{}{everybody}{guessed}", spf.result, named(&spf.domain))
    });
    let dkim = findings.dkim.iter().map(|dkim| {
        let reason = dkim.reason.as_ref().map(|reason| format!(": {}", Shown::new(reason)));
        let header = if dkim.header_only { ", right for the header alone" } else { "" };
        let reason = reason.unwrap_or_default();
        format!("dkim={}{}{header}{reason}", dkim.result, named(&dkim.domain))
    });
    let dmarc = findings
        .dmarc
        .iter()
        .map(|dmarc| format!("dmarc={}{}", dmarc.result, named(&dmarc.from_domain)));
    let sign = findings.author_sign.map(|sign| {
        format!("{}: its From field shows different readers different authors", sign.as_str())
    });
    spf.chain(dkim).chain(dmarc).chain(sign).collect()
}

fn published(domain: &Domain, facts: &DomainFacts) -> String {
    let dmarc = match &facts.dmarc {
        Ok(dmarc) => match &dmarc.record {
            None => format!("{domain} publishes no DMARC"),
            Some(record) => {
                let policy = match record.policy {
                    DmarcPolicy::None => "none",
                    DmarcPolicy::Quarantine => "quarantine",
                    DmarcPolicy::Reject => "reject",
                };
                format!("{domain} publishes DMARC p={policy} (at {})", record.published_at)
            }
        },
        Err(gap) => format!("DMARC of {domain} is not known: {}", gap.detail),
    };
    let receives = match &facts.receives {
        Ok(Receives::Yes) => return dmarc,
        Ok(Receives::NullMx) => "takes no mail (null MX)".to_owned(),
        Ok(Receives::NoSuchDomain) => "does not exist".to_owned(),
        Err(gap) => format!("may or may not take mail: {}", gap.detail),
    };
    format!("{dmarc}; {domain} {receives}")
}

/// Why: explaining asks no running daemon, and its counters are in the daemon's memory.
const UNCOUNTED: &str =
    "what went out before is not counted here: the daemon holds it where a limit is used up";

fn outcome(page: &mut Page, decision: &Decision) {
    if let Some(verdict) = &decision.verdict {
        let by = verdict.by().map(|by| format!(" ({by})")).unwrap_or_default();
        page.line("Verdict", &format!("{}{by}", verdict.kind()));
    }
    page.line("Rule", &format!("{}  reason {}", decision.rule, decision.reason));
    let (tone, word) = match decision.action {
        Action::Deliver => (Tone::Good, "DELIVERED"),
        Action::Quarantine => (Tone::Held, "HELD in quarantine"),
        Action::Reject => (Tone::Held, "REJECTED with 550"),
        Action::Discard => (Tone::Held, "DISCARDED"),
        Action::Defer => (Tone::Waits, "DEFERRED with 451"),
    };
    page.line("It would be", &page.paint.paint(tone, word));
    page.line("Because", &decision.text);
    if let Some(found) = &decision.loop_finding {
        page.line("Loop", &rounds(found));
    }
    if decision.counts {
        page.line("Limits", UNCOUNTED);
    }
    if let Some(would) = decision.would {
        page.line("Enforcing", &format!("it would be: {would}"));
    }
    for (index, way) in decision.otherwise.iter().enumerate() {
        page.line(if index == 0 { "Otherwise" } else { "" }, way);
    }
}

/// A loop in one line: how it was found, between whom, how often, since when.
fn rounds(found: &LoopFinding) -> String {
    let LoopFinding { kind, laps, hops, between, first_seen, last_seen, stopped } = found;
    let ends: Vec<String> = between.iter().map(|end| Shown::new(end).into_string()).collect();
    let last = last_seen.map_or(String::new(), |last| format!(", last seen {last}"));
    format!(
        "{}: {}; laps {laps}, hops {hops}, first seen {first_seen}{last}, stopped {stopped}",
        kind.as_str(),
        ends.join(" and ")
    )
}

/// The decision for programs.
pub fn json(explained: &Explained, envelope: &Envelope) -> Value {
    let case = &explained.case;
    let evidence = &explained.evidence;
    let recipients = envelope.recipients.iter().zip(&explained.decisions).enumerate();
    let recipients: Vec<Value> = recipients
        .map(|(index, (recipient, decision))| {
            let seen = RecordedEvidence::new(evidence, index, |_| false);
            json!({
                "rcpt": recipient.path.to_string(),
                "verdict": decision.verdict.as_ref().map(|verdict| verdict.kind().as_str()),
                "verdict_by": decision.verdict.as_ref().and_then(|verdict| verdict.by()),
                "evidence": seen,
                "gaps": gaps(evidence, &case.original, decision),
                "limited": decision.counts,
                "loop": decision.loop_finding.as_ref().map(RecordedLoop::new),
                "action": decision.action.as_str(),
                "would": decision.would.map(|would| would.as_str()),
                "rule": decision.rule,
                "reason": decision.reason.as_str(),
                "text": decision.text,
                "otherwise": decision.otherwise,
            })
        })
        .collect();
    json!({
        "class": case.class.as_str(),
        "dsn_action": case.class.dsn_action().map(|action| action.as_str()),
        "signals": case.signals,
        "origin": case.origin.map(|origin| origin.as_str()),
        "subject_message": {
            "message_id": case.original.message_id(),
            "return_path": case.original.return_path.as_ref().map(ToString::to_string),
            "found_as": case.original.found_as.as_str(),
        },
        // What went out before stands in a running daemon's memory, and is not counted here.
        "limits_counted": false,
        "recipients": recipients,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::world;
    use crate::judge::decision::{Reason, Verdict};
    use crate::judge::evidence::GapCause;
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::read_alone;
    use crate::judge::site::Site;
    use crate::mail::address::{Address, ReversePath};
    use crate::mail::envelope::{Client, MailFrom, Parameters, Recipient};
    use crate::mail::header::Completeness;
    use crate::mail::message::Message;

    /// A limited auto-reply, explained for people and for programs.
    fn page(counts: bool) -> (String, Value) {
        let message = Message::new("Auto-Submitted: auto-replied\n\nAway.\n", Completeness::Whole);
        let decision = Decision {
            verdict: Some(Verdict::Unauthenticated),
            gaps: vec![Gap::new(GapCause::NotEvaluated, "nothing of DKIM")],
            subject: None,
            loop_finding: None,
            action: Action::Deliver,
            would: None,
            counts,
            rule: "balanced.auto-reply.unauthenticated".to_owned(),
            reason: Reason::Unauthenticated,
            text: "Nothing proves it.".to_owned(),
            otherwise: Vec::new(),
        };
        let explained = Explained {
            case: read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32])),
            evidence: Evidence::default(),
            decisions: vec![decision],
        };
        let envelope = Envelope {
            client: Client::default(),
            mail: MailFrom {
                path: ReversePath::Null,
                path_text: "<>".to_owned(),
                parameters: Parameters::default(),
            },
            recipients: vec![Recipient {
                path: ForwardPath::Address(Address::parse("joe@bank.example").unwrap()),
                path_text: "<joe@bank.example>".to_owned(),
                parameters: Parameters::default(),
            }],
        };
        let config = Config::load(None, &world()).unwrap();
        let place = Place { config: &config, envelope: &envelope };
        (text(&explained, &place, Paint::plain()), json(&explained, &envelope))
    }

    #[test]
    fn limits_are_said_to_be_uncounted_where_one_matters() {
        let (text, value) = page(true);
        assert!(text.contains("what went out before is not counted here"), "{text}");
        assert_eq!(value["limits_counted"], false);
        assert_eq!(value["recipients"][0]["limited"], true);
        assert!(!page(false).0.contains("not counted"));
    }

    #[test]
    fn what_could_not_be_known_of_a_recipient_is_shown() {
        let (text, value) = page(false);
        assert!(text.contains("(nothing of DKIM)"), "{text}");
        let gaps = value["recipients"][0]["gaps"].as_array().unwrap();
        assert_eq!(gaps.last().unwrap()["detail"], "nothing of DKIM");
    }
}
