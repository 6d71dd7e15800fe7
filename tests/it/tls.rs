//! TLS before and behind the guard: who gets it, who does not, and what nobody gets past it.
//!
//! Goal: what is said in the clear is never taken for what was said in TLS, nor is anybody trusted
//! whom the settings do not. Method: the whole guard over connections in memory, real handshakes on
//! both sides, certificates made here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use replyguard::mail::limits::EHLO_AGE_MAX;
use replyguard::mail::limits_of_tls::TLS_FAILED_FOR;
use replyguard::serve::Server;
use replyguard::serve::smtp::Front;
use replyguard::serve::tls::{Begins, Handshakes, ListenerTls};
use replyguard::tls::stream::Stream;
use replyguard::wire::secure::{Channel, Starttls};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use crate::certificates::{Authority, Dates, Issued};
use crate::disk::ModelDisk;
use crate::hop::{Act, Hop, Net, Stage, USUAL};
use crate::rig::{Client, Rig, SITE, config, letter};

const HOP: &str = "192.0.2.1:25";
const NAME: &str = "guard.uni.example";

/// The guard in the clear before a usual next hop, TLS before it.
struct Before {
    hop: Hop,
    rig: Rig,
    authority: Authority,
    tls: ListenerTls,
}

async fn before(starttls: Starttls, begins: Begins) -> Before {
    let hop = Hop::smtp(USUAL);
    let net = Net::of(&[(HOP, &hop)]);
    let text = format!("{SITE}[outbound]\nnext_hop = [{HOP:?}]\n");
    let mut rig =
        Rig::new(&config(&text, Path::new("/s")), ModelDisk::default(), Arc::new(net)).await;
    let authority = Authority::new();
    let issued = authority.issue(&[NAME], Dates::Always);
    let tls = ListenerTls {
        acceptor: Arc::new(issued.acceptor()),
        starttls,
        begins,
        handshakes: Arc::new(Handshakes::default()),
    };
    rig.front = Arc::new(Front { tls: Some(tls.clone()), ..(*rig.front).clone() });
    Before { hop, rig, authority, tls }
}

impl Before {
    /// Over what a client has: TLS.
    async fn secure(&self, clear: DuplexStream) -> Client<Stream<DuplexStream>> {
        let name = ServerName::try_from(NAME).unwrap();
        let (stream, _) = self.authority.connector().connect(name, clear).await.unwrap();
        Client::new(stream)
    }

    /// A client that has said STARTTLS and made the handshake.
    async fn secured(&self) -> Client<Stream<DuplexStream>> {
        let mut client = self.rig.client().await;
        assert_eq!(client.ask("STARTTLS").await.0, "220 2.0.0 Ready to start TLS\r\n");
        self.secure(client.into_stream()).await
    }
}

fn count(handshakes: &AtomicU64) -> u64 {
    handshakes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_letter_comes_in_over_starttls_and_its_received_line_says_so() {
    let before = before(Starttls::Offered, Begins::Asked).await;
    let mut client = before.rig.client().await;
    assert!(client.ask("EHLO mx").await.0.contains("250-STARTTLS\r\n"));
    let mut client = before.secured().await;
    assert_eq!(client.ask("MAIL FROM:<ann@uni.example>").await.code(), 503, "hello is forgotten");
    let hello = client.ask("EHLO mx.uni.example").await.0;
    assert!(!hello.contains("STARTTLS"), "{hello}");
    assert_eq!(client.ask("STARTTLS").await.code(), 503);
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("hi")).await;
    assert_eq!(said.last().unwrap().code(), 250);
    let taken = before.hop.taken();
    let message = String::from_utf8(taken[0].message()).unwrap();
    assert!(message.contains("(using TLSv1.3 with cipher TLS_"), "{message}");
    assert!(message.contains("(replyguard) with ESMTPS id "), "{message}");
    assert_eq!(taken[0].original(), letter("hi"));
}

#[tokio::test]
async fn a_listener_with_implicit_tls_greets_within_it() {
    let before = before(Starttls::Off, Begins::AtOnce).await;
    let mut client = before.secure(before.rig.connect().into_stream()).await;
    assert_eq!(client.reply().await.code(), 220);
    assert!(!client.ask("EHLO mx").await.0.contains("STARTTLS"));
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("hi")).await;
    assert_eq!(said.last().unwrap().code(), 250);
    assert_eq!(client.ask("QUIT").await.code(), 221);
    assert_eq!(client.line().await, None);
    // Who speaks in the clear there hears nothing that is SMTP.
    let mut client = before.rig.connect();
    client.send("EHLO mx\r\n").await;
    let mut said = Vec::new();
    let _ = client.into_stream().read_to_end(&mut said).await;
    assert!(!said.starts_with(b"220") && said.len() < 16, "{said:?}");
}

/// CVE-2011-0411: what somebody puts behind STARTTLS in the clear is no command of the client's,
/// wherever the packets are cut.
#[tokio::test]
async fn commands_in_the_clear_behind_starttls_are_never_read() {
    let injected = "MAIL FROM:<eve@evil.example>\r\nRCPT TO:<joe@bank.example>\r\n";
    for together in [true, false] {
        let before = before(Starttls::Offered, Begins::Asked).await;
        let mut client = before.rig.client().await;
        if together {
            client.send(format!("STARTTLS\r\n{injected}")).await;
            let said = client.reply().await.0;
            assert!(said.starts_with("421 4.7.0 something came in the clear"), "{said}");
            assert_eq!(count(&before.tls.handshakes.injected), 1);
        } else {
            // Behind the 220 it is no TLS either: the handshake fails.
            assert_eq!(client.ask("STARTTLS").await.code(), 220);
            client.send(injected).await;
            assert_eq!(count(&before.tls.handshakes.made), 0);
        }
        let mut rest = Vec::new();
        let _ = client.into_stream().read_to_end(&mut rest).await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(!rest.contains("250") && !rest.contains("503"), "{rest}");
        assert!(before.hop.lines().iter().all(|line| !line.starts_with("MAIL")));
    }
}

#[tokio::test]
async fn where_tls_is_required_nothing_is_taken_before_it() {
    let before = before(Starttls::Required, Begins::Asked).await;
    let mut client = before.rig.client().await;
    let said = client.ask("MAIL FROM:<ann@uni.example>").await.0;
    assert!(said.starts_with("530 5.7.0 Must issue a STARTTLS command first"), "{said}");
    assert_eq!(client.ask("RCPT TO:<joe@bank.example>").await.code(), 530);
    assert_eq!(client.ask("NOOP").await.code(), 250);
    let mut client = before.secured().await;
    assert_eq!(client.ask("EHLO mx").await.code(), 250);
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("hi")).await;
    assert_eq!(said.last().unwrap().code(), 250);
}

/// TLS 1.1 (RFC 8996). Method: the ClientHello of a client that knows no more, byte for byte.
#[tokio::test]
async fn below_tls_1_2_there_is_no_handshake() {
    let before = before(Starttls::Offered, Begins::Asked).await;
    let mut client = before.rig.client().await;
    assert_eq!(client.ask("STARTTLS").await.code(), 220);
    let mut stream = client.into_stream();
    stream.write_all(&old_client_hello()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // An alert, fatal, protocol_version (RFC 5246 §7.2).
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70), "{answer:?}");
    assert_eq!(count(&before.tls.handshakes.failed), 1);
}

/// TLS 1.1, ECDHE with RSA and AES-128-CBC-SHA, with the extensions that are looked for before the
/// version is.
fn old_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 1];
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

/// A client that never says anything in its handshake has a deadline, as any other.
#[tokio::test(start_paused = true)]
async fn a_slow_handshake_ends() {
    for begins in [Begins::Asked, Begins::AtOnce] {
        let before = before(Starttls::Offered, begins).await;
        let mut client = match begins {
            Begins::Asked => before.rig.client().await,
            Begins::AtOnce => before.rig.connect(),
        };
        if begins == Begins::Asked {
            assert_eq!(client.ask("STARTTLS").await.code(), 220);
        }
        assert_eq!(client.line().await, None);
        assert_eq!(count(&before.tls.handshakes.failed), 1);
    }
}

#[tokio::test]
async fn another_certificate_is_shown_from_the_next_session_on() {
    let before = before(Starttls::Offered, Begins::Asked).await;
    let mut old = before.secured().await;
    let other: Issued = before.authority.issue(&["other.example"], Dates::Always);
    assert_eq!(other.fingerprint.len(), 64);
    before.tls.acceptor.replace(other.identity());
    assert_eq!(old.ask("EHLO mx").await.code(), 250, "what stands, stands");
    let mut client = before.rig.client().await;
    assert_eq!(client.ask("STARTTLS").await.code(), 220);
    let name = ServerName::try_from("other.example").unwrap();
    let connector = before.authority.connector();
    assert!(connector.connect(name, client.into_stream()).await.is_ok());
}

/// A next hop that speaks TLS, with a certificate for this name of this authority; the guard before
/// it with these settings in `[outbound]`.
struct Behind {
    hop: Hop,
    rig: Rig,
}

/// The settings as they stand in files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner).unwrap();
        path.display().to_string()
    }
}

const MX: &str = "mx.bank.example:25";

async fn behind(hop: &Hop, at: &str, settings: &str) -> Behind {
    let net = Net::of(&[(at.rsplit_once("tls:").map_or(at, |(_, at)| at), hop)]);
    let text = format!("{SITE}[outbound]\nnext_hop = [{at:?}]\n{settings}\n");
    let config = config(&text, Path::new("/s"));
    let rig = Rig::new(&config, ModelDisk::default(), Arc::new(net)).await;
    Behind { hop: hop.clone(), rig }
}

/// A next hop with a certificate of this authority.
fn secure_hop(authority: &Authority, name: &str, dates: Dates, inside: &[&str]) -> (Hop, Issued) {
    let hop = Hop::smtp(USUAL);
    let issued = authority.issue(&[name], dates);
    hop.speaks_tls(issued.acceptor(), Begins::Asked, inside);
    (hop, issued)
}

impl Behind {
    /// What the client hears when it hands in a letter: the code at the end, or of the greeting.
    async fn letter(&self) -> String {
        let mut client = self.rig.connect();
        let greeting = client.reply().await;
        if greeting.code() != 220 {
            return greeting.0;
        }
        client.ask("EHLO mx.uni.example").await;
        let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("hi")).await;
        said.last().unwrap().0.clone()
    }

    fn failed(&self) -> (u64, u64) {
        let failed = self.rig.guard().relay().health().failed;
        (failed.tls, failed.auth)
    }

    fn channel(&self) -> Option<Channel> {
        self.rig.guard().relay().health().hops[0].channel
    }
}

#[tokio::test(start_paused = true)]
async fn opportunistic_tls_is_spoken_with_anybody_and_kept() {
    let authority = Authority::new();
    let (hop, _) = secure_hop(&authority, "other.example", Dates::Ended, &["REQUIRETLS"]);
    let behind = behind(&hop, MX, "").await;
    for _ in 0..3 {
        assert_eq!(behind.letter().await, "250 2.0.0 Ok: queued as HOP\r\n");
    }
    assert_eq!((behind.channel(), behind.failed()), (Some(Channel::Encrypted), (0, 0)));
    assert_eq!(hop.sessions(), 1, "a session over TLS is kept as any other");
    let lines = hop.lines();
    assert_eq!(
        lines[..4].iter().map(|line| &line[..4]).collect::<Vec<_>>(),
        ["EHLO", "STAR", "EHLO", "MAIL"]
    );
    // Nobody showed who he is: nothing is promised of him.
    let hello = behind.rig.connect().ask("EHLO mx").await.0;
    assert!(!hello.contains("REQUIRETLS"), "{hello}");
}

/// Where nothing is required mail goes on, in the clear; the handshake is not tried with each
/// session anew.
#[tokio::test(start_paused = true)]
async fn opportunistic_tls_gives_way_where_it_does_not_work() {
    let authority = Authority::new();
    for act in [Act::Say("454 4.7.0 not now\r\n".into()), Act::SayAndClose("220 go\r\n".into())] {
        let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &[]);
        hop.at(Stage::Starttls, act.clone());
        let behind = behind(&hop, MX, "").await;
        assert!(behind.letter().await.starts_with("250 "), "{act:?}");
        assert_eq!(behind.channel(), Some(Channel::Clear));
        let is_refusal = matches!(act, Act::Say(_));
        assert_eq!(behind.failed().0, u64::from(!is_refusal));
        let tries = |hop: &Hop| hop.lines().iter().filter(|line| *line == "STARTTLS").count();
        tokio::time::sleep(EHLO_AGE_MAX - std::time::Duration::from_secs(10)).await;
        behind.rig.guard().relay().tidy().await;
        assert!(behind.letter().await.starts_with("250 "));
        assert_eq!(tries(&hop), if is_refusal { 2 } else { 1 }, "{act:?}");
        hop.behaves();
        tokio::time::sleep(TLS_FAILED_FOR).await;
        behind.rig.guard().relay().tidy().await;
        assert!(behind.letter().await.starts_with("250 "));
        assert_eq!(behind.channel(), Some(Channel::Encrypted), "{act:?}");
    }
    let plain = Hop::smtp(USUAL);
    let behind = behind(&plain, MX, "").await;
    assert!(behind.letter().await.starts_with("250 "));
    assert!(!plain.lines().contains(&"STARTTLS".to_owned()));
}

/// What a next hop says in the clear behind its 220 is no reply to what is asked within TLS; nor is
/// it a reason to go on in the clear.
#[tokio::test(start_paused = true)]
async fn replies_in_the_clear_behind_220_end_the_connection() {
    let authority = Authority::new();
    for settings in ["", "[outbound.next_hop_tls]\nmode = \"require\"\nverify = \"none\"\n"] {
        let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &[]);
        hop.at(Stage::Starttls, Act::Chatter("250 2.0.0 injected\r\n"));
        let behind = behind(&hop, MX, settings).await;
        let said = behind.letter().await;
        assert!(said.starts_with("421 4.3.2 ") && said.contains("nobody asked"), "{said}");
        assert!(hop.lines().iter().all(|line| !line.starts_with("MAIL")));
    }
}

#[tokio::test(start_paused = true)]
async fn where_tls_is_required_only_a_certificate_that_is_trusted_gets_mail() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let files = Files::new();
    let ca = format!("ca_file = {:?}", files.write("ca.pem", &authority.pem()));
    let mx = "mx.bank.example";
    for (dates, name, issuer, trust, trusted) in [
        (Dates::Always, mx, &authority, ca.as_str(), true),
        (Dates::Always, "other.example", &authority, &ca, false),
        (Dates::Ended, mx, &authority, &ca, false),
        (Dates::Always, mx, &foreign, &ca, false),
        (Dates::Always, mx, &authority, "verify = \"system\"", false),
        (Dates::Ended, "other.example", &foreign, "verify = \"none\"", true),
        (Dates::Ended, "other.example", &foreign, "fingerprints = [\"$\"]", true),
        (Dates::Always, mx, &authority, "fingerprints = [\"$0\"]", false),
    ] {
        let (hop, issued) = secure_hop(issuer, name, dates, &[]);
        let pins = trust.replace("$0", &"00".repeat(32)).replace('$', &issued.fingerprint);
        let settings = format!("[outbound.next_hop_tls]\nmode = \"require\"\n{pins}\n");
        let behind = behind(&hop, MX, &settings).await;
        let said = behind.letter().await;
        if trusted {
            assert!(said.starts_with("250 "), "{trust}: {said}");
            let verified =
                if trust.contains("none") { Channel::Encrypted } else { Channel::Verified };
            assert_eq!(behind.channel(), Some(verified));
        } else {
            assert!(said.starts_with("421 4.3.2 "), "{name} {trust}: {said}");
            assert!(said.contains("certificate is not trusted"), "{said}");
            assert!(behind.hop.lines().iter().all(|line| !line.starts_with("MAIL")));
            assert!(behind.failed().0 > 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_tls_is_required_a_next_hop_without_it_gets_nothing() {
    let settings = "[outbound.next_hop_tls]\nmode = \"require\"\nverify = \"none\"\n";
    let plain = Hop::smtp(USUAL);
    let behind = behind(&plain, MX, settings).await;
    let said = behind.letter().await;
    assert!(said.starts_with("421 4.3.2 ") && said.contains("no STARTTLS"), "{said}");
    // One that loses it while we know it: the client keeps the message.
    let authority = Authority::new();
    let (hop, _) = secure_hop(&authority, "x.example", Dates::Always, &[]);
    let behind = self::behind(&hop, MX, settings).await;
    let mut client = behind.rig.client().await;
    hop.at(Stage::Starttls, Act::Say("454 4.7.0 no\r\n".to_owned()));
    behind.rig.guard().relay().close().await;
    let said = client.ask("MAIL FROM:<ann@uni.example>").await.0;
    assert!(said.starts_with("451 4.4.1 "), "{said}");
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_is_looked_at_as_starttls_is() {
    let authority = Authority::new();
    let files = Files::new();
    let ca = files.write("ca.pem", &authority.pem());
    for (name, code) in [("mx.bank.example", "250"), ("other.example", "421")] {
        let hop = Hop::smtp(USUAL);
        let issued = authority.issue(&[name], Dates::Always);
        hop.speaks_tls(issued.acceptor(), Begins::AtOnce, &[]);
        // `tls:` is TLS or nothing, whatever the mode says.
        let settings = "[outbound.next_hop_tls]\nmode = \"opportunistic\"\n";
        let own = format!("{{ to = \"tls:{MX}\", ca_file = {ca:?} }}");
        let text = format!("{SITE}[outbound]\nnext_hop = [{own}]\n{settings}");
        let net = Net::of(&[(MX, &hop)]);
        let config = config(&text, Path::new("/s"));
        let rig = Rig::new(&config, ModelDisk::default(), Arc::new(net)).await;
        let behind = Behind { hop, rig };
        let said = behind.letter().await;
        assert!(said.starts_with(code), "{name}: {said}");
        assert!(!behind.hop.lines().contains(&"STARTTLS".to_owned()));
    }
}

/// A name of its own for a next hop that is written by its address.
#[tokio::test(start_paused = true)]
async fn the_name_that_is_written_is_what_counts() {
    let authority = Authority::new();
    let files = Files::new();
    let ca = files.write("ca.pem", &authority.pem());
    for (name, code) in [("mx.bank.example", "250"), ("mx.shop.example", "421")] {
        let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &[]);
        let text = format!(
            "{SITE}[outbound]\nnext_hop = [{{ to = {HOP:?}, name = {name:?} }}]\n\
             [outbound.next_hop_tls]\nmode = \"require\"\nca_file = {ca:?}\n"
        );
        let config = config(&text, Path::new("/s"));
        let net = Net::of(&[(HOP, &hop)]);
        let rig = Rig::new(&config, ModelDisk::default(), Arc::new(net)).await;
        let said = Behind { hop, rig }.letter().await;
        assert!(said.starts_with(code), "{name}: {said}");
    }
}

/// RFC 8689: the promise holds from the client through us to a next hop that showed who it is.
#[tokio::test]
async fn requiretls_goes_all_the_way_or_not_at_all() {
    let authority = Authority::new();
    let files = Files::new();
    let ca = files.write("ca.pem", &authority.pem());
    for (keywords, verify, passes) in [
        (&["REQUIRETLS"][..], format!("ca_file = {ca:?}"), true),
        (&[][..], format!("ca_file = {ca:?}"), false),
        (&["REQUIRETLS"][..], "verify = \"none\"".to_owned(), false),
    ] {
        let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, keywords);
        let settings = format!("[outbound.next_hop_tls]\nmode = \"require\"\n{verify}\n");
        let mut behind = behind(&hop, MX, &settings).await;
        let issued = authority.issue(&[NAME], Dates::Always);
        let tls = ListenerTls::new(&Arc::new(issued.acceptor()), Starttls::Offered);
        behind.rig.front = Arc::new(Front { tls: Some(tls), ..(*behind.rig.front).clone() });
        let mail = "MAIL FROM:<ann@uni.example> REQUIRETLS";
        let mut client = behind.rig.client().await;
        assert!(!client.ask("EHLO mx").await.0.contains("REQUIRETLS"), "in the clear");
        assert!(client.ask(mail).await.0.starts_with("550 5.7.30 "));
        assert_eq!(client.ask("STARTTLS").await.code(), 220);
        let name = ServerName::try_from(NAME).unwrap();
        let stream = authority.connector().connect(name, client.into_stream()).await.unwrap().0;
        let mut client = Client::new(stream);
        assert_eq!(client.ask("EHLO mx").await.0.contains("REQUIRETLS"), passes);
        let said = client.ask(mail).await.0;
        assert_eq!(said.starts_with("250 "), passes, "{said}");
        assert_eq!(hop.lines().contains(&mail.to_owned()), passes);
    }
}

/// Goal: a password goes to whom it is meant for, within TLS, and nowhere else. Method: the next
/// hop's own words, and everything that the guard writes.
#[tokio::test(start_paused = true)]
async fn a_password_is_said_to_the_next_hop_and_to_nobody_else() {
    let authority = Authority::new();
    let files = Files::new();
    let ca = files.write("ca.pem", &authority.pem());
    let secrets = files.write("secrets", &format!("# ours\n{MX} guard sEcret word\n"));
    let settings = format!(
        "auth_file = {secrets:?}\n[outbound.next_hop_tls]\nmode = \"require\"\nca_file = {ca:?}\n"
    );
    for (offered, said) in [
        ("AUTH LOGIN PLAIN", vec!["AUTH PLAIN AGd1YXJkAHNFY3JldCB3b3Jk"]),
        ("AUTH=LOGIN", vec!["AUTH LOGIN", "Z3VhcmQ=", "c0VjcmV0IHdvcmQ="]),
    ] {
        let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &[offered]);
        let behind = behind(&hop, MX, &settings).await;
        assert!(behind.letter().await.starts_with("250 "));
        assert_eq!(hop.lines()[3..3 + said.len()], said);
        let trail = behind.rig.guard().trail();
        trail.flush().await.unwrap();
        let log = String::from_utf8(behind.rig.disk.bytes(trail.path()).unwrap()).unwrap();
        assert!(!log.contains("sEcret") && !log.contains("c0VjcmV0"), "{log}");
    }
    let text = format!("{SITE}[outbound]\nnext_hop = [{MX:?}]\n{settings}\n");
    let config = config(&text, Path::new("/s"));
    let shown = format!("{config:?}{}", replyguard::config::show::in_force(&config));
    assert!(!shown.contains("sEcret") && !shown.contains("guard s"), "{shown}");
}

/// A next hop that refuses the password: the client keeps its mail, and hears nothing of what was
/// said.
#[tokio::test(start_paused = true)]
async fn a_password_that_is_refused_costs_a_temporary_refusal() {
    let authority = Authority::new();
    let files = Files::new();
    let secrets = files.write("secrets", "* guard sEcret\n");
    let settings = format!(
        "auth_file = {secrets:?}\n[outbound.next_hop_tls]\nmode = \"require\"\nverify = \"none\"\n"
    );
    let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &["AUTH PLAIN"]);
    let behind = behind(&hop, MX, &settings).await;
    let mut client = behind.rig.client().await;
    let echo = "535 5.7.8 what is AGd1YXJkAHNFY3JldA==\r\n";
    hop.at(Stage::Auth, Act::Say(echo.to_owned()));
    behind.rig.guard().relay().close().await;
    let said = client.ask("MAIL FROM:<ann@uni.example>").await.0;
    assert!(said.starts_with("451 4.4.1 ") && said.contains("AUTH: it says 535 5.7.8"), "{said}");
    assert!(said.contains("auth_file") && !said.contains("AGd1YXJk"), "{said}");
    assert_eq!(behind.failed().1, 1);
    // Within TLS there is no AUTH at all.
    let (hop, _) = secure_hop(&authority, "mx.bank.example", Dates::Always, &[]);
    let behind = self::behind(&hop, MX, &settings).await;
    let said = behind.letter().await;
    assert!(said.starts_with("421 ") && said.contains("neither AUTH PLAIN"), "{said}");
}

/// The SMTP pass-through, over TCP: TLS with the client, TLS with the MTA behind, and what the client
/// said before it is not taken for what it says after.
#[tokio::test]
async fn the_pass_through_speaks_tls_on_both_sides() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(&[NAME], Dates::Always).files(folder.path());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let mta = Hop::smtp(&["SIZE 1000000", "REQUIRETLS"]);
    mta.speaks_tls(
        authority.issue(&["mta.uni.example"], Dates::Always).acceptor(),
        Begins::Asked,
        &[],
    );
    let at = mta.listen().await;
    let text = format!(
        "{SITE}[outbound]\nlisten = [\"127.0.0.1:0\"]\nnext_hop = [\"127.0.0.1:1\"]\n\
         [tls]\ncertificate_file = \"certificate.pem\"\nkey_file = \"key.pem\"\n\
         [tap.smtp]\nlisten = [\"127.0.0.1:0\", \"tls:127.0.0.1:0\"]\nclient = \"none\"\n\
         next_hop = [{{ to = {at:?}, name = \"mta.uni.example\" }}]\n\
         [tap.smtp.next_hop_tls]\nmode = \"require\"\nca_file = \"ca.pem\"\n\
         [dns]\nservers = [\"127.0.0.1:9\"]\ntimeout = \"100ms\"\n[admin]\nconsole = \"\"\n"
    );
    let server = Server::start(&config(&text, folder.path())).await.unwrap();
    let (places, stopper) = (server.tap_endpoints(), server.stopper());
    let shown: Vec<String> = server.status().listeners.into_iter().map(|at| at.endpoint).collect();
    let secure = format!("tls:{}", places[1]);
    assert!(shown.contains(&places[0].to_string()) && shown.contains(&secure), "{shown:?}");
    let serving = tokio::spawn(server.run());
    for (place, begins) in places.iter().zip([Begins::Asked, Begins::AtOnce]) {
        let connect = async || TcpStream::connect(place.to_string()).await.unwrap();
        let name = || ServerName::try_from(NAME).unwrap();
        let mut stream = connect().await;
        if begins == Begins::Asked {
            let mut client = Client::new(stream);
            assert_eq!(client.reply().await.code(), 220);
            let hello = client.ask("EHLO far.example").await.0;
            assert!(hello.contains("STARTTLS") && !hello.contains("REQUIRETLS"), "{hello}");
            assert_eq!(client.ask("STARTTLS").await.code(), 220);
            stream = client.into_stream();
        }
        let (stream, _) = authority.connector().connect(name(), stream).await.unwrap();
        let mut client = Client::new(stream);
        match begins {
            Begins::Asked => assert_eq!(client.ask("MAIL FROM:<a@far.example>").await.code(), 503),
            Begins::AtOnce => assert_eq!(client.reply().await.code(), 220),
        }
        let hello = client.ask("EHLO far.example").await.0;
        assert!(!hello.contains("STARTTLS") && hello.contains("REQUIRETLS"), "{hello}");
        let said = client.mail("joe@far.example", &["ann@uni.example"], &letter("hi")).await;
        assert_eq!(said.last().unwrap().0, "250 2.0.0 Ok: queued as HOP\r\n");
    }
    assert_eq!(mta.taken().len(), 2);
    assert_eq!(mta.lines().iter().filter(|line| *line == "STARTTLS").count(), 2);
    assert!(mta.taken().iter().all(|seen| seen.message() == letter("hi")));
    // Behind STARTTLS nothing in the clear is passed on.
    let mut client = Client::new(TcpStream::connect(places[0].to_string()).await.unwrap());
    client.reply().await;
    client.ask("EHLO far.example").await;
    client.send("STARTTLS\r\nMAIL FROM:<eve@evil.example>\r\n").await;
    assert!(client.reply().await.0.starts_with("421 4.7.0 "));
    assert_eq!(client.line().await, None);
    assert!(mta.lines().iter().all(|line| !line.contains("evil")));
    stopper.drain();
    serving.await.unwrap();
}

/// Who looks at the status learns of the end of a certificate before it has come.
#[tokio::test]
async fn the_status_says_when_the_certificate_ends() {
    let tls = "[outbound]\nlisten = [\"127.0.0.1:0\"]\nnext_hop = [\"127.0.0.1:1\"]\n[tls]\n\
               certificate_file = \"certificate.pem\"\nkey_file = \"key.pem\"\n\
               [dns]\nservers = [\"127.0.0.1:9\"]\n[admin]\nconsole = \"\"\n";
    for (dates, troubles, notices) in
        [(Dates::Always, 0, 0), (Dates::EndsSoon, 0, 1), (Dates::Ended, 1, 0)]
    {
        let folder = tempfile::tempdir().unwrap();
        Authority::new().issue(&[NAME], dates).files(folder.path());
        let config = config(&format!("{SITE}{tls}"), folder.path());
        let status = Server::start(&config).await.unwrap().status();
        let of = |told: &[String]| told.iter().filter(|told| told.contains("certificate")).count();
        assert_eq!((of(&status.troubles), of(&status.notices)), (troubles, notices), "{status:?}");
    }
}
