//! The SMTP pass-through tap: for MTAs that speak no milter.
//!
//! Sockets and deadlines around `wire::passing`. Takes: one connection of a client, whoever it is.
//! Gives: a connection to the MTA behind, which is told the client's address; messages to the tap.
//! A message waits for its verdict before its final dot, at most `tap.wait`; it is remembered when
//! the MTA has taken it. While the MTA cannot be reached the client gets 421, and keeps its mail.
//! Bounds: `limits::CLIENT_IDLE_DEADLINE`, `limits::FINAL_DEADLINE`, bytes of bodies in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::guard::tap::{Tap, Verifying};
use crate::judge::arrival::Seen;
use crate::judge::subject::TapKind;
use crate::mail::address::ReversePath;
use crate::mail::envelope::xtext_decoded;
use crate::mail::limits::{
    CLIENT_IDLE_DEADLINE, CONNECT_DEADLINE, CONTENT_DEADLINE, FINAL_DEADLINE, GREETING_DEADLINE,
    NETWORK_BUFFER_BYTES,
};
use crate::mail::reply::Reply;
use crate::mail::time::Timestamp;
use crate::relay::connect::{Connect, Sockets};
use crate::relay::hop::Hop;
use crate::serve::gone::Gone;
use crate::serve::room::{Room, Share};
use crate::serve::smtp::Stopping;
use crate::serve::tls::ListenerTls;
use crate::tls::HandshakeFault;
use crate::tls::stream::Stream;
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::opening::{Next, Opening, OpeningFault};
use crate::wire::passing::{Act, Passed, Passing};
use crate::wire::proxy::{Tells, proxy_v1, proxy_v2, xclient};
use crate::wire::secure::{Channel, Starttls, TlsUse};
use crate::wire::smtp_client::{ReplyReader, hello_command};

/// What all connections of a listener share.
#[derive(Clone)]
pub struct Pass {
    /// The inbound path.
    pub tap: Arc<Tap>,
    /// What we call ourselves.
    pub hostname: String,
    /// The MTAs behind, tried in order.
    pub next_hops: Vec<Hop>,
    /// The TLS of this listener; `None` for none.
    pub tls: Option<ListenerTls>,
    /// How they are told who the client is.
    pub tells: Tells,
    /// Bytes of one body that are kept.
    pub inspect_max: usize,
    /// Room for bodies.
    pub room: Arc<Room>,
}

/// A connection to the MTA behind.
type Server = Stream<Box<dyn crate::relay::connect::Stream>>;

/// The MTA behind, when a conversation begins.
struct Opened {
    server: Server,
    /// What it has said: nothing yet, or its greeting.
    input: BytesMut,
    channel: Channel,
}

/// One client and the MTA behind.
struct Ends<S> {
    pass: Arc<Pass>,
    peer: Option<SocketAddr>,
    client: Stream<S>,
    server: Server,
    client_input: BytesMut,
    server_input: BytesMut,
    to_client: BytesMut,
    to_server: BytesMut,
    passing: Passing,
    share: Share,
    began: Option<Timestamp>,
    verifying: Option<Verifying>,
    /// The client says no more. What the server owes it is waited for all the same: who leaves
    /// behind his final dot has sent a message, and it must be remembered.
    has_left: bool,
}

/// Serves a client until one of both ends leaves, or the server stops. `addresses`: the client's,
/// and the one it connected to.
pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    pass: Arc<Pass>,
    client: S,
    addresses: Option<(SocketAddr, SocketAddr)>,
    mut stopping: watch::Receiver<Stopping>,
) {
    let ip = addresses.map(|(peer, _)| peer.ip());
    let begun = ListenerTls::begin(pass.tls.as_ref(), client, ip, &mut stopping);
    let Some((mut client, secured)) = begun.await else { return };
    let Opened { server, input: server_input, channel } = match pass.open(addresses).await {
        Ok(opened) => opened,
        Err(fault) => {
            warn!(%fault, "the SMTP tap reaches no MTA: 421");
            let _ = timeout(CONTENT_DEADLINE, client.write_all(unavailable().wire())).await;
            return;
        }
    };
    let starttls = pass.tls.as_ref().map_or(Starttls::Off, |tls| tls.starttls);
    let client_channel = if secured.is_some() { Channel::Encrypted } else { Channel::Clear };
    let passing = Passing::new(pass.inspect_max).over(starttls, client_channel, channel);
    let share = pass.room.share();
    let mut ends = Ends {
        pass,
        peer: addresses.map(|(peer, _)| peer),
        client,
        server,
        client_input: BytesMut::new(),
        server_input,
        to_client: BytesMut::new(),
        to_server: BytesMut::new(),
        passing,
        share,
        began: None,
        verifying: None,
        has_left: false,
    };
    if let Err(gone) = ends.run(&mut stopping).await {
        debug!(%gone, "a conversation through the SMTP tap ended");
    }
    let _ = timeout(CONTENT_DEADLINE, ends.client.shutdown()).await;
}

fn unavailable() -> Reply {
    Reply::new(421, "4.3.2", "the mail server is not available, come back later")
}

impl Pass {
    /// A connection to the first MTA that takes one, with what it said already.
    async fn open(&self, addresses: Option<(SocketAddr, SocketAddr)>) -> Result<Opened, String> {
        let mut last = "no `tap.smtp.next_hop`".to_owned();
        for hop in &self.next_hops {
            let mut opened = self.open_one(hop, hop.tls_use(), addresses).await;
            if let Err(Unopened::Tls(fault)) = &opened
                && hop.tls_use() == TlsUse::Opportunistic
            {
                warn!(hop = %hop.at, %fault, "no TLS with the MTA behind the SMTP tap: in the clear");
                opened = self.open_one(hop, TlsUse::Off, addresses).await;
            }
            match opened {
                Ok(opened) => return Ok(opened),
                Err(fault) => last = format!("{}: {fault}", hop.at),
            }
        }
        Err(last)
    }

    async fn open_one(
        &self,
        hop: &Hop,
        tls: TlsUse,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Opened, Unopened> {
        let opening = async {
            let stream = timeout(CONNECT_DEADLINE, Sockets.connect(&hop.at.endpoint)).await;
            let mut stream = stream.map_err(|_| Gone::Deadline)??;
            match self.tells {
                Tells::ProxyV1 => stream.write_all(proxy_v1(addresses).as_bytes()).await?,
                Tells::ProxyV2 => stream.write_all(&proxy_v2(addresses)).await?,
                Tells::Xclient | Tells::Nothing => {}
            }
            let (server, input) = (Stream::Clear(stream), BytesMut::new());
            let mut opened = Opened { server, input, channel: Channel::Clear };
            if hop.at.tls {
                opened.secure(hop).await?;
            } else if tls != TlsUse::Off {
                opened.ask_for_tls(hop, &self.hostname, tls).await?;
            }
            if let (Tells::Xclient, Some((client, _))) = (self.tells, addresses) {
                opened.introduce(client, &self.hostname).await?;
            }
            Ok(opened)
        };
        timeout(GREETING_DEADLINE, opening).await.unwrap_or(Err(Unopened::Gone(Gone::Deadline)))
    }
}

/// Why there is no conversation with an MTA.
#[derive(Debug, thiserror::Error)]
enum Unopened {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Tls(#[from] HandshakeFault),
    #[error(transparent)]
    Opening(#[from] OpeningFault),
}

impl From<std::io::Error> for Unopened {
    fn from(fault: std::io::Error) -> Unopened {
        Unopened::Gone(Gone::Io(fault))
    }
}

impl Opened {
    /// The handshake. What the MTA said in the clear behind its 220 is not read (RFC 3207 §6).
    async fn secure(&mut self, hop: &Hop) -> Result<(), Unopened> {
        if !self.input.is_empty() {
            return Err(other("it says something in the clear behind STARTTLS").into());
        }
        let (Some(tls), Some(clear)) = (&hop.tls, self.server.take_clear()) else {
            return Err(Gone::Closed.into());
        };
        (self.server, _) = Box::pin(tls.secure(clear)).await?;
        self.channel = tls.channel();
        Ok(())
    }

    /// STARTTLS, where it is offered. The greeting, which it took, is put back for the client.
    async fn ask_for_tls(
        &mut self,
        hop: &Hop,
        hostname: &str,
        tls: TlsUse,
    ) -> Result<(), Unopened> {
        let wish = hop.wish(hostname, tls);
        let mut opening = Opening::new(&wish, self.channel);
        let greeting = any(&mut self.server, &mut self.input).await?;
        let mut next = opening.heard(greeting.clone())?;
        while let Next::Say(line, _) = next {
            self.server.write_all(line.as_bytes()).await?;
            self.server.flush().await?;
            next = opening.heard(any(&mut self.server, &mut self.input).await?)?;
        }
        if let Next::Secure = next {
            self.secure(hop).await?;
        }
        self.put_back(&greeting);
        Ok(())
    }

    /// XCLIENT: the MTA greets anew, and the first greeting is ours.
    async fn introduce(&mut self, client: SocketAddr, hostname: &str) -> Result<(), Unopened> {
        positive(&mut self.server, &mut self.input).await?;
        let hello = hello_command(Protocol::Smtp, hostname);
        self.server.write_all(hello.as_bytes()).await?;
        self.server.flush().await?;
        let hello = positive(&mut self.server, &mut self.input).await?;
        let keywords = Keywords::from_reply(&hello);
        let line = xclient(client, keywords.value("XCLIENT").unwrap_or_default());
        let line = line.ok_or_else(|| other("it does not take XCLIENT from us"))?;
        self.server.write_all(line.as_bytes()).await?;
        self.server.flush().await?;
        let greeting = positive(&mut self.server, &mut self.input).await?;
        self.put_back(&greeting);
        Ok(())
    }

    fn put_back(&mut self, reply: &Reply) {
        let rest = self.input.split();
        self.input.extend_from_slice(reply.wire());
        self.input.extend_from_slice(&rest);
    }
}

fn other(text: &str) -> Gone {
    Gone::Io(std::io::Error::other(text.to_owned()))
}

/// The next reply, which must be positive.
async fn positive(stream: &mut Server, input: &mut BytesMut) -> Result<Reply, Gone> {
    match any(stream, input).await? {
        reply if reply.is_positive() => Ok(reply),
        reply => Err(other(&reply.text())),
    }
}

/// The next reply.
async fn any(stream: &mut Server, input: &mut BytesMut) -> Result<Reply, Gone> {
    let mut replies = ReplyReader::default();
    loop {
        match replies.next(input) {
            Some(Ok(reply)) => return Ok(reply),
            Some(Err(fault)) => return Err(other(&fault.to_string())),
            None => {}
        }
        if stream.read_buf(input).await? == 0 {
            return Err(Gone::Closed);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Ends<S> {
    async fn run(&mut self, stopping: &mut watch::Receiver<Stopping>) -> Result<(), Gone> {
        let mut now = stopping.clone();
        loop {
            if self.pass_on(stopping).await? {
                return self.flush().await;
            }
            if !self.share.fits(self.passing.kept_bytes()) {
                self.passing.give_up_body();
                self.share.fits(self.passing.kept_bytes());
            }
            self.flush().await?;
            if self.has_left && !self.passing.is_owed() {
                return Err(Gone::Closed);
            }
            self.client_input.reserve(NETWORK_BUFFER_BYTES);
            self.server_input.reserve(1024);
            let listens = self.passing.wants_client() && !self.has_left;
            let busy = self.passing.is_busy();
            let deadline = if listens { CLIENT_IDLE_DEADLINE } else { FINAL_DEADLINE };
            let read = tokio::select! {
                biased;
                _ = stopping.wait_for(|stage| *stage != Stopping::No), if !busy => None,
                _ = now.wait_for(|stage| *stage == Stopping::Now) => None,
                read = self.server.read_buf(&mut self.server_input) => {
                    Some(read).filter(|read| !matches!(read, Ok(0)))
                }
                read = self.client.read_buf(&mut self.client_input), if listens => match read {
                    Ok(0) | Err(_) => {
                        self.has_left = true;
                        continue;
                    }
                    read => Some(read),
                },
                () = tokio::time::sleep(deadline) => None,
            };
            match read {
                Some(read) => read?,
                // The server stops, the MTA left, or somebody is silent for too long.
                None => return self.say_unavailable().await,
            };
        }
    }

    /// Does all that comes of the bytes that are there; whether the conversation is over.
    async fn pass_on(&mut self, stopping: &mut watch::Receiver<Stopping>) -> Result<bool, Gone> {
        loop {
            let act = self.passing.from_client(&mut self.client_input);
            let act = act.or_else(|| self.passing.from_server(&mut self.server_input));
            match act {
                None => return Ok(false),
                Some(Act::ToClient(bytes)) => self.to_client.extend_from_slice(&bytes),
                Some(Act::ToServer(bytes)) => {
                    if self.began.is_none() {
                        self.began = Some(self.pass.tap.now());
                    }
                    self.to_server.extend_from_slice(&bytes);
                }
                // Why boxed: idle connections should not each keep room for a message.
                Some(Act::Whole(passed)) => Box::pin(self.whole(*passed)).await?,
                Some(Act::Taken(queue_id)) => {
                    if let Some(mut verifying) = self.verifying.take() {
                        verifying.queued(queue_id);
                        let tap = Arc::clone(&self.pass.tap);
                        let until = Instant::now() + tap.settings().wait / 4;
                        Box::pin(tap.accepted(verifying, until)).await;
                    }
                    self.began = None;
                }
                Some(Act::Refused) => (self.verifying, self.began) = (None, None),
                Some(Act::StartTls(reply)) => Box::pin(self.start_tls(&reply, stopping)).await?,
                Some(Act::Close) => return Ok(true),
            }
        }
    }

    /// Says 220 and makes the handshake. Where something came behind the command the session ends.
    async fn start_tls(
        &mut self,
        reply: &[u8],
        stopping: &mut watch::Receiver<Stopping>,
    ) -> Result<(), Gone> {
        let Some(tls) = self.pass.tls.clone() else { return Err(Gone::Closed) };
        let ip = self.peer.map(|peer| peer.ip());
        if let Err(gone) = tls.nothing_behind(&self.client_input, ip) {
            let reply = Reply::new(421, "4.7.0", &gone.to_string());
            self.to_client.extend_from_slice(reply.wire());
            self.flush().await?;
            return Err(gone);
        }
        self.to_client.extend_from_slice(reply);
        self.flush().await?;
        tls.start(&mut self.client, ip, stopping).await?;
        self.passing.secured();
        Ok(())
    }

    /// The message is there but for its final dot: the verdict first.
    async fn whole(&mut self, passed: Passed) -> Result<(), Gone> {
        self.flush().await?;
        let tap = Arc::clone(&self.pass.tap);
        let arrived = tap.now();
        let mail = passed.mail.as_ref();
        let seen = Seen {
            id: tap.new_id(),
            tap: TapKind::Smtp,
            host: self.passing.host().to_owned(),
            queue_id: None,
            began: self.began.unwrap_or(arrived),
            arrived,
            client: self.peer.map(|peer| peer.ip().to_canonical()),
            helo: passed.helo,
            authenticated: None,
            mail_from: mail.map_or(ReversePath::Null, |mail| mail.path.clone()),
            envelope_id: mail.and_then(|mail| mail.parameters.envid()).map(xtext_decoded),
            recipients: passed.recipients,
            message: self.share.hand_on(passed.message),
            spam_field: tap.settings().spam_field.clone(),
        };
        let mut verifying = tap.begin(seen, passed.kept);
        Box::pin(verifying.wait(tap.patience())).await;
        self.verifying = Some(verifying);
        let dot = self.passing.release();
        self.to_server.extend_from_slice(&dot);
        Ok(())
    }

    async fn say_unavailable(&mut self) -> Result<(), Gone> {
        self.to_client.extend_from_slice(unavailable().wire());
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let (client, server) = (&mut self.client, &mut self.server);
        let sending = async {
            if !self.to_server.is_empty() {
                server.write_all(&self.to_server).await?;
                server.flush().await?;
            }
            std::io::Result::Ok(())
        };
        timeout(CONTENT_DEADLINE, sending).await.map_err(|_| Gone::Deadline)??;
        let saying = async {
            if !self.to_client.is_empty() {
                client.write_all(&self.to_client).await?;
                client.flush().await?;
            }
            std::io::Result::Ok(())
        };
        let said = timeout(CONTENT_DEADLINE, saying).await;
        self.has_left |= !matches!(said, Ok(Ok(())));
        self.to_server.clear();
        self.to_client.clear();
        Ok(())
    }
}
