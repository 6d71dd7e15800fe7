//! The sessions with next hops: bounded, kept, rotated; and what each next hop offered.
//!
//! A connection has a place from before it is made until it is closed, whatever it is used for, so
//! that there are never more than `Settings::sessions_max`. A kept session that does not fit gives
//! way to one that does.
//! A next hop that failed is passed over and asked anew in the background: nobody waits for it
//! while another one serves.
//! Bounds: `Settings::sessions_max`; `limits::SESSION_MESSAGES_MAX` messages and
//! `limits::SESSION_BARREN_MAX` transactions without delivery in one session.
//! Why: Postfix slows a client down from 100 RSETs on, Exim cuts it off at 12.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::mail::limits::{
    EHLO_AGE_MAX, EHLO_WAIT_MAX, HOP_DOWN_FOR, SESSION_BARREN_MAX, SESSION_IDLE_MAX,
    SESSION_MESSAGES_MAX, SESSION_WAIT_MAX,
};
use crate::mail::limits_of_tls::TLS_FAILED_FOR;
use crate::relay::connect::Connect;
use crate::relay::hop::Hop;
use crate::relay::session::{HopFault, Session};
use crate::relay::{Failed, HopHealth, RelayError, RelayHealth, Settings};
use crate::wire::keywords::Keywords;
use crate::wire::opening::OpeningFault;
use crate::wire::secure::{Channel, TlsUse};

/// What is known of one next hop.
#[derive(Debug, Default)]
struct Seen {
    /// What it offered, and when.
    keywords: Option<(Keywords, Instant)>,
    /// When it last failed, and how; `None` when it was reached since.
    down: Option<(Instant, Arc<HopFault>)>,
    /// Since when it is being asked in the background.
    asked: Option<Instant>,
    /// When a handshake with it failed, where the mail went on in the clear.
    tls_failed: Option<Instant>,
    /// What the last session with it had.
    channel: Option<Channel>,
}

/// All sessions and what is known of the next hops.
pub struct Pool {
    settings: Settings,
    connect: Arc<dyn Connect>,
    /// Transactions.
    permits: Arc<Semaphore>,
    /// Connections.
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    seen: Mutex<Vec<Seen>>,
    /// Rings when a session has become idle.
    idled: Notify,
    /// Rings when a next hop that was asked has answered or failed.
    heard: Notify,
    /// Handshakes that failed.
    tls_failed: AtomicU64,
    /// AUTH that failed.
    auth_failed: AtomicU64,
}

/// Which session will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One that is kept, or a new one.
    Any,
    /// A new one: the kept one was lost.
    Fresh,
    /// A new one, with this next hop last: a new session with it was lost.
    FreshElsewhere(usize),
}

/// What the pool has to give.
enum KeptOrPlace {
    Kept(Session),
    Place(Option<OwnedSemaphorePermit>),
}

/// What of a transaction's needs is not offered; `None` when all is.
pub type Lacks<'a> = &'a (dyn Fn(&Keywords) -> Option<String> + Send + Sync);

impl Pool {
    /// No session yet.
    pub fn new(settings: Settings, connect: Arc<dyn Connect>) -> Pool {
        let sessions_max = settings.sessions_max.max(1);
        let seen = settings.next_hops.iter().map(|_| Seen::default()).collect();
        Pool {
            settings,
            connect,
            permits: Arc::new(Semaphore::new(sessions_max)),
            places: Arc::new(Semaphore::new(sessions_max)),
            idle: Mutex::new(Vec::new()),
            seen: Mutex::new(seen),
            idled: Notify::new(),
            heard: Notify::new(),
            tls_failed: AtomicU64::new(0),
            auth_failed: AtomicU64::new(0),
        }
    }

    /// How the next hop is written in the settings.
    pub fn name(&self, hop: usize) -> String {
        self.settings.next_hops.get(hop).map(|hop| hop.at.to_string()).unwrap_or_default()
    }

    /// Leave to use one more session; `Busy` after `limits::SESSION_WAIT_MAX`.
    pub async fn permit(&self) -> Result<OwnedSemaphorePermit, RelayError> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        match timeout(SESSION_WAIT_MAX, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(RelayError::Busy),
        }
    }

    /// A session with the first next hop that can be reached and for which `lacks` is `None`; the
    /// caller holds a permit.
    pub async fn session(
        self: &Arc<Self>,
        wanted: Wanted,
        lacks: Lacks<'_>,
    ) -> Result<Session, RelayError> {
        self.ask();
        let mut last = None;
        let mut offers_less = None;
        for hop in self.order(wanted) {
            let opened = match self.kept_or_place(hop, wanted, lacks).await {
                KeptOrPlace::Kept(session) => return Ok(session),
                KeptOrPlace::Place(place) => Box::pin(self.open(hop, place)).await,
            };
            match opened {
                Ok(session) => match lacks(session.keywords()) {
                    None => return Ok(session),
                    Some(missing) => {
                        offers_less = Some(missing);
                        self.keep(session);
                    }
                },
                Err(fault) => last = Some((hop, fault)),
            }
        }
        match (offers_less, last) {
            (Some(missing), _) => Err(RelayError::OffersLess(missing)),
            (None, Some((hop, fault))) => Err(RelayError::NoNextHop { hop: self.name(hop), fault }),
            (None, None) => Err(RelayError::Busy),
        }
    }

    /// Takes a session back; keeps it when it may serve again.
    pub fn give_back(&self, mut session: Session) {
        let worn =
            session.delivered >= SESSION_MESSAGES_MAX || session.barren >= SESSION_BARREN_MAX;
        session.used = Instant::now();
        match worn {
            true => drop(tokio::spawn(session.quit())),
            false => self.keep(session),
        }
    }

    /// What all next hops promise; an error when none can be reached.
    ///
    /// A next hop of which nothing is known any more is waited for, if only for
    /// `limits::EHLO_WAIT_MAX` when another one is there.
    pub async fn offer(self: &Arc<Self>, added_bytes: u64) -> Result<Keywords, RelayError> {
        loop {
            let mut heard = std::pin::pin!(self.heard.notified());
            heard.as_mut().enable();
            self.ask();
            match self.known(added_bytes)? {
                (Some(offered), None) => return Ok(offered),
                (offered, Some(patience)) => {
                    let waited = timeout_at(patience, heard).await;
                    if let (Err(_), Some(offered)) = (waited, offered) {
                        return Ok(offered);
                    }
                }
                (None, None) => return Err(RelayError::Busy),
            }
        }
    }

    /// How it goes.
    pub fn health(&self) -> RelayHealth {
        let sessions_max = self.settings.sessions_max.max(1);
        let state = |seen: &Seen| match (&seen.down, &seen.keywords) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        };
        let states: Vec<_> =
            lock(&self.seen).iter().map(|seen| (state(seen), seen.channel)).collect();
        let hops = states.into_iter().enumerate();
        let failed = Failed {
            tls: self.tls_failed.load(Ordering::Relaxed),
            auth: self.auth_failed.load(Ordering::Relaxed),
        };
        RelayHealth {
            sessions: sessions_max.saturating_sub(self.permits.available_permits()),
            sessions_max,
            hops: hops
                .map(|(hop, (up, channel))| HopHealth { name: self.name(hop), up, channel })
                .collect(),
            failed,
        }
    }

    /// Says QUIT in every idle session.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        quit_all(idle).await;
    }

    /// Closes sessions idle for longer than `limits::SESSION_IDLE_MAX`.
    pub async fn tidy(&self) {
        let old: Vec<Session> = {
            let mut idle = lock(&self.idle);
            idle.extract_if(.., |session| session.used.elapsed() > SESSION_IDLE_MAX).collect()
        };
        quit_all(old).await;
    }

    /// What is offered as far as is known; and until when to wait for more, if for anything.
    fn known(&self, added_bytes: u64) -> Result<(Option<Keywords>, Option<Instant>), RelayError> {
        let seen = lock(&self.seen);
        let asking = seen.iter().any(|seen| seen.asked.is_some());
        let downs =
            seen.iter().enumerate().filter_map(|(hop, seen)| Some((hop, seen.down.as_ref()?)));
        let downs: Vec<_> = downs.collect();
        if let Some((hop, (_, fault))) = downs.last()
            && downs.len() == seen.len()
            && !asking
        {
            let (hop, fault) = (self.name(*hop), Arc::clone(fault));
            return Err(RelayError::NoNextHop { hop, fault });
        }
        let up = seen.iter().filter(|seen| seen.down.is_none());
        let fresh: Vec<&Keywords> = seen.iter().filter_map(fresh_keywords).collect();
        // Why then the old ones will do: nobody can be asked now, and a next hop that offers less
        // than it did is not used for what needs more.
        let all_in_use = fresh.is_empty() && self.places.available_permits() == 0;
        let old = seen.iter().filter_map(|seen| Some(&seen.keywords.as_ref()?.0));
        let known: Vec<&Keywords> = if all_in_use { old.collect() } else { fresh };
        // Why one that is down is not waited for: it will be asked again and again.
        let since = up.filter_map(|seen| seen.asked).max();
        let patience = match known.is_empty() {
            true => asking.then(|| Instant::now() + EHLO_AGE_MAX),
            false => since.map(|since| since + EHLO_WAIT_MAX).filter(|at| *at > Instant::now()),
        };
        let offered = (!known.is_empty())
            .then(|| Keywords::meet(known, &self.settings.pass_keywords, added_bytes));
        Ok((offered, patience))
    }

    /// Asks in the background what is offered by next hops of which too little is known: their
    /// EHLO is old, or they failed some time ago. Each is asked by one at a time.
    fn ask(self: &Arc<Self>) {
        let mut seen = lock(&self.seen);
        for (hop, seen) in seen.iter_mut().enumerate() {
            let due = match &seen.down {
                Some((at, _)) => at.elapsed() >= HOP_DOWN_FOR,
                None => fresh_keywords(seen).is_none(),
            };
            if !due || seen.asked.is_some() {
                continue;
            }
            seen.asked = Some(Instant::now());
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                let anything = |_: &Keywords| None;
                let place = pool.kept_or_place(hop, Wanted::Fresh, &anything).await;
                if let KeptOrPlace::Place(place) = place
                    && let Ok(session) = pool.open(hop, place).await
                {
                    pool.keep(session);
                }
                if let Some(seen) = lock(&pool.seen).get_mut(hop) {
                    seen.asked = None;
                }
                pool.heard.notify_waiters();
            });
        }
    }

    /// The next hops in the order to try: those that failed come last.
    fn order(&self, wanted: Wanted) -> Vec<usize> {
        let seen = lock(&self.seen);
        let mut order: Vec<usize> = (0..self.settings.next_hops.len()).collect();
        order.sort_by_key(|hop| {
            let down = seen.get(*hop).is_some_and(|seen| seen.down.is_some());
            (down, wanted == Wanted::FreshElsewhere(*hop))
        });
        order
    }

    /// A kept session that will do, or a place for a new connection. A kept one that will not do
    /// gives way; without any, either comes when some transaction ends, as each does within its
    /// deadlines.
    async fn kept_or_place(&self, hop: usize, wanted: Wanted, lacks: Lacks<'_>) -> KeptOrPlace {
        let will_do = |session: &Session| {
            wanted == Wanted::Any
                && session.hop == hop
                && session.used.elapsed() <= SESSION_IDLE_MAX
                && lacks(session.keywords()).is_none()
        };
        loop {
            while let Some(mut session) = self.take_newest(&will_do) {
                // Why: what was said unasked would be taken for the answer to the next command.
                if session.is_quiet().await {
                    session.is_kept = true;
                    return KeptOrPlace::Kept(session);
                }
            }
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return KeptOrPlace::Place(Some(place));
            }
            if let Some(oldest) = self.take_oldest(&|session| !will_do(session)) {
                tokio::spawn(oldest.quit());
            }
            tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => {
                    return KeptOrPlace::Place(place.ok());
                }
                () = self.idled.notified() => {}
            }
        }
    }

    fn take_newest(&self, which: &dyn Fn(&Session) -> bool) -> Option<Session> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().rposition(which)?;
        Some(idle.remove(at))
    }

    fn take_oldest(&self, which: &dyn Fn(&Session) -> bool) -> Option<Session> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().position(which)?;
        Some(idle.remove(at))
    }

    async fn open(
        &self,
        hop: usize,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Session, Arc<HopFault>> {
        let next_hop = self.settings.next_hops.get(hop);
        let next_hop = next_hop.ok_or(HopFault::Closed { stage: "settings" })?;
        let hostname = &self.settings.hostname;
        let tls = self.tls_use(hop);
        let connect = self.connect.as_ref();
        let opened = Session::open(connect, next_hop, hop, hostname, tls, place).await;
        self.count(&opened);
        let opened = opened.map_err(Arc::new);
        let mut seen = lock(&self.seen);
        if let Some(seen) = seen.get_mut(hop) {
            match &opened {
                Ok(session) => {
                    if seen.down.take().is_some() {
                        info!(hop = %next_hop.at, "next hop is back");
                    }
                    if let Some(fault) = &session.tls_failed {
                        seen.tls_failed = Some(Instant::now());
                        warn!(hop = %next_hop.at, %fault, "no TLS with the next hop: in the clear");
                    }
                    seen.keywords = Some((session.keywords().clone(), Instant::now()));
                    seen.channel = Some(session.channel());
                }
                Err(fault) => {
                    if seen.down.is_none() {
                        complain(&next_hop.at.to_string(), fault);
                    }
                    seen.down = Some((Instant::now(), Arc::clone(fault)));
                }
            }
        }
        opened
    }

    /// Whether TLS is tried this time: opportunistic, not soon after it failed.
    fn tls_use(&self, hop: usize) -> TlsUse {
        let wanted = self.settings.next_hops.get(hop).map(Hop::tls_use).unwrap_or_default();
        let failed = lock(&self.seen).get(hop).and_then(|seen| seen.tls_failed);
        match wanted {
            TlsUse::Opportunistic if failed.is_some_and(|at| at.elapsed() < TLS_FAILED_FOR) => {
                TlsUse::Off
            }
            wanted => wanted,
        }
    }

    fn count(&self, opened: &Result<Session, HopFault>) {
        let count = match opened {
            Ok(session) if session.tls_failed.is_some() => &self.tls_failed,
            Err(HopFault::Tls(_) | HopFault::Opening(OpeningFault::NoStarttls)) => &self.tls_failed,
            Err(HopFault::Opening(_)) => &self.auth_failed,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn keep(&self, session: Session) {
        lock(&self.idle).push(session);
        self.idled.notify_one();
    }
}

/// Why an error where only the settings can mend it: waiting will not.
fn complain(hop: &str, fault: &HopFault) {
    match fault {
        HopFault::Tls(_) | HopFault::Opening(_) => error!(hop, %fault, "next hop is of no use"),
        _ => warn!(hop, %fault, "next hop is down"),
    }
}

async fn quit_all(sessions: Vec<Session>) {
    let mut quitting: JoinSet<()> = sessions.into_iter().map(Session::quit).collect();
    while quitting.join_next().await.is_some() {}
}

fn fresh_keywords(seen: &Seen) -> Option<&Keywords> {
    let (keywords, at) = seen.keywords.as_ref()?;
    (at.elapsed() <= EHLO_AGE_MAX).then_some(keywords)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
