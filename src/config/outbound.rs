//! `[outbound]`: the proxy's front, and its next hops.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::Outbound;
use crate::config::file::{Section, Source, Written};
use crate::config::sections::{allow_clients, to_usize, values};
use crate::config::tls::{self, Least, Wanted};
use crate::config::words::{keyword, loopback};
use crate::mail::limits_of_clients::CLIENT_BITS_V6;
use crate::relay;
use crate::relay::hop::Hop;
use crate::tls::server::Identity;
use crate::wire::endpoint::{Endpoint, Listen, Protocol};
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
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 10025 };
    let listen = tls::listeners(&mut section, source, identity, Least::One);
    let listen = listen.unwrap_or_else(|| vec![Listen { endpoint, tls: false }]);
    let starttls = tls::starttls(&mut section, source, identity);
    let protocol = section.value(source, "protocol", |text| match text {
        "smtp" => Ok(Protocol::Smtp),
        "lmtp" => Ok(Protocol::Lmtp),
        _ => Err("write \"smtp\" or \"lmtp\"".to_owned()),
    });
    let protocol = protocol.map(|written| written.value).unwrap_or_default();
    let everybody = "this lets everybody in: an open relay. Name your MTAs' networks";
    let allow_clients = allow_clients(&mut section, source, everybody);
    let (relay, written, warnings) = relay(&mut section, source, hostname, folder);
    for hop in &written {
        check_next_hop(source, hop, protocol);
        tls::must_be_another(source, hop, &listen);
    }
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

/// The next hops, and what is asked of them; beside them those that were written.
fn relay(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    hostname: &str,
    folder: &Path,
) -> (relay::Settings, Vec<Written<Hop>>, Vec<String>) {
    let mut relay = relay::Settings { hostname: hostname.to_owned(), ..relay::Settings::default() };
    let mut table = section.section(source, "next_hop_tls");
    let usual = Wanted::usual(TlsUse::Opportunistic).over(&mut table, source, folder);
    table.end(source);
    let written = tls::next_hops(section, source, folder, &usual, Least::One);
    relay.next_hops = match written.clone() {
        Some(written) => values(Some(written)),
        None => {
            let hops = relay.next_hops.into_iter();
            let hops = hops.map(|hop| Written { value: hop.at, at: section.at.clone() });
            hops.map(|hop| usual.hop(source, hop, None)).collect()
        }
    };
    let warnings = tls::logins(section, source, folder, &mut relay.next_hops);
    if let Some(sessions) = section.number(source, "next_hop_sessions_max", 1..=1000) {
        relay.sessions_max = to_usize(sessions.value);
    }
    relay.pass_keywords = values(section.list(source, "pass_keywords", keyword));
    (relay, written.unwrap_or_default(), warnings)
}

fn check_next_hop(source: &mut Source<'_>, hop: &Written<Hop>, protocol: Protocol) {
    if hop.value.at.lmtp && protocol == Protocol::Smtp {
        source.fault(
            hop.at.clone(),
            "SMTP in front of LMTP cannot pass on a reply for each recipient: set \
             `outbound.protocol = \"lmtp\"`, or name a next hop that speaks SMTP",
        );
    }
}
