//! A DNS server for tests: UDP and TCP on one ephemeral loopback port, in a thread of its own.
//!
//! Takes: a zone as text, `NAME TYPE VALUE` a line, `#` for comments. TYPE is A AAAA MX TXT PTR
//! CNAME or SPF; a TXT value is one or more strings in quotes. `*.name` is a wildcard; `\032` in a
//! name is a space. It answers as a recursive server that knows the whole tree from the root:
//! aliases are followed, and what is not there is NXDOMAIN or an empty answer, with a SOA. `fault`
//! makes it misbehave; `asked` tells what it was asked.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

const TTL: u32 = 60;

/// How the server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// NXDOMAIN, whatever the zone says.
    NoSuchName,
    /// No answer at all.
    Silence,
    /// The right answer, later.
    Delay(Duration),
    /// An answer that is no DNS message.
    Garbage,
}

/// How often it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Until the end.
    Always,
    /// For the first so many questions.
    First(usize),
}

/// The server; it ends when this is dropped.
pub struct TestDns {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    zone: Zone,
    faults: Vec<(String, Option<RecordType>, Fault, Times)>,
    asked: Vec<String>,
}

#[derive(Default)]
struct Zone(BTreeMap<String, Vec<RData>>);

impl TestDns {
    /// Starts with this zone, on a port that is free.
    pub fn start(zone: &str) -> TestDns {
        TestDns::start_at("127.0.0.1:0", zone)
    }

    /// Starts with this zone at this address.
    pub fn start_at(address: &str, zone: &str) -> TestDns {
        let wanted = address.to_owned();
        let state = Arc::new(Mutex::new(State { zone: Zone::read(zone), ..State::default() }));
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async move {
                let (udp, tcp) = sockets(&wanted).await;
                ready.send(udp.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve_udp(udp, Arc::clone(&shared)) => {}
                    () = serve_tcp(tcp, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv().unwrap();
        TestDns { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts another zone in the place of the one it has.
    pub fn set_zone(&self, zone: &str) {
        self.state.lock().unwrap().zone = Zone::read(zone);
    }

    /// Misbehaves when asked for this name; `kind` is a type as in the zone, or `None` for all.
    pub fn fault(&self, name: &str, kind: Option<&str>, fault: Fault, times: Times) {
        let kind = kind.map(|kind| kind.parse().unwrap());
        let name = name.to_ascii_lowercase();
        self.state.lock().unwrap().faults.push((name, kind, fault, times));
    }

    /// Behaves again.
    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// What it was asked, in order: `TXT _dmarc.example.org`; repetitions included.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often it was asked this.
    pub fn asked_times(&self, question: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == question).count()
    }
}

impl Drop for TestDns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// UDP and TCP on one port; another try when the port is taken for TCP.
async fn sockets(wanted: &str) -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind(wanted).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some((delay, answer)) = answer(&state, &buffer[..length], true) else { continue };
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = socket.send_to(&answer, peer).await;
        });
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _ = serve_connection(stream, &state).await;
        });
    }
}

async fn serve_connection(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await?;
        let Some((delay, answer)) = answer(state, &question, false) else { continue };
        tokio::time::sleep(delay).await;
        stream.write_u16(answer.len().try_into().unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}

/// The bytes to answer with, and how long to wait before; `None` for silence.
fn answer(state: &Mutex<State>, question: &[u8], udp: bool) -> Option<(Duration, Vec<u8>)> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = text_of(query.name());
    let mut state = state.lock().unwrap();
    state.asked.push(format!("{} {name}", query.query_type()));
    let fault = state.due_fault(&name, query.query_type());
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_query(query.clone());
    let mut delay = Duration::ZERO;
    match fault {
        Some(Fault::Silence) => return None,
        Some(Fault::Garbage) => return Some((delay, vec![0xff; 5])),
        Some(Fault::ServFail) => message.metadata.response_code = ResponseCode::ServFail,
        Some(Fault::Refused) => message.metadata.response_code = ResponseCode::Refused,
        Some(Fault::NoSuchName) => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(soa());
        }
        Some(Fault::Delay(time)) => {
            delay = time;
            state.zone.answer(&mut message, query.name(), query.query_type());
        }
        None => state.zone.answer(&mut message, query.name(), query.query_type()),
    }
    let payload_max = question.edns.as_ref().map_or(512, Edns::max_payload);
    if let Some(asked) = question.edns {
        message.set_edns(Edns::default().set_max_payload(asked.max_payload()).clone());
    }
    let mut bytes = message.to_vec().unwrap();
    if udp && bytes.len() > payload_max.into() {
        bytes = message.truncate().to_vec().unwrap();
    }
    Some((delay, bytes))
}

impl State {
    fn due_fault(&mut self, name: &str, kind: RecordType) -> Option<Fault> {
        for (at, of, fault, times) in &mut self.faults {
            let concerns = *at == name && of.is_none_or(|of| of == kind);
            match times {
                _ if !concerns => {}
                Times::Always => return Some(*fault),
                Times::First(0) => {}
                Times::First(left) => {
                    *left -= 1;
                    return Some(*fault);
                }
            }
        }
        None
    }
}

impl Zone {
    fn read(text: &str) -> Zone {
        let mut zone = Zone::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace);
            let name = words.next().unwrap().to_ascii_lowercase().replace("\\032", " ");
            let kind = words.next().unwrap_or_else(|| panic!("no type: {line}"));
            let value = words.next().unwrap_or_default().trim();
            zone.0.entry(name).or_default().push(record_data(kind, value));
        }
        zone
    }

    fn answer(&self, message: &mut Message, name: &Name, kind: RecordType) {
        let mut name = name.clone();
        for _alias in 0..10 {
            let Some(found) = self.at(&text_of(&name)) else {
                message.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let of = |wanted| found.iter().filter(move |data| data.record_type() == wanted);
            for data in of(kind) {
                message.add_answer(Record::from_rdata(name.clone(), TTL, data.clone()));
            }
            let alias = of(RecordType::CNAME).next();
            let Some(RData::CNAME(target)) = alias.filter(|_| kind != RecordType::CNAME) else {
                break;
            };
            let record = RData::CNAME(target.clone());
            message.add_answer(Record::from_rdata(name, TTL, record));
            name = target.0.clone();
        }
        if !message.answers.iter().any(|record| record.record_type() == kind) {
            message.add_authority(soa());
        }
    }

    /// What stands at a name; nothing, but not `None`, where only something below it exists.
    fn at(&self, name: &str) -> Option<&[RData]> {
        if let Some(found) = self.0.get(name) {
            return Some(found);
        }
        let below = format!(".{name}");
        if name.is_empty() || self.0.keys().any(|known| known.ends_with(&below)) {
            return Some(&[]);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.0.get(&format!("*.{parent}")) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }
}

/// Lower case, without the final dot; empty for the root.
fn text_of(name: &Name) -> String {
    let labels = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
    labels.collect::<Vec<_>>().join(".")
}

/// A name whose labels may hold anything but dots.
fn name(text: &str) -> Name {
    let text = text.trim_end_matches('.');
    if text.is_empty() {
        return Name::root();
    }
    Name::from_labels(text.split('.').map(str::as_bytes)).unwrap()
}

fn record_data(kind: &str, value: &str) -> RData {
    match kind {
        "A" => RData::A(A(value.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(value.parse().unwrap())),
        "MX" => {
            let (preference, host) = value.split_once(' ').unwrap();
            RData::MX(MX::new(preference.parse().unwrap(), name(host.trim())))
        }
        "PTR" => RData::PTR(PTR(name(value))),
        "CNAME" => RData::CNAME(CNAME(name(value))),
        "TXT" => text_data(&strings(value)),
        "SPF" => RData::Unknown { code: RecordType::Unknown(99), rdata: NULL::new() },
        other => panic!("no such type in a test zone: {other}"),
    }
}

/// TXT data of these strings; one over 255 bytes becomes several.
fn text_data(strings: &[Vec<u8>]) -> RData {
    let split = |string: &'_ Vec<u8>| -> Vec<Vec<u8>> {
        if string.is_empty() {
            return vec![Vec::new()];
        }
        string.chunks(255).map(<[u8]>::to_vec).collect()
    };
    let parts: Vec<Vec<u8>> = strings.iter().flat_map(split).collect();
    RData::TXT(TXT::from_bytes(parts.iter().map(Vec::as_slice).collect()))
}

/// `"a" "b\"c\255"` → its strings; a backslash and three digits are a byte.
fn strings(value: &str) -> Vec<Vec<u8>> {
    let mut strings = Vec::new();
    let mut bytes = value.bytes();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut string = Vec::new();
        loop {
            match bytes.next().unwrap_or_else(|| panic!("no closing quote: {value}")) {
                b'"' => break,
                b'\\' => {
                    let first = bytes.next().unwrap();
                    if first.is_ascii_digit() {
                        let rest = [bytes.next().unwrap(), bytes.next().unwrap()];
                        let digits = String::from_utf8(vec![first, rest[0], rest[1]]).unwrap();
                        string.push(digits.parse().unwrap());
                    } else {
                        string.push(first);
                    }
                }
                byte => string.push(byte),
            }
        }
        strings.push(string);
    }
    strings
}

fn soa() -> Record {
    let data = SOA::new(name("ns.test"), name("root.test"), 1, 3600, 600, 86400, TTL);
    Record::from_rdata(Name::root(), TTL, RData::SOA(data))
}
