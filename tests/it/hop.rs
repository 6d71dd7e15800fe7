//! A next hop for tests: it does its duty, or at any stage what it is told; and it tells what it
//! saw.
//!
//! It reads the end of a message on its own, strictly, so that it can witness against our reader.
//! `Net` puts several of them behind `relay::connect::Connect`, in memory, and counts connections.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use replyguard::relay::connect::{Connect, Connecting, Stream};
use replyguard::serve::tls::Begins;
use replyguard::tls::{self, server::Acceptor};
use replyguard::wire::endpoint::Endpoint;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// What a usual smarthost announces.
pub const USUAL: &[&str] =
    &["PIPELINING", "SIZE 52428800", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8"];

/// Where in a session something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It was connected to.
    Greeting,
    /// EHLO, HELO, LHLO.
    Hello,
    /// STARTTLS.
    Starttls,
    /// AUTH, and each line of it.
    Auth,
    /// XFORWARD.
    Xforward,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// After the 354. To be used with `Act::After`.
    Content,
    /// The final dot; with LMTP for each recipient.
    Dot,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

impl Stage {
    /// The stage of a verb, or its own name.
    pub fn parse(word: &str) -> Option<Stage> {
        Some(match word {
            "GREETING" => Stage::Greeting,
            "EHLO" | "HELO" | "LHLO" => Stage::Hello,
            "STARTTLS" => Stage::Starttls,
            "AUTH" => Stage::Auth,
            "XFORWARD" => Stage::Xforward,
            "MAIL" => Stage::Mail,
            "RCPT" => Stage::Rcpt,
            "DATA" => Stage::Data,
            "CONTENT" => Stage::Content,
            "DOT" => Stage::Dot,
            "RSET" => Stage::Rset,
            "QUIT" => Stage::Quit,
            _ => return None,
        })
    }
}

/// What is done instead of the duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Says these bytes, CRLF included if there is to be one. 2xx and 3xx count as having done it.
    Say(String),
    /// Closes the connection.
    Close,
    /// Says these bytes and closes the connection.
    SayAndClose(String),
    /// Takes the message (at the final dot), then closes without a word.
    TakeAndClose,
    /// Says a long reply, a byte each time that so much has passed.
    Drip(Duration),
    /// Never says anything again, until the other side leaves.
    Stall,
    /// Says these bytes again and again.
    Endless(&'static str),
    /// Does its duty after this time.
    Late(Duration),
    /// Does that when so many bytes of the message are there.
    After(usize, Box<Act>),
    /// Does its duty, and says these bytes behind it.
    Chatter(&'static str),
}

/// What became of a transaction, as the next hop sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It said 2xx to the final dot; with LMTP to at least one recipient.
    Taken,
    /// It said no to the final dot.
    Refused,
    /// The connection ended before the final dot was there or before it was answered.
    Broken,
}

/// A transaction that came as far as the 354.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which connection, from 0.
    pub session: usize,
    /// The MAIL command.
    pub mail: String,
    /// The RCPT commands that it accepted, less those that it refused after the dot (LMTP).
    pub rcpt: Vec<String>,
    /// What stood behind XFORWARD since the last transaction.
    pub xforward: Vec<String>,
    /// What came after the 354, as it stood on the wire, without the final dot and its CRLF.
    pub wire: Vec<u8>,
    /// What became of it.
    pub fate: Fate,
}

impl Seen {
    /// The message with stuffed dots removed (RFC 5321 §4.5.2).
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.wire.len());
        let mut line_start = true;
        for (at, byte) in self.wire.iter().enumerate() {
            if !(line_start && *byte == b'.') {
                message.push(*byte);
            }
            line_start = self.wire[..=at].ends_with(b"\r\n");
        }
        message
    }

    /// The message without the two lines that the guard puts on top.
    pub fn original(&self) -> Vec<u8> {
        let message = self.message();
        let mut rest = &message[..];
        for name in ["X-Replyguard-Trace: ", "Received: "] {
            assert!(rest.starts_with(name.as_bytes()), "no {name} in {}", shown(&message));
            let mut end = 0;
            while end == 0 || rest[end..].starts_with(b"\t") {
                end += memchr_line(&rest[end..]);
            }
            rest = &rest[end..];
        }
        rest.to_vec()
    }
}

fn memchr_line(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|two| two == b"\r\n").expect("a line end") + 2
}

/// Bytes for a test's message.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Whether some server, reading line ends in its own way, could see the end of the message in
/// these bytes: any of CR, LF and CRLF ends a line, NULs and blanks at its end are passed over.
pub fn could_end(wire: &[u8]) -> bool {
    let loose: Vec<u8> = wire.iter().copied().filter(|byte| *byte != 0).collect();
    let mut lines = loose.split(|byte| matches!(byte, b'\r' | b'\n'));
    // What follows the last line end is no line yet.
    lines.next_back();
    lines.any(|line| line.trim_ascii_end() == b".")
}

/// Decides what is done at a stage; the command or message is given with it.
pub type Mood = Box<dyn FnMut(Stage, &[u8]) -> Option<Act> + Send>;

struct State {
    lmtp: bool,
    keywords: Vec<String>,
    /// Its certificate, and when TLS begins.
    tls: Option<(Arc<Acceptor>, Begins)>,
    /// What it announces over TLS besides.
    inside: Vec<String>,
    mood: Mood,
    orders: Vec<(Stage, String, Act, usize)>,
    commands: Vec<(usize, String)>,
    seen: Vec<Seen>,
    sessions: usize,
}

/// A next hop. Clones are the same one.
#[derive(Clone)]
pub struct Hop(Arc<Mutex<State>>);

impl Hop {
    /// An SMTP server that announces this.
    pub fn smtp(keywords: &[&str]) -> Hop {
        Hop::new(false, keywords)
    }

    /// An LMTP server that announces this.
    pub fn lmtp(keywords: &[&str]) -> Hop {
        Hop::new(true, keywords)
    }

    fn new(lmtp: bool, keywords: &[&str]) -> Hop {
        Hop(Arc::new(Mutex::new(State {
            lmtp,
            keywords: keywords.iter().map(|&keyword| keyword.to_owned()).collect(),
            tls: None,
            inside: Vec::new(),
            mood: Box::new(|_, _| None),
            orders: Vec::new(),
            commands: Vec::new(),
            seen: Vec::new(),
            sessions: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on announces this.
    pub fn offers(&self, keywords: &[&str]) {
        self.state().keywords = keywords.iter().map(|&keyword| keyword.to_owned()).collect();
    }

    /// From now on speaks TLS, and announces this within it besides.
    pub fn speaks_tls(&self, acceptor: Acceptor, begins: Begins, inside: &[&str]) {
        let mut state = self.state();
        state.tls = Some((Arc::new(acceptor), begins));
        state.inside = inside.iter().map(|&keyword| keyword.to_owned()).collect();
    }

    /// From now on decides by itself where no order stands.
    pub fn moody(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// At this stage does that, always.
    pub fn at(&self, stage: Stage, act: Act) {
        self.order(stage, "", act, usize::MAX);
    }

    /// At this stage says that, always.
    pub fn says(&self, stage: Stage, reply: &str) {
        self.at(stage, Act::Say(format!("{reply}\r\n")));
    }

    /// At this stage, when the command or message contains this, does that, so many times.
    pub fn order(&self, stage: Stage, containing: &str, act: Act, times: usize) {
        self.state().orders.push((stage, containing.to_owned(), act, times));
    }

    /// Forgets all orders.
    pub fn behaves(&self) {
        self.state().orders.clear();
    }

    /// Each command so far, with its session.
    pub fn commands(&self) -> Vec<(usize, String)> {
        self.state().commands.clone()
    }

    /// The command lines so far, of all sessions.
    pub fn lines(&self) -> Vec<String> {
        self.state().commands.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The transactions so far, in the order of their ends.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Those that it took.
    pub fn taken(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.fate == Fate::Taken).collect()
    }

    /// How many connections there were.
    pub fn sessions(&self) -> usize {
        self.state().sessions
    }

    /// Listens on loopback until the runtime ends; gives `host:port`.
    pub async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hop = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(hop.clone().serve(stream));
            }
        });
        address
    }

    /// Serves one connection.
    pub async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let session = {
            let mut state = self.state();
            state.sessions += 1;
            state.sessions - 1
        };
        let tls = self.state().tls.clone();
        let stream = match tls.filter(|(_, begins)| *begins == Begins::AtOnce) {
            Some((acceptor, _)) => match acceptor.accept(stream).await {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
            None => tls::stream::Stream::Clear(stream),
        };
        let mut talk = Talk {
            hop: self,
            session,
            stream,
            input: Vec::new(),
            mail: None,
            rcpt: Vec::new(),
            xforward: Vec::new(),
        };
        let _: Result<(), Over> = talk.run().await;
    }

    fn act(&self, stage: Stage, text: &[u8]) -> Option<Act> {
        let mut state = self.state();
        let found = state.orders.iter_mut().find(|(at, containing, _, times)| {
            let inside = String::from_utf8_lossy(text).contains(containing.as_str());
            *at == stage && *times > 0 && inside
        });
        if let Some((_, _, act, times)) = found {
            *times -= 1;
            return Some(act.clone());
        }
        (state.mood)(stage, text)
    }
}

/// What an act at the final dot makes of the message.
fn fate(act: Option<&Act>) -> Fate {
    match act {
        None | Some(Act::Late(_) | Act::TakeAndClose | Act::Chatter(_)) => Fate::Taken,
        Some(Act::Say(said) | Act::SayAndClose(said)) => match said.starts_with('2') {
            true => Fate::Taken,
            false => Fate::Refused,
        },
        Some(_) => Fate::Broken,
    }
}

/// The connection has ended.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over
    }
}

struct Talk<S> {
    hop: Hop,
    session: usize,
    stream: tls::stream::Stream<S>,
    input: Vec<u8>,
    mail: Option<String>,
    rcpt: Vec<String>,
    xforward: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Talk<S> {
    async fn run(&mut self) -> Result<(), Over> {
        self.answer(Stage::Greeting, b"", "220 hop.example ESMTP\r\n").await?;
        loop {
            let line = self.line().await?;
            self.hop.state().commands.push((self.session, line.clone()));
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "LHLO" | "HELO" => self.hello(&line).await?,
                "STAR" => self.starttls(&line).await?,
                "AUTH" => self.auth(&line).await?,
                "XFOR" => {
                    if self.answer(Stage::Xforward, line.as_bytes(), "250 2.0.0 Ok\r\n").await? {
                        self.xforward.extend(line.split(' ').skip(1).map(str::to_owned));
                    }
                }
                "MAIL" if self.mail.is_some() => self.say("503 5.5.1 nested\r\n").await?,
                "MAIL" => {
                    if self.answer(Stage::Mail, line.as_bytes(), "250 2.1.0 Ok\r\n").await? {
                        self.mail = Some(line);
                    }
                }
                "RCPT" if self.mail.is_none() => self.say("503 5.5.1 no MAIL\r\n").await?,
                "RCPT" => {
                    if self.answer(Stage::Rcpt, line.as_bytes(), "250 2.1.5 Ok\r\n").await? {
                        self.rcpt.push(line);
                    }
                }
                "DATA" => self.data(&line).await?,
                "RSET" => {
                    self.clear();
                    self.answer(Stage::Rset, line.as_bytes(), "250 2.0.0 Ok\r\n").await?;
                }
                "QUIT" => {
                    self.answer(Stage::Quit, line.as_bytes(), "221 2.0.0 Bye\r\n").await?;
                    return Ok(());
                }
                _ => self.say("502 5.5.2 unknown\r\n").await?,
            }
        }
    }

    fn clear(&mut self) {
        self.mail = None;
        self.rcpt.clear();
        self.xforward.clear();
    }

    async fn starttls(&mut self, line: &str) -> Result<(), Over> {
        let Some((acceptor, _)) = self.hop.state().tls.clone() else {
            return self.say("502 5.5.2 unknown\r\n").await;
        };
        if self.answer(Stage::Starttls, line.as_bytes(), "220 2.0.0 go\r\n").await?
            && let Some(clear) = self.stream.take_clear()
        {
            (self.stream, _) = acceptor.accept(clear).await.map_err(|_| Over)?;
            self.clear();
        }
        Ok(())
    }

    /// Takes any name and password. With LOGIN it asks for both.
    async fn auth(&mut self, line: &str) -> Result<(), Over> {
        if line.eq_ignore_ascii_case("AUTH LOGIN") {
            for question in ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"] {
                if !self.answer(Stage::Auth, line.as_bytes(), question).await? {
                    return Ok(());
                }
                let line = self.line().await?;
                self.hop.state().commands.push((self.session, line));
            }
        }
        self.answer(Stage::Auth, line.as_bytes(), "235 2.7.0 welcome\r\n").await.map(drop)
    }

    async fn hello(&mut self, line: &str) -> Result<(), Over> {
        self.clear();
        let (lmtp, keywords) = {
            let state = self.hop.state();
            let more = match (&state.tls, &self.stream) {
                (None, _) => Vec::new(),
                (Some(_), tls::stream::Stream::Clear(_)) => vec!["STARTTLS".to_owned()],
                (Some(_), _) => state.inside.clone(),
            };
            (state.lmtp, state.keywords.iter().cloned().chain(more).collect::<Vec<_>>())
        };
        if lmtp != line.to_ascii_uppercase().starts_with("LHLO") {
            return self.say("500 5.5.1 the other protocol\r\n").await;
        }
        let lines: Vec<String> =
            std::iter::once("hop.example".to_owned()).chain(keywords).collect();
        let last = lines.len() - 1;
        let mark = |at: usize| if at == last { ' ' } else { '-' };
        let reply: String = lines
            .iter()
            .enumerate()
            .map(|(at, text)| format!("250{}{text}\r\n", mark(at)))
            .collect();
        self.answer(Stage::Hello, line.as_bytes(), &reply).await.map(drop)
    }

    async fn data(&mut self, line: &str) -> Result<(), Over> {
        let Some(mail) = self.mail.clone() else {
            return self.say("503 5.5.1 no MAIL\r\n").await;
        };
        let usual = match self.rcpt.is_empty() {
            true => "554 5.5.1 no valid recipients\r\n",
            false => "354 go ahead\r\n",
        };
        if !self.answer(Stage::Data, line.as_bytes(), usual).await? || self.rcpt.is_empty() {
            return Ok(());
        }
        let mut seen = Seen {
            session: self.session,
            mail,
            rcpt: self.rcpt.clone(),
            xforward: std::mem::take(&mut self.xforward),
            wire: Vec::new(),
            fate: Fate::Broken,
        };
        let came = self.content().await;
        let whole = came.is_ok();
        seen.wire = came.unwrap_or_else(|()| std::mem::take(&mut self.input));
        let number = {
            let mut state = self.hop.state();
            state.seen.push(seen);
            state.seen.len() - 1
        };
        match whole {
            true => self.dot(number).await?,
            false => return Err(Over),
        }
        self.clear();
        Ok(())
    }

    /// The bytes before CRLF.CRLF; an error when the connection ends before, or is to.
    async fn content(&mut self) -> Result<Vec<u8>, ()> {
        let mut due = match self.hop.act(Stage::Content, &self.input) {
            Some(Act::After(bytes, act)) => Some((bytes, *act)),
            _ => None,
        };
        let mut looked = 0;
        loop {
            if let Some((bytes, act)) = due.take_if(|(bytes, _)| self.input.len() >= *bytes)
                && self.do_it(Some(act), "").await.is_err()
            {
                // What came behind, the final dot maybe, it has not read.
                self.input.truncate(bytes);
                return Err(());
            }
            if self.input.starts_with(b".\r\n") {
                self.input.drain(..3);
                return Ok(Vec::new());
            }
            let from = looked.min(self.input.len());
            if let Some(at) = self.input[from..].windows(5).position(|five| five == b"\r\n.\r\n") {
                let rest = self.input.split_off(from + at + 5);
                let mut content = std::mem::replace(&mut self.input, rest);
                content.truncate(from + at + 2);
                return Ok(content);
            }
            looked = self.input.len().saturating_sub(4);
            self.more().await.map_err(|_| ())?;
        }
    }

    /// What becomes of it is noted before a word is said: whoever hears it finds it true.
    async fn dot(&mut self, number: usize) -> Result<(), Over> {
        let ok = "250 2.0.0 Ok: queued as HOP\r\n";
        let (lmtp, wire) = {
            let state = self.hop.state();
            (state.lmtp, state.seen[number].wire.clone())
        };
        if !lmtp {
            let act = self.hop.act(Stage::Dot, &wire);
            self.hop.state().seen[number].fate = fate(act.as_ref());
            return self.do_it(act, ok).await;
        }
        let all = std::mem::take(&mut self.hop.state().seen[number].rcpt);
        for (at, rcpt) in all.into_iter().enumerate() {
            let act = self.hop.act(Stage::Dot, rcpt.as_bytes());
            let fate = fate(act.as_ref());
            {
                let seen = &mut self.hop.state().seen[number];
                match fate {
                    Fate::Taken => {
                        seen.fate = Fate::Taken;
                        seen.rcpt.push(rcpt);
                    }
                    Fate::Refused if at == 0 => seen.fate = Fate::Refused,
                    _ => {}
                }
            }
            self.do_it(act, ok).await?;
        }
        Ok(())
    }

    /// Does what is to be done at this stage; whether it is the duty, or as good as.
    async fn answer(&mut self, stage: Stage, text: &[u8], usual: &str) -> Result<bool, Over> {
        let act = self.hop.act(stage, text);
        let done = match &act {
            Some(Act::Say(said)) => said.starts_with(['2', '3']),
            _ => true,
        };
        self.do_it(act, usual).await?;
        Ok(done)
    }

    async fn do_it(&mut self, act: Option<Act>, usual: &str) -> Result<(), Over> {
        match act {
            None => self.say(usual).await,
            Some(Act::Say(said)) => self.say(&said).await,
            Some(Act::Chatter(more)) => self.say(&format!("{usual}{more}")).await,
            Some(Act::Late(time)) => {
                sleep(time).await;
                self.say(usual).await
            }
            Some(Act::SayAndClose(said)) => {
                self.say(&said).await?;
                Err(Over)
            }
            Some(Act::Endless(said)) => loop {
                self.say(said).await?;
            },
            Some(Act::Drip(pause)) => {
                for byte in "250 2.0.0 Ok, but all in its own good time\r\n".chars() {
                    sleep(pause).await;
                    self.say(byte.encode_utf8(&mut [0; 4])).await?;
                }
                Err(Over)
            }
            Some(Act::Stall) => loop {
                self.more().await?;
            },
            Some(Act::Close | Act::TakeAndClose | Act::After(..)) => Err(Over),
        }
    }

    async fn say(&mut self, reply: &str) -> Result<(), Over> {
        self.stream.write_all(reply.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn more(&mut self) -> Result<(), Over> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(Over),
            _ => Ok(()),
        }
    }

    /// A command line, without its CRLF.
    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(at) = self.input.iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(at + 1);
                let line = std::mem::replace(&mut self.input, rest);
                let line = line.strip_suffix(b"\r\n").expect("commands end in CRLF");
                return Ok(String::from_utf8(line.to_vec()).unwrap());
            }
            self.more().await?;
        }
    }
}

/// How a next hop can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It can.
    Up,
    /// Connections are refused.
    Refuses,
    /// Connections are never made.
    Silent,
}

/// Next hops in memory, by `host:port`, and the connections to them. Clones are the same net.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<NetState>>);

#[derive(Default)]
struct NetState {
    hops: BTreeMap<String, (Hop, Reach)>,
    open: usize,
    most: usize,
    tried: usize,
}

impl Net {
    /// A net with these next hops.
    pub fn of(hops: &[(&str, &Hop)]) -> Net {
        let net = Net::default();
        let hops = hops.iter().map(|(name, hop)| ((*name).to_owned(), ((*hop).clone(), Reach::Up)));
        net.0.lock().unwrap().hops = hops.collect();
        net
    }

    /// From now on it can be reached so.
    pub fn set(&self, name: &str, reach: Reach) {
        self.0.lock().unwrap().hops.get_mut(name).unwrap().1 = reach;
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.0.lock().unwrap().open
    }

    /// The most that were open at once.
    pub fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    /// How often a connection was tried.
    pub fn tried(&self) -> usize {
        self.0.lock().unwrap().tried
    }
}

impl Connect for Net {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        let net = self.clone();
        let found = {
            let mut state = self.0.lock().unwrap();
            state.tried += 1;
            state.hops.get(&endpoint.to_string()).cloned()
        };
        Box::pin(async move {
            match found {
                Some((hop, Reach::Up)) => {
                    let (ours, theirs) = duplex(64 * 1024);
                    tokio::spawn(hop.serve(theirs));
                    Ok(Box::new(Counted::new(ours, net)) as Box<dyn Stream>)
                }
                Some((_, Reach::Silent)) => std::future::pending().await,
                Some((_, Reach::Refuses)) | None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// The guard's end of a connection.
struct Counted {
    stream: DuplexStream,
    net: Net,
}

impl Counted {
    fn new(stream: DuplexStream, net: Net) -> Counted {
        {
            let mut state = net.0.lock().unwrap();
            state.open += 1;
            state.most = state.most.max(state.open);
        }
        Counted { stream, net }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.net.0.lock().unwrap().open -= 1;
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
