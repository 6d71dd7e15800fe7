//! Dovecot with Pigeonhole: an out-of-office reply and a redirect, handed in at Postfix.

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::mail::{field, letter};
use crate::servers::dovecot::{Dovecot, Settings};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{missing, shipped};
use crate::sink::Sink;

const WRITER: &str = "writer@far.example";
const ALICE: &str = "alice@ours.example";
const BOB: &str = "bob@ours.example";

const SCRIPTS: [(&str, &str); 2] = [
    ("alice", "require \"vacation\";\nvacation \"I am away.\";\n"),
    ("bob", "redirect \"bob@elsewhere.example\";\n"),
];

struct MailHost {
    postfix: Postfix,
    dovecot: Dovecot,
    /// Where Dovecot hands in mail.
    _submission: Port,
}

/// Postfix and Dovecot as they stand side by side on a mail host: Postfix takes mail for
/// `ours.example` and gives it to Dovecot, which hands replies and redirects in at Postfix.
fn mail_host(sink: &Sink) -> MailHost {
    let submission = Port::claim();
    let port = format!("127.0.0.1:{}", submission.number());
    let scripts = SCRIPTS.map(|(user, script)| (user.to_owned(), script.to_owned()));
    let dovecot = Dovecot::start(&Settings {
        conf: shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &port)]),
        scripts: scripts.into(),
    });
    let settings = postfix::Settings::default()
        .next_hop(sink.address())
        .mailboxes(dovecot.lmtp())
        .master(&format!("{port} inet n - n - - smtpd\n"));
    let postfix = Postfix::start(&settings);
    MailHost { postfix, dovecot, _submission: submission }
}

/// Goal: what the guard has to go by in an out-of-office reply. Method: a letter to one who is
/// away; the reply leaves through Postfix with the null sender and the letter's id.
#[test]
fn a_vacation_reply_leaves_through_postfix() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let MailHost { postfix, dovecot, _submission } = mail_host(&sink);

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
    client.deliver(&Mail::new(WRITER, &[ALICE], letter(WRITER, ALICE, "question-1")));

    let reply = &sink.wait_for(1)[0];
    assert_eq!((reply.reverse_path.as_str(), reply.addresses()), ("", vec![WRITER]));
    let value = |name: &str| field(&reply.message, name).unwrap();
    assert_eq!(value("Auto-Submitted"), "auto-replied (vacation)");
    assert_eq!(value("In-Reply-To"), "<question-1@sender.example>");
    assert_eq!(dovecot.wait_for("alice", 1).len(), 1);
    postfix.drained();
}

/// Goal: a redirect keeps the writer as its envelope sender, and says who redirected.
#[test]
fn a_redirect_keeps_the_writer_as_sender() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let MailHost { postfix, dovecot, _submission } = mail_host(&sink);

    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
    client.deliver(&Mail::new(WRITER, &[BOB], letter(WRITER, BOB, "question-2")));

    let redirected = &sink.wait_for(1)[0];
    assert_eq!(redirected.reverse_path, WRITER);
    assert_eq!(redirected.addresses(), ["bob@elsewhere.example"]);
    let from = field(&redirected.message, "X-Sieve-Redirected-From").unwrap();
    assert_eq!(from, BOB);
    assert_eq!(field(&redirected.message, "Message-ID").unwrap(), "<question-2@sender.example>");
    postfix.drained();
    assert_eq!(dovecot.inbox("bob").len(), 0);
    assert!(!dovecot.log().contains("Error"), "{}", dovecot.log());
}
