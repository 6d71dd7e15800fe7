//! Dialogues of a client with the daemon before a next hop, over TCP: `tests/dialogues/*.smtp`.
//!
//! ```text
//! # a comment
//! > a line that the client sends; lines that follow one another are sent together
//! < a line that it gets, exactly; {id} stands for the id of an event or a session
//! <~ the beginning of a line that it gets
//! ! an order, see below
//! ```
//!
//! Orders before the first line that is sent or got:
//! - `lmtp`: the guard speaks LMTP. `set KEY = VALUE`: a setting of `[outbound]`. `toml LINE`: a
//!   line at the end of the configuration. `tls`: there is a certificate for listeners.
//! - `hop lmtp`: the next hop speaks LMTP.
//!
//! Orders anywhere:
//! - `hop offers A, B C`: what the next hop announces.
//! - `hop [once] STAGE [with TEXT] says REPLY`, `… closes`, `… stalls`: what it does there, when
//!   the command or message contains that. `hop behaves`: its duty again.
//! - `hop heard LINE`: the next of its command lines. `hop heard nothing`: there are no more.
//! - `hop took "TEXT"`: the next message that it took, without our two lines.
//!   `hop took nothing`: there are no more. `hop got no end`: what it did not take held nothing
//!   that any server could read as the end of a message.
//! - `held "TEXT"`: the next held message. `held nothing`: there are no more.
//! - `send "TEXT" [times N]`: the client sends these bytes.
//! - `client NAME`: from here on another client speaks, or the same as before under that name.
//! - `secure`: the client makes the handshake.
//! - `leave`: the client closes. `closed`: the server has closed. `drain`: the daemon stops.
//!
//! In quotes stand `\r \n \t \0 \\ \" \xNN`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replyguard::serve::{Server, Stopper};
use replyguard::tls::client::{Connector, Trust};
use replyguard::tls::stream::Stream;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::certificates::{Authority, Dates};
use crate::hop::{Act, Fate, Hop, Seen, Stage, USUAL, could_end, shown};
use crate::rig::{Client, SITE, config, held};

/// Nothing in a dialogue takes longer; whatever does is a fault.
const PATIENCE: Duration = Duration::from_secs(20);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialogue_goes_as_it_is_written() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "the dialogues must be there");
    let mut playing = JoinSet::new();
    for path in files {
        playing.spawn(async move {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            timeout(PATIENCE * 3, play(&name, &text)).await.unwrap_or_else(|_| panic!("{name}"));
        });
    }
    let mut failed = 0;
    while let Some(played) = playing.join_next().await {
        failed += usize::from(played.is_err());
    }
    assert_eq!(failed, 0, "dialogues went another way; see above");
}

/// Plays one dialogue; panics with file and line where it goes another way.
async fn play(name: &str, text: &str) {
    let mut stage = Scene::default();
    let mut to_send = String::new();
    for (index, line) in text.lines().enumerate() {
        stage.at = format!("{name}:{}", index + 1);
        if let Some(sent) = line.strip_prefix('>') {
            to_send.push_str(sent.strip_prefix(' ').unwrap_or(sent));
            to_send.push_str("\r\n");
            continue;
        }
        if !to_send.is_empty() {
            stage.send(to_send.as_bytes()).await;
            to_send.clear();
        }
        if let Some(prefix) = line.strip_prefix("<~ ") {
            stage.expect(prefix, Extent::Prefix).await;
        } else if let Some(exact) = line.strip_prefix("< ") {
            stage.expect(exact, Extent::Whole).await;
        } else if let Some(order) = line.strip_prefix("! ") {
            stage.order(order).await;
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{}: {line:?}", stage.at);
        }
    }
    assert!(to_send.is_empty(), "{name}: it ends with a question");
    stage.end().await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Prefix,
}

/// Where a dialogue is played.
struct Scene {
    /// File and line.
    at: String,
    outbound: Vec<String>,
    toml: Vec<String>,
    hop: Hop,
    hop_is_lmtp: bool,
    running: Option<Running>,
    clients: BTreeMap<String, Client<Stream<TcpStream>>>,
    certificate: Option<tempfile::TempDir>,
    speaking: String,
    heard: usize,
    took: usize,
    holds: usize,
}

struct Running {
    address: String,
    stopper: Stopper,
    guard: std::sync::Arc<replyguard::guard::Guard>,
    serving: JoinHandle<()>,
    _state: tempfile::TempDir,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            at: String::new(),
            outbound: Vec::new(),
            toml: Vec::new(),
            hop: Hop::smtp(USUAL),
            hop_is_lmtp: false,
            running: None,
            clients: BTreeMap::new(),
            certificate: None,
            speaking: "first".to_owned(),
            heard: 0,
            took: 0,
            holds: 0,
        }
    }
}

impl Scene {
    async fn running(&mut self) -> &Running {
        if self.running.is_none() {
            let state = tempfile::tempdir().unwrap();
            let mark = if self.hop_is_lmtp { "lmtp:" } else { "" };
            let next_hop = self.hop.listen().await;
            let text = format!(
                "{SITE}[outbound]\nlisten = [\"127.0.0.1:0\"]\nnext_hop = [\"{mark}{next_hop}\"]\n\
                 {}\n[dns]\nservers = [\"127.0.0.1:9\"]\ntimeout = \"100ms\"\n{}\n",
                self.outbound.join("\n"),
                self.toml.join("\n"),
            );
            let server = Server::start(&config(&text, state.path())).await.unwrap();
            self.running = Some(Running {
                address: server.endpoints()[0].to_string(),
                stopper: server.stopper(),
                guard: std::sync::Arc::clone(server.guard()),
                serving: tokio::spawn(server.run()),
                _state: state,
            });
        }
        self.running.as_ref().unwrap()
    }

    async fn client(&mut self) -> &mut Client<Stream<TcpStream>> {
        if !self.clients.contains_key(&self.speaking) {
            let address = self.running().await.address.clone();
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            self.clients.insert(self.speaking.clone(), Client::new(Stream::Clear(stream)));
        }
        self.clients.get_mut(&self.speaking).unwrap()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client().await.send(bytes).await;
    }

    async fn line(&mut self) -> Option<String> {
        let at = self.at.clone();
        let line = timeout(PATIENCE, self.client().await.line()).await;
        line.unwrap_or_else(|_| panic!("{at}: nothing comes"))
    }

    async fn expect(&mut self, expected: &str, extent: Extent) {
        let line = self.line().await;
        let at = &self.at;
        let line = line.unwrap_or_else(|| panic!("{at}: it closed instead of saying {expected:?}"));
        let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{at}: {line:?}"));
        let right = match extent {
            Extent::Whole => without_id(text, expected) == expected,
            Extent::Prefix => text.starts_with(expected),
        };
        assert!(right, "{at}: it says\n  {text}\nand not\n  {expected}");
    }

    async fn order(&mut self, order: &str) {
        let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
        match (verb, rest) {
            ("lmtp", "") => self.outbound.push("protocol = \"lmtp\"".to_owned()),
            ("set", _) => self.outbound.push(rest.to_owned()),
            ("toml", _) => self.toml.push(rest.to_owned()),
            ("hop", "lmtp") => {
                self.hop = Hop::lmtp(USUAL);
                self.hop_is_lmtp = true;
            }
            ("hop", _) => self.of_hop(rest).await,
            ("held", _) => {
                let all = held(self.running().await.guard.quarantine()).await;
                let found = all.get(self.holds).map(|(_, bytes)| bytes.clone());
                self.holds += usize::from(found.is_some());
                self.same(found.as_deref(), rest);
            }
            ("send", _) => {
                let (text, times) = rest.rsplit_once(" times ").unwrap_or((rest, "1"));
                let bytes = unquoted(text).repeat(times.parse().unwrap());
                self.send(&bytes).await;
            }
            ("tls", "") => self.have_certificate(),
            ("secure", "") => self.secure().await,
            ("client", name) => self.speaking = name.to_owned(),
            ("leave", "") => drop(self.clients.remove(&self.speaking)),
            ("closed", "") => assert_eq!(self.line().await, None, "{}", self.at),
            ("drain", "") => self.running().await.stopper.drain(),
            _ => panic!("{}: no order: {order:?}", self.at),
        }
    }

    fn have_certificate(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let issued = Authority::new().issue(&["localhost"], Dates::Always);
        let (certificate, key) = issued.files(folder.path());
        self.toml.push(format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n"));
        self.certificate = Some(folder);
    }

    async fn secure(&mut self) {
        let client = self.clients.remove(&self.speaking).expect("a client");
        let clear = client.into_stream().take_clear().expect("a client in the clear");
        let connector = Connector::new(Trust::Anyone).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (stream, _) = connector.connect(name, clear).await.unwrap();
        self.clients.insert(self.speaking.clone(), Client::new(stream));
    }

    async fn of_hop(&mut self, order: &str) {
        let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
        match (word, rest) {
            ("offers", _) => {
                let words = rest.split(',').map(str::trim).filter(|word| !word.is_empty());
                self.hop.offers(&words.collect::<Vec<_>>());
            }
            ("behaves", "") => self.hop.behaves(),
            ("heard", _) => {
                let lines: Vec<String> = self.hop.lines();
                // What belongs to every session is not worth a line in each dialogue.
                let lines: Vec<&String> = lines
                    .iter()
                    .filter(|line| !line.starts_with("EHLO ") && *line != "QUIT")
                    .collect();
                let found = lines.get(self.heard).map_or("nothing", |line| line.as_str());
                self.heard += usize::from(found != "nothing");
                assert_eq!(found, rest, "{}", self.at);
            }
            ("took", _) => {
                let taken = self.hop.taken();
                let found = taken.get(self.took).map(Seen::original);
                self.took += usize::from(found.is_some());
                self.same(found.as_deref(), rest);
            }
            ("got", "no end") => self.hop_got_no_end().await,
            _ => self.hop_is_to(order),
        }
    }

    /// The guard cuts the connection before it answers the client, but the next hop may notice
    /// later.
    async fn hop_got_no_end(&self) {
        let noticed = async {
            while !self.hop.seen().iter().any(|seen| seen.fate == Fate::Broken) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, noticed).await.unwrap_or_else(|_| panic!("{}: nothing broke", self.at));
        for seen in self.hop.seen().iter().filter(|seen| seen.fate == Fate::Broken) {
            assert!(!could_end(&seen.wire), "{}: {}", self.at, shown(&seen.wire));
        }
    }

    fn hop_is_to(&self, order: &str) {
        let wrong = || -> ! { panic!("{}: no order: {order:?}", self.at) };
        let (rest, times) = match order.strip_prefix("once ") {
            Some(rest) => (rest, 1),
            None => (order, usize::MAX),
        };
        let Some((stage, rest)) = rest.split_once(' ') else { wrong() };
        let Some(stage) = Stage::parse(stage) else { wrong() };
        let (containing, rest) = match rest.strip_prefix("with ").and_then(|r| r.split_once(' ')) {
            Some((containing, rest)) => (containing, rest),
            None => ("", rest),
        };
        let act = match rest.split_once(' ').unwrap_or((rest, "")) {
            ("says", reply) => Act::Say(format!("{}\r\n", reply.replace("\\r\\n", "\r\n"))),
            ("closes", "") => Act::Close,
            ("stalls", "") => Act::Stall,
            _ => wrong(),
        };
        self.hop.order(stage, containing, act, times);
    }

    fn same(&self, found: Option<&[u8]>, expected: &str) {
        let found = found.map_or("nothing".to_owned(), shown);
        let expected = match expected {
            "nothing" => "nothing".to_owned(),
            text => shown(&unquoted(text)),
        };
        assert_eq!(found, expected, "{}", self.at);
    }

    async fn end(mut self) {
        self.clients.clear();
        let Some(running) = self.running else { return };
        running.stopper.drain();
        timeout(PATIENCE, running.serving).await.expect("the daemon ends").unwrap();
    }
}

/// The text with the ids that `expected` has places for as `{id}`.
fn without_id(text: &str, expected: &str) -> String {
    if !expected.contains("{id}") {
        return text.to_owned();
    }
    let word = |word: &str| {
        let ulid =
            word.len() == 26 && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if ulid { "{id}".to_owned() } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn unquoted(text: &str) -> Vec<u8> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut bytes = inner.unwrap_or_else(|| panic!("no quotes: {text}")).bytes();
    let mut found = Vec::new();
    while let Some(byte) = bytes.next() {
        found.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match bytes.next().expect("something behind the backslash") {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
        });
    }
    found
}
