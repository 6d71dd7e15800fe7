//! `[outbound]`: the proxy's front, and its next hops.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::Outbound;
use crate::config::file::{Section, Source, Written};
use crate::config::sections::{to_usize, values};
use crate::config::tls::{self, Least, NO_CERTIFICATE, Wanted};
use crate::config::words::{keyword, loopback, network};
use crate::mail::limits_of_clients::CLIENT_BITS_V6;
use crate::relay;
use crate::relay::hop::Hop;
use crate::tls::server::Identity;
use crate::wire::endpoint::{Endpoint, Listen, NextHop, Protocol};
use crate::wire::secure::TlsUse;

const SECOND: Duration = Duration::from_secs(1);

/// Reads it; beside it what an administrator should know of the next hops.
pub fn outbound(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    hostname: &str,
    folder: &Path,
    identity: Option<&Identity>,
) -> (Outbound, relay::Settings, Vec<String>) {
    let mut section = root.section(source, "outbound");
    let at = section.at.clone();
    let listen = listeners(&mut section, source, identity);
    let starttls = tls::starttls(&mut section, source, identity);
    let protocol = section.value(source, "protocol", |text| match text {
        "smtp" => Ok(Protocol::Smtp),
        "lmtp" => Ok(Protocol::Lmtp),
        _ => Err("write \"smtp\" or \"lmtp\"".to_owned()),
    });
    let protocol = protocol.map(|written| written.value).unwrap_or_default();
    let allow_clients = allow_clients(&mut section, source);
    let (relay, places, warnings) = relay(&mut section, source, hostname, folder);
    check_next_hops(source, &places, protocol, &listen);
    let inspect_max = section.size(source, "inspect_max", 16 << 10..=16 << 20);
    let memory_max = section.size(source, "memory_max", 1 << 20..=1 << 40);
    let sessions_max = section.number(source, "sessions_max", 1..=100_000);
    let sessions_max = to_usize(sessions_max.map_or(10_000, |written| written.value));
    let of_one = section.number(source, "client_sessions_max", 0..=100_000);
    let of_one = of_one.map(|written| to_usize(written.value)).filter(|written| *written > 0);
    let (client_sessions_max, client_sessions_exempt) = match of_one {
        Some(written) => (written.min(sessions_max), Vec::new()),
        None => usual_share(sessions_max, &allow_clients),
    };
    let bare = section.value(source, "bare_line_end", |text| match text {
        "pass" => Ok(false),
        "refuse" => Ok(true),
        _ => Err("write \"pass\" or \"refuse\"".to_owned()),
    });
    let drain = section.duration(source, "drain", SECOND..=SECOND * 3600);
    section.end(source);
    let outbound = Outbound {
        listen,
        starttls,
        protocol,
        allow_clients,
        inspect_max: to_usize(inspect_max.unwrap_or(256 << 10)),
        memory_max: memory_max.unwrap_or(256 << 20),
        sessions_max,
        client_sessions_max,
        client_sessions_exempt,
        refuse_bare_line_ends: bare.is_some_and(|written| written.value),
        drain: drain.unwrap_or(SECOND * 30),
    };
    if outbound.memory_max / 1024 < outbound.inspect_max.div_ceil(1024) as u64 {
        source.fault(at, "`outbound.memory_max` must hold at least one `outbound.inspect_max`");
    }
    (outbound, relay, warnings)
}

/// Half of all for each client, so that no other is shut out; all for those on this host, and for
/// one that is alone. Gives how many, and who may have all.
fn usual_share(sessions_max: usize, allow_clients: &[IpNet]) -> (usize, Vec<IpNet>) {
    let mut others = allow_clients
        .iter()
        .filter(|network| !loopback().iter().any(|loopback| loopback.contains(*network)));
    let is_one = |network: &IpNet| match network {
        IpNet::V4(network) => network.prefix_len() == 32,
        IpNet::V6(network) => u32::from(network.prefix_len()) >= CLIENT_BITS_V6,
    };
    let is_alone = others.next().is_none_or(is_one) && others.next().is_none();
    let of_one = if is_alone { sessions_max } else { sessions_max.div_ceil(2) };
    (of_one, loopback().to_vec())
}

fn allow_clients(section: &mut Section<'_>, source: &mut Source<'_>) -> Vec<IpNet> {
    section.list(source, "allow_clients", network).map_or_else(
        || loopback().to_vec(),
        |written| {
            for network in written.iter().filter(|network| network.value.prefix_len() == 0) {
                let what = "this lets everybody in: an open relay. Name your MTAs' networks";
                source.fault(network.at.clone(), what);
            }
            written.into_iter().map(|network| network.value).collect()
        },
    )
}

/// The next hops, and what is asked of them; beside them those that were written, with their places.
fn relay(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    hostname: &str,
    folder: &Path,
) -> (relay::Settings, Vec<Written<NextHop>>, Vec<String>) {
    let mut relay = relay::Settings { hostname: hostname.to_owned(), ..relay::Settings::default() };
    let mut table = section.section(source, "next_hop_tls");
    let usual = Wanted::usual(TlsUse::Opportunistic).over(&mut table, source, folder);
    table.end(source);
    let written = tls::next_hops(section, source, folder, &usual, Least::One);
    let place = |hop: &Written<Hop>| Written { value: hop.value.at.clone(), at: hop.at.clone() };
    let places = written.iter().flatten().map(place).collect();
    relay.next_hops = match written {
        Some(written) => values(Some(written)),
        None => {
            let usual_hops = relay.next_hops.iter().map(|hop| hop.at.clone());
            let at = section.at.clone();
            usual_hops
                .map(|hop| usual.hop(source, Written { value: hop, at: at.clone() }, None))
                .collect()
        }
    };
    let warnings = tls::logins(section, source, folder, &mut relay.next_hops);
    if let Some(sessions) = section.number(source, "next_hop_sessions_max", 1..=1000) {
        relay.sessions_max = to_usize(sessions.value);
    }
    relay.pass_keywords = values(section.list(source, "pass_keywords", keyword));
    (relay, places, warnings)
}

/// Where it listens; `tls:` needs a certificate.
fn listeners(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    identity: Option<&Identity>,
) -> Vec<Listen> {
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 10025 };
    let listen = section.some(source, "listen", |text| Ok(Listen::parse(text)?));
    for listen in listen.iter().flatten().filter(|listen| listen.value.tls && identity.is_none()) {
        source.fault(listen.at.clone(), NO_CERTIFICATE);
    }
    listen.map_or(vec![Listen { endpoint, tls: false }], |written| values(Some(written)))
}

fn check_next_hops(
    source: &mut Source<'_>,
    next_hops: &[Written<NextHop>],
    protocol: Protocol,
    listen: &[Listen],
) {
    for next_hop in next_hops {
        if next_hop.value.lmtp && protocol == Protocol::Smtp {
            source.fault(
                next_hop.at.clone(),
                "SMTP in front of LMTP cannot pass on a reply for each recipient: set \
                 `outbound.protocol = \"lmtp\"`, or name a next hop that speaks SMTP",
            );
        }
        if listen.iter().any(|listen| listen.endpoint == next_hop.value.endpoint) {
            source.fault(
                next_hop.at.clone(),
                "the next hop is our own listener: mail would go round",
            );
        }
    }
}
