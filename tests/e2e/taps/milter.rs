//! The milter tap behind Postfix: what it verifies, and that it never holds mail up.

use std::time::{Duration, Instant};

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::disk::SmallDisk;
use crate::dns::{Fault, Times};
use crate::guard::{self, Guard};
use crate::mail::{header, letter, vacation_reply};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::taps::Signer;
use crate::wait::until;

const ALICE: &str = "alice@ours.example";

const ZONE: &str = "\
far.example TXT \"v=spf1 ip4:192.0.2.55 -all\"
_dmarc.far.example TXT \"v=DMARC1; p=reject\"
bank.example TXT \"v=spf1 -all\"
_dmarc.bank.example TXT \"v=DMARC1; p=reject\"
";

/// A mail host whose Postfix tells the guard's milter tap what it takes in, and gives it to
/// `mailboxes`.
struct MailHost {
    mailboxes: Sink,
    guard: Guard,
    postfix: Postfix,
    _tap: Port,
}

fn mail_host(zone: &str, settings: impl Fn(postfix::Settings) -> postfix::Settings) -> MailHost {
    mail_host_with(zone, settings, |guard| guard)
}

fn mail_host_with(
    zone: &str,
    settings: impl Fn(postfix::Settings) -> postfix::Settings,
    change: impl FnOnce(guard::Settings) -> guard::Settings,
) -> MailHost {
    let (mailboxes, tap) = (Sink::lmtp(), Port::claim());
    let guard = guard::Settings::before(mailboxes.address())
        .set("outbound.protocol", "lmtp")
        .set("outbound.next_hop", vec![format!("lmtp:{}", mailboxes.address())])
        .set("tap.milter.listen", vec![tap.address().to_string()])
        .set("tap.milter.authserv_id", "mx.ours.example");
    let guard = Guard::start(change(guard));
    guard.dns().set_zone(zone);
    let milter = format!("inet:127.0.0.1:{}", tap.number());
    let base = postfix::Settings::default()
        .mailboxes(mailboxes.address())
        .set("smtpd_milters", milter)
        .set("milter_default_action", "accept")
        .set("milter_command_timeout", "5s");
    let postfix = Postfix::start(&settings(base));
    MailHost { mailboxes, guard, postfix, _tap: tap }
}

impl MailHost {
    /// Hands in a letter from outside; gives it as it arrived.
    fn deliver(&self, address: &str, mail_from: &str, message: &str) -> Vec<u8> {
        let before = self.mailboxes.count_taken();
        let mut client = Client::from_outside(self.postfix.border(), address, "mail.far.example");
        client.deliver(&Mail::new(mail_from, &[ALICE], message));
        self.mailboxes.wait_for(before + 1).pop().unwrap().message
    }
}

/// The values of the Authentication-Results of a message, from the top.
fn results(message: &[u8]) -> Vec<String> {
    let named =
        |(name, value): (String, String)| (name == "Authentication-Results").then_some(value);
    header(message).into_iter().filter_map(named).collect()
}

fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Goal: what the tap sees is what a mailbox provider would see. Method: a signed letter, a forged
/// one with a line that pretends to be ours, and one of our own, through a real Postfix; the
/// tap writes its results into the mail, where a mailbox shows them.
#[test]
fn what_comes_in_is_verified_and_forged_results_go() {
    if missing() {
        return;
    }
    let signer = Signer::of("far.example");
    let host = mail_host(&format!("{ZONE}{}\n", signer.zone()), |settings| settings);

    let signed = signer.sign(&letter("joe@far.example", ALICE, "1"));
    let arrived = host.deliver("192.0.2.55", "joe@far.example", &signed);
    let wanted = "mx.ours.example; spf=pass smtp.mailfrom=joe@far.example; dkim=pass \
                  header.d=far.example; dmarc=pass header.from=far.example";
    assert_eq!(results(&arrived).iter().map(|value| plain(value)).collect::<Vec<_>>(), [wanted]);
    let first = header(&arrived).into_iter().find(|(name, _)| name != "Return-Path").unwrap();
    assert_eq!(first.0, "Authentication-Results", "it stands above our own Received line");

    let forged = "Authentication-Results: MX.ours.example;\r\n\tspf=pass smtp.mailfrom=ceo@bank.example\r\n\
                  Authentication-Results: other.example; spf=pass smtp.mailfrom=ceo@bank.example\r\n";
    let forged = format!("{forged}{}", letter("ceo@bank.example", ALICE, "2"));
    let arrived = host.deliver("192.0.2.66", "ceo@bank.example", &forged);
    let found = results(&arrived);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        plain(&found[0]),
        "mx.ours.example; spf=fail smtp.mailfrom=ceo@bank.example; dmarc=fail \
         header.from=bank.example"
    );
    assert!(found[1].starts_with("other.example"));

    let mut client = Client::open(host.postfix.submission());
    client.deliver(&Mail::new(
        "bob@ours.example",
        &[ALICE],
        letter("bob@ours.example", ALICE, "3"),
    ));
    let own = host.mailboxes.wait_for(3).pop().unwrap().message;
    assert_eq!(results(&own), Vec::<String>::new());
    host.postfix.drained();
    assert!(!host.postfix.log().contains("warning: milter"), "{}", host.postfix.log());
}

/// Goal: every version of the protocol that Postfix can be set to is understood. Method: one
/// signed letter each.
#[test]
fn every_version_of_the_protocol_will_do() {
    if missing() {
        return;
    }
    let signer = Signer::of("far.example");
    for version in ["2", "3", "4", "6"] {
        let host = mail_host(&format!("{ZONE}{}\n", signer.zone()), |settings| {
            settings.set("milter_protocol", version)
        });
        let signed = signer.sign(&letter("joe@far.example", ALICE, version));
        let arrived = host.deliver("192.0.2.55", "joe@far.example", &signed);
        assert!(results(&arrived)[0].contains("dkim=pass"), "version {version}");
        assert!(!host.postfix.log().contains("warning: milter"), "{}", host.postfix.log());
    }
}

/// `tap.wait` is 2 s; the machine may be busy.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Goal: inbound mail never waits longer than `tap.wait` for us, and never fails for us; what failed
/// is counted. Method: the zone falls silent, then the guard is killed, then it is back.
#[test]
fn mail_flows_on_without_dns_and_without_the_tap() {
    if missing() {
        return;
    }
    let mut host = mail_host(ZONE, |settings| settings);
    for name in ["slow.example", "_dmarc.slow.example"] {
        host.guard.dns().fault(name, None, Fault::Silence, Times::Always);
    }
    let began = Instant::now();
    let slow = letter("joe@slow.example", ALICE, "1");
    let arrived = host.deliver("192.0.2.55", "joe@slow.example", &slow);
    assert!(began.elapsed() < WAIT_MAX, "{:?}", began.elapsed());
    assert_eq!(results(&arrived), Vec::<String>::new());
    assert_eq!(host.guard.metric("tap_messages{tap=\"milter\"}"), 1);
    assert_eq!(host.guard.metric("tap_late{tap=\"milter\"}"), 1);

    host.guard.crash();
    let began = Instant::now();
    host.deliver("192.0.2.55", "joe@far.example", &letter("joe@far.example", ALICE, "2"));
    assert!(began.elapsed() < WAIT_MAX, "{:?}", began.elapsed());
    host.guard.resume();
    let arrived =
        host.deliver("192.0.2.55", "joe@far.example", &letter("joe@far.example", ALICE, "3"));
    assert!(results(&arrived)[0].contains("spf=pass"));
    assert_eq!(host.mailboxes.taken().len(), 3);
    assert_eq!(host.guard.metric("tap_messages{tap=\"milter\"}"), 1, "it saw one since it is back");
    assert_eq!(host.guard.metric("tap_late{tap=\"milter\"}"), 0);
}

/// Goal: a full disk of the store holds up no mail, is told, and ends with the disk's fullness.
/// Method: the store alone on a small disk, which is filled and emptied again.
#[test]
fn mail_flows_on_while_the_disk_of_the_store_is_full() {
    if missing() {
        return;
    }
    let Some(disk) = SmallDisk::of_kib(4096) else { return };
    let path = disk.path().join("store.redb").to_str().unwrap().to_owned();
    let answers = Sink::smtp();
    let change = |guard: guard::Settings| {
        guard
            .set("store.path", path)
            .set("outbound.protocol", "smtp")
            .set("outbound.next_hop", vec![answers.address().to_string()])
    };
    let host = mail_host_with(ZONE, |settings| settings, change);
    let writer = |number: u32| format!("w{number}@far.example");
    let deliver = |number: u32| {
        let began = Instant::now();
        let text = letter(&writer(number), ALICE, &number.to_string());
        let arrived = host.deliver("192.0.2.55", &writer(number), &text);
        assert!(began.elapsed() < WAIT_MAX, "{:?}", began.elapsed());
        assert!(results(&arrived)[0].contains("spf=pass"), "verified all the same");
    };
    deliver(0);
    until("the first record", || (host.guard.metric("store_records") == 1).then_some(()));
    disk.fill_but(0);
    let mut sent = 0;
    until("the store to fail", || {
        sent += 1;
        deliver(sent);
        (host.guard.metric("store_up") == 0).then_some(())
    });
    deliver(900);
    assert!(host.guard.metric("store_lost_records") > 0);
    assert!(!host.guard.cli(&["status"]).status.success());
    // What came in last is known from memory.
    let record = reply_of_alice(&host, &writer(900), "900");
    assert_eq!(record["verdict"], "authenticated", "{record}");

    disk.clear();
    let mut number = 1000;
    until("the store to work again", || {
        number += 1;
        deliver(number);
        (host.guard.metric("store_up") == 1).then_some(())
    });
    let record = reply_of_alice(&host, &writer(0), "0");
    assert_eq!(
        record["verdict"], "authenticated",
        "what stood in the file is still there: {record}"
    );
}

/// Her out-of-office reply to a letter, at the guard's front; its record.
fn reply_of_alice(host: &MailHost, to: &str, id: &str) -> serde_json::Value {
    // Without a date it is of this moment.
    let reply = vacation_reply(ALICE, to, id);
    let reply = reply.replace("Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n", "");
    Client::open(host.guard.address()).deliver(&Mail::new("", &[to], reply));
    host.guard.wait_for_record(to)
}
