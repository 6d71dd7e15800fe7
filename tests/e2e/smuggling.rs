//! SMTP smuggling: what a client hides behind an odd end of a message never becomes a second one.
//!
//! Goal: whatever stands around the dot, the message is one message at the next hop, or held, or
//! refused. Method: the guard, as proxy and as pass-through, before servers that read line ends in
//! ways of their own: Debian's Postfix 3.7 and Exim 4.96, and one in Python that takes any of CR, LF
//! and CRLF for a line end and passes over NUL and blanks at their end, as careless programs do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::claim::Port;
use crate::client::Client;
use crate::guard::{Guard, Settings};
use crate::mail::letter;
use crate::process::Process;
use crate::servers::exim::{self, Exim};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;
use crate::skipped::skipped;
use crate::wait::{until, within};

const ALICE: &str = "alice@ours.example";
/// Whose message is hidden in another's.
const EVE: &str = "eve@ours.example";

/// Everything but CRLF, dot, CRLF that some server might read as the end of a message.
fn ends() -> Vec<String> {
    let line_ends = ["\r\n", "\n", "\r", "\r\r\n", "\r\n\0", "\0\r\n", "\n\r"];
    let dots = [".", ".\0", "\0.", "..", ". ", " ."];
    let mut ends = Vec::new();
    for before in line_ends {
        for dot in dots {
            ends.extend(line_ends.iter().map(|after| format!("{before}{dot}{after}")));
        }
    }
    // What has the true end in it ends the message; what follows are the client's own commands.
    ends.retain(|end| !end.contains("\r\n.\r\n"));
    ends
}

fn recipient(number: usize) -> String {
    format!("r{number}@far.example")
}

/// Hands in a message with another one hidden behind this end; whether it was taken.
fn hand_in(server: SocketAddr, number: usize, mail_from: &str, end: &str) -> bool {
    let mut client = Client::open(server);
    client.command(&format!("MAIL FROM:<{mail_from}>")).must();
    client.command(&format!("RCPT TO:<{}>", recipient(number))).must();
    assert_eq!(client.command("DATA").code(), 354);
    let message = format!(
        "{}The end:{end}MAIL FROM:<{EVE}>\r\nRCPT TO:<mallory@far.example>\r\nDATA\r\n\
         Subject: smuggled\r\n\r\nsmuggled {number}\r\n.\r\n",
        letter(ALICE, &recipient(number), &format!("smuggle-{number}"))
    );
    client.bytes(message.as_bytes());
    let reply = client.reply();
    client.say("QUIT");
    // Why read: closing with unread replies resets the connection, and hides what it would show.
    while !client.reply().lines.is_empty() {}
    assert!(reply.code() >= 250, "{end:?}: {reply:?}");
    reply.positive()
}

/// A server behind the guard: where it takes mail, and by whom and for whom it has taken some.
trait Behind {
    fn address(&self) -> SocketAddr;
    fn taken(&self) -> Vec<(String, Vec<String>)>;
}

impl Behind for (Postfix, Sink) {
    fn address(&self) -> SocketAddr {
        self.0.submission()
    }

    fn taken(&self) -> Vec<(String, Vec<String>)> {
        at_sink(&self.1)
    }
}

impl Behind for (Exim, Sink) {
    fn address(&self) -> SocketAddr {
        self.0.submission()
    }

    fn taken(&self) -> Vec<(String, Vec<String>)> {
        at_sink(&self.1)
    }
}

fn at_sink(sink: &Sink) -> Vec<(String, Vec<String>)> {
    let of = |one: crate::sink::Transaction| {
        let to = one.addresses().into_iter().map(str::to_owned).collect();
        (one.reverse_path, to)
    };
    sink.taken().into_iter().map(of).collect()
}

/// The careless server. It prints its port, then MAIL and RCPT of each message as a line of JSON.
struct Python {
    process: Process,
    address: SocketAddr,
    _log: tempfile::NamedTempFile,
}

const CARELESS: &str = r#"
import json, re, socketserver, sys
END = re.compile(rb"\r\n|\r|\n")
class Serve(socketserver.BaseRequestHandler):
    def setup(self):
        self.held, self.over = b"", False
    def line(self):
        while not self.over:
            found = END.search(self.held)
            # A CR at the end of what came may be half of a CRLF.
            if found and (found.group() != b"\r" or found.end() < len(self.held)):
                line, self.held = self.held[:found.start()], self.held[found.end():]
                return line.replace(b"\0", b"").rstrip()
            more = self.request.recv(65536)
            self.over = not more
            self.held += more
        return None
    def say(self, text):
        self.request.sendall(text.encode() + b"\r\n")
    def handle(self):
        mail, rcpt = None, []
        self.say("220 careless.example ESMTP")
        while (line := self.line()) is not None:
            verb, text = line[:4].upper(), line.decode("latin-1")
            if verb in (b"EHLO", b"HELO"):
                self.say("250-careless.example\r\n250-PIPELINING\r\n250 8BITMIME")
            elif verb == b"MAIL":
                mail, rcpt = text, []
                self.say("250 Ok")
            elif verb == b"RCPT":
                rcpt.append(text)
                self.say("250 Ok")
            elif verb == b"DATA":
                self.say("354 Go on")
                while (line := self.line()) not in (None, b"."):
                    pass
                if line is not None:
                    sys.stdout.write(json.dumps([mail, rcpt]) + "\n")
                    sys.stdout.flush()
                    self.say("250 Ok")
            elif verb == b"QUIT":
                self.say("221 Bye")
                return
            else:
                self.say("250 Ok" if verb in (b"RSET", b"NOOP") else "500 What?")
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
server = Server(("127.0.0.1", 0), Serve)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl Python {
    /// `None`, said aloud, where there is no Python.
    fn start() -> Option<Python> {
        if !Command::new("python3").arg("-V").output().is_ok_and(|ran| ran.status.success()) {
            skipped("there is no python3");
            return None;
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", CARELESS]);
        let process = Process::start(command, log.path());
        let port: u16 = until("the careless server's port", || {
            process.printed().lines().next().and_then(|line| line.parse().ok())
        });
        Some(Python { process, address: SocketAddr::from(([127, 0, 0, 1], port)), _log: log })
    }
}

impl Behind for Python {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn taken(&self) -> Vec<(String, Vec<String>)> {
        let printed = self.process.printed();
        let path = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            let path = text.split(['<', '>']).nth(1).unwrap_or_default();
            path.to_owned()
        };
        let whole = printed
            .split_inclusive('\n')
            .filter(|line| line.starts_with('[') && line.ends_with('\n'));
        let read = |line: &str| serde_json::from_str::<(Value, Vec<Value>)>(line).unwrap();
        let of = |(mail, rcpt): (Value, Vec<Value>)| (path(&mail), rcpt.iter().map(path).collect());
        whole.map(|line| of(read(line))).collect()
    }
}

/// Hands all of it in to the guard before this server, by both of its doors.
fn nothing_is_smuggled(behind: &dyn Behind) {
    let tap = Port::claim();
    let settings = Settings::before(behind.address())
        .set("tap.smtp.listen", vec![tap.address().to_string()])
        .set("tap.smtp.next_hop", vec![behind.address().to_string()])
        .set("tap.smtp.client", "none");
    let guard = Guard::start(settings);
    let mut taken = BTreeMap::new();
    let doors = [(guard.address(), ALICE), (guard.address(), ""), (tap.address(), ALICE)];
    for (server, mail_from) in doors {
        for end in ends() {
            let number = taken.len();
            taken.insert(number, (hand_in(server, number, mail_from, &end), end));
        }
    }
    let accepted = taken.values().filter(|(accepted, _)| *accepted).count();
    // Each message counts that has come out or is held.
    let out = || (behind.taken(), guard.held_for());
    let all = || {
        let (taken, held) = out();
        (taken.len() + held.len() >= accepted).then_some(())
    };
    within(std::time::Duration::from_secs(60), all).expect("all that was taken comes out");
    let (out, held) = out();
    let place = out.iter().position(|(mail_from, _)| mail_from == EVE);
    let before = place.map(|place| &out[place.saturating_sub(1)]);
    let number = before.and_then(|(_, rcpt)| rcpt[0].split(['r', '@']).nth(1)?.parse().ok());
    let end = number.map(|number: usize| &taken[&number].1);
    assert_eq!(place, None, "smuggled behind {end:?}, it seems");
    for (number, (accepted, end)) in &taken {
        let to = recipient(*number);
        let came = out.iter().filter(|(_, rcpt)| rcpt.contains(&to)).count();
        let kept = held.iter().filter(|held| **held == to).count();
        assert_eq!(came + kept, usize::from(*accepted), "{end:?}: {came} came, {kept} are held");
    }
    println!(
        "{} odd ends: {} messages came out, {} are held, {} were refused",
        taken.len(),
        out.len(),
        held.len(),
        taken.len() - accepted
    );
}

fn smuggled(behind: &dyn Behind) -> usize {
    behind.taken().iter().filter(|(mail_from, _)| mail_from == EVE).count()
}

#[test]
fn nothing_is_smuggled_into_a_careless_server() {
    let Some(python) = Python::start() else { return };
    nothing_is_smuggled(&python);
    // Without the guard it is: or the test would see nothing.
    assert!(hand_in(python.address(), 0, ALICE, "\n.\n"));
    until("the server to be tricked", || (smuggled(&python) == 1).then_some(()));
}

#[test]
fn nothing_is_smuggled_into_postfix() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let settings = postfix::Settings::default().next_hop(sink.address());
    // As it was before the remedy: what a site has that never changed its configuration.
    let postfix = Postfix::start(&settings.set("smtpd_forbid_bare_newline", "no"));
    let behind = (postfix, sink);
    nothing_is_smuggled(&behind);
    assert!(hand_in(behind.address(), 0, ALICE, "\n.\r\n"));
    until("Postfix to be tricked", || (smuggled(&behind) == 1).then_some(()));
}

#[test]
fn nothing_is_smuggled_into_exim() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let settings = exim::Settings { next_hop: Some(sink.address()), ..exim::Settings::default() };
    nothing_is_smuggled(&(Exim::start(&settings), sink));
}
