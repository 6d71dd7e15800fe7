//! `run`: the daemon, its signals, its log.
//!
//! SIGTERM and SIGINT drain and stop; SIGHUP reads configuration and lists again, all or nothing,
//! and begins a new audit file.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::cmd::exit::Exit;
use crate::cmd::paint::Paint;
use crate::cmd::{ConfigFile, check_config, world};
use crate::config::Config;
use crate::guard::Guard;
use crate::judge::policy::Mode;
use crate::serve::sandbox::{self, InForce};
use crate::serve::state::StateError;
use crate::serve::{Server, StartError, handles, reload};
use crate::tls::server::Acceptor;

/// Runs until it is told to stop.
pub fn run(file: &ConfigFile) -> Exit {
    let config = match file.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    // Why standard error: systemd and containers take it from there.
    let filter = EnvFilter::try_from_env("REPLYGUARD_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Paint::on(&io::stderr()).is_terminal())
        .init();
    // Before the sandbox, which allows no raising.
    let (needed, handles) = (handles::needed(&config), handles::take_all());
    if handles < needed {
        warn!(
            needed,
            handles,
            "fewer file handles than all sessions need: raise the limit (`LimitNOFILE`, ulimit -n), \
             or lower `outbound.sessions_max`"
        );
    }
    // Before there is a second thread: each inherits what the first has given up.
    let in_force = match sandbox::enter(&config, file.config.as_deref()) {
        Ok(in_force) => in_force,
        Err(fault) => {
            error!("{fault}");
            return Exit::Configuration;
        }
    };
    match in_force.is_whole() {
        true => info!(closed = %in_force, "sandbox"),
        false => warn!(closed = %in_force, "sandbox"),
    }
    if let Some(notice) = in_force.notice() {
        warn!("{notice}");
    }
    let runtime = match threads() {
        // Why another one: it needs no locks between threads that are not there.
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        many => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(many).enable_all().build()
        }
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(fault) => {
            error!(%fault, "the runtime cannot start");
            return Exit::Later;
        }
    };
    runtime.block_on(serve(file, config, in_force))
}

/// Threads that serve sessions: half of the processors, at least one.
///
/// Why not all: the MTA on both sides is on this host as a rule, disk and look-ups have threads of
/// their own, and sessions that wander between threads cost more than these bring. On two processors
/// two of them took a third more processor time for a message than one, and sent fewer a second.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

async fn serve(file: &ConfigFile, config: Config, in_force: InForce) -> Exit {
    let server = match Server::start(&config).await {
        Ok(server) => server,
        Err(fault) => {
            error!("{fault}");
            return match fault {
                StartError::State(StateError::InUse { .. }) | StartError::Listen { .. } => {
                    Exit::Away
                }
                _ => Exit::Later,
            };
        }
    };
    server.in_sandbox(in_force.clone());
    for endpoint in server.endpoints() {
        info!(%endpoint, protocol = config.outbound.protocol.as_str(), "listening");
    }
    for note in config.notes.iter().chain(&config.warnings()) {
        warn!("{note}");
    }
    match config.policy.mode {
        Mode::Observe => {
            info!("observing: everything is delivered, the audit log says what would happen")
        }
        Mode::Enforce => info!("enforcing"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let guard = Arc::clone(server.guard());
    let acceptor = server.acceptor();
    let stopper = server.stopper();
    let running = tokio::spawn(server.run());
    match signals(file, &config, &guard, acceptor.as_deref(), &in_force).await {
        Ok(()) => {}
        Err(fault) => error!(%fault, "signals cannot be received: stopping"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stopper.drain();
    match running.await {
        Ok(()) => Exit::Done,
        Err(fault) => {
            error!(%fault, "the server ended in disorder");
            Exit::Later
        }
    }
}

/// Until SIGTERM or SIGINT.
async fn signals(
    file: &ConfigFile,
    config: &Config,
    guard: &Guard,
    acceptor: Option<&Acceptor>,
    in_force: &InForce,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => again(file, config, guard, acceptor, in_force).await,
        }
    }
}

/// Reads everything again: all of it, or nothing.
async fn again(
    file: &ConfigFile,
    running: &Config,
    guard: &Guard,
    acceptor: Option<&Acceptor>,
    in_force: &InForce,
) {
    if let Err(fault) = guard.trail().reopen().await {
        warn!(%fault, "the audit log could not be begun anew");
    }
    match Config::load(file.config.as_deref(), &world()) {
        Ok(new) => {
            let waiting = reload(guard, acceptor, running, &new);
            let policy = guard.inquiry().in_force().hash.clone();
            info!(policy, "configuration and lists read again");
            for told in new.notes.iter().chain(&new.warnings()) {
                warn!("{told}");
            }
            if !waiting.is_empty() {
                warn!(keys = waiting.join(", "), "these changes need a restart");
            }
        }
        Err(faults) => {
            check_config::print_faults(&faults);
            if let Some(remark) = in_force.remark(&faults) {
                error!("{remark}");
            }
            error!(faults = faults.len(), "the new configuration has faults: the old one stays");
        }
    }
}
