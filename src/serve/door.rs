//! Who comes in: places for sessions, a client's share of them, and a word for whoever has to wait.
//!
//! Takes: peers of a listener. Gives: a `Place`, or why there is none. A client is an IPv4 address
//! or an IPv6 /64. Bounds: the door's own; `limits::REFUSALS_MAX` peers that are told;
//! a line a `limits_of_clients::COMPLAINED_EVERY` in the log for each reason.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use crate::mail::limits::REFUSALS_MAX;
use crate::mail::limits_of_clients::CLIENT_BITS_V6;
use crate::serve::complaint::Complaint;
use crate::serve::listen::Peer;
use crate::serve::tls::ListenerTls;

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// He is not among those who may.
    Stranger,
    /// All places are taken.
    Full,
    /// He has his share of them.
    Share,
}

impl Refusal {
    /// The stable name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Stranger => "stranger",
            Refusal::Full => "full",
            Refusal::Share => "share",
        }
    }

    /// What an SMTP client is told.
    fn line(self) -> &'static str {
        match self {
            Refusal::Stranger => "554 5.7.1 you may not speak to this guard\r\n",
            Refusal::Full => "421 4.3.2 too many sessions, come back later\r\n",
            Refusal::Share => "421 4.7.0 too many sessions from your address, come back later\r\n",
        }
    }
}

/// Who may come in at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The whole world.
    Everybody,
    /// Clients in these networks, and those on unix sockets.
    These(Vec<IpNet>),
}

impl Allowed {
    fn has(&self, ip: Option<IpAddr>) -> bool {
        match self {
            Allowed::Everybody => true,
            Allowed::These(networks) => {
                ip.is_none_or(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
        }
    }
}

/// How many places one client may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// So many at once.
    pub sessions_max: usize,
    /// But for clients in these networks, who may have all.
    pub exempt: Vec<IpNet>,
}

impl Share {
    /// Whoever comes first may have all.
    pub fn everything() -> Share {
        Share { sessions_max: usize::MAX, exempt: Vec::new() }
    }

    /// What is counted for this peer; `None` for those who may have all, and on unix sockets.
    fn client(&self, ip: Option<IpAddr>) -> Option<IpAddr> {
        let ip = ip.filter(|ip| !self.exempt.iter().any(|network| network.contains(ip)))?;
        Some(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => {
                let network = u128::from(v6) >> (128 - CLIENT_BITS_V6) << (128 - CLIENT_BITS_V6);
                IpAddr::from(Ipv6Addr::from(network))
            }
        })
    }
}

/// The door of some listeners.
pub struct Door {
    /// The table of the configuration that its bounds stand in, for the log.
    name: &'static str,
    allowed: Allowed,
    places_max: usize,
    places: Arc<Semaphore>,
    share: Share,
    by_client: Arc<ByClient>,
    /// Those who are told that they may not come in.
    told: Arc<Semaphore>,
    complaints: [Complaint; 3],
}

/// A place; it is free again when this is dropped.
pub struct Place {
    _place: OwnedSemaphorePermit,
    /// Whose share it counts to.
    client: Option<IpAddr>,
    by_client: Arc<ByClient>,
}

/// How many places each client has, of those who are counted.
#[derive(Default)]
struct ByClient(Mutex<HashMap<IpAddr, usize>>);

impl Door {
    /// A door to this many places.
    pub fn new(name: &'static str, allowed: Allowed, places_max: usize, share: Share) -> Arc<Door> {
        Arc::new(Door {
            name,
            allowed,
            places_max,
            places: Arc::new(Semaphore::new(places_max)),
            share,
            by_client: Arc::default(),
            told: Arc::new(Semaphore::new(REFUSALS_MAX)),
            complaints: Default::default(),
        })
    }

    /// Sessions at once.
    pub fn places_max(&self) -> usize {
        self.places_max
    }

    /// Sessions now.
    pub fn taken(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    /// A place for this peer. `Full` before `Share`: the bound that more clients meet.
    pub fn enter(&self, ip: Option<IpAddr>) -> Result<Place, Refusal> {
        if !self.allowed.has(ip) {
            return Err(Refusal::Stranger);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_no_permits| Refusal::Full)?;
        let client = self.share.client(ip);
        if let Some(client) = client {
            let mut by_client = self.by_client.lock();
            let sessions = by_client.entry(client).or_default();
            if *sessions >= self.share.sessions_max {
                return Err(Refusal::Share);
            }
            *sessions += 1;
        }
        Ok(Place { _place: place, client, by_client: Arc::clone(&self.by_client) })
    }

    /// Says why in one line of SMTP, and closes. Past a bound the connection is just closed, and
    /// where TLS comes first: a line in the clear would be read as a broken handshake.
    pub fn refuse(&self, peer: Peer, refusal: Refusal, tls: Option<&ListenerTls>) {
        if ListenerTls::is_first(tls) {
            return self.close(peer, refusal);
        }
        self.complain(peer.ip(), refusal);
        if let Ok(place) = Arc::clone(&self.told).try_acquire_owned() {
            tokio::spawn(async move {
                peer.refuse(refusal.line()).await;
                drop(place);
            });
        }
    }

    /// Closes without a word: where the protocol has none.
    pub fn close(&self, peer: Peer, refusal: Refusal) {
        self.complain(peer.ip(), refusal);
        drop(peer);
    }

    /// Waits until everybody has left; whether that was within this time.
    pub async fn is_left_within(&self, time: Duration) -> bool {
        let all = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        timeout(time, self.places.acquire_many(all)).await.is_ok()
    }

    fn complain(&self, client: Option<IpAddr>, refusal: Refusal) {
        let Some(refused) = self.is_due(refusal) else { return };
        let table = self.name;
        match refusal {
            Refusal::Stranger => {
                warn!(?client, refused, "not in `allow_clients` of `[{table}]`: turned away");
            }
            Refusal::Full => {
                warn!(?client, refused, "no place is left at `[{table}]`: 421");
            }
            Refusal::Share => {
                let max = self.share.sessions_max;
                warn!(?client, refused, max, "a client has its share of `[{table}]`: 421");
            }
        }
    }

    /// How many were turned away since the last line, this one with them; `None` when there is to
    /// be no line yet.
    fn is_due(&self, refusal: Refusal) -> Option<u64> {
        let [stranger, full, share] = &self.complaints;
        let complaint = match refusal {
            Refusal::Stranger => stranger,
            Refusal::Full => full,
            Refusal::Share => share,
        };
        complaint.is_due()
    }
}

impl ByClient {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut by_client = self.by_client.lock();
        if let Some(sessions) = by_client.get_mut(&client) {
            *sessions = sessions.saturating_sub(1);
            if *sessions == 0 {
                by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(places: usize, of_one: usize, exempt: &[&str]) -> Arc<Door> {
        let exempt = exempt.iter().map(|network| network.parse().unwrap()).collect();
        Door::new("outbound", Allowed::Everybody, places, Share { sessions_max: of_one, exempt })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_client_has_its_share_and_the_others_the_rest() {
        let door = door(4, 2, &[]);
        let mut places = Vec::new();
        for (client, expected) in [
            ("192.0.2.1", None),
            ("192.0.2.1", None),
            ("192.0.2.1", Some(Refusal::Share)),
            ("2001:db8:0:1::1", None),
            ("2001:db8:0:1:ffff::2", None),
            ("192.0.2.2", Some(Refusal::Full)),
            ("192.0.2.1", Some(Refusal::Full)),
        ] {
            match door.enter(ip(client)) {
                Ok(place) => {
                    assert_eq!(expected, None, "{client}");
                    places.push(place);
                }
                Err(refusal) => assert_eq!(Some(refusal), expected, "{client}"),
            }
        }
        assert_eq!(door.taken(), 4);
        places.remove(0);
        assert_eq!(door.enter(ip("2001:db8:0:1::7")).err(), Some(Refusal::Share), "the same /64");
        assert!(door.enter(ip("192.0.2.1")).is_ok());
        drop(places);
        assert_eq!((door.taken(), door.by_client.lock().len()), (0, 0), "nobody is kept in mind");
    }

    #[test]
    fn who_is_exempt_may_have_all() {
        let door = door(3, 1, &["127.0.0.0/8"]);
        let all: Vec<_> = (0..3).map(|_| door.enter(ip("127.0.0.1"))).collect();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(door.enter(None).err(), Some(Refusal::Full));
        drop(all);
        let unix: Vec<_> = (0..3).map(|_| door.enter(None)).collect();
        assert!(unix.iter().all(Result::is_ok), "on a unix socket nobody is told apart");
    }

    #[test]
    fn a_stranger_takes_no_place() {
        let allowed = Allowed::These(vec!["192.0.2.0/24".parse().unwrap()]);
        let door = Door::new("outbound", allowed, 1, Share::everything());
        for client in ["198.51.100.1", "2001:db8::1"] {
            assert_eq!(door.enter(ip(client)).err(), Some(Refusal::Stranger), "{client}");
        }
        assert_eq!(door.taken(), 0);
        assert!(door.enter(ip("192.0.2.1")).is_ok() && door.enter(None).is_ok());
    }

    #[test]
    fn each_reason_has_a_line_of_its_own() {
        let door = door(1, 1, &[]);
        assert_eq!(door.is_due(Refusal::Share), Some(1));
        assert_eq!(door.is_due(Refusal::Share), None);
        assert_eq!(door.is_due(Refusal::Full), Some(1));
    }
}
