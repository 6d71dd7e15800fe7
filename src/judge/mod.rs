//! The decision, pure: what a message is, what it answers, whether its recipient is genuine, and
//! what to do.
//!
//! Two doors and no others. `read` says what a message says about itself; what to ask DNS and the
//! store is known only then. `decide` takes the answers and gives one `Decision` for each
//! recipient. No I/O, no clock, no log: a log line is a `Reason`, a moment is an argument.

pub mod alignment;
pub mod arrival;
pub mod border;
pub mod classify;
pub mod correlation;
pub mod decide;
pub mod decision;
pub mod evidence;
pub mod exim;
pub mod failure;
pub mod findings;
pub mod fingerprint;
pub mod keys;
pub mod lists;
pub mod loops;
pub mod original;
pub mod policy;
pub mod posted;
pub mod quote;
pub mod reading;
pub mod rewritten;
pub mod ruling;
pub mod signs;
pub mod site;
pub mod subject;
pub mod tell;
pub mod trace;
pub mod verdict;
pub mod weighed;
pub mod words;
pub mod words_of_failure;
pub mod words_of_reply;

use std::ops::Range;

use crate::judge::border::{Border, End, Trace};
use crate::judge::classify::{Class, Guarded, Signal, classify};
use crate::judge::evidence::{Gap, GapCause};
use crate::judge::fingerprint::{Fingerprint, FingerprintKey};
use crate::judge::loops::marks::{ForwardedOriginal, LoopMarks, via};
use crate::judge::loops::weak::weak;
use crate::judge::original::{Origin, Original};
use crate::judge::reading::Reading;
use crate::judge::rewritten::is_srs;
use crate::judge::signs::Mark;
use crate::judge::site::Site;
use crate::judge::trace::{Lap, TRACE_FIELD, TraceKey};
use crate::mail::address::{Address, ForwardPath, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::header::{Completeness, Field, Fields, reverse_path};
use crate::mail::limits::{TAKEN_FOR_LINES_MAX, TRACES_READ_MAX, VIA_MAX};
use crate::mail::message::{Message, View};
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;

/// What a message says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What kind of message it is.
    pub class: Class,
    /// The signs that led to the class.
    pub signals: Vec<Signal>,
    /// Whose response it is; `None` for what is no response and no report.
    pub origin: Option<Origin>,
    /// The subject message, as far as a response or report shows it; empty for everything else.
    pub original: Original,
    /// Who answers: the author of a response.
    pub responder: Option<Address>,
    /// Its own Message-ID, without angle brackets.
    pub message_id: Option<String>,
    /// How many Received lines it has.
    pub hops: u32,
    /// Traces of our own site, verified: it was here before.
    pub laps: Vec<Lap>,
    /// The date of its own topmost Received line; when it has none, its Date.
    pub date: Option<Timestamp>,
    /// Its subject, decoded and harmless.
    pub subject: Option<String>,
    /// What it keeps when it is forwarded.
    pub fingerprint: Fingerprint,
    /// What it keeps even where forwarders rewrite it.
    pub weak: Fingerprint,
    /// What its header says of the mailboxes it went through.
    pub marks: LoopMarks,
    /// How far its own header can be believed; `None` for what is no response and no report.
    pub border: Option<Border>,
    /// What could not be known of it, and why.
    pub gaps: Vec<Gap>,
}

/// The keys that reading needs.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// Of fingerprints.
    pub fingerprint: &'a FingerprintKey,
    /// Of our traces.
    pub trace: &'a TraceKey,
    /// Whose traces count as ours.
    pub loop_site: &'a str,
}

/// Reads a message that came with an envelope. The first door.
pub fn read(envelope: &Envelope, message: &Message, site: &Site, keys: &Keys<'_>) -> Case {
    let view = message.view();
    let mut case = case(Some(envelope.reverse_path()), message, &view, site, keys.fingerprint);
    case.laps = laps(&view.fields, keys);
    case.marks.since_ours = since_ours(&view.fields, keys);
    case.marks.forwarded = forwarded(&case, message, keys);
    if case.class.dsn_action().is_some() {
        let to = view.fields.all("to").flat_map(Field::addresses);
        case.marks.to = to.take(VIA_MAX).collect();
    }
    case
}

/// Traces of our site, from the newest to the oldest.
fn laps(fields: &Fields<'_>, keys: &Keys<'_>) -> Vec<Lap> {
    let traces = fields.all(TRACE_FIELD).take(TRACES_READ_MAX);
    traces.filter_map(|trace| Lap::read(&trace.text(), keys.loop_site, keys.trace)).collect()
}

/// Received lines above the newest trace of ours.
fn since_ours(fields: &Fields<'_>, keys: &Keys<'_>) -> Option<u32> {
    let ours = |field: &Field<'_>| {
        field.is(TRACE_FIELD) && Lap::read(&field.text(), keys.loop_site, keys.trace).is_some()
    };
    let newest = fields.iter().position(ours)?;
    let above = fields.iter().take(newest).filter(|field| field.is("received"));
    u32::try_from(above.count()).ok()
}

/// Whether it reports the failure of a message that one of our mailboxes forwarded: our own trace
/// in the embedded header says that we relayed it to the address that failed, and the lines around
/// it whom it had been for.
fn forwarded(case: &Case, message: &Message, keys: &Keys<'_>) -> Option<ForwardedOriginal> {
    case.class.dsn_action()?;
    let embedded = message.bytes().get(case.original.embedded.clone()?)?;
    let fields = Fields::read(embedded);
    // Why: a person who sends a message on is told of its failure, and forwards nothing by himself.
    if fields.has("resent-from") {
        return None;
    }
    let failed = &case.original.failed_recipients;
    let relayed = laps(&fields, keys).iter().any(|lap| {
        failed.iter().any(|to| lap.went_to(&ForwardPath::Address(to.clone()), keys.trace))
    });
    if !relayed {
        return None;
    }
    let named = Trace::of(&fields).lines.into_iter().filter_map(|line| {
        let recipient = line.recipient?;
        Address::parse(recipient.trim_matches(['<', '>']))
    });
    let through = via(&fields).into_iter().map(|via| via.mailbox);
    let mut by: Vec<Address> = Vec::new();
    for mailbox in through.chain(named).take(VIA_MAX) {
        let known = failed.iter().chain(&by).any(|other| other.same_mailbox(&mailbox));
        if !known {
            by.push(mailbox);
        }
    }
    (!by.is_empty()).then_some(ForwardedOriginal { by })
}

/// Reads a message of which only the bytes are left: its reverse-path is that of its topmost
/// Return-Path field, and unknown without one.
pub fn read_alone(message: &Message, site: &Site, key: &FingerprintKey) -> Case {
    let view = message.view();
    let path = view.fields.first("return-path").and_then(|field| reverse_path(&field.text()));
    case(path.as_ref(), message, &view, site, key)
}

fn case(
    path: Option<&ReversePath>,
    message: &Message,
    view: &View<'_>,
    site: &Site,
    key: &FingerprintKey,
) -> Case {
    let reading = Reading::new(view, path);
    let (class, mut signals) = classify(&reading);
    let fields = &view.fields;
    let fingerprint = Fingerprint::of(view, message.bytes(), key);
    let mut case = Case {
        class,
        signals: Vec::new(),
        origin: None,
        original: Original::default(),
        responder: None,
        message_id: fields.first("message-id").and_then(|id| id.message_ids().into_iter().next()),
        hops: u32::try_from(fields.all("received").count()).unwrap_or(u32::MAX),
        laps: Vec::new(),
        date: None,
        subject: fields.first("subject").map(|_| Shown::new(&reading.subject).into_string()),
        fingerprint,
        weak: weak(view, fingerprint, key),
        marks: LoopMarks::default(),
        border: None,
        gaps: Vec::new(),
    };
    // Why: what is no response is asked no further.
    let trace = match class.guarded() {
        Guarded::No => &Trace::top_of(fields, TAKEN_FOR_LINES_MAX),
        Guarded::Response | Guarded::Report => reading.trace(),
    };
    case.marks = LoopMarks::of(fields, &trace.lines);
    case.date = trace.lines.first().and_then(|line| line.date);
    case.date = case.date.or_else(|| fields.first("date").and_then(Field::date));
    if message.completeness() == Completeness::Truncated {
        case.gaps.push(Gap::new(GapCause::Truncated, "only the beginning was read"));
    }
    if class.guarded() != Guarded::No {
        let border = trace.border(site);
        let (origin, sign) = origin(&reading, path, &border, site);
        signals.extend(sign);
        case.origin = Some(origin);
        case.border = Some(border);
        case.original = Original::of(&reading, class, site);
        let reaches_end = |range: &Range<usize>| range.end >= message.bytes().len();
        let is_cut = message.completeness() == Completeness::Truncated
            && case.original.embedded.as_ref().is_none_or(reaches_end);
        if is_cut {
            case.original
                .gaps
                .push(Gap::new(GapCause::Truncated, "it goes on where reading ended"));
        }
        case.responder = fields.author_addresses().next().cloned();
        case.responder = case.responder.or_else(|| path.and_then(ReversePath::address).cloned());
    }
    case.signals = signals;
    case
}

/// Whether a response was made by our systems or came from outside and is forwarded; with the sign
/// that shows it.
///
/// Why doubt means ours: a relayed response is not judged, so a network or gateway that somebody
/// forgot to declare would switch the guard off. So would our own gateways, whose bounces of forged
/// mail are like any of ours.
fn origin(
    reading: &Reading<'_>,
    path: Option<&ReversePath>,
    border: &Border,
    site: &Site,
) -> (Origin, Option<Signal>) {
    if let End::BehindRelay { relay } = &border.end {
        return (Origin::Relayed, Some(Signal::new("behind-relay", &relay.to_string(), "")));
    }
    if let Some(line) = border.line() {
        let shown = format!("{} at {}", line.ip, line.by);
        return match line.is_private() || line.is_named_ours(site) {
            true => (Origin::Ours, Some(Signal::new("forgotten-network", &shown, ""))),
            false => (Origin::Relayed, Some(Signal::new("border-line", &shown, "RFC 5321 §4.4"))),
        };
    }
    if reading.marks.has(Mark::Redirected) {
        return (Origin::Relayed, None);
    }
    let address = path.and_then(ReversePath::address);
    match address.filter(|address| is_srs(address.local()) && site.is_local(address)) {
        Some(address) => (Origin::Relayed, Some(Signal::new("own-srs", address.as_str(), ""))),
        None => (Origin::Ours, made_by_relay(border)),
    }
}

fn made_by_relay(border: &Border) -> Option<Signal> {
    match &border.end {
        End::MadeByRelay { relay } => Some(Signal::new("made-by-relay", &relay.to_string(), "")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::judge::fingerprint::Campaign;
    use crate::mail::envelope::{Client, MailFrom, Parameters};

    const KEY: FingerprintKey = FingerprintKey::new([3; 32]);

    const BOUNCE: &str = include_str!("../../tests/captures/bounce-postfix-relay-unknown.eml");
    const VACATION: &str = include_str!("../../tests/captures/vacation-pigeonhole-msgid.eml");
    const DELAYED: &str = include_str!("../../tests/captures/dsn-exim-delayed.eml");

    fn site() -> Site {
        Site {
            domains: [crate::mail::address::Domain::parse("ours.test").unwrap()].into(),
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            hosts: ["mx.ours.test".into()].into(),
            ..Site::default()
        }
    }

    fn alone(text: &str) -> Case {
        read_alone(&Message::new(text.to_owned(), Completeness::Whole), &site(), &KEY)
    }

    fn campaign_of(text: &str) -> Option<Campaign> {
        let message = Message::new(text.to_owned(), Completeness::Whole);
        Campaign::of_response(&ReversePath::Null, &message, &alone(text), &KEY)
    }

    fn from(path: ReversePath, text: &str) -> Case {
        let path_text = format!("<{path}>");
        let mail = MailFrom { path, path_text, parameters: Parameters::default() };
        let envelope = Envelope { client: Client::default(), mail, recipients: Vec::new() };
        let trace = TraceKey::new([4; 32]);
        let keys = Keys { fingerprint: &KEY, trace: &trace, loop_site: "here" };
        read(&envelope, &Message::new(text.to_owned(), Completeness::Whole), &site(), &keys)
    }

    #[test]
    fn the_envelope_outweighs_the_return_path_field() {
        let text = "Return-Path: <>\nSubject: On vacation\n\nhello\n";
        assert_eq!(alone(text).class, Class::AutoReply);
        let mailbox = ReversePath::Address(Address::parse("joe@ours.test").unwrap());
        assert_eq!(from(mailbox, text).class, Class::Personal);
        assert_eq!(from(ReversePath::Null, "Subject: On vacation\n\n").class, Class::AutoReply);
    }

    #[test]
    fn a_response_shows_who_answers_when_and_how_far_it_came() {
        let case = alone(VACATION);
        assert_eq!(case.responder.unwrap().as_str(), "alice@local.test");
        assert_eq!(case.original.message_id(), Some("orig-1@example.net"));
        assert!(case.message_id.unwrap().starts_with("dovecot-sieve-"));
        assert_eq!((case.origin, case.hops), (Some(Origin::Ours), 1));
        assert!(case.date.is_some() && case.border.is_some());
        assert!(campaign_of(VACATION).is_none() && campaign_of(BOUNCE).is_some());
        let received = "Received: by mx.ours.test id 1; Sat, 21 Nov 2026 10:00:00 +0000\n\
            Received: by mx.ours.test id 2; Sat, 21 Nov 2026 09:00:00 +0000\n";
        let case = alone(&format!("{received}Date: Sat, 21 Nov 2026 08:00:00 +0000\n{VACATION}"));
        assert_eq!(case.date.unwrap().to_string(), "2026-11-21T10:00:00.000Z");
        assert_eq!(case.hops, 3);
    }

    #[test]
    fn personal_mail_is_read_no_further_than_its_class() {
        let case =
            alone("From: joe@ours.test\nSubject: a\x1b[2Jb\nIn-Reply-To: <m@a.test>\n\nhello\n");
        assert_eq!(case.class, Class::Personal);
        assert_eq!(case.original, Original::default());
        assert_eq!((case.origin, case.border), (None, None));
        assert_eq!(campaign_of("From: joe@ours.test\n\nhello\n"), None);
        assert_eq!(case.subject.as_deref(), Some("a\\u{1b}[2Jb"));
    }

    #[test]
    fn whose_response_it_is() {
        let outside = "Received: from x (x [192.0.2.1]) by mx.ours.test (Postfix) id A\n";
        let inside = "Received: from app (app [127.0.0.1]) by mx.ours.test (Postfix) id A\n";
        let private = "Received: from app (app [10.0.0.7]) by mx.ours.test (Postfix) id A\n";
        let named =
            "Received: from app (app.ours.test [192.0.2.8]) by mx.ours.test (Postfix) id A\n";
        let theirs = "Received: from x (x [192.0.2.1]) by mx.theirs.test (Postfix) id A\n";
        let user = "Received: from pc (x [192.0.2.1]) by mx.ours.test with ESMTPSA id A\n";
        for (header, origin, sign) in [
            ("", Origin::Ours, None),
            (inside, Origin::Ours, None),
            (user, Origin::Ours, None),
            (theirs, Origin::Ours, None),
            (private, Origin::Ours, Some("forgotten-network")),
            (named, Origin::Ours, Some("forgotten-network")),
            (outside, Origin::Relayed, Some("border-line")),
            ("X-Sieve-Redirected-From: bob@ours.test\n", Origin::Relayed, Some("sieve-redirected")),
            ("Return-Path: <SRS0=x=y=a.test=joe@ours.test>\n", Origin::Relayed, Some("own-srs")),
            ("Return-Path: <SRS0=x=y=a.test=joe@theirs.test>\n", Origin::Ours, None),
            ("Return-Path: <srsbar@ours.test>\n", Origin::Ours, None),
        ] {
            let case = alone(&format!("{header}{VACATION}"));
            assert_eq!(case.origin, Some(origin), "{header}");
            let has_sign = |id: &str| case.signals.iter().any(|signal| signal.id == id);
            assert!(sign.is_none_or(has_sign), "{header}");
            let own_signs = ["border-line", "forgotten-network", "own-srs"];
            let is_named = own_signs.iter().any(|id| has_sign(id));
            assert_eq!(is_named, sign.is_some_and(|s| s != "sieve-redirected"), "{header}");
        }
        let both = format!("{inside}{outside}{VACATION}");
        assert_eq!(alone(&both).origin, Some(Origin::Relayed));
        let forged = format!("{inside}{theirs}{outside}{VACATION}");
        assert_eq!(alone(&forged).origin, Some(Origin::Ours));
    }

    #[test]
    fn what_came_through_a_gateway_came_from_outside() {
        let site = Site { trusted_relays: vec!["192.0.2.7/32".parse().unwrap()], ..site() };
        let given = "Received: from gw (gw [192.0.2.7]) by mx.ours.test (Postfix) id A\n";
        let named = "Received: from x (x [192.0.2.1]) by gw.theirs.test (Postfix) id B\n";
        let hidden = "Received: from x by gw.theirs.test (Filter) id B\n";
        let made = "Received: by gw.theirs.test (Postfix) id B\n";
        let redirected = "X-Sieve-Redirected-From: bob@ours.test\n";
        let bare = VACATION.replacen("Received:", "X-Received:", 1);
        for (header, origin, sign) in [
            (named.to_owned(), Origin::Relayed, "border-line"),
            (format!("{made}{named}"), Origin::Relayed, "border-line"),
            (hidden.to_owned(), Origin::Relayed, "behind-relay"),
            // A backup MX that cannot hand on what it took, or answers by itself.
            (made.to_owned(), Origin::Ours, "made-by-relay"),
            (String::new(), Origin::Ours, "made-by-relay"),
            (format!("{made}{redirected}"), Origin::Relayed, "sieve-redirected"),
        ] {
            let message = Message::new(format!("{given}{header}{bare}"), Completeness::Whole);
            let case = read_alone(&message, &site, &KEY);
            assert_eq!(case.origin, Some(origin), "{header}");
            assert!(case.signals.iter().any(|signal| signal.id == sign), "{header}");
        }
    }

    #[test]
    fn a_message_of_which_only_the_beginning_is_known_says_so() {
        let message = Message::new(BOUNCE.as_bytes()[..1200].to_vec(), Completeness::Truncated);
        let case = read_alone(&message, &site(), &KEY);
        assert_eq!(case.class.to_string(), "dsn");
        assert_eq!(case.gaps[0].cause, GapCause::Truncated);
        assert!(GapCause::Truncated.is_among(&case.original.gaps));
        let cut =
            Message::new(BOUNCE.as_bytes()[..BOUNCE.len() - 60].to_vec(), Completeness::Truncated);
        let case = read_alone(&cut, &site(), &KEY);
        assert_eq!(Campaign::of_response(&ReversePath::Null, &cut, &case, &KEY), None);
    }

    #[test]
    fn hostile_structure_costs_what_its_bytes_cost() {
        let report =
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n";
        let nested = "Content-Type: message/rfc822\n\n".repeat(20_000);
        let multiparts: String = (0..20_000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"))
            .collect();
        let shapes = [
            nested.clone(),
            format!("{report}{nested}"),
            multiparts,
            "X-A: b\n".repeat(300_000),
            "Received: from a (b [192.0.2.1]) by mx.ours.test id c; x\n".repeat(50_000),
            format!("{report}{}", "--b\n\nx\n".repeat(200_000)),
            format!("Subject: {}\n\n", "=?utf-8?q?".repeat(200_000)),
            format!("From: {}\n\n", "a@b.test, ".repeat(100_000)),
            format!("To: {}\n\n", "(".repeat(2_000_000)),
            format!("From: MAILER-DAEMON\n\n{}", "From: x\nTo: y\n\n".repeat(100_000)),
            format!("From: MAILER-DAEMON\n\n{}", "-".repeat(2_000_000)),
            format!(
                "{report}Content-Type: message/delivery-status\n\n{}",
                "Action: failed\n\n".repeat(100_000)
            ),
            format!(
                "{report}Content-Type: message/rfc822\n\nReferences: {}\n",
                "<a@b>".repeat(300_000)
            ),
            format!("Content-Type: multipart/mixed; {}\n\n", "boundary*0*=a; ".repeat(100_000)),
            "\r".repeat(1_000_000),
            "\0".repeat(1_000_000),
        ];
        // Why a bound of time: what grows faster than its input takes minutes here, not seconds.
        let start = Instant::now();
        for shape in shapes {
            alone(&shape);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
            read_alone(&Message::new(bytes, Completeness::Truncated), &site(), &KEY);
        }

        #[test]
        fn a_message_cut_anywhere_is_read(cut in 0..BOUNCE.len()) {
            let message = Message::new(BOUNCE.as_bytes()[..cut].to_vec(), Completeness::Truncated);
            read_alone(&message, &site(), &KEY);
        }

        #[test]
        fn line_ends_do_not_matter(which in 0..3usize, cut in 0..4000usize) {
            let text = [BOUNCE, VACATION, DELAYED][which].replace("\r\n", "\n");
            let text = text.get(..cut).unwrap_or(&text);
            let (lf, crlf) = (alone(text), alone(&text.replace('\n', "\r\n")));
            prop_assert_eq!(lf.class, crlf.class);
            prop_assert_eq!(lf.original.keys, crlf.original.keys);
            prop_assert_eq!(lf.original.findings, crlf.original.findings);
            prop_assert_eq!(lf.fingerprint, crlf.fingerprint);
            prop_assert_eq!(campaign_of(text), campaign_of(&text.replace('\n', "\r\n")));
        }

        #[test]
        fn folding_does_not_matter(which in 0..3usize) {
            let text = [BOUNCE, VACATION, DELAYED][which].replace("\r\n", "\n");
            let (header, body) = text.split_once("\n\n").unwrap();
            let folded = header.replace(": ", ":\n ").replace("; ", ";\n\t");
            let (plain, folded) = (alone(&text), alone(&format!("{folded}\n\n{body}")));
            prop_assert_eq!(plain.class, folded.class);
            prop_assert_eq!(plain.original.keys, folded.original.keys);
            prop_assert_eq!(plain.fingerprint, folded.fingerprint);
        }
    }
}
