//! Station 3: what kind of message is it, and which signs say so?
//!
//! Takes: a `Reading`. Gives: a `Class` and the `Signal`s that led to it.
//! Standards: RFC 3464, RFC 3834 §5, RFC 5965, RFC 6591, RFC 7489 §7.2.1.1, RFC 8098, RFC 8460,
//! RFC 2919, RFC 5546 §1.4.
//!
//! `RULES` in their order, first answer wins; structure before header signs, words last. When no
//! rule is sure the class is `Personal`: personal mail is never held, so a doubt costs a reply to
//! a forged sender, and a false alarm would cost somebody's mail.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::judge::failure::Failure;
use crate::judge::reading::{Reading, Sender};
use crate::judge::signs::{Author, Mark};
use crate::judge::words::{CHALLENGE, RECEIPT_LABEL, folded, labelled};
use crate::judge::words_of_failure::DELAY;
use crate::judge::words_of_reply::{REPLY_LABEL, REPLY_TEMPLATES, REPLY_TEXT};
use crate::mail::header::Field;
use crate::mail::limits::{SIGNAL_DETAIL_BYTES_MAX, SIGNALS_MAX};
use crate::mail::report::{Content, Dsn, Feedback, Place, Report};
use crate::mail::shown::Shown;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A person wrote it, or we cannot tell.
    Personal,
    /// Vacation, out-of-office, acknowledgement of a ticket.
    AutoReply,
    /// "Confirm that you are human".
    Challenge,
    /// A delivery status notification, of the RFC 3464 form or of a vendor's.
    Dsn(DsnAction),
    /// A message disposition notification (RFC 8098): read receipt, Sieve reject in MDN form.
    Mdn,
    /// DMARC aggregate or failure report, TLS report.
    DmarcReport,
    /// Abuse report (RFC 5965).
    FeedbackReport,
    /// List traffic.
    List,
    /// Newsletters.
    Bulk,
    /// What machines send unasked: alerts, calendar answers, journal reports, digests.
    Notification,
}

/// The Action field of a DSN (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DsnAction {
    /// Delivery failed for good.
    Failed,
    /// Not yet delivered, still trying.
    Delayed,
    /// Delivered to the mailbox.
    Delivered,
    /// Handed to a system that gives no notice.
    Relayed,
    /// Delivered to a list or alias.
    Expanded,
}

/// How a class is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Answers a message: the recipient is judged.
    Response,
    /// Reports to a domain's owner: limited in every case.
    Report,
    /// Nobody is judged.
    No,
}

impl Class {
    /// The stable name in records and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Personal => "personal",
            Class::AutoReply => "auto-reply",
            Class::Challenge => "challenge",
            Class::Dsn(_) => "dsn",
            Class::Mdn => "mdn",
            Class::DmarcReport => "dmarc-report",
            Class::FeedbackReport => "feedback-report",
            Class::List => "list",
            Class::Bulk => "bulk",
            Class::Notification => "notification",
        }
    }

    /// The DSN's action; `None` for every other class.
    pub fn dsn_action(self) -> Option<DsnAction> {
        match self {
            Class::Dsn(action) => Some(action),
            _ => None,
        }
    }

    /// How the class is guarded.
    pub fn guarded(self) -> Guarded {
        match self {
            Class::AutoReply | Class::Challenge | Class::Dsn(_) | Class::Mdn => Guarded::Response,
            Class::DmarcReport | Class::FeedbackReport => Guarded::Report,
            Class::Personal | Class::List | Class::Bulk | Class::Notification => Guarded::No,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DsnAction {
    /// The stable name, as RFC 3464 §2.3.3 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            DsnAction::Failed => "failed",
            DsnAction::Delayed => "delayed",
            DsnAction::Delivered => "delivered",
            DsnAction::Relayed => "relayed",
            DsnAction::Expanded => "expanded",
        }
    }
}

/// One sign that led to the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signal {
    /// Stable name of the sign, lower case with hyphens.
    pub id: Cow<'static, str>,
    /// What was seen: peer text, harmless and at most `limits::SIGNAL_DETAIL_BYTES_MAX`.
    pub detail: String,
    /// The standard that gives it a meaning, with section; empty when it is only a habit.
    pub standard: Cow<'static, str>,
}

impl Signal {
    /// A signal; `detail` is peer text, made harmless and cut.
    pub fn new(id: &'static str, detail: &str, standard: &'static str) -> Signal {
        let mut detail = Shown::at_most(detail, SIGNAL_DETAIL_BYTES_MAX).into_string();
        detail.truncate(detail.floor_char_boundary(SIGNAL_DETAIL_BYTES_MAX));
        Signal { id: Cow::Borrowed(id), detail, standard: Cow::Borrowed(standard) }
    }
}

/// What kind of message it is, and which signs say so.
pub fn classify(reading: &Reading<'_>) -> (Class, Vec<Signal>) {
    let mut signals = Vec::new();
    if reading.sender.is_nobody() {
        let detail = if reading.sender == Sender::Null { "<>" } else { "mailer-daemon" };
        signals.push(Signal::new("null-reverse-path", detail, "RFC 5321 §4.5.5"));
    }
    if reading.author >= Author::Postmaster {
        let from = reading.view.fields.text("from").unwrap_or_default();
        signals.push(Signal::new("daemon-author", &from, ""));
    }
    for (sign, field) in &reading.signs {
        signals.push(Signal::new(sign.id, &field.text(), sign.standard));
    }
    let class = RULES.iter().find_map(|rule| rule(reading, &mut signals));
    signals.truncate(SIGNALS_MAX);
    (class.unwrap_or(Class::Personal), signals)
}

/// A rule: the class when it is sure, with the signals that made it sure.
type Rule = fn(&Reading<'_>, &mut Vec<Signal>) -> Option<Class>;

/// The rules, in their order.
///
/// Why responses stand before reports and calendars: a responder may copy a subject, and a bounce
/// the parts, of the message it answers; a forger who could make our response pass for a report
/// would have it judged as one.
const RULES: &[Rule] = &[
    journal,
    report,
    bounce_in_words,
    receipt_in_words,
    challenge,
    calendar,
    automatic_reply,
    reply_in_words,
    domain_report,
    complaint,
    to_many,
    notification,
];

/// Copies for an archive: they embed mail, and answer nothing.
fn journal(reading: &Reading<'_>, _: &mut Vec<Signal>) -> Option<Class> {
    reading.marks.has(Mark::Journal).then_some(Class::Notification)
}

/// A report by its form. Before Auto-Submitted: most bounces say `auto-replied` too.
fn report(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let report = reading.report.as_ref()?;
    if report.place == Place::Inside && is_persons(reading) || is_turned_round(reading, report) {
        return None;
    }
    let (class, id, standard) = match &report.content {
        Content::Dsn(dsn) => {
            (Class::Dsn(dsn_action(dsn, reading)), "delivery-status", "RFC 3464 §2")
        }
        Content::Mdn(_) => (Class::Mdn, "disposition-notification", "RFC 8098 §3"),
        Content::Feedback(feedback) => feedback_class(feedback),
        Content::Tls => (Class::DmarcReport, "tls-report", "RFC 8460 §5.3"),
        // Words must say what it is.
        Content::Untyped => return None,
    };
    signals.push(Signal::new(id, &report.shown_by, standard));
    Some(class)
}

/// Whether a person, or the responder of one, may have sent it: then a report in it is one that the
/// person got, and hands on.
fn is_persons(reading: &Reading<'_>) -> bool {
    let is_answer = reading.marks.has(Mark::Replied) || reading.is_reply_subject;
    reading.author < Author::Postmaster && (is_answer || reading.sender == Sender::Mailbox)
}

/// Whether a responder turned a peer's message round in place, report and all.
///
/// Why only these contents: no MTA answers when it reports a failure or a receipt. Why no look at
/// the subject of a complaint: it has that of the message it is about, often with `FW:` before it.
fn is_turned_round(reading: &Reading<'_>, report: &Report) -> bool {
    let answers = reading.marks.any(&[Mark::Replied, Mark::Answers]);
    let is_answer = match report.content {
        Content::Feedback(_) => answers,
        Content::Tls => answers || reading.is_reply_subject,
        Content::Dsn(_) | Content::Mdn(_) | Content::Untyped => false,
    };
    is_answer && reading.author < Author::Postmaster
}

fn feedback_class(feedback: &Feedback) -> (Class, &'static str, &'static str) {
    match feedback.kind.as_deref() {
        Some("auth-failure") => (Class::DmarcReport, "failure-report", "RFC 6591 §3.1"),
        _ => (Class::FeedbackReport, "feedback-report", "RFC 5965 §2"),
    }
}

/// The gravest action of all recipients; when none is said, the status, and then the words.
fn dsn_action(dsn: &Dsn, reading: &Reading<'_>) -> DsnAction {
    let actions = dsn.recipients.iter().filter_map(|recipient| recipient.action.as_deref());
    let said = actions.filter_map(|word| {
        // Real servers write `fail`, `failed (bounced)`, `Delayed`.
        ACTIONS.iter().find(|(start, _)| word.starts_with(start)).map(|(_, action)| *action)
    });
    let status = || {
        let classes = dsn.recipients.iter().filter_map(|r| r.status.as_deref()?.chars().next());
        classes.min_by_key(|class| *class != '5').and_then(|class| match class {
            '2' => Some(DsnAction::Delivered),
            '5' => Some(DsnAction::Failed),
            _ => None,
        })
    };
    said.min().or_else(status).unwrap_or_else(|| action_in_words(reading))
}

const ACTIONS: &[(&str, DsnAction)] = &[
    ("fail", DsnAction::Failed),
    ("delay", DsnAction::Delayed),
    ("deliver", DsnAction::Delivered),
    ("relay", DsnAction::Relayed),
    ("expand", DsnAction::Expanded),
];

fn action_in_words(reading: &Reading<'_>) -> DsnAction {
    let is_late = DELAY.find(&reading.subject_words).or_else(|| reading.said().delay);
    if is_late.is_some() { DsnAction::Delayed } else { DsnAction::Failed }
}

/// DMARC aggregate reports: by the file name that RFC 7489 §7.2.1.1 asks for, or by its subject
/// and a compressed file.
fn domain_report(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let parts = reading.view.parts();
    let file = parts.iter().filter_map(|part| part.file_name.as_deref());
    let by_file = file.into_iter().find(|name| is_aggregate_name(name));
    let subject = &reading.subject_words;
    let by_subject = subject.contains("report domain:")
        && subject.contains("submitter:")
        && parts.iter().any(|part| REPORT_FILES.contains(&part.media.kind.as_str()));
    let detail = by_file.or(by_subject.then_some(reading.subject.as_ref()))?;
    signals.push(Signal::new("aggregate-report", detail, "RFC 7489 §7.2.1.1"));
    Some(Class::DmarcReport)
}

/// Media types that aggregate reports really have.
const REPORT_FILES: &[&str] = &[
    "application/gzip",
    "application/x-gzip",
    "application/zip",
    "application/x-zip-compressed",
    "application/xml",
    "text/xml",
];

/// `receiver!policy-domain!begin!end[!unique].xml[.gz|.zip]`
fn is_aggregate_name(name: &str) -> bool {
    let mut pieces = name.split('!');
    let (receiver, domain) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    let times = pieces.by_ref().take(2).filter(|piece| {
        let digits = piece.split('.').next().unwrap_or_default();
        digits.len() >= 9 && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    receiver.contains('.') && domain.contains('.') && times.count() == 2
}

/// Outlook.com's complaint feed: a bare message/rfc822 that Hotmail marked.
fn complaint(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    if !reading.subject_words.starts_with("complaint about message from") {
        return None;
    }
    reading.embedded()?;
    signals.push(Signal::new("complaint-subject", &reading.subject, ""));
    Some(Class::FeedbackReport)
}

/// Invitations and their answers (iTIP): machines send them, and answer them.
fn calendar(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    if reading.marks.has(Mark::Replied) {
        return None;
    }
    let calendars = reading.view.parts().iter().filter(|part| part.media.is("text/calendar"));
    let mut methods = calendars.filter_map(|part| part.media.parameter("method"));
    let method = methods.find(|method| !method.eq_ignore_ascii_case("publish"))?;
    signals.push(Signal::new("calendar", method, "RFC 5546 §1.4"));
    Some(Class::Notification)
}

/// Bounces of servers that do not know RFC 3464, or leave it out: qmail, Exim, Notes, GroupWise…
///
/// Why so many signs: a null reverse-path alone is a vacation or a journal copy, a failure text
/// alone a colleague's question, an embedded message alone a forward. How many are needed depends
/// on who says it.
fn bounce_in_words(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let is_nobodys = reading.sender.is_nobody();
    let is_untyped_report = matches!(
        &reading.report,
        Some(report) if report.content == Content::Untyped && report.place == Place::Root
    );
    if !is_nobodys && reading.author == Author::Any && !is_untyped_report {
        return None;
    }
    // Why: the keepers of a mail system are people too, who answer and explain.
    let is_mailboxs = reading.sender == Sender::Mailbox;
    if is_mailboxs && reading.author < Author::Daemon && reading.is_reply_subject {
        return None;
    }
    let failure = Failure::of(reading);
    let names_recipients = reading.marks.has(Mark::Failed);
    let is_bounce = match reading.author {
        // Why: who carries parcels has such a name, and can't deliver them.
        Author::Named if is_mailboxs || reading.said().goods.is_some() => {
            failure.has_words() && failure.has_form() || names_recipients || is_untyped_report
        }
        // Exchange signs its journal copies like its reports: a message alone is no report.
        Author::Daemon | Author::Named => {
            failure.has_words() || failure.has_reply_code || names_recipients || is_untyped_report
        }
        Author::Postmaster if is_mailboxs => {
            failure.has_words() && (failure.encloses || is_untyped_report) || names_recipients
        }
        Author::Postmaster => {
            failure.has_words() && failure.count() + usize::from(is_nobodys) > 1 || names_recipients
        }
        // Why: a vacation may say that a mailbox is no longer read, and return a message too; and
        // what it repeats may say anything.
        _ if reading.marks.has(Mark::Replied) => false,
        _ if is_nobodys && reading.said().goods.is_some() => {
            failure.has_words() && (failure.has_form() || names_recipients)
        }
        _ if is_nobodys => failure.has_words() && (failure.count() > 1 || names_recipients),
        _ if is_untyped_report => failure.has_words(),
        _ => failure.text.is_some() && failure.encloses,
    };
    if !is_bounce {
        return None;
    }
    signals.extend(failure.subject.map(|phrase| Signal::new("failure-subject", phrase, "")));
    signals.extend(failure.text.map(|phrase| Signal::new("failure-text", phrase, "")));
    if failure.encloses {
        signals.push(Signal::new("returned-message", "", ""));
    }
    Some(Class::Dsn(action_in_words(reading)))
}

/// Read receipts in Exchange's own form, without a disposition-notification.
fn receipt_in_words(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let label = labelled(RECEIPT_LABEL, &reading.subject_words)?;
    // Why not when it says that it is a reply: a responder may copy the subject that it answers.
    let is_receipt = reading.sender.is_nobody()
        && !reading.marks.has(Mark::Replied)
        && !reading.is_reply_subject
        && (reading.marks.has(Mark::Answers) || has_exchange_form(reading));
    is_receipt.then(|| {
        signals.push(Signal::new("receipt-subject", label, ""));
        Class::Mdn
    })
}

fn has_exchange_form(reading: &Reading<'_>) -> bool {
    reading.view.parts().iter().any(|part| part.media.is("application/ms-tnef"))
}

/// "Confirm that you are human". The words count only where a machine answers: whoever opens an
/// account somewhere is asked that too.
fn challenge(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let marks = reading.marks;
    if marks.has(Mark::Challenge) {
        return Some(Class::Challenge);
    }
    if marks.any(&[Mark::List, Mark::Bulk]) || is_unasked(reading) {
        return None;
    }
    let subject = || CHALLENGE.find(&reading.subject_words);
    let by_machine =
        || marks.any(&[Mark::Generated, Mark::Suppress, Mark::BulkPrecedence, Mark::LoopMark]);
    let phrase = match reading.sender.is_nobody() {
        // Why only the subject: a vacation's text may repeat what it answers.
        _ if marks.has(Mark::Replied) => subject().filter(|_| !reading.is_reply_subject),
        false if !marks.has(Mark::Answers) || !by_machine() => None,
        _ => subject().or_else(|| reading.said().challenge),
    }?;
    signals.push(Signal::new("challenge-text", phrase, ""));
    Some(Class::Challenge)
}

/// Whether a machine says that it sends this of its own accord: codes to log in, confirmations of
/// an account. What answers a message names it, or says that it replies.
fn is_unasked(reading: &Reading<'_>) -> bool {
    reading.marks.has(Mark::Generated) && !reading.marks.any(&[Mark::Answers, Mark::Replied])
}

/// Automatic replies that say so in their header.
fn automatic_reply(reading: &Reading<'_>, _: &mut Vec<Signal>) -> Option<Class> {
    let marks = reading.marks;
    if marks.has(Mark::NotAutomatic) {
        return None;
    }
    if marks.has(Mark::Replied) {
        return Some(Class::AutoReply);
    }
    if marks.any(&[Mark::List, Mark::Bulk]) {
        return None;
    }
    // The recipe of procmail's manual, and old vacations: bulk, answering, and marked against
    // loops with the own address; list servers write the list's.
    let by_recipe =
        marks.has(Mark::BulkPrecedence) && marks.has(Mark::Answers) && is_marked_by_author(reading);
    let is_answer = marks.has(Mark::Answers) || reading.is_reply_subject;
    let is_weak =
        marks.any(&[Mark::BulkPrecedence, Mark::Suppress, Mark::LoopMark, Mark::RulesLoop]);
    // Why: people answer from a mailbox, and trackers that answer in their own threads say that
    // they are automatic. RFC 3834 §3.1.2 asks responders for the null reverse-path.
    let by_nobody = reading.sender.is_nobody()
        && match marks.has(Mark::Generated) {
            true => marks.has(Mark::Answers) && is_weak,
            false => is_answer || marks.has(Mark::BulkPrecedence) && reading.author == Author::Any,
        };
    (marks.has(Mark::Responder) || by_recipe || by_nobody).then_some(Class::AutoReply)
}

fn is_marked_by_author(reading: &Reading<'_>) -> bool {
    let fields = &reading.view.fields;
    let mut marks = fields.all("x-loop").flat_map(Field::addresses);
    marks.any(|mark| fields.author_addresses().any(|author| author.same_mailbox(&mark)))
}

/// Automatic replies that only their words show, in a message that a machine sent; or a subject
/// that only software writes.
fn reply_in_words(reading: &Reading<'_>, signals: &mut Vec<Signal>) -> Option<Class> {
    let marks = reading.marks;
    if marks.any(&[Mark::NotAutomatic, Mark::List, Mark::Bulk]) || reading.is_reply_subject {
        return None;
    }
    let template = || {
        let by_form = |(subject, text): &&(&str, &'static str)| {
            reading.subject_words.trim_end_matches('.').ends_with(subject)
                && reading.own_words().trim_start().starts_with(text)
        };
        REPLY_TEMPLATES.iter().find(by_form).map(|(_, text)| *text)
    };
    let label = labelled(REPLY_LABEL, &reading.subject_words);
    if let Some(label) = label.filter(|label| is_software_label(reading, label)).or_else(template) {
        signals.push(Signal::new("reply-label", label, ""));
        return Some(Class::AutoReply);
    }
    if is_unasked(reading) {
        return None;
    }
    let subject = || REPLY_TEXT.find(&reading.subject_words);
    let by_machine = marks.any(&[Mark::Generated, Mark::Suppress, Mark::BulkPrecedence]);
    let phrase = match reading.sender.is_nobody() {
        true => subject().or_else(|| REPLY_TEXT.find(beginning(reading.own_words()))),
        // Why only the subject: a tracker's notification quotes what people write. Why only what
        // answers: a shop thanks for an order in the same words.
        false if by_machine && marks.has(Mark::Answers) => subject(),
        false if marks.has(Mark::RulesLoop) => subject(),
        false => None,
    }?;
    signals.push(Signal::new("reply-text", phrase, ""));
    Some(Class::AutoReply)
}

/// Whether software put the label before the subject: people write "Auto-reply: does it work?" too.
/// With a mailbox for reverse-path something else must show that a message is answered, or that a
/// machine does it.
fn is_software_label(reading: &Reading<'_>, label: &str) -> bool {
    let marks = reading.marks;
    let machine = [
        Mark::Answers,
        Mark::Generated,
        Mark::Suppress,
        Mark::BulkPrecedence,
        Mark::LoopMark,
        Mark::RulesLoop,
    ];
    // Exchange names the subject that it answers once more, without the label.
    let names_thread = || {
        let topic = reading.view.fields.first("thread-topic").map(Field::decoded);
        let topic = folded(&topic.unwrap_or_default(), TOPIC_BYTES_MAX);
        let rest = reading.subject_words.strip_prefix(label).unwrap_or_default();
        !topic.trim().is_empty() && rest.trim_start_matches([' ', ':']).trim() == topic.trim()
    };
    reading.sender != Sender::Mailbox || marks.any(&machine) || names_thread()
}

/// Bytes of a folded Thread-Topic.
const TOPIC_BYTES_MAX: usize = 1000;

/// The first sentences of a text. Why: an absence is told there; further down a newsletter too
/// says "on vacation".
fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(BEGINNING_BYTES_MAX)).unwrap_or(text)
}

const BEGINNING_BYTES_MAX: usize = 800;

/// List traffic and mailings.
fn to_many(reading: &Reading<'_>, _: &mut Vec<Signal>) -> Option<Class> {
    if reading.marks.has(Mark::List) {
        return Some(Class::List);
    }
    reading.marks.any(&[Mark::Bulk, Mark::BulkPrecedence]).then_some(Class::Bulk)
}

/// What machines send unasked. A null reverse-path is enough: people have a mailbox.
fn notification(reading: &Reading<'_>, _: &mut Vec<Signal>) -> Option<Class> {
    let is_machines =
        reading.sender.is_nobody() || reading.marks.any(&[Mark::Generated, Mark::Suppress]);
    (is_machines && !reading.marks.has(Mark::NotAutomatic)).then_some(Class::Notification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::{Address, ReversePath};
    use crate::mail::message::View;

    fn class_of(path: &str, message: &str) -> String {
        let path = match path {
            "" => None,
            "<>" => Some(ReversePath::Null),
            address => Some(ReversePath::Address(Address::parse(address).unwrap())),
        };
        let view = View::read(message.as_bytes());
        let (class, _) = classify(&Reading::new(&view, path.as_ref()));
        match class.dsn_action() {
            Some(action) => format!("dsn.{}", action.as_str()),
            None => class.to_string(),
        }
    }

    fn report(kind: &str, part: &str) -> String {
        format!(
            "Content-Type: multipart/report; report-type={kind}; boundary=b\n\n--b\n\nwords\n\
            --b\nContent-Type: message/{kind}\n\n{part}\n--b\nContent-Type: message/rfc822\n\n\
            Subject: x\n\nbody\n--b--\n"
        )
    }

    /// A message that holds another one and says nothing of it.
    fn embedding(header: &str, text: &str) -> String {
        format!(
            "{header}Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{text}\n--b\n\
            Content-Type: message/rfc822\n\nFrom: a@a.test\nSubject: x\n\nbody\n--b--\n"
        )
    }

    #[test]
    fn the_form_of_a_report_outweighs_what_its_header_says() {
        let dsn = report("delivery-status", "Action: failed");
        for header in [
            "Auto-Submitted: auto-replied\n",
            "Auto-Submitted: auto-generated (failure)\n",
            "Precedence: bulk\nList-Id: <l.test>\n",
            "Auto-Submitted: no\n",
        ] {
            assert_eq!(class_of("<>", &format!("{header}{dsn}")), "dsn.failed", "{header}");
        }
        let mdn = report("disposition-notification", "Disposition: x; displayed");
        assert_eq!(class_of("<>", &format!("Auto-Submitted: auto-replied\n{mdn}")), "mdn");
        let abuse = report("feedback-report", "Feedback-Type: abuse");
        assert_eq!(class_of("fbl@a.test", &abuse), "feedback-report");
        let failure = report("feedback-report", "Feedback-Type: auth-failure");
        assert_eq!(class_of("dmarc@a.test", &failure), "dmarc-report");
        assert_eq!(class_of("tls@a.test", &report("tlsrpt", "")), "dmarc-report");
    }

    #[test]
    fn the_gravest_action_counts() {
        let action = |fields: &str| class_of("<>", &report("delivery-status", fields));
        assert_eq!(action("Action: delayed\n\nAction: failed\n\nAction: delivered"), "dsn.failed");
        assert_eq!(action("Action: relayed\n\nAction: Delivered (to mailbox)"), "dsn.delivered");
        assert_eq!(action("Action: expanded"), "dsn.expanded");
        assert_eq!(action("Action: relayed"), "dsn.relayed");
        assert_eq!(action("Status: 2.0.0"), "dsn.delivered");
        assert_eq!(action("Status: 4.4.1\n\nStatus: 5.1.1"), "dsn.failed");
        assert_eq!(action(""), "dsn.failed");
        let warning = format!("Subject: Delayed Mail\n{}", report("delivery-status", ""));
        assert_eq!(class_of("<>", &warning), "dsn.delayed");
    }

    #[test]
    fn no_weak_sign_makes_a_response_alone() {
        for (path, header, class) in [
            ("<>", "Subject: hello\n", "notification"),
            ("a@a.test", "X-Auto-Response-Suppress: All\n", "notification"),
            ("a@a.test", "Precedence: bulk\n", "bulk"),
            ("a@a.test", "List-Id: <l.test>\n", "list"),
            ("a@a.test", "Subject: Auto: for sale\n", "personal"),
            ("a@a.test", "X-Loop: a@a.test\n", "personal"),
            ("a@a.test", "In-Reply-To: <m@b.test>\n", "personal"),
            ("a@a.test", "Auto-Submitted: auto-generated\nIn-Reply-To: <m@b>\n", "notification"),
            ("a@a.test", "From: postmaster@a.test\nSubject: Re: Undelivered mail\n", "personal"),
            ("a@a.test", "Subject: out of the office next week\n", "personal"),
            ("a@a.test", "Subject: Re: Automatic reply: hello\n", "personal"),
            ("a@a.test", "Auto-Submitted: no\nSubject: hello\n", "personal"),
            ("a@a.test", "Subject: Auto-reply: does yours work?\n", "personal"),
            ("a@a.test", "Subject: Auto-reply: a\nThread-Topic: Auto-reply: a\n", "personal"),
            ("a@a.test", "X-Auto-Reply: 0\n", "personal"),
            ("a@a.test", "X-Mailer: VacationRentalManager 2\n", "personal"),
            ("a@a.test", "X-Mailer: Vacation Rental Mail\n", "personal"),
            (
                "a@a.test",
                "Subject: We have received your order\nAuto-Submitted: auto-generated\n",
                "notification",
            ),
            ("<>", "Precedence: bulk\nList-Unsubscribe: <x>\n", "bulk"),
            ("<>", "Precedence: bulk\nFrom: no-reply@a.test\n", "bulk"),
            ("<>", "Auto-Submitted: auto-generated\nReferences: <t@a.test>\n", "notification"),
        ] {
            assert_eq!(class_of(path, &format!("{header}\nhello\n")), class, "{header}");
        }
    }

    #[test]
    fn what_a_machine_sends_unasked_answers_nothing() {
        for text in [
            "Confirm your account: please verify that you are a real person.",
            "Your code is 123456. This mailbox is not monitored.",
            "Your request has been received. Reset your password here.",
        ] {
            for header in ["Auto-Submitted: auto-generated\n", "Auto-Submitted: auto-notified\n"] {
                let class = class_of("<>", &format!("{header}Subject: Account\n\n{text}\n"));
                assert_eq!(class, "notification", "{header}{text}");
            }
            let class = class_of("<>", &format!("Subject: Account\n\n{text}\n"));
            assert_ne!(class, "notification", "{text}");
        }
    }

    #[test]
    fn a_report_that_a_responder_turns_round_is_not_his() {
        let abuse = report("feedback-report", "Feedback-Type: abuse");
        let tls = report("tlsrpt", "");
        let joe = "From: joe@a.test\nSubject: x\n";
        for body in [&abuse, &tls] {
            for sign in ["Auto-Submitted: auto-replied\n", "In-Reply-To: <m@b.test>\n"] {
                assert_eq!(class_of("<>", &format!("{joe}{sign}{body}")), "auto-reply", "{sign}");
            }
            let daemon = "From: postmaster@a.test\nReferences: <m@b.test>\n";
            assert!(class_of("", &format!("{daemon}{body}")).ends_with("report"));
        }
        let forwarded = "From: fbl@a.test\nSubject: FW: Earn money\n";
        assert_eq!(class_of("<>", &format!("{forwarded}{abuse}")), "feedback-report");
        assert_eq!(class_of("<>", &format!("From: j@a.test\nSubject: Re: x\n{tls}")), "auto-reply");
    }

    #[test]
    fn a_carrier_of_parcels_is_no_mail_system() {
        let carrier = "From: Mail Delivery Services GmbH <info@carrier.example>\n";
        let parcel = "Subject: Your delivery\n\nYour parcel could not be delivered.\n";
        assert_eq!(class_of("info@carrier.example", &format!("{carrier}{parcel}")), "personal");
        assert_eq!(class_of("<>", &format!("{carrier}{parcel}")), "notification");
        let plain = "Subject: Your delivery\n\nIt could not be delivered.\n";
        assert_eq!(class_of("info@carrier.example", &format!("{carrier}{plain}")), "personal");
        // A mail system with an address of its own choice.
        let system = "From: Mail Delivery System <relay7@a.test>\nSubject: Undelivered Mail\n\n";
        let refused = "Your message could not be delivered.\n550 5.1.1 no such user\n";
        assert_eq!(class_of("relay7@a.test", &format!("{system}{refused}")), "dsn.failed");
        let words = "Your message could not be delivered.\n";
        assert_eq!(class_of("<>", &format!("{system}{words}")), "dsn.failed");
    }

    #[test]
    fn an_embedded_message_alone_is_no_bounce() {
        for (path, header) in [
            ("<>", "From: journal@a.test\n"),
            ("<>", "From: Microsoft Exchange <MicrosoftExchange329e@a.test>\n"),
            ("joe@a.test", "From: joe@a.test\n"),
        ] {
            let class = class_of(path, &embedding(header, "Sender: x\nRecipient: y\n"));
            assert!(!class.starts_with("dsn"), "{header}: {class}");
        }
        let journal = embedding("X-MS-Journal-Report:\n", "Your message could not be delivered.");
        assert_eq!(class_of("<>", &journal), "notification");
        let forward = embedding("From: joe@a.test\n", "Look, it could not be delivered.");
        assert_eq!(class_of("joe@a.test", &forward), "personal");
        let attached = format!(
            "From: joe@a.test\nContent-Type: multipart/mixed; boundary=o\n\n--o\n\n\
            Look\n--o\nContent-Type: message/rfc822\n\n{}\n--o--",
            report("delivery-status", "Action: failed")
        );
        assert_eq!(class_of("joe@a.test", &attached), "personal");
    }

    #[test]
    fn a_report_that_somebody_hands_on_is_not_his() {
        let bare = "Content-Type: multipart/mixed; boundary=o\n\n--o\n\nLook\n--o\n\
            Content-Type: message/delivery-status\n\nAction: failed\n--o\n\
            Content-Type: message/rfc822\n\nSubject: x\n\nbody\n--o--\n"
            .to_owned();
        let wrapped = format!(
            "Content-Type: multipart/mixed; boundary=o\n\n--o\n\nLook\n--o\n{}\n--o--\n",
            report("delivery-status", "Action: failed")
        );
        for parts in [bare, wrapped] {
            let of = |path: &str, header: &str| class_of(path, &format!("{header}{parts}"));
            let joe = "From: joe@a.test\nSubject: FW: Undeliverable: x\n";
            assert_eq!(of("joe@a.test", joe), "personal");
            assert_eq!(of("", joe), "personal");
            let replied = "From: joe@a.test\nAuto-Submitted: auto-replied\n";
            assert_eq!(of("<>", replied), "auto-reply");
            assert_eq!(of("joe@a.test", replied), "auto-reply");
            // A filter wrapped it, or a server knows the parts and not the wrapping.
            let daemon = "From: MAILER-DAEMON@a.test\nSubject: failure notice\n";
            assert_eq!(of("<>", daemon), "dsn.failed");
            assert_eq!(of("list-bounces@a.test", daemon), "dsn.failed");
            assert_eq!(of("<>", "From: Delivery <d@a.test>\n"), "dsn.failed");
        }
    }

    #[test]
    fn automatic_replies_with_and_without_a_null_reverse_path() {
        for (path, header) in [
            ("<>", "Auto-Submitted: auto-replied (vacation)\n"),
            ("erin@ours.test", "Auto-Submitted: auto-replied\n"),
            ("<>", "Subject: Away\nPrecedence: bulk\nIn-Reply-To: <m@a.test>\n"),
            ("a@a.test", "From: a@a.test\nPrecedence: junk\nX-Loop: a@a.test\nReferences: <m@b>\n"),
            ("a@a.test", "X-Autoreply: yes\n"),
            ("", "Subject: Automatische Antwort: Hallo\n"),
            ("a@a.test", "Subject: Automatische Antwort: Hallo\nIn-Reply-To: <m@b.test>\n"),
            ("a@a.test", "Subject: Automatische Antwort: Hallo\nThread-Topic: Hallo\n"),
            ("a@a.test", "Subject: [Ticket #1] AutoReply: Hallo\nPrecedence: bulk\n"),
            ("<>", "Subject: Ich bin im Urlaub\n"),
            (
                "a@a.test",
                "Subject: Thank you for contacting us\nX-Auto-Response-Suppress: All\n\
                In-Reply-To: <m@b.test>\n",
            ),
            // No standard's sign, but nobody else answers without a mailbox.
            ("<>", "Subject: Re: hello\n"),
            ("<>", "Subject: hello\nReferences: <m@b.test>\n"),
            ("<>", "Subject: hello\nPrecedence: bulk\n"),
            ("<>", "Subject: hello\nPrecedence: junk\n"),
            ("a@a.test", "Subject: hello\nX-Mailer: vacation 1.4\n"),
            ("a@a.test", "X-MS-Exchange-Generated-Message-Source: Mailbox Rules Agent\n"),
        ] {
            assert_eq!(class_of(path, &format!("{header}\nhello\n")), "auto-reply", "{header}");
        }
        let notes = "Subject: Joe Doe is out of the office.\n\nI will be out of the office starting \
            02/08/2002 and will not return until 06/08/2002.\n";
        assert_eq!(class_of("joe@a.test", notes), "auto-reply");
        // A list server hands on what somebody's responder says; so do newsletters about holidays.
        let listed = "List-Id: <l.test>\nSubject: Automatic reply: x\n\nhello\n";
        assert_eq!(class_of("l-bounces@l.test", listed), "list");
        let offer = "Subject: On vacation in May\nPrecedence: bulk\nList-Unsubscribe: <x>\n\nbuy\n";
        assert_eq!(class_of("a@a.test", offer), "bulk");
    }

    #[test]
    fn bounces_without_a_form_in_the_languages_of_servers() {
        for (subject, text) in [
            (
                "failure notice",
                "Hi. I'm afraid I wasn't able to deliver your message.\n<a@b.test>:",
            ),
            ("Mail delivery failed", "550 5.1.1 no such user"),
            ("Unzustellbar: Hallo", "Ihre Nachricht konnte nicht zugestellt werden."),
            ("Non remis : bonjour", "Le message n’a pas pu être remis aux destinataires."),
            ("No se puede entregar: hola", "El mensaje no se pudo entregar a su destinatario."),
            ("Não entregue: olá", "A sua mensagem não pôde ser entregue."),
            ("Non recapitabile: ciao", "Impossibile recapitare il messaggio."),
            ("Onbestelbaar: hallo", "Uw bericht kon niet worden bezorgd."),
            ("Niedostarczone: cześć", "Nie można dostarczyć wiadomości."),
            ("Недоставленное сообщение", "Ваше письмо не может быть доставлено."),
            ("Kan inte levereras", "Meddelandet kunde inte levereras."),
            ("Kan ikke leveres", "Meddelelsen kunne ikke leveres."),
            ("Viestin toimitus epäonnistui", "Viestiä ei voitu toimittaa."),
            ("Nedoručitelné: ahoj", "Zpráva nebyla doručena."),
            ("Teslim edilemedi: merhaba", "İletiniz teslim edilemedi."),
            ("配信不能: こんにちは", "メールを配信できませんでした。"),
            ("系统退信", "您的邮件无法送达。"),
        ] {
            let plain =
                format!("Subject: {subject}\nContent-Type: text/plain; charset=utf-8\n\n{text}\n");
            let from_daemon = format!("From: MAILER-DAEMON@a.test\n{plain}");
            assert_eq!(class_of("", &from_daemon), "dsn.failed", "{subject}");
            assert_eq!(class_of("<>", &plain), "dsn.failed", "{subject}");
            assert_eq!(class_of("joe@a.test", &plain), "personal", "{subject}");
        }
        let late = "From: MAILER-DAEMON@a.test\nSubject: Warning: message 1K delayed 24 hours\n\n\
            A message that you sent has not yet been delivered to one or more of its recipients.\n";
        assert_eq!(class_of("<>", late), "dsn.delayed");
        let exim = "X-Failed-Recipients: x@b.test\nFrom: Postmaster <p@a.test>\n\nhello\n";
        assert_eq!(class_of("<>", exim), "dsn.failed");
    }

    /// Bounces in the forms of servers that know no RFC 3464: From, subject, text.
    const SERVERS: &[(&str, &str, &str)] = &[
        (
            "MAILER-DAEMON@a.test",
            "failure notice",
            "Hi. This is the qmail-send program at a.test.\n<u@b.test>:\nSorry. (#5.1.1)",
        ),
        (
            "MDaemon@a.test",
            "Permanent Delivery Failure",
            "The attached message had PERMANENT fatal delivery errors!\nYOUR MESSAGE WAS NOT DELIVERED!",
        ),
        (
            "\"Postmaster\" <postmaster@a.test>",
            "Undeliverable Mail",
            "Unknown user: u@b.test\n\nOriginal message follows.\n\nFrom: x@y.test\nTo: u@b.test\n",
        ),
        (
            "System Administrator <postmaster@a.test>",
            "Undeliverable: hello",
            "Your message\n\n  To:      u@b.test\n  Subject: hello\n\ndid not reach the following recipient(s):",
        ),
        (
            "Postmaster@a.test",
            "DELIVERY FAILURE: User u not listed in Domino Directory",
            "Your message\n\n  Subject: hello\n\nwas not delivered to:\n\n  u@b.test\n\nbecause:",
        ),
        (
            "Mailer-Daemon@a.test",
            "Message status - undeliverable",
            "The message that you sent was undeliverable to the following:\n\tu (user unknown)",
        ),
        (
            "Mail Delivery Subsystem <MAILER-DAEMON@a.test>",
            "Returned mail: User unknown",
            "   ----- Transcript of session follows -----\n550 <u@b.test>... User unknown",
        ),
        (
            "Mailer-Daemon@a.test",
            "mail failed, returning to sender",
            "|------------------------- Failed addresses follow: ---------------------|\n <u@b.test>",
        ),
        (
            "\"InterScan MSS\" <postmaster@a.test>",
            "Mail could not be delivered",
            "Sent <<< RCPT TO:<u@b.test>\nReceived >>> 550 5.1.1 <u@b.test>... user unknown",
        ),
        (
            "MMSC NDR Administrator <sysadmin@a.test>",
            "Undeliverable Message",
            "Message could not be delivered to mobile.",
        ),
        ("<>", "failure notice", "-------server message\n550 u@b.test... No such user"),
    ];

    #[test]
    fn bounces_in_the_forms_of_many_servers() {
        for (from, subject, text) in SERVERS {
            let message = format!("From: {from}\nSubject: {subject}\n\n{text}\n");
            assert_eq!(class_of("", &message), "dsn.failed", "{from}: {subject}");
            let answer = message.replace("Subject: ", "Subject: Re: ").replace(from, "joe@a.test");
            assert_eq!(class_of("joe@a.test", &answer), "personal", "{from}: {subject}");
        }
    }

    #[test]
    fn a_vacation_that_speaks_of_failures_is_no_bounce() {
        let away = "Auto-Submitted: auto-replied\nFrom: joe@a.test\nSubject: I have left\n\n\
            This mailbox is closed, your message was not delivered to anybody.\n";
        assert_eq!(class_of("<>", away), "auto-reply");
    }

    #[test]
    fn challenges_need_a_machine() {
        let words = "\nPlease verify that you are a real person and not a program.\n";
        assert_eq!(class_of("<>", words), "challenge");
        let junk = format!("Precedence: junk\n{words}");
        assert_eq!(class_of("a@a.test", &format!("In-Reply-To: <m@b.test>\n{junk}")), "challenge");
        assert_eq!(class_of("a@a.test", &junk), "bulk");
        let replied = format!("Auto-Submitted: auto-replied\n{words}");
        assert_eq!(class_of("<>", &replied), "auto-reply");
        let subject = format!("Subject: Your email requires verification\n{replied}");
        assert_eq!(class_of("a@a.test", &subject), "challenge");
        assert_eq!(class_of("a@a.test", words), "personal");
        assert_eq!(class_of("a@a.test", "X-Boxtrapper: abc\n\nhello\n"), "challenge");
    }

    #[test]
    fn read_receipts_in_exchange_s_own_form() {
        let receipt = "Subject: Gelesen: Angebot\nIn-Reply-To: <m@a.test>\n\n\n";
        assert_eq!(class_of("<>", receipt), "mdn");
        let replied = format!("Auto-Submitted: auto-replied\n{receipt}");
        assert_eq!(class_of("<>", &replied), "auto-reply");
        assert_eq!(class_of("joe@a.test", receipt), "personal");
    }

    #[test]
    fn invitations_and_domain_reports_are_no_responses() {
        let invitation = "Content-Type: text/calendar; method=REPLY\n\nBEGIN:VCALENDAR\n";
        assert_eq!(class_of("a@a.test", invitation), "notification");
        let name = "Content-Type: application/gzip; name=\"a.test!b.test!1795282739!1795282800.xml.gz\"\n\nx";
        assert_eq!(class_of("a@a.test", name), "dmarc-report");
        let subject = "Subject: Report Domain: b.test Submitter: a.test Report-ID: 1\n";
        let zip = format!("{subject}Content-Type: application/zip\n\nx");
        assert_eq!(class_of("a@a.test", &zip), "dmarc-report");
        assert!(is_aggregate_name("google.com!example.org!1432000000!1432086400.zip"));
        assert!(!is_aggregate_name("holiday!in!1432000000!1432086400.zip"));
    }

    #[test]
    fn a_copied_subject_makes_no_report_of_a_reply() {
        for subject in [
            "Report Domain: b.test Submitter: a.test Report-ID: 1",
            "complaint about message from 192.0.2.1",
        ] {
            let reply = format!("Auto-Submitted: auto-replied\nSubject: {subject}\n\naway\n");
            assert_eq!(class_of("<>", &reply), "auto-reply", "{subject}");
            let bounce = format!(
                "Auto-Submitted: auto-replied\nSubject: {subject}\n{}",
                report("delivery-status", "Action: failed")
            );
            assert_eq!(class_of("<>", &bounce), "dsn.failed", "{subject}");
        }
    }

    #[test]
    fn signals_name_what_was_seen_harmlessly() {
        let message = "Auto-Submitted: auto-replied\x1b[2J (\u{202e}x)\nSubject: s\n\nhello\n";
        let view = View::read(message.as_bytes());
        let (_, signals) = classify(&Reading::new(&view, Some(&ReversePath::Null)));
        let ids: Vec<_> = signals.iter().map(|signal| signal.id.as_ref()).collect();
        assert_eq!(ids, ["null-reverse-path", "auto-replied"]);
        assert!(signals.iter().all(|signal| !signal.detail.contains(['\x1b', '\u{202e}'])));
        assert!(signals.iter().all(|signal| signal.detail.len() <= SIGNAL_DETAIL_BYTES_MAX));
    }
}
