//! Exim's bounces; and that Exim never freezes one, which is why the guard says 250.

use super::{
    ALICE, BOB, FRIEND, GONE, NOBODY, SLOW, VICTIM, exim_host, from_far, mailboxes, refuse_nobody,
};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::ledger::{Ledger, mark};
use crate::mail::{letter, put_on_top};
use crate::pass::Pass;
use crate::servers::exim::Exim;
use crate::servers::missing;
use crate::sink::Sink;
use crate::wait::until;

/// Goal: as with Postfix. Method: bounces to a forged sender and to a genuine one.
#[test]
fn a_bounce_is_held_or_delivered() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let pass = Pass::to(guard.address());
    let exim = Exim::start(&exim_host(pass.address()));

    from_far(exim.border(), VICTIM, NOBODY, "spam");
    let record = guard.wait_for_record(VICTIM);
    assert_eq!((&record["class"], &record["reason"]), (&"dsn".into(), &"failed-spf".into()));
    assert_eq!(record["subject_message"]["message_id"], "spam@sender.example");
    let said = record["reply"].as_str().unwrap();
    until("the guard's words in Exim's log", || exim.log().contains(said).then_some(()));
    let held = guard.quarantine().pop().unwrap();
    assert_eq!(held.recipients(), [VICTIM]);
    assert!(pass.messages().contains(&held.message), "held as it came, byte for byte");

    from_far(exim.border(), FRIEND, NOBODY, "typo");
    let bounce = sink.wait_for_text("typo@sender.example");
    assert_eq!((bounce.reverse_path.as_str(), bounce.addresses()), ("", vec![FRIEND]));
    let added = pass.messages().iter().find_map(|before| put_on_top(before, &bounce.message));
    assert_eq!(added.expect("nothing but lines on top may change").len(), 2);

    exim.drained();
    assert_eq!((exim.frozen(), sink.taken().len(), guard.quarantine().len()), (0, 1, 1));
}

/// Goal: Exim's reports of success and delay are told apart too. Method: both, to both senders.
#[test]
fn reports_of_success_and_delay_follow_the_same_rule() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()));
    let mut settings = exim_host(guard.address());
    settings.main = "dsn_advertise_hosts = *\ndelay_warning = 1s\n".to_owned();
    settings.mailboxes = Some(mailboxes.address());
    let exim = Exim::start(&settings);

    let mut client = Client::from_outside(exim.border(), "192.0.2.55", "mail.forger.example");
    for from in [VICTIM, FRIEND] {
        let mut mail = Mail::new(from, &[ALICE], letter(from, ALICE, "success"));
        mail.recipients[0].1 = "NOTIFY=SUCCESS".to_owned();
        client.deliver(&mail);
        client.deliver(&Mail::new(from, &[SLOW], letter(from, SLOW, "delay")));
    }
    let told = |who: &str| {
        let records = guard.audit_of(who);
        let mut words: Vec<String> = records
            .iter()
            .map(|one| format!("{} {}", one["dsn_action"], one["reason"]).replace('"', ""))
            .collect();
        words.sort();
        // Why: on a slow machine Exim says a second time that a letter is late.
        words.dedup();
        words
    };
    for (who, reason) in [(VICTIM, "failed-spf"), (FRIEND, "authenticated")] {
        until("the records of both reports", || (told(who).len() == 2).then_some(()));
        assert_eq!(told(who), [format!("delayed {reason}"), format!("delivered {reason}")]);
    }
    let held = guard.held_for();
    assert!(held.len() >= 2 && held.iter().all(|who| who == VICTIM), "{held:?}");
    assert!(sink.taken().iter().filter(|one| one.addresses() == [FRIEND]).count() >= 2);
    sink.behave();
    exim.drained();
    assert_eq!(exim.frozen(), 0);
}

/// Goal: a dead guard costs nothing but time. Method: bounces and a letter while it is stopped:
/// all of it waits, nothing freezes, and goes its way when it is back.
#[test]
fn nothing_freezes_while_the_guard_is_down() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let mut guard = Guard::start(Settings::before(sink.address()));
    let mut settings = exim_host(guard.address());
    settings.mailboxes = Some(mailboxes.address());
    let exim = Exim::start(&settings);
    guard.stop();

    let mut waiting = Ledger::default();
    waiting.sent(1, VICTIM);
    from_far(exim.border(), VICTIM, GONE, &mark(1));
    waiting.sent(2, FRIEND);
    from_far(exim.border(), FRIEND, GONE, &mark(2));
    waiting.sent(3, BOB);
    Client::open(exim.submission()).deliver(&Mail::new(
        ALICE,
        &[BOB],
        letter(ALICE, BOB, &mark(3)),
    ));
    until("three deliveries that were tried", || {
        let tried = exim.log().matches("Connection refused").count();
        (tried >= 3 && exim.queue().len() == 3).then_some(())
    });
    let mut done = waiting.clone();
    waiting.queued_exim(&exim);
    waiting.assert_balanced();
    assert_eq!(exim.frozen(), 0);

    guard.resume();
    exim.drained();
    done.arrived(&sink);
    done.held(&guard);
    done.assert_balanced();
    assert_eq!(guard.held_for(), [VICTIM]);
}

/// Goal: a full quarantine delays, and loses nothing. Method: room for one message; the second
/// bounce hears 451 and waits unfrozen, other mail passes; with more room it is held.
#[test]
fn nothing_freezes_while_the_quarantine_is_full() {
    if missing() {
        return;
    }
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let settings = Settings::before(sink.address());
    let mut guard = Guard::start(settings.clone().set("quarantine.max_messages", 1));
    let mut host = exim_host(guard.address());
    host.mailboxes = Some(mailboxes.address());
    let exim = Exim::start(&host);

    from_far(exim.border(), VICTIM, GONE, "first");
    until("the first one to be held", || (guard.quarantine().len() == 1).then_some(()));
    exim.drained();
    from_far(exim.border(), VICTIM, GONE, "second");
    from_far(exim.border(), FRIEND, GONE, "third");
    sink.wait_for_text("third@sender.example");
    until("the second one to be deferred", || {
        exim.log().contains("451 4.3.1 the quarantine cannot hold it now").then_some(())
    });
    until("it alone to wait", || {
        let queue = exim.queue();
        (queue.len() == 1 && queue[0].recipients == [VICTIM] && !queue[0].frozen).then_some(())
    });
    let record = guard.wait_for_record(VICTIM);
    assert!(record["reply"].as_str().unwrap().starts_with("451 4.3.1 "), "{record}");

    guard.stop();
    guard.configure(settings);
    guard.resume();
    exim.drained();
    assert_eq!(guard.held_for(), [VICTIM, VICTIM]);
    assert_eq!((exim.frozen(), sink.taken().len()), (0, 1));
}

/// Goal: why 5xx is not the default. Method: `policy.suppress = "reject"`: Exim freezes the bounce
/// and keeps it, and nobody has got anything.
#[test]
fn a_rejected_bounce_freezes() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    refuse_nobody(&sink);
    let guard = Guard::start(Settings::before(sink.address()).set("policy.suppress", "reject"));
    let exim = Exim::start(&exim_host(guard.address()));

    from_far(exim.border(), VICTIM, NOBODY, "spam");
    until("a frozen bounce", || (exim.frozen() == 1).then_some(()));
    let record = guard.wait_for_record(VICTIM);
    let event = record["event"].as_str().unwrap();
    assert_eq!(record["action"], "reject");
    assert_eq!(record["reply"], format!("550 5.7.1 not sent: failed-spf {event}"));
    assert!(exim.log().contains(event));
    let frozen = &exim.queue()[0];
    assert_eq!((frozen.reverse_path.as_str(), frozen.recipients[0].as_str()), ("", VICTIM));
    assert_eq!((sink.taken().len(), guard.quarantine().len()), (0, 0));
}
