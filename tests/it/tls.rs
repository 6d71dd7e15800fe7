//! TLS before and behind the guard: who gets it, who does not, and what nobody gets past it.
//!
//! Goal: what is said in the clear is never taken for what was said in TLS, nor is anybody trusted
//! whom the settings do not. Method: the whole guard over connections in memory, real handshakes on
//! both sides, certificates made here.

use std::path::Path;
use std::sync::Arc;

use replyguard::serve::smtp::Front;
use replyguard::serve::tls::{Begins, Handshakes, ListenerTls};
use replyguard::tls::stream::Stream;
use replyguard::wire::secure::Starttls;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::certificates::{Authority, Dates, Issued};
use crate::disk::ModelDisk;
use crate::hop::{Hop, Net, USUAL};
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
            assert_eq!(
                before.tls.handshakes.injected.load(std::sync::atomic::Ordering::Relaxed),
                1
            );
        } else {
            // Behind the 220 it is no TLS either: the handshake fails.
            assert_eq!(client.ask("STARTTLS").await.code(), 220);
            client.send(injected).await;
            assert_eq!(before.tls.handshakes.made.load(std::sync::atomic::Ordering::Relaxed), 0);
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
    assert_eq!(before.tls.handshakes.failed.load(std::sync::atomic::Ordering::Relaxed), 1);
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
        assert_eq!(before.tls.handshakes.failed.load(std::sync::atomic::Ordering::Relaxed), 1);
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
