//! Station 3: the message that this one answers, embedded or referenced; and whose response it is.
//!
//! Takes: a `Reading`, its `Class`, `Site`. Gives: `Original` (RFC 3834's subject message, as far
//! as the response names it) and `Origin`.
//! Bounds: `limits::FAILED_RECIPIENTS_MAX`, and those of `keys` and `border`.
//! Standards: RFC 3461 §6.3, RFC 3464 §2, RFC 3834 §2, RFC 5230 §4.6, RFC 5322 §3.6.4,
//! RFC 8098 §3.2.5.
//!
//! Only the outermost report and the text above a quotation speak for the reporting system. The
//! embedded message is read as one header, whose upper lines are ours (`border`) and whose lower
//! ones are the peer's; what is embedded in *it* is not looked at.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::judge::border::{Border, Trace};
use crate::judge::classify::{Class, Guarded};
use crate::judge::evidence::{Findings, Gap, GapCause};
use crate::judge::findings::{Identities, findings};
use crate::judge::keys::keys;
use crate::judge::quote::{lines_with, whole};
use crate::judge::reading::Reading;
use crate::judge::signs::{Author as Kind, Mark};
use crate::judge::site::Site;
use crate::mail::address::{Address, ReversePath};
use crate::mail::author::Author;
use crate::mail::header::{AutoSubmitted, Field, Fields, Precedence, reverse_path};
use crate::mail::limits::{FAILED_RECIPIENTS_MAX, TEXT_BYTES_MAX};
use crate::mail::raw::split;
use crate::mail::report::{Content, Form, Place};
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;

/// Whether a response was made by our systems or only passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Our systems made it.
    Ours,
    /// It came from outside and one of our users forwards it.
    Relayed,
}

impl Origin {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Ours => "ours",
            Origin::Relayed => "relayed",
        }
    }
}

/// In which form the response holds the subject message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FoundAs {
    /// A message/rfc822 or message/global part.
    Rfc822,
    /// A text/rfc822-headers or message/global-headers part.
    Rfc822Headers,
    /// Quoted in the plain text of the report.
    Text,
    /// Named by In-Reply-To, References or another key.
    Reference,
    /// Not at all.
    #[default]
    None,
}

impl FoundAs {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            FoundAs::Rfc822 => "rfc822",
            FoundAs::Rfc822Headers => "rfc822-headers",
            FoundAs::Text => "text",
            FoundAs::Reference => "reference",
            FoundAs::None => "none",
        }
    }
}

/// What a response names its subject message by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The queue id the subject message had on the host that reports.
    QueueId {
        /// The Reporting-MTA or the `by` name; lower case, empty when not said.
        host: String,
        /// The id, as written.
        id: String,
    },
    /// A Message-ID, without angle brackets.
    MessageId {
        /// The id.
        id: String,
        /// The field that named it.
        named_by: NamedBy,
    },
    /// Original-Envelope-Id, xtext decoded (RFC 3464 §2.2.1).
    EnvelopeId(String),
}

/// The field that named a Message-ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The embedded header itself.
    EmbeddedHeader,
    /// Original-Message-ID of an MDN (RFC 8098 §3.2.5).
    OriginalMessageId,
    /// In-Reply-To (RFC 5322 §3.6.4).
    InReplyTo,
    /// X-MS-Exchange-Parent-Message-Id.
    ExchangeParent,
    /// References, nearest first.
    References,
    /// Quoted in the text of a report.
    Text,
}

/// What the header of the subject message says about being automatic or list traffic
/// (RFC 3834 §2, RFC 5230 §4.6): no auto-reply should have answered it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectKind {
    /// The field that shows list traffic, harmless; `None` when nothing does.
    pub list: Option<String>,
    /// The field that shows an automatic message, harmless; `None` when nothing does.
    pub automatic: Option<String>,
}

/// The subject message, as far as the response shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// In which form it was found.
    pub found_as: FoundAs,
    /// What names it, best first; at most `limits::ORIGINAL_KEYS_MAX`.
    pub keys: Vec<Key>,
    /// Its reverse-path, as the reporting system wrote it (Return-Path above our own lines,
    /// X-Postfix-Sender); `None` when not said or only the peer says it.
    pub return_path: Option<ReversePath>,
    /// Mailboxes of its From field, in order; several, or none, are a sign in themselves.
    pub from: Vec<Address>,
    /// The mailbox of its Sender field.
    pub sender: Option<Address>,
    /// Mailboxes of its Reply-To field.
    pub reply_to: Vec<Address>,
    /// Mailboxes of its Disposition-Notification-To field (RFC 8098 §2.1).
    pub notify: Vec<Address>,
    /// Its subject, decoded; for people.
    pub subject: Option<String>,
    /// Its Date field.
    pub date: Option<Timestamp>,
    /// When the reporting system got it (Arrival-Date of the DSN, or its topmost Received).
    pub arrived: Option<Timestamp>,
    /// Recipients the report is about (Final-Recipient, X-Failed-Recipients).
    pub failed_recipients: Vec<Address>,
    /// Whether it was list traffic or itself automatic.
    pub kind: SubjectKind,
    /// Where its bytes stand in the response, when the whole message or header is embedded.
    pub embedded: Option<Range<usize>>,
    /// How far its header can be believed; `None` when the reporting system did not put it there.
    pub border: Option<Border>,
    /// What the embedded header proves, above the border line.
    pub findings: Option<Findings>,
    /// What could not be known of it, and why.
    pub gaps: Vec<Gap>,
}

impl Original {
    /// What a response says of its subject message.
    pub fn of(reading: &Reading<'_>, class: Class, site: &Site) -> Original {
        let source = Source::of(reading, class);
        let mut original = Original { found_as: source.found_as, ..Original::default() };
        original.embedded = source.range;
        let header = Fields::read(&source.bytes);
        let is_reporters = source.provenance == Provenance::Reporter;
        // Why no more of another's: none of its lines is believed.
        let trace = match is_reporters {
            true => Trace::of(&header),
            false => Trace::to_host(&header),
        };
        original.read_report(reading);
        original.read_header(&header, &trace);
        original.kind = match class.guarded() {
            Guarded::Report => SubjectKind::of_reported(&header),
            Guarded::Response | Guarded::No => SubjectKind::of(&header),
        };
        if is_reporters {
            let written = || written_return_path(&header, &trace, reading, site);
            original.return_path = original.return_path.take().or_else(written);
        } else if class.guarded() == Guarded::Response {
            original.return_path = None;
        }
        if original.return_path.as_ref().is_some_and(|path| is_spelt_null(path, reading)) {
            original.return_path = Some(ReversePath::Null);
        }
        original.keys = keys(reading, &header, &trace);
        if original.found_as == FoundAs::None && !original.keys.is_empty() {
            original.found_as = FoundAs::Reference;
        }
        if original.keys.is_empty() {
            original.gaps.push(Gap::new(GapCause::NoKey, "nothing names the subject message"));
        }
        if is_reporters && !header.is_empty() {
            let identities = Identities {
                mail_from: original.return_path.clone(),
                from: original.from.clone(),
                sender: original.sender.clone(),
                author_sign: Author::of(&split(&source.bytes).0).sign,
            };
            let border = trace.border(site);
            let (found, gaps) = findings(&header, &trace, &border, site, identities);
            original.findings = found;
            original.border = Some(border);
            original.gaps.extend(gaps);
        } else if class.guarded() == Guarded::Response {
            let detail = "the response holds no header of it that our hosts put there";
            original.gaps.push(Gap::new(GapCause::NoAuthResults, detail));
        }
        original
    }

    /// What the machine-readable part and the response's own fields say.
    fn read_report(&mut self, reading: &Reading<'_>) {
        let mut recipients = Vec::new();
        match reading.report.as_ref().map(|report| &report.content) {
            Some(Content::Dsn(dsn)) => {
                self.return_path = dsn.reverse_path.clone();
                self.arrived = dsn.arrival_date;
                let said = dsn.recipients.iter();
                recipients.extend(said.filter_map(|said| {
                    said.final_recipient.clone().or_else(|| said.original_recipient.clone())
                }));
            }
            Some(Content::Feedback(feedback)) => {
                self.return_path = feedback.mail_from.clone();
                self.arrived = feedback.arrival_date;
                recipients.extend(feedback.recipients.iter().cloned());
            }
            _ => {}
        }
        let named = reading.view.fields.all("x-failed-recipients").flat_map(Field::addresses);
        recipients.extend(named);
        if recipients.is_empty() && reading.report.is_none() {
            recipients = recipients_in_text(reading);
        }
        for recipient in recipients {
            let is_new = !self.failed_recipients.iter().any(|known| known.same_mailbox(&recipient));
            if is_new && self.failed_recipients.len() < FAILED_RECIPIENTS_MAX {
                self.failed_recipients.push(recipient);
            }
        }
    }

    /// What the embedded header says: the peer's word, but for the lines that `findings` believes.
    fn read_header(&mut self, header: &Fields<'_>, trace: &Trace) {
        self.from = header.author_addresses().cloned().collect();
        self.sender = header.first("sender").and_then(|field| field.addresses().into_iter().next());
        self.reply_to = header.first("reply-to").map(Field::addresses).unwrap_or_default();
        let notify = header.first("disposition-notification-to");
        self.notify = notify.map(Field::addresses).unwrap_or_default();
        let subject = header.first("subject").map(Field::decoded);
        self.subject = subject.map(|subject| Shown::new(&subject).into_string());
        self.date = header.first("date").and_then(Field::date);
        self.arrived = self.arrived.or_else(|| trace.top().and_then(|line| line.date));
    }

    /// The best Message-ID, without angle brackets; `None` when no field named one.
    pub fn message_id(&self) -> Option<&str> {
        self.keys.iter().find_map(|key| match key {
            Key::MessageId { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }
}

impl SubjectKind {
    /// What a header says about being list traffic or automatic.
    pub fn of(header: &Fields<'_>) -> SubjectKind {
        let shown = |field: &Field<'_>| {
            Shown::at_most(&format!("{}: {}", field.name(), field.text()), 100).into_string()
        };
        let list = header.iter().find(|field| {
            let is_list_field = LIST_FIELDS.iter().any(|name| field.is(name));
            is_list_field || field.is("precedence") && is_bulk(&field.text())
        });
        let automatic = header.iter().find(|field| {
            let value = || field.text();
            field.is("auto-submitted") && AutoSubmitted::parse(&value()) != Some(AutoSubmitted::No)
                || field.is("x-auto-response-suppress") && is_suppressed(&value())
        });
        SubjectKind { list: list.map(shown), automatic: automatic.map(shown) }
    }

    /// The same for the subject of a report, which is automatic only if it is a report itself.
    ///
    /// Why: newsletters and spam may call themselves automatic, and be complained about; only a
    /// report about a report goes round.
    fn of_reported(header: &Fields<'_>) -> SubjectKind {
        let mut kind = SubjectKind::of(header);
        let media = header.text("content-type").unwrap_or_default();
        kind.automatic = is_report(&media).then(|| Shown::at_most(&media, 100).into_string());
        kind
    }
}

/// Fields of list traffic: RFC 2369, RFC 2919, and those of older list servers.
const LIST_FIELDS: &[&str] = &[
    "list-id",
    "list-help",
    "list-post",
    "list-subscribe",
    "list-unsubscribe",
    "list-owner",
    "list-archive",
    "mailing-list",
    "x-mailing-list",
    "x-beenthere",
];

/// RFC 3834 §2: "Precedence: list" and the like ask for no answer; RFC 5230 §4.6 names bulk too.
fn is_bulk(value: &str) -> bool {
    matches!(
        Precedence::parse(value),
        Some(Precedence::Bulk | Precedence::Junk | Precedence::List | Precedence::AutoReply)
    )
}

/// Whether a Content-Type is that of a feedback or TLS report (RFC 5965 §2, RFC 8460 §5.3).
fn is_report(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let is_type = |kind: &str| value.contains(kind);
    value.starts_with("multipart/report") && (is_type("feedback-report") || is_type("tlsrpt"))
}

fn is_suppressed(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["all", "oof", "autoreply"].iter().any(|word| value.contains(word))
}

/// Where the response holds its subject message.
struct Source<'r> {
    found_as: FoundAs,
    bytes: Cow<'r, [u8]>,
    range: Option<Range<usize>>,
    provenance: Provenance,
}

/// Whether the reporting system itself put the header where it stands.
///
/// Why it matters: what the header *proves* hangs on its upper lines being ours. A responder that
/// hands back a peer's attachment, or a text that repeats a peer's words, can show a whole header
/// that the peer composed. It may name the message, and prove nothing. So a header counts as the
/// reporter's only where the message *is* the report (RFC 6522 §3) and the header a part of it: the
/// one form that a peer's text cannot take on by being repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Provenance {
    /// It did.
    Reporter,
    /// It may be the peer's.
    Doubtful,
}

impl Provenance {
    /// Whose word a part of the message is.
    ///
    /// Why the author counts too: a responder that turns a message round in place hands back the
    /// peer's parts in the peer's wrapping, but under the name of our user, as an answer.
    fn of_part(reading: &Reading<'_>, class: Class) -> Provenance {
        let is_report = reading.report.as_ref().is_some_and(|report| {
            let says_class = matches!(
                (&report.content, class),
                (Content::Dsn(_), Class::Dsn(_)) | (Content::Mdn(_), Class::Mdn)
            );
            report.place == Place::Root && says_class
        });
        let is_answer =
            reading.marks.any(&[Mark::Replied, Mark::Answers]) || reading.is_reply_subject;
        match is_report && (reading.author >= Kind::Postmaster || !is_answer) {
            true => Provenance::Reporter,
            false => Provenance::Doubtful,
        }
    }
}

impl<'r> Source<'r> {
    fn of(reading: &'r Reading<'_>, class: Class) -> Source<'r> {
        let is_report = matches!(class, Class::Dsn(_) | Class::Mdn);
        if let Some(embedded) = reading.embedded() {
            let found_as = match embedded.form {
                Form::Message => FoundAs::Rfc822,
                Form::Header => FoundAs::Rfc822Headers,
            };
            let bytes = Cow::Borrowed(embedded.bytes.as_ref());
            let provenance = Provenance::of_part(reading, class);
            return Source { found_as, bytes, range: embedded.range.clone(), provenance };
        }
        let none = Source {
            found_as: FoundAs::None,
            bytes: Cow::Borrowed(b""),
            range: None,
            provenance: Provenance::Doubtful,
        };
        // Why: people and their responders quote too, in forms that name nothing.
        if !is_report && class != Class::Challenge {
            return none;
        }
        match reading.quoted().or_else(|| attached_text(reading)) {
            Some(text) => Source { found_as: FoundAs::Text, bytes: bytes_of(text), ..none },
            None => none,
        }
    }
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// A text part behind the first that consists of a header, as some servers attach it.
fn attached_text<'r>(reading: &'r Reading<'_>) -> Option<Cow<'r, str>> {
    let texts = reading.view.parts().iter().filter(|part| {
        !part.is_container && (part.media.is("text/plain") || part.media.is_multipart())
    });
    texts.skip(1).find_map(|part| match part.text(TEXT_BYTES_MAX) {
        Cow::Borrowed(text) => whole(text).map(Cow::Borrowed),
        Cow::Owned(text) => whole(&text).map(|text| Cow::Owned(text.to_owned())),
    })
}

/// The reverse-path that the reporting system itself wrote into the embedded header.
///
/// Why: a spammer may write a Return-Path too. Final delivery puts ours on top (RFC 5321 §4.4),
/// above the Received line that our host had put on top before; the peer's stand below that. The
/// same holds for the reverse-path that the topmost line names, when our host wrote it.
fn written_return_path(
    header: &Fields<'_>,
    trace: &Trace,
    reading: &Reading<'_>,
    site: &Site,
) -> Option<ReversePath> {
    let first_line = *trace.at.first()?;
    let above = header.iter().take(first_line).find(|field| field.is("return-path"));
    if let Some(path) = above.and_then(|field| reverse_path(&field.text())) {
        return Some(path);
    }
    let top = trace.top()?;
    let by = top.by.as_deref().unwrap_or_default();
    let is_reporters = reading.reporter().is_some_and(|host| host.eq_ignore_ascii_case(by));
    (is_reporters || site.is_own_host(by)).then(|| top.envelope_from.clone()).flatten()
}

/// Postfix names the null reverse-path `MAILER-DAEMON@` and its own host.
fn is_spelt_null(path: &ReversePath, reading: &Reading<'_>) -> bool {
    path.address().is_some_and(|address| {
        let domain = address.domain().map(|domain| domain.as_str());
        address.local().eq_ignore_ascii_case("mailer-daemon") && domain == reading.reporter()
    })
}

/// Addresses that stand alone or first on a line above the quotation: how qmail, Exim, Gmail and
/// their like name the recipients that failed.
fn recipients_in_text(reading: &Reading<'_>) -> Vec<Address> {
    let recipients =
        lines_with(b'@', reading.own_text(), TEXT_LINES_MAX).filter_map(|(_, line)| {
            let word = line.split_whitespace().next()?;
            let inner = word.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            let address = inner.map_or(word, |(inner, _)| inner);
            let address = address.trim_end_matches([':', ',', '.']);
            address.contains('@').then(|| Address::parse(address)).flatten()
        });
    recipients.take(FAILED_RECIPIENTS_MAX).collect()
}

/// Lines of a bounce's text that are searched for recipients.
const TEXT_LINES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::classify::{DsnAction, classify};
    use crate::mail::limits::{ORIGINAL_KEYS_MAX, TRACE_LINES_MAX};
    use crate::mail::message::View;

    fn site() -> Site {
        Site { hosts: ["mx.ours.test".into()].into(), ..Site::default() }
    }

    fn original(message: &str) -> Original {
        let view = View::read(message.as_bytes());
        let reading = Reading::new(&view, Some(&ReversePath::Null));
        let (class, _) = classify(&reading);
        Original::of(&reading, class, &site())
    }

    /// Each key as text: `host/id`, `<id>`, `envid:id`.
    fn names(original: &Original) -> Vec<String> {
        let names = original.keys.iter().map(|key| match key {
            Key::QueueId { host, id } => format!("{host}/{id}"),
            Key::MessageId { id, .. } => format!("<{id}>"),
            Key::EnvelopeId(id) => format!("envid:{id}"),
        });
        names.collect()
    }

    fn path(original: &Original) -> Option<String> {
        original.return_path.as_ref().map(ReversePath::to_string)
    }

    fn failed(original: &Original) -> Vec<&str> {
        original.failed_recipients.iter().map(Address::as_str).collect()
    }

    fn bounce(status: &str, embedded: &str) -> String {
        format!(
            "From: MAILER-DAEMON@ours.test\nIn-Reply-To: <irt@a.test>\nReferences: <r1@a.test> <r2@a.test>\n\
            Content-Type: multipart/report; report-type=delivery-status; boundary=\"Q1.1795282739/mx.ours.test\"\n\n\
            --Q1.1795282739/mx.ours.test\nContent-Description: Notification\n\nIt failed.\n\
            --Q1.1795282739/mx.ours.test\nContent-Type: message/delivery-status\n\n{status}\n\
            --Q1.1795282739/mx.ours.test\nContent-Type: message/rfc822\n\n{embedded}\n\
            --Q1.1795282739/mx.ours.test--\n"
        )
    }

    const STATUS: &str = "Reporting-MTA: dns; mx.ours.test\nX-Postfix-Queue-ID: Q1\n\
        X-Postfix-Sender: rfc822; victim@bank.test\nOriginal-Envelope-Id: env\n\
        Arrival-Date: Sat, 21 Nov 2026 17:38:59 +0000\n\n\
        Final-Recipient: rfc822; u@ours.test\nAction: failed";

    const EMBEDDED: &str = "Return-Path: <victim@bank.test>\n\
        Received: from x (x [192.0.2.1]) by mx.ours.test (Postfix) id Q1; Sat, 21 Nov 2026 17:38:58 +0000\n\
        From: V <victim@bank.test>, other@bank.test\nSender: s@bank.test\nReply-To: r@bank.test\n\
        Disposition-Notification-To: \"N\" <n@bank.test>\n\
        Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nDate: Sat, 21 Nov 2026 17:30:00 +0000\n\
        Message-ID: <m1@bank.test>\nMessage-ID: <m2@bank.test>\n\nbody";

    #[test]
    fn a_bounce_names_its_subject_message_by_many_keys_best_first() {
        let found = original(&bounce(STATUS, EMBEDDED));
        assert_eq!(
            names(&found),
            [
                "mx.ours.test/Q1",
                "<m1@bank.test>",
                "<m2@bank.test>",
                "envid:env",
                "<irt@a.test>",
                "<r2@a.test>",
                "<r1@a.test>"
            ]
        );
        assert_eq!(found.message_id(), Some("m1@bank.test"));
        assert_eq!(path(&found).as_deref(), Some("victim@bank.test"));
        assert_eq!(failed(&found), ["u@ours.test"]);
        assert_eq!(found.from.len(), 2);
        assert_eq!(found.sender.unwrap().as_str(), "s@bank.test");
        assert_eq!(found.reply_to[0].as_str(), "r@bank.test");
        assert_eq!(found.notify[0].as_str(), "n@bank.test");
        assert_eq!(found.subject.as_deref(), Some("Grüße"));
        assert_eq!(found.date.unwrap().to_string(), "2026-11-21T17:30:00.000Z");
        assert_eq!(found.arrived.unwrap().to_string(), "2026-11-21T17:38:59.000Z");
        assert_eq!(found.found_as, FoundAs::Rfc822);
        assert!(found.embedded.is_some());
    }

    #[test]
    fn what_a_spammer_nests_in_his_message_names_nothing() {
        let nested = bounce(
            "Reporting-MTA: dns; mx.ours.test\nX-Postfix-Queue-ID: FORGED\n\
             X-Postfix-Sender: rfc822; forged@evil.test\nFinal-Recipient: rfc822; forged@evil.test\n\
             Action: delivered",
            "Message-ID: <forged@evil.test>\n\nx",
        );
        let nested =
            format!("{EMBEDDED}\n--- Below this line is a copy of the message.\n\n{nested}");
        let found = original(&bounce(STATUS, &nested.replace("Q1.1795282739", "Q2.1795282739")));
        let honest = original(&bounce(STATUS, EMBEDDED));
        assert_eq!(found.keys, honest.keys);
        assert_eq!(found.failed_recipients, honest.failed_recipients);
        assert_eq!(found.return_path, honest.return_path);
    }

    #[test]
    fn a_return_path_counts_only_above_the_received_lines() {
        let status = "Reporting-MTA: dns; mx.ours.test";
        let received = "Received: from x (x [192.0.2.1]) by mx.ours.test (Postfix) id Q1\n";
        let of = |embedded: String| path(&original(&bounce(status, &embedded)));
        let real = "Return-Path: <real@bank.test>\n";
        let forged = "Return-Path: <forged@bank.test>\nFrom: x@y.test\n\nbody";
        assert_eq!(of(format!("{real}{received}{forged}")).as_deref(), Some("real@bank.test"));
        assert_eq!(of(format!("{received}{forged}")), None);
        assert_eq!(of(forged.to_owned()), None);
        let null = "Return-Path: <MAILER-DAEMON@mx.ours.test>\n";
        assert_eq!(of(format!("{null}{received}{forged}")).as_deref(), Some(""));
        // Exim names it in the line itself; that of another host is not the reporter's.
        let exim = "Received: from x ([192.0.2.1]) by mx.ours.test with esmtp (Exim 4.96)\n \
            (envelope-from <line@bank.test>) id 1x\n";
        assert_eq!(of(format!("{exim}{forged}")).as_deref(), Some("line@bank.test"));
        let theirs = exim.replace("mx.ours.test", "mx.evil.test");
        assert_eq!(of(format!("{theirs}{forged}")), None);
    }

    #[test]
    fn the_boundary_is_a_queue_id_for_postfix_only() {
        let status = "Reporting-MTA: dns; mx.ours.test\n\nFinal-Recipient: rfc822; u@ours.test";
        let postfix = bounce(status, "Subject: x\n\nx");
        assert_eq!(names(&original(&postfix))[0], "mx.ours.test/Q1");
        let sendmail = postfix.replace("Content-Description: Notification\n", "");
        assert_eq!(names(&original(&sendmail))[0], "<irt@a.test>");
    }

    #[test]
    fn a_text_that_quotes_names_it_too() {
        let qmail = "From: MAILER-DAEMON@ours.test\nSubject: failure notice\n\n\
            Hi. This is the qmail-send program at ours.test.\n\
            I'm afraid I wasn't able to deliver your message to the following addresses.\n\n\
            <u@ours.test>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n\
            --- Below this line is a copy of the message.\n\n\
            Return-Path: <victim@bank.test>\nReceived: (qmail 9 invoked from network); 1 Jan 2026\n\
            Received: from x (192.0.2.1) by ours.test with SMTP; 1 Jan 2026\n\
            Message-ID: <m1@bank.test>\nSubject: s\n\n<forged@evil.test>:\n";
        let found = original(qmail);
        assert_eq!(found.found_as, FoundAs::Text);
        assert_eq!(names(&found), ["<m1@bank.test>"]);
        assert_eq!(path(&found), None);
        assert_eq!(failed(&found), ["u@ours.test"]);
        assert!(matches!(&found.keys[0], Key::MessageId { named_by: NamedBy::Text, .. }));
    }

    /// What a peer writes into his message to have it believed.
    const COMPOSED: &str = "Return-Path: <victim@bank.test>\n\
        Authentication-Results: mx.ours.test; spf=pass smtp.mailfrom=victim@bank.test\n\
        Received: from x (x [192.0.2.1]) by mx.ours.test (Postfix) id Q1\n\
        Message-ID: <m@bank.test>\nSubject: s\n";

    /// What a site whose border strips our Authentication-Results believes of a response.
    fn believed(message: &str) -> Original {
        let site = Site {
            authserv_ids: ["mx.ours.test".into()].into(),
            authserv_stripped: true,
            ..site()
        };
        let view = View::read(message.as_bytes());
        let reading = Reading::new(&view, Some(&ReversePath::Null));
        let (class, _) = classify(&reading);
        Original::of(&reading, class, &site)
    }

    /// Parts inside a multipart of this kind.
    fn parts(top: &str, kind: &str, parts: &[&str]) -> String {
        let parts: String = parts.iter().map(|part| format!("--b\n{part}\n")).collect();
        format!("{top}Content-Type: multipart/{kind}; boundary=b\n\n{parts}--b--\n")
    }

    const DAEMON: &str = "From: MAILER-DAEMON@ours.test\nSubject: failure notice\n";

    /// A report of RFC 3464, as the parts of a multipart.
    fn report_parts() -> [String; 3] {
        [
            "\nIt was not delivered.".to_owned(),
            "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.ours.test\n\
            X-Postfix-Sender: rfc822; victim@bank.test\n\nAction: failed"
                .to_owned(),
            format!("Content-Type: message/rfc822\n\n{COMPOSED}\nbody"),
        ]
    }

    #[test]
    fn only_a_report_that_is_the_message_proves_something() {
        let [text, status, message] = report_parts();
        let report = |top: &str| {
            parts(top, "report; report-type=delivery-status", &[text.as_str(), &status, &message])
        };
        for top in [
            DAEMON.to_owned(),
            format!("Auto-Submitted: auto-replied\nIn-Reply-To: <m@bank.test>\n{DAEMON}"),
            "From: Post <post@ours.test>\nSubject: returned\n".to_owned(),
        ] {
            let found = believed(&report(&top));
            assert_eq!(found.findings.unwrap().spf.len(), 1, "{top}");
            assert!(found.border.is_some() && path(&believed(&report(&top))).is_some(), "{top}");
        }
    }

    #[test]
    fn a_header_that_a_peer_may_have_composed_proves_nothing() {
        let [text, status, message] = report_parts();
        let report = "report; report-type=delivery-status";
        let joe = "Auto-Submitted: auto-replied\nFrom: joe@ours.test\nSubject: away\n";
        let plain = "From: joe@ours.test\nSubject: away\n";
        let peers = parts("", report, &[&text, &status, &message]);
        let folded: String = COMPOSED.lines().map(|line| format!(" {line}\n")).collect();
        let as_text = message.replace("message/rfc822", "text/plain");
        for hostile in [
            // A text that repeats the peer's, flush or as a folded field of his.
            format!("{DAEMON}\nIt was not delivered:\n\n{COMPOSED}\nbody\n"),
            format!("{DAEMON}\nIt was not delivered. Its subject: hello\n{folded}\n"),
            format!("{joe}\nIt was not delivered.\n--- Original message:\n\n{COMPOSED}\nbody\n"),
            // An attachment that a responder hands back, as a message or as a text.
            parts(DAEMON, "mixed", &[&text, &as_text]),
            parts(DAEMON, "mixed", &[&text, &message]),
            parts(joe, "mixed", &[&text, &message]),
            parts(plain, "mixed", &[&text, &message]),
            // A report of the peer's making that is handed back: whole, or its parts.
            parts(joe, "mixed", &["\naway", &peers]),
            parts(plain, "mixed", &["\naway", &peers]),
            parts(DAEMON, "mixed", &["\naway", &peers]),
            parts(joe, "mixed", &["\naway", &status, &message]),
            parts(plain, "mixed", &["\naway", &status, &message]),
            // A responder that turned the peer's message round in place.
            parts(joe, report, &[&text, &status, &message]),
            parts("From: joe@ours.test\nSubject: Re: s\n", report, &[&text, &status, &message]),
            parts(
                &format!("In-Reply-To: <m@a.test>\n{plain}"),
                report,
                &[&text, &status, &message],
            ),
            // A report without a part that tells what it reports.
            parts(DAEMON, "report", &[&text, &message]),
        ] {
            let found = believed(&hostile);
            assert_eq!((found.findings, found.return_path), (None, None), "{hostile}");
            assert_eq!(found.border, None, "{hostile}");
            let by_header = found
                .keys
                .iter()
                .any(|key| matches!(key, Key::MessageId { named_by: NamedBy::EmbeddedHeader, .. }));
            assert_eq!(by_header, hostile.contains("message/rfc822"), "{hostile}");
        }
        // It still names its message.
        let named = believed(&parts(DAEMON, "mixed", &[&text, &message]));
        assert_eq!(names(&named), ["mx.ours.test/Q1", "<m@bank.test>"]);
    }

    #[test]
    fn a_complaint_about_an_automatic_message_is_no_report_about_a_report() {
        let complaint = |header: &str| {
            let message = format!("Content-Type: message/rfc822\n\n{header}{COMPOSED}\nbuy");
            let fields = "Content-Type: message/feedback-report\n\nFeedback-Type: abuse";
            let report = "report; report-type=feedback-report";
            original(&parts("From: fbl@ours.test\n", report, &["\nwords", fields, &message])).kind
        };
        assert_eq!(complaint("Auto-Submitted: auto-generated\n").automatic, None);
        let report = "Content-Type: multipart/report; report-type=feedback-report; boundary=n\n";
        assert!(complaint(report).automatic.is_some());
        let bounce = report.replace("feedback-report", "delivery-status");
        assert_eq!(complaint(&bounce).automatic, None);
    }

    #[test]
    fn exim_names_a_late_message_by_its_id() {
        let late = "Received: from exim by mx.ours.test with local (Exim 4.96) id 1xREPORT; \
            Sat, 21 Nov 2026 17:54:29 +0000\nFrom: Mailer-Daemon@ours.test\n\
            Subject: Warning: message 1KNmHQ-000Md3-Kj delayed 24 hours\n\n\
            This message was created automatically.\n\
            The message identifier is:     1KNmHQ-000Md3-Kj\nwhich has not yet been delivered.\n";
        assert_eq!(names(&original(late)), ["mx.ours.test/1KNmHQ-000Md3-Kj"]);
    }

    #[test]
    fn a_reply_names_it_by_reference() {
        let reply = "Auto-Submitted: auto-replied\nIn-Reply-To: <m@a.test>\n\
            References: <r1@a.test>\n <r2@a.test>\n\t<m@a.test>\n\
            X-MS-Exchange-Parent-Message-Id: <p@a.test>\nFrom: joe@ours.test\n\naway\n\n\
            ----- Original Message -----\nFrom: x@y.test\nMessage-ID: <quoted@y.test>\n";
        let found = original(reply);
        assert_eq!(names(&found), ["<m@a.test>", "<r2@a.test>", "<r1@a.test>", "<p@a.test>"]);
        assert_eq!(found.found_as, FoundAs::Reference);
        assert!(found.from.is_empty() && found.return_path.is_none());
        let bare = original("Auto-Submitted: auto-replied\n\naway\n");
        assert_eq!(bare.found_as, FoundAs::None);
        assert_eq!(bare.gaps[0].cause, GapCause::NoKey);
    }

    #[test]
    fn a_receipt_names_it_by_its_own_field() {
        let mdn = "In-Reply-To: <i@a.test>\nContent-Type: multipart/report; \
            report-type=disposition-notification; boundary=b\n\n--b\n\n--b\n\
            Content-Type: message/disposition-notification\n\nOriginal-Message-ID: <o@a.test>\n\n--b--\n";
        let found = original(mdn);
        assert_eq!(names(&found), ["<o@a.test>", "<i@a.test>"]);
        assert!(matches!(
            &found.keys[0],
            Key::MessageId { named_by: NamedBy::OriginalMessageId, .. }
        ));
    }

    #[test]
    fn list_traffic_and_automatic_messages_show() {
        let kind = |field: &str| original(&bounce(STATUS, &format!("{field}\n{EMBEDDED}"))).kind;
        assert_eq!(kind("X-A: b"), SubjectKind::default());
        for field in
            ["List-Id: <l.test>", "Precedence: bulk", "List-Unsubscribe: <x>", "Mailing-List: y"]
        {
            assert!(kind(field).list.is_some(), "{field}");
        }
        for field in ["Auto-Submitted: auto-generated", "X-Auto-Response-Suppress: OOF"] {
            assert!(kind(field).automatic.is_some(), "{field}");
        }
        assert!(kind("Auto-Submitted: no").automatic.is_none());
        assert!(kind("X-Auto-Response-Suppress: DR").automatic.is_none());
    }

    #[test]
    fn nothing_grows_without_bound() {
        let many: String = (0..1000).map(|n| format!("Message-ID: <{n}@a.test>\n")).collect();
        let status: String =
            (0..1000).map(|n| format!("Final-Recipient: rfc822; u{n}@a.test\n\n")).collect();
        let found = original(&bounce(&status, &many));
        assert_eq!(found.keys.len(), ORIGINAL_KEYS_MAX);
        assert_eq!(found.failed_recipients.len(), FAILED_RECIPIENTS_MAX);
        let received = "Received: by a.test id 1\n".repeat(10_000);
        let trace = Trace::of(&Fields::read(received.as_bytes()));
        assert_eq!(trace.lines.len(), TRACE_LINES_MAX);
        let class = Class::Dsn(DsnAction::Failed);
        let view = View::read(b"");
        assert_eq!(
            Original::of(&Reading::new(&view, None), class, &site()).found_as,
            FoundAs::None
        );
    }
}
