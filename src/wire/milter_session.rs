//! A milter session: what an MTA says from one client's connection to the next.
//!
//! Takes: frames from `wire::milter`. Gives: `Step`, and with the end of a message all that was
//! said of it, as `Arrived`. Errors: `MilterFault`. Bounds: `limits::RECIPIENTS_MAX`,
//! `limits::TAP_HEADER_BYTES_MAX`, `limits::TAP_AUTH_RESULTS_MAX`, and the bytes of a body that
//! its driver allows; what lies beyond is left out, and that is said.
//!
//! The body is kept only where a signature could cover it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::mail::limits::{RECIPIENTS_MAX, TAP_AUTH_RESULTS_MAX, TAP_HEADER_BYTES_MAX};
use crate::mail::message::Kept;
use crate::wire::kept::is_signed;
use crate::wire::milter::{
    Actions, Command, Connected, Frame, MilterFault, Offer, Steps, delete, insert_on_top, proceed,
    skip,
};

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// No reply is due.
    Listen,
    /// Send this.
    Say(Bytes),
    /// A message is whole: send what `Session::edited` makes of it.
    Message(Box<Arrived>),
    /// The connection is over.
    Close,
}

/// A message at its end, as the MTA told it.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// Who gave it to the MTA.
    pub client: Connected,
    /// What the client called itself; empty when it did not.
    pub helo: String,
    /// The argument of MAIL without brackets; empty for the null reverse-path.
    pub mail_from: String,
    /// The parameters of MAIL as written.
    pub parameters: Vec<String>,
    /// The arguments of RCPT without brackets.
    pub recipients: Vec<String>,
    /// The MTA's own name (macro `j`).
    pub host: Option<String>,
    /// The queue id (macro `i`).
    pub queue_id: Option<String>,
    /// Who authenticated (macro `{auth_authen}`).
    pub authenticated: Option<String>,
    /// Header, empty line, body; line ends CRLF.
    pub message: Bytes,
    /// How much of the message that is.
    pub kept: Kept,
    /// The values of its Authentication-Results fields, from the top.
    pub auth_results: Vec<Bytes>,
    /// How many such fields it has; more than the values where they are too many.
    pub auth_results_count: u32,
}

/// What is done to a message's Authentication-Results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Which of these fields go, counted from 1.
    pub deleted: Vec<u32>,
    /// The value of the one that is inserted on top of the header: no line end, folds of LF and
    /// white space.
    pub inserted: Option<String>,
}

/// One connection of an MTA.
#[derive(Debug)]
pub struct Session {
    wanted: Actions,
    body_bytes_max: usize,
    taken: Option<Offer>,
    connection: Connection,
    transaction: Option<Transaction>,
    macros: Macros,
}

/// What holds for a client's connection.
#[derive(Debug, Default)]
struct Connection {
    client: Connected,
    helo: String,
    host: Option<String>,
}

/// Macros of the transaction; they come before the command that they belong to.
#[derive(Debug, Default)]
struct Macros {
    queue_id: Option<String>,
    authenticated: Option<String>,
}

#[derive(Debug, Default)]
struct Transaction {
    arrived: Arrived,
    message: BytesMut,
    part: Part,
    is_signed: bool,
}

/// Which part of the message is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Header,
    /// The body, of which this many bytes may still be kept.
    Body(usize),
}

impl Session {
    /// A connection on which nothing was said. `wanted`: what we mean to do to messages.
    pub fn new(wanted: Actions, body_bytes_max: usize) -> Session {
        Session {
            wanted,
            body_bytes_max,
            taken: None,
            connection: Connection::default(),
            transaction: None,
            macros: Macros::default(),
        }
    }

    /// Reads one frame and says what comes next.
    pub fn advance(&mut self, frame: Frame) -> Result<Step, MilterFault> {
        let command = Command::parse(frame)?;
        if let Command::Negotiate(offer) = command {
            // Why all anew: behind a proxy, each client of the MTA begins with a negotiation.
            *self = Session::new(self.wanted, self.body_bytes_max);
            let taken = offer.taken(self.wanted)?;
            self.taken = Some(taken);
            return Ok(Step::Say(taken.reply()));
        }
        let Some(taken) = self.taken else {
            return match command {
                Command::Quit => Ok(Step::Close),
                _ => Err(MilterFault::PeerOrder('O')),
            };
        };
        self.obey(command, taken)
    }

    /// The replies that end a message: its edits, then that the MTA may go on. What the MTA does
    /// not let us do is left out.
    pub fn edited(&self, edits: &Edits) -> Bytes {
        const NAME: &str = "Authentication-Results";
        let Offer { actions, steps, .. } = self.taken.unwrap_or_default();
        let mut replies = BytesMut::new();
        if actions.has(Actions::CHANGE_FIELDS) {
            let mut deleted = edits.deleted.clone();
            // Why from below: each that goes changes the numbers of those behind it.
            deleted.sort_unstable_by(|a, b| b.cmp(a));
            deleted.iter().for_each(|number| replies.put(delete(NAME, *number)));
        }
        if let Some(value) = edits.inserted.as_ref().filter(|_| actions.has(Actions::ADD_FIELDS)) {
            let space = if steps.has(Steps::KEEP_SPACE) { " " } else { "" };
            replies.put(insert_on_top(NAME, &format!("{space}{value}")));
        }
        replies.put(proceed());
        replies.freeze()
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.transaction.is_some()
    }

    /// Bytes of the message that are kept at this moment.
    pub fn kept_bytes(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.message.len())
    }

    /// Lets go of the body that was kept, and of what comes of it: there is no room for it.
    pub fn give_up_body(&mut self) {
        if let Some(transaction) = &mut self.transaction
            && let Part::Body(_) = transaction.part
        {
            transaction.give_up_body();
        }
    }

    fn obey(&mut self, command: Command, taken: Offer) -> Result<Step, MilterFault> {
        let quiet = |steps: Steps| match taken.steps.has(steps) {
            true => Step::Listen,
            false => Step::Say(proceed()),
        };
        Ok(match command {
            Command::Negotiate(_) => Step::Listen,
            Command::Macros(letter, values) => {
                self.macros_given(letter, values);
                Step::Listen
            }
            Command::Connect(client) => {
                let host = self.connection.host.take();
                self.connection = Connection { client, host, helo: String::new() };
                quiet(Steps::QUIET_CONNECT)
            }
            Command::Helo(helo) => {
                self.connection.helo = helo;
                quiet(Steps::QUIET_HELO)
            }
            Command::Mail(words) => {
                self.mail_given(words);
                quiet(Steps::QUIET_MAIL)
            }
            Command::Rcpt(words) => {
                self.open('R')?.rcpt_given(words);
                quiet(Steps::QUIET_RCPT)
            }
            Command::Data => quiet(Steps::QUIET_DATA),
            Command::Field(name, value) => {
                let keep_space = taken.steps.has(Steps::KEEP_SPACE);
                self.open('L')?.field_given(&name, &value, keep_space);
                quiet(Steps::QUIET_FIELD)
            }
            Command::EndOfHeader => quiet(Steps::QUIET_END_OF_HEADER),
            Command::Body(piece) => {
                let bytes_max = self.body_bytes_max;
                let transaction = self.open('B')?;
                transaction.body_given(&piece, bytes_max);
                match transaction.part {
                    Part::Body(0)
                        if taken.steps.has(Steps::SKIP) && !taken.steps.has(Steps::QUIET_BODY) =>
                    {
                        Step::Say(skip())
                    }
                    _ => quiet(Steps::QUIET_BODY),
                }
            }
            Command::EndOfMessage(piece) => self.message_whole(&piece)?,
            Command::Abort => {
                self.end_transaction();
                Step::Listen
            }
            Command::Unknown => quiet(Steps::QUIET_UNKNOWN),
            Command::Quit => Step::Close,
            Command::QuitNewConnection => {
                self.end_transaction();
                self.connection = Connection::default();
                Step::Listen
            }
        })
    }

    fn open(&mut self, letter: char) -> Result<&mut Transaction, MilterFault> {
        self.transaction.as_mut().ok_or(MilterFault::PeerOrder(letter))
    }

    fn macros_given(&mut self, letter: u8, values: Vec<(String, String)>) {
        if letter == b'M' {
            self.end_transaction();
        }
        for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.trim_matches(['{', '}']) {
                "j" => self.connection.host = Some(value),
                "i" => self.macros.queue_id = Some(value),
                "auth_authen" => self.macros.authenticated = Some(value),
                _ => {}
            }
        }
    }

    fn mail_given(&mut self, words: Vec<String>) {
        let mut words = words.into_iter();
        let mail_from = without_brackets(words.next().unwrap_or_default());
        let arrived = Arrived { mail_from, parameters: words.collect(), ..Arrived::default() };
        self.transaction = Some(Transaction { arrived, ..Transaction::default() });
    }

    fn message_whole(&mut self, piece: &Bytes) -> Result<Step, MilterFault> {
        let bytes_max = self.body_bytes_max;
        // Why with nothing too: it ends the header of a message without a body.
        self.open('E')?.body_given(piece, bytes_max);
        let macros = std::mem::take(&mut self.macros);
        let Some(transaction) = self.transaction.take() else { return Ok(Step::Listen) };
        let mut arrived = transaction.arrived;
        arrived.message = transaction.message.freeze();
        arrived.client = self.connection.client.clone();
        arrived.helo.clone_from(&self.connection.helo);
        arrived.host.clone_from(&self.connection.host);
        arrived.queue_id = macros.queue_id;
        arrived.authenticated = macros.authenticated;
        Ok(Step::Message(Box::new(arrived)))
    }

    fn end_transaction(&mut self) {
        self.transaction = None;
        self.macros = Macros::default();
    }
}

impl Transaction {
    fn rcpt_given(&mut self, words: Vec<String>) {
        // Why no more: who writes to so many gets no reply from the others that would matter.
        if self.arrived.recipients.len() < RECIPIENTS_MAX
            && let Some(path) = words.into_iter().next()
        {
            self.arrived.recipients.push(without_brackets(path));
        }
    }

    fn field_given(&mut self, name: &[u8], value: &[u8], keep_space: bool) {
        if name.trim_ascii_end().eq_ignore_ascii_case(b"authentication-results") {
            self.arrived.auth_results_count = self.arrived.auth_results_count.saturating_add(1);
            let kept = &self.arrived.auth_results;
            let bytes = kept.iter().map(Bytes::len).sum::<usize>().saturating_add(value.len());
            // Why only the first ones in a row: they are told apart by their place.
            let in_a_row = usize::try_from(self.arrived.auth_results_count) == Ok(kept.len() + 1);
            if in_a_row && kept.len() < TAP_AUTH_RESULTS_MAX && bytes <= TAP_HEADER_BYTES_MAX {
                self.arrived.auth_results.push(Bytes::copy_from_slice(value));
            }
        }
        if self.message.len() + name.len() + value.len() > TAP_HEADER_BYTES_MAX {
            self.arrived.kept = Kept::PartOfHeader;
            return;
        }
        self.message.put_slice(name);
        self.message.put_slice(if keep_space { b":" } else { b": " });
        put_folded(&mut self.message, value);
        self.message.put_slice(b"\r\n");
    }

    fn body_given(&mut self, piece: &[u8], bytes_max: usize) {
        let left = match self.part {
            Part::Body(left) => left,
            Part::Header => self.end_header(bytes_max),
        };
        if piece.len() > left {
            self.give_up_body();
        } else {
            self.message.put_slice(piece);
            self.part = Part::Body(left - piece.len());
        }
    }

    /// Ends the header; gives how many bytes of the body are kept.
    fn end_header(&mut self, bytes_max: usize) -> usize {
        self.is_signed = is_signed(&self.message);
        let keeps = self.arrived.kept == Kept::Whole && self.is_signed;
        self.message.put_slice(b"\r\n");
        let left = if keeps { bytes_max } else { 0 };
        self.part = Part::Body(left);
        left
    }

    /// Why all of it: a signature over a part of what is kept could not be verified.
    fn give_up_body(&mut self) {
        if self.arrived.kept == Kept::Whole && self.is_signed {
            self.arrived.kept = Kept::Header;
        }
        let header = memchr::memmem::find(&self.message, b"\r\n\r\n").map(|at| at + 4);
        self.message.truncate(header.unwrap_or(self.message.len()));
        self.part = Part::Body(0);
    }
}

/// Writes a value whose folds are LF and white space with CRLF, as it stood in the message. A line
/// end without white space behind it becomes a fold: it must not begin another field.
fn put_folded(message: &mut BytesMut, value: &[u8]) {
    let mut lines = value.split(|byte| *byte == b'\n');
    message.put_slice(lines.next().unwrap_or_default());
    for line in lines {
        if message.last() != Some(&b'\r') {
            message.put_u8(b'\r');
        }
        message.put_u8(b'\n');
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            message.put_u8(b' ');
        }
        message.put_slice(line);
    }
}

fn without_brackets(path: String) -> String {
    let inner = path.strip_prefix('<').and_then(|path| path.strip_suffix('>')).map(str::to_owned);
    inner.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::milter::frame;

    /// What Postfix 3.7 offers.
    const POSTFIX: &[u8] = b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";
    /// A milter client of version 2: nothing can be left out.
    const OLD: &[u8] = b"\0\0\0\x02\0\0\0\x1f\0\0\0\0";

    type Said<'a> = &'a [(u8, &'a [u8])];

    const LETTER: Said<'_> = &[
        (b'D', b"Cj\0mx.ours.example\0"),
        (b'C', b"mx.far.example\x004\0\x19192.0.2.55\0"),
        (b'H', b"mx.far.example\0"),
        (b'D', b"M{auth_authen}\0\0"),
        (b'M', b"<joe@far.example>\0SIZE=100\0ENVID=x1\0"),
        (b'R', b"<alice@ours.example>\0"),
        (b'R', b"<bob@ours.example>\0ORCPT=rfc822;bob@ours.example\0"),
        (b'L', b"From\0 joe@far.example\0"),
        (b'L', b"Subject\0 one\n\ttwo\0"),
        (b'L', b"DKIM-Signature\0 v=1\0"),
        (b'B', b"Hello\r\n"),
        (b'D', b"Ei\x004ABC\0"),
        (b'E', b"there\r\n"),
    ];

    struct Played {
        session: Session,
        replies: Vec<Bytes>,
        arrived: Vec<Arrived>,
        fault: Option<MilterFault>,
    }

    fn play(body_bytes_max: usize, said: &[Said<'_>]) -> Played {
        let edits = Actions::ADD_FIELDS.or(Actions::CHANGE_FIELDS);
        let session = Session::new(edits, body_bytes_max);
        let mut played = Played { session, replies: vec![], arrived: vec![], fault: None };
        for (letter, data) in said.iter().copied().flatten() {
            let mut buffer = BytesMut::from(&frame(*letter, data)[..]);
            match played.session.advance(Frame::next(&mut buffer).unwrap().unwrap()) {
                Ok(Step::Say(reply)) => played.replies.push(reply),
                Ok(Step::Message(arrived)) => played.arrived.push(*arrived),
                Ok(Step::Listen | Step::Close) => {}
                Err(fault) => {
                    played.fault = Some(fault);
                    break;
                }
            }
        }
        played
    }

    #[test]
    fn a_message_is_told_whole_and_nothing_is_said_before_its_end() {
        let played = play(1000, &[&[(b'O', POSTFIX)], LETTER]);
        assert_eq!(played.replies.len(), 1);
        let arrived = &played.arrived[0];
        assert_eq!(arrived.client.ip, Some("192.0.2.55".parse().unwrap()));
        assert_eq!((arrived.helo.as_str(), arrived.kept), ("mx.far.example", Kept::Whole));
        assert_eq!(arrived.mail_from, "joe@far.example");
        assert_eq!(arrived.parameters, ["SIZE=100", "ENVID=x1"]);
        assert_eq!(arrived.recipients, ["alice@ours.example", "bob@ours.example"]);
        assert_eq!(arrived.host.as_deref(), Some("mx.ours.example"));
        assert_eq!(arrived.queue_id.as_deref(), Some("4ABC"));
        assert_eq!(arrived.authenticated, None);
        let wanted = "From: joe@far.example\r\nSubject: one\r\n\ttwo\r\nDKIM-Signature: v=1\r\n\r\n\
                      Hello\r\nthere\r\n";
        assert_eq!(std::str::from_utf8(&arrived.message).unwrap(), wanted);
    }

    #[test]
    fn an_old_mta_gets_a_reply_to_each_command() {
        let played = play(1000, &[&[(b'O', OLD)], LETTER]);
        // Connection, HELO, MAIL, two RCPT, three fields, a piece of the body; and the offer.
        assert_eq!(played.replies.len(), 10);
        assert!(played.replies[1..].iter().all(|reply| *reply == proceed()));
        // Its fields come without the space behind the colon.
        assert!(played.arrived[0].message.starts_with(b"From:  joe@far.example\r\n"));
    }

    /// Goal: what one client said never counts for another. Method: a letter begun and left by a
    /// new negotiation (XCLIENT), by a new connection, by an abort.
    #[test]
    fn a_second_negotiation_forgets_the_first_client() {
        let begun: Said<'_> = &LETTER[..9];
        let user: Said<'_> = &[(b'D', b"M{auth_authen}\0alice\0i\0OLD\0")];
        for between in [&[(b'O', POSTFIX)] as Said<'_>, &[(b'K', b""), (b'O', POSTFIX)]] {
            let bare: Said<'_> = &[(b'M', b"<>\0"), (b'R', b"<a@ours.example>\0"), (b'E', b"")];
            let played = play(1000, &[&[(b'O', POSTFIX)], user, begun, between, bare]);
            let arrived = &played.arrived[0];
            assert_eq!(arrived.client, Connected::default());
            assert_eq!((arrived.helo.as_str(), arrived.mail_from.as_str()), ("", ""));
            assert_eq!((&arrived.queue_id, &arrived.authenticated), (&None, &None));
            assert_eq!(&arrived.message[..], b"\r\n");
        }
        let played = play(1000, &[&[(b'O', POSTFIX)], begun, &[(b'A', b""), (b'E', b"")]]);
        assert_eq!(played.fault, Some(MilterFault::PeerOrder('E')));
        assert!(played.arrived.is_empty());
    }

    #[test]
    fn the_client_stays_for_its_next_message_and_the_user_does_not() {
        let user: Said<'_> = &[(b'D', b"M{auth_authen}\0alice\0")];
        let next: Said<'_> = &[(b'M', b"<x@far.example>\0"), (b'E', b"")];
        let played = play(1000, &[&[(b'O', POSTFIX)], &LETTER[..3], user, &LETTER[4..], next]);
        assert_eq!(played.arrived[0].authenticated.as_deref(), Some("alice"));
        assert_eq!(played.arrived[1].authenticated, None);
        assert_eq!(played.arrived[1].queue_id, None);
        assert_eq!(played.arrived[1].helo, "mx.far.example");
    }

    #[test]
    fn commands_out_of_order_are_faults() {
        for (letter, data) in [(b'R', &b"<a@b.example>\0"[..]), (b'B', b"x"), (b'L', b"A\0b\0")] {
            let played = play(1000, &[&[(b'O', POSTFIX), (letter, data)]]);
            assert_eq!(played.fault, Some(MilterFault::PeerOrder(char::from(letter))));
        }
        let played = play(1000, &[&[(b'C', b"x\0U")]]);
        assert_eq!(played.fault, Some(MilterFault::PeerOrder('O')));
    }

    #[test]
    fn a_body_is_kept_only_where_a_signature_covers_it_and_there_is_room() {
        let plain: Said<'_> = &[(b'M', b"<a@far.example>\0"), (b'L', b"A\0 b\0"), (b'B', b"body")];
        let played = play(1000, &[&[(b'O', POSTFIX)], plain, &[(b'E', b"")]]);
        assert_eq!(&played.arrived[0].message[..], b"A: b\r\n\r\n");
        assert_eq!(played.arrived[0].kept, Kept::Whole);
        // The letter's body has 14 bytes.
        for (bytes_max, kept) in [(14, Kept::Whole), (13, Kept::Header), (3, Kept::Header)] {
            let played = play(bytes_max, &[&[(b'O', POSTFIX)], LETTER]);
            assert_eq!(played.arrived[0].kept, kept, "{bytes_max}");
            let ends = played.arrived[0].message.ends_with(b"v=1\r\n\r\n");
            assert_eq!(ends, kept == Kept::Header);
        }
        // An MTA that waits for replies to the body is told to leave out the rest.
        let waits = b"\0\0\0\x06\0\0\x01\xff\0\0\x04\0";
        let played = play(1000, &[&[(b'O', waits)], plain]);
        assert_eq!(played.replies.last(), Some(&skip()));
    }

    #[test]
    fn a_header_without_end_is_cut_and_said_to_be() {
        let field = [b"X\0 ".to_vec(), vec![b'x'; 100_000], vec![0]].concat();
        let fields: Vec<(u8, &[u8])> = vec![(b'L', &field); 8];
        let results: Vec<(u8, &[u8])> = vec![(b'L', b"authentication-Results\0 a; none\0"); 150];
        let played = play(
            1000,
            &[&[(b'O', POSTFIX), (b'M', b"<>\0")], &fields, &results, &[(b'E', b"body")]],
        );
        let arrived = &played.arrived[0];
        assert_eq!(arrived.kept, Kept::PartOfHeader);
        assert!(arrived.message.len() <= TAP_HEADER_BYTES_MAX + 2);
        assert_eq!(arrived.auth_results.len(), TAP_AUTH_RESULTS_MAX);
        assert_eq!(arrived.auth_results_count, 150);
    }

    #[test]
    fn a_value_cannot_begin_another_field() {
        let said: Said<'_> = &[
            (b'O', POSTFIX),
            (b'M', b"<>\0"),
            (b'L', b"A\0 x\nFrom: y\r\n z\n\nq\0"),
            (b'E', b""),
        ];
        let played = play(1000, &[said]);
        let wanted = "A: x\r\n From: y\r\n z\r\n \r\n q\r\n\r\n";
        assert_eq!(std::str::from_utf8(&played.arrived[0].message).unwrap(), wanted);
    }

    #[test]
    fn edits_go_from_below_and_only_where_the_mta_lets_us() {
        let edits = Edits { deleted: vec![1, 3], inserted: Some("mx; spf=pass".to_owned()) };
        let name = "Authentication-Results";
        let played = play(1000, &[&[(b'O', POSTFIX)]]);
        let wanted =
            [delete(name, 3), delete(name, 1), insert_on_top(name, " mx; spf=pass"), proceed()];
        assert_eq!(played.session.edited(&edits), wanted.concat());
        let played = play(1000, &[&[(b'O', b"\0\0\0\x06\0\0\0\0\0\0\0\0")]]);
        assert_eq!(played.session.edited(&edits), proceed());
    }

    proptest! {
        /// Goal: whatever an MTA says, no panic, and nothing is kept beyond the bounds.
        #[test]
        fn any_row_of_commands_is_survived(
            said in proptest::collection::vec(
                (proptest::sample::select(b"DCHMRTLNBEAUQKO".to_vec()),
                 "(<a@b\\.example>|DKIM-Signature|i|\u{0}|4\u{0}\u{0}192\\.0\\.2\\.1|[a-z]){0,12}\u{0}"),
                0..60),
            body_bytes_max in 0_usize..40,
        ) {
            let said: Vec<(u8, &[u8])> =
                said.iter().map(|(letter, data)| (*letter, data.as_bytes())).collect();
            let played = play(body_bytes_max, &[&[(b'O', POSTFIX)], &said]);
            let header: usize = said.iter().map(|(_, data)| data.len() + 4).sum();
            for arrived in &played.arrived {
                prop_assert!(arrived.message.len() <= header + 2 + body_bytes_max);
            }
        }
    }
}
