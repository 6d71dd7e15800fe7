//! What the daemon gives up once its configuration is read: files that it has no business with
//! (Landlock), and system calls that it never makes (seccomp). Whoever gets hold of the process
//! through a fault of ours, or of a library, finds little that he can do with it.
//!
//! Takes: a checked `Config` and the file it was read from. Gives: `InForce`, for log and status.
//! Errors: `SandboxError`, only with `sandbox = "require"`; otherwise what the kernel cannot do is
//! told and done without.
//! To be entered while the process has one thread: threads inherit what the one that starts them has
//! given up, and nothing gives it back. So all places are those of the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use crate::config::file::Fault;
use crate::config::{Config, Sandbox};
use crate::wire::endpoint::Endpoint;

/// Why the daemon does not start: `sandbox = "require"`, and the kernel does not give it all. The
/// administrator acts.
#[derive(Debug, thiserror::Error)]
#[error("`sandbox` is \"require\", and this kernel does not give it: {0}")]
pub struct SandboxError(String);

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Why files are not closed, or not wholly; `None` when they are.
    files: Option<String>,
    /// Why system calls are not closed; `None` when they are.
    calls: Option<String>,
    /// Where files may be read besides those of the system, when files are closed.
    readable: Vec<PathBuf>,
    is_root: bool,
}

/// The places that a daemon needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    written: BTreeSet<PathBuf>,
    read: BTreeSet<PathBuf>,
}

impl InForce {
    /// A process that has given up nothing.
    pub fn nothing(why: &str) -> InForce {
        let why = Some(why.to_owned());
        InForce { files: why.clone(), calls: why, readable: Vec::new(), is_root: is_root() }
    }

    /// Whether it is all that there is to give up.
    pub fn is_whole(&self) -> bool {
        self.files.is_none() && self.calls.is_none()
    }

    /// What an administrator should change some day; a plain sentence.
    pub fn notice(&self) -> Option<String> {
        self.is_root.then(|| ROOT.to_owned())
    }

    /// What more there is to say of the faults of a new configuration, when files that it names may
    /// lie outside.
    pub fn remark(&self, faults: &[Fault]) -> Option<String> {
        let denied = std::io::Error::from_raw_os_error(libc::EACCES).to_string();
        let is_denied = faults.iter().any(|fault| fault.what.contains(&denied));
        if !is_denied || self.readable.is_empty() {
            return None;
        }
        let places: Vec<String> =
            self.readable.iter().map(|path| path.display().to_string()).collect();
        let places = places.join(", ");
        Some(format!(
            "the sandbox was closed at the start: beside files of the system only what lies in \
             {places} can be read. A restart opens it to the files that are named now"
        ))
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.files, &self.calls) {
            (None, None) => f.write_str("files and system calls"),
            (None, Some(why)) => write!(f, "files; not system calls: {why}"),
            (Some(why), None) => write!(f, "system calls; not all files: {why}"),
            (Some(files), Some(calls)) if files == calls => write!(f, "none: {files}"),
            (Some(files), Some(calls)) => write!(f, "none: {files}; {calls}"),
        }
    }
}

/// What is said of a daemon that runs as root.
const ROOT: &str = "runs as root, which it never needs: give it a user of its own (`User=` in \
                        the unit; CAP_NET_BIND_SERVICE where it listens below port 1024)";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives up what the daemon does not need. Makes the directories that it will need, because only
/// what is there can be left open.
pub fn enter(config: &Config, file: Option<&Path>) -> Result<InForce, SandboxError> {
    if config.sandbox == Sandbox::Off {
        return Ok(InForce::nothing("switched off by `sandbox`"));
    }
    let places = Places::of(config, file);
    for place in &places.written {
        // What cannot be made is told by whoever needs it.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(place);
    }
    let files = match close_files(&places) {
        Ok(RulesetStatus::FullyEnforced) => None,
        Ok(RulesetStatus::PartiallyEnforced) => Some("an older Landlock".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Some("no Landlock".to_owned()),
        Err(fault) => Some(fault.to_string()),
    };
    let calls = close_calls().err();
    let in_force = InForce {
        files,
        calls,
        readable: places.read.into_iter().chain(places.written).collect(),
        is_root: is_root(),
    };
    match config.sandbox {
        Sandbox::Require if !in_force.is_whole() => Err(SandboxError(in_force.to_string())),
        _ => Ok(in_force),
    }
}

/// The rights that are closed: those of Linux 6.12. Why not later ones: they would close sockets of
/// next hops and of the system's log, whose places may be made after the start.
const CLOSED: ABI = ABI::V6;

/// Read where the C library, DNS and TLS look. Why all of `/etc`: its files are replaced, not
/// written to, and a rule for a file would hold for the one that is gone. What of it is secret, its
/// permissions keep from a user of its own.
const SYSTEM: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/proc/self",
    "/sys/fs/cgroup",
    "/dev/random",
    "/dev/urandom",
];

fn close_files(places: &Places) -> Result<RulesetStatus, RulesetError> {
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    // What the guard makes are files, directories and sockets; it runs no program.
    let never = AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar | AccessFs::IoctlDev;
    let writing = AccessFs::from_all(CLOSED) & !never;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(CLOSED))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, reading))?
        .add_rules(path_beneath_rules(["/dev/null"], reading | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&places.read, reading))?
        .add_rules(path_beneath_rules(&places.written, writing))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

impl Places {
    fn of(config: &Config, file: Option<&Path>) -> Places {
        let mut places = Places::default();
        places.written.insert(config.state_dir.clone());
        places.written.insert(config.quarantine.path.clone());
        let files = [&config.audit.path, &config.store.path, &config.admin.socket];
        places.written.extend(files.into_iter().filter_map(|file| folder_of(file)));
        let mail = config.outbound.listen.iter().chain(&config.tap.smtp);
        let mail = mail.map(|listen| &listen.endpoint);
        let listeners = mail.chain(&config.tap.milter).chain(&config.tap.http);
        let sockets = listeners.chain(&config.admin.console).filter_map(|at| match at {
            Endpoint::Unix(path) => folder_of(path),
            Endpoint::Tcp { .. } => None,
        });
        places.written.extend(sockets);
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        for name in file.into_iter().map(Path::to_owned).chain(named(config, folder)) {
            places.may_read(&name);
        }
        // As rustls looks for them.
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            places.read.extend(std::env::var_os(variable).map(PathBuf::from));
        }
        // Backtraces and the resolver's modules are read from what runs.
        places.read.extend(std::env::current_exe());
        places
    }

    /// What lies beside a file may be read too: editors and renewals of certificates put a new file
    /// in its place. So may what a link leads to.
    fn may_read(&mut self, name: &Path) {
        let Ok(absolute) = std::path::absolute(name) else { return };
        let target = absolute.canonicalize().ok();
        for file in [Some(absolute), target].into_iter().flatten() {
            match folder_of(&file) {
                Some(folder) if folder.parent().is_some() => drop(self.read.insert(folder)),
                // A file in the root directory must not open everything.
                _ => drop(self.read.insert(file)),
            }
        }
    }
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned)
}

/// The files that the configuration names, whatever the key: every text in it that is a file, as it
/// stands or beside the configuration.
fn named(config: &Config, folder: &Path) -> impl Iterator<Item = PathBuf> {
    let texts = config.written.iter().flat_map(|(_, text)| text.split(['"', '\'']));
    let paths = texts.flat_map(move |text| [PathBuf::from(text), folder.join(text)]);
    paths.filter(|path| path.is_file())
}

/// System calls that the guard never makes, and that are worth something to an intruder: to run
/// programs, to look into processes, to change the machine, to become somebody else. Why a list of
/// these and not of those that it makes: a library or kernel that begins to use another call must
/// not cost mail.
const NEVER: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Why: through it files are opened without a call that a filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Those of one machine alone.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    // The same calls by the numbers of the x32 interface: execve, ptrace, kexec_load, execveat.
    X32 | 520,
    X32 | 521,
    X32 | 528,
    X32 | 545,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[];

/// What is added to a number to call it through the x32 interface.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Makes the kernel answer EPERM to each of these, for this thread and all that it starts. Why not
/// an end of the process: whoever tries is not helped by the answer, and mail goes on.
fn close_calls() -> Result<(), String> {
    let mut rules = BTreeMap::new();
    for call in NEVER.iter().chain(NEVER_HERE) {
        rules.insert(*call, Vec::new());
        #[cfg(target_arch = "x86_64")]
        rules.insert(*call | X32, Vec::new());
    }
    let machine =
        std::env::consts::ARCH.try_into().map_err(|_| "not on this machine".to_owned())?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, machine);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    let program = program.map_err(|fault| fault.to_string())?;
    apply_filter_all_threads(&program).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::World;
    use crate::mail::time::Timestamp;

    fn config(text: &str, folder: &Path) -> Config {
        let world = World {
            hostname: "guard.example".to_owned(),
            state_dir: folder.join("state"),
            now: Timestamp::from_millis(1_795_282_739_000),
        };
        Config::read("test", text, folder, &world).unwrap()
    }

    /// Goal: every place that a configuration names is open, and no more than its folder.
    #[test]
    fn places_are_those_that_the_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (folder, file) in [("lists", "lists/allow"), ("real", "real/deny")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::write(at(file), "").unwrap();
        }
        std::fs::create_dir(at("linked")).unwrap();
        std::os::unix::fs::symlink(at("real/deny"), at("linked/deny")).unwrap();
        let text = format!(
            "[outbound]\nlisten = [\"unix:/run/guard/front.sock\"]\n\
             [lists]\nallow_file = \"{}\"\ndeny_file = \"{}\"\n\
             [audit]\npath = \"/var/log/guard/audit.jsonl\"\n",
            at("lists/allow").display(),
            at("linked/deny").display(),
        );
        let config = config(&text, folder.path());
        let places = Places::of(&config, Some(&at("etc/replyguard.toml")));
        let written: Vec<_> = places.written.iter().map(PathBuf::as_path).collect();
        let state = at("state");
        for place in ["/run/guard", "/var/log/guard"] {
            assert!(written.contains(&Path::new(place)), "{written:?}");
        }
        assert!(written.contains(&state.as_path()));
        assert_eq!(written.len(), 4, "with the quarantine: {written:?}");
        for name in ["lists", "linked", "real", "etc"] {
            assert!(places.read.contains(&at(name)), "{name} in {places:?}");
        }
        assert!(!places.read.contains(Path::new("/")));
    }

    #[test]
    fn it_is_told_in_words() {
        let none = InForce { is_root: false, ..InForce::nothing("no Landlock") };
        assert_eq!(none.to_string(), "none: no Landlock");
        assert_eq!((none.is_whole(), none.notice()), (false, None));
        let whole = InForce { readable: vec!["/etc/guard".into()], ..InForce::default() };
        assert_eq!(whole.to_string(), "files and system calls");
        let half = InForce { files: Some("no Landlock".to_owned()), ..InForce::default() };
        assert_eq!(half.to_string(), "system calls; not all files: no Landlock");
        let fault = |what: &str| {
            let (file, text) = ("f".to_owned(), String::new());
            vec![Fault { file, line: 0, text, what: what.to_owned() }]
        };
        let denied = "/x: Permission denied (os error 13)";
        assert!(whole.remark(&fault(denied)).unwrap().contains("/etc/guard"));
        assert_eq!(whole.remark(&fault("No such file")), None);
        assert_eq!(half.remark(&fault(denied)), None);
        assert!(InForce { is_root: true, ..whole }.notice().unwrap().contains("User="));
    }
}
