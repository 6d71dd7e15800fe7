//! The guard put together for tests: the real front, path, relay, log and quarantine over
//! connections and a disk in memory, with answers of DNS that a test thinks up; and a client.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use replyguard::audit::Trail;
use replyguard::audit::disk::Disk;
use replyguard::audit::held::HeldId;
use replyguard::audit::quarantine::Quarantine;
use replyguard::auth::dkim::{DkimReport, Prepared};
use replyguard::auth::spf::SpfOutcome;
use replyguard::config::{Config, World};
use replyguard::guard::Guard;
use replyguard::guard::clock::Clock;
use replyguard::guard::evidence::{Asking, Facts};
use replyguard::guard::inquiry::{InForce, Inquiry};
use replyguard::guard::loops::LoopMemory;
use replyguard::judge::evidence::{
    Alignment, AuthResult, DmarcFacts, DmarcPolicy, DmarcRecord, DomainFacts, Gap, GapCause,
    Receives, SpfScope,
};
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::trace::TraceKey;
use replyguard::mail::address::{Address, Domain, ReversePath};
use replyguard::mail::author::Author;
use replyguard::mail::time::Timestamp;
use replyguard::relay::Relay;
use replyguard::relay::connect::Connect;
use replyguard::serve::smtp::{BareLineEnd, Conversation, Front, Stopping};
use replyguard::store::Store;
use replyguard::store::answers::Answers;
use replyguard::store::null::Null;
use replyguard::wire::endpoint::Protocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::disk::ModelDisk;

/// When the tests play.
pub const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

/// The site of the tests; a test puts more behind it.
pub const SITE: &str = r#"
mode = "enforce"
hostname = "guard.uni.example"
[local]
domains = ["uni.example"]
hosts = ["mx.uni.example"]
authserv_ids = ["mx.uni.example"]
authserv_stripped = true
"#;

/// Reads a configuration; faults fail the test.
pub fn config(text: &str, state_dir: &Path) -> Config {
    let world = World {
        hostname: "guard.uni.example".to_owned(),
        state_dir: state_dir.to_owned(),
        now: NOW,
    };
    Config::read("test", text, state_dir, &world).unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}", faults.join("\n"))
    })
}

/// DNS as the tests think it up: `bank.example` publishes p=reject, `dead.example` gives no answer,
/// `null.example` has a null MX, everything else exists and publishes nothing.
pub struct ThoughtUp;

impl Facts for ThoughtUp {
    fn ask<'a>(&'a self, domain: &'a Domain) -> Asking<'a, DomainFacts> {
        let name = domain.as_str();
        let record = (name == "bank.example").then(|| DmarcRecord {
            published_at: domain.clone(),
            policy: DmarcPolicy::Reject,
            dkim_alignment: Alignment::Relaxed,
            spf_alignment: Alignment::Relaxed,
        });
        let gap = || Gap::new(GapCause::Dns, "no answer");
        let dmarc = DmarcFacts { organizational: domain.clone(), record, above: None };
        let receives = match name {
            "null.example" => Receives::NullMx,
            _ => Receives::Yes,
        };
        let facts = match name {
            "dead.example" => DomainFacts { dmarc: Err(gap()), receives: Err(gap()) },
            _ => DomainFacts { dmarc: Ok(dmarc), receives: Ok(receives) },
        };
        Box::pin(async move { facts })
    }

    fn spf<'a>(&'a self, _: IpAddr, _: &'a str, path: &'a ReversePath) -> Asking<'a, SpfOutcome> {
        let outcome = SpfOutcome {
            result: AuthResult::None,
            scope: SpfScope::MailFrom,
            domain: path
                .address()
                .and_then(Address::domain)
                .map(ToString::to_string)
                .unwrap_or_default(),
            matched: None,
            reason: None,
            is_guessed: false,
        };
        Box::pin(async move { outcome })
    }

    fn dkim(&self, _: Prepared) -> Asking<'_, DkimReport> {
        let author = Author { mailboxes: Vec::new(), sign: None };
        let report = DkimReport { signatures: Vec::new(), signatures_left_out: 0, author };
        Box::pin(async move { report })
    }
}

/// The guard with a front before it.
pub struct Rig {
    /// The front.
    pub front: Arc<Front>,
    /// Its disk.
    pub disk: ModelDisk,
    stopping: watch::Sender<Stopping>,
}

impl Rig {
    /// Puts it together. To be called when the clock is paused, if it is to be.
    pub async fn new(config: &Config, disk: ModelDisk, connect: Arc<dyn Connect>) -> Rig {
        Rig::at(NOW, config, disk, connect).await
    }

    /// The same, at another time.
    pub async fn at(
        now: Timestamp,
        config: &Config,
        disk: ModelDisk,
        connect: Arc<dyn Connect>,
    ) -> Rig {
        Rig::over(now, config, disk, connect, None).await
    }

    /// The same with a tap, and what it remembers.
    pub async fn over(
        now: Timestamp,
        config: &Config,
        disk: ModelDisk,
        connect: Arc<dyn Connect>,
        tapped: Option<Arc<dyn Store>>,
    ) -> Rig {
        let layer: Arc<dyn Disk> = Arc::new(disk.clone());
        let trail = Trail::open(Arc::clone(&layer), config.audit.clone()).await.unwrap();
        let (quarantine, _) = Quarantine::open(layer, config.quarantine.clone()).await.unwrap();
        let inquiry = Inquiry {
            facts: Arc::new(ThoughtUp),
            is_tapped: tapped.is_some(),
            store: tapped.unwrap_or_else(|| Arc::new(Null)),
            answers: Answers::new([1; 32]),
            loops: LoopMemory::new(
                FingerprintKey::new([3; 32]),
                &config.loop_site,
                &config.loops,
                &config.policy.loops.conversation,
                Vec::new(),
            ),
            clock: Clock::From(now, Instant::now()),
            loop_site: config.loop_site.clone(),
            trace_key: TraceKey::new([2; 32]),
            fingerprint_key: FingerprintKey::new([3; 32]),
            policy: ArcSwap::from_pointee(InForce::new(config.policy.clone())),
        };
        let relay = Relay::with(config.relay.clone(), connect);
        let guard =
            Arc::new(Guard::new(Arc::new(inquiry), relay, trail, quarantine, &config.hostname));
        let kib = usize::try_from(config.outbound.memory_max / 1024).unwrap();
        let front = Arc::new(Front {
            listener: 0,
            protocol: config.outbound.protocol,
            hostname: config.hostname.clone(),
            inspect_max: config.outbound.inspect_max,
            bare_line_end: match config.outbound.refuse_bare_line_ends {
                true => BareLineEnd::Refuse,
                false => BareLineEnd::Pass,
            },
            guard,
            budget_kib: Arc::new(Semaphore::new(kib)),
            tls: None,
        });
        Rig { front, disk, stopping: watch::Sender::new(Stopping::No) }
    }

    /// The guard.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.front.guard
    }

    /// A client that has connected and heard nothing yet.
    pub fn connect(&self) -> Client<DuplexStream> {
        self.connect_through(64 * 1024)
    }

    /// The same through a connection that takes so many bytes ahead.
    pub fn connect_through(&self, bytes: usize) -> Client<DuplexStream> {
        let (ours, theirs) = duplex(bytes);
        let ip = Some("127.0.0.1".parse().unwrap());
        let serving =
            Conversation::serve(Arc::clone(&self.front), theirs, ip, self.stopping.subscribe());
        tokio::spawn(serving);
        Client::new(ours)
    }

    /// A client that was greeted.
    pub async fn client(&self) -> Client<DuplexStream> {
        let mut client = self.connect();
        assert_eq!(client.reply().await.code(), 220);
        let hello = match self.front.protocol {
            Protocol::Smtp => "EHLO mx.uni.example",
            Protocol::Lmtp => "LHLO mx.uni.example",
        };
        assert_eq!(client.ask(hello).await.code(), 250);
        client
    }

    /// How far the stop of the server has come.
    pub fn stop(&self, stage: Stopping) {
        self.stopping.send_replace(stage);
    }

    /// For conversations that a test serves itself.
    pub fn stopping(&self) -> watch::Receiver<Stopping> {
        self.stopping.subscribe()
    }

    /// The bytes of everything that is held.
    pub async fn held(&self) -> Vec<(HeldId, Vec<u8>)> {
        held(self.guard().quarantine()).await
    }
}

/// The bytes of everything that is held, oldest first.
pub async fn held(quarantine: &Quarantine) -> Vec<(HeldId, Vec<u8>)> {
    let mut found = Vec::new();
    for listed in quarantine.list(None, usize::MAX).await.unwrap() {
        let mut opened = quarantine.read(listed.id).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = opened.next().await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        found.push((listed.id, bytes));
    }
    found
}

/// A reply, all its lines; empty when the connection was closed instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(pub String);

impl Said {
    /// Three digits; 0 when the connection was closed.
    pub fn code(&self) -> u16 {
        self.0.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// A client over any stream.
pub struct Client<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Over this stream.
    pub fn new(stream: S) -> Client<S> {
        Client { stream, input: Vec::new() }
    }

    /// What it speaks over; what was read and not looked at is lost.
    pub fn into_stream(self) -> S {
        assert!(self.input.is_empty(), "unread: {:?}", String::from_utf8_lossy(&self.input));
        self.stream
    }

    /// Sends bytes; a server that is gone is no matter.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Says that nothing more will be sent.
    pub async fn leave(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends a line and waits for its reply.
    pub async fn ask(&mut self, line: &str) -> Said {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Said {
        let mut said = String::new();
        loop {
            let Some(line) = self.line().await else { return Said(said) };
            let last = line.as_bytes().get(3) != Some(&b'-');
            said.push_str(&line);
            if last {
                return Said(said);
            }
        }
    }

    /// The next so many replies.
    pub async fn replies(&mut self, count: usize) -> Vec<u16> {
        let mut codes = Vec::new();
        for _ in 0..count {
            codes.push(self.reply().await.code());
        }
        codes
    }

    /// The next line with its line end; `None` at the end of the connection.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.input.iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(at + 1);
                let line = std::mem::replace(&mut self.input, rest);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// One whole transaction, pipelined up to DATA: the replies to MAIL, each RCPT, DATA, and
    /// those to the message.
    pub async fn mail(&mut self, from: &str, to: &[&str], message: &[u8]) -> Vec<Said> {
        let mut commands = format!("MAIL FROM:<{from}>\r\n");
        to.iter().for_each(|to| commands.push_str(&format!("RCPT TO:<{to}>\r\n")));
        commands.push_str("DATA\r\n");
        self.send(commands).await;
        let mut said = Vec::new();
        for _ in 0..to.len() + 2 {
            said.push(self.reply().await);
        }
        if said.last().is_some_and(|said| said.code() == 354) {
            self.send([message, b".\r\n"].concat()).await;
            said.push(self.reply().await);
        }
        said
    }
}

/// A person's letter, with this behind it.
pub fn letter(text: &str) -> Vec<u8> {
    format!(
        "From: Ann <ann@uni.example>\r\nTo: Joe <joe@bank.example>\r\nSubject: {text}\r\n\
         Message-ID: <{}@uni.example>\r\n\r\nDear Joe,\r\n\r\n{text}\r\n",
        text.replace(' ', ".")
    )
    .into_bytes()
}
