//! One session with one next hop: the socket, its TLS, its buffers, what it offered.
//!
//! Takes: commands, content. Gives: replies, byte-exact. Errors: `HopFault`, all temporary: the
//! client keeps the message. Bounds: a deadline for every step (`limits`), RFC 5321 §4.5.3.2.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::mail::envelope::Secured;
use crate::mail::limits::{
    CONNECT_DEADLINE, CONTENT_DEADLINE, GREETING_DEADLINE, NETWORK_BUFFER_BYTES, QUIT_DEADLINE,
};
use crate::mail::reply::Reply;
use crate::relay::connect::{Connect, Stream};
use crate::relay::hop::Hop;
use crate::tls::HandshakeFault;
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::opening::{Next, Opening, OpeningFault, Wish};
use crate::wire::secure::{Channel, TlsUse};
use crate::wire::smtp_client::{ReplyFault, ReplyReader};

/// What went wrong with a next hop; always temporary, and for the operator to look at.
#[derive(Debug, thiserror::Error)]
pub enum HopFault {
    /// It cannot be reached.
    #[error("{stage}: {source}")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// It did not answer in time.
    #[error("{stage}: no answer within {} s", .after.as_secs())]
    Deadline {
        /// What was being done.
        stage: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It closed the connection.
    #[error("{stage}: it closed the connection")]
    Closed {
        /// What was being done.
        stage: &'static str,
    },
    /// What it says is no SMTP.
    #[error("{stage}: {fault}")]
    Syntax {
        /// What was being done.
        stage: &'static str,
        /// What is wrong with it.
        fault: ReplyFault,
    },
    /// It offers less than the transaction needs.
    #[error("it offers less than it did")]
    OffersLess,
    /// It says something that nobody asked: whatever it says next may answer something else.
    #[error("{stage}: it says what nobody asked")]
    OutOfStep {
        /// What was being done.
        stage: &'static str,
    },
    /// It answered, and does not want to talk.
    #[error("{stage}: it says {} {}", .reply.code(), .reply.text())]
    Unwilling {
        /// What was being done.
        stage: &'static str,
        /// Its words.
        reply: Reply,
    },
    /// There is no TLS with it.
    #[error(transparent)]
    Tls(#[from] HandshakeFault),
    /// It lacks what the settings ask for: TLS, or AUTH with our name.
    #[error(transparent)]
    Opening(OpeningFault),
}

impl From<OpeningFault> for HopFault {
    fn from(fault: OpeningFault) -> HopFault {
        match fault {
            OpeningFault::Unwilling { stage, reply } => HopFault::Unwilling { stage, reply },
            fault => HopFault::Opening(fault),
        }
    }
}

/// An open session with a next hop, after EHLO, and after TLS and AUTH where they are wanted.
pub struct Session {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: Vec<u8>,
    replies: ReplyReader,
    keywords: Keywords,
    protocol: Protocol,
    channel: Channel,
    tls: Option<Box<Secured>>,
    /// Why it is in the clear where TLS would have been tried.
    pub tls_failed: Option<Box<HandshakeFault>>,
    /// Which of the configured next hops this is.
    pub hop: usize,
    /// Messages delivered through it.
    pub delivered: u32,
    /// Errors of transactions without a delivery since the last one.
    pub barren: u32,
    /// Whether a RSET is due before the next MAIL.
    pub needs_reset: bool,
    /// Whether it served before: the next hop may have closed it meanwhile.
    pub is_kept: bool,
    /// When it was last used.
    pub used: Instant,
    /// Its place among all connections, until it is closed.
    place: Option<OwnedSemaphorePermit>,
}

impl Session {
    /// Connects, reads the greeting, says EHLO (for LMTP: LHLO), STARTTLS and AUTH as wanted.
    ///
    /// Where TLS is opportunistic and its handshake fails, once more in the clear (RFC 7435 §3);
    /// `tls_failed` says so.
    pub async fn open(
        connect: &dyn Connect,
        next_hop: &Hop,
        hop: usize,
        hostname: &str,
        tls: TlsUse,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Session, HopFault> {
        let mut session = Session {
            stream: Box::new(tokio::io::empty()),
            input: BytesMut::new(),
            output: Vec::new(),
            replies: ReplyReader::default(),
            keywords: Keywords::default(),
            protocol: next_hop.at.protocol(),
            channel: Channel::Clear,
            tls: None,
            tls_failed: None,
            hop,
            delivered: 0,
            barren: 0,
            needs_reset: false,
            is_kept: false,
            used: Instant::now(),
            place,
        };
        match session.begin(connect, next_hop, &next_hop.wish(hostname, tls)).await {
            Err(HopFault::Tls(fault)) if tls == TlsUse::Opportunistic => {
                session.tls_failed = Some(Box::new(fault));
                session.input.clear();
                session.replies = ReplyReader::default();
                session.begin(connect, next_hop, &next_hop.wish(hostname, TlsUse::Off)).await?;
            }
            begun => begun?,
        }
        Ok(session)
    }

    async fn begin(
        &mut self,
        connect: &dyn Connect,
        next_hop: &Hop,
        wish: &Wish,
    ) -> Result<(), HopFault> {
        self.stream = connected(connect, next_hop).await?;
        if next_hop.at.tls {
            self.secure(next_hop).await?;
        }
        let mut opening = Opening::new(wish, self.channel);
        loop {
            let reply = self.reply(opening.stage(), GREETING_DEADLINE).await?;
            let mut next = opening.heard(reply)?;
            if let Next::Secure = next {
                self.secure(next_hop).await?;
                next = opening.secured(self.channel);
            }
            match next {
                Next::Say(line, stage) => {
                    self.queue(&line);
                    self.flush(stage).await?;
                }
                Next::Ready(keywords) => {
                    self.keywords = keywords;
                    return Ok(());
                }
                Next::Secure => return Err(HopFault::OutOfStep { stage: "STARTTLS" }),
            }
        }
    }

    /// The handshake. What it said in the clear behind its 220 is not read: somebody on the way may
    /// have put it there (RFC 3207 §6).
    async fn secure(&mut self, next_hop: &Hop) -> Result<(), HopFault> {
        if !self.input.is_empty() {
            return Err(HopFault::OutOfStep { stage: "STARTTLS" });
        }
        let Some(tls) = &next_hop.tls else { return Err(HopFault::Closed { stage: "TLS" }) };
        let clear = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        // Why boxed: what a handshake needs is not kept room for while a session waits.
        let (stream, secured) = Box::pin(tls.secure(clear)).await?;
        debug!(hop = %next_hop.at, version = secured.version, cipher = secured.cipher, "TLS");
        self.stream = Box::new(stream);
        self.channel = tls.channel();
        self.tls = Some(Box::new(secured));
        Ok(())
    }

    /// Whether others can listen in.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// The TLS that is spoken; `None` in the clear.
    pub fn tls(&self) -> Option<&Secured> {
        self.tls.as_deref()
    }

    /// What it offered.
    pub fn keywords(&self) -> &Keywords {
        &self.keywords
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Adds a command line, with its CRLF, to what the next `flush` sends.
    pub fn queue(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
    }

    /// The bytes that the next `flush` sends, to append content to.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what was queued.
    pub async fn flush(&mut self, stage: &'static str) -> Result<(), HopFault> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sending = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let sent = sent_within(timeout(CONTENT_DEADLINE, sending).await, stage);
        self.output.clear();
        self.output.shrink_to(NETWORK_BUFFER_BYTES * 2);
        sent
    }

    /// Sends these bytes, and what was queued before them.
    pub async fn send(&mut self, bytes: &[u8], stage: &'static str) -> Result<(), HopFault> {
        let (mut queued, mut rest) = (self.output.as_slice(), bytes);
        let sending = async {
            while !(queued.is_empty() && rest.is_empty()) {
                let both = [IoSlice::new(queued), IoSlice::new(rest)];
                let sent = match self.stream.write_vectored(&both).await? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    sent => sent,
                };
                let of_queued = sent.min(queued.len());
                queued = queued.get(of_queued..).unwrap_or_default();
                rest = rest.get(sent - of_queued..).unwrap_or_default();
            }
            self.stream.flush().await
        };
        let sent = timeout(CONTENT_DEADLINE, sending).await;
        self.output.clear();
        sent_within(sent, stage)
    }

    /// Whether the next hop has said nothing but the replies that were read, as far as is known
    /// here; if it has closed the connection, that is something too.
    pub async fn is_quiet(&mut self) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        tokio::select! {
            biased;
            _ = self.stream.read_buf(&mut self.input) => false,
            () = std::future::ready(()) => true,
        }
    }

    /// Sends what was queued, unless the next hop has said something unasked.
    pub async fn flush_in_step(&mut self, stage: &'static str) -> Result<(), HopFault> {
        match self.is_quiet().await {
            true => self.flush(stage).await,
            false => Err(self.out_of_step(stage)),
        }
    }

    /// What it did when it was not quiet.
    pub fn out_of_step(&mut self, stage: &'static str) -> HopFault {
        match self.replies.next(&mut self.input) {
            Some(Ok(reply)) => HopFault::Unwilling { stage, reply },
            Some(Err(fault)) => HopFault::Syntax { stage, fault },
            None if self.input.is_empty() => HopFault::Closed { stage },
            None => HopFault::OutOfStep { stage },
        }
    }

    /// The next reply, within `after`.
    pub async fn reply(&mut self, stage: &'static str, after: Duration) -> Result<Reply, HopFault> {
        match timeout(after, self.read_reply(stage)).await {
            Ok(reply) => reply,
            Err(_) => Err(HopFault::Deadline { stage, after }),
        }
    }

    async fn read_reply(&mut self, stage: &'static str) -> Result<Reply, HopFault> {
        loop {
            if let Some(reply) = self.replies.next(&mut self.input) {
                return reply.map_err(|fault| HopFault::Syntax { stage, fault });
            }
            self.input.reserve(1024);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(HopFault::Closed { stage }),
                Ok(_) => {}
                Err(source) => return Err(HopFault::Io { stage, source }),
            }
        }
    }

    /// Closes the connection and gives its place free; nothing can be said any more.
    pub fn close(&mut self) {
        self.stream = Box::new(tokio::io::empty());
        self.place = None;
    }

    /// Says QUIT and closes; a next hop that does not listen is left alone.
    pub async fn quit(mut self) {
        self.queue("QUIT\r\n");
        let quitting = async {
            if self.flush("QUIT").await.is_ok() {
                let _ = self.read_reply("QUIT").await;
                let _ = self.stream.shutdown().await;
            }
        };
        let _ = timeout(QUIT_DEADLINE, quitting).await;
    }
}

/// What came of sending within `limits::CONTENT_DEADLINE`.
fn sent_within(
    sent: Result<std::io::Result<()>, Elapsed>,
    stage: &'static str,
) -> Result<(), HopFault> {
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(HopFault::Io { stage, source }),
        Err(_) => Err(HopFault::Deadline { stage, after: CONTENT_DEADLINE }),
    }
}

async fn connected(connect: &dyn Connect, next_hop: &Hop) -> Result<Box<dyn Stream>, HopFault> {
    match timeout(CONNECT_DEADLINE, connect.connect(&next_hop.at.endpoint)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(HopFault::Io { stage: "connecting", source }),
        Err(_) => {
            let after = CONNECT_DEADLINE;
            Err(HopFault::Deadline { stage: "connecting", after })
        }
    }
}
