//! Out-of-office replies, judged by what the milter tap saw come in: the reason for all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::dns::{Fault, Times};
use crate::guard::{self, Guard};
use crate::mail::letter;
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{missing, shipped};
use crate::sink::Sink;
use crate::taps::Signer;
use crate::wait::{until, within};

const GENUINE: &str = "192.0.2.55";
const FORGER: &str = "198.51.100.66";

const ZONE: &str = "\
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
";

/// A mail host: Postfix at the border tells the guard what comes in, Dovecot's users are away, and
/// what leaves goes through the guard.
struct MailHost {
    sink: Sink,
    guard: Guard,
    postfix: Postfix,
    _dovecot: Dovecot,
    _ports: [Port; 2],
}

fn mail_host(zone: &str) -> MailHost {
    let sink = Sink::smtp();
    let (tap, submission) = (Port::claim(), Port::claim());
    let settings = guard::Settings::before(sink.address())
        .set("dns.timeout", "15s")
        .set("tap.milter.listen", vec![tap.address().to_string()]);
    let guard = Guard::start(settings);
    guard.dns().set_zone(zone);
    let port = format!("127.0.0.1:{}", submission.number());
    let away = "require \"vacation\";\nvacation \"I am away.\";\n";
    let dovecot = Dovecot::start(&dovecot::Settings {
        conf: shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &port)]),
        scripts: ["alice", "bob"].map(|user| (user.to_owned(), away.to_owned())).into(),
    });
    let settings = postfix::Settings::default()
        .variant_a(guard.address())
        .mailboxes(dovecot.lmtp())
        .set("smtpd_milters", format!("inet:127.0.0.1:{}", tap.number()))
        .set("milter_default_action", "accept")
        .master(&format!("{port} inet n - n - - smtpd -o smtpd_milters=\n"));
    let postfix = Postfix::start(&settings);
    MailHost { sink, guard, postfix, _dovecot: dovecot, _ports: [tap, submission] }
}

impl MailHost {
    fn from(&self, address: &str) -> Client {
        Client::from_outside(self.postfix.border(), address, "mail.far.example")
    }

    /// Hands in a letter from outside to somebody who is away, and gives the record of the reply.
    fn judged(&self, address: &str, mail_from: &str, to: &str, message: &str) -> Value {
        let before = self.guard.audit_of(mail_from).len();
        self.from(address).deliver(&Mail::new(mail_from, &[to], message));
        until(&format!("a record about a reply to <{mail_from}>"), || {
            let mut records = self.guard.audit_of(mail_from);
            records.retain(|record| record["action"] != "defer");
            (records.len() > before).then(|| records.pop()).flatten()
        })
    }
}

/// Goal: of 200 letters to somebody who is away, half of them forged, every genuine one is answered
/// and no forged one. Method: real servers; the genuine ones proven by SPF or by a signature alone,
/// the forged ones in the name of a domain that publishes p=none.
#[test]
fn of_two_hundred_letters_the_genuine_half_is_answered() {
    if missing() {
        return;
    }
    let signer = Signer::of("signed.example");
    let host = mail_host(&format!("{ZONE}{}\n", signer.zone()));
    let mut genuine = BTreeSet::new();
    let (mut theirs, mut forgers) = (host.from(GENUINE), host.from(FORGER));
    for number in 0..100 {
        let domain = if number % 2 == 0 { "far.example" } else { "signed.example" };
        let writer = format!("writer{number}@{domain}");
        let text = letter(&writer, "alice@ours.example", &format!("genuine-{number}"));
        let text = if number % 2 == 0 { text } else { signer.sign(&text) };
        theirs.deliver(&Mail::new(&writer, &["alice@ours.example"], text));
        genuine.insert(writer);
        let victim = format!("victim{number}@bank.example");
        let text = letter(&victim, "alice@ours.example", &format!("forged-{number}"));
        forgers.deliver(&Mail::new(&victim, &["alice@ours.example"], text));
    }
    within(Duration::from_secs(90), || {
        let done = host.guard.audit().iter().filter(|record| record["action"] != "defer").count();
        (done >= 200).then_some(())
    })
    .expect("a record for each reply");
    host.postfix.drained();
    let taken = host.sink.taken();
    let answered: BTreeSet<String> =
        taken.iter().flat_map(|reply| reply.addresses()).map(str::to_owned).collect();
    assert_eq!(answered, genuine);
    assert_eq!(taken.len(), 100);
    let verdicts = |domain: &str, verdict: &str| {
        let of = |record: &&Value| {
            record["rcpt"].as_str().is_some_and(|to| to.ends_with(domain))
                && record["verdict"] == verdict
        };
        host.guard.audit().iter().filter(of).count()
    };
    assert_eq!(verdicts("@bank.example", "failed"), 100);
    assert_eq!(verdicts("@far.example", "authenticated"), 50);
    assert_eq!(verdicts("@signed.example", "authenticated"), 50);
}

/// Goal: the forger's finer tricks. Method: one letter each, to somebody who is away.
#[test]
fn tricks_get_no_answer_out_and_cost_nobody_his() {
    if missing() {
        return;
    }
    let signer = Signer::of("spam.example");
    let host = mail_host(&format!("{ZONE}{}\n", signer.zone()));
    host.guard.dns().fault(
        "slow.example",
        Some("TXT"),
        Fault::Delay(Duration::from_secs(6)),
        Times::Always,
    );
    let alice = "alice@ours.example";

    // The spammer's own DMARC passes; the answer would go to the victim.
    let passing = signer.sign(&letter("sales@spam.example", alice, "1"));
    let record = host.judged(FORGER, "victim1@bank.example", alice, &passing);
    assert_eq!((&record["verdict"], &record["action"]), (&"failed".into(), &"quarantine".into()));

    // No Message-ID: found by the pair.
    let bare =
        letter("joe@far.example", alice, "2").replace("Message-ID: <2@sender.example>\r\n", "");
    let record = host.judged(GENUINE, "joe@far.example", alice, &bare);
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&"authenticated".into(), &"deliver".into())
    );

    // A genuine Message-ID in a forged letter to another user: the nearest decides.
    let known = letter("joe@far.example", alice, "3");
    host.from(GENUINE).deliver(&Mail::new("joe@far.example", &["nobody@ours.example"], known));
    let reused = letter("victim2@soft.example", "bob@ours.example", "3");
    let record = host.judged(FORGER, "victim2@soft.example", "bob@ours.example", &reused);
    assert_eq!((&record["verdict"], &record["action"]), (&"failed".into(), &"quarantine".into()));

    // Forged first, genuine after it, the same writer: the genuine letter gets its answer.
    let forged = letter("ann@far.example", alice, "4");
    let record = host.judged(FORGER, "ann@far.example", alice, &forged);
    assert_eq!(record["action"], "quarantine");
    let letter_5 = letter("ann@far.example", "bob@ours.example", "5");
    let record = host.judged(GENUINE, "ann@far.example", "bob@ours.example", &letter_5);
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&"authenticated".into(), &"deliver".into())
    );

    // A zone that answers after 6 s: the letter does not wait for it, the reply does.
    let slow = letter("joe@slow.example", alice, "6");
    let record = host.judged(GENUINE, "joe@slow.example", alice, &slow);
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&"authenticated".into(), &"deliver".into())
    );
}
