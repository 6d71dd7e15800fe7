//! The SMTP server's side: whatever a client says, cut anywhere, it hears whole replies, and the
//! same ones.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use replyguard::mail::limits::RECIPIENTS_MAX;
use replyguard::mail::reply::Reply;
use replyguard::wire::endpoint::Protocol;
use replyguard::wire::keywords::Keywords;
use replyguard::wire::line::{Content, ContentReader, LineReader};
use replyguard::wire::secure::{Channel, Starttls};
use replyguard::wire::smtp_client::{ReplyReader, mail_command, rcpt_command};
use replyguard::wire::smtp_server::{Session, Step};
use replyguard_fuzz::{packets, seeded};

/// A server, and a next hop that refuses what has `no` in it and gets lost over `lost`.
struct Server {
    session: Session,
    lines: LineReader,
    content: Option<ContentReader>,
    said: Vec<String>,
    is_closed: bool,
}

impl Server {
    fn new(protocol: Protocol) -> Server {
        let hello = ["mx.example", "8BITMIME", "DSN", "SIZE 1000", "SMTPUTF8", "DELIVERBY 60"];
        let keywords = Keywords::from_reply(&Reply::lines(250, &hello));
        let offer = Keywords::meet([&keywords], &[], 0);
        let session = Session::new(protocol, "guard.example", "ID", offer);
        let session = session.over(Channel::Clear, Starttls::Offered);
        let lines = LineReader::default();
        Server { session, lines, content: None, said: Vec::new(), is_closed: false }
    }

    fn hear(&mut self, buffer: &mut BytesMut) {
        while !self.is_closed {
            if let Some(reader) = &mut self.content {
                match reader.next(buffer) {
                    None => return,
                    Some(Content::End) => {
                        self.content = None;
                        self.session.transaction_over();
                    }
                    Some(_) => {}
                }
                continue;
            }
            let Some(line) = self.lines.next(buffer) else { return };
            let step = self.session.advance(line);
            self.said.push(format!("{step:?}"));
            self.obey(step);
            let transaction = self.session.transaction();
            assert!(transaction.is_none_or(|(_, to)| to.len() <= RECIPIENTS_MAX));
        }
    }

    fn obey(&mut self, step: Step) {
        match step {
            Step::Say(reply) | Step::Reset(reply) => is_whole(&reply),
            Step::StartTls(reply) => {
                is_whole(&reply);
                self.session.secured();
            }
            Step::Close(reply) => {
                is_whole(&reply);
                self.is_closed = true;
            }
            Step::Mail(mail) => {
                is_one_line(&mail_command(&mail, 1000));
                if mail.path_text.contains("no") {
                    self.session.mail_refused();
                }
            }
            Step::Rcpt(recipient) => {
                is_one_line(&rcpt_command(&recipient));
                match recipient.path_text.as_str() {
                    path if path.contains("no") => {}
                    path if path.contains("lost") => {
                        self.session.transaction_lost(Reply::new(451, "4.4.2", "lost"));
                    }
                    _ => self.session.recipient_accepted(recipient),
                }
            }
            Step::Data => {
                assert!(self.session.transaction().is_some_and(|(_, to)| !to.is_empty()));
                self.content = Some(ContentReader::default());
            }
        }
    }
}

/// Whether it is one reply and nothing behind it: a client's words in it must not become replies.
fn is_whole(reply: &Reply) {
    let mut buffer = BytesMut::from(&reply.wire()[..]);
    let read = ReplyReader::default().next(&mut buffer);
    assert_eq!(read.and_then(Result::ok).as_ref(), Some(reply), "{reply:?}");
    assert!(buffer.is_empty(), "{reply:?}");
    let text = String::from_utf8_lossy(reply.wire()).replace("\r\n", "");
    assert!(!text.contains(['\r', '\n', '\0']), "{reply:?}");
}

/// What goes to the next hop is one command.
fn is_one_line(command: &str) {
    let line = command.strip_suffix("\r\n");
    assert!(line.is_some_and(|line| !line.contains(['\r', '\n', '\0'])), "{command:?}");
}

fn play(protocol: Protocol, packets: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut server, mut buffer) = (Server::new(protocol), BytesMut::new());
    for packet in packets {
        buffer.extend_from_slice(packet);
        server.hear(&mut buffer);
    }
    (server.said, server.is_closed)
}

fuzz_target!(|input: &[u8]| {
    let (seed, wire) = seeded(input);
    let protocol = if seed % 4 == 3 { Protocol::Lmtp } else { Protocol::Smtp };
    assert_eq!(play(protocol, &packets(seed, wire)), play(protocol, &[wire]));
});
