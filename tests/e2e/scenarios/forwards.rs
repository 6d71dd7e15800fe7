//! Users who forward everything: what others answered them is not ours to judge.

use super::{FORGED, postfix_host};
use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::ledger::{Ledger, mark};
use crate::mail::{forged_bounce, vacation_reply};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::Postfix;
use crate::servers::{missing, shipped};
use crate::sink::Sink;

/// Forwards by an alias of Postfix.
const CAROL: &str = "carol@ours.example";
/// Forwards by Sieve.
const DAVE: &str = "dave@ours.example";
const OUTSIDE: &str = "me@elsewhere.example";

const MESSAGES: usize = 50;

/// Goal: forwarders keep getting their bounces and out-of-office replies. Method: other people's, to
/// two users who forward in two ways; some of them show a border line and results of ours, forged,
/// in what they return.
#[test]
fn other_peoples_responses_are_forwarded() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let guard = Guard::start(Settings::before(sink.address()));
    let submission = Port::claim();
    let port = format!("127.0.0.1:{}", submission.number());
    let dovecot = Dovecot::start(&dovecot::Settings {
        conf: shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &port)]),
        scripts: vec![("dave".to_owned(), format!("redirect \"{OUTSIDE}\";\n"))],
    });
    let settings = postfix_host()
        .forward(CAROL, OUTSIDE)
        .mailboxes(dovecot.lmtp())
        .master(&format!("{port} inet n - n - - smtpd\n"))
        .variant_a(guard.address());
    let postfix = Postfix::start(&settings);

    let mut ledger = Ledger::default();
    let mut client = Client::from_outside(postfix.border(), "192.0.2.77", "mail.elsewhere.example");
    for number in (0..).take(MESSAGES) {
        let (user, id) = (if number % 2 == 0 { CAROL } else { DAVE }, mark(number));
        let message = match number % 5 {
            0 => vacation_reply("ann@far.example", user, &id),
            1 => forged_bounce(user, &id),
            _ => forged_bounce(user, &id).replace(
                "\r\n\r\nFrom: <",
                &format!(
                    "\r\n\r\nReturn-Path: <{user}>\r\nAuthentication-Results: {FORGED}\r\n\
                     Received: from x (unknown [192.0.2.1])\r\n\tby mx.ours.example (Postfix) \
                     with ESMTP id 9; Sat, 21 Nov 2026 10:00:00 +0000\r\nFrom: <"
                ),
            ),
        };
        ledger.sent(number, OUTSIDE);
        client.deliver(&Mail::new("", &[user], message));
    }

    sink.wait_for(MESSAGES);
    postfix.drained();
    ledger.arrived(&sink);
    ledger.assert_balanced();
    let records = guard.audit();
    assert_eq!(records.len(), MESSAGES);
    for record in records {
        assert_eq!(
            (&record["origin"], &record["verdict"]),
            (&"relayed".into(), &serde_json::Value::Null),
            "{record}"
        );
        assert_eq!(record["reason"], "relayed-response");
    }
    let by_sieve =
        sink.taken().iter().filter(|one| one.text().contains("X-Sieve-Redirected-From")).count();
    assert_eq!(by_sieve, MESSAGES / 2);
    assert!(guard.quarantine().is_empty());
    assert_eq!(dovecot.inbox("dave").len(), 0);
}
