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
use crate::judge::correlation::{MatchedBy, Standing, Subject};
use crate::judge::decision::{Action, Decision, LoopFinding};
use crate::judge::evidence::{
    Alignment, DmarcPolicy, DomainFacts, Evidence, Findings, Gap, Receives, RecipientEvidence,
    Source, SpfScope,
};
use crate::judge::original::{FoundAs, Key, NamedBy, Origin, Original};
use crate::judge::tell::cause_words;
use crate::mail::address::{Address, Domain, ForwardPath};
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
        let colon = if signal.detail.is_empty() { "" } else { ": " };
        page.item(&format!("{}{colon}{}{standard}", signal.id, signal.detail));
    }
    if case.signals.is_empty() {
        page.item("no sign of an automatic message");
    }
    if let (Some(origin), Some(border)) = (case.origin, &case.border) {
        page.line("Whose it is", &whose(origin, border));
    }
    if case.class.guarded() != Guarded::No {
        original(&mut page, &case.original);
    }
    let recipients = place.envelope.recipients.iter().zip(&explained.decisions).enumerate();
    for (index, (recipient, decision)) in recipients {
        page.heading(&format!("To {}", Shown::new(&recipient.path.to_string())));
        found(&mut page, explained.evidence.recipients.get(index), &recipient.path, decision);
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
    format!("{whose} ({})", came(border))
}

/// How far a header can be believed, and who gave us the message by it.
fn came(border: &Border) -> String {
    match &border.end {
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
    }
}

/// The subject message, as far as the response shows it.
fn original(page: &mut Page, original: &Original) {
    page.line("It answers", &answered(original));
    if !original.keys.is_empty() {
        let keys: Vec<String> = original.keys.iter().map(named).collect();
        page.item(&format!("named by {}", keys.join(", ")));
    }
    if !original.failed_recipients.is_empty() {
        let shown = |to: &Address| Shown::new(to.as_str()).into_string();
        let failed: Vec<String> = original.failed_recipients.iter().map(shown).collect();
        page.item(&format!("about {}", failed.join(", ")));
    }
    if let Some(border) = &original.border {
        page.item(&format!("by its header {}", came(border)));
    }
    for sign in original.kind.list.iter().chain(&original.kind.automatic) {
        page.item(&format!("it was list traffic, or itself automatic: {}", Shown::new(sign)));
    }
}

fn named(key: &Key) -> String {
    let text = match key {
        Key::QueueId { host, id } if host.is_empty() => format!("the queue id {id}"),
        Key::QueueId { host, id } => format!("the queue id {id} at {host}"),
        Key::MessageId { id, named_by } => {
            let by = match named_by {
                NamedBy::EmbeddedHeader => "its own header",
                NamedBy::OriginalMessageId => "Original-Message-ID",
                NamedBy::InReplyTo => "In-Reply-To",
                NamedBy::ExchangeParent => "X-MS-Exchange-Parent-Message-Id",
                NamedBy::References => "References",
                NamedBy::Text => "the quoted text",
            };
            format!("<{id}> in {by}")
        }
        Key::EnvelopeId(id) => format!("the envelope id {id}"),
    };
    Shown::new(&text).into_string()
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

/// The records of inbound mail that were found for this recipient, and what stands in them.
fn found(
    page: &mut Page,
    known: Option<&RecipientEvidence>,
    recipient: &ForwardPath,
    decision: &Decision,
) {
    let Some(answered) = known.and_then(|known| known.answered.as_ref()) else { return };
    let by = match (answered.by, &answered.id) {
        (MatchedBy::QueueId, Some(id)) => format!("its queue id {id}"),
        (MatchedBy::MessageId, Some(id)) => format!("its Message-ID <{id}>"),
        (MatchedBy::EnvelopeId, Some(id)) => format!("its envelope id {id}"),
        (MatchedBy::Pair, None) => {
            "its two ends: it went from this recipient to who answers, just before".to_owned()
        }
        (by, _) => by.as_str().to_owned(),
    };
    let count = match answered.candidates {
        1 => "1 record came into question".to_owned(),
        many => format!("{many} records came into question"),
    };
    page.line("Found", &format!("by {}; {count}", Shown::new(&by)));
    if answered.recipient == Standing::Stranger {
        page.item(&format!(
            "no answer to it goes to {}: neither its MAIL FROM, From, Sender nor Reply-To names him",
            Shown::new(&recipient.to_string())
        ));
    }
    for (index, subject) in answered.subjects.iter().enumerate() {
        record(page, subject, decision.subject == Some(index));
    }
    let in_question = u32::try_from(answered.subjects.len()).unwrap_or(u32::MAX);
    if in_question > 1 {
        page.item("these cannot be told apart, so the worst of them decides");
    }
}

/// One record of inbound mail.
fn record(page: &mut Page, subject: &Subject, decides: bool) {
    let queued = subject.queue_id.as_ref().map(|id| format!(" as {}", Shown::new(id)));
    let text = format!(
        "by the {} tap on {}{}, {}, from <{}>{}",
        subject.tap.as_str(),
        Shown::new(&subject.host),
        queued.unwrap_or_default(),
        subject.arrived,
        Shown::new(&subject.mail_from.to_string()),
        if decides { "; this one decides" } else { "" },
    );
    page.line("Recorded", &text);
    if subject.pending {
        page.item("still being verified");
    }
    for sign in subject.kind.list.iter().chain(&subject.kind.automatic) {
        page.item(&format!("it was list traffic, or itself automatic: {}", Shown::new(sign)));
    }
    if let Some(score) = subject.spam {
        page.item(&format!("{score} points of the spam filter"));
    }
    for findings in &subject.findings {
        page.item(&source(findings));
        results(findings).iter().for_each(|line| page.item(&format!("  {line}")));
    }
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
        (_, Some(sign)) => {
            format!("own submission, which proves addresses of ours only: {}", Shown::new(sign))
        }
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
        let many = format!(
            ", and {} recipients got this signature without SPF: sent again, it proves the domain at \
             the most",
            dkim.recipients
        );
        let many = if dkim.is_replayed() { many } else { String::new() };
        format!("dkim={}{}{header}{many}{reason}", dkim.result, named(&dkim.domain))
    });
    let dmarc = findings
        .dmarc
        .iter()
        .map(|dmarc| format!("dmarc={}{}", dmarc.result, named(&dmarc.from_domain)));
    let sign = findings
        .author_sign
        .map(|sign| format!("{}: neither DKIM nor DMARC proves who wrote it", sign.as_str()));
    let unsigned = findings.evaluated.dkim && findings.dkim.is_empty();
    let unsigned = unsigned.then(|| "dkim: it bears no signature".to_owned());
    spf.chain(dkim).chain(unsigned).chain(dmarc).chain(sign).collect()
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
                let strict = |mode, name| match mode {
                    Alignment::Strict => format!(" {name}=s"),
                    Alignment::Relaxed => String::new(),
                };
                let dkim = strict(record.dkim_alignment, "adkim");
                let spf = strict(record.spf_alignment, "aspf");
                format!(
                    "{domain} publishes DMARC p={policy}{dkim}{spf} (at {})",
                    record.published_at
                )
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
    use crate::judge::correlation::Answered;
    use crate::judge::decision::{Reason, Verdict};
    use crate::judge::evidence::{
        AuthResult, DkimFinding, DmarcFinding, Evaluated, GapCause, SentBefore, SpfFinding,
    };
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::loops::LoopEvidence;
    use crate::judge::original::SubjectKind;
    use crate::judge::read_alone;
    use crate::judge::site::Site;
    use crate::judge::subject::{SpamScore, TapKind};
    use crate::mail::address::ReversePath;
    use crate::mail::envelope::{Client, MailFrom, Parameters, Recipient};
    use crate::mail::header::Completeness;
    use crate::mail::message::Message;
    use crate::mail::time::Timestamp;

    /// A limited auto-reply, explained for people and for programs.
    fn page(counts: bool) -> (String, Value) {
        page_of(counts, Evidence::default(), None)
    }

    fn page_of(counts: bool, evidence: Evidence, subject: Option<usize>) -> (String, Value) {
        let message = Message::new("Auto-Submitted: auto-replied\n\nAway.\n", Completeness::Whole);
        let decision = Decision {
            verdict: Some(Verdict::Unauthenticated),
            gaps: vec![Gap::new(GapCause::NotEvaluated, "nothing of DKIM")],
            subject,
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
            evidence,
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

    fn joe() -> Address {
        Address::parse("joe@bank.example").unwrap()
    }

    /// What the tap found of a message in joe's name that somebody else signed.
    fn seen() -> Findings {
        let bank = || Domain::parse("bank.example");
        Findings {
            spf: vec![SpfFinding {
                address: Some(joe()),
                ..SpfFinding::of(AuthResult::Fail, bank())
            }],
            dkim: vec![DkimFinding {
                recipients: 33,
                ..DkimFinding::of(AuthResult::Pass, Domain::parse("shop.example"))
            }],
            dmarc: vec![DmarcFinding { result: AuthResult::Fail, from_domain: bank() }],
            evaluated: Evaluated::ALL,
            ..Findings::of(Source::Tap)
        }
    }

    /// A record of it.
    fn subject(queue_id: &str, findings: Vec<Findings>) -> Subject {
        Subject {
            id: None,
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: Some(queue_id.to_owned()),
            arrived: Timestamp::from_millis(1_795_282_739_000),
            pending: false,
            mail_from: ReversePath::Address(joe()),
            kind: SubjectKind { list: Some("List-Id: <l.example>".to_owned()), automatic: None },
            spam: SpamScore::parse("5.1"),
            findings,
            gaps: Vec::new(),
        }
    }

    fn evidence(answered: Answered) -> Evidence {
        Evidence {
            recipients: vec![RecipientEvidence {
                sent_before: Ok(SentBefore::default()),
                loops: LoopEvidence::default(),
                answered: Some(answered),
                gaps: Vec::new(),
            }],
            ..Evidence::default()
        }
    }

    /// Goal: of the recorded message that decides the page names everything: which tap, when, by
    /// which key, how many there were, and each result with its domain.
    #[test]
    fn the_record_that_decides_is_named() {
        let answered = Answered {
            by: MatchedBy::MessageId,
            id: Some("m1@bank.example".to_owned()),
            candidates: 3,
            recipient: Standing::ReplyTarget,
            subjects: vec![subject("4AB", Vec::new()), subject("4AC", vec![seen()])],
        };
        let (text, _) = page_of(false, evidence(answered.clone()), Some(1));
        for words in [
            "by its Message-ID <m1@bank.example>; 3 records came into question",
            "by the milter tap on mx.uni.example as 4AB, 2026-11-21T17:38:59.000Z, from \
             <joe@bank.example>\n",
            "as 4AC, 2026-11-21T17:38:59.000Z, from <joe@bank.example>; this one decides",
            "the worst of them decides",
            "spf=fail of MAIL FROM for bank.example",
            "dkim=pass for shop.example, and 33 recipients got this signature without SPF",
            "dmarc=fail for bank.example",
            "it was list traffic, or itself automatic: List-Id: <l.example>",
            "5.1 points",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        let stranger = Answered {
            by: MatchedBy::Pair,
            id: None,
            candidates: 1,
            recipient: Standing::Stranger,
            subjects: vec![Subject { pending: true, ..subject("4AD", Vec::new()) }],
        };
        let (text, _) = page_of(false, evidence(stranger), None);
        for words in
            ["by its two ends", "1 record came", "no answer to it goes to joe@bank", "still being"]
        {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!text.contains("decides"), "{text}");
    }
}
