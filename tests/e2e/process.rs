//! A started program and everything it starts: one process group, ended as one.
//!
//! A test that panics ends its processes by `Drop`. A test run that is killed cannot, so one keeper
//! process waits for its end and then kills what is left.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::wait::{until, within};

/// How long a server may take to stop on its own.
const STOP: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What a program has done so far (proc(5)).
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes read from and written to files.
    pub bytes: u64,
    /// Processor time, in clock ticks.
    pub ticks: u64,
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { bytes: self.bytes - before.bytes, ticks: self.ticks - before.ticks }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Hup,
    Term,
    Kill,
}

impl Process {
    /// Starts `command` as the head of a process group of its own; what it prints goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        keeper(&format!("watch {}", child.id()));
        Self { child, log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Signals the program alone.
    pub fn signal(&self, signal: Signal) {
        kill(signal, &self.id().to_string());
    }

    /// `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until the program has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        until("the program to end", || self.status())
    }

    /// What it has done so far.
    pub fn work(&self) -> Work {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.id())).unwrap();
        let io = of("io");
        let bytes = io.lines().filter_map(|line| {
            line.strip_prefix("rchar: ").or_else(|| line.strip_prefix("wchar: "))
        });
        // After the name in brackets: state, then ten others, then user and system time.
        let stat = of("stat");
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let ticks = rest.split(' ').skip(11).take(2);
        Work { bytes: sum(bytes), ticks: sum(ticks) }
    }

    /// The most memory that it has had at once, in MiB (`VmHWM`).
    pub fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks it to stop, waits, and ends by force what is left of it and its children.
    pub fn stop(&mut self) {
        if self.status().is_none() {
            self.signal(Signal::Term);
            within(STOP, || self.status());
        }
        self.kill();
    }

    /// Ends it and its children at once, as a crash would; returns when none of them runs.
    pub fn kill(&mut self) {
        kill(Signal::Kill, &format!("-{}", self.id()));
        let _ = self.child.wait();
        within(STOP, || (!group_runs(self.id())).then_some(()));
        keeper(&format!("forget {}", self.id()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn sum<'a>(numbers: impl Iterator<Item = &'a str>) -> u64 {
    numbers.map(|number| number.parse::<u64>().unwrap()).sum()
}

/// Signals a process, or with a leading minus a group. That it is gone already is no fault.
fn kill(signal: Signal, target: &str) {
    let name = match signal {
        Signal::Hup => "-HUP",
        Signal::Term => "-TERM",
        Signal::Kill => "-KILL",
    };
    // Why bash: a small system has no `kill` program (procps), and `unsafe` is forbidden.
    let mut command = Command::new("bash");
    command.args(["-c", "kill \"$1\" -- \"$2\"", "kill", name, target]).stderr(Stdio::null());
    command.status().unwrap();
}

/// Whether a process of the group still runs. One that has ended and that nobody has asked about
/// (a zombie) does not run.
fn group_runs(group: u32) -> bool {
    let of_group = |stat: String| {
        // After the name in brackets: state, parent, group (proc(5)).
        let rest = stat.rsplit_once(") ")?.1.to_owned();
        let mut fields = rest.split(' ');
        let state = fields.next()?.to_owned();
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == group && state != "Z").then_some(())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .any(|stat| of_group(stat).is_some())
}

/// Tells the keeper a line: `watch GROUP`, `forget GROUP`, `clear FOLDER`, `cleared FOLDER`.
///
/// The keeper's standard input ends when this process ends, and then it cleans up.
pub fn keeper(line: &str) {
    const KEEPER: &str = r#"
        declare -A groups folders
        while read -r verb what; do
            case $verb in
                watch) groups[$what]=1 ;;
                forget) unset "groups[$what]" ;;
                clear) folders[$what]=1 ;;
                cleared) unset "folders[$what]" ;;
            esac
        done
        for group in "${!groups[@]}"; do kill -KILL -- "-$group"; done 2>/dev/null
        for folder in "${!folders[@]}"; do
            umount -l -- "$folder" 2>/dev/null
            rm -rf -- "$folder"
        done
    "#;
    static INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let input = INPUT.get_or_init(|| {
        let mut command = Command::new("bash");
        // A group of its own: an interrupt from the terminal must not take the keeper first.
        command.args(["-c", KEEPER]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.spawn().unwrap().stdin.take().unwrap())
    });
    let mut input = input.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(input, "{line}").unwrap();
}

#[test]
fn children_end_with_the_program() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", "sleep 1000 & echo $!; wait"]);
    let mut process = Process::start(command, log.path());
    let child = until("the child's number", || {
        let printed = process.printed();
        printed.strip_suffix('\n').map(str::to_owned)
    });
    let lives = || Path::new("/proc").join(&child).join("exe").exists();
    assert!(lives());
    process.stop();
    assert!(!lives(), "the child must end with its parent");
}
