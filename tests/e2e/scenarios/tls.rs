//! TLS between real Postfixes and the guard, and a certificate that is changed while it runs.

use rustls_pki_types::ServerName;

use super::{ALICE, BOB, FRIEND, GENUINE};
use crate::certificates::{Authority, Dates, Issued};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::{letter, own_bounce};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::{Sink, runtime};

/// The service of a Postfix that speaks TLS.
const TLSMGR: &str = "tlsmgr unix - - n 1000? 1 tlsmgr\n";

/// The settings of a guard that shows this certificate.
fn showing(issued: &Issued, folder: &std::path::Path, settings: Settings) -> Settings {
    let (certificate, key) = issued.files(folder);
    settings
        .set("tls.certificate_file", certificate.to_str().unwrap())
        .set("tls.key_file", key.to_str().unwrap())
}

/// Goal: a Postfix that speaks nothing but TLS hands in, and one that takes nothing but TLS takes
/// over. Method: two of them with the guard between, which trusts one authority alone; mail of a
/// person and a bounce, which goes out by itself after the decision.
#[test]
fn postfixes_that_insist_on_tls_stand_before_and_behind() {
    if missing() {
        return;
    }
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let sink = Sink::smtp();
    let mx = authority.issue(&["smarthost.example"], Dates::Always);
    let smarthost = postfix::Settings::default()
        .next_hop(sink.address())
        .set("smtpd_tls_security_level", "encrypt")
        .master(TLSMGR)
        .set("smtpd_tls_chain_files", "/etc/postfix/chain.pem")
        .file("chain.pem", format!("{}{}", mx.key, mx.certificate));
    let smarthost = Postfix::start(&smarthost);
    let settings = Settings::before(smarthost.submission())
        .trusting(smarthost.submission(), "smarthost.example", &folder.path().join("ca.pem"))
        .set("outbound.starttls", "require");
    let issued = authority.issue(&["guard.ours.example"], Dates::Always);
    let guard = Guard::start(showing(&issued, folder.path(), settings));
    let postfix = postfix::Settings::default()
        .variant_a(guard.address())
        .set("smtp_tls_security_level", "encrypt")
        .set("smtp_tls_loglevel", "1")
        .master(TLSMGR);
    let postfix = Postfix::start(&postfix);

    Client::open(postfix.submission()).deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "1")));
    let bounce = Mail::new("", &[FRIEND], own_bounce(FRIEND, "2", GENUINE));
    Client::open(postfix.submission()).deliver(&bounce);
    postfix.drained();
    smarthost.drained();
    let taken = sink.wait_for(2);
    for transaction in &taken {
        let text = transaction.text();
        assert!(text.contains("(replyguard) with ESMTPS id "), "{text}");
        assert!(text.contains("(using TLSv1.3 with cipher TLS_"), "{text}");
    }
    assert!(postfix.log().contains("TLS connection established to 127.0.0.1"), "{}", postfix.log());
    assert_eq!(guard.metric("next_hop_tls_failed"), 0);
    let record = guard.wait_for_record(BOB);
    assert_eq!((&record["tls"], &record["next_hop_tls"]), (&"TLSv1.3".into(), &"TLSv1.3".into()));
    assert!(guard.metric("tls_handshakes{role=\"outbound\"}") >= 2);
    // A client in the clear gets nowhere.
    let mut clear = Client::open(guard.address());
    assert_eq!(clear.command("MAIL FROM:<alice@ours.example>").code(), 530);
}

/// Goal: SIGHUP puts another certificate in force; a broken one changes nothing and is complained of.
#[test]
fn a_certificate_is_changed_while_the_guard_runs() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::smtp();
    let [old, new] =
        ["old", "new"].map(|_| authority.issue(&["guard.ours.example"], Dates::Always));
    let guard = Guard::start(showing(&old, folder.path(), Settings::before(sink.address())));
    let shows = |issued: &Issued| {
        let mut client = Client::open(guard.address());
        assert_eq!(client.command("STARTTLS").code(), 220);
        let pin = replyguard::tls::client::Fingerprint::parse(&issued.fingerprint).unwrap();
        let trust = replyguard::tls::client::Trust::Pinned(vec![pin]);
        let connector = replyguard::tls::client::Connector::new(trust).unwrap();
        let stream = client.into_stream();
        stream.set_nonblocking(true).unwrap();
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let name = ServerName::try_from("guard.ours.example").unwrap();
            connector.connect(name, stream).await.is_ok()
        })
    };
    assert!(shows(&old) && !shows(&new));
    new.files(folder.path());
    guard.reload();
    assert!(shows(&new) && !shows(&old));
    assert!(guard.log().contains("clients are shown another certificate"));
    std::fs::write(folder.path().join("key.pem"), &old.key).unwrap();
    guard.reload();
    assert!(shows(&new), "the one that works stays");
    let log = guard.log();
    assert!(log.contains("the key does not belong to the certificate"), "{log}");
    assert!(log.contains("the old one stays"), "{log}");
}
