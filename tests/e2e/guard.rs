//! The guard itself: the `replyguard` binary with a private state folder on ports of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::claim::Port;
use crate::process::{Process, Signal};
use crate::wait::{PATIENCE, until};

/// Records of the audit log that a failed test shows.
const RECORDS_SHOWN: usize = 20;

/// What a test sets, as keys of the configuration file: `local.domains`.
#[derive(Clone, Debug)]
pub struct Settings(toml::Table);

impl Settings {
    /// A guard that acts, before `next_hop`, for the host of `servers`: `mx.ours.example`, whose
    /// border strips and writes `Authentication-Results`.
    pub fn before(next_hop: SocketAddr) -> Self {
        Self(toml::Table::new())
            .set("mode", "enforce")
            .set("hostname", "guard.ours.example")
            .set("outbound.next_hop", vec![next_hop.to_string()])
            .set("local.domains", vec!["ours.example"])
            .set("local.hosts", vec!["mx.ours.example"])
            .set("local.authserv_ids", vec!["mx.ours.example"])
            .set("local.authserv_stripped", true)
    }

    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let mut table = &mut self.0;
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
}

/// A copy in quarantine: `<event>-<n>.eml` and `<event>-<n>.json`.
#[derive(Clone, Debug)]
pub struct Held {
    /// `<event>-<n>`.
    pub name: String,
    pub message: Vec<u8>,
    /// Envelope, recipients and decision.
    pub record: Value,
}

pub struct Guard {
    /// `None` between `stop` and `resume`.
    process: Option<Process>,
    front: Port,
    _console: Port,
    state: TempDir,
}

impl Guard {
    /// Starts a guard and waits until it takes connections.
    pub fn start(settings: Settings) -> Self {
        Self::try_start(settings).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; the error is what the guard said before it gave up.
    pub fn try_start(settings: Settings) -> Result<Self, String> {
        let state = tempfile::tempdir().unwrap();
        let (front, console) = (Port::claim(), Port::claim());
        let settings = settings
            .set("state_dir", state.path().join("state").to_str().unwrap())
            .set("outbound.listen", vec![front.address().to_string()])
            .set("admin.console", console.address().to_string());
        fs::write(state.path().join("replyguard.toml"), settings.0.to_string()).unwrap();
        let mut guard = Self { process: None, front, _console: console, state };
        guard.launch()?;
        Ok(guard)
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
        command.env("XDG_STATE_HOME", self.state.path()).env_remove("NOTIFY_SOCKET");
        command
    }

    fn configuration(&self) -> PathBuf {
        self.state.path().join("replyguard.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state.path().join("state")
    }

    pub fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// `HOST:PORT`, as servers' configuration files want it.
    pub fn host_and_port(&self) -> String {
        self.address().to_string()
    }

    /// Runs a subcommand with this guard's configuration: `["quarantine", "list"]`.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(self.configuration());
        command.output().unwrap()
    }

    /// SIGTERM, and waits for its end; what it printed is kept.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::Term);
            process.ended();
        }
    }

    /// SIGKILL, at once.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGHUP: read the configuration again.
    pub fn reload(&self) {
        self.process.as_ref().expect("the guard runs").signal(Signal::Hup);
    }

    /// Starts it again after `stop` or `crash`, on the same port and state.
    pub fn resume(&mut self) {
        self.launch().unwrap_or_else(|why| panic!("{why}"));
    }

    /// All it printed, of every start.
    pub fn log(&self) -> String {
        let printed = fs::read(self.state.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// The records of the audit log. A last line that is not complete yet is left out.
    pub fn audit(&self) -> Vec<Value> {
        let file = fs::read_to_string(self.state_dir().join("audit.jsonl")).unwrap_or_default();
        let lines = file.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect("a record is a JSON line")).collect()
    }

    /// The records about mail to this recipient.
    pub fn audit_of(&self, recipient: &str) -> Vec<Value> {
        let about = |record: &Value| record["rcpt"] == recipient;
        self.audit().into_iter().filter(about).collect()
    }

    /// Waits for a record about mail to this recipient.
    pub fn wait_for_record(&self, recipient: &str) -> Value {
        let what = format!("an audit record about <{recipient}>");
        until(&what, || self.audit_of(recipient).into_iter().next_back())
    }

    /// What is in quarantine, by name. Copies that are still staged (`.pending`) do not count.
    pub fn quarantine(&self) -> Vec<Held> {
        let folder = self.state_dir().join("quarantine");
        let mut held = Vec::new();
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "eml") {
                continue;
            }
            let record = fs::read(path.with_extension("json")).expect("a record beside each copy");
            held.push(Held {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                message: fs::read(&path).unwrap(),
                record: serde_json::from_slice(&record).expect("the record is JSON"),
            });
        }
        held.sort_by(|one, other| one.name.cmp(&other.name));
        held
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // As text: this must not panic again.
            let audit = fs::read(self.state_dir().join("audit.jsonl")).unwrap_or_default();
            let audit = String::from_utf8_lossy(&audit).into_owned();
            let records: Vec<&str> = audit.lines().collect();
            let last = &records[records.len().saturating_sub(RECORDS_SHOWN)..];
            eprintln!("--- log of the guard\n{}", self.log());
            eprintln!("--- the last of its audit log\n{}", last.join("\n"));
        }
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
    let settings = Settings::before("127.0.0.1:25".parse().unwrap()).set("tap.milter.listen", "x");
    assert_eq!(settings.0["tap"]["milter"]["listen"].as_str(), Some("x"));
    assert_eq!(settings.0["outbound"]["next_hop"][0].as_str(), Some("127.0.0.1:25"));
    assert_eq!(settings.0["local"]["domains"][0].as_str(), Some("ours.example"));
}

/// Goal: a guard that does not start is seen at once, with its words. Method: a key that does not
/// exist; it must be refused.
#[test]
fn a_guard_that_ends_at_once_is_reported() {
    let settings = Settings::before("127.0.0.1:25".parse().unwrap()).set("no.such.key", 1);
    let why = Guard::try_start(settings).err().expect("it must not start");
    assert!(why.starts_with("the guard ended: exit status"), "{why}");
}
