//! What the memory of loops needs around it: files that outlive a restart, and the next hops'
//! names.
//!
//! Takes: the state directory, the next hops. Gives: two files, written every `TIDY_EVERY` when
//! something changed and at the stop; addresses, asked for again every `NEXT_HOP_NAMES_EVERY`.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::time::{interval, timeout};
use tracing::{info, warn};

use crate::guard::Guard;
use crate::guard::loops::{LoopMemory, Saved};
use crate::mail::limits::{NAMES_DEADLINE, NEXT_HOP_NAMES_EVERY};
use crate::mail::time::Timestamp;
use crate::serve::state::{CONVERSATIONS, SIGHTINGS, write_new};
use crate::wire::endpoint::{Endpoint, NextHop};

/// Reads what was going round before the restart.
pub fn restore(loops: &LoopMemory, state_dir: &Path, now: Timestamp) {
    let read = |name| std::fs::read(state_dir.join(name)).unwrap_or_default();
    let saved = Saved { sightings: read(SIGHTINGS), conversations: read(CONVERSATIONS) };
    let entries = loops.restore(&saved, now);
    if entries > 0 {
        info!(entries, "what may be going round is known from before");
    }
}

/// Writes down what may be going round, so that a restart does not forget it.
pub async fn save(guard: &Arc<Guard>, state_dir: &Path) {
    let (guard, folder) = (Arc::clone(guard), state_dir.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        let Saved { sightings, conversations } = guard.inquiry().loops.saved();
        write_new(&folder, &folder.join(SIGHTINGS), &sightings)?;
        write_new(&folder, &folder.join(CONVERSATIONS), &conversations)
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => warn!(%fault, "what may be going round could not be written down"),
        Err(fault) => warn!(%fault, "what may be going round was not written down"),
    }
}

/// Where next hops are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Their addresses.
    pub found: Vec<IpAddr>,
    /// Whether a name among them had no answer.
    pub is_part: bool,
}

/// The addresses of the next hops, to know their mail by.
pub async fn addresses(next_hops: &[NextHop]) -> Addresses {
    let mut addresses = Addresses::default();
    for hop in next_hops {
        let Endpoint::Tcp { host, port } = &hop.endpoint else { continue };
        let asked = tokio::net::lookup_host((host.as_str(), *port));
        match timeout(NAMES_DEADLINE, asked).await {
            Ok(Ok(places)) => addresses.found.extend(places.map(|place| place.ip().to_canonical())),
            _ => {
                addresses.is_part = true;
                warn!(host, "the next hop's name has no address now: misrouting may not be seen");
            }
        }
    }
    addresses
}

/// Keeps the addresses of next hops that are named, not numbered, as young as DNS has them.
///
/// What is known stays while a name has no answer: a resolver that is down changes no route.
pub async fn follow_names(guard: Arc<Guard>, next_hops: Vec<NextHop>) {
    let named = |hop: &NextHop| match &hop.endpoint {
        Endpoint::Tcp { host, .. } => host.parse::<IpAddr>().is_err(),
        Endpoint::Unix(_) => false,
    };
    if !next_hops.iter().any(named) {
        return;
    }
    let mut again = interval(NEXT_HOP_NAMES_EVERY);
    again.tick().await;
    loop {
        again.tick().await;
        let Addresses { found, is_part } = addresses(&next_hops).await;
        if !is_part {
            guard.inquiry().loops.follow(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_and_names_are_found_and_what_is_missing_is_said() {
        let hop = |text: &str| NextHop::parse(text).unwrap();
        let all = addresses(&[hop("192.0.2.25:25"), hop("localhost:25"), hop("unix:/x")]).await;
        assert!(all.found.contains(&"192.0.2.25".parse().unwrap()), "{all:?}");
        assert!(all.found.iter().any(IpAddr::is_loopback) && !all.is_part, "{all:?}");
        let none = addresses(&[hop("no.such.name.invalid:25")]).await;
        assert_eq!(none, Addresses { found: Vec::new(), is_part: true });
    }
}
