//! A small SMTP client: speaks raw lines, plays a remote host, sends mail.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::PATIENCE;

/// How a server lets a test pretend that it is some other host.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    /// Postfix: the XCLIENT command.
    Xclient(SocketAddr),
    /// Exim: the first line of the PROXY protocol, version 1.
    Proxy(SocketAddr),
    /// A port that sees us as we are.
    Plain(SocketAddr),
}

/// A reply: all its lines, without line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub lines: Vec<String>,
}

impl Reply {
    /// Three digits; 0 when the server closed the connection instead.
    pub fn code(&self) -> u16 {
        let digits = self.lines.last().and_then(|line| line.get(..3));
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    pub fn positive(&self) -> bool {
        (200..400).contains(&self.code())
    }
}

/// A message as it is sent.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Without brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// Address, and what follows it: `NOTIFY=SUCCESS`.
    pub recipients: Vec<(String, String)>,
    /// Parameters of MAIL.
    pub parameters: String,
    /// Lines end in CRLF; dots not stuffed.
    pub message: Vec<u8>,
}

impl Mail {
    pub fn new(reverse_path: &str, recipients: &[&str], message: impl Into<Vec<u8>>) -> Self {
        let plain = |&address: &&str| (address.to_owned(), String::new());
        Self {
            reverse_path: reverse_path.to_owned(),
            recipients: recipients.iter().map(plain).collect(),
            parameters: String::new(),
            message: message.into(),
        }
    }
}

/// What the server said to a message.
#[derive(Clone, Debug)]
pub struct Answer {
    /// To each recipient, in their order; missing when it did not come so far.
    pub recipients: Vec<Reply>,
    /// Whether the whole message was sent.
    pub is_whole: bool,
    /// The last word: to the message, or to the command that ended the transaction.
    pub last: Reply,
}

impl Answer {
    pub fn accepted(&self) -> bool {
        self.last.code() == 250
    }
}

pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Client {
    /// Connects, without waiting for the greeting.
    pub fn connect(server: SocketAddr) -> Self {
        let writer = TcpStream::connect(server).unwrap();
        writer.set_nodelay(true).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    /// Greets as a client of our own network.
    pub fn open(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.expect_prefix("220");
        client.command("EHLO client.ours.example").must();
        client
    }

    /// The same with a server that may not be there, or may not answer in this time.
    pub fn try_open(server: SocketAddr, patience: Duration) -> Option<Self> {
        let writer = TcpStream::connect(server).ok()?;
        writer.set_nodelay(true).ok()?;
        writer.set_read_timeout(Some(patience)).ok()?;
        let mut client = Self { reader: BufReader::new(writer.try_clone().ok()?), writer };
        let greets = client.reply().code() == 220;
        (greets && client.command("EHLO client.ours.example").code() == 250).then_some(client)
    }

    /// Greets as the host of this name and address.
    pub fn from_outside(door: Door, address: &str, name: &str) -> Self {
        match door {
            Door::Plain(server) => Self::open(server),
            Door::Xclient(server) => {
                let mut client = Self::open(server);
                client.command(&format!("XCLIENT NAME=[UNAVAILABLE] ADDR={address}")).must();
                client.command(&format!("EHLO {name}")).must();
                client
            }
            Door::Proxy(server) => {
                let mut client = Self::connect(server);
                let port = server.port();
                client.say(&format!("PROXY TCP4 {address} 127.0.0.1 40000 {port}"));
                client.expect_prefix("220");
                client.command(&format!("EHLO {name}")).must();
                client
            }
        }
    }

    /// What it speaks over, to speak TLS.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.reader.buffer().is_empty(), "something came that nobody read");
        self.writer
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        // A server that has closed shows in the missing reply.
        let _ = self.writer.write_all(bytes);
    }

    /// Sends a line, adding CRLF.
    pub fn say(&mut self, line: &str) {
        self.bytes(format!("{line}\r\n").as_bytes());
    }

    /// Reads a reply with all its lines; none when the server closes the connection.
    pub fn reply(&mut self) -> Reply {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).is_err() || line.is_empty() {
                return Reply { lines };
            }
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line.trim_end().to_owned());
            if !more {
                return Reply { lines };
            }
        }
    }

    pub fn command(&mut self, line: &str) -> Reply {
        self.say(line);
        self.reply()
    }

    pub fn expect(&mut self, reply: &str) {
        assert_eq!(self.reply().text(), reply);
    }

    pub fn expect_prefix(&mut self, prefix: &str) {
        let reply = self.reply().text();
        assert!(reply.starts_with(prefix), "expected {prefix:?}, got {reply:?}");
    }

    /// Nothing comes for this time.
    pub fn expect_silence(&mut self, time: Duration) {
        self.writer.set_read_timeout(Some(time)).unwrap();
        assert_eq!(self.reply().lines, Vec::<String>::new());
        self.writer.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Nothing more comes: the server has closed the connection.
    pub fn expect_closed(&mut self) {
        assert_eq!(self.reply().lines, Vec::<String>::new());
    }

    /// A dialogue, a step a line: `> send`, `< expect exactly`, `<~ expect this prefix`.
    pub fn dialogue(&mut self, script: &str) {
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                (">", text) => self.say(text),
                ("<", text) => self.expect(text),
                ("<~", text) => self.expect_prefix(text),
                _ => panic!("not a step of a dialogue: {line:?}"),
            }
        }
    }

    /// Sends a message, command by command, and gives what the server said.
    pub fn send(&mut self, mail: &Mail) -> Answer {
        let last = Reply { lines: Vec::new() };
        let mut answer = Answer { recipients: Vec::new(), is_whole: false, last };
        let parameters = format!(" {}", mail.parameters);
        answer.last =
            self.command(format!("MAIL FROM:<{}>{parameters}", mail.reverse_path).trim_end());
        if !answer.last.positive() {
            return answer;
        }
        for (address, parameters) in &mail.recipients {
            let reply = self.command(format!("RCPT TO:<{address}> {parameters}").trim_end());
            answer.recipients.push(reply);
        }
        if !answer.recipients.iter().any(Reply::positive) {
            answer.last = answer.recipients.last().cloned().unwrap_or(answer.last);
            self.command("RSET");
            return answer;
        }
        answer.last = self.command("DATA");
        if answer.last.code() == 354 {
            self.bytes(&stuffed(&mail.message));
            answer.is_whole = true;
            answer.last = self.reply();
        }
        answer
    }

    /// Sends all of a message without waiting for an answer, and leaves after a while. The server
    /// must take pipelined commands.
    pub fn send_and_leave(mut self, mail: &Mail, after: Duration) {
        let mut bytes = format!("MAIL FROM:<{}>\r\n", mail.reverse_path);
        for (address, _) in &mail.recipients {
            bytes.push_str(&format!("RCPT TO:<{address}>\r\n"));
        }
        bytes.push_str("DATA\r\n");
        self.bytes(bytes.as_bytes());
        self.writer.set_read_timeout(Some(after)).unwrap();
        for _ in 0..mail.recipients.len() + 2 {
            if !self.reply().positive() {
                return;
            }
        }
        self.bytes(&stuffed(&mail.message));
        self.reply();
    }

    /// Sends a message that the server must take.
    pub fn deliver(&mut self, mail: &Mail) {
        let answer = self.send(mail);
        assert!(answer.accepted(), "not accepted: {answer:?}");
    }
}

/// Sends many messages over some connections at once; gives the answers in the order of the mails.
/// A connection that breaks is opened anew once for each message, as a mail server would.
pub fn flood(door: Door, connections: usize, mails: &[Mail]) -> Vec<Answer> {
    let share = mails.len().div_ceil(connections.max(1)).max(1);
    let send_all = |mails: &[Mail]| -> Vec<Answer> {
        let open = || Client::from_outside(door, "192.0.2.99", "mail.flood.example");
        let mut client = open();
        let mut answers = Vec::with_capacity(mails.len());
        for mail in mails {
            let mut answer = client.send(mail);
            if answer.last.code() == 0 || answer.last.code() == 421 {
                client = open();
                answer = client.send(mail);
            }
            answers.push(answer);
        }
        answers
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            mails.chunks(share).map(|mails| scope.spawn(|| send_all(mails))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

impl Reply {
    /// The server must have said yes.
    pub fn must(self) -> Self {
        assert!(self.positive(), "refused: {:?}", self.text());
        self
    }
}

/// The message with dots doubled at the beginnings of lines, and its end (RFC 5321 §4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[test]
fn dots_are_doubled_and_the_end_is_added() {
    assert_eq!(stuffed(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n");
    assert_eq!(stuffed(b"no end"), b"no end\r\n.\r\n");
}
