//! The daemon as an administrator meets it: observing, reloading, stopping, starting twice.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use serde_json::Value;

use super::{ALICE, BOB, FORGED, FRIEND, GENUINE, VICTIM};
use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, own_bounce, vacation_reply};
use crate::schema::assert_valid;
use crate::sink::Sink;
use crate::wait::{PATIENCE, until};

fn bounce(to: &str, id: &str, results: &str) -> Mail {
    Mail::new("", &[to], own_bounce(to, id, results))
}

/// What the guard said at last.
fn say(guard: &Guard, mail: &Mail) -> String {
    Client::open(guard.address()).send(mail).last.text()
}

/// Goal: a guard on trial delivers everything and tells what it would do.
#[test]
fn an_observing_guard_delivers_everything() {
    let sink = Sink::smtp();
    let guard = Guard::start(Settings::before(sink.address()).set("mode", "observe"));
    for (to, id, results) in [(VICTIM, "spam", FORGED), (FRIEND, "typo", GENUINE)] {
        assert_eq!(say(&guard, &bounce(to, id, results)), "250 2.0.0 Ok: queued as SINK");
    }
    let record = guard.wait_for_record(VICTIM);
    assert_eq!((&record["action"], &record["would"]), (&"deliver".into(), &"quarantine".into()));
    assert_eq!((&record["verdict"], &record["reason"]), (&"failed".into(), &"failed-spf".into()));
    assert_eq!(guard.wait_for_record(FRIEND)["would"], Value::Null);
    assert_eq!((sink.taken().len(), guard.quarantine().len()), (2, 0));
}

/// Goal: SIGHUP puts a new list in force, for sessions that are open too, or changes nothing.
/// Method: a deny list that grows, then a configuration with a fault and an emptied list.
#[test]
fn a_reload_takes_all_of_it_or_nothing() {
    let sink = Sink::smtp();
    let folder = tempfile::tempdir().unwrap();
    let deny = folder.path().join("deny");
    std::fs::write(&deny, "").unwrap();
    let settings = Settings::before(sink.address()).set("lists.deny_file", deny.to_str().unwrap());
    let mut guard = Guard::start(settings.clone());
    let mut client = Client::open(guard.address());
    let mut said = |id: &str| client.send(&bounce(FRIEND, id, GENUINE)).last.text();
    assert!(said("1").starts_with("250 2.0.0 Ok"));

    std::fs::write(&deny, "friend.example reason=testing\n").unwrap();
    guard.reload();
    assert!(said("2").ends_with(" deny-list"));

    std::fs::write(&deny, "").unwrap();
    guard.configure(settings.clone().set("no.such.key", 1));
    guard.reload();
    assert!(said("3").ends_with(" deny-list"), "the old configuration must stay, lists included");
    assert!(guard.log().contains("replyguard.toml:"), "the fault has a place");

    guard.configure(settings);
    guard.reload();
    assert!(said("4").starts_with("250 2.0.0 Ok"));
    assert_eq!(guard.held_for(), [FRIEND, FRIEND]);

    // Each reload has begun a new file; nothing is missing, and all is in order.
    assert_eq!(guard.audit_files().len(), 4);
    let ids: Vec<String> =
        guard.audit().iter().map(|record| record["message_id"].to_string()).collect();
    assert_eq!(ids, [1, 2, 3, 4].map(|id| format!("\"bounce-{id}@mx.ours.example\"")));
}

/// Goal: logrotate's way works too: the file is moved away, then SIGHUP.
#[test]
fn a_log_that_was_moved_away_is_begun_anew() {
    let sink = Sink::smtp();
    let guard = Guard::start(Settings::before(sink.address()));
    let log = guard.state_dir().join("audit.jsonl");
    say(&guard, &bounce(VICTIM, "1", FORGED));
    std::fs::rename(&log, guard.state_dir().join("audit.jsonl.1")).unwrap();
    say(&guard, &bounce(VICTIM, "2", FORGED));
    guard.reload();
    say(&guard, &bounce(VICTIM, "3", FORGED));
    assert_eq!(guard.audit().len(), 3);
    assert!(std::fs::read_to_string(log).unwrap().contains("bounce-3@"));
}

/// Goal: a stop costs nobody anything. Method: SIGTERM with one client in the middle of a message
/// and one that is idle; the first one finishes, the second one is told to come back.
#[test]
fn a_stop_lets_transactions_finish() {
    let sink = Sink::smtp();
    let mut guard = Guard::start(Settings::before(sink.address()));
    let mail = Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "late"));
    let mut idle = Client::open(guard.address());
    let mut busy = Client::open(guard.address());
    busy.command(&format!("MAIL FROM:<{ALICE}>")).must();
    busy.command(&format!("RCPT TO:<{BOB}>")).must();
    busy.command("DATA").must();
    busy.bytes(&mail.message[..100]);

    guard.terminate();
    assert!(idle.reply().text().starts_with("421 4.3.2 shutting down, come back "));
    idle.expect_closed();
    until("the port to be closed", || {
        std::net::TcpStream::connect(guard.address()).is_err().then_some(())
    });
    busy.bytes(&mail.message[100..]);
    busy.bytes(b".\r\n");
    assert_eq!(busy.reply().text(), "250 2.0.0 Ok: queued as SINK");
    assert!(guard.stop().success());
    assert_eq!(sink.taken().len(), 1);
    assert_eq!(guard.audit_of(BOB).len(), 1);
}

/// Goal: a stop comes to an end. Method: `outbound.drain`, and a client that never finishes.
#[test]
fn a_stop_does_not_wait_for_ever() {
    let sink = Sink::smtp();
    let mut guard = Guard::start(Settings::before(sink.address()).set("outbound.drain", "1s"));
    let mut stuck = Client::open(guard.address());
    stuck.command("MAIL FROM:<>").must();
    stuck.command(&format!("RCPT TO:<{VICTIM}>")).must();
    stuck.command("DATA").must();
    stuck.bytes(b"Subject: never\r\n");
    assert!(guard.stop().success());
    assert_eq!(stuck.reply().code(), 421);
    assert_eq!((guard.pending(), guard.held_for().len(), sink.taken().len()), (0, 0, 0));
}

/// Goal: two daemons never share a state directory. Method: the second one must say so, and go.
#[test]
fn a_state_directory_has_one_daemon() {
    let sink = Sink::smtp();
    let settings = Settings::before(sink.address());
    let first = Guard::start(settings.clone());
    let same = settings.set("state_dir", first.state_dir().to_str().unwrap());
    let why = Guard::try_start(Port::claim(), same.clone()).err().expect("it must not start");
    assert!(why.starts_with("the guard ended: exit status: 69\n"), "{why}");
    let said = format!("{} is in use by another replyguard", first.state_dir().display());
    assert!(why.contains(&said), "{why}");
    // The first one does not mind; and whoever dies leaves nothing locked.
    assert!(say(&first, &bounce(VICTIM, "1", FORGED)).ends_with(" failed-spf"));
    drop(first);
}

/// Goal: records reach a syslog server as they are. Method: one on a local socket, one over UDP.
#[test]
fn records_go_to_syslog_as_well() {
    let sink = Sink::smtp();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (local, remote) =
        (UnixDatagram::bind(&path).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    remote.set_read_timeout(Some(PATIENCE)).unwrap();
    let also = vec![
        format!("syslog:{}", path.display()),
        format!("syslog-udp:{}", remote.local_addr().unwrap()),
    ];
    let guard = Guard::start(Settings::before(sink.address()).set("audit.also", also));
    say(&guard, &bounce(VICTIM, "1", FORGED));

    let written = guard.wait_for_record(VICTIM);
    let mut buffer = vec![0; 65536];
    let length = local.recv(&mut buffer).unwrap();
    assert_syslog(&buffer[..length], &written);
    let length = remote.recv(&mut buffer).unwrap();
    assert_syslog(&buffer[..length], &written);
}

/// A message of RFC 5424 with this record.
fn assert_syslog(message: &[u8], written: &Value) {
    let text = std::str::from_utf8(message).unwrap();
    let (header, json) = text.split_at(text.find('{').unwrap());
    assert!(header.starts_with("<22>1 20"), "mail.info, version 1, a time: {header}");
    assert!(header.ends_with(" audit - "), "{header}");
    assert_valid(json);
    assert_eq!(&serde_json::from_str::<Value>(json).unwrap(), written);
}

/// Goal: a log that names nobody. Method: people's local parts must stand nowhere in the file, in
/// whatever field; their domains may.
#[test]
fn a_pseudonymised_log_names_nobody() {
    let sink = Sink::smtp();
    let guard = Guard::start(Settings::before(sink.address()).set("audit.pseudonymise", true));
    say(&guard, &bounce("jane.doe@victim.example", "1", FORGED));
    say(&guard, &bounce("jane.doe@friend.example", "2", GENUINE));
    say(&guard, &bounce("jane.doe@stranger.example", "3", "mx.ours.example; spf=none"));
    let from = "john.roe@ours.example";
    let away = vacation_reply(from, "jane.doe@far.example", "4");
    say(&guard, &Mail::new(from, &["jane.doe@far.example"], away));
    let written = std::fs::read_to_string(guard.audit_files().pop().unwrap()).unwrap();
    assert_eq!(written.lines().count(), 4);
    for name in ["jane.doe", "john.roe"] {
        let found = written.lines().find(|line| line.contains(name));
        assert_eq!(found, None, "{name}");
    }
    assert!(written.contains("@victim.example") && written.contains("@ours.example"));
}

/// Goal: `explain` says what the daemon did. Method: messages of all kinds through the daemon; then
/// each asked about.
#[test]
fn explain_agrees_with_the_daemon() {
    let sink = Sink::smtp();
    let settings = Settings::before(sink.address())
        .set("lists.deny", vec!["stranger.example"])
        .set("loops.hops_max_response", 10);
    let guard = Guard::start(settings);
    let round = "Received: by mx.ours.example (Postfix) id 1; Sat, 21 Nov 2026 10:00:00 +0000\r\n";
    let mails = [
        bounce(VICTIM, "1", FORGED),
        bounce(FRIEND, "2", GENUINE),
        bounce("denied@stranger.example", "3", GENUINE),
        bounce(BOB, "4", "mx.ours.example; spf=none"),
        bounce("nobody@nowhere.example", "5", FORGED),
        bounce("ann@ours.example", "6", FORGED),
        Mail::new("", &[BOB], vacation_reply(ALICE, BOB, "7")),
        Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "8")),
        Mail::new("", &[FRIEND], round.repeat(11) + &own_bounce(FRIEND, "9", GENUINE)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut outcomes = Vec::new();
    for (number, mail) in mails.iter().enumerate() {
        assert!(say(&guard, mail).starts_with("250 "));
        let record = guard.audit().pop().unwrap();
        let file = folder.path().join(format!("{number}.eml"));
        std::fs::write(&file, &mail.message).unwrap();
        let (from, to) = (format!("<{}>", mail.reverse_path), mail.recipients[0].0.as_str());
        let arguments = ["explain", "--format", "json", "--mail-from", &from, "--rcpt", to];
        let output = guard.cli(&[&arguments[..], &[file.to_str().unwrap()]].concat());
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        for name in ["class", "dsn_action", "origin", "signals"] {
            assert_eq!(explained[name], record[name], "{number}: {name}");
        }
        let recipient = &explained["recipients"][0];
        for name in ["rcpt", "verdict", "verdict_by", "action", "would", "rule", "reason", "text"] {
            assert_eq!(recipient[name], record[name], "{number}: {name}");
        }
        let delivered = record["action"] == "deliver";
        assert_eq!(output.status.code(), Some(if delivered { 0 } else { 1 }), "{number}");
        outcomes.push(record["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        outcomes,
        [
            "failed-spf",
            "authenticated",
            "deny-list",
            "unauthenticated",
            "no-such-domain",
            "local-domain",
            "unknown",
            "personal",
            "hops"
        ]
    );
}
