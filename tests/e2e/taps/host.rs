//! A mail host with a tap: Postfix at the border tells the guard what comes in, Dovecot's users are
//! away, and what leaves goes through the guard.

use std::net::SocketAddr;

use serde_json::Value;

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{self, Guard};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::{self, Postfix};
use crate::servers::shipped;
use crate::sink::Sink;
use crate::taps::Signer;
use crate::wait::until;

/// The address that `far.example` and its kind send from.
pub const GENUINE: &str = "192.0.2.55";
/// Any other.
pub const FORGER: &str = "198.51.100.66";

pub const ALICE: &str = "alice@ours.example";
pub const BOB: &str = "bob@ours.example";

/// The outcome of the answer to somebody who wrote himself.
pub const AUTHENTICATED: &str = "authenticated deliver authenticated";
/// And to somebody in whose name another wrote.
pub const FAILED: &str = "failed quarantine failed-spf";

/// Everybody's SPF and DMARC. `signed` proves itself by signatures alone.
pub const ZONE: &str = "\
far.example TXT \"v=spf1 ip4:192.0.2.55 -all\"
_dmarc.far.example TXT \"v=DMARC1; p=reject\"
signed.example TXT \"v=spf1 -all\"
_dmarc.signed.example TXT \"v=DMARC1; p=reject\"
bank.example TXT \"v=spf1 -all\"
bank.example MX 10 mx.bank.example
_dmarc.bank.example TXT \"v=DMARC1; p=none\"
soft.example TXT \"v=spf1 ip4:192.0.2.55 ~all\"
_dmarc.soft.example TXT \"v=DMARC1; p=quarantine\"
spam.example TXT \"v=spf1 ip4:198.51.100.66 -all\"
_dmarc.spam.example TXT \"v=DMARC1; p=reject\"
slow.example TXT \"v=spf1 ip4:192.0.2.55 -all\"
_dmarc.slow.example TXT \"v=DMARC1; p=reject\"
elsewhere.example MX 10 mx.elsewhere.example
";

/// That, and the key of a signer.
pub fn zone_with(signer: &Signer) -> String {
    format!("{ZONE}{}\n", signer.zone())
}

pub struct MailHost {
    pub sink: Sink,
    pub guard: Guard,
    pub postfix: Postfix,
    _dovecot: Dovecot,
    submission: Port,
    _ports: [Port; 2],
}

/// How a host differs from the usual one.
#[derive(Default)]
pub struct Changes {
    /// Of the guard's settings.
    pub guard: Vec<(&'static str, toml::Value)>,
    /// Of `main.cf`; `TAP` stands for the milter, `AUTH` for Dovecot's door for passwords.
    pub postfix: Vec<(&'static str, String)>,
    /// More of `master.cf`, with the same words.
    pub master: String,
    /// Sieve scripts of users besides the two that are away.
    pub scripts: Vec<(&'static str, String)>,
}

impl MailHost {
    /// The usual one.
    pub fn start(zone: &str) -> MailHost {
        MailHost::with(zone, Changes::default())
    }

    pub fn with(zone: &str, changes: Changes) -> MailHost {
        let sink = Sink::smtp();
        let (tap, submission, auth) = (Port::claim(), Port::claim(), Port::claim());
        let settings = guard::Settings::before(sink.address())
            .set("dns.timeout", "15s")
            .set("tap.milter.listen", vec![tap.address().to_string()]);
        let of_guard = changes.guard.into_iter();
        let guard = of_guard.fold(settings, |settings, (key, value)| settings.set(key, value));
        let guard = Guard::start(guard);
        guard.dns().set_zone(zone);
        let port = format!("127.0.0.1:{}", submission.number());
        let dovecot = dovecot(&port, &auth, changes.scripts);
        let words = |text: &str| {
            text.replace("TAP", &format!("inet:127.0.0.1:{}", tap.number()))
                .replace("AUTH", &format!("inet:127.0.0.1:{}", auth.number()))
        };
        let settings = postfix::Settings::default()
            .variant_a(guard.address())
            .mailboxes(dovecot.lmtp())
            .set("smtpd_milters", words("TAP"))
            .set("milter_default_action", "accept")
            .master(&format!("{port} inet n - n - - smtpd -o smtpd_milters= -o content_filter=\n"))
            .master(&words(&changes.master));
        let of_postfix = changes.postfix.iter();
        let settings =
            of_postfix.fold(settings, |settings, (key, value)| settings.set(key, words(value)));
        let postfix = Postfix::start(&settings);
        MailHost { sink, guard, postfix, _dovecot: dovecot, submission, _ports: [tap, auth] }
    }

    /// Where our own programs hand in their answers.
    pub fn submission(&self) -> SocketAddr {
        self.submission.address()
    }

    /// A client at the border that seems to have this address.
    pub fn from(&self, address: &str) -> Client {
        Client::from_outside(self.postfix.border(), address, "mail.far.example")
    }

    /// Hands in a letter from outside to somebody who is away, and gives the record of the reply.
    pub fn judged(&self, address: &str, mail_from: &str, to: &str, message: &str) -> Value {
        self.reply_to(mail_from, || {
            self.from(address).deliver(&Mail::new(mail_from, &[to], message));
        })
    }

    /// The same, as `verdict action reason`.
    pub fn outcome(&self, address: &str, mail_from: &str, to: &str, message: &str) -> String {
        outcome(&self.judged(address, mail_from, to, message))
    }

    /// The record of the reply to this address that what is done here leads to.
    pub fn reply_to(&self, correspondent: &str, act: impl FnOnce()) -> Value {
        let records = || {
            let mut records = self.guard.audit_of(correspondent);
            records.retain(|record| record["action"] != "defer");
            records
        };
        let before = records().len();
        act();
        until(&format!("a record about a reply to <{correspondent}>"), || {
            let mut records = records();
            (records.len() > before).then(|| records.pop()).flatten()
        })
    }
}

/// Its users `alice` and `bob` answer everything, however often.
fn dovecot(submission: &str, auth: &Port, scripts: Vec<(&str, String)>) -> Dovecot {
    let away =
        "require [\"vacation\", \"vacation-seconds\"];\nvacation :seconds 0 \"I am away.\";\n";
    let away = ["alice", "bob"].map(|user| (user, away.to_owned()));
    let conf = shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", submission)]);
    let conf = format!(
        "{conf}
plugin {{
  sieve_extensions = +vacation-seconds
  sieve_vacation_min_period = 0
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {}
  }}
}}
",
        auth.number()
    );
    let scripts = away.into_iter().chain(scripts);
    Dovecot::start(&dovecot::Settings {
        conf,
        scripts: scripts.map(|(user, script)| (user.to_owned(), script)).collect(),
    })
}

/// `verdict action reason`.
pub fn outcome(record: &Value) -> String {
    let word = |key: &str| record[key].as_str().unwrap_or("null").to_owned();
    format!("{} {} {}", word("verdict"), word("action"), word("reason"))
}
