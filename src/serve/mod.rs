//! Listeners: start, reload, drain, stop.
//!
//! Takes: a checked `Config`. Gives: a running `Server`. Errors: `StartError`, each for the
//! administrator, with what to do. Bounds: `outbound.sessions_max` sessions of clients.

pub mod admin;
pub mod arriving;
pub mod complaint;
pub mod door;
pub mod envelopes;
pub mod gone;
pub mod handles;
pub mod http;
pub mod import;
pub mod listen;
pub mod milter;
pub mod pass;
pub mod room;
pub mod rounds;
pub mod sandbox;
pub mod smtp;
pub mod state;
pub mod taps;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::interval;
use tracing::{error, info, warn};

use crate::audit::Trail;
use crate::audit::disk::RealDisk;
use crate::audit::expiry::Expired;
use crate::audit::fault::Error as AuditError;
use crate::audit::quarantine::Quarantine;
use crate::audit::recovery::Recovered;
use crate::auth::{AuthError, Authenticator};
use crate::config::{self, Config, Outbound};
use crate::guard::Guard;
use crate::guard::clock::Clock;
use crate::guard::inquiry::{InForce, Inquiry};
use crate::guard::loops::LoopMemory;
use crate::guard::tap::{self, Tap};
use crate::judge::subject::TapKind;
use crate::mail::limits::{EXPIRE_EVERY, FINAL_DEADLINE_STOPPING, QUIT_DEADLINE, TIDY_EVERY};
use crate::meter::SESSIONS_REFUSED;
use crate::relay::Relay;
use crate::serve::admin::{Admin, Listening, Status, TAP_ROLE};
use crate::serve::door::{Allowed, Door, Share};
use crate::serve::listen::{Listener, Peer};
use crate::serve::smtp::{BareLineEnd, Conversation, Front, Stopping};
use crate::serve::state::{Locks, StateDir, StateError, remove_former_key};
use crate::serve::taps::Taps;
use crate::serve::tls::{Begins, Handshakes, ListenerTls};
use crate::store::answers::Answers;
use crate::store::embedded::OpenError;
use crate::store::{self, Store};
use crate::tls::server::Acceptor;
use crate::wire::endpoint::{Endpoint, Listen, NextHop};

/// Why the daemon cannot start; for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The audit log or the quarantine.
    #[error("{what}: {fault}")]
    Audit {
        /// Which.
        what: &'static str,
        /// Why.
        fault: AuditError,
    },
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] OpenError),
    /// DNS.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A listener.
    #[error("cannot listen at {endpoint}: {fault}")]
    Listen {
        /// Where.
        endpoint: String,
        /// Why.
        fault: std::io::Error,
    },
}

impl StartError {
    fn listen(endpoint: &Endpoint, fault: std::io::Error) -> StartError {
        StartError::Listen { endpoint: endpoint.to_string(), fault }
    }
}

/// A server that listens.
pub struct Server {
    guard: Arc<Guard>,
    outbound: Outbound,
    listeners: Vec<Listener>,
    /// That of the first listener.
    front: Front,
    /// What shows clients our certificate.
    acceptor: Option<Arc<Acceptor>>,
    next_hops: Vec<NextHop>,
    taps: Taps,
    stopping: watch::Sender<Stopping>,
    door: Arc<Door>,
    /// Where it says how it is.
    pages: Vec<Listener>,
    admin: Arc<Admin>,
    /// How long the store keeps what came in.
    retention: Duration,
    /// Kept: the lock on the state directory lasts as long as it does.
    _state: StateDir,
    /// Those on quarantine and log too.
    _locks: Locks,
}

impl Server {
    /// Locks the state directory, opens log and quarantine, binds the listeners.
    pub async fn start(config: &Config) -> Result<Server, StartError> {
        let state = StateDir::open(&config.state_dir)?;
        let locks = Locks::take(&config.quarantine.path, &config.audit.path)?;
        let disk = Arc::new(RealDisk);
        let trail = Trail::open(Arc::<RealDisk>::clone(&disk), config.audit.clone()).await;
        let trail = trail.map_err(|fault| StartError::Audit { what: "audit log", fault })?;
        let quarantine = Quarantine::open(disk, config.quarantine.clone()).await;
        let (quarantine, recovered) =
            quarantine.map_err(|fault| StartError::Audit { what: "quarantine", fault })?;
        say_recovered(&recovered);
        let inquiry = Arc::new(inquiry(config, &state).await?);
        let tap = inbound(config, &inquiry);
        let acceptor = config.tls.clone().map(|identity| Arc::new(Acceptor::new(identity)));
        let tls = |starttls| acceptor.as_ref().map(|shown| ListenerTls::new(shown, starttls));
        let tap_tls = tls(config.tap.smtp_starttls);
        let taps = Taps::bind(config, Arc::clone(&tap), tap_tls.clone()).await?;
        rounds::restore(&inquiry.loops, &config.state_dir, Clock::System.now());
        let relay = Relay::new(config.relay.clone());
        let guard = Arc::new(Guard::new(inquiry, relay, trail, quarantine, &config.hostname));
        let mut listeners = Vec::new();
        for Listen { endpoint, tls: _ } in &config.outbound.listen {
            listeners.push(
                Listener::bind(endpoint)
                    .await
                    .map_err(|fault| StartError::listen(endpoint, fault))?,
            );
        }
        let outbound = config.outbound.clone();
        let tls = tls(outbound.starttls);
        let front = Front { tls: tls.clone(), ..front(&outbound, &config.hostname, &guard) };
        let (stopping, _) = watch::channel(Stopping::No);
        let door = door(&outbound);
        let pages = pages(&config.admin).await;
        let admin = Arc::new(Admin {
            guard: Arc::clone(&guard),
            door: Arc::clone(&door),
            listeners: listening("outbound", outbound_places(&listeners, &outbound))
                .chain(listening(TAP_ROLE, taps.places()))
                .chain(listening("admin", listen::endpoints(&pages)))
                .collect(),
            tap,
            taps: listening_taps(config),
            acceptor: acceptor.clone(),
            handshakes: handshakes([("outbound", tls), (TAP_ROLE, tap_tls)]),
            started: guard.now(),
            sandbox: OnceLock::new(),
        });
        Ok(Server {
            guard,
            outbound,
            listeners,
            front,
            acceptor,
            next_hops: places(config),
            taps,
            stopping,
            door,
            pages,
            admin,
            retention: config.store.retention,
            _state: state,
            _locks: locks,
        })
    }

    /// Where it listens, with the ports the system gave where 0 was asked for.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        listen::endpoints(&self.listeners)
    }

    /// Where the taps listen.
    pub fn tap_endpoints(&self) -> Vec<Endpoint> {
        self.taps.places().into_iter().map(|listen| listen.endpoint).collect()
    }

    /// The guard behind the listeners.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// What shows clients our certificate; `None` where none is configured.
    pub fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.clone()
    }

    /// Says what the process gave up before it started, for the status.
    pub fn in_sandbox(&self, in_force: sandbox::InForce) {
        let _ = self.admin.sandbox.set(in_force);
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.admin.status()
    }

    /// A handle that stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stopping.clone())
    }

    /// Serves until it is stopped; then drains, and gives everything time to reach the disk.
    pub async fn run(self) {
        let Server {
            guard,
            outbound,
            listeners,
            front,
            acceptor: _,
            next_hops,
            taps,
            stopping,
            door,
            pages,
            admin,
            retention,
            _state,
            _locks,
        } = self;
        let mut accepting = JoinSet::new();
        let begins = outbound.listen.iter().map(Begins::of);
        for (number, (listener, begins)) in listeners.into_iter().zip(begins).enumerate() {
            let tls = front.tls.clone().map(|tls| ListenerTls { begins, ..tls });
            let front = Arc::new(Front { listener: number, tls, ..front.clone() });
            accepting.spawn(accept(listener, front, Arc::clone(&door), stopping.subscribe()));
        }
        for listener in pages {
            let router = admin::router(Arc::clone(&admin));
            tokio::spawn(http::serve(listener, router, stopping.subscribe()));
        }
        let tapping = tokio::spawn(taps.run(stopping.subscribe(), outbound.drain));
        let state_dir = _state.path().to_owned();
        let keeping = tokio::spawn(keep_house(Arc::clone(&guard), state_dir.clone(), retention));
        let names = tokio::spawn(rounds::follow_names(Arc::clone(&guard), next_hops));
        let mut stopped = stopping.subscribe();
        let _ = stopped.wait_for(|stage| *stage != Stopping::No).await;
        info!("draining: no new sessions");
        while accepting.join_next().await.is_some() {}
        if !door.is_left_within(outbound.drain).await {
            warn!("some transactions did not finish in time: they get 421");
            stopping.send_replace(Stopping::Now);
            door.is_left_within(FINAL_DEADLINE_STOPPING + QUIT_DEADLINE * 2).await;
        }
        let _ = tapping.await;
        keeping.abort();
        names.abort();
        rounds::save(&guard, &state_dir).await;
        guard.relay().close().await;
        if let Err(fault) = guard.inquiry().store.flush().await {
            warn!(%fault, "the store could not be flushed");
        }
        if let Err(fault) = guard.trail().flush().await {
            warn!(%fault, "the audit log could not be flushed");
        }
        info!("stopped");
    }
}

/// What is counted of each role's handshakes.
fn handshakes(
    roles: [(&'static str, Option<ListenerTls>); 2],
) -> Vec<(&'static str, Arc<Handshakes>)> {
    roles.into_iter().filter_map(|(role, tls)| Some((role, tls?.handshakes))).collect()
}

fn say_recovered(recovered: &Recovered) {
    if *recovered != Recovered::default() {
        let Recovered { held, removed, stray } = recovered;
        info!(
            held = held.len(),
            removed = removed.len(),
            stray,
            "quarantine: what a crash left is held when whole, removed when in part"
        );
    }
}

/// Binds the pages of the administration. Mail must not wait for them: what cannot be bound is
/// complained of, and the daemon does without.
async fn pages(settings: &config::Admin) -> Vec<Listener> {
    let socket = Endpoint::Unix(settings.socket.clone());
    let mut pages = Vec::new();
    for (key, endpoint) in
        [("admin.socket", Some(socket)), ("admin.console", settings.console.clone())]
    {
        let Some(endpoint) = endpoint else { continue };
        let bound = match Listener::bind(&endpoint).await {
            Ok(listener) => listener.owners_only().map(|()| listener),
            Err(fault) => Err(fault),
        };
        match bound {
            Ok(listener) => pages.push(listener),
            Err(fault) => warn!(%endpoint, %fault, "`{key}` cannot be served: going on without it"),
        }
    }
    pages
}

fn listening<P: ToString>(role: &'static str, places: Vec<P>) -> impl Iterator<Item = Listening> {
    let place = move |place: P| Listening { endpoint: place.to_string(), role: role.to_owned() };
    places.into_iter().map(place)
}

/// Where the front listens, as in the settings, with the ports the system gave.
fn outbound_places(listeners: &[Listener], outbound: &Outbound) -> Vec<Listen> {
    let places = listeners.iter().zip(&outbound.listen);
    let place = |(listener, listen): (&Listener, &Listen)| Listen {
        endpoint: listener.endpoint().clone(),
        tls: listen.tls,
    };
    places.map(place).collect()
}

/// Stops a server.
#[derive(Clone)]
pub struct Stopper(watch::Sender<Stopping>);

impl Stopper {
    /// No new sessions; running transactions finish within `outbound.drain`.
    pub fn drain(&self) {
        self.0.send_if_modified(|stage| {
            let first = *stage == Stopping::No;
            if first {
                *stage = Stopping::Drain;
            }
            first
        });
    }
}

/// Puts the policy of another configuration in force: rules, lists, what is ours; and the certificate
/// that clients are shown. Gives the keys whose change waits for a restart.
pub fn reload(
    guard: &Guard,
    acceptor: Option<&Acceptor>,
    running: &Config,
    new: &Config,
) -> Vec<&'static str> {
    guard.inquiry().replace_policy(new.policy.clone());
    if let (Some(acceptor), Some(identity)) = (acceptor, &new.tls)
        && acceptor.replace(identity.clone())
    {
        info!("from now on clients are shown another certificate");
    }
    let pairs = [
        ("hostname", running.hostname == new.hostname),
        ("state_dir", running.state_dir == new.state_dir),
        ("sandbox", running.sandbox == new.sandbox),
        ("outbound", running.outbound == new.outbound && running.relay == new.relay),
        ("tap", running.tap == new.tap),
        (
            "tls, where there was no certificate or is none now",
            acceptor.is_some() == new.tls.is_some(),
        ),
        ("store", running.store == new.store),
        ("dns and auth.best_guess", running.auth == new.auth),
        ("loops.site", running.loop_site == new.loop_site),
        ("loops.fingerprints and loops.window", running.loops == new.loops),
        ("loops.conversation, beyond what it was", talks(new) <= talks(running)),
        ("audit", running.audit == new.audit),
        ("admin", running.admin == new.admin),
        ("quarantine", running.quarantine == new.quarantine),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

/// The most messages that a conversation is counted up to: so many moments are kept.
fn talks(config: &Config) -> u32 {
    config.policy.loops.conversation.most()
}

fn door(outbound: &Outbound) -> Arc<Door> {
    let sessions_max = outbound.client_sessions_max;
    let exempt = outbound.client_sessions_exempt.clone();
    let allowed = Allowed::These(outbound.allow_clients.clone());
    Door::new("outbound", allowed, outbound.sessions_max, Share { sessions_max, exempt })
}

fn front(outbound: &Outbound, hostname: &str, guard: &Arc<Guard>) -> Front {
    let kib = usize::try_from(outbound.memory_max / 1024).unwrap_or(Semaphore::MAX_PERMITS);
    Front {
        listener: 0,
        protocol: outbound.protocol,
        hostname: hostname.to_owned(),
        inspect_max: outbound.inspect_max,
        bare_line_end: match outbound.refuse_bare_line_ends {
            true => BareLineEnd::Refuse,
            false => BareLineEnd::Pass,
        },
        guard: Arc::clone(guard),
        budget_kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        tls: None,
    }
}

/// Accepts until the server drains.
async fn accept(
    listener: Listener,
    front: Arc<Front>,
    door: Arc<Door>,
    mut stopping: watch::Receiver<Stopping>,
) {
    while let Some(peer) = listener.next(&mut stopping).await {
        admit(peer, Arc::clone(&front), &door, stopping.clone());
    }
}

fn admit(peer: Peer, front: Arc<Front>, door: &Door, stopping: watch::Receiver<Stopping>) {
    let place = match door.enter(peer.ip()) {
        Ok(place) => place,
        Err(refusal) => {
            front.guard.meter().count(SESSIONS_REFUSED, &[("why", refusal.as_str())]);
            return door.refuse(peer, refusal, front.tls.as_ref());
        }
    };
    tokio::spawn(async move {
        let ip = peer.ip();
        match peer {
            Peer::Tcp(stream, _) => Conversation::serve(front, stream, ip, stopping).await,
            Peer::Unix(stream) => Conversation::serve(front, stream, ip, stopping).await,
        }
        drop(place);
    });
}

/// What is done now and then: idle sessions end, old held messages go, and a key that is not needed.
async fn keep_house(guard: Arc<Guard>, state_dir: PathBuf, retention: Duration) {
    let (mut tidy, mut expire) = (interval(TIDY_EVERY), interval(EXPIRE_EVERY));
    let mut saved = guard.inquiry().loops.changes();
    loop {
        tokio::select! {
            _ = tidy.tick() => {
                guard.relay().tidy().await;
                forget(&guard).await;
                let changes = guard.inquiry().loops.changes();
                if changes != saved {
                    saved = changes;
                    rounds::save(&guard, &state_dir).await;
                }
            }
            _ = expire.tick() => {
                forget_former_key(&state_dir, retention);
                match guard.quarantine().expire(guard.now()).await {
                    Ok(expired) => say(&expired),
                    Err(fault) => warn!(%fault, "old held messages could not be removed"),
                }
            }
        }
    }
}

fn say(expired: &Expired) {
    let Expired { named, removed: _, overdue: _, overdue_count, faults, fault } = expired;
    if !named.is_empty() {
        info!(count = named.len(), "sealed messages that waited for their names are held now");
    }
    if *overdue_count > 0 {
        warn!(
            count = overdue_count,
            "messages that are no responses are held for more than a day: look at them",
        );
    }
    if let Some(fault) = fault {
        warn!(count = faults, %fault, "held messages could not be named or removed");
    }
}

/// What is asked of DNS and of memory, with the policy in force.
async fn inquiry(config: &Config, state: &StateDir) -> Result<Inquiry, StartError> {
    Ok(Inquiry {
        facts: Arc::new(Authenticator::new(&config.auth)?),
        store: memory(config, state)?,
        is_tapped: config.tap.is_on(),
        answers: Answers::new(state.chance()?),
        loops: LoopMemory::new(
            state.fingerprint_key()?,
            &config.loop_site,
            &config.loops,
            &config.policy.loops.conversation,
            rounds::addresses(&places(config)).await.found,
        ),
        clock: Clock::System,
        loop_site: config.loop_site.clone(),
        trace_key: state.trace_key()?,
        fingerprint_key: state.fingerprint_key()?,
        policy: ArcSwap::from_pointee(InForce::new(config.policy.clone())),
    })
}

/// Where the next hops are.
fn places(config: &Config) -> Vec<NextHop> {
    config.relay.next_hops.iter().map(|hop| hop.at.clone()).collect()
}

/// The taps that are configured.
fn listening_taps(config: &Config) -> Vec<TapKind> {
    let taps = [
        (TapKind::Milter, config.tap.milter.is_empty()),
        (TapKind::Smtp, config.tap.smtp.is_empty()),
        (TapKind::Http, config.tap.http.is_empty()),
    ];
    taps.into_iter().filter(|(_, is_off)| !is_off).map(|(tap, _)| tap).collect()
}

/// The tap, over the store that the guard asks.
fn inbound(config: &Config, inquiry: &Arc<Inquiry>) -> Arc<Tap> {
    let settings =
        tap::Settings { wait: config.tap.wait, spam_field: config.tap.spam_field.clone() };
    Tap::new(Arc::clone(inquiry), Arc::clone(&inquiry.store), settings)
}

/// The store that the configuration asks for.
fn memory(config: &Config, state: &StateDir) -> Result<Arc<dyn Store>, StartError> {
    let (store, damage) = store::open(&config.store, state.store_keys()?)?;
    if let Some(damage) = damage {
        error!(damage, "the store begins anew: what came in before is not known");
    }
    Ok(store)
}

/// Lets go of the store's former key when no record needs it any more.
fn forget_former_key(state_dir: &Path, retention: Duration) {
    match remove_former_key(state_dir, retention, SystemTime::now()) {
        Ok(true) => info!("store.key.old is removed: nothing is kept that was written with it"),
        Ok(false) => {}
        Err(fault) => warn!(%fault, "store.key.old could not be removed"),
    }
}

/// Lets go of records that are too old, all of them, a part at a time.
async fn forget(guard: &Guard) {
    let store = &guard.inquiry().store;
    loop {
        match store.expire(guard.now()).await {
            Ok(0) => return,
            Ok(_) => tokio::task::yield_now().await,
            Err(fault) => {
                warn!(%fault, "old records of inbound mail could not be let go");
                return;
            }
        }
    }
}

/// Where the daemon keeps its state when nothing is written: `$XDG_STATE_HOME/replyguard`, else
/// `/var/lib/replyguard`.
pub fn usual_state_dir(xdg_state_home: Option<&Path>) -> PathBuf {
    match xdg_state_home.filter(|path| path.is_absolute()) {
        Some(path) => path.join("replyguard"),
        None => PathBuf::from("/var/lib/replyguard"),
    }
}
