//! The server side of SMTP and LMTP, without sockets: command lines in, steps out.
//!
//! Takes: lines from `wire::line`. Gives: `Step`, what the driver must do next; the answers that
//! need nobody else are made here. Errors: every fault of a peer is a reply with an enhanced code.
//! Bounds: `limits::PARAMETERS_MAX`, `limits::RECIPIENTS_MAX`, `limits::COMMAND_FAULTS_MAX`.
//! Standards: RFC 5321 §4.1, RFC 2033, RFC 3207, RFC 3461 §4, RFC 6531 §3.7.4, RFC 8689, Postfix's
//! XFORWARD.

use bytes::Bytes;

use crate::mail::envelope::{MailFrom, Parameters, Recipient, XforwardAttribute};
use crate::mail::limits::{COMMAND_FAULTS_MAX, RECIPIENTS_MAX};
use crate::mail::reply::Reply;
use crate::wire::command::{Command, CommandFault};
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::line::LineFault;
use crate::wire::secure::{Channel, NO_REQUIRETLS, Refused, Said, Starttls, TLS_FIRST, ready};

/// The attributes of XFORWARD that are taken and repeated to the next hop.
pub const XFORWARD_ATTRIBUTES: &[&str] =
    &["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer this; nothing else is to be done.
    Say(Reply),
    /// Answer this and close.
    Close(Reply),
    /// A transaction begins. Say `mail_refused` when it is not taken.
    Mail(MailFrom),
    /// A recipient. Say `recipient_accepted` when it is taken.
    Rcpt(Recipient),
    /// The content comes, if the driver has a 354 for it. Say `transaction_over` after it.
    Data,
    /// The transaction is dropped; answer this.
    Reset(Reply),
    /// Answer this, and then nothing in the clear: the handshake comes. Say `secured` after it.
    /// Whatever the client sent along behind the command must not be read as commands.
    StartTls(Reply),
}

/// Where the conversation stands; each state holds what is true in it and nothing else.
#[derive(Debug)]
enum State {
    /// Nobody has said EHLO, HELO or LHLO.
    New,
    /// No transaction is open.
    Ready(Greeted),
    /// MAIL was given.
    Open(Greeted, Transaction),
    /// MAIL was given in vain: the next hop refused it, or was lost. What belongs to it gets this
    /// reply, and is no error of the client's: it was sent along.
    Lost(Greeted, Reply),
}

#[derive(Clone, Debug)]
struct Greeted {
    helo: String,
    extended: bool,
}

#[derive(Debug)]
struct Transaction {
    mail: MailFrom,
    recipients: Vec<Recipient>,
}

/// One conversation with a client.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    hostname: String,
    /// At the end of our refusals, so that a log line of the client finds ours.
    id: String,
    offer: Keywords,
    starttls: Starttls,
    channel: Channel,
    state: State,
    xforward: Vec<XforwardAttribute>,
    faults: usize,
}

impl Session {
    /// A conversation in which nothing was said. `offer` are the end-to-end keywords to promise.
    pub fn new(protocol: Protocol, hostname: &str, id: &str, offer: Keywords) -> Session {
        Session {
            protocol,
            hostname: hostname.to_owned(),
            id: id.to_owned(),
            offer,
            starttls: Starttls::Off,
            channel: Channel::Clear,
            state: State::New,
            xforward: Vec::new(),
            faults: 0,
        }
    }

    /// The same where TLS is offered, or is there from the beginning (RFC 8314 §3.3).
    pub fn over(self, channel: Channel, starttls: Starttls) -> Session {
        Session { channel, starttls, ..self }
    }

    /// The handshake was made. What was said before is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.channel = Channel::Encrypted;
        self.state = State::New;
        self.xforward.clear();
    }

    /// The greeting (RFC 5321 §4.2).
    pub fn greeting(&self) -> Reply {
        let protocol = match self.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        Reply::new(220, "", &format!("{} {protocol} replyguard", self.hostname))
    }

    /// What the client called itself; empty before it did.
    pub fn helo(&self) -> &str {
        match &self.state {
            State::New => "",
            State::Ready(greeted) | State::Open(greeted, _) | State::Lost(greeted, _) => {
                &greeted.helo
            }
        }
    }

    /// Whether the client said EHLO or LHLO.
    pub fn is_extended(&self) -> bool {
        match &self.state {
            State::New => false,
            State::Ready(greeted) | State::Open(greeted, _) | State::Lost(greeted, _) => {
                greeted.extended
            }
        }
    }

    /// What the client said of its own client, for the transaction that is open or comes next.
    pub fn xforward(&self) -> &[XforwardAttribute] {
        &self.xforward
    }

    /// The open transaction: MAIL, and the recipients accepted so far.
    pub fn transaction(&self) -> Option<(&MailFrom, &[Recipient])> {
        match &self.state {
            State::Open(_, transaction) => Some((&transaction.mail, &transaction.recipients)),
            State::New | State::Ready(_) | State::Lost(..) => None,
        }
    }

    /// The next hop did not take MAIL: there is no transaction.
    pub fn mail_refused(&mut self) {
        self.transaction_lost(self.refusal(503, "5.5.1", "MAIL was refused"));
    }

    /// The next hop is lost. Recipients and DATA that were sent along with MAIL get the same
    /// temporary reply: a 503 would make the client bounce them.
    pub fn transaction_lost(&mut self, reply: Reply) {
        if let State::Open(greeted, _) = &self.state {
            self.state = State::Lost(greeted.clone(), reply);
        }
    }

    /// A recipient was taken.
    pub fn recipient_accepted(&mut self, recipient: Recipient) {
        if let State::Open(_, transaction) = &mut self.state {
            transaction.recipients.push(recipient);
        }
    }

    /// The message was answered: the transaction is over, and so is XFORWARD.
    pub fn transaction_over(&mut self) {
        self.end_transaction();
        self.xforward.clear();
    }

    /// Reads one command line and says what comes next.
    pub fn advance(&mut self, line: Result<Bytes, LineFault>) -> Step {
        let step = match line {
            Ok(line) => match Command::parse(&line) {
                Ok(command) => self.obey(command),
                Err(fault) => self.refuse_fault(fault),
            },
            Err(fault) => self.refuse(500, "5.5.2", &fault.to_string()),
        };
        match &step {
            Step::Say(reply)
                if matches!(reply.code(), 500..=503 | 530) && !self.is_dragged(reply) =>
            {
                self.count_fault(step)
            }
            _ => step,
        }
    }

    /// Whether a command only got this reply because of the one that it was sent along with.
    fn is_dragged(&self, reply: &Reply) -> bool {
        matches!(&self.state, State::Lost(_, said) if said == reply)
    }

    fn obey(&mut self, command: Command) -> Step {
        if self.starttls.must_precede(self.channel, Some(&command)) {
            return self.refuse_as(TLS_FIRST);
        }
        match command {
            Command::Helo(name) => self.helo_given(Protocol::Smtp, name, Extended::No),
            Command::Ehlo(name) => self.helo_given(Protocol::Smtp, name, Extended::Yes),
            Command::Lhlo(name) => self.helo_given(Protocol::Lmtp, name, Extended::Yes),
            Command::Mail(mail) => self.mail_given(mail),
            Command::Rcpt(recipient) => self.rcpt_given(recipient),
            Command::Data => self.data_given(),
            Command::Rset => {
                self.transaction_over();
                Step::Reset(Reply::new(250, "2.0.0", "Ok"))
            }
            Command::Xforward(attributes) => self.xforward_given(attributes),
            Command::StartTls => self.starttls_given(),
            Command::Noop => Step::Say(Reply::new(250, "2.0.0", "Ok")),
            // RFC 5321 §3.5.3: 252, and never a list of mailboxes.
            Command::Vrfy => Step::Say(Reply::new(252, "2.5.0", "Send some mail, I will try")),
            Command::Help => Step::Say(Reply::new(214, "2.0.0", "See RFC 5321")),
            Command::Quit => Step::Close(Reply::new(221, "2.0.0", "Bye")),
            Command::NotImplemented(verb) => {
                self.refuse(502, "5.5.1", &format!("{verb} is not implemented here"))
            }
        }
    }

    fn starttls_given(&self) -> Step {
        let said = match &self.state {
            State::New => Said::Nothing,
            State::Open(..) => Said::Mail,
            State::Ready(greeted) | State::Lost(greeted, _) => match greeted.extended {
                true => Said::Ehlo,
                false => Said::Helo,
            },
        };
        match self.starttls.refused(self.channel, said) {
            Some(refused) => self.refuse_as(refused),
            None => Step::StartTls(ready()),
        }
    }

    /// The end-to-end keywords that hold on this connection. RFC 8689 §3: REQUIRETLS is offered
    /// over TLS only.
    fn offer_here(&self) -> Keywords {
        match self.channel {
            Channel::Clear => self.offer.clone().without("REQUIRETLS"),
            Channel::Encrypted | Channel::Verified => self.offer.clone(),
        }
    }

    fn helo_given(&mut self, spoken: Protocol, name: String, extended: Extended) -> Step {
        if spoken != self.protocol {
            let wanted = match self.protocol {
                Protocol::Smtp => "this is SMTP: say EHLO",
                Protocol::Lmtp => "this is LMTP: say LHLO",
            };
            return self.refuse(500, "5.5.1", wanted);
        }
        let extended = extended == Extended::Yes;
        self.xforward.clear();
        self.state = State::Ready(Greeted { helo: name, extended });
        if !extended {
            return Step::Reset(Reply::new(250, "", &self.hostname));
        }
        let ours = ["PIPELINING".to_owned(), "ENHANCEDSTATUSCODES".to_owned()];
        let xforward = format!("XFORWARD {}", XFORWARD_ATTRIBUTES.join(" "));
        let can_start = self.starttls.is_offered_over(self.channel);
        let lines: Vec<String> = [self.hostname.clone()]
            .into_iter()
            .chain(ours)
            .chain(can_start.then(|| "STARTTLS".to_owned()))
            .chain(self.offer_here().lines())
            .chain([xforward])
            .collect();
        Step::Reset(Reply::lines(250, &lines))
    }

    fn mail_given(&mut self, mail: MailFrom) -> Step {
        let greeted = match &self.state {
            State::New => return self.refuse(503, "5.5.1", "say hello first"),
            State::Open(..) => return self.refuse(503, "5.5.1", "nested MAIL"),
            State::Ready(greeted) | State::Lost(greeted, _) => greeted.clone(),
        };
        if let Some(step) = self.refused_parameters(&mail.parameters, &greeted) {
            return step;
        }
        let utf8 = mail.parameters.has("SMTPUTF8");
        if !utf8 && !mail.path_text.is_ascii() {
            return self.refuse(553, "5.6.7", "an address with UTF-8 needs SMTPUTF8");
        }
        let declared = mail.parameters.size_bytes();
        if let (Some(declared), Some(max)) = (declared, self.offer.size_bytes_max())
            && declared > max
        {
            return self.refuse(552, "5.3.4", "message too big for the next hop");
        }
        self.state =
            State::Open(greeted, Transaction { mail: mail.clone(), recipients: Vec::new() });
        Step::Mail(mail)
    }

    fn rcpt_given(&mut self, recipient: Recipient) -> Step {
        // Why before MAIL's fate is looked at: of a recipient that was sent along it is not known
        // yet, and pipelining must change no reply.
        if let State::Open(greeted, _) | State::Lost(greeted, _) = &self.state
            && let Some(step) = self.refused_parameters(&recipient.parameters, greeted)
        {
            return step;
        }
        let transaction = match &self.state {
            State::Open(_, transaction) => transaction,
            State::Lost(_, reply) => return Step::Say(reply.clone()),
            State::New | State::Ready(_) => {
                return self.refuse(503, "5.5.1", "RCPT needs MAIL first");
            }
        };
        if transaction.recipients.len() >= RECIPIENTS_MAX {
            return self.refuse(452, "4.5.3", "too many recipients: send the rest separately");
        }
        if !transaction.mail.parameters.has("SMTPUTF8") && !recipient.path_text.is_ascii() {
            return self.refuse(553, "5.6.7", "an address with UTF-8 needs SMTPUTF8");
        }
        Step::Rcpt(recipient)
    }

    fn data_given(&mut self) -> Step {
        match &self.state {
            State::Open(_, transaction) if !transaction.recipients.is_empty() => Step::Data,
            State::Open(..) => self.refuse(554, "5.5.1", "no valid recipients"),
            State::Lost(_, reply) => Step::Say(reply.clone()),
            State::New | State::Ready(_) => self.refuse(503, "5.5.1", "DATA needs MAIL first"),
        }
    }

    fn xforward_given(&mut self, attributes: Vec<XforwardAttribute>) -> Step {
        if !matches!(self.state, State::Ready(_) | State::Lost(..)) {
            return self.refuse(503, "5.5.1", "XFORWARD stands after EHLO and before MAIL");
        }
        let known = |name: &str| XFORWARD_ATTRIBUTES.contains(&name);
        if !attributes.iter().all(|attribute| known(&attribute.name)) {
            return self.refuse(501, "5.5.4", "unknown XFORWARD attribute");
        }
        for attribute in attributes {
            self.xforward.retain(|given| given.name != attribute.name);
            self.xforward.push(attribute);
        }
        Step::Say(Reply::new(250, "2.0.0", "Ok"))
    }

    fn refused_parameters(&self, parameters: &Parameters, greeted: &Greeted) -> Option<Step> {
        if !greeted.extended && !parameters.is_empty() {
            return Some(self.refuse(555, "5.5.4", "parameters need EHLO"));
        }
        if parameters.has("REQUIRETLS") && !self.may_require_tls() {
            return Some(self.refuse_as(NO_REQUIRETLS));
        }
        let refused = self.offer.not_allowed(parameters)?.to_owned();
        Some(self.refuse(555, "5.5.4", &format!("{refused} is not offered here")))
    }

    fn may_require_tls(&self) -> bool {
        self.channel.is_encrypted() && self.offer.has("REQUIRETLS")
    }

    fn end_transaction(&mut self) {
        if let State::Open(greeted, _) | State::Lost(greeted, _) = &self.state {
            self.state = State::Ready(greeted.clone());
        }
    }

    fn refuse(&self, code: u16, enhanced: &str, text: &str) -> Step {
        Step::Say(self.refusal(code, enhanced, text))
    }

    fn refuse_as(&self, (code, enhanced, text): Refused) -> Step {
        self.refuse(code, enhanced, text)
    }

    fn refusal(&self, code: u16, enhanced: &str, text: &str) -> Reply {
        Reply::with_id(code, enhanced, text, &self.id)
    }

    fn refuse_fault(&self, fault: CommandFault) -> Step {
        let (code, enhanced) = fault.codes();
        self.refuse(code, enhanced, &fault.to_string())
    }

    /// Why: a client that only ever errs is no mail server, and holds a session for nothing.
    fn count_fault(&mut self, step: Step) -> Step {
        self.faults += 1;
        match self.faults > COMMAND_FAULTS_MAX {
            true => Step::Close(self.refusal(421, "4.7.0", "too many errors")),
            false => step,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extended {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(protocol: Protocol) -> Session {
        let hello = Reply::lines(250, &["mx.example", "8BITMIME", "DSN", "SIZE 1000", "SMTPUTF8"]);
        let offer = Keywords::meet([&Keywords::from_reply(&hello)], &[], 0);
        Session::new(protocol, "guard.example", "ID", offer)
    }

    fn advance(session: &mut Session, line: &str) -> Step {
        session.advance(Ok(Bytes::copy_from_slice(line.as_bytes())))
    }

    fn code(step: &Step) -> u16 {
        match step {
            Step::Say(reply) | Step::Close(reply) | Step::Reset(reply) | Step::StartTls(reply) => {
                reply.code()
            }
            Step::Mail(_) | Step::Rcpt(_) | Step::Data => 0,
        }
    }

    /// Accepts whatever the client asks for, as a willing next hop would.
    fn play(session: &mut Session, lines: &[&str]) -> Vec<u16> {
        let mut codes = Vec::new();
        for line in lines {
            let step = advance(session, line);
            codes.push(code(&step));
            match step {
                Step::Rcpt(recipient) => session.recipient_accepted(recipient),
                Step::Data => session.transaction_over(),
                _ => {}
            }
        }
        codes
    }

    #[test]
    fn commands_out_of_order_are_refused_and_harm_nothing() {
        let lines = [
            "MAIL FROM:<a@x.example>",
            "RCPT TO:<b@x.example>",
            "DATA",
            "EHLO c.example",
            "RCPT TO:<b@x.example>",
            "DATA",
            "MAIL FROM:<a@x.example>",
            "MAIL FROM:<a@x.example>",
            "DATA",
            "RCPT TO:<b@x.example>",
            "DATA",
            "DATA",
        ];
        let codes = play(&mut session(Protocol::Smtp), &lines);
        assert_eq!(codes, [503, 503, 503, 250, 503, 503, 0, 503, 554, 0, 0, 503]);
    }

    #[test]
    fn rset_noop_vrfy_and_quit_stand_anywhere() {
        let lines = [
            "NOOP",
            "VRFY joe",
            "EHLO c.example",
            "NOOP x",
            "MAIL FROM:<>",
            "NOOP",
            "VRFY <a@b.example>",
            "RCPT TO:<b@x.example>",
            "RSET",
            "RCPT TO:<b@x.example>",
            "HELP",
            "QUIT",
        ];
        let codes = play(&mut session(Protocol::Smtp), &lines);
        assert_eq!(codes, [250, 252, 250, 250, 0, 250, 252, 0, 250, 503, 214, 221]);
    }

    #[test]
    fn ehlo_offers_the_meet_and_our_own_keywords() {
        let mut session = session(Protocol::Smtp);
        let Step::Reset(reply) = advance(&mut session, "EHLO c.example") else { panic!() };
        let text = String::from_utf8(reply.wire().to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line[4..]).collect();
        assert_eq!(
            lines,
            [
                "guard.example",
                "PIPELINING",
                "ENHANCEDSTATUSCODES",
                "8BITMIME",
                "DSN",
                "SIZE 1000",
                "SMTPUTF8",
                "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
            ]
        );
        // HELO has none, and parameters need them.
        assert_eq!(
            play(&mut session, &["HELO c", "MAIL FROM:<> SIZE=1", "MAIL FROM:<>"]),
            [250, 555, 0]
        );
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for (line, expected) in [
            ("MAIL FROM:<> SIZE=1001", 552),
            ("MAIL FROM:<> REQUIRETLS", 550),
            ("MAIL FROM:<> AUTH=<>", 555),
            ("MAIL FROM:<j\u{fc}rgen@x.example>", 553),
            ("MAIL FROM:<j\u{fc}rgen@x.example> SMTPUTF8", 0),
            ("STARTTLS", 502),
            ("BDAT 1 LAST", 502),
            ("LHLO c.example", 500),
        ] {
            let mut session = session(Protocol::Smtp);
            let line = line.replace("\\u{fc}", "\u{fc}");
            assert_eq!(play(&mut session, &["EHLO c", &line])[1], expected, "{line}");
        }
    }

    fn hello_lines(session: &mut Session) -> Vec<String> {
        let Step::Reset(reply) = advance(session, "EHLO c.example") else { panic!() };
        let text = String::from_utf8(reply.wire().to_vec()).unwrap();
        text.lines().map(|line| line[4..].to_owned()).collect()
    }

    #[test]
    fn starttls_stands_between_ehlo_and_mail_and_once() {
        let mut session = session(Protocol::Smtp).over(Channel::Clear, Starttls::Offered);
        assert_eq!(play(&mut session, &["STARTTLS", "HELO c", "STARTTLS"]), [503, 250, 503]);
        assert!(hello_lines(&mut session).contains(&"STARTTLS".to_owned()));
        let lines = ["MAIL FROM:<>", "STARTTLS", "RSET", "STARTTLS now", "STARTTLS"];
        assert_eq!(play(&mut session, &lines), [0, 503, 250, 501, 220]);
        play(&mut session, &["XFORWARD NAME=a"]);
        session.secured();
        assert!(session.xforward().is_empty() && session.helo().is_empty());
        assert_eq!(play(&mut session, &["MAIL FROM:<>", "STARTTLS"]), [503, 503]);
        assert!(!hello_lines(&mut session).contains(&"STARTTLS".to_owned()));
        assert_eq!(play(&mut session, &["STARTTLS", "MAIL FROM:<>"]), [503, 0]);
    }

    #[test]
    fn where_tls_is_required_nothing_else_is_answered() {
        let mut session = session(Protocol::Smtp).over(Channel::Clear, Starttls::Required);
        let lines = [
            "HELO c",
            "EHLO c",
            "NOOP",
            "MAIL FROM:<>",
            "RCPT TO:<a@b.example>",
            "DATA",
            "RSET",
            "VRFY a",
            "HELP",
            "XFORWARD NAME=a",
            "BDAT 1 LAST",
        ];
        let wanted = [530, 250, 250, 530, 530, 530, 530, 530, 530, 530, 530];
        assert_eq!(play(&mut session, &lines), wanted);
        assert_eq!(play(&mut session, &["STARTTLS"]), [220]);
        session.secured();
        assert_eq!(play(&mut session, &["EHLO c", "MAIL FROM:<>"]), [250, 0]);
        let mut implicit =
            self::session(Protocol::Smtp).over(Channel::Encrypted, Starttls::Required);
        assert_eq!(play(&mut implicit, &["EHLO c", "STARTTLS", "MAIL FROM:<>"]), [250, 503, 0]);
    }

    /// Goal: RFC 8689 holds end to end. Method: each of both conditions alone, and both.
    #[test]
    fn requiretls_needs_tls_here_and_there() {
        let hello = Reply::lines(250, &["mx.example", "REQUIRETLS"]);
        let with = Keywords::meet([&Keywords::from_reply(&hello)], &[], 0);
        for (offer, channel, expected) in [
            (with.clone(), Channel::Clear, 550),
            (Keywords::default(), Channel::Encrypted, 550),
            (with, Channel::Encrypted, 0),
        ] {
            let session = Session::new(Protocol::Smtp, "guard.example", "ID", offer);
            let mut session = session.over(channel, Starttls::Offered);
            let offered = hello_lines(&mut session).contains(&"REQUIRETLS".to_owned());
            assert_eq!(offered, expected == 0);
            assert_eq!(play(&mut session, &["MAIL FROM:<a@b.example> REQUIRETLS"]), [expected]);
        }
    }

    #[test]
    fn lmtp_wants_lhlo() {
        let codes =
            play(&mut session(Protocol::Lmtp), &["EHLO c", "HELO c", "LHLO c", "MAIL FROM:<>"]);
        assert_eq!(codes, [500, 500, 250, 0]);
    }

    #[test]
    fn xforward_lasts_for_one_transaction() {
        let mut session = session(Protocol::Smtp);
        play(
            &mut session,
            &["EHLO c", "XFORWARD NAME=a ADDR=192.0.2.1", "XFORWARD ADDR=192.0.2.2"],
        );
        let given: Vec<_> = session.xforward().iter().map(|a| a.value.as_str()).collect();
        assert_eq!(given, ["a", "192.0.2.2"]);
        play(&mut session, &["MAIL FROM:<>", "RCPT TO:<b@x.example>", "DATA"]);
        assert!(session.xforward().is_empty());
        let codes = play(&mut session, &["XFORWARD NAME=a", "RSET", "XFORWARD WHAT=1"]);
        assert_eq!(codes, [250, 250, 501]);
        assert!(session.xforward().is_empty());
    }

    /// A 503 for a recipient sent along with a MAIL that met a lost next hop would bounce it.
    #[test]
    fn after_a_loss_everything_of_the_transaction_is_temporary() {
        let mut session = session(Protocol::Smtp);
        play(&mut session, &["EHLO c", "MAIL FROM:<a@x.example>"]);
        session.transaction_lost(Reply::new(451, "4.4.2", "lost"));
        let codes = play(
            &mut session,
            &[
                "RCPT TO:<b@x.example>",
                "RCPT TO:<c@x.example>",
                "DATA",
                "MAIL FROM:<a@x.example>",
                "RCPT TO:<b@x.example>",
                "DATA",
            ],
        );
        assert_eq!(codes, [451, 451, 451, 0, 0, 0]);
    }

    /// A large client sends a thousand recipients along; one refusal of MAIL is one refusal.
    #[test]
    fn what_was_sent_along_with_a_refused_mail_is_no_error_of_its_own() {
        let mut session = session(Protocol::Smtp);
        play(&mut session, &["EHLO c", "MAIL FROM:<a@x.example>"]);
        session.mail_refused();
        for _ in 0..COMMAND_FAULTS_MAX * 2 {
            assert_eq!(play(&mut session, &["RCPT TO:<b@x.example>"]), [503]);
        }
        let lines = ["DATA", "FROB", "MAIL FROM:<a@x.example>", "RCPT TO:<b@x.example>", "DATA"];
        assert_eq!(play(&mut session, &lines), [503, 500, 0, 0, 0]);
        assert_eq!(session.faults, 1);
    }

    #[test]
    fn a_thousand_recipients_pass_and_the_bound_is_temporary() {
        let mut session = session(Protocol::Smtp);
        play(&mut session, &["EHLO c", "MAIL FROM:<>"]);
        for n in 0..RECIPIENTS_MAX {
            assert_eq!(play(&mut session, &[&format!("RCPT TO:<u{n}@x.example>")]), [0]);
        }
        assert_eq!(play(&mut session, &["RCPT TO:<one@more.example>", "DATA"]), [452, 0]);
    }

    #[test]
    fn a_client_that_only_errs_is_sent_away() {
        let mut session = session(Protocol::Smtp);
        for _ in 0..COMMAND_FAULTS_MAX {
            assert_eq!(code(&advance(&mut session, "FROB")), 500);
        }
        let Step::Close(reply) = advance(&mut session, "FROB") else { panic!("not sent away") };
        assert_eq!(reply.code(), 421);
        assert!(reply.text().ends_with(" ID"));
    }
}
