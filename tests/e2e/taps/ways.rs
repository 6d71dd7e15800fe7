//! The ways mail comes to a mail host, and the answers that follow: content filters, gateways,
//! accounts, forwarding users, and programs that answer another address than MAIL FROM.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::ledger::{Ledger, mark};
use crate::mail::{letter, vacation_reply};
use crate::servers::missing;
use crate::sink::Sink;
use crate::taps::Signer;
use crate::taps::host::{
    ALICE, AUTHENTICATED, BOB, Changes, FAILED, FORGER, GENUINE, MailHost, ZONE, outcome, zone_with,
};
use crate::wait::until;

/// What amavis puts on top of what it gives back.
const AMAVIS: &str = "X-Virus-Scanned: amavis at mx.ours.example\r\n\
    Received: from mx.ours.example ([127.0.0.1])\r\n\
    \tby localhost (mx.ours.example [127.0.0.1]) (amavis, port 10024)\r\n\
    \twith ESMTP id k1; Sat, 21 Nov 2026 10:00:00 +0000\r\n";

/// Goal: what an after-queue content filter gives back from 127.0.0.1 is judged by how it came in.
/// Method: `content_filter` of a real Postfix; the test is the filter, and the tap sees the letter
/// both times.
#[test]
fn what_a_content_filter_gives_back_inherits() {
    if missing() {
        return;
    }
    let (filter, back) = (Sink::smtp(), Port::claim());
    let changes = Changes {
        postfix: vec![("content_filter", format!("smtp:[127.0.0.1]:{}", filter.address().port()))],
        master: format!(
            "127.0.0.1:{} inet n - n - - smtpd -o content_filter= -o smtpd_milters=TAP\n",
            back.number()
        ),
        ..Changes::default()
    };
    let host = MailHost::with(ZONE, changes);
    let judged = |address: &str, mail_from: &str, text: &str| {
        host.reply_to(mail_from, || {
            let before = filter.count_taken();
            host.from(address).deliver(&Mail::new(mail_from, &[ALICE], text));
            let taken = filter.wait_for(before + 1).pop().unwrap();
            assert_eq!(taken.reverse_path, mail_from);
            let message = [AMAVIS.as_bytes(), &taken.message].concat();
            Client::open(back.address()).deliver(&Mail::new(mail_from, &[ALICE], message));
        })
    };
    let genuine = letter("joe@far.example", ALICE, "1");
    assert_eq!(outcome(&judged(GENUINE, "joe@far.example", &genuine)), AUTHENTICATED);
    let forged = letter("eve@far.example", ALICE, "2");
    assert_eq!(outcome(&judged(FORGER, "eve@far.example", &forged)), FAILED);
    // Nothing to find it by but the Message-ID that Postfix makes up when it comes back.
    let bare = letter("ann@far.example", ALICE, "3");
    let bare = bare.replace("Message-ID: <3@sender.example>\r\n", "");
    assert_eq!(outcome(&judged(FORGER, "ann@far.example", &bare)), FAILED);
    let bare = bare.replace("ann@", "tom@");
    assert_eq!(outcome(&judged(GENUINE, "tom@far.example", &bare)), AUTHENTICATED);
}

/// Goal: an account of ours proves nobody else's address. Method: real SASL, by Dovecot; somebody
/// who has stolen alice's password writes from outside in the name of others.
#[test]
fn a_hijacked_account_proves_nobody_else() {
    if missing() {
        return;
    }
    let sasl = [
        ("smtpd_sasl_auth_enable", "yes"),
        ("smtpd_sasl_type", "dovecot"),
        ("smtpd_sasl_path", "AUTH"),
        ("smtpd_sasl_security_options", "noanonymous"),
    ];
    let changes = Changes {
        postfix: sasl.map(|(key, value)| (key, value.to_owned())).into(),
        ..Changes::default()
    };
    let zone = format!("{ZONE}plain.example MX 10 mx.plain.example\n");
    let host = MailHost::with(&zone, changes);
    let mut client = host.from(FORGER);
    let reply =
        client.command(&format!("AUTH PLAIN {}", BASE64_STANDARD.encode(b"\0alice\0stolen")));
    assert_eq!(reply.code(), 235, "{reply:?}");
    let mut judged = |mail_from: &str, id: &str| {
        host.reply_to(mail_from, || {
            client.deliver(&Mail::new(mail_from, &[BOB], letter(mail_from, BOB, id)));
        })
    };
    assert_eq!(outcome(&judged("victim@bank.example", "1")), FAILED);
    assert_eq!(outcome(&judged("joe@far.example", "2")), FAILED);
    // A domain that says nothing of itself: nobody is proven, and one answer a day may go.
    let record = judged("x@plain.example", "3");
    assert_eq!(outcome(&record), "unauthenticated deliver unauthenticated");
    assert_eq!(outcome(&judged("x@plain.example", "4")).split(' ').nth(1), Some("quarantine"));
}

/// A gateway's own line, above what it passes on.
fn through_gateway(client: &str, text: &str) -> String {
    let from = match client {
        "" => String::new(),
        ip => format!("from mail.far.example (mail.far.example [{ip}])\r\n\t"),
    };
    format!(
        "Received: {from}by gw.filter.example with ESMTP id 77;\r\n\t\
         Sat, 21 Nov 2026 10:00:00 +0000\r\n{text}"
    )
}

const GATEWAY: &str = "203.0.113.25";

/// Goal: mail through a gateway that is named is judged by who gave it to the gateway. Method: its
/// Received line names a genuine host, a forger, and nobody.
#[test]
fn a_declared_gateway_is_seen_through() {
    if missing() {
        return;
    }
    let relays = toml::Value::from(vec!["203.0.113.0/24"]);
    let changes = Changes { guard: vec![("tap.trusted_relays", relays)], ..Changes::default() };
    let host = MailHost::with(ZONE, changes);
    let judged = |client: &str, mail_from: &str, id: &str| {
        let text = through_gateway(client, &letter(mail_from, ALICE, id));
        host.judged(GATEWAY, mail_from, ALICE, &text)
    };
    assert_eq!(outcome(&judged(GENUINE, "joe@far.example", "1")), AUTHENTICATED);
    assert_eq!(outcome(&judged(FORGER, "eve@far.example", "2")), FAILED);
    let record = judged("", "ann@far.example", "3");
    assert_eq!(outcome(&record), "unknown deliver unknown");
    assert_eq!(record["verdict_by"], "behind-relay");
}

/// Goal: a gateway that nobody named is found out before it silences everybody. Method: letters of
/// twenty domains, some signed, through one address; the last one's answer is then not held.
#[test]
fn an_undeclared_gateway_is_found_out() {
    if missing() {
        return;
    }
    let names: Vec<String> = (0..20).map(|number| format!("d{number}.example")).collect();
    let signers: Vec<Signer> = names.iter().take(6).map(|name| Signer::of(name)).collect();
    let mut zone = format!("{ZONE}\n");
    for name in &names {
        zone.push_str(&format!("{name} TXT \"v=spf1 ip4:192.0.2.55 -all\"\n"));
    }
    signers.iter().for_each(|signer| zone.push_str(&format!("{}\n", signer.zone())));
    let host = MailHost::start(&zone);
    let mut records = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let writer = format!("joe@{name}");
        let text = letter(&writer, ALICE, &format!("{number}"));
        let text = match signers.get(number) {
            Some(signer) => signer.sign(&text),
            None => text,
        };
        records.push(host.judged(GATEWAY, &writer, ALICE, &through_gateway(GENUINE, &text)));
    }
    let outcomes: Vec<String> = records.iter().map(outcome).collect();
    assert!(outcomes[..6].iter().all(|outcome| outcome == AUTHENTICATED), "{outcomes:?}");
    assert!(outcomes[6..19].iter().all(|outcome| outcome == FAILED), "{outcomes:?}");
    assert_eq!(outcomes[19], "unknown deliver unknown");
    assert_eq!(records[19]["verdict_by"], "behind-relay");
    assert!(host.guard.log().contains("name it in `tap.trusted_relays`"));
    let status = host.guard.cli(&["status"]);
    let printed = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(printed.contains(&format!("* {GATEWAY} looks like a gateway")), "{printed}");
}

/// A helpdesk's acknowledgement, handed in by its program.
fn acknowledged(host: &MailHost, to: &str, id: &str) -> Value {
    host.reply_to(to, || {
        let reply = vacation_reply("help@ours.example", to, id)
            .replace("auto-replied (vacation)", "auto-replied");
        Client::open(host.submission()).deliver(&Mail::new("", &[to], reply));
    })
}

/// Goal: a helpdesk that answers Reply-To serves its correspondents and is no weapon against other
/// users of their provider. Method: letters whose Reply-To is the writer himself behind a return
/// path of its own, another user of his provider, and somebody at a bank.
#[test]
fn a_helpdesk_that_answers_reply_to() {
    if missing() {
        return;
    }
    let signer = Signer::of("signed.example");
    let host = MailHost::start(&zone_with(&signer));
    let help = "help@ours.example";
    let write = |mail_from: &str, from: &str, reply_to: &str, id: &str| {
        let text = letter(from, help, id);
        let text = signer.sign(&format!("Reply-To: <{reply_to}>\r\n{text}"));
        host.from(FORGER).deliver(&Mail::new(mail_from, &[help], text));
    };
    let joe = "joe@signed.example";
    for id in ["1", "2", "3"] {
        write("bounces+17@signed.example", joe, joe, id);
        assert_eq!(outcome(&acknowledged(&host, joe, id)), AUTHENTICATED);
    }
    let victim = "victim@signed.example";
    write("eve@signed.example", "eve@signed.example", victim, "4");
    let record = acknowledged(&host, victim, "4");
    assert_eq!(outcome(&record), "authenticated deliver domain-only");
    write("eve@signed.example", "eve@signed.example", victim, "5");
    let record = acknowledged(&host, victim, "5");
    assert_eq!(record["action"], "quarantine", "the second of a day: {record}");
    let banker = "victim@bank.example";
    write("eve@signed.example", "eve@signed.example", banker, "6");
    assert_eq!(acknowledged(&host, banker, "6")["verdict"], "failed");
}

/// Goal: a replayed signature points our answers at another user of its domain once a day at most.
/// Method: a letter that eve signed at her provider, sent by somebody else with another return path.
#[test]
fn a_replayed_signature_is_worth_one_answer() {
    if missing() {
        return;
    }
    let signer = Signer::of("signed.example");
    let host = MailHost::start(&zone_with(&signer));
    let replayed = signer.sign(&letter("eve@signed.example", ALICE, "1"));
    let victim = "victim@signed.example";
    let first = host.judged(FORGER, victim, ALICE, &replayed);
    assert_eq!(outcome(&first), "authenticated deliver domain-only");
    let second = host.judged(FORGER, victim, ALICE, &replayed);
    assert_eq!(second["action"], "quarantine");
    // Who signed is answered as often as he writes.
    let eve = "eve@signed.example";
    for id in ["2", "3"] {
        let text = signer.sign(&letter(eve, ALICE, id));
        assert_eq!(outcome(&host.judged(FORGER, eve, ALICE, &text)), AUTHENTICATED);
    }
}

/// Goal: who forwards all his mail gets other people's answers, however many. Method: Sieve sends on
/// fifty a day of the same responder; the tap has seen each of them come in.
#[test]
fn fifty_forwarded_answers_a_day_go_out() {
    if missing() {
        return;
    }
    let me = "me@elsewhere.example";
    let script = ("dave", format!("redirect \"{me}\";\n"));
    let host = MailHost::with(ZONE, Changes { scripts: vec![script], ..Changes::default() });
    let mut ledger = Ledger::default();
    let mut client = host.from(FORGER);
    for number in 0..50 {
        let reply = vacation_reply("ann@far.example", "dave@ours.example", &mark(number));
        ledger.sent(number, me);
        client.deliver(&Mail::new("", &["dave@ours.example"], reply));
    }
    until("fifty answers sent on", || (host.sink.count_taken() >= 50).then_some(()));
    ledger.arrived(&host.sink);
    ledger.held(&host.guard);
    ledger.assert_balanced();
    let records = until("fifty records", || {
        let records = host.guard.audit_of(me);
        (records.len() == 50).then_some(records)
    });
    assert!(records.iter().all(|record| record["reason"] == "relayed-response"), "{records:?}");
}
