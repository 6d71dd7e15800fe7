//! Out-of-office replies, judged by what the milter tap saw come in: the reason for all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, Mail};
use crate::dns::{Fault, Times};
use crate::mail::{letter, vacation_reply};
use crate::servers::missing;
use crate::taps::Signer;
use crate::taps::host::{
    ALICE, AUTHENTICATED, BOB, FAILED, FORGER, GENUINE, MailHost, ZONE, zone_with,
};
use crate::wait::within;

/// Goal: of 200 letters to somebody who is away, half of them forged, every genuine one is answered
/// and no forged one. Method: real servers; the genuine ones proven by SPF or by a signature alone,
/// the forged ones in the name of a domain that publishes p=none.
#[test]
fn of_two_hundred_letters_the_genuine_half_is_answered() {
    if missing() {
        return;
    }
    let signer = Signer::of("signed.example");
    let host = MailHost::start(&zone_with(&signer));
    let mut genuine = BTreeSet::new();
    let (mut theirs, mut forgers) = (host.from(GENUINE), host.from(FORGER));
    for number in 0..100 {
        let domain = if number % 2 == 0 { "far.example" } else { "signed.example" };
        let writer = format!("writer{number}@{domain}");
        let text = letter(&writer, ALICE, &format!("genuine-{number}"));
        let text = if number % 2 == 0 { text } else { signer.sign(&text) };
        theirs.deliver(&Mail::new(&writer, &[ALICE], text));
        genuine.insert(writer);
        let victim = format!("victim{number}@bank.example");
        let text = letter(&victim, ALICE, &format!("forged-{number}"));
        forgers.deliver(&Mail::new(&victim, &[ALICE], text));
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
    assert_eq!(host.guard.metric("tap_messages{tap=\"milter\"}"), 200);
    assert_eq!(host.guard.metric("subjects_total{found=\"message-id\"}"), 200);
    // One whom nobody has written to: his answer finds nothing.
    let alone = "alone@far.example";
    host.reply_to(alone, || {
        let reply = vacation_reply(BOB, alone, "never-came");
        Client::open(host.submission()).deliver(&Mail::new("", &[alone], reply));
    });
    let status = String::from_utf8(host.guard.cli(&["status"]).stdout).unwrap();
    assert!(status.contains("  milter tap  200 messages, "), "{status}");
    assert!(status.contains(" a minute, verified after "), "{status}");
    assert!(status.contains("200 of 201 found what they answer (99 %)"), "{status}");
}

/// Goal: the forger's finer tricks. Method: letters to somebody who is away and answers each.
#[test]
fn tricks_get_no_answer_out_and_cost_nobody_his() {
    if missing() {
        return;
    }
    let signer = Signer::of("spam.example");
    let host = MailHost::start(&zone_with(&signer));

    // The spammer's own DMARC passes; the answer would go to the victim.
    let passing = signer.sign(&letter("sales@spam.example", ALICE, "1"));
    let outcome = host.outcome(FORGER, "victim1@bank.example", ALICE, &passing);
    assert_eq!(outcome, FAILED);

    // No Message-ID: found by the pair.
    let bare =
        letter("joe@far.example", ALICE, "2").replace("Message-ID: <2@sender.example>\r\n", "");
    let record = host.judged(GENUINE, "joe@far.example", ALICE, &bare);
    assert_eq!(
        (&record["verdict"], &record["match"]["by"]),
        (&"authenticated".into(), &"pair".into())
    );
    let outcome = host.outcome(FORGER, "eve@far.example", ALICE, &bare.replace("joe@", "eve@"));
    assert_eq!(outcome, FAILED);

    // A genuine Message-ID in a forged letter of the same name: the nearest decides.
    let known = letter("joe@far.example", ALICE, "3");
    assert_eq!(host.outcome(GENUINE, "joe@far.example", ALICE, &known), AUTHENTICATED);
    let outcome = host.outcome(FORGER, "joe@far.example", ALICE, &known);
    assert_eq!(outcome, FAILED);

    // Forged first, genuine after it, the same writer: the genuine letter gets its answer.
    let forged = letter("ann@far.example", ALICE, "4");
    let outcome = host.outcome(FORGER, "ann@far.example", ALICE, &forged);
    assert_eq!(outcome, FAILED);
    let letter_5 = letter("ann@far.example", ALICE, "5");
    assert_eq!(host.outcome(GENUINE, "ann@far.example", ALICE, &letter_5), AUTHENTICATED);
}

/// Goal: a zone that answers after 6 s holds up no letter; the reply waits for it. Method: such a
/// zone, beyond `tap.wait`.
#[test]
fn a_reply_waits_for_a_slow_zone_and_the_letter_does_not() {
    if missing() {
        return;
    }
    let host = MailHost::start(ZONE);
    let late = Fault::Delay(Duration::from_secs(6));
    host.guard.dns().fault("slow.example", Some("TXT"), late, Times::Always);
    let letter = letter("joe@slow.example", BOB, "6");
    let record = host.judged(GENUINE, "joe@slow.example", BOB, &letter);
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&"authenticated".into(), &"deliver".into())
    );
    assert!(record["ms"].as_u64().unwrap() > 1000, "the reply came first, and waited: {record}");
}
