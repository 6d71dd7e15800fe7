//! The taps' listeners: who may speak to them, how many at once, until the server stops.
//!
//! Takes: `[tap]` of the configuration, the tap. Gives: `Taps`, running. Errors: `StartError`.
//! Bounds: `limits::TAP_SESSIONS_MAX` for MTAs, and as many again for the clients of the
//! pass-through, of which each has its share.

use std::net::IpAddr;
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
use crate::mail::limits::TAP_SESSIONS_MAX;
use crate::serve::StartError;
use crate::serve::door::{Door, Refusal, Share};
use crate::serve::http;
use crate::serve::import::{self, Import};
use crate::serve::listen::{Listener, Peer, endpoints};
use crate::serve::milter::{self, Milter};
use crate::serve::pass::{self, Pass};
use crate::serve::room::Room;
use crate::serve::smtp::Stopping;
use crate::serve::tls::{Begins, ListenerTls};
use crate::wire::endpoint::Endpoint;

/// The taps that are configured.
pub struct Taps {
    listeners: Vec<(Role, Begins, Listener)>,
    posts: Vec<Listener>,
    import: Router,
    shared: Arc<Shared>,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Milter,
    Smtp,
}

struct Shared {
    tap: Arc<Tap>,
    milter: Arc<Milter>,
    pass: Arc<Pass>,
    allow_clients: Vec<ipnet::IpNet>,
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
        let mut listeners = Vec::new();
        let milters = config.tap.milter.iter();
        let milters = milters.map(|endpoint| (Role::Milter, Begins::Asked, endpoint));
        let passes = config.tap.smtp.iter();
        let passes = passes.map(|listen| (Role::Smtp, Begins::of(listen), &listen.endpoint));
        for (role, begins, endpoint) in milters.chain(passes) {
            let listener = Listener::bind(endpoint).await;
            let listener = listener.map_err(|fault| StartError::listen(endpoint, fault))?;
            listeners.push((role, begins, listener));
        }
        let mut posts = Vec::new();
        for endpoint in &config.tap.http {
            let listener = Listener::bind(endpoint).await;
            posts.push(listener.map_err(|fault| StartError::listen(endpoint, fault))?);
        }
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
            tls: tls.clone(),
            tells: config.tap.smtp_tells,
            inspect_max: config.tap.inspect_max,
            room,
        };
        let shared = Shared {
            tap,
            milter: Arc::new(milter),
            pass: Arc::new(pass),
            allow_clients: config.tap.allow_clients.clone(),
            // Why no share: each process of an MTA has a connection, and one MTA is the rule.
            milters: Door::new("tap.milter", TAP_SESSIONS_MAX, Share::everything()),
            passes: Door::new("tap.smtp", TAP_SESSIONS_MAX, pass_share(config)),
        };
        Ok(Taps { listeners, posts, import, shared: Arc::new(shared) })
    }

    /// Where they listen, with the ports the system gave where 0 was asked for.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        endpoints(self.listeners.iter().map(|(_, _, listener)| listener).chain(&self.posts))
    }

    /// Serves until the server drains; open transactions have `drain` to end.
    pub async fn run(self, stopping: watch::Receiver<Stopping>, drain: Duration) {
        let mut accepting = JoinSet::new();
        for (role, begins, listener) in self.listeners {
            accepting.spawn(accept(
                role,
                begins,
                listener,
                Arc::clone(&self.shared),
                stopping.clone(),
            ));
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

async fn accept(
    role: Role,
    begins: Begins,
    listener: Listener,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<Stopping>,
) {
    info!(endpoint = %listener.endpoint(), ?role, "tap");
    while let Some(peer) = listener.next(&mut stopping).await {
        admit(role, begins, peer, &shared, stopping.clone());
    }
}

fn admit(
    role: Role,
    begins: Begins,
    peer: Peer,
    shared: &Arc<Shared>,
    stopping: watch::Receiver<Stopping>,
) {
    let may_speak = |ip: IpAddr| shared.allow_clients.iter().any(|network| network.contains(&ip));
    let place = match role {
        Role::Milter if !peer.ip().is_none_or(may_speak) => Err(Refusal::Stranger),
        Role::Milter => shared.milters.enter(peer.ip()),
        Role::Smtp => shared.passes.enter(peer.ip()),
    };
    let place = match place {
        Ok(place) => place,
        Err(refusal) => {
            Counts::add(&shared.tap.counts().refused);
            return match role {
                // Why without a word: the milter protocol has none, and the MTA goes on by its
                // `milter_default_action`.
                Role::Milter => shared.milters.close(peer, refusal),
                // Nor where TLS comes first.
                Role::Smtp if begins == Begins::AtOnce => shared.passes.close(peer, refusal),
                Role::Smtp => shared.passes.refuse(peer, refusal),
            };
        }
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let (milter, pass) = (Arc::clone(&shared.milter), Arc::clone(&shared.pass));
        match (role, peer) {
            (Role::Milter, Peer::Tcp(stream, _)) => milter::serve(milter, stream, stopping).await,
            (Role::Milter, Peer::Unix(stream)) => milter::serve(milter, stream, stopping).await,
            (Role::Smtp, Peer::Tcp(stream, peer)) => {
                let addresses = stream.local_addr().ok().map(|local| (peer, local));
                pass::serve(pass, stream, begins, addresses, stopping).await;
            }
            (Role::Smtp, Peer::Unix(stream)) => {
                pass::serve(pass, stream, begins, None, stopping).await;
            }
        }
        drop(place);
    });
}
