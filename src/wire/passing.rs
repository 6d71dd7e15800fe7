//! The SMTP pass-through: what a client and a server say to one another, with us in between.
//!
//! Takes: bytes of both, cut anywhere. Gives: `Act`s. Everything passes unchanged but for four
//! things: the server's EHLO keywords that would hide the mail from us are left out, and commands
//! for them refused; STARTTLS is ours; the final dot waits until it is released; and content whose
//! end is ambiguous is refused (SMTP smuggling).
//! Errors: none; a server that speaks no SMTP ends the conversation.
//! Bounds: `limits::PENDING_REPLIES_MAX` commands without reply, `limits::RECIPIENTS_MAX`; those of
//! `wire::line` and `wire::kept`.
//! Standards: RFC 5321 §4.1, RFC 2920, RFC 3207, RFC 8689, RFC 3030 (left out), Postfix's XCLIENT.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::mail::address::Address;
use crate::mail::envelope::{MailFrom, Recipient};
use crate::mail::limits::{PENDING_REPLIES_MAX, RECIPIENTS_MAX};
use crate::mail::message::Kept;
use crate::mail::reply::Reply;
use crate::wire::command::Command;
use crate::wire::kept::Keeper;
use crate::wire::line::{Content, ContentReader, LineFault, LineReader};
use crate::wire::secure::{Channel, NO_REQUIRETLS, Refused, Said, Starttls, TLS_FIRST, ready};
use crate::wire::smtp_client::{Dots, ReplyReader, Stuffer};

/// EHLO keywords that are left out: behind them we would see nothing, or a client could pretend
/// to be another.
const LEFT_OUT: &[&str] =
    &["STARTTLS", "AUTH", "CHUNKING", "BINARYMIME", "BURL", "XCLIENT", "XFORWARD", "ETRN"];

/// What the driver does next.
#[derive(Debug)]
pub enum Act {
    /// Send this to the server.
    ToServer(Bytes),
    /// Send this to the client.
    ToClient(Bytes),
    /// A message is whole but for its final dot, which `Passing::release` gives.
    Whole(Box<Passed>),
    /// The server took the message that was whole last; the queue id, where it said one.
    Taken(Option<String>),
    /// It did not.
    Refused,
    /// Say this to the client, and then nothing in the clear: the handshake comes. Say `secured`
    /// after it. What the client sent along behind the command must not be read as commands.
    StartTls(Bytes),
    /// The conversation is over.
    Close,
}

/// A message that passes.
#[derive(Clone, Debug)]
pub struct Passed {
    /// What the client called itself.
    pub helo: String,
    /// MAIL; `None` when it could not be read, and the server accepted it all the same.
    pub mail: Option<MailFrom>,
    /// Those of RCPT that were accepted.
    pub recipients: Vec<Address>,
    /// What was kept of the message.
    pub message: Bytes,
    /// How much that is.
    pub kept: Kept,
}

/// The conversation.
#[derive(Debug)]
pub struct Passing {
    mode: Mode,
    lines: LineReader,
    replies: ReplyReader,
    /// What the next replies of the server are for, in order.
    expected: VecDeque<Expected>,
    acts: VecDeque<Act>,
    helo: String,
    /// The server's own name, from its greeting.
    host: String,
    transaction: Option<Transaction>,
    body_bytes_max: usize,
    starttls: Starttls,
    /// Between the client and us.
    client_channel: Channel,
    /// Between us and the server.
    server_channel: Channel,
    /// Whether the client has made the handshake and not said hello since.
    needs_hello: bool,
}

#[derive(Debug)]
enum Mode {
    Commands,
    /// STARTTLS was said: nothing the client says before the handshake is read.
    Securing,
    /// DATA was said: what the client says next depends on the reply.
    AwaitingData,
    Content(Box<Open>),
    /// The final dot is held.
    Holding(Stuffer),
    Over,
}

/// Content on its way.
#[derive(Debug)]
struct Open {
    reader: ContentReader,
    stuffer: Stuffer,
    keeper: Keeper,
}

#[derive(Debug)]
struct Transaction {
    mail: Option<MailFrom>,
    recipients: Vec<Address>,
}

/// What a reply is for.
#[derive(Debug)]
enum Expected {
    Greeting,
    Hello(String, Greeting),
    StartTls,
    Mail(Option<MailFrom>),
    Rcpt(Option<Recipient>),
    Data,
    Final,
    Reset,
    Other,
    /// No reply of the server: ours, which waits for its turn.
    Own(Reply),
}

/// How a client greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Helo,
    Ehlo,
}

impl Passing {
    /// A conversation in which the server has not greeted yet.
    pub fn new(body_bytes_max: usize) -> Passing {
        Passing {
            mode: Mode::Commands,
            lines: LineReader::default(),
            replies: ReplyReader::default(),
            expected: VecDeque::from([Expected::Greeting]),
            acts: VecDeque::new(),
            helo: String::new(),
            host: String::new(),
            transaction: None,
            body_bytes_max,
            starttls: Starttls::Off,
            client_channel: Channel::Clear,
            server_channel: Channel::Clear,
            needs_hello: false,
        }
    }

    /// The same where TLS is offered, or is there: to the client, to the server.
    pub fn over(self, starttls: Starttls, client: Channel, server: Channel) -> Passing {
        Passing { starttls, client_channel: client, server_channel: server, ..self }
    }

    /// The handshake with the client was made. What it said before is forgotten (RFC 3207 §4.2): it
    /// says hello again before anything else.
    pub fn secured(&mut self) {
        self.client_channel = Channel::Encrypted;
        self.lines = LineReader::default();
        (self.mode, self.helo, self.needs_hello) = (Mode::Commands, String::new(), true);
    }

    /// The server's own name; empty before it greeted.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the client's bytes can be used now.
    pub fn wants_client(&self) -> bool {
        match self.mode {
            Mode::Commands => self.expected.len() < PENDING_REPLIES_MAX,
            Mode::Content(_) => true,
            Mode::Securing | Mode::AwaitingData | Mode::Holding(_) | Mode::Over => false,
        }
    }

    /// Whether a transaction is open, or the server owes a reply.
    pub fn is_busy(&self) -> bool {
        self.transaction.is_some() || !self.expected.is_empty()
    }

    /// Whether the server owes a reply.
    pub fn is_owed(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Bytes of the message that are kept at this moment.
    pub fn kept_bytes(&self) -> usize {
        match &self.mode {
            Mode::Content(open) => open.keeper.len(),
            _ => 0,
        }
    }

    /// Lets go of the body that was kept.
    pub fn give_up_body(&mut self) {
        if let Mode::Content(open) = &mut self.mode {
            open.keeper.give_up_body();
        }
    }

    /// The final dot, which was held.
    pub fn release(&mut self) -> Bytes {
        let mut out = Vec::new();
        if let Mode::Holding(stuffer) = &mut self.mode {
            stuffer.end(&mut out);
            self.mode = Mode::Commands;
            self.expected.push_back(Expected::Final);
        }
        Bytes::from(out)
    }

    /// What comes of the client's bytes; `None` when more are needed, or the server's first.
    pub fn from_client(&mut self, input: &mut BytesMut) -> Option<Act> {
        if let Some(act) = self.acts.pop_front() {
            return Some(act);
        }
        if !self.wants_client() {
            return None;
        }
        match &mut self.mode {
            Mode::Content(open) => match open.reader.next(input)? {
                Content::Bytes(bytes) => {
                    open.keeper.push(&bytes);
                    let mut out = Vec::with_capacity(bytes.len() + 64);
                    open.stuffer.stuff(&bytes, Dots::Possible, &mut out);
                    Some(Act::ToServer(Bytes::from(out)))
                }
                Content::Ambiguous => {
                    let text = "a line end could be read in two ways: send the message anew";
                    Some(self.end(&Reply::new(554, "5.6.0", text)))
                }
                Content::End => self.whole(),
            },
            _ => {
                let line = self.lines.next(input)?;
                self.command(line);
                self.acts.pop_front().or_else(|| self.from_client(input))
            }
        }
    }

    /// What comes of the server's bytes; `None` when more are needed.
    pub fn from_server(&mut self, input: &mut BytesMut) -> Option<Act> {
        if let Some(act) = self.acts.pop_front() {
            return Some(act);
        }
        match self.replies.next(input)? {
            Ok(reply) => self.answered(reply),
            Err(_) => {
                let text = "the server behind speaks no SMTP";
                let act = self.end(&Reply::new(421, "4.3.0", text));
                self.acts.push_front(act);
            }
        }
        self.acts.pop_front().or_else(|| self.from_server(input))
    }

    fn command(&mut self, line: Result<Bytes, LineFault>) {
        let line = match line {
            Ok(line) => line,
            Err(fault) => return self.refuse(500, "5.5.2", &fault.to_string()),
        };
        let command = Command::parse(&line);
        if let Some((code, enhanced, text)) = self.refused(command.as_ref().ok()) {
            return self.refuse(code, enhanced, text);
        }
        let expected = match command {
            Ok(Command::NotImplemented(_) | Command::Xforward(_) | Command::Lhlo(_)) => {
                return self.refuse(502, "5.5.1", "not offered here");
            }
            Ok(Command::StartTls) => {
                self.mode = Mode::Securing;
                self.expected.push_back(Expected::StartTls);
                return self.say_own();
            }
            Ok(Command::Helo(name)) => Expected::Hello(name, Greeting::Helo),
            Ok(Command::Ehlo(name)) => Expected::Hello(name, Greeting::Ehlo),
            Ok(Command::Mail(mail)) => Expected::Mail(Some(mail)),
            Ok(Command::Rcpt(recipient)) => Expected::Rcpt(Some(recipient)),
            Ok(Command::Data) => {
                self.mode = Mode::AwaitingData;
                Expected::Data
            }
            Ok(Command::Rset) => Expected::Reset,
            Ok(_) => Expected::Other,
            // Why passed on: the server may understand what we do not.
            Err(_) => match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_slice() {
                b"MAIL" => Expected::Mail(None),
                b"RCPT" => Expected::Rcpt(None),
                _ => Expected::Other,
            },
        };
        self.expected.push_back(expected);
        let line = [&line[..], b"\r\n"].concat();
        self.acts.push_back(Act::ToServer(Bytes::from(line)));
    }

    /// What TLS has to say against a command; `None` for one that cannot be read.
    fn refused(&self, command: Option<&Command>) -> Option<Refused> {
        if self.starttls.must_precede(self.client_channel, command) {
            return Some(TLS_FIRST);
        }
        match command? {
            Command::StartTls => self.starttls.refused(self.client_channel, self.said()),
            Command::Mail(_) | Command::Rcpt(_) | Command::Data if self.needs_hello => {
                Some((503, "5.5.1", "say hello first"))
            }
            Command::Mail(mail) if mail.parameters.has("REQUIRETLS") && !self.may_require_tls() => {
                Some(NO_REQUIRETLS)
            }
            _ => None,
        }
    }

    /// HELO is not told from EHLO here.
    fn said(&self) -> Said {
        match (&self.transaction, self.helo.is_empty()) {
            (Some(_), _) => Said::Mail,
            (None, true) => Said::Nothing,
            (None, false) => Said::Ehlo,
        }
    }

    /// RFC 8689 §4.2: over TLS with the client, and with a server that showed who it is.
    fn may_require_tls(&self) -> bool {
        self.client_channel.is_encrypted() && self.server_channel == Channel::Verified
    }

    fn answered(&mut self, reply: Reply) {
        let is_positive = reply.is_positive();
        let mut wire = reply.wire().clone();
        match self.expected.pop_front() {
            Some(Expected::Greeting) => {
                self.host = reply.text().split(' ').next().unwrap_or_default().to_owned();
                if !is_positive {
                    self.mode = Mode::Over;
                }
            }
            Some(Expected::Hello(name, greeting)) if is_positive => {
                (self.helo, self.transaction, self.needs_hello) = (name, None, false);
                wire = self.hello(&reply, greeting);
            }
            Some(Expected::Mail(mail)) if is_positive => {
                self.transaction = Some(Transaction { mail, recipients: Vec::new() });
            }
            Some(Expected::Rcpt(recipient)) if is_positive => {
                let address = recipient.and_then(|recipient| recipient.path.address().cloned());
                if let (Some(open), Some(address)) = (&mut self.transaction, address)
                    && open.recipients.len() < RECIPIENTS_MAX
                {
                    open.recipients.push(address);
                }
            }
            Some(Expected::Data) => {
                self.mode = match reply.code() {
                    354 => Mode::Content(Box::new(Open {
                        reader: ContentReader::default(),
                        stuffer: Stuffer::default(),
                        keeper: Keeper::new(self.body_bytes_max),
                    })),
                    _ => Mode::Commands,
                };
            }
            Some(Expected::Final) => self.acts.push_back(match is_positive {
                true => Act::Taken(queue_id(&reply.text())),
                false => Act::Refused,
            }),
            Some(Expected::Reset) => self.transaction = None,
            // Why the end: a 354 nobody asked for, or a reply to nothing: who speaks to whom is lost.
            Some(Expected::Other) if reply.code() == 354 => self.mode = Mode::Over,
            None => self.mode = Mode::Over,
            _ => {}
        }
        self.acts.push_back(Act::ToClient(wire));
        // Why 221 too: the server closes behind it, and the client has heard its last word.
        if matches!(reply.code(), 221 | 421) || matches!(self.mode, Mode::Over) {
            self.mode = Mode::Over;
            self.acts.push_back(Act::Close);
        }
        self.say_own();
    }

    /// Says our own replies whose turn it is.
    fn say_own(&mut self) {
        while let Some(Expected::Own(reply)) = self.expected.front() {
            self.acts.push_back(Act::ToClient(reply.wire().clone()));
            self.expected.pop_front();
        }
        if let Some(Expected::StartTls) = self.expected.front() {
            self.expected.pop_front();
            self.acts.push_back(Act::StartTls(ready().wire().clone()));
        }
    }

    /// The reply to a greeting, with our own STARTTLS and without what is left out.
    fn hello(&self, reply: &Reply, greeting: Greeting) -> Bytes {
        let offered = self.starttls.is_offered_over(self.client_channel);
        let added = (offered && greeting == Greeting::Ehlo).then_some("STARTTLS");
        let requiretls = (!self.may_require_tls()).then_some("REQUIRETLS");
        with_keywords(reply, added, requiretls)
    }

    fn refuse(&mut self, code: u16, enhanced: &str, text: &str) {
        self.expected.push_back(Expected::Own(Reply::new(code, enhanced, text)));
        self.say_own();
    }

    fn whole(&mut self) -> Option<Act> {
        let Mode::Content(open) = std::mem::replace(&mut self.mode, Mode::Over) else {
            return None;
        };
        self.mode = Mode::Holding(open.stuffer);
        let transaction = self.transaction.take();
        let (message, kept) = open.keeper.finish();
        let (mail, recipients) =
            transaction.map(|open| (open.mail, open.recipients)).unwrap_or_default();
        let helo = self.helo.clone();
        Some(Act::Whole(Box::new(Passed { helo, mail, recipients, message, kept })))
    }

    /// Says a last word to the client; the server hears nothing, and drops what it has.
    fn end(&mut self, reply: &Reply) -> Act {
        self.mode = Mode::Over;
        self.acts.clear();
        self.acts.push_back(Act::Close);
        Act::ToClient(reply.wire().clone())
    }
}

/// The reply to EHLO, less the keywords that are left out and this one; with one of ours.
fn with_keywords(reply: &Reply, added: Option<&str>, removed: Option<&str>) -> Bytes {
    let text = String::from_utf8_lossy(reply.wire()).into_owned();
    let is_kept = |(index, line): &(usize, &str)| {
        let keyword = line.get(4..).unwrap_or_default().split([' ', '=']).next();
        let keyword = keyword.unwrap_or_default();
        let mut left_out = LEFT_OUT.iter().copied().chain(removed);
        *index == 0 || !left_out.any(|word| word.eq_ignore_ascii_case(keyword))
    };
    let mut lines: Vec<&str> =
        text.lines().enumerate().filter(is_kept).map(|(_, line)| line).collect();
    let added = added.map(|word| format!("250 {word}"));
    lines.extend(added.as_deref());
    let mut wire = String::with_capacity(text.len());
    for (index, line) in lines.iter().enumerate() {
        let mark = if index + 1 == lines.len() { ' ' } else { '-' };
        let (code, rest) = (line.get(..3).unwrap_or("250"), line.get(4..).unwrap_or_default());
        wire.push_str(&format!("{code}{mark}{rest}\r\n"));
    }
    Bytes::from(wire)
}

/// The queue id in what servers say to a message: `Ok: queued as 4ABC`, `OK id=1abc-2`.
fn queue_id(text: &str) -> Option<String> {
    let behind = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    let rest = behind("queued as ").or_else(|| behind("id="))?;
    let id: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both ends, scripted: what each was told, and the messages that passed.
    struct Ends {
        passing: Passing,
        to_client: String,
        to_server: String,
        passed: Vec<Passed>,
        taken: Vec<Option<String>>,
        closed: bool,
    }

    impl Ends {
        fn new() -> Ends {
            let passing = Passing::new(1000);
            let (to_client, to_server) = (String::new(), String::new());
            Ends { passing, to_client, to_server, passed: vec![], taken: vec![], closed: false }
        }

        fn act(&mut self, act: Act) {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            match act {
                Act::ToServer(bytes) => self.to_server.push_str(&text(&bytes)),
                Act::ToClient(bytes) => self.to_client.push_str(&text(&bytes)),
                Act::Whole(passed) => {
                    self.passed.push(*passed);
                    let dot = self.passing.release();
                    self.to_server.push_str(&text(&dot));
                }
                Act::Taken(id) => self.taken.push(id),
                Act::Refused => {}
                Act::StartTls(bytes) => {
                    self.to_client.push_str(&text(&bytes));
                    self.passing.secured();
                }
                Act::Close => self.closed = true,
            }
        }

        /// Each line: `c text` from the client, `s text` from the server.
        fn play(&mut self, script: &[&str]) {
            let (mut client, mut server) = (BytesMut::new(), BytesMut::new());
            for line in script {
                let (who, text) = line.split_at(2);
                let buffer = if who == "c " { &mut client } else { &mut server };
                buffer.extend_from_slice(text.as_bytes());
                buffer.extend_from_slice(b"\r\n");
                loop {
                    let act = self.passing.from_client(&mut client);
                    let act = act.or_else(|| self.passing.from_server(&mut server));
                    let Some(act) = act else { break };
                    self.act(act);
                }
            }
        }
    }

    const HELLO: &[&str] = &[
        "s 220 mx.ours.example ESMTP Exim",
        "c EHLO far.example",
        "s 250-mx.ours.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 CHUNKING",
    ];

    #[test]
    fn a_message_passes_unchanged_and_is_told() {
        let mut ends = Ends::new();
        ends.play(HELLO);
        assert!(ends.to_client.ends_with("250-SIZE 1000\r\n250 PIPELINING\r\n"));
        ends.to_server.clear();
        let content = "c DKIM-Signature: x\r\n\r\n..a\r\n.\r\nQUIT";
        ends.play(&[
            "c MAIL FROM:<joe@far.example> SIZE=10\r\nRCPT TO:<a@ours.example>",
            "c RCPT TO:<b@ours.example>\r\nDATA",
            "s 250 Ok\r\n250 Ok\r\n550 No",
            "s 354 Go",
            content,
            "s 250 2.0.0 Ok: queued as 4ABC",
            "s 221 Bye",
        ]);
        let wanted = "MAIL FROM:<joe@far.example> SIZE=10\r\nRCPT TO:<a@ours.example>\r\n\
            RCPT TO:<b@ours.example>\r\nDATA\r\nDKIM-Signature: x\r\n\r\n..a\r\n.\r\nQUIT\r\n";
        assert_eq!(ends.to_server, wanted);
        let passed = &ends.passed[0];
        assert_eq!(&passed.message[..], b"DKIM-Signature: x\r\n\r\n.a\r\n");
        assert_eq!(passed.mail.as_ref().unwrap().path.to_string(), "joe@far.example");
        let recipients: Vec<&str> = passed.recipients.iter().map(Address::as_str).collect();
        assert_eq!(recipients, ["a@ours.example"]);
        assert_eq!(passed.helo, "far.example");
        assert_eq!(ends.taken, [Some("4ABC".to_owned())]);
        assert_eq!(ends.passing.host(), "mx.ours.example");
        assert!(ends.to_client.ends_with("queued as 4ABC\r\n221 Bye\r\n"));
    }

    #[test]
    fn what_would_hide_the_mail_is_refused_in_its_turn() {
        let mut ends = Ends::new();
        ends.play(HELLO);
        ends.to_client.clear();
        ends.play(&[
            "c NOOP\r\nSTARTTLS\r\nBDAT 4 LAST\r\nXCLIENT ADDR=1\r\nNOOP",
            "s 250 one\r\n250 two",
        ]);
        let codes: Vec<&str> = ends.to_client.lines().filter_map(|line| line.get(..7)).collect();
        assert_eq!(codes, ["250 one", "502 5.5", "502 5.5", "502 5.5", "250 two"]);
        assert!(!ends.to_server.contains("STARTTLS"));
    }

    #[test]
    fn starttls_is_ours_and_hello_is_said_again() {
        let mut ends = Ends::new();
        ends.passing =
            Passing::new(1000).over(Starttls::Offered, Channel::Clear, Channel::Verified);
        ends.play(&["s 220 mx.ours.example", "c STARTTLS", "c HELO far.example", "s 250 hi"]);
        assert!(ends.to_client.ends_with("say hello first\r\n250 hi\r\n"), "{}", ends.to_client);
        let hello = "s 250-mx.ours.example\r\n250-STARTTLS\r\n250 REQUIRETLS";
        ends.play(&["c EHLO far.example", hello]);
        assert!(ends.to_client.ends_with("250-mx.ours.example\r\n250 STARTTLS\r\n"));
        ends.to_server.clear();
        let mail = "c MAIL FROM:<a@far.example> REQUIRETLS";
        // Its turn comes after that of what was said before.
        ends.play(&[mail, "c NOOP\r\nSTARTTLS", "s 250 noop", mail]);
        let said = "550 5.7.30 REQUIRETLS support required\r\n250 noop\r\n220 2.0.0 Ready to start \
            TLS\r\n503 5.5.1 say hello first\r\n";
        assert!(ends.to_client.ends_with(said), "{}", ends.to_client);
        ends.play(&["c EHLO far.example", hello, mail, "s 250 ok", "c STARTTLS"]);
        let said = "250-mx.ours.example\r\n250 REQUIRETLS\r\n250 ok\r\n503 5.5.1 TLS is there";
        assert!(ends.to_client.contains(said), "{}", ends.to_client);
        assert!(!ends.to_server.contains("STARTTLS"), "{}", ends.to_server);
    }

    #[test]
    fn where_tls_is_required_the_server_hears_nothing_before_it() {
        let mut ends = Ends::new();
        ends.passing = Passing::new(1000).over(Starttls::Required, Channel::Clear, Channel::Clear);
        ends.play(&["s 220 mx.ours.example", "c HELO a\r\nMAIL FROM:<a@b.example>\r\nFROB"]);
        assert_eq!(ends.to_client.matches("530 5.7.0").count(), 3, "{}", ends.to_client);
        assert_eq!(ends.to_server, "");
        ends.play(&["c EHLO a", "s 250 mx.ours.example", "c STARTTLS", "c EHLO a"]);
        assert!(ends.to_client.ends_with("220 2.0.0 Ready to start TLS\r\n"));
        assert_eq!(ends.to_server, "EHLO a\r\nEHLO a\r\n");
    }

    #[test]
    fn a_smuggled_end_is_refused_before_the_server_sees_it() {
        let mut ends = Ends::new();
        ends.play(HELLO);
        ends.play(&[
            "c MAIL FROM:<>\r\nRCPT TO:<a@ours.example>\r\nDATA",
            "s 250 x\r\n250 x\r\n354 x",
        ]);
        ends.play(&["c A: b\r\n\r\nx\n.\r\nMAIL FROM:<forged@ours.example>\r\n."]);
        assert!(ends.closed && ends.passed.is_empty());
        assert!(!ends.to_server.contains("forged") && !ends.to_server.contains("\n.\r\n"));
        assert!(ends.to_client.ends_with("send the message anew\r\n"));
    }

    #[test]
    fn what_the_server_refuses_is_not_told_as_taken() {
        let mut ends = Ends::new();
        ends.play(HELLO);
        let transaction = "c MAIL FROM:<j@far.example>\r\nRCPT TO:<a@ours.example>\r\nDATA";
        ends.play(&[transaction, "s 250 x\r\n250 x\r\n354 x", "c A: b\r\n\r\n.", "s 550 spam"]);
        assert_eq!((ends.passed.len(), ends.taken.len()), (1, 0));
        ends.play(&[transaction, "s 250 x\r\n250 x\r\n451 x", "c NOOP", "s 250 x"]);
        assert_eq!(ends.passed.len(), 1);
        ends.play(&["s 421 going down"]);
        assert!(ends.closed);
    }

    #[test]
    fn queue_ids_are_found_in_what_servers_say() {
        assert_eq!(queue_id("2.0.0 Ok: queued as 4ABC"), Some("4ABC".to_owned()));
        assert_eq!(queue_id("OK id=1vMZ5a-000Abc-2x"), Some("1vMZ5a-000Abc-2x".to_owned()));
        assert_eq!(queue_id("accepted"), None);
    }

    proptest! {
        /// Goal: whatever both say, no panic, and no message is whole without a 354 before it.
        #[test]
        fn any_talk_is_survived(
            script in proptest::collection::vec(
                "[cs] (220 x|250 x|354 x|421 x|EHLO a|MAIL FROM:<a@b\\.example>|RCPT TO:<c@d\\.example>|DATA|\\.|QUIT|STARTTLS|\n\\.|x)",
                0..40),
        ) {
            let mut ends = Ends::new();
            let script: Vec<&str> = script.iter().map(String::as_str).collect();
            ends.play(&script);
            let starts = script.iter().filter(|line| **line == "s 354 x").count();
            prop_assert!(ends.passed.len() <= starts);
            prop_assert!(ends.taken.len() <= ends.passed.len());
        }
    }
}
