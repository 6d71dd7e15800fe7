//! Real mail servers, private to a test: a folder, ports, processes; all gone when dropped.
//!
//! `scripts/setup` unpacks the servers into a root folder of their own. Each instance has a folder
//! below `i/` in it and runs with that root as its `/`.

pub mod dovecot;
pub mod exim;
pub mod postfix;
pub mod rspamd;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::process::{Process, keeper};
use crate::skipped::skipped;
use crate::wait::until;

/// Lines of a server's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 150;

/// The root folder of the servers.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let servers =
        std::env::var_os("REPLYGUARD_SERVERS").map_or("target/servers".into(), PathBuf::from);
    here.join(servers).join("root")
}

/// Whether the real servers are missing. Then says so by the test's name; the test returns.
#[must_use]
pub fn missing() -> bool {
    let missing = !root().join(".edition").exists();
    if missing {
        skipped("Postfix, Exim and Dovecot are not there; run scripts/setup as root");
    }
    missing
}

/// The users inside the root folder; `scripts/setup` makes them.
#[derive(Clone, Copy)]
pub enum User {
    Postfix = 64001,
    Postdrop = 64002,
    Exim = 64003,
    Mailbox = 64006,
}

/// What the shipped routing leads to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Automatic,
    Everything,
}

/// A server's folder and process.
#[derive(Debug)]
pub struct Instance {
    /// As the server sees it: `/i/postfix-1234-0`.
    inside: String,
    /// As we see it.
    folder: PathBuf,
    process: Option<Process>,
    /// Log files below the folder, shown when the test fails.
    logs: Vec<&'static str>,
}

impl Instance {
    /// An empty folder for a server of this kind, under a name that is not in use.
    pub fn new(kind: &str, logs: &[&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let instance = Self::named(&format!("{kind}-{}-{number}", std::process::id()), logs);
        keeper(&format!("clear {}", instance.folder.display()));
        instance
    }

    /// The same under a fixed name, which the caller has claimed.
    pub fn named(name: &str, logs: &[&'static str]) -> Self {
        let folder = root().join("i").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { inside: format!("/i/{name}"), folder, process: None, logs: logs.to_vec() }
    }

    /// A path below the folder, as the server sees it.
    pub fn inside(&self, path: &str) -> String {
        format!("{}/{path}", self.inside)
    }

    /// A path below the folder, as we see it.
    pub fn outside(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Writes a file, dated a minute ago: Postfix waits up to two seconds for a file that has just
    /// been changed to "cool down" (`dict_load_file_xt` in its source).
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.outside(path), text).unwrap();
        let file = fs::File::options().write(true).open(self.outside(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.outside(path)).unwrap_or_default()).into_owned()
    }

    /// A folder that belongs to `user` and `group`, with these permission bits.
    pub fn make_folder(&self, path: &str, owner: Option<(User, User)>, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.outside(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if let Some((user, group)) = owner {
            chown(&path, Some(user as u32), Some(group as u32)).unwrap();
        }
    }

    /// A command of the root folder.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(root()).arg(program).args(arguments);
        command
    }

    /// Runs a command of the root folder to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// What a command prints; it must succeed.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the daemon and waits until each of `ports` greets.
    pub fn start(&mut self, program: &str, arguments: &[&str], ports: &[SocketAddr]) {
        let command = self.command(program, arguments);
        self.process = Some(Process::start(command, &self.outside("output")));
        until("the server to answer", || {
            let ended = self.process.as_mut().and_then(Process::status);
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log());
            ports.iter().all(|port| greets(*port)).then_some(())
        });
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// All it wrote to its logs, and what it printed.
    pub fn log(&self) -> String {
        let files = self.logs.iter().chain(&["output"]);
        files.map(|file| self.read(file)).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- log of {}\n{}", self.inside, shown.join("\n"));
        }
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.folder);
        keeper(&format!("cleared {}", self.folder.display()));
    }
}

/// Whether a mail server answers there.
fn greets(port: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(port) else { return false };
    let mut line = String::new();
    let read = stream.set_read_timeout(Some(crate::wait::PATIENCE)).and_then(|()| {
        let mut reader = BufReader::new(&stream);
        reader.read_line(&mut line)
    });
    let _ = (&stream).write_all(b"QUIT\r\n");
    read.is_ok() && line.starts_with("220")
}

/// A ready-made configuration file of `config/`, with some of its words replaced.
pub fn shipped(path: &str, replace: &[(&str, &str)]) -> String {
    replaced(&of_the_project(&format!("config/{path}")), replace)
}

/// The block of the README in which the text stands, with some of its words replaced.
pub fn readme(containing: &str, replace: &[(&str, &str)]) -> String {
    let text = of_the_project("README.md");
    let mut blocks = text.split("\n```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(containing));
    let block = block.unwrap_or_else(|| panic!("no block of the README has {containing:?}"));
    // What stands on the line of the fence is the block's language.
    replaced(block.split_once('\n').map_or("", |(_, block)| block), replace) + "\n"
}

fn of_the_project(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

fn replaced(text: &str, replace: &[(&str, &str)]) -> String {
    replace.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "it does not say {from:?}: {text}");
        text.replace(from, to)
    })
}
