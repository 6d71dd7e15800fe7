//! The outermost report of a message: delivery status, disposition, feedback; and what it embeds.
//!
//! Takes: the `View` of a message. Gives: `Report` with its machine-readable fields, `Embedded`.
//! Errors: none; a field that makes no sense is left out.
//! Bounds: `limits::REPORT_BYTES_MAX`, `limits::REPORT_GROUPS_MAX`.
//! Standards: RFC 3464 §2 (DSN), RFC 8098 §3 (MDN), RFC 5965 §2 (ARF), RFC 6522 (multipart/report),
//! RFC 6533 (internationalised forms), RFC 8460 §5.3 (TLS report).
//!
//! Only the outermost report counts. A spammer nests a delivery-status of his own in his message,
//! which then stands in ours; but `View` never looks into an embedded message.

use std::borrow::Cow;
use std::ops::Range;

use crate::mail::address::{Address, ReversePath};
use crate::mail::header::{Field, Fields, message_ids, reverse_path};
use crate::mail::limits::{REPORT_BYTES_MAX, REPORT_GROUPS_MAX};
use crate::mail::message::{Part, View};
use crate::mail::time::Timestamp;

/// The outermost report of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it reports.
    pub content: Content,
    /// Where it stands.
    pub place: Place,
    /// The part that shows it: its media type, with the report-type if it has one.
    pub shown_by: String,
}

/// Where a report stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The message is the report, as RFC 6522 §3 has it.
    Root,
    /// Its parts stand in a message that is something else: a list or a filter wrapped it, a server
    /// left the wrapping out, or somebody handed on a report that he got.
    Inside,
}

/// What a report reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Delivery status (RFC 3464).
    Dsn(Dsn),
    /// Message disposition (RFC 8098).
    Mdn(Mdn),
    /// Abuse, fraud or failed authentication (RFC 5965, RFC 6591).
    Feedback(Feedback),
    /// TLS failures (RFC 8460).
    Tls,
    /// A multipart/report without a type and without a part that shows one.
    Untyped,
}

/// The fields of message/delivery-status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dsn {
    /// The host of Reporting-MTA, lower case.
    pub reporting_mta: Option<String>,
    /// X-Postfix-Queue-ID: the subject message's, not the report's. Postfix under another
    /// `mail_name` writes that name in place of its own.
    pub queue_id: Option<String>,
    /// X-Postfix-Sender, likewise.
    pub reverse_path: Option<ReversePath>,
    /// Original-Envelope-Id (RFC 3464 §2.2.1).
    pub envelope_id: Option<String>,
    /// Arrival-Date.
    pub arrival_date: Option<Timestamp>,
    /// One for each recipient, in order.
    pub recipients: Vec<DsnRecipient>,
}

/// The fields of one recipient (RFC 3464 §2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DsnRecipient {
    /// Final-Recipient.
    pub final_recipient: Option<Address>,
    /// Original-Recipient.
    pub original_recipient: Option<Address>,
    /// The first word of Action, lower case: `failed`, `delayed`, …
    pub action: Option<String>,
    /// Status: `5.1.1`.
    pub status: Option<String>,
}

/// The fields of message/disposition-notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mdn {
    /// Original-Message-ID, without angle brackets.
    pub original_message_id: Option<String>,
    /// Final-Recipient: who disposed of the subject message.
    pub final_recipient: Option<Address>,
    /// Disposition, as written: `automatic-action/MDN-sent-automatically; deleted`.
    pub disposition: Option<String>,
}

/// The fields of message/feedback-report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Feedback-Type in lower case: `abuse`, `auth-failure`, …
    pub kind: Option<String>,
    /// Original-Mail-From.
    pub mail_from: Option<ReversePath>,
    /// Arrival-Date or Received-Date.
    pub arrival_date: Option<Timestamp>,
    /// Original-Rcpt-To, in order.
    pub recipients: Vec<Address>,
}

/// A message or header that stands in another message.
#[derive(Clone, Debug)]
pub struct Embedded<'a> {
    /// Whether its body is there too.
    pub form: Form,
    /// Its bytes, with the transfer encoding undone.
    pub bytes: Cow<'a, [u8]>,
    /// Where they stand in the outer message; `None` when they were encoded.
    pub range: Option<Range<usize>>,
}

/// How much of a message is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Header and body, or as much of the body as was kept.
    Message,
    /// The header alone.
    Header,
}

/// Media types of embedded messages and headers; the misspelt ones are real.
const EMBEDDED: &[(&str, Form)] = &[
    ("message/rfc822", Form::Message),
    ("message/global", Form::Message),
    ("message/partial", Form::Message),
    ("message/news", Form::Message),
    ("text/rfc822-headers", Form::Header),
    ("message/global-headers", Form::Header),
    ("text/rfc822-header", Form::Header),
    ("text/rfc822", Form::Header),
    ("message/rfc822-headers", Form::Header),
    ("message/headers", Form::Header),
];

/// What a report is about, by its report-type and by the part that tells it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dsn,
    Mdn,
    Feedback,
    Tls,
}

/// Values of report-type (RFC 6522 §3), and the media types of the parts that tell them.
const KINDS: &[(&str, &[&str], Kind)] = &[
    ("delivery-status", &["message/delivery-status", "message/global-delivery-status"], Kind::Dsn),
    (
        "disposition-notification",
        &["message/disposition-notification", "message/global-disposition-notification"],
        Kind::Mdn,
    ),
    ("feedback-report", &["message/feedback-report"], Kind::Feedback),
    ("tlsrpt", &["application/tlsrpt+gzip", "application/tlsrpt+json"], Kind::Tls),
];

impl Report {
    /// The outermost report: the message itself, a multipart/report directly inside it (a list or
    /// a filter wrapped it), or machine-readable parts directly inside it (servers that know the
    /// parts but not the wrapping).
    pub fn find(view: &View<'_>) -> Option<Report> {
        let (container, place) = container(view)?;
        let part = view.parts().get(container)?;
        let tellers = tellers(view, container);
        let named = part.media.parameter("report-type");
        let by_name = named.and_then(|named| {
            KINDS.iter().find(|(name, _, _)| named.eq_ignore_ascii_case(name)).map(|kind| kind.2)
        });
        // Why: the part that is there outweighs the parameter that says what should be there.
        let kind = tellers.first().map(|(_, kind)| *kind).or(by_name);
        let texts = tellers.iter().filter(|(_, of)| Some(*of) == kind).map(|(part, _)| *part);
        let content = match kind {
            Some(Kind::Dsn) => Content::Dsn(Dsn::read(texts)),
            Some(Kind::Mdn) => Content::Mdn(Mdn::read(texts)),
            Some(Kind::Feedback) => Content::Feedback(Feedback::read(texts)),
            Some(Kind::Tls) => Content::Tls,
            None => Content::Untyped,
        };
        let shown_by = match (tellers.first(), named) {
            (_, Some(named)) if part.media.is("multipart/report") => {
                format!("multipart/report; report-type={named}")
            }
            (Some((teller, _)), _) => teller.media.kind.clone(),
            (None, _) => part.media.kind.clone(),
        };
        Some(Report { content, place, shown_by })
    }
}

/// The part that holds the report's parts.
///
/// Why feedback and TLS reports only in their own multipart/report: a response that hands back the
/// parts of the message it answers must not pass for one of them.
fn container(view: &View<'_>) -> Option<(usize, Place)> {
    let root = view.root()?;
    let is_bare = |part: &Part<'_>| matches!(teller_kind(part), Some(Kind::Dsn | Kind::Mdn));
    if root.media.is("multipart/report") || is_bare(root) {
        return Some((0, Place::Root));
    }
    let inner = view.children(0).find(|(_, part)| part.media.is("multipart/report"));
    let inner = inner.map(|(index, _)| index);
    let bare = || view.children(0).any(|(_, part)| is_bare(part)).then_some(0);
    inner.or_else(bare).map(|container| (container, Place::Inside))
}

fn tellers<'v, 'a>(view: &'v View<'a>, container: usize) -> Vec<(&'v Part<'a>, Kind)> {
    let inside = view.children(container).map(|(_, part)| part);
    let itself = view.root().filter(|_| container == 0).into_iter();
    itself.chain(inside).filter_map(|part| teller_kind(part).map(|kind| (part, kind))).collect()
}

fn teller_kind(part: &Part<'_>) -> Option<Kind> {
    let kind = part.media.kind.as_str();
    KINDS.iter().find(|(_, tellers, _)| tellers.contains(&kind)).map(|kind| kind.2)
}

/// The message or header that stands directly inside the report, or directly inside the message
/// when it is no report. A whole message comes before a header.
pub fn embedded<'a>(view: &View<'a>) -> Option<Embedded<'a>> {
    let container = container(view).map_or(0, |(container, _)| container);
    let form_of = |part: &Part<'_>| {
        EMBEDDED.iter().find(|(kind, _)| part.media.is(kind)).map(|(_, form)| *form)
    };
    let found = || {
        let inside = view.children(container).map(|(_, part)| part);
        inside.filter_map(|part| form_of(part).map(|form| (part, form)))
    };
    let whole = found().find(|(_, form)| *form == Form::Message);
    let (part, form) = whole.or_else(|| found().next())?;
    let content = part.decoded(usize::MAX);
    // Why: some servers write an empty line too many in front of the header.
    let blank = content.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let range = part.content.start + blank..part.content.end;
    let bytes = match content {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(blank..).unwrap_or_default()),
        Cow::Owned(bytes) => Cow::Owned(bytes.get(blank..).unwrap_or_default().to_vec()),
    };
    Some(Embedded { form, bytes, range: part.is_verbatim().then_some(range) })
}

/// The groups of fields of a machine-readable part (RFC 3464 §2.1).
fn with_groups<'p>(parts: impl Iterator<Item = &'p Part<'p>>, mut each: impl FnMut(&Field<'_>)) {
    for part in parts {
        let bytes = part.decoded(REPORT_BYTES_MAX);
        let mut rest: &[u8] = &bytes;
        for _ in 0..REPORT_GROUPS_MAX {
            if rest.is_empty() {
                break;
            }
            let group = Fields::read(rest);
            group.iter().for_each(&mut each);
            rest = match group.end() {
                // A line that starts with `--`: a boundary that is none of ours.
                0 => break,
                end => rest.get(end..).unwrap_or_default(),
            };
        }
    }
}

impl Dsn {
    fn read<'p>(parts: impl Iterator<Item = &'p Part<'p>>) -> Dsn {
        let mut dsn = Dsn::default();
        let mut recipient = DsnRecipient::default();
        let mut recipients = Vec::new();
        with_groups(parts, |field| {
            let value = field.text();
            match field.name().to_ascii_lowercase().as_str() {
                "reporting-mta" => first(&mut dsn.reporting_mta, host(&value)),
                "original-envelope-id" => first(&mut dsn.envelope_id, non_empty(&value)),
                "arrival-date" => first(&mut dsn.arrival_date, field.date()),
                // RFC 3464 §2.3 wants a group for each recipient; not all writers make one.
                "final-recipient" => {
                    if recipient.final_recipient.is_some() {
                        recipients.push(std::mem::take(&mut recipient));
                    }
                    recipient.final_recipient = address(&value);
                }
                "original-recipient" => first(&mut recipient.original_recipient, address(&value)),
                "action" => {
                    if recipient.action.is_some() {
                        recipients.push(std::mem::take(&mut recipient));
                    }
                    recipient.action = word(&value);
                }
                "status" => first(&mut recipient.status, word(&value)),
                name if is_postfix(name, "-queue-id") => {
                    first(&mut dsn.queue_id, non_empty(&value));
                }
                name if is_postfix(name, "-sender") => {
                    first(&mut dsn.reverse_path, reverse_path(behind_type(&value)));
                }
                _ => {}
            }
        });
        if recipient != DsnRecipient::default() {
            recipients.push(recipient);
        }
        recipients.truncate(REPORT_GROUPS_MAX);
        Dsn { recipients, ..dsn }
    }
}

impl Mdn {
    fn read<'p>(parts: impl Iterator<Item = &'p Part<'p>>) -> Mdn {
        let mut mdn = Mdn::default();
        with_groups(parts, |field| {
            let value = field.text();
            match field.name().to_ascii_lowercase().as_str() {
                "original-message-id" => {
                    first(&mut mdn.original_message_id, message_ids(&value).into_iter().next());
                }
                "final-recipient" => first(&mut mdn.final_recipient, address(&value)),
                "disposition" => first(&mut mdn.disposition, non_empty(&value)),
                _ => {}
            }
        });
        mdn
    }
}

impl Feedback {
    fn read<'p>(parts: impl Iterator<Item = &'p Part<'p>>) -> Feedback {
        let mut feedback = Feedback::default();
        with_groups(parts, |field| {
            let value = field.text();
            match field.name().to_ascii_lowercase().as_str() {
                "feedback-type" => first(&mut feedback.kind, word(&value)),
                "original-mail-from" => first(&mut feedback.mail_from, reverse_path(&value)),
                "arrival-date" | "received-date" => {
                    first(&mut feedback.arrival_date, field.date());
                }
                "original-rcpt-to" if feedback.recipients.len() < REPORT_GROUPS_MAX => {
                    feedback.recipients.extend(address(&value));
                }
                _ => {}
            }
        });
        feedback
    }
}

/// The first value said counts.
fn first<T>(slot: &mut Option<T>, value: Option<T>) {
    if slot.is_none() {
        *slot = value;
    }
}

fn is_postfix(name: &str, end: &str) -> bool {
    name.starts_with("x-") && name.ends_with(end)
}

/// `rfc822; joe@a.example` → `joe@a.example`; a value without a type as it is.
fn behind_type(value: &str) -> &str {
    value.split_once(';').map_or(value, |(_, rest)| rest).trim()
}

fn address(value: &str) -> Option<Address> {
    reverse_path(behind_type(value)).and_then(|path| path.address().cloned())
}

/// `dns; mx.a.example (192.0.2.1)` → `mx.a.example`.
fn host(value: &str) -> Option<String> {
    let host = behind_type(value).split_whitespace().next()?;
    non_empty(host.trim_end_matches('.')).map(|host| host.to_ascii_lowercase())
}

fn word(value: &str) -> Option<String> {
    let word = value.split(|c: char| c.is_whitespace() || matches!(c, ';' | '(')).next()?;
    non_empty(word).map(|word| word.to_ascii_lowercase())
}

fn non_empty(value: &str) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(message: &str) -> Option<Report> {
        Report::find(&View::read(message.as_bytes()))
    }

    fn dsn(message: &str) -> Dsn {
        match report(message).unwrap().content {
            Content::Dsn(dsn) => dsn,
            other => panic!("{other:?}"),
        }
    }

    const POSTFIX: &str = "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
        --b\n\nwords\n--b\nContent-Type: message/delivery-status\n\n\
        Reporting-MTA: dns; MX.local.test\nX-Postfix-Queue-ID: CBC34514015\n\
        X-Postfix-Sender: rfc822; victim@bank.test\nOriginal-Envelope-Id: env-1\n\
        Arrival-Date: Sat, 21 Nov 2026 17:38:59 +0000 (UTC)\n\n\
        Final-Recipient: rfc822; one@remote.test\nOriginal-Recipient: rfc822;two@remote.test\n\
        Action: failed\nStatus: 5.1.1\n\n\
        Final-Recipient: rfc822; <three@remote.test>\nAction: Delayed (still)\nStatus: 4.0.0\n\n\
        --b\nContent-Type: message/rfc822\n\nReturn-Path: <victim@bank.test>\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=n\n\n\
        --n\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; evil.example\n\
        X-Evil-Queue-ID: 666\n\nFinal-Recipient: rfc822; nested@evil.example\n--n--\n--b--\n";

    #[test]
    fn a_delivery_status_is_read_in_full_and_a_nested_one_not_at_all() {
        let dsn = dsn(POSTFIX);
        assert_eq!(dsn.reporting_mta.as_deref(), Some("mx.local.test"));
        assert_eq!(dsn.queue_id.as_deref(), Some("CBC34514015"));
        assert_eq!(dsn.reverse_path.unwrap().to_string(), "victim@bank.test");
        assert_eq!(dsn.envelope_id.as_deref(), Some("env-1"));
        assert_eq!(dsn.arrival_date.unwrap().to_string(), "2026-11-21T17:38:59.000Z");
        let recipients: Vec<_> = dsn
            .recipients
            .iter()
            .map(|r| (r.final_recipient.as_ref().unwrap().as_str(), r.action.as_deref().unwrap()))
            .collect();
        assert_eq!(recipients, [("one@remote.test", "failed"), ("three@remote.test", "delayed")]);
    }

    #[test]
    fn what_is_embedded_stands_directly_inside() {
        let view = View::read(POSTFIX.as_bytes());
        let found = embedded(&view).unwrap();
        assert_eq!(found.form, Form::Message);
        assert!(found.bytes.starts_with(b"Return-Path: <victim@bank.test>\n"));
        assert_eq!(&POSTFIX.as_bytes()[found.range.unwrap()], &*found.bytes);
        let encoded = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
            Content-Type: text/rfc822-headers\nContent-Transfer-Encoding: base64\n\nQTogYg==\n--b--";
        let view = View::read(encoded.as_bytes());
        let found = embedded(&view).unwrap();
        assert_eq!((found.form, &*found.bytes, found.range), (Form::Header, &b"A: b"[..], None));
    }

    #[test]
    fn fields_in_the_forms_of_many_servers() {
        let status = |fields: &str| {
            dsn(&format!(
                "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\n\
                Content-Type: message/delivery-status\n\n{fields}\n--b--"
            ))
        };
        // Mimecast: a space before the colon, one group, an odd address type.
        let dsn = status(
            "Reporting-MTA : dns;a.test\nAction : failed\nFinal-Recipient : rfc/822;x@b.test",
        );
        assert_eq!(dsn.recipients.len(), 1);
        assert_eq!(dsn.recipients[0].action.as_deref(), Some("failed"));
        // Two recipients in one group, the action first, as Exim orders them.
        let dsn = status(
            "Action: failed\nFinal-Recipient: rfc822;x@b.test\nStatus: 5.0.0\n\
            Action: delayed\nFinal-Recipient: rfc822;y@b.test",
        );
        let actions: Vec<_> = dsn.recipients.iter().map(|r| r.action.as_deref().unwrap()).collect();
        assert_eq!(actions, ["failed", "delayed"]);
        // Postfix under another mail_name.
        let dsn = status("X-Sendmail-Queue-ID: AB12\nX-Sendmail-Sender: rfc822; <>\n");
        assert_eq!(dsn.queue_id.as_deref(), Some("AB12"));
        assert_eq!(dsn.reverse_path, Some(ReversePath::Null));
    }

    #[test]
    fn the_parts_say_what_it_is() {
        let kind = |message: &str| report(message).map(|report| report.content);
        let with = |root: &str, part: &str| {
            format!(
                "Content-Type: {root}; boundary=b\n\n--b\n\nwords\n--b\nContent-Type: {part}\n\nA: b\n--b--"
            )
        };
        assert!(matches!(
            kind(&with("multipart/report", "message/disposition-notification")),
            Some(Content::Mdn(_))
        ));
        assert!(matches!(
            kind(&with("multipart/report", "message/feedback-report")),
            Some(Content::Feedback(_))
        ));
        assert_eq!(kind(&with("multipart/mixed", "message/feedback-report")), None);
        assert!(matches!(
            kind(&with("multipart/report; report-type=tlsrpt", "application/x")),
            Some(Content::Tls)
        ));
        assert!(matches!(
            kind(&with("multipart/report; report-type=DELIVERY-STATUS", "text/html")),
            Some(Content::Dsn(_))
        ));
        assert!(matches!(
            kind(&with("multipart/report; report-type=x", "text/html")),
            Some(Content::Untyped)
        ));
        assert_eq!(kind(&with("multipart/mixed", "message/rfc822")), None);
        assert_eq!(kind("Subject: x\n\nx"), None);
        let wrapped = format!(
            "Content-Type: multipart/mixed; boundary=w\n\n--w\n{POSTFIX}\n--w\n\nfooter\n--w--"
        );
        assert!(matches!(kind(&wrapped), Some(Content::Dsn(_))));
        assert!(embedded(&View::read(wrapped.as_bytes())).is_some());
    }

    #[test]
    fn feedback_and_disposition_fields() {
        let message = "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\
            Content-Type: message/feedback-report\n\nFeedback-Type: Auth-Failure\n\
            Original-Mail-From: <x@a.test>\nOriginal-Rcpt-To: y@b.test\n--b--";
        let Some(Content::Feedback(feedback)) = report(message).map(|r| r.content) else {
            panic!()
        };
        assert_eq!(feedback.kind.as_deref(), Some("auth-failure"));
        assert_eq!(feedback.mail_from.unwrap().to_string(), "x@a.test");
        assert_eq!(feedback.recipients.len(), 1);
        let message = "Content-Type: message/disposition-notification\n\n\
            Final-Recipient: rfc822;y@b.test\nOriginal-Message-ID: <m@a.test>\n\
            Disposition: manual-action/MDN-sent-manually; displayed\n";
        let Some(Content::Mdn(mdn)) = report(message).map(|r| r.content) else { panic!() };
        assert_eq!(mdn.original_message_id.as_deref(), Some("m@a.test"));
        assert_eq!(mdn.final_recipient.unwrap().as_str(), "y@b.test");
        assert!(mdn.disposition.unwrap().ends_with("displayed"));
    }

    proptest! {
        #[test]
        fn hostile_status_parts_are_read(
            fields in "(Final-Recipient|Action|Status|X-A-Sender|Reporting-MTA|:|;| |\\n|\\n\\n|--|rfc822|a@b.c|<|>){0,60}",
        ) {
            report(&format!("Content-Type: message/delivery-status\n\n{fields}"));
        }
    }

    #[test]
    fn a_huge_report_is_bounded() {
        let many = "Action: failed\nFinal-Recipient: rfc822;x@b.test\n\n".repeat(100_000);
        let message = format!("Content-Type: message/delivery-status\n\n{many}");
        assert_eq!(dsn(&message).recipients.len(), REPORT_GROUPS_MAX);
    }
}
