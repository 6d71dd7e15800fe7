//! Settings: what is written, checked as a whole, and handed to each room.
//!
//! Takes: a file, or nothing (the built-in defaults). Gives: `Config`. Errors: every fault at
//! once, each with its place and remedy; a running daemon keeps what it had.

pub mod file;
pub mod keys;
pub mod lists;
pub mod loops;
pub mod memory;
pub mod outbound;
pub mod sections;
pub mod show;
pub mod tap;
pub mod tls;
pub mod values;
pub mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;

use crate::audit;
use crate::auth;
use crate::config::file::{Fault, Section, Source};
use crate::config::tap::Tap;
use crate::judge::lists::Entry;
use crate::judge::policy::{Mode, Policy};
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;
use crate::relay;
use crate::store::{self, sightings};
use crate::tls::server::Identity;
use crate::wire::endpoint::{Endpoint, Listen, Protocol};
use crate::wire::secure::Starttls;

/// Everything the daemon is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// What we call ourselves.
    pub hostname: String,
    /// Where everything that must survive a restart is kept.
    pub state_dir: PathBuf,
    /// What the process gives up at its start.
    pub sandbox: Sandbox,
    /// The proxy's front.
    pub outbound: Outbound,
    /// What listeners show clients that want TLS; `None`: none is spoken.
    pub tls: Option<Identity>,
    /// The proxy's back.
    pub relay: relay::Settings,
    /// The taps.
    pub tap: Tap,
    /// What is remembered of inbound mail.
    pub store: store::Settings,
    /// DNS.
    pub auth: auth::Settings,
    /// The rules, lists included.
    pub policy: Policy,
    /// Whose traces count as ours.
    pub loop_site: String,
    /// How many messages are remembered for the sake of loops, and how long.
    pub loops: sightings::Settings,
    /// The audit log.
    pub audit: audit::Settings,
    /// The quarantine.
    pub quarantine: audit::quarantine::Settings,
    /// Where it says how it is.
    pub admin: Admin,
    /// What is no fault now, but will cost mail or secrets.
    pub warnings: Vec<String>,
    /// What is no fault, but an administrator should know.
    pub notes: Vec<String>,
    /// Every value that was written, by dotted key.
    pub written: Vec<(String, String)>,
}

/// Whether the process gives up what it does not need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// As far as the kernel can.
    #[default]
    BestEffort,
    /// All of it, or it does not start.
    Require,
    /// Nothing.
    Off,
}

/// Where the daemon says how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The unix socket of the administration commands.
    pub socket: PathBuf,
    /// Where metrics and health are served over HTTP; `None` for nowhere.
    pub console: Option<Endpoint>,
}

/// The proxy's front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// What TLS it offers in the clear.
    pub starttls: Starttls,
    /// What it speaks.
    pub protocol: Protocol,
    /// Who may speak to it.
    pub allow_clients: Vec<IpNet>,
    /// Bytes read before deciding.
    pub inspect_max: usize,
    /// Bytes of messages in memory at once.
    pub memory_max: u64,
    /// Sessions of clients at once.
    pub sessions_max: usize,
    /// Those of one client.
    pub client_sessions_max: usize,
    /// Whose clients may have all of them.
    pub client_sessions_exempt: Vec<IpNet>,
    /// Whether bare line ends are refused.
    pub refuse_bare_line_ends: bool,
    /// How long running transactions may take at a stop.
    pub drain: Duration,
}

/// What `Config::load` needs of the world.
#[derive(Clone, Debug)]
pub struct World {
    /// The system's name.
    pub hostname: String,
    /// Where state is kept when nothing is written.
    pub state_dir: PathBuf,
    /// Now, for expiries.
    pub now: Timestamp,
}

impl Config {
    /// Reads a file, or the built-in defaults; all faults at once.
    pub fn load(path: Option<&Path>, world: &World) -> Result<Config, Vec<Fault>> {
        let Some(path) = path else { return Config::read("defaults", "", Path::new("."), world) };
        let name = path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new("."));
        match std::fs::read_to_string(path) {
            Ok(text) => Config::read(&name, &text, folder, world),
            Err(fault) => {
                let what = format!("cannot be read: {fault}");
                Err(vec![Fault { file: name, line: 0, text: String::new(), what }])
            }
        }
    }

    /// Reads the text of a file. Paths in it are relative to `folder`.
    pub fn read(
        name: &str,
        text: &str,
        folder: &Path,
        world: &World,
    ) -> Result<Config, Vec<Fault>> {
        let mut source = Source::new(name, text);
        let (table, syntax) = DeTable::parse_recoverable(text);
        for fault in syntax {
            let at = fault.span().unwrap_or(0..0);
            source.fault(at, format!("this is no TOML: {}", fault.message()));
        }
        // Why: what follows a broken line is read as something that nobody wrote.
        if !source.faults.is_empty() {
            return Err(source.faults);
        }
        let mut root = Section::root(&table);
        let config = sections::config(&mut root, &mut source, folder, world);
        root.end(&mut source);
        if source.faults.is_empty() {
            return Ok(config);
        }
        source.faults.sort_by(|a, b| {
            (a.file != name, &a.file, a.line).cmp(&(b.file != name, &b.file, b.line))
        });
        Err(source.faults)
    }

    /// What was found while reading; and what lets harm out on purpose: each entry of the allow list
    /// that is marked `forged`, of very many the first.
    pub fn warnings(&self) -> Vec<String> {
        let mut forged: Vec<String> = self.policy.allow.iter().filter_map(warning).collect();
        forged.sort_unstable();
        let left_out = forged.len().saturating_sub(WARNINGS_MAX);
        forged.truncate(WARNINGS_MAX);
        if left_out > 0 {
            forged.push(format!("allow: {left_out} more entries for FORGED senders"));
        }
        self.warnings.iter().cloned().chain(forged).collect()
    }

    /// Whether decisions are carried out.
    pub fn enforces(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }
}

/// Warnings that are said one by one.
const WARNINGS_MAX: usize = 20;

fn warning(entry: &Entry) -> Option<String> {
    let pattern = Shown::new(&entry.pattern.to_string());
    let until = entry.expires.filter(|_| entry.forged)?;
    Some(format!("allow: {pattern} lets answers to FORGED senders out until {until}"))
}
