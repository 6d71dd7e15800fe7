//! A full disk: answers wait with their server, personal mail does not, and all of it arrives.

use super::{ALICE, BOB, FRIEND, GONE, VICTIM, mailboxes, postfix_host};
use crate::client::{Client, Mail};
use crate::disk::SmallDisk;
use crate::guard::{Guard, Settings};
use crate::ledger::{Ledger, mark};
use crate::mail::letter;
use crate::servers::missing;
use crate::servers::postfix::Postfix;
use crate::sink::Sink;
use crate::wait::until;

/// A bounce to a forged sender, one to a genuine sender, and a letter.
fn send_three(postfix: &Postfix, ledger: &mut Ledger) {
    let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
    for (number, from) in [(1, VICTIM), (2, FRIEND)] {
        ledger.sent(number, from);
        // A bounce that does not fit into a few KiB.
        let long = letter(from, GONE, &mark(number)) + &"0123456789 0123456789\r\n".repeat(1500);
        client.deliver(&Mail::new(from, &[GONE], long));
    }
    ledger.sent(3, BOB);
    let mail = Mail::new(ALICE, &[BOB], letter(ALICE, BOB, &mark(3)));
    Client::open(postfix.submission()).deliver(&mail);
}

/// Goal: without an audit log nothing that must be explained happens, and everything else does.
/// Method: the disk of the log is full from the first record on, and later is not.
#[test]
fn a_full_disk_of_the_audit_log_delays_answers_alone() {
    if missing() {
        return;
    }
    let Some(disk) = SmallDisk::of_kib(2048) else { return };
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let path = disk.path().join("audit.jsonl");
    let guard =
        Guard::start(Settings::before(sink.address()).set("audit.path", path.to_str().unwrap()));
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    disk.fill_but(0);

    let mut ledger = Ledger::default();
    send_three(&postfix, &mut ledger);
    assert_eq!(sink.wait_for(1)[0].addresses(), [BOB]);
    until("both bounces to wait", || {
        let told = postfix.log().matches("451 4.3.0 the audit log cannot be written").count();
        let queue = postfix.queue();
        (told >= 2 && queue.len() == 2 && queue.iter().all(|one| one.queue == "deferred"))
            .then_some(())
    });
    assert_eq!((sink.taken().len(), guard.quarantine().len(), guard.audit().len()), (1, 0, 0));

    disk.clear();
    postfix.drained();
    ledger.arrived(&sink);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert_eq!(guard.held_for(), [VICTIM]);
    // The record of what went out meanwhile has waited in memory.
    for (recipient, action) in [(BOB, "deliver"), (FRIEND, "deliver"), (VICTIM, "quarantine")] {
        assert_eq!(guard.wait_for_record(recipient)["action"], action);
    }
}

/// Goal: who wants no mail without a record has none. Method: the same with `on_failure`.
#[test]
fn a_full_disk_of_the_audit_log_can_delay_everything() {
    if missing() {
        return;
    }
    let Some(disk) = SmallDisk::of_kib(2048) else { return };
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let path = disk.path().join("audit.jsonl");
    let guard = Guard::start(
        Settings::before(sink.address())
            .set("audit.path", path.to_str().unwrap())
            .set("audit.on_failure", "defer-all"),
    );
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    disk.fill_but(0);

    let mut ledger = Ledger::default();
    send_three(&postfix, &mut ledger);
    until("all to wait", || {
        let queue = postfix.queue();
        (queue.len() == 3 && queue.iter().all(|one| one.queue == "deferred")).then_some(())
    });
    assert_eq!((sink.taken().len(), guard.quarantine().len(), guard.audit().len()), (0, 0, 0));

    disk.clear();
    postfix.drained();
    ledger.arrived(&sink);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert_eq!(guard.audit().len(), 3);
}

/// Goal: what cannot be held is not let out either. Method: the disk of the quarantine is full but
/// for a few KiB, and later is not.
#[test]
fn a_full_disk_of_the_quarantine_delays_what_is_held_alone() {
    if missing() {
        return;
    }
    let Some(disk) = SmallDisk::of_kib(1024) else { return };
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let path = disk.path().join("quarantine");
    let guard = Guard::start(
        Settings::before(sink.address()).set("quarantine.path", path.to_str().unwrap()),
    );
    let settings = postfix_host().mailboxes(mailboxes.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    disk.fill_but(12);

    let mut ledger = Ledger::default();
    send_three(&postfix, &mut ledger);
    sink.wait_for(2);
    until("the bounce to wait", || {
        let told = postfix.log().contains("451 4.3.1 the quarantine cannot hold it now");
        let queue = postfix.queue();
        (told && queue.len() == 1 && queue[0].queue == "deferred").then_some(())
    });
    assert_eq!((sink.taken().len(), guard.quarantine().len(), guard.pending()), (2, 0, 0));

    disk.clear();
    postfix.drained();
    ledger.arrived(&sink);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert_eq!(guard.held_for(), [VICTIM]);
}
