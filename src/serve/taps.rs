//! The taps' listeners: who may speak to them, how many at once, until the server stops.
//!
//! Takes: `[tap]` of the configuration, the tap. Gives: `Taps`, running. Errors: `StartError`.
//! Bounds: `limits::TAP_SESSIONS_MAX` for MTAs, and as many again for the clients of the
//! pass-through, of which each has its share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::join;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::Config;
use crate::guard::tap::Tap;
use crate::guard::tapped::Counts;
use crate::judge::subject::TapKind;
use crate::mail::limits::TAP_SESSIONS_MAX;
use crate::serve::StartError;
use crate::serve::door::{Allowed, Door, Share};
use crate::serve::http;
use crate::serve::import::{self, Import};
use crate::serve::listen::{Listener, Peer};
use crate::serve::milter::{self, Milter};
use crate::serve::pass::{self, Pass};
use crate::serve::room::Room;
use crate::serve::smtp::Stopping;
use crate::serve::tls::{Begins, ListenerTls};
use crate::wire::endpoint::{Endpoint, Listen};

/// The taps that are configured.
pub struct Taps {
    listeners: Vec<(Service, Listener)>,
    posts: Vec<Listener>,
    import: Router,
    shared: Arc<Shared>,
}

/// What is spoken at a listener, and by whom.
#[derive(Clone)]
enum Service {
    Milter(Arc<Milter>),
    Smtp(Arc<Pass>),
}

impl Service {
    fn kind(&self) -> TapKind {
        match self {
            Service::Milter(_) => TapKind::Milter,
            Service::Smtp(_) => TapKind::Smtp,
        }
    }

    fn is_tls_first(&self) -> bool {
        match self {
            Service::Milter(_) => false,
            Service::Smtp(pass) => ListenerTls::is_first(pass.tls.as_ref()),
        }
    }
}

struct Shared {
    tap: Arc<Tap>,
    /// For MTAs that speak milter.
    milters: Arc<Door>,
    /// For the whole world.
    passes: Arc<Door>,
}

impl Taps {
    /// Binds the listeners. `tls`: of those of the SMTP pass-through.
    pub async fn bind(
        config: &Config,
        tap: Arc<Tap>,
        tls: Option<ListenerTls>,
    ) -> Result<Taps, StartError> {
        let import = import::router(Import {
            tap: Arc::clone(&tap),
            hostname: config.hostname.clone(),
            token: config.tap.http_token.clone(),
        });
        let room = Room::new(config.tap.memory_max);
        let milter = Milter {
            tap: Arc::clone(&tap),
            hostname: config.hostname.clone(),
            authserv_id: config.tap.authserv_id.clone(),
            inspect_max: config.tap.inspect_max,
            room: Arc::clone(&room),
        };
        let pass = Pass {
            tap: Arc::clone(&tap),
            hostname: config.hostname.clone(),
            next_hops: config.tap.smtp_next_hops.clone(),
            tls: None,
            tells: config.tap.smtp_tells,
            inspect_max: config.tap.inspect_max,
            room,
        };
        let mut listeners = Vec::new();
        let milter = Service::Milter(Arc::new(milter));
        for endpoint in &config.tap.milter {
            listeners.push((milter.clone(), bound(endpoint).await?));
        }
        for listen in &config.tap.smtp {
            let tls = tls.clone().map(|tls| ListenerTls { begins: Begins::of(listen), ..tls });
            let service = Service::Smtp(Arc::new(Pass { tls, ..pass.clone() }));
            listeners.push((service, bound(&listen.endpoint).await?));
        }
        let mut posts = Vec::new();
        for endpoint in &config.tap.http {
            posts.push(bound(endpoint).await?);
        }
        let mtas = Allowed::These(config.tap.allow_clients.clone());
        let shared = Shared {
            tap,
            // Why no share: each process of an MTA has a connection, and one MTA is the rule.
            milters: Door::new("tap.milter", mtas, TAP_SESSIONS_MAX, Share::everything()),
            passes: Door::new("tap.smtp", Allowed::Everybody, TAP_SESSIONS_MAX, pass_share(config)),
        };
        Ok(Taps { listeners, posts, import, shared: Arc::new(shared) })
    }

    /// Where they listen, with the ports the system gave where 0 was asked for.
    pub fn places(&self) -> Vec<Listen> {
        let place =
            |listener: &Listener, tls| Listen { endpoint: listener.endpoint().clone(), tls };
        let mail = self.listeners.iter();
        let mail = mail.map(|(service, listener)| place(listener, service.is_tls_first()));
        mail.chain(self.posts.iter().map(|listener| place(listener, false))).collect()
    }

    /// Serves until the server drains; open transactions have `drain` to end.
    pub async fn run(self, stopping: watch::Receiver<Stopping>, drain: Duration) {
        let mut accepting = JoinSet::new();
        for (service, listener) in self.listeners {
            let shared = Arc::clone(&self.shared);
            accepting.spawn(accept(service, listener, shared, stopping.clone()));
        }
        for listener in self.posts {
            let serving = http::serve(listener, self.import.clone(), stopping.clone());
            accepting.spawn(serving);
        }
        while accepting.join_next().await.is_some() {}
        let Shared { milters, passes, .. } = &*self.shared;
        let left = join!(milters.is_left_within(drain), passes.is_left_within(drain));
        if left != (true, true) {
            warn!("some taps did not finish in time: their MTAs go on without us");
        }
    }
}

/// Our own hosts and our gateways bring the mail of many.
fn pass_share(config: &Config) -> Share {
    let site = &config.policy.site;
    let exempt = site.networks.iter().chain(&site.trusted_relays).copied();
    Share { sessions_max: config.tap.smtp_client_sessions_max, exempt: exempt.collect() }
}

async fn bound(endpoint: &Endpoint) -> Result<Listener, StartError> {
    Listener::bind(endpoint).await.map_err(|fault| StartError::listen(endpoint, fault))
}

async fn accept(
    service: Service,
    listener: Listener,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<Stopping>,
) {
    info!(endpoint = %listener.endpoint(), role = ?service.kind(), "tap");
    while let Some(peer) = listener.next(&mut stopping).await {
        admit(service.clone(), peer, &shared, stopping.clone());
    }
}

fn admit(service: Service, peer: Peer, shared: &Shared, stopping: watch::Receiver<Stopping>) {
    let door = match &service {
        Service::Milter(_) => &shared.milters,
        Service::Smtp(_) => &shared.passes,
    };
    let place = match door.enter(peer.ip()) {
        Ok(place) => place,
        Err(refusal) => {
            Counts::add(&shared.tap.counts().refused);
            return match &service {
                // Why without a word: the milter protocol has none, and the MTA goes on by its
                // `milter_default_action`.
                Service::Milter(_) => door.close(peer, refusal),
                Service::Smtp(pass) => door.refuse(peer, refusal, pass.tls.as_ref()),
            };
        }
    };
    tokio::spawn(async move {
        match (service, peer) {
            (Service::Milter(milter), Peer::Tcp(stream, _)) => {
                milter::serve(milter, stream, stopping).await;
            }
            (Service::Milter(milter), Peer::Unix(stream)) => {
                milter::serve(milter, stream, stopping).await;
            }
            (Service::Smtp(pass), Peer::Tcp(stream, peer)) => {
                let addresses = stream.local_addr().ok().map(|local| (peer, local));
                pass::serve(pass, stream, addresses, stopping).await;
            }
            (Service::Smtp(pass), Peer::Unix(stream)) => {
                pass::serve(pass, stream, None, stopping).await;
            }
        }
        drop(place);
    });
}
