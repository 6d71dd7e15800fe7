//! The sessions with next hops: bounded, kept, rotated; and what each next hop offered.
//!
//! Bounds: `Settings::sessions_max` in all; `limits::SESSION_MESSAGES_MAX` messages and
//! `limits::SESSION_BARREN_MAX` transactions without delivery in one session.
//! Why: Postfix slows a client down from 100 RSETs on, Exim cuts it off at 12.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::mail::limits::{
    EHLO_AGE_MAX, HOP_DOWN_FOR, SESSION_BARREN_MAX, SESSION_IDLE_MAX, SESSION_MESSAGES_MAX,
    SESSION_WAIT_MAX,
};
use crate::relay::connect::Connect;
use crate::relay::session::{HopFault, Session};
use crate::relay::{HopHealth, RelayError, RelayHealth, Settings};
use crate::wire::keywords::Keywords;

/// What is known of one next hop.
#[derive(Debug, Default)]
struct Seen {
    keywords: Option<(Keywords, Instant)>,
    down_since: Option<Instant>,
}

/// All sessions and what is known of the next hops.
pub struct Pool {
    settings: Settings,
    connect: Arc<dyn Connect>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    seen: Mutex<Vec<Seen>>,
    /// Held while next hops are asked for their EHLO, so that a thousand clients ask once.
    asking: tokio::sync::Mutex<()>,
}

/// Why a session is wanted fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// One that is kept will do.
    Kept,
    /// The kept one was lost: a new connection.
    Fresh,
}

impl Pool {
    /// No session yet.
    pub fn new(settings: Settings, connect: Arc<dyn Connect>) -> Pool {
        let permits = Arc::new(Semaphore::new(settings.sessions_max.max(1)));
        let seen = settings.next_hops.iter().map(|_| Seen::default()).collect();
        Pool {
            settings,
            connect,
            permits,
            idle: Mutex::new(Vec::new()),
            seen: Mutex::new(seen),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// How the next hop is written in the settings.
    pub fn name(&self, hop: usize) -> String {
        self.settings.next_hops.get(hop).map(ToString::to_string).unwrap_or_default()
    }

    /// A place for one more session in use; `Busy` after `limits::SESSION_WAIT_MAX`.
    pub async fn permit(&self) -> Result<OwnedSemaphorePermit, RelayError> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        match timeout(SESSION_WAIT_MAX, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(RelayError::Busy),
        }
    }

    /// A session with the first next hop that can be reached and for which `lacks` is `None`.
    ///
    /// `lacks` names what the next hop does not offer and the transaction needs.
    pub async fn session(
        &self,
        freshness: Freshness,
        lacks: &(dyn Fn(&Keywords) -> Option<String> + Send + Sync),
    ) -> Result<Session, RelayError> {
        let mut last = None;
        let mut offers_less = None;
        for hop in self.order() {
            if freshness == Freshness::Kept
                && let Some(session) = self.take_idle(hop, lacks)
            {
                return Ok(session);
            }
            match self.open(hop).await {
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

    /// What all next hops promise.
    pub async fn offer(&self, added_bytes: u64) -> Result<Keywords, RelayError> {
        let mut last = None;
        if !self.stale().is_empty() {
            let _asking = self.asking.lock().await;
            for hop in self.stale() {
                match self.open(hop).await {
                    Ok(session) => self.keep(session),
                    Err(fault) => last = Some((hop, fault)),
                }
            }
        }
        let offered = {
            let seen = lock(&self.seen);
            let fresh = seen.iter().filter_map(fresh_keywords).collect::<Vec<_>>();
            (!fresh.is_empty())
                .then(|| Keywords::meet(fresh, &self.settings.pass_keywords, added_bytes))
        };
        match (offered, last) {
            (Some(offered), _) => Ok(offered),
            (None, Some((hop, fault))) => Err(RelayError::NoNextHop { hop: self.name(hop), fault }),
            (None, None) => {
                let fault = HopFault::Closed { stage: "seconds ago" };
                Err(RelayError::NoNextHop { hop: self.name(0), fault })
            }
        }
    }

    /// How it goes.
    pub fn health(&self) -> RelayHealth {
        let sessions_max = self.settings.sessions_max.max(1);
        let state = |seen: &Seen| match (is_down(seen), &seen.keywords) {
            (true, _) => Some(false),
            (false, Some(_)) => Some(true),
            (false, None) => seen.down_since.map(|_| false),
        };
        let states: Vec<Option<bool>> = lock(&self.seen).iter().map(state).collect();
        let hops = states.into_iter().enumerate();
        RelayHealth {
            sessions: sessions_max.saturating_sub(self.permits.available_permits()),
            sessions_max,
            hops: hops.map(|(hop, up)| HopHealth { name: self.name(hop), up }).collect(),
        }
    }

    /// Says QUIT in every idle session.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        for session in idle {
            session.quit().await;
        }
    }

    /// Closes sessions idle for longer than `limits::SESSION_IDLE_MAX`.
    pub async fn tidy(&self) {
        let old: Vec<Session> = {
            let mut idle = lock(&self.idle);
            idle.extract_if(.., |session| session.used.elapsed() > SESSION_IDLE_MAX).collect()
        };
        for session in old {
            session.quit().await;
        }
    }

    /// The next hops in the order to try: those that failed a moment ago come last.
    fn order(&self) -> Vec<usize> {
        let seen = lock(&self.seen);
        let mut order: Vec<usize> = (0..self.settings.next_hops.len()).collect();
        order.sort_by_key(|hop| seen.get(*hop).is_some_and(is_down));
        order
    }

    /// The next hops whose EHLO is too old to promise anything by, less those just found down.
    fn stale(&self) -> Vec<usize> {
        let seen = lock(&self.seen);
        let stale = |seen: &Seen| fresh_keywords(seen).is_none() && !is_down(seen);
        let stale = seen.iter().enumerate().filter(|(_, seen)| stale(seen));
        stale.map(|(hop, _)| hop).collect()
    }

    fn take_idle(
        &self,
        hop: usize,
        lacks: &(dyn Fn(&Keywords) -> Option<String> + Send + Sync),
    ) -> Option<Session> {
        let mut idle = lock(&self.idle);
        let fits = |session: &Session| {
            session.hop == hop
                && session.used.elapsed() <= SESSION_IDLE_MAX
                && lacks(session.keywords()).is_none()
        };
        let at = idle.iter().rposition(fits)?;
        Some(idle.swap_remove(at))
    }

    async fn open(&self, hop: usize) -> Result<Session, HopFault> {
        let next_hop = self.settings.next_hops.get(hop);
        let next_hop = next_hop.ok_or(HopFault::Closed { stage: "settings" })?;
        let hostname = &self.settings.hostname;
        self.make_room();
        let opened = Session::open(self.connect.as_ref(), next_hop, hop, hostname).await;
        let mut seen = lock(&self.seen);
        if let Some(seen) = seen.get_mut(hop) {
            match &opened {
                Ok(session) => {
                    if seen.down_since.take().is_some() {
                        info!(hop = %next_hop, "next hop is back");
                    }
                    seen.keywords = Some((session.keywords().clone(), Instant::now()));
                }
                Err(fault) => {
                    if seen.down_since.is_none() {
                        warn!(hop = %next_hop, %fault, "next hop is down");
                    }
                    seen.down_since = Some(Instant::now());
                }
            }
        }
        opened
    }

    /// Why: idle sessions count too; one that does not fit gives way to one that does.
    fn make_room(&self) {
        let mut idle = lock(&self.idle);
        let in_use = self.settings.sessions_max.saturating_sub(self.permits.available_permits());
        while !idle.is_empty() && in_use + idle.len() > self.settings.sessions_max {
            let oldest = idle.remove(0);
            drop(tokio::spawn(oldest.quit()));
        }
    }

    fn keep(&self, session: Session) {
        let mut idle = lock(&self.idle);
        idle.push(session);
        while idle.len() > self.settings.sessions_max {
            let oldest = idle.remove(0);
            drop(tokio::spawn(oldest.quit()));
        }
    }
}

fn fresh_keywords(seen: &Seen) -> Option<&Keywords> {
    let (keywords, at) = seen.keywords.as_ref()?;
    (at.elapsed() <= EHLO_AGE_MAX).then_some(keywords)
}

fn is_down(seen: &Seen) -> bool {
    seen.down_since.is_some_and(|since| since.elapsed() < HOP_DOWN_FOR)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
