//! One session with one next hop: the socket, its buffers, what it offered.
//!
//! Takes: commands, content. Gives: replies, byte-exact. Errors: `HopFault`, all temporary: the
//! client keeps the message. Bounds: a deadline for every step (`limits`), RFC 5321 §4.5.3.2.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::mail::limits::{
    CONNECT_DEADLINE, CONTENT_DEADLINE, GREETING_DEADLINE, NETWORK_BUFFER_BYTES, QUIT_DEADLINE,
};
use crate::mail::reply::Reply;
use crate::relay::connect::{Connect, Stream};
use crate::wire::endpoint::{NextHop, Protocol};
use crate::wire::keywords::Keywords;
use crate::wire::smtp_client::{ReplyFault, ReplyReader, hello_command};

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
}

/// An open session with a next hop, after EHLO.
pub struct Session {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: Vec<u8>,
    replies: ReplyReader,
    keywords: Keywords,
    protocol: Protocol,
    /// Which of the configured next hops this is.
    pub hop: usize,
    /// Messages delivered through it.
    pub delivered: u32,
    /// Transactions without a delivery since the last one.
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
    /// Connects, reads the greeting, says EHLO (for LMTP: LHLO).
    pub async fn open(
        connect: &dyn Connect,
        next_hop: &NextHop,
        hop: usize,
        hostname: &str,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Session, HopFault> {
        let connecting = connect.connect(&next_hop.endpoint);
        let stream = match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(HopFault::Io { stage: "connecting", source }),
            Err(_) => {
                let after = CONNECT_DEADLINE;
                return Err(HopFault::Deadline { stage: "connecting", after });
            }
        };
        let mut session = Session {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            replies: ReplyReader::default(),
            keywords: Keywords::default(),
            protocol: next_hop.protocol(),
            hop,
            delivered: 0,
            barren: 0,
            needs_reset: false,
            is_kept: false,
            used: Instant::now(),
            place,
        };
        session.greet(hostname).await?;
        Ok(session)
    }

    async fn greet(&mut self, hostname: &str) -> Result<(), HopFault> {
        let greeting = self.reply("greeting", GREETING_DEADLINE).await?;
        if !greeting.is_positive() {
            return Err(HopFault::Unwilling { stage: "greeting", reply: greeting });
        }
        self.queue(&hello_command(self.protocol, hostname));
        self.flush("EHLO").await?;
        let mut hello = self.reply("EHLO", GREETING_DEADLINE).await?;
        // RFC 5321 §3.2: a server that does not know EHLO is asked with HELO.
        if self.protocol == Protocol::Smtp && (500..=504).contains(&hello.code()) {
            self.queue(&format!("HELO {hostname}\r\n"));
            self.flush("HELO").await?;
            hello = self.reply("HELO", GREETING_DEADLINE).await?;
        }
        match hello.is_positive() {
            true => self.keywords = Keywords::from_reply(&hello),
            false => return Err(HopFault::Unwilling { stage: "EHLO", reply: hello }),
        }
        Ok(())
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
        let sent = timeout(CONTENT_DEADLINE, sending).await;
        self.output.clear();
        self.output.shrink_to(NETWORK_BUFFER_BYTES * 2);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(HopFault::Io { stage, source }),
            Err(_) => Err(HopFault::Deadline { stage, after: CONTENT_DEADLINE }),
        }
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
            }
        };
        let _ = timeout(QUIT_DEADLINE, quitting).await;
    }
}
