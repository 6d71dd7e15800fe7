//! Station 3: the signs in a header: which field says what, and on whose authority.
//!
//! Gives: `FIELD_SIGNS`, `Marks`, `Author`. Rules over them stand in `classify`.
//! Standards: RFC 3834 §5, RFC 5436 §2.7.1, RFC 2919, RFC 2369, RFC 8058; the others are habits
//! of servers, which is said by an empty standard.

use std::sync::LazyLock;

use crate::judge::words::folded;
use crate::mail::header::{AutoSubmitted, Field, Fields, Precedence};

/// What a sign speaks for. One sign alone makes a class only where `classify` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// A person sent it: Auto-Submitted says no.
    NotAutomatic,
    /// A machine answers a message.
    Replied,
    /// A program that makes answers made it; those who sell by mail have such programs too.
    Responder,
    /// A machine sends it, in answer or unasked.
    Generated,
    /// Somebody who wants no automatic answer; ordinary system mail carries it too.
    Suppress,
    /// Sent to many; vacations carry it too.
    BulkPrecedence,
    /// A mark against loops, of responders and lists.
    LoopMark,
    /// A mailbox rule of Exchange handled it: answered, forwarded or redirected.
    RulesLoop,
    /// Asks for a proof of being human.
    Challenge,
    /// A delivery failed.
    Failed,
    /// List traffic.
    List,
    /// A mailing to many.
    Bulk,
    /// A copy for an archive.
    Journal,
    /// It answers a message: In-Reply-To or References. People's answers do too.
    Answers,
    /// One of our users forwards it by Sieve.
    Redirected,
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u32);

impl Marks {
    /// Whether the mark was seen.
    pub fn has(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u32) != 0
    }

    /// Whether any of the marks was seen.
    pub fn any(self, marks: &[Mark]) -> bool {
        marks.iter().any(|mark| self.has(*mark))
    }

    fn set(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }
}

/// A field, what its value must be, and what that speaks for.
#[derive(Debug)]
pub struct FieldSign {
    /// The stable name of the sign, in records.
    pub id: &'static str,
    /// The field's name, lower case.
    pub field: &'static str,
    /// What its value must be.
    pub value: Value,
    /// What it speaks for.
    pub mark: Mark,
    /// The standard that gives it a meaning, with section; empty when it is only a habit.
    pub standard: &'static str,
}

/// What a field's value must be.
#[derive(Debug)]
pub enum Value {
    /// Anything, even nothing: Exchange leaves its marks empty.
    Any,
    /// Anything but nothing, `no`, `0` and their like.
    Present,
    /// Auto-Submitted of this kind.
    Auto(AutoSubmitted),
    /// Precedence of this kind.
    Precedence(Precedence),
    /// It contains one of these words, lower case.
    Contains(&'static [&'static str]),
    /// It is this program, lower case: the name, with or without a version number.
    Program(&'static str),
}

const fn sign(
    id: &'static str,
    field: &'static str,
    value: Value,
    mark: Mark,
    standard: &'static str,
) -> FieldSign {
    FieldSign { id, field, value, mark, standard }
}

/// The signs in the header of a message.
pub const FIELD_SIGNS: &[FieldSign] = {
    use AutoSubmitted as Auto;
    use Value::{Any, Contains, Present};
    &[
        // Automatic, by the book.
        sign(
            "auto-replied",
            "auto-submitted",
            Value::Auto(Auto::Replied),
            Mark::Replied,
            "RFC 3834 §5",
        ),
        sign(
            "auto-generated",
            "auto-submitted",
            Value::Auto(Auto::Generated),
            Mark::Generated,
            "RFC 3834 §5",
        ),
        sign(
            "auto-notified",
            "auto-submitted",
            Value::Auto(Auto::Notified),
            Mark::Generated,
            "RFC 5436 §2.7.1",
        ),
        sign(
            "auto-other",
            "auto-submitted",
            Value::Auto(Auto::Other),
            Mark::Generated,
            "RFC 3834 §5",
        ),
        sign("auto-no", "auto-submitted", Value::Auto(Auto::No), Mark::NotAutomatic, "RFC 3834 §5"),
        // Responders by habit.
        sign(
            "precedence-auto-reply",
            "precedence",
            Value::Precedence(Precedence::AutoReply),
            Mark::Replied,
            "",
        ),
        sign("x-autoreply", "x-autoreply", Present, Mark::Replied, ""),
        sign("x-autoreply", "x-auto-reply", Present, Mark::Replied, ""),
        sign("x-autoreply", "x-autoreply-from", Present, Mark::Replied, ""),
        sign("x-autoreply", "x-mail-autoreply", Present, Mark::Replied, ""),
        sign("x-autorespond", "x-autorespond", Present, Mark::Replied, ""),
        sign("x-autorespond", "x-autoresponder", Present, Mark::Replied, ""),
        sign("x-autorespond", "x-auto-responder", Present, Mark::Replied, ""),
        sign("x-autogenerated", "x-autogenerated", Contains(&["reply"]), Mark::Replied, ""),
        sign("x-apple-action", "x-apple-action", Contains(&["vacation"]), Mark::Replied, ""),
        sign("x-vacation", "x-vacation", Present, Mark::Replied, ""),
        sign(
            "x-xsp-autoresponse",
            "x-post-messageclass",
            Contains(&["autoresponder"]),
            Mark::Replied,
            "",
        ),
        sign(
            "exchange-rule-reply",
            "x-ms-exchange-generated-message-source",
            Contains(&["rules agent"]),
            Mark::Replied,
            "",
        ),
        sign(
            "mailer-responder",
            "x-mailer",
            Contains(&["autorespon", "auto-respon", "autoreply"]),
            Mark::Responder,
            "",
        ),
        sign("mailer-responder", "x-mailer", Value::Program("vacation"), Mark::Responder, ""),
        // Weak signs of a machine.
        sign(
            "auto-response-suppress",
            "x-auto-response-suppress",
            Contains(&["all", "oof", "autoreply"]),
            Mark::Suppress,
            "",
        ),
        sign(
            "precedence-bulk",
            "precedence",
            Value::Precedence(Precedence::Bulk),
            Mark::BulkPrecedence,
            "",
        ),
        sign(
            "precedence-junk",
            "precedence",
            Value::Precedence(Precedence::Junk),
            Mark::BulkPrecedence,
            "",
        ),
        sign("precedence-list", "precedence", Value::Precedence(Precedence::List), Mark::Bulk, ""),
        sign("x-loop", "x-loop", Present, Mark::LoopMark, ""),
        sign("exchange-rules-loop", "x-ms-exchange-inbox-rules-loop", Present, Mark::RulesLoop, ""),
        sign("cron", "x-cron-env", Present, Mark::Generated, ""),
        sign("x-autogenerated", "x-auto-generated", Present, Mark::Generated, ""),
        // Challenges.
        sign("boxtrapper", "x-boxtrapper", Present, Mark::Challenge, ""),
        sign("spamarrest", "x-spamarrest-noauth", Present, Mark::Challenge, ""),
        sign("bluebottle", "x-bluebottle-request", Present, Mark::Challenge, ""),
        sign("active-spam-killer", "x-askversion", Present, Mark::Challenge, ""),
        sign("choicemail", "x-choicemail-registration-request", Present, Mark::Challenge, ""),
        sign("spamlion", "spamlion", Present, Mark::Challenge, ""),
        sign("tmda", "x-tmda-confirm", Present, Mark::Challenge, ""),
        sign("tmda", "message-id", Contains(&["-tmda-confirm>"]), Mark::Challenge, ""),
        // Failures.
        sign("failed-recipients", "x-failed-recipients", Present, Mark::Failed, ""),
        sign("exchange-report", "x-ms-embedded-report", Any, Mark::Failed, ""),
        sign("exchange-ndr", "x-ms-exchange-message-is-ndr", Any, Mark::Failed, ""),
        // Lists.
        sign("list-id", "list-id", Present, Mark::List, "RFC 2919 §3"),
        sign("list-post", "list-post", Contains(&["mailto:"]), Mark::List, "RFC 2369 §3.4"),
        sign("mailing-list", "mailing-list", Present, Mark::List, ""),
        sign("mailing-list", "x-mailing-list", Present, Mark::List, ""),
        sign("mailman", "x-beenthere", Present, Mark::List, ""),
        sign("mailman", "x-mailman-version", Present, Mark::List, ""),
        sign("list-name", "x-ml-name", Present, Mark::List, ""),
        sign("google-group", "x-google-group-id", Present, Mark::List, ""),
        // Mailings.
        sign("list-unsubscribe", "list-unsubscribe", Present, Mark::Bulk, "RFC 2369 §3.2"),
        sign(
            "one-click-unsubscribe",
            "list-unsubscribe-post",
            Present,
            Mark::Bulk,
            "RFC 8058 §3.1",
        ),
        sign("feedback-id", "feedback-id", Present, Mark::Bulk, ""),
        sign("csa", "x-csa-complaints", Present, Mark::Bulk, ""),
        // Ways.
        sign("journal", "x-ms-journal-report", Any, Mark::Journal, ""),
        sign("in-reply-to", "in-reply-to", Present, Mark::Answers, "RFC 5322 §3.6.4"),
        sign("references", "references", Present, Mark::Answers, "RFC 5322 §3.6.4"),
        sign("sieve-redirected", "x-sieve-redirected-from", Present, Mark::Redirected, ""),
    ]
};

impl Value {
    fn is(&self, value: &str) -> bool {
        match self {
            Value::Any => true,
            Value::Present => !NOTHING.iter().any(|no| value.eq_ignore_ascii_case(no)),
            Value::Auto(kind) => AutoSubmitted::parse(value) == Some(*kind),
            Value::Precedence(kind) => Precedence::parse(value) == Some(*kind),
            Value::Contains(words) => {
                let value = value.to_ascii_lowercase();
                words.iter().any(|word| value.contains(word))
            }
            Value::Program(name) => {
                let value = value.to_ascii_lowercase();
                value.strip_prefix(name).is_some_and(|rest| {
                    let version = rest.trim_start_matches([' ', '/', '-', '(', 'v', '.']);
                    let is_apart = !rest.starts_with(|c: char| c.is_alphanumeric());
                    is_apart && version.chars().next().is_none_or(|c| c.is_ascii_digit())
                })
            }
        }
    }
}

/// Values that switch a sign off.
const NOTHING: &[&str] = &["", "no", "false", "0", "none", "off"];

/// The signs by how long the name of their field is, each in its order.
///
/// Why: most fields are no sign, and their names' lengths say so at once.
static BY_LENGTH: LazyLock<Vec<Vec<&'static FieldSign>>> = LazyLock::new(|| {
    let longest = FIELD_SIGNS.iter().map(|sign| sign.field.len()).max().unwrap_or(0);
    let of = |length| FIELD_SIGNS.iter().filter(|sign| sign.field.len() == length).collect();
    (0..=longest).map(of).collect()
});

/// The signs in a header, each with the field that shows it; and the marks they set.
pub fn signs<'f, 'a>(fields: &'f Fields<'a>) -> (Marks, Vec<(&'static FieldSign, &'f Field<'a>)>) {
    let mut marks = Marks::default();
    let mut seen: Vec<(&'static FieldSign, &'f Field<'a>)> = Vec::new();
    for field in fields.iter() {
        let may_be = BY_LENGTH.get(field.name().len()).map(Vec::as_slice).unwrap_or_default();
        let mut text = None;
        for sign in may_be.iter().copied().filter(|sign| field.is(sign.field)) {
            if !sign.value.is(text.get_or_insert_with(|| field.text())) {
                continue;
            }
            marks.set(sign.mark);
            if !seen.iter().any(|(known, _)| known.id == sign.id) {
                seen.push((sign, field));
            }
        }
    }
    (marks, seen)
}

/// What kind of author stands in From.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// Nobody in particular.
    Any,
    /// An address that takes no answers.
    NoReply,
    /// A role of the mail system that people hold too: postmaster.
    Postmaster,
    /// A program of the mail system, by nothing but its display name: firms have such names too.
    Named,
    /// A program of the mail system, or nobody at all (`From: <>`).
    Daemon,
}

/// Local parts of programs.
const DAEMONS: &[&str] = &[
    "mailer-daemon",
    "mailerdaemon",
    "mailer_daemon",
    "mailer-deamon",
    "mail-daemon",
    "maildaemon",
    "mdaemon",
    "mail.delivery.system",
    "mail-delivery",
    "mmdf",
    "quotaagent",
    "bounce-handler",
];

/// Local parts of the mail system's keepers.
const POSTMASTERS: &[&str] = &[
    "postmaster",
    "post_master",
    "post-master",
    "mailadmin",
    "mailmaster",
    "mail-admin",
    "sysadmin",
];

/// Words in local parts of filters, which report what they refused.
const FILTERS: &[&str] =
    &["antivirus", "anti-virus", "virusscan", "mailscanner", "mailsweeper", "smtp_gateway"];

/// Display names of programs, folded.
const DAEMON_NAMES: &[&str] = &[
    "mail delivery s",
    "mail deliver system",
    "mail delivery agent",
    "mailer daemon",
    "mailer-daemon",
    "internet mail delivery",
];

/// Display names of the mail system's keepers, folded, in the languages that servers write them
/// in. Why not programs: quota warnings and announcements have them too.
const POSTMASTER_NAMES: &[&str] = &[
    "postmaster",
    "mail administrator",
    "system administrator",
    "systemadministrator",
    "administrateur systeme",
    "administrador del sistema",
    "administrador do sistema",
    "amministratore di sistema",
    "amministratore sistema",
    "systeembeheerder",
    "administrator systemu",
    "системный администратор",
    "message router",
    "content-filter",
    "microsoft outlook",
];

/// Words in local parts of addresses that take no answers.
const NO_REPLIES: &[&str] =
    &["no-reply", "noreply", "no_reply", "donotreply", "do-not-reply", "do_not_reply"];

/// What kind of author a header has; the strongest of all its From fields.
pub fn author(fields: &Fields<'_>) -> Author {
    let is_nobody = fields.all("from").any(|field| {
        let value = field.text();
        matches!(value.trim(), "<>" | "") || value.trim_end().ends_with(" <>")
    });
    if is_nobody {
        return Author::Daemon;
    }
    let kinds = fields.authors().iter().map(|m| author_of(m.local(), &m.name));
    kinds.max().unwrap_or(Author::Any)
}

fn author_of(local: &str, name: &str) -> Author {
    let local = local.to_ascii_lowercase();
    let name = folded(name, 100);
    if DAEMONS.contains(&local.as_str()) || local.starts_with("microsoftexchange") {
        return Author::Daemon;
    }
    if DAEMON_NAMES.iter().any(|known| name.starts_with(known)) {
        return Author::Named;
    }
    let is_postmaster = POSTMASTERS.contains(&local.as_str())
        || FILTERS.iter().any(|word| local.contains(word))
        || POSTMASTER_NAMES.iter().any(|known| name.starts_with(known));
    if is_postmaster {
        return Author::Postmaster;
    }
    match NO_REPLIES.iter().any(|word| local.contains(word)) {
        true => Author::NoReply,
        false => Author::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks_of(header: &str) -> Marks {
        signs(&Fields::read(header.as_bytes())).0
    }

    #[test]
    fn each_sign_has_a_name_a_field_and_a_mark() {
        for sign in FIELD_SIGNS {
            assert!(!sign.id.is_empty() && sign.id == sign.id.to_ascii_lowercase(), "{sign:?}");
            assert_eq!(sign.field, sign.field.to_ascii_lowercase(), "{sign:?}");
            assert!(sign.standard.is_empty() || sign.standard.contains(" §"), "{sign:?}");
            if let Value::Contains(words) = sign.value {
                assert!(words.iter().all(|word| *word == word.to_ascii_lowercase()), "{sign:?}");
            }
        }
    }

    #[test]
    fn a_value_is_looked_at_and_not_only_its_field() {
        assert!(marks_of("Auto-Submitted: auto-replied (vacation)\n").has(Mark::Replied));
        assert!(!marks_of("Auto-Submitted: auto-generated; x=auto-replied\n").has(Mark::Replied));
        assert!(marks_of("AUTO-SUBMITTED: No\n").has(Mark::NotAutomatic));
        assert!(!marks_of("X-Autoreply: no\n").has(Mark::Replied));
        for mailer in ["vacation", "Vacation 1.2", "vacation/0.9", "Vacation v3"] {
            assert!(marks_of(&format!("X-Mailer: {mailer}\n")).has(Mark::Responder), "{mailer}");
        }
        for mailer in ["VacationRental 1", "Vacation Homes 2", "vacation2go", "My vacation"] {
            assert!(!marks_of(&format!("X-Mailer: {mailer}\n")).has(Mark::Responder), "{mailer}");
        }
        assert!(!marks_of("X-Auto-Response-Suppress: DR\n").has(Mark::Suppress));
        assert!(!marks_of("List-Post: NO\n").has(Mark::List));
        assert_eq!(marks_of("Subject: Auto-Submitted: auto-replied\n"), Marks::default());
    }

    #[test]
    fn each_sign_is_named_once_with_its_field() {
        let header = "Received: x\nX-Autoreply: yes\nX-Auto-Reply: yes\nList-Id: <a.b>\n";
        let fields = Fields::read(header.as_bytes());
        let (_, seen) = signs(&fields);
        let seen: Vec<_> = seen.iter().map(|(sign, field)| (sign.id, field.text())).collect();
        assert_eq!(seen, [("x-autoreply", "yes".into()), ("list-id", "<a.b>".into())]);
    }

    #[test]
    fn authors_by_address_and_by_name() {
        let author = |from: &str| author(&Fields::read(format!("From: {from}\n").as_bytes()));
        for from in [
            "MAILER-DAEMON",
            "<>",
            "MAILER-DAEMON <>",
            "MAILER-DAEMON@a.test (Mail Delivery System)",
        ] {
            assert_eq!(author(from), Author::Daemon, "{from}");
        }
        assert_eq!(author("Mail Delivery System <x@a.test>"), Author::Named);
        let french = "=?utf-8?q?Administrateur_syst=C3=A8me?= <p@a.test>";
        assert_eq!(author(french), Author::Postmaster);
        assert_eq!(author("Postmaster <x@a.test>"), Author::Postmaster);
        assert_eq!(author("postmaster@a.test"), Author::Postmaster);
        assert_eq!(author("Shop <no-reply@a.test>"), Author::NoReply);
        assert_eq!(author("Joe Daemon <joe@a.test>"), Author::Any);
    }
}
