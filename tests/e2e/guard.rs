//! The guard itself: the `replyguard` binary with a private state folder, a port of its own, and a
//! DNS server that knows the names of the tests.
//!
//! Every line that a guard writes into its audit log is checked against the shipped schema when it
//! is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::claim::Port;
use crate::dns::TestDns;
use crate::process::{Process, Signal, Work};
use crate::schema::assert_valid;
use crate::wait::{PATIENCE, until};

/// Records of the audit log that a failed test shows.
const RECORDS_SHOWN: usize = 20;

/// What DNS says of the domains in the tests. `victim.example` is forged, and publishes what shows
/// it; mail from `friend.example` is genuine; of `stranger.example` nobody knows anything.
pub const ZONE: &str = "
    victim.example MX 10 mx.victim.example
    victim.example TXT \"v=spf1 -all\"
    _dmarc.victim.example TXT \"v=DMARC1; p=reject\"
    friend.example MX 10 mx.friend.example
    _dmarc.friend.example TXT \"v=DMARC1; p=reject\"
    stranger.example MX 10 mx.stranger.example
    far.example MX 10 mx.far.example
    elsewhere.example MX 10 mx.elsewhere.example
    branch.example MX 10 mx.branch.example
    ours.example MX 10 mx.ours.example";

/// What a test sets, as keys of the configuration file: `local.domains`.
#[derive(Clone, Debug)]
pub struct Settings {
    file: toml::Table,
    /// Listeners beside the first.
    also_at: Vec<SocketAddr>,
}

impl Settings {
    /// A guard that acts, before `next_hop`, for the host of `servers`: `mx.ours.example`, whose
    /// border strips and writes `Authentication-Results`.
    pub fn before(next_hop: SocketAddr) -> Self {
        Self { file: toml::Table::new(), also_at: Vec::new() }
            .set("mode", "enforce")
            .set("hostname", "guard.ours.example")
            .set("outbound.next_hop", vec![next_hop.to_string()])
            .set("local.domains", vec!["ours.example"])
            .set("local.hosts", vec!["mx.ours.example"])
            .set("local.authserv_ids", vec!["mx.ours.example"])
            .set("local.authserv_stripped", true)
    }

    /// For tests in which one pair writes so much that it would be a loop.
    pub fn talkative(self) -> Self {
        let keys = ["pair", "pair_day", "thread", "domain"];
        keys.iter().fold(self, |settings, key| {
            settings.set(&format!("loops.conversation.{key}"), "1000/24h")
        })
    }

    /// Its next hop must speak TLS, under this name, with a certificate of this authority (PEM).
    pub fn trusting(self, next_hop: SocketAddr, name: &str, authority: &Path) -> Self {
        let mut hop = toml::Table::new();
        hop.insert("to".to_owned(), next_hop.to_string().into());
        hop.insert("name".to_owned(), name.into());
        self.set("outbound.next_hop", vec![hop])
            .set("outbound.next_hop_tls.mode", "require")
            .set("outbound.next_hop_tls.ca_file", authority.to_str().unwrap())
    }

    /// A whole configuration file, as somebody wrote it.
    pub fn file(text: &str) -> Self {
        Self { file: text.parse().unwrap(), also_at: Vec::new() }
    }

    /// It listens on this port as well.
    pub fn also_at(mut self, port: &Port) -> Self {
        self.also_at.push(port.address());
        self
    }

    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let mut table = &mut self.file;
        let mut words = key.split('.').peekable();
        while let Some(word) = words.next() {
            if words.peek().is_none() {
                table.insert(word.to_owned(), value.into());
                break;
            }
            let inner = table.entry(word).or_insert_with(|| toml::Table::new().into());
            table = inner.as_table_mut().expect("a key is a table or a value");
        }
        self
    }

    /// The path at a key, or `usual`.
    fn path(&self, key: &str, usual: PathBuf) -> PathBuf {
        let (mut table, mut found) = (Some(&self.file), None);
        for word in key.split('.') {
            found = table.and_then(|table| table.get(word));
            table = found.and_then(toml::Value::as_table);
        }
        found.and_then(toml::Value::as_str).map_or(usual, PathBuf::from)
    }
}

/// A message in quarantine: `<event>-<n>.eml`, `.json` and `.copies`.
#[derive(Clone, Debug)]
pub struct Held {
    /// `<event>-<n>`.
    pub name: String,
    pub message: Vec<u8>,
    /// Envelope, recipients and decision.
    pub slip: Value,
    /// The same for each further copy of its campaign.
    pub copies: Vec<Value>,
}

impl Held {
    /// For whom it is held: those of the message, then those of its copies.
    pub fn recipients(&self) -> Vec<String> {
        let slips = std::iter::once(&self.slip).chain(&self.copies);
        let recipients = slips.flat_map(|slip| slip["envelope"]["recipients"].as_array().unwrap());
        let path = |recipient: &Value| recipient["path"].as_str().unwrap().to_owned();
        recipients.map(|recipient| path(recipient).trim_matches(['<', '>']).to_owned()).collect()
    }
}

pub struct Guard {
    /// `None` between `stop` and `resume`.
    process: Option<Process>,
    front: Port,
    dns: TestDns,
    state: TempDir,
    settings: Settings,
}

impl Guard {
    /// Starts a guard and waits until it takes connections.
    pub fn start(settings: Settings) -> Self {
        Self::start_at(Port::claim(), settings)
    }

    /// The same on a port that others know already.
    pub fn start_at(front: Port, settings: Settings) -> Self {
        Self::try_start(front, settings).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; the error is what the guard said before it gave up.
    pub fn try_start(front: Port, settings: Settings) -> Result<Self, String> {
        let (state, dns) = (tempfile::tempdir().unwrap(), TestDns::start(ZONE));
        let mut guard = Self { process: None, front, dns, state, settings: settings.clone() };
        guard.configure(settings);
        guard.launch()?;
        Ok(guard)
    }

    /// Writes another configuration, for `reload` or `resume`.
    pub fn configure(&mut self, settings: Settings) {
        let state = settings.path("state_dir", self.state.path().join("state"));
        let mut listen = vec![self.address().to_string()];
        listen.extend(settings.also_at.iter().map(ToString::to_string));
        self.settings = settings
            .set("state_dir", state.to_str().unwrap())
            .set("outbound.listen", listen)
            .set("dns.servers", vec![self.dns.address().to_string()]);
        self.write_configuration(&self.settings.file.to_string());
    }

    /// Puts any text where the configuration stands.
    pub fn write_configuration(&self, text: &str) {
        fs::write(self.configuration(), text).unwrap();
    }

    fn launch(&mut self) -> Result<(), String> {
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.configuration());
        self.process = Some(Process::start(command, &self.state.path().join("output")));
        until("the guard to take connections", || {
            if let Some(status) = self.process.as_mut().and_then(Process::status) {
                return Some(Err(format!("the guard ended: {status}\n{}", self.log())));
            }
            answers(self.address()).then_some(Ok(()))
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replyguard"));
        command.env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
        command
    }

    fn configuration(&self) -> PathBuf {
        self.state.path().join("replyguard.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.settings.path("state_dir", PathBuf::new())
    }

    pub fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// What it asks.
    pub fn dns(&self) -> &TestDns {
        &self.dns
    }

    /// Runs a subcommand with this guard's configuration: `["explain", "message.eml"]`.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(self.configuration());
        command.output().unwrap()
    }

    /// A page of the administration: `/metrics`.
    pub fn ask(&self, page: &str) -> String {
        let mut socket = UnixStream::connect(self.state_dir().join("admin.sock")).unwrap();
        let request = format!("GET {page} HTTP/1.0\r\nHost: replyguard\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        answer
    }

    /// The figure behind a line of `/metrics`: `tap_messages{tap="milter"}`.
    pub fn metric(&self, name: &str) -> i64 {
        let text = self.ask("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("replyguard_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
    }

    /// SIGTERM: finish what is under way, take nothing new.
    pub fn terminate(&self) {
        self.process.as_ref().expect("the guard runs").signal(Signal::Term);
    }

    /// SIGTERM, and waits for its end; what it printed is kept.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.process.take().expect("the guard runs").ended()
    }

    /// SIGKILL, at once.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGHUP: read the configuration again. Returns when that is done.
    pub fn reload(&self) {
        let words = ["configuration and lists read again", "the old one stays"];
        let count = |log: String| words.iter().map(|word| log.matches(word).count()).sum::<usize>();
        let before = count(self.log());
        self.process.as_ref().expect("the guard runs").signal(Signal::Hup);
        until("the guard to have read its configuration again", || {
            (count(self.log()) > before).then_some(())
        });
    }

    /// Starts it again after `stop` or `crash`, on the same port and state.
    pub fn resume(&mut self) {
        self.launch().unwrap_or_else(|why| panic!("{why}"));
    }

    /// What it has done since its start.
    pub fn work(&self) -> Work {
        self.process.as_ref().expect("the guard runs").work()
    }

    /// The most memory that it has had at once since its start, in MiB.
    pub fn peak_mib(&self) -> u64 {
        self.process.as_ref().expect("the guard runs").peak_mib()
    }

    /// All it printed, of every start.
    pub fn log(&self) -> String {
        let printed = fs::read(self.state.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// The files of the audit log, the one that is written last.
    pub fn audit_files(&self) -> Vec<PathBuf> {
        let path = self.settings.path("audit.path", self.state_dir().join("audit.jsonl"));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned() + ".";
        let files = fs::read_dir(path.parent().unwrap()).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files
            .filter(|file| file.file_name().to_string_lossy().starts_with(&name))
            .map(|file| file.path())
            .filter(|file| file.extension().is_none_or(|extension| extension != "lock"))
            .collect();
        files.sort();
        files.push(path);
        files
    }

    /// The lines of the audit log. A last line that is not complete yet is left out.
    fn audit_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in self.audit_files() {
            let text = fs::read_to_string(file).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.extend(whole.map(str::to_owned));
        }
        lines
    }

    /// The records of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let read = |line: &String| serde_json::from_str(line).expect("a record is a JSON line");
        self.audit_lines().iter().map(read).collect()
    }

    /// The records about mail to this recipient.
    pub fn audit_of(&self, recipient: &str) -> Vec<Value> {
        let about = |record: &Value| record["rcpt"] == recipient;
        self.audit().into_iter().filter(about).collect()
    }

    /// Waits for a record about mail to this recipient, and gives the last one.
    pub fn wait_for_record(&self, recipient: &str) -> Value {
        let what = format!("an audit record about <{recipient}>");
        until(&what, || self.audit_of(recipient).into_iter().next_back())
    }

    fn quarantine_folder(&self) -> PathBuf {
        self.settings.path("quarantine.path", self.state_dir().join("quarantine"))
    }

    /// What is in quarantine, by name. What is still on its way (`.pending`) does not count.
    pub fn quarantine(&self) -> Vec<Held> {
        let mut held = Vec::new();
        for file in fs::read_dir(self.quarantine_folder()).into_iter().flatten().flatten() {
            let path = file.path();
            // The slip gets its name last.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let json = |text: &str| serde_json::from_str(text).expect("a slip is JSON");
            let copies = fs::read_to_string(path.with_extension("copies")).unwrap_or_default();
            let whole = copies.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            held.push(Held {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                message: fs::read(path.with_extension("eml")).expect("a message beside each slip"),
                slip: json(&fs::read_to_string(&path).unwrap()),
                copies: whole.map(json).collect(),
            });
        }
        held.sort_by(|one, other| one.name.cmp(&other.name));
        held
    }

    /// For whom something is held, in the order of the alphabet.
    pub fn held_for(&self) -> Vec<String> {
        let mut recipients: Vec<String> =
            self.quarantine().iter().flat_map(Held::recipients).collect();
        recipients.sort();
        recipients
    }

    /// How many files are on their way into the quarantine, or were at the last crash.
    pub fn pending(&self) -> usize {
        let files = fs::read_dir(self.quarantine_folder()).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".pending")).count()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.crash();
        let lines = self.audit_lines();
        if std::thread::panicking() {
            // As text: this must not panic again.
            let last = &lines[lines.len().saturating_sub(RECORDS_SHOWN)..];
            eprintln!("--- log of the guard\n{}", self.log());
            eprintln!("--- the last of its audit log\n{}", last.concat());
            return;
        }
        lines.iter().for_each(|line| assert_valid(line));
    }
}

/// Whether a greeting comes: 220, or 421 while the next hop is down.
fn answers(address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok_and(|bytes| bytes > 0)
}

#[test]
fn settings_nest_by_their_dots() {
    let settings = Settings::before("127.0.0.1:25".parse().unwrap()).set("audit.path", "x");
    assert_eq!(settings.file["outbound"]["next_hop"][0].as_str(), Some("127.0.0.1:25"));
    assert_eq!(settings.file["local"]["domains"][0].as_str(), Some("ours.example"));
    assert_eq!(settings.path("audit.path", "y".into()), PathBuf::from("x"));
    assert_eq!(settings.path("quarantine.path", "y".into()), PathBuf::from("y"));
}

/// Goal: a guard that does not start is seen at once, with its words. Method: a key that does not
/// exist; it must be refused.
#[test]
fn a_guard_that_ends_at_once_is_reported() {
    let settings = Settings::before("127.0.0.1:25".parse().unwrap()).set("no.such.key", 1);
    let why = Guard::try_start(Port::claim(), settings).err().expect("it must not start");
    assert!(why.starts_with("the guard ended: exit status: 78"), "{why}");
}
