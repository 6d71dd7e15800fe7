//! Station 1, the front: who speaks to us, and what did they say?
//!
//! Sockets and deadlines around `wire::smtp_server`. Takes: one connection of an allowed client.
//! Gives: transactions to the guard, replies to the client. With a reverse-path MAIL and RCPT are
//! the next hop's to answer, byte-exact and pipelined; with the null one they are ours, so that a
//! joe job never touches the next hop. DATA is ours: it goes on only after the decision.
//! Bounds: `limits::CLIENT_IDLE_DEADLINE`, `limits::CONTENT_DEADLINE`, `limits::MESSAGE_TIME_MAX`,
//! bytes in flight.
//! Standards: RFC 5321, RFC 2033, RFC 2920.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;
use ulid::Ulid;

use crate::guard::{Guard, Incoming};
use crate::mail::envelope::{Client, Envelope, MailFrom, Recipient, Secured};
use crate::mail::limits::{
    BUDGET_WAIT_MAX, CLIENT_IDLE_DEADLINE, COMMAND_BUFFER_BYTES, CONTENT_DEADLINE,
    PENDING_REPLIES_MAX, QUIT_DEADLINE, TRACE_LINES_BYTES_MAX,
};
use crate::mail::reply::Reply;
use crate::relay::transaction::Transaction;
use crate::serve::arriving::Arriving;
use crate::serve::envelopes::Envelopes;
use crate::serve::gone::Gone;
use crate::serve::tls::ListenerTls;
use crate::tls::stream::Stream;
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::line::{LineFault, LineReader};
use crate::wire::secure::{Channel, Starttls};
use crate::wire::smtp_server::{Session, Step};

/// What becomes of a bare CR or LF that could not end the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BareLineEnd {
    /// It passes, byte for byte.
    #[default]
    Pass,
    /// The message is refused.
    Refuse,
}

/// What all conversations of a listener share.
#[derive(Clone)]
pub struct Front {
    /// Which of our listeners it is, as `Client::listener`.
    pub listener: usize,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// What we call ourselves.
    pub hostname: String,
    /// Bytes read before deciding.
    pub inspect_max: usize,
    /// What becomes of bare line ends.
    pub bare_line_end: BareLineEnd,
    /// The guard behind it.
    pub guard: Arc<Guard>,
    /// Bytes of messages that may be in memory at once, in KiB.
    pub budget_kib: Arc<Semaphore>,
    /// The TLS of this listener; `None` for none.
    pub tls: Option<ListenerTls>,
}

/// How far the stop of the server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// It serves.
    No,
    /// No new transactions; running ones finish.
    Drain,
    /// The deadline for running ones is over.
    Now,
}

/// Why a conversation pauses.
enum Talked {
    /// The client has said DATA.
    Data,
    /// The server drains, and no transaction is open.
    Drained,
}

/// What the client waits for, in order.
enum Pending {
    Mail,
    Rcpt(Recipient),
}

/// A transaction that is open.
struct Open {
    event: Ulid,
    /// `None` with the null reverse-path: the next hop hears of it after the decision.
    next_hop: Option<Box<Transaction>>,
    /// Room for its recipients.
    envelope: Envelopes,
}

impl Open {
    fn new(event: Ulid, next_hop: Option<Box<Transaction>>) -> Open {
        Open { event, next_hop, envelope: Envelopes::default() }
    }
}

/// One conversation.
pub struct Conversation<S> {
    front: Arc<Front>,
    stream: Stream<S>,
    tls: Option<Secured>,
    input: BytesMut,
    output: BytesMut,
    lines: LineReader,
    session: Session,
    session_id: Ulid,
    client_ip: Option<IpAddr>,
    open: Option<Open>,
    pending: Vec<Pending>,
    stopping: watch::Receiver<Stopping>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Conversation<S> {
    /// Greets the client and serves it until it leaves, or until the server stops.
    ///
    /// With no next hop in reach the greeting is 421: the client has a queue, we have none.
    pub async fn serve(
        front: Arc<Front>,
        stream: S,
        client_ip: Option<IpAddr>,
        mut stopping: watch::Receiver<Stopping>,
    ) {
        let begun = ListenerTls::begin(front.tls.as_ref(), stream, client_ip, &mut stopping);
        let Some((stream, tls)) = begun.await else { return };
        let session_id = front.guard.new_id();
        let offer = front.guard.relay().offer(added_bytes()).await;
        let session = match &offer {
            Ok(offer) => offer.clone(),
            Err(_) => Keywords::default(),
        };
        let name = session_id.to_string();
        let channel = if tls.is_some() { Channel::Encrypted } else { Channel::Clear };
        let starttls = front.tls.as_ref().map_or(Starttls::Off, |tls| tls.starttls);
        let session = Session::new(front.protocol, &front.hostname, &name, session);
        let session = session.over(channel, starttls);
        let mut conversation = Conversation {
            front,
            stream,
            tls,
            input: BytesMut::new(),
            output: BytesMut::new(),
            lines: LineReader::default(),
            session,
            session_id,
            client_ip,
            open: None,
            pending: Vec::new(),
            stopping,
        };
        if let Err(fault) = offer {
            return conversation.farewell("4.3.2", &fault.to_string()).await;
        }
        let gone = conversation.run().await;
        debug!(session = %conversation.session_id, %gone, "conversation ended");
        match gone {
            Gone::Stopping => conversation.farewell("4.3.2", &gone.to_string()).await,
            Gone::Deadline => conversation.farewell("4.4.2", &gone.to_string()).await,
            // Why temporary: the client whose session somebody meddled with should try again.
            Gone::Injected => conversation.farewell("4.7.0", &gone.to_string()).await,
            Gone::Closed | Gone::Io(_) => {}
        }
    }

    /// Serves until the client leaves or the server stops.
    ///
    /// Why only talk is cut short when the server stops: what becomes of a whole message is
    /// decided, done and recorded, or nobody would know what the next hop has.
    async fn run(&mut self) -> Gone {
        let greeting = self.session.greeting();
        self.say(&greeting);
        let mut stopping = self.stopping.clone();
        loop {
            let talked = tokio::select! {
                biased;
                _ = stopping.wait_for(|stage| *stage == Stopping::Now) => Err(Gone::Stopping),
                talked = self.talk() => talked,
            };
            let went_on = match talked {
                // Why boxed: ten thousand idle sessions should not each keep room for a message.
                Ok(Talked::Data) => Box::pin(self.data()).await,
                Ok(Talked::Drained) => Err(Gone::Stopping),
                Err(gone) => Err(gone),
            };
            if let Err(gone) = went_on {
                return gone;
            }
        }
    }

    /// Says 421 and closes.
    ///
    /// Why what still comes is read and dropped: closing with unread bytes would reset the
    /// connection, and the client would lose the reply.
    async fn farewell(mut self, enhanced: &str, text: &str) {
        let id = self.session_id.to_string();
        self.say(&Reply::with_id(421, enhanced, text, &id));
        let leaving = async {
            self.flush().await?;
            self.stream.shutdown().await?;
            self.input.clear();
            while self.stream.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            Ok::<(), Gone>(())
        };
        let _ = timeout(QUIT_DEADLINE, leaving).await;
    }

    /// Answers commands until DATA, or until the client says QUIT: then nothing is left to say.
    async fn talk(&mut self) -> Result<Talked, Gone> {
        loop {
            let Some(line) = self.next_line().await? else { return Ok(Talked::Drained) };
            let recipient = line.as_ref().is_ok_and(|line| is_rcpt(line));
            let length = line.as_ref().map_or(0, Bytes::len);
            if !recipient || self.pending.len() >= PENDING_REPLIES_MAX {
                self.settle().await;
            }
            match self.session.advance(line) {
                Step::Say(reply) => {
                    self.settle().await;
                    self.say(&reply);
                }
                Step::Reset(reply) => {
                    self.leave_next_hop();
                    self.say(&reply);
                }
                Step::Close(reply) => {
                    self.settle().await;
                    self.leave_next_hop();
                    self.say(&reply);
                    self.flush().await?;
                    let _ = timeout(CLIENT_IDLE_DEADLINE, self.stream.shutdown()).await;
                    return Err(Gone::Closed);
                }
                Step::Mail(mail) => self.mail(mail).await,
                Step::Rcpt(recipient) if self.has_room(length) => self.rcpt(recipient),
                Step::Rcpt(_) => {
                    self.settle().await;
                    self.no_room();
                }
                Step::Data => return Ok(Talked::Data),
                Step::StartTls(reply) => {
                    self.settle().await;
                    // Why boxed: ten thousand idle sessions should not each keep room for it.
                    Box::pin(self.start_tls(&reply)).await?;
                }
            }
        }
    }

    /// Says 220 and makes the handshake. Where something came behind the command the session ends.
    async fn start_tls(&mut self, reply: &Reply) -> Result<(), Gone> {
        let Some(tls) = self.front.tls.clone() else { return Err(Gone::Closed) };
        tls.nothing_behind(&self.input, self.client_ip)?;
        self.say(reply);
        self.flush().await?;
        let ip = self.client_ip;
        self.tls = Some(tls.start(&mut self.stream, ip, &mut self.stopping).await?);
        self.lines = LineReader::default();
        self.session.secured();
        Ok(())
    }

    /// The next command line; before waiting for one, everything owed is answered. `None`: the
    /// server drains, and no transaction is open.
    async fn next_line(&mut self) -> Result<Option<Result<Bytes, LineFault>>, Gone> {
        let mut stopping = self.stopping.clone();
        // Why for the whole line: who gives a byte now and then would keep his place for ever.
        let mut until = None;
        loop {
            if let Some(line) = self.lines.next(&mut self.input) {
                return Ok(Some(line));
            }
            self.settle().await;
            self.flush().await?;
            self.input.reserve(COMMAND_BUFFER_BYTES);
            let idle = self.session.transaction().is_none();
            let until = *until.get_or_insert_with(|| Instant::now() + CLIENT_IDLE_DEADLINE);
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stage| *stage != Stopping::No), if idle => return Ok(None),
                read = timeout_at(until, self.stream.read_buf(&mut self.input)) => {
                    match read.map_err(|_| Gone::Deadline)?? {
                        0 => return Err(Gone::Closed),
                        _ => continue,
                    }
                }
            }
        }
    }

    async fn mail(&mut self, mail: MailFrom) {
        let event = self.front.guard.new_id();
        if mail.path.is_null() {
            self.open = Some(Open::new(event, None));
            self.say(&Reply::with_id(250, "2.1.0", "Ok", &event.to_string()));
            return;
        }
        let relay = self.front.guard.relay();
        match relay.begin(&mail, &[], &self.client(), added_bytes()).await {
            Ok(transaction) => {
                self.open = Some(Open::new(event, Some(transaction)));
                self.pending.push(Pending::Mail);
            }
            Err(fault) => {
                let (text, event) = (fault.to_string(), event.to_string());
                let reply = Reply::with_id(451, "4.4.1", &text, &event);
                self.session.transaction_lost(reply.clone());
                self.say(&reply);
            }
        }
    }

    fn has_room(&mut self, command: usize) -> bool {
        let (budget, share) = (&self.front.budget_kib, self.share_kib());
        self.open.as_mut().is_none_or(|open| open.envelope.fits(command, budget, share))
    }

    /// The client sends the rest in another transaction (RFC 5321 §4.5.3.1.10).
    fn no_room(&mut self) {
        let event = self.open.as_ref().map_or(self.session_id, |open| open.event).to_string();
        self.say(&Reply::with_id(452, "4.3.1", "too many recipients in flight", &event));
    }

    /// KiB of a message in memory.
    fn share_kib(&self) -> usize {
        self.front.inspect_max.div_ceil(1024)
    }

    fn rcpt(&mut self, recipient: Recipient) {
        let Some(open) = &mut self.open else { return self.nothing_is_open() };
        match &mut open.next_hop {
            Some(transaction) => {
                transaction.rcpt(&recipient);
                self.pending.push(Pending::Rcpt(recipient));
            }
            None => {
                let event = open.event.to_string();
                self.session.recipient_accepted(recipient);
                self.say(&Reply::with_id(250, "2.1.5", "Ok", &event));
            }
        }
    }

    /// Gets the replies of the next hop that the client waits for, and passes them on.
    async fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let Some(mut open) = self.open.take() else { return };
        let Some(transaction) = open.next_hop.as_mut() else { return };
        let replies = match transaction.settle().await {
            Ok(replies) => replies,
            Err(fault) => {
                let (text, event) = (fault.to_string(), open.event.to_string());
                let reply = Reply::with_id(451, "4.4.2", &text, &event);
                pending.iter().for_each(|_| self.say(&reply));
                self.session.transaction_lost(reply);
                return;
            }
        };
        let mut refused = false;
        for (pending, reply) in pending.into_iter().zip(replies) {
            match pending {
                Pending::Mail if !reply.is_positive() => refused = true,
                Pending::Rcpt(recipient) if reply.is_positive() => {
                    self.session.recipient_accepted(recipient);
                }
                Pending::Mail | Pending::Rcpt(_) => {}
            }
            self.say(&reply);
        }
        self.open = Some(open);
        if refused {
            self.leave_next_hop();
            self.session.mail_refused();
        }
    }

    /// The session knows a transaction that is not there: never, but a client must not wait for
    /// ever if it ever is so.
    fn nothing_is_open(&mut self) {
        let id = self.session_id.to_string();
        let reply = Reply::with_id(451, "4.3.0", "the transaction was lost", &id);
        self.session.transaction_lost(reply.clone());
        self.say(&reply);
    }

    fn leave_next_hop(&mut self) {
        if let Some(transaction) = self.open.take().and_then(|open| open.next_hop) {
            transaction.leave();
        }
    }

    /// Reads the message, gives it to the guard, says the guard's answer.
    async fn data(&mut self) -> Result<(), Gone> {
        let (Some(open), Some((mail, recipients))) = (self.open.take(), self.session.transaction())
        else {
            self.nothing_is_open();
            return Ok(());
        };
        let envelope =
            Envelope { client: self.client(), mail: mail.clone(), recipients: recipients.to_vec() };
        let share = u32::try_from(self.share_kib()).unwrap_or(u32::MAX);
        let budget = Arc::clone(&self.front.budget_kib);
        let Ok(Ok(_share)) = timeout(BUDGET_WAIT_MAX, budget.acquire_many(share)).await else {
            let event = open.event.to_string();
            self.say(&Reply::with_id(452, "4.3.1", "too many messages in flight", &event));
            if let Some(transaction) = open.next_hop {
                transaction.leave();
            }
            self.session.transaction_over();
            return Ok(());
        };
        self.say(&Reply::new(354, "", "End data with <CR><LF>.<CR><LF>"));
        self.flush().await?;
        let stopping = self.stopping.clone();
        let (stream, input) = (&mut self.stream, &mut self.input);
        let mut content = Arriving::new(stream, input, self.front.bare_line_end, stopping);
        let first = content.first(self.front.inspect_max).await?;
        let incoming = Incoming {
            event: open.event,
            session: self.session_id,
            protocol: self.front.protocol,
            extended: self.session.is_extended(),
            envelope,
            first: first.bytes,
            whole: first.whole,
            line_ends: first.line_ends,
            dots: first.dots,
            rest: &mut content,
            next_hop: open.next_hop,
        };
        let replies = Box::pin(self.front.guard.pass(incoming)).await;
        content.drain().await?;
        self.session.transaction_over();
        replies.iter().for_each(|reply| self.say(reply));
        self.flush().await
    }

    fn client(&self) -> Client {
        Client {
            ip: self.client_ip,
            helo: self.session.helo().to_owned(),
            xforward: self.session.xforward().to_vec(),
            listener: self.front.listener,
            tls: self.tls.clone(),
        }
    }

    fn say(&mut self, reply: &Reply) {
        self.output.extend_from_slice(reply.wire());
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        let writing = async {
            // Why not write_all: cut short by the server's stop, what was written is not said again.
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.flush().await
        };
        Ok(timeout(CONTENT_DEADLINE, writing).await.map_err(|_| Gone::Deadline)??)
    }
}

/// Bytes that our lines add to every message.
fn added_bytes() -> u64 {
    TRACE_LINES_BYTES_MAX as u64
}

fn is_rcpt(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT"))
}
