//! A next hop that wants a password: a real Postfix, which asks a real Dovecot whether it is right.

use serde_json::Value;

use super::{ALICE, BOB, FRIEND, GENUINE};
use crate::certificates::{Authority, Dates};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, own_bounce};
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::wait::until;

/// The user that the next hop knows, and the password.
const USER: &str = "guard";
const PASSWORD: &str = "correct horse battery";

/// A Postfix that takes mail over TLS from who has a password, and from nobody else.
fn demanding(sink: &Sink, dovecot: &Dovecot, authority: &Authority) -> Postfix {
    let mx = authority.issue(&["relay.example"], Dates::Always);
    let known_only = "permit_sasl_authenticated, reject";
    let settings = postfix::Settings::default()
        .next_hop(sink.address())
        .master("tlsmgr unix - - n 1000? 1 tlsmgr\n")
        .set("smtpd_tls_security_level", "encrypt")
        .set("smtpd_tls_chain_files", "/etc/postfix/chain.pem")
        .file("chain.pem", format!("{}{}", mx.key, mx.certificate))
        .set("smtpd_sasl_auth_enable", "yes")
        .set("smtpd_sasl_type", "dovecot")
        .set("smtpd_sasl_path", format!("inet:{}", dovecot.auth()))
        .set("smtpd_tls_auth_only", "yes")
        .set("smtpd_client_restrictions", known_only)
        .set("smtpd_relay_restrictions", known_only);
    Postfix::start(&settings)
}

/// Writes the file of passwords.
fn say(password: &str, folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("secrets");
    std::fs::write(&file, format!("* {USER} {password}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Goal: with a wrong password nothing is lost, and both ends are told enough to mend it; with the
/// right one everything goes out. Method: a Postfix hands in to a guard that has the wrong one, and
/// waits; then the file is mended, and the guard starts anew.
#[test]
fn a_next_hop_that_wants_a_password_gets_it_over_tls() {
    if missing() {
        return;
    }
    let (authority, folder, sink) = (Authority::new(), tempfile::tempdir().unwrap(), Sink::smtp());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let dovecot = Dovecot::knowing(&[(USER, PASSWORD)], &dovecot::Settings::default());
    let relay = demanding(&sink, &dovecot, &authority);
    let settings = Settings::before(relay.submission())
        .trusting(relay.submission(), "relay.example", &folder.path().join("ca.pem"))
        .set("outbound.auth_file", folder.path().join("secrets").to_str().unwrap());
    say("correct horse", folder.path());
    let mut guard = Guard::start(settings);
    let postfix = Postfix::start(&postfix::Settings::default().variant_a(guard.address()));

    // The wrong one.
    Client::open(postfix.submission()).deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "1")));
    let bounce = Mail::new("", &[FRIEND], own_bounce(FRIEND, "2", GENUINE));
    Client::open(postfix.submission()).deliver(&bounce);
    until("both messages to be deferred", || {
        let queue = postfix.queue();
        let waits = |reason: &str| reason.contains(" 421 4.") || reason.contains(" 451 4.");
        let deferred =
            |message: &postfix::Queued| message.recipients.iter().all(|(_, why)| waits(why));
        (queue.len() == 2 && queue.iter().all(deferred)).then_some(())
    });
    assert!(guard.metric("next_hop_auth_failed") > 0);
    let told = "AUTH: it says 535 5.7.8: look at name and password in `outbound.auth_file`";
    assert!(guard.log().contains(told), "{}", guard.log());
    assert!(relay.log().contains("SASL PLAIN authentication failed"), "{}", relay.log());
    assert!(sink.taken().is_empty());
    assert!(!postfix.log().contains("status=bounced"), "{}", postfix.log());

    // The right one.
    say(PASSWORD, folder.path());
    guard.stop();
    guard.resume();
    postfix.drained();
    relay.drained();
    assert_eq!(sink.wait_for(2).len(), 2);
    let record = guard.wait_for_record(BOB);
    assert_eq!((&record["tls"], &record["next_hop_tls"]), (&Value::Null, &"TLSv1.3".into()));
    assert!(relay.log().contains(&format!("sasl_method=PLAIN, sasl_username={USER}")));
    for log in [guard.log(), postfix.log(), relay.log(), dovecot.log()] {
        assert!(!log.contains("correct horse"), "{log}");
    }
}
