//! An SMTP or LMTP server that keeps all it gets: the smarthost, the outside world, a mailbox.
//!
//! It announces what it is told to, and at any stage can be told to refuse, stall, close or answer
//! late. It runs on a runtime of its own; a test talks to it by plain calls.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::claim::Port;
use crate::wait::until;

/// A message line longer than this ends the session; nothing in the tests comes near.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The runtime of every sink and stand-in of this test binary.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

/// Listens on a claimed port.
pub fn bind(port: &Port) -> TcpListener {
    // Why polled: another thread may be starting a program, which holds copies of all our sockets,
    // also of one just closed, until it runs.
    until("the port to be free", || runtime().block_on(TcpListener::bind(port.address())).ok())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Smtp,
    Lmtp,
}

/// Where in a session an order applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Hello,
    Mail,
    Rcpt,
    Reset,
    Data,
    /// When this many bytes of the message have come in.
    MidData(usize),
    /// After the final dot; with LMTP at the reply for each recipient.
    EndOfData,
}

/// What the sink does instead of its duty.
#[derive(Clone, Debug)]
pub enum Act {
    /// Gives this reply. A 2xx at the end of data means that it has taken the message.
    Say(&'static str),
    /// Never answers again, until the client leaves.
    Stall,
    /// Closes the connection without a word.
    Close,
    /// Does its duty after this time.
    Late(Duration),
    /// Takes the message (end of data only), then closes without a word.
    TakeAndClose,
}

/// Every way in which a next hop can fail a transaction, by stage: refuse for now, refuse for good,
/// leave, close without a word, and die after taking the message.
pub fn troubles() -> Vec<(Stage, Act)> {
    let stages = [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::MidData(20), Stage::EndOfData];
    let said = ["451 4.3.0 Later", "550 5.7.1 No", "421 4.3.2 Leaving"];
    let acts: Vec<Act> = said.into_iter().map(Act::Say).chain([Act::Close]).collect();
    let mut troubles: Vec<(Stage, Act)> = Vec::new();
    for stage in stages {
        troubles.extend(acts.iter().map(|act| (stage, act.clone())));
    }
    troubles.push((Stage::EndOfData, Act::TakeAndClose));
    troubles
}

#[derive(Debug)]
struct Order {
    stage: Stage,
    /// In the command line, or the message; compared without case. Empty: always.
    containing: String,
    act: Act,
    /// How often it is passed over first.
    after: usize,
    times: usize,
}

/// What became of a message, as the sink sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Taken,
    Refused(String),
    /// The session ended, by either side, before the sink had taken the message.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Recipient {
    /// As in the command, without the brackets.
    pub address: String,
    pub parameters: Vec<String>,
}

/// A mail transaction that came as far as one accepted recipient and DATA.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Counts connections from 0.
    pub session: usize,
    pub hello: String,
    /// As in the command, without the brackets; the null reverse-path is empty.
    pub reverse_path: String,
    pub parameters: Vec<String>,
    /// The attributes of XFORWARD commands since the last transaction or RSET.
    pub xforward: Vec<String>,
    pub recipients: Vec<Recipient>,
    /// Byte-exact, dots unstuffed.
    pub message: Vec<u8>,
    pub fate: Fate,
}

impl Transaction {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.message).into_owned()
    }

    pub fn addresses(&self) -> Vec<&str> {
        self.recipients.iter().map(|recipient| recipient.address.as_str()).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    orders: Vec<Order>,
    transactions: Vec<Transaction>,
    /// Each command line, with its session.
    commands: Vec<(usize, String)>,
    sessions: usize,
}

#[derive(Clone, Debug)]
struct Shared {
    state: Arc<Mutex<State>>,
    protocol: Protocol,
    keywords: Vec<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order for this stage, if there is one; counts it as used.
    fn order(&self, stage: Stage, text: &[u8]) -> Option<Act> {
        let mut state = self.state();
        if state.orders.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        let matches = |order: &&mut Order| {
            order.times > 0 && order.stage == stage && text.contains(&order.containing)
        };
        let order = state.orders.iter_mut().find(matches)?;
        if order.after > 0 {
            order.after -= 1;
            return None;
        }
        order.times -= 1;
        Some(order.act.clone())
    }
}

/// A running sink; it stops when dropped.
#[derive(Debug)]
pub struct Sink {
    port: Port,
    shared: Shared,
    listener: Option<JoinHandle<()>>,
}

impl Sink {
    /// An SMTP server that announces what a usual smarthost does.
    pub fn smtp() -> Self {
        let keywords =
            ["PIPELINING", "SIZE 52428800", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8"];
        Self::announcing(Protocol::Smtp, &keywords)
    }

    /// An LMTP server: a mailbox for everybody.
    pub fn lmtp() -> Self {
        Self::announcing(Protocol::Lmtp, &["PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"])
    }

    pub fn announcing(protocol: Protocol, keywords: &[&str]) -> Self {
        let keywords = keywords.iter().map(|&keyword| keyword.to_owned()).collect();
        let shared = Shared { state: Arc::default(), protocol, keywords };
        let mut sink = Self { port: Port::claim(), shared, listener: None };
        sink.resume();
        sink
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Closes the port and every connection: the host is down.
    pub fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            // Why: the port must be closed when this returns.
            let _ = runtime().block_on(listener);
        }
    }

    /// Listens, again on the same port.
    pub fn resume(&mut self) {
        let listener = bind(&self.port);
        self.listener = Some(runtime().spawn(listen(listener, self.shared.clone())));
    }

    /// From now on does `act` at `stage`, whatever comes.
    pub fn at(&self, stage: Stage, act: Act) {
        self.order(stage, "", act, usize::MAX);
    }

    /// From now on does `act` at `stage` when the command or message contains the text, so many
    /// times.
    pub fn order(&self, stage: Stage, containing: &str, act: Act, times: usize) {
        let containing = containing.to_ascii_lowercase();
        self.shared.state().orders.push(Order { stage, containing, act, after: 0, times });
    }

    /// The same from the second time on that the stage is reached.
    pub fn order_second(&self, stage: Stage, act: Act) {
        let containing = String::new();
        let order = Order { stage, containing, act, after: 1, times: usize::MAX };
        self.shared.state().orders.push(order);
    }

    /// How many orders have not been carried out to their end.
    pub fn orders_left(&self) -> usize {
        self.shared.state().orders.iter().filter(|order| order.times > 0).count()
    }

    /// Forgets all orders.
    pub fn behave(&self) {
        self.shared.state().orders.clear();
    }

    /// Every transaction so far, in the order of their ends.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.shared.state().transactions.clone()
    }

    /// The messages it has taken.
    pub fn taken(&self) -> Vec<Transaction> {
        let taken = |transaction: &Transaction| transaction.fate == Fate::Taken;
        self.transactions().into_iter().filter(taken).collect()
    }

    /// Command lines so far, of all sessions.
    pub fn commands(&self) -> Vec<String> {
        self.shared.state().commands.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Waits until it has taken this many messages, and gives them. Patience counts from the last
    /// message that came, so that ten thousand may take their time.
    pub fn wait_for(&self, count: usize) -> Vec<Transaction> {
        let mut seen = self.count_taken();
        while seen < count {
            let what = format!("message {} of {count} at the sink", seen + 1);
            seen = until(&what, || Some(self.count_taken()).filter(|&now| now > seen));
        }
        self.taken()
    }

    pub fn count_taken(&self) -> usize {
        let state = self.shared.state();
        state.transactions.iter().filter(|transaction| transaction.fate == Fate::Taken).count()
    }

    /// Waits for the message that contains the text.
    pub fn wait_for_text(&self, text: &str) -> Transaction {
        until(&format!("a message with {text:?} at the sink"), || {
            self.taken().into_iter().find(|transaction| transaction.text().contains(text))
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen(listener: TcpListener, shared: Shared) {
    // Sessions end with the listener: the set aborts them when it is dropped.
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let number = {
            let mut state = shared.state();
            state.sessions += 1;
            state.sessions - 1
        };
        sessions.spawn(serve(stream, shared.clone(), number));
        while sessions.try_join_next().is_some() {}
    }
}

/// The session has ended.
#[derive(Debug)]
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

struct Session {
    shared: Shared,
    reader: BufReader<OwnedReadHalf>,
    writer: BufWriter<OwnedWriteHalf>,
    /// The transaction under way.
    current: Transaction,
}

async fn serve(stream: TcpStream, shared: Shared, number: usize) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let current = Transaction {
        session: number,
        hello: String::new(),
        reverse_path: String::new(),
        parameters: Vec::new(),
        xforward: Vec::new(),
        recipients: Vec::new(),
        message: Vec::new(),
        fate: Fate::Broken,
    };
    let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
    let mut session = Session { shared, reader, writer, current };
    let _: Result<(), Over> = session.run().await;
    let _ = session.writer.flush().await;
}

impl Session {
    async fn run(&mut self) -> Result<(), Over> {
        self.answer(Stage::Greeting, b"", "220 sink.example ESMTP").await?;
        loop {
            self.flush_if_idle().await?;
            let line = self.line().await?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let session = self.current.session;
            self.shared.state().commands.push((session, text.clone()));
            let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" | "LHLO" => self.hello(rest, &line).await?,
                "MAIL" => self.mail(rest, &line).await?,
                "RCPT" => self.rcpt(rest, &line).await?,
                "DATA" => self.data(&line).await?,
                "RSET" => {
                    self.clear();
                    self.answer(Stage::Reset, &line, "250 2.0.0 Ok").await?;
                }
                "XFORWARD" => {
                    self.current.xforward.extend(rest.split(' ').map(str::to_owned));
                    self.say("250 2.0.0 Ok").await?;
                }
                "NOOP" => self.say("250 2.0.0 Ok").await?,
                "QUIT" => {
                    self.say("221 2.0.0 Bye").await?;
                    return Ok(());
                }
                _ => self.say("502 5.5.2 Command not known").await?,
            }
        }
    }

    fn clear(&mut self) {
        self.current.reverse_path.clear();
        self.current.parameters.clear();
        self.current.recipients.clear();
        self.current.message.clear();
        self.current.xforward.clear();
        self.current.fate = Fate::Broken;
    }

    async fn hello(&mut self, name: &str, line: &[u8]) -> Result<(), Over> {
        self.clear();
        self.current.hello = name.to_owned();
        let mut reply = String::new();
        let mut lines: Vec<&str> = vec!["sink.example"];
        lines.extend(self.shared.keywords.iter().map(String::as_str));
        let last = lines.len() - 1;
        for (index, text) in lines.iter().enumerate() {
            let mark = if index == last { ' ' } else { '-' };
            let end = if index == last { "" } else { "\r\n" };
            reply.push_str(&format!("250{mark}{text}{end}"));
        }
        self.answer(Stage::Hello, line, &reply).await.map(|_| ())
    }

    async fn mail(&mut self, rest: &str, line: &[u8]) -> Result<(), Over> {
        let (path, parameters) = path_and_parameters(rest);
        if self.answer(Stage::Mail, line, "250 2.1.0 Ok").await? {
            self.current.reverse_path = path;
            self.current.parameters = parameters;
        }
        Ok(())
    }

    async fn rcpt(&mut self, rest: &str, line: &[u8]) -> Result<(), Over> {
        let (address, parameters) = path_and_parameters(rest);
        if self.answer(Stage::Rcpt, line, "250 2.1.5 Ok").await? {
            self.current.recipients.push(Recipient { address, parameters });
        }
        Ok(())
    }

    async fn data(&mut self, line: &[u8]) -> Result<(), Over> {
        if self.current.recipients.is_empty() {
            return self.say("554 5.5.1 No valid recipients").await;
        }
        if !self.answer(Stage::Data, line, "354 Go ahead").await? {
            return Ok(());
        }
        self.writer.flush().await?;
        let read = self.message().await;
        if read.is_err() {
            self.record(Fate::Broken);
        }
        read?;
        match self.shared.protocol {
            Protocol::Smtp => self.end_of_data_smtp().await?,
            Protocol::Lmtp => self.end_of_data_lmtp().await?,
        }
        self.clear();
        Ok(())
    }

    /// Reads up to the line that is a dot alone, between two CRLFs and nothing else.
    async fn message(&mut self) -> Result<(), Over> {
        let mut after_crlf = true;
        let mut done = 0;
        loop {
            if let Some(bytes) = self.mid_data_due(done) {
                done = bytes + 1;
                let message = std::mem::take(&mut self.current.message);
                let go_on = self.answer(Stage::MidData(bytes), &message, "").await;
                self.current.message = message;
                // A reply in the middle of the message: the server gives up, as with 421.
                if !go_on? {
                    self.writer.flush().await?;
                    return Err(Over);
                }
            }
            let line = self.line().await?;
            let ends_crlf = line.ends_with(b"\r\n");
            if after_crlf && line == b".\r\n" {
                return Ok(());
            }
            let stuffed = after_crlf && line.starts_with(b".");
            self.current.message.extend_from_slice(&line[usize::from(stuffed)..]);
            after_crlf = ends_crlf;
        }
    }

    /// The smallest mark of a `MidData` order that has been reached and not been looked at.
    fn mid_data_due(&self, done: usize) -> Option<usize> {
        let length = self.current.message.len();
        let state = self.shared.state();
        let marks = state.orders.iter().filter_map(|order| match order.stage {
            Stage::MidData(bytes) if order.times > 0 && (done..=length).contains(&bytes) => {
                Some(bytes)
            }
            _ => None,
        });
        marks.min()
    }

    async fn end_of_data_smtp(&mut self) -> Result<(), Over> {
        let reply = self.verdict(self.current.message.clone()).await?;
        self.say(&reply).await
    }

    /// One reply for each recipient (RFC 2033 §4.2); each has a transaction of its own in the log.
    async fn end_of_data_lmtp(&mut self) -> Result<(), Over> {
        for recipient in std::mem::take(&mut self.current.recipients) {
            let address = recipient.address.clone().into_bytes();
            self.current.recipients = vec![recipient];
            let reply = self.verdict(address).await?;
            self.say(&reply).await?;
        }
        Ok(())
    }

    /// Decides about the message as ordered, records it, and gives the reply.
    async fn verdict(&mut self, text: Vec<u8>) -> Result<String, Over> {
        self.writer.flush().await?;
        let ok = "250 2.0.0 Ok: queued as SINK".to_owned();
        let act = self.shared.order(Stage::EndOfData, &text);
        let broken = match act {
            None => {
                self.record(Fate::Taken);
                return Ok(ok);
            }
            Some(Act::Say(reply)) if reply.starts_with('2') => {
                self.record(Fate::Taken);
                return Ok(reply.to_owned());
            }
            Some(Act::Say(reply)) => {
                self.record(Fate::Refused(reply.to_owned()));
                return Ok(reply.to_owned());
            }
            Some(Act::Late(time)) => {
                // Recorded first: a client that leaves meanwhile does not undo it.
                self.record(Fate::Taken);
                tokio::time::sleep(time).await;
                return Ok(ok);
            }
            Some(Act::TakeAndClose) => Fate::Taken,
            Some(Act::Stall | Act::Close) => Fate::Broken,
        };
        self.record(broken);
        if matches!(act, Some(Act::Stall)) {
            self.stall().await;
        }
        Err(Over)
    }

    fn record(&self, fate: Fate) {
        let transaction = Transaction { fate, ..self.current.clone() };
        self.shared.state().transactions.push(transaction);
    }

    /// Answers as ordered, or by `usual`; gives whether the answer was the usual one, or positive.
    async fn answer(&mut self, stage: Stage, text: &[u8], usual: &str) -> Result<bool, Over> {
        match self.shared.order(stage, text) {
            None => self.say(usual).await.map(|()| true),
            Some(Act::Say(reply)) => {
                self.say(reply).await?;
                Ok(reply.starts_with(['2', '3']))
            }
            Some(Act::Late(time)) => {
                self.writer.flush().await?;
                tokio::time::sleep(time).await;
                self.say(usual).await.map(|()| true)
            }
            Some(Act::Stall) => {
                self.writer.flush().await?;
                self.stall().await;
                Err(Over)
            }
            Some(Act::Close | Act::TakeAndClose) => Err(Over),
        }
    }

    /// Until the client leaves.
    async fn stall(&mut self) {
        while let Ok(bytes) = self.reader.fill_buf().await {
            if bytes.is_empty() {
                return;
            }
            let count = bytes.len();
            self.reader.consume(count);
        }
    }

    async fn say(&mut self, reply: &str) -> Result<(), Over> {
        if !reply.is_empty() {
            self.writer.write_all(reply.as_bytes()).await?;
            self.writer.write_all(b"\r\n").await?;
        }
        Ok(())
    }

    /// Sends the replies when the client has nothing more in flight (RFC 2920 §3.2).
    async fn flush_if_idle(&mut self) -> Result<(), Over> {
        if self.reader.buffer().is_empty() {
            self.writer.flush().await?;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<Vec<u8>, Over> {
        line(&mut self.reader).await
    }
}

/// Up to and with the next LF.
async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<u8>, Over> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") && line.len() <= LINE_BYTES_MAX { Ok(line) } else { Err(Over) }
}

/// `FROM:<a@b> SIZE=1` gives `a@b` and `[SIZE=1]`.
fn path_and_parameters(rest: &str) -> (String, Vec<String>) {
    let path = rest.split_once(':').map_or("", |(_, path)| path.trim_start());
    let (address, parameters) =
        path.strip_prefix('<').unwrap_or(path).split_once('>').unwrap_or((path, ""));
    (address.to_owned(), parameters.split_whitespace().map(str::to_owned).collect())
}
