//! The tables of the configuration, one function each: keys in, settings out.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::audit::quarantine::OnFull;
use crate::audit::{self, OnFailure};
use crate::auth;
use crate::config::file::{Section, Source, Written};
use crate::config::lists::{self, Kind, WrittenEntry};
use crate::config::loops::loops;
use crate::config::memory::store;
use crate::config::outbound::outbound;
use crate::config::tap::tap;
use crate::config::tls;
use crate::config::words::{
    absolute, action, class, host_name, loopback, mode, network, pattern, points, sandbox, sink,
    verdict,
};
use crate::config::{Admin, Config, World};
use crate::judge::lists::{Entry, List};
use crate::judge::original::Origin;
use crate::judge::policy::{
    Mode, PnoneMeans, Policy, Profile, Rule, RuleAction, SoftfailMeans, Suppress,
};
use crate::judge::site::Site;
use crate::mail::address::Domain;
use crate::wire::endpoint::Endpoint;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads everything; faults go to `source`.
pub fn config(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    world: &World,
) -> Config {
    let mode = root.value(source, "mode", mode).map(|written| written.value);
    let hostname = root.value(source, "hostname", host_name).map(|written| written.value);
    let hostname = hostname.unwrap_or_else(|| world.hostname.clone());
    let state_dir = root.value(source, "state_dir", |text| absolute(text, folder));
    let state_dir = state_dir.map_or_else(|| world.state_dir.clone(), |written| written.value);
    let sandbox = root.value(source, "sandbox", sandbox).map(|written| written.value);
    let (identity, mut warnings) = tls::identity(root, source, folder, world.now);
    let tls = identity.as_ref();
    let (outbound, relay, told) = outbound(root, source, &hostname, folder, tls);
    warnings.extend(told);
    let (tap, trusted_relays) = tap(root, source, folder, tls);
    let (mut site, networks, none) = local(root, source, folder, &hostname);
    overlap(source, &networks, &trusted_relays);
    site.trusted_relays = trusted_relays.into_iter().map(|written| written.value).collect();
    let mut policy = Policy { mode: mode.unwrap_or_default(), site, ..Policy::default() };
    let mut auth = dns(root, source);
    auth.best_guess = authentication(root, source, &mut policy);
    rules(root, source, &mut policy);
    let mut section = root.section(source, "lists");
    policy.allow = list(&mut section, source, folder, world, Kind::Allow);
    policy.deny = list(&mut section, source, folder, world, Kind::Deny);
    section.end(source);
    let site_name = outbound.listen.first().map(ToString::to_string).unwrap_or_default();
    let site_name = format!("{hostname}/{site_name}");
    let (loop_site, loops) = loops(root, source, &mut policy);
    let loop_site = loop_site.unwrap_or(site_name);
    let store = store(root, source, folder, &state_dir);
    let audit = audit_log(root, source, folder, &state_dir, &hostname);
    let quarantine = quarantine(root, source, folder, &state_dir);
    let admin = admin(root, source, &state_dir, folder);
    let nothing_local = policy.site.domains.is_empty() && !none;
    if policy.mode == Mode::Enforce && nothing_local {
        source.general_fault(
            "mode is \"enforce\", but `local.domains` is empty: name the domains that are ours, or \
             say `local.none = true` if this site has none",
        );
    }
    let notes = blind_spots(&policy, &hostname);
    let written = source.written.clone();
    Config {
        hostname,
        state_dir,
        sandbox: sandbox.unwrap_or_default(),
        outbound,
        relay,
        tap,
        tls: identity,
        warnings,
        store,
        auth,
        policy,
        loop_site,
        loops,
        audit,
        quarantine,
        admin,
        notes,
        written,
    }
}

/// What an administrator who enforces should know of what the guard cannot see.
fn blind_spots(policy: &Policy, hostname: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if policy.mode != Mode::Enforce {
        return notes;
    }
    if policy.site.authserv_ids.is_empty() {
        notes.push(
            "enforcing without `local.authserv_ids`: no Authentication-Results is believed, and a \
             bounce is judged only by what can still be verified"
                .to_owned(),
        );
    }
    if policy.site.hosts.iter().all(|host| host.eq_ignore_ascii_case(hostname)) {
        notes.push(format!(
            "enforcing without `local.hosts`: only Received lines that {hostname} wrote are \
             believed; name every host that takes mail in, or bounces prove nothing"
        ));
    }
    notes
}

/// What is ours; own networks with their places; whether there are no domains of ours.
fn local(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    hostname: &str,
) -> (Site, Vec<Written<IpNet>>, bool) {
    let mut section = root.section(source, "local");
    let domain = |text: &str| Domain::parse(text).ok_or("this is no domain name".to_owned());
    let mut domains: HashSet<Domain> =
        values(section.list(source, "domains", domain)).into_iter().collect();
    let files = section.list(source, "domains_files", |text| absolute(text, folder));
    for file in files.unwrap_or_default() {
        with_file(source, &file, |inner| domains.extend(lists::domains(inner)));
    }
    let none = section.boolean(source, "none");
    if let Some(none) = none.as_ref().filter(|none| none.value && !domains.is_empty()) {
        source.fault(none.at.clone(), "`none = true` contradicts `domains`: take one of them out");
    }
    let networks = section.list(source, "networks", network);
    let networks =
        networks.unwrap_or_else(|| loopback().map(|value| Written { value, at: 0..0 }).to_vec());
    let name = |text: &str| host_name(text).map(|name| name.to_ascii_lowercase());
    let mut hosts: HashSet<String> =
        values(section.list(source, "hosts", name)).into_iter().collect();
    hosts.insert(hostname.to_ascii_lowercase());
    let ids = |text: &str| match text.trim().is_empty() {
        true => Err("an authserv-id cannot be empty".to_owned()),
        // As the reader of Authentication-Results gives it: A-labels where it is a name.
        false => Ok(Domain::parse(text).map_or_else(|| text.to_lowercase(), |id| id.to_string())),
    };
    let authserv_ids: HashSet<String> =
        values(section.list(source, "authserv_ids", ids)).into_iter().collect();
    let stripped = section.boolean(source, "authserv_stripped");
    if let Some(stripped) = stripped.as_ref().filter(|s| s.value && authserv_ids.is_empty()) {
        source.fault(
            stripped.at.clone(),
            "`authserv_stripped` says something of `authserv_ids`, which is empty: name them",
        );
    }
    let below = section.boolean(source, "authserv_below");
    section.end(source);
    let site = Site {
        domains,
        networks: networks.iter().map(|written| written.value).collect(),
        hosts,
        authserv_ids,
        authserv_stripped: stripped.is_some_and(|written| written.value),
        authserv_below: below.is_some_and(|written| written.value),
        ..Site::default()
    };
    (site, networks, none.is_some_and(|written| written.value))
}

/// Own submission and gateways are different things: one network in both is a fault.
fn overlap(source: &mut Source<'_>, own: &[Written<IpNet>], relays: &[Written<IpNet>]) {
    for relay in relays {
        let touches = |own: &&Written<IpNet>| {
            own.value.contains(&relay.value) || relay.value.contains(&own.value)
        };
        if let Some(own) = own.iter().find(touches) {
            let what = format!(
                "{} is a gateway here and own submission in `local.networks` ({}): decide which",
                relay.value, own.value
            );
            source.fault(relay.at.clone(), what);
        }
    }
}

fn dns(root: &mut Section<'_>, source: &mut Source<'_>) -> auth::Settings {
    let mut section = root.section(source, "dns");
    let server = |text: &str| {
        let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        let found = text.parse::<SocketAddr>().or_else(|_| alone());
        found.map_err(|_| "write an IP address with or without port: \"127.0.0.1:53\"".to_owned())
    };
    let servers = values(section.list(source, "servers", server));
    let timeout = section.duration(source, "timeout", SECOND / 10..=SECOND * 60);
    section.end(source);
    auth::Settings { servers, timeout: timeout.unwrap_or(SECOND * 5), best_guess: false }
}

/// Fills the policy; gives whether SPF records are guessed.
fn authentication(root: &mut Section<'_>, source: &mut Source<'_>, policy: &mut Policy) -> bool {
    let mut section = root.section(source, "auth");
    let softfail = section.value(source, "softfail", |text| match text {
        "with-dmarc" => Ok(SoftfailMeans::WithDmarc),
        "always" => Ok(SoftfailMeans::Always),
        "never" => Ok(SoftfailMeans::Never),
        _ => Err("write \"with-dmarc\", \"always\" or \"never\"".to_owned()),
    });
    policy.softfail = softfail.map(|written| written.value).unwrap_or_default();
    let pnone = section.value(source, "pnone", |text| match text {
        "fail" => Ok(PnoneMeans::Fail),
        "neutral" => Ok(PnoneMeans::Neutral),
        _ => Err("write \"fail\" or \"neutral\"".to_owned()),
    });
    policy.pnone = pnone.map(|written| written.value).unwrap_or_default();
    let sealer = |text: &str| Domain::parse(text).ok_or("this is no domain name".to_owned());
    let sealers = values(section.list(source, "arc_sealers", sealer));
    policy.arc_sealers = sealers.iter().map(ToString::to_string).collect();
    let best_guess = section.boolean(source, "best_guess").is_some_and(|written| written.value);
    section.end(source);
    best_guess
}

fn rules(root: &mut Section<'_>, source: &mut Source<'_>, policy: &mut Policy) {
    let mut section = root.section(source, "policy");
    let profile = section.value(source, "profile", |text| match text {
        "balanced" => Ok(Profile::Balanced),
        "strict" => Ok(Profile::Strict),
        _ => Err("write \"balanced\" or \"strict\"".to_owned()),
    });
    policy.profile = profile.map(|written| written.value).unwrap_or_default();
    let suppress = section.value(source, "suppress", |text| match text {
        "quarantine" => Ok(Suppress::Quarantine),
        "reject" => Ok(Suppress::Reject),
        "discard" => Ok(Suppress::Discard),
        _ => Err("write \"quarantine\", \"reject\" or \"discard\"".to_owned()),
    });
    policy.suppress = suppress.map(|written| written.value).unwrap_or_default();
    let mut points = |key| section.value(source, key, points).and_then(|written| written.value);
    (policy.spam_limit, policy.spam_suppress) = (points("spam_limit"), points("spam_suppress"));
    for (index, table) in section.sections(source, "rule").into_iter().enumerate() {
        let at = table.at.clone();
        let rule = rule(table, source, index + 1);
        if policy.rules.iter().any(|other| other.name == rule.name) {
            source
                .fault(at, format!("two rules are called {:?}: give each its own name", rule.name));
        }
        policy.rules.push(rule);
    }
    section.end(source);
}

fn rule(mut table: Section<'_>, source: &mut Source<'_>, number: usize) -> Rule {
    let at = table.at.clone();
    let name = table.value(source, "name", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let right = (1..=60).contains(&text.len()) && text.chars().all(plain);
        right.then(|| text.to_owned()).ok_or("a name is 1 to 60 letters, digits, - _ .".to_owned())
    });
    let classes = values(table.list(source, "class", class));
    let verdicts = values(table.list(source, "verdict", verdict));
    let rcpt = values(table.list(source, "rcpt", pattern));
    let responder = values(table.list(source, "responder", pattern));
    let client = values(table.list(source, "client", network));
    let origin = table.value(source, "origin", |text| match text {
        "ours" => Ok(Origin::Ours),
        "relayed" => Ok(Origin::Relayed),
        _ => Err("write \"ours\" or \"relayed\"".to_owned()),
    });
    let action = table.value(source, "action", action);
    if action.is_none() {
        source.fault(at, "a rule needs an `action`: \"deliver\", \"suppress\", \"limit\"…");
    }
    let mode = table.value(source, "mode", mode);
    table.end(source);
    Rule {
        name: name.map_or_else(|| format!("rule-{number}"), |written| written.value),
        classes,
        verdicts,
        rcpt,
        responder,
        client,
        origin: origin.map(|written| written.value),
        action: action.map_or(RuleAction::Defer, |written| written.value),
        mode: mode.map(|written| written.value),
    }
}

fn list(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    world: &World,
    kind: Kind,
) -> List {
    let (key, file_key) = match kind {
        Kind::Allow => ("allow", "allow_file"),
        Kind::Deny => ("deny", "deny_file"),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for item in section.mixed(source, key).unwrap_or_default() {
        let (entry, at) = match item {
            Ok(text) => {
                let written = WrittenEntry { pattern: &text.value, ..WrittenEntry::default() };
                (written.check(kind, world.now), text.at)
            }
            Err(table) => entry_table(table, source, world, kind),
        };
        match entry {
            Ok(mut entry) => {
                entry.written_at = source.name.to_owned();
                entries.push(entry);
            }
            Err(what) => source.fault(at, what),
        }
    }
    if let Some(file) = optional_path(section, source, file_key, folder) {
        with_file(source, &file, |inner| entries.extend(lists::entries(inner, kind, world.now)));
    }
    List::new(entries)
}

fn entry_table(
    mut table: Section<'_>,
    source: &mut Source<'_>,
    world: &World,
    kind: Kind,
) -> (Result<Entry, String>, Range<usize>) {
    let at = table.at.clone();
    let mut text = |key| {
        let found = table.value(source, key, |text| Ok(text.to_owned()));
        found.map(|written| written.value)
    };
    let (pattern, reason, author) = (text("match"), text("reason"), text("author"));
    let expires = text("expires");
    let forged = table.boolean(source, "forged").is_some_and(|written| written.value);
    table.end(source);
    let Some(pattern) = pattern else {
        return (Err("an entry needs `match = \"…\"`".to_owned()), at);
    };
    let written = WrittenEntry {
        pattern: &pattern,
        expires: expires.as_deref(),
        author: author.as_deref().unwrap_or_default(),
        reason: reason.as_deref().unwrap_or_default(),
        forged,
    };
    (written.check(kind, world.now), at)
}

fn audit_log(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    state_dir: &Path,
    hostname: &str,
) -> audit::Settings {
    let mut section = root.section(source, "audit");
    let mut settings =
        audit::Settings { path: state_dir.join("audit.jsonl"), ..audit::Settings::default() };
    if let Some(path) = section.value(source, "path", |text| absolute(text, folder)) {
        settings.path = path.value;
    }
    if let Some(size) = section.size(source, "max_bytes", 1 << 20..=1 << 50) {
        settings.max_bytes = size;
    }
    if let Some(size) = section.size(source, "rotate_bytes", 64 << 10..=1 << 40) {
        settings.rotate_bytes = size;
    }
    let on_failure = section.value(source, "on_failure", |text| match text {
        "deliver-personal" => Ok(OnFailure::DeliverPersonal),
        "defer-all" => Ok(OnFailure::DeferAll),
        _ => Err("write \"deliver-personal\" or \"defer-all\"".to_owned()),
    });
    settings.on_failure = on_failure.map_or(settings.on_failure, |written| written.value);
    settings.pseudonymise = section.boolean(source, "pseudonymise").is_some_and(|w| w.value);
    settings.sinks = values(section.list(source, "also", |text| sink(text, hostname)));
    section.end(source);
    settings
}

fn quarantine(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    state_dir: &Path,
) -> audit::quarantine::Settings {
    let mut section = root.section(source, "quarantine");
    let mut settings = audit::quarantine::Settings {
        path: state_dir.join("quarantine"),
        ..audit::quarantine::Settings::default()
    };
    if let Some(path) = section.value(source, "path", |text| absolute(text, folder)) {
        settings.path = path.value;
    }
    if let Some(size) = section.size(source, "max_bytes", 1 << 20..=1 << 50) {
        settings.max_bytes = size;
    }
    if let Some(count) = section.number(source, "max_messages", 1..=10_000_000) {
        settings.max_messages = to_usize(count.value);
    }
    if let Some(age) = section.duration(source, "max_age", SECOND * 3600..=DAY * 3650) {
        settings.max_age = age;
    }
    let on_full = section.value(source, "on_full", |text| match text {
        "defer" => Ok(OnFull::Defer),
        "drop-oldest" => Ok(OnFull::DropOldest),
        _ => Err("write \"defer\" or \"drop-oldest\"".to_owned()),
    });
    settings.on_full = on_full.map_or(settings.on_full, |written| written.value);
    section.end(source);
    settings
}

fn admin(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    state_dir: &Path,
    folder: &Path,
) -> Admin {
    let mut section = root.section(source, "admin");
    let socket = section.value(source, "socket", |text| absolute(text, folder));
    let console = section.value(source, "console", |text| match text {
        "" => Ok(None),
        text => Endpoint::parse(text).map(Some).map_err(str::to_owned),
    });
    section.end(source);
    let usual = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 10080 };
    Admin {
        socket: socket.map_or_else(|| state_dir.join("admin.sock"), |written| written.value),
        console: console.map_or(Some(usual), |written| written.value),
    }
}

/// Reads a file named in the configuration; its faults join the others under its own name.
fn with_file(source: &mut Source<'_>, path: &Written<PathBuf>, read: impl FnOnce(&mut Source<'_>)) {
    match std::fs::read_to_string(&path.value) {
        Ok(text) => {
            let name = path.value.display().to_string();
            let mut inner = Source::new(&name, &text);
            read(&mut inner);
            source.faults.extend(inner.faults);
        }
        Err(fault) => {
            let what = format!("{} cannot be read: {fault}", path.value.display());
            source.fault(path.at.clone(), what);
        }
    }
}

/// A path; `""` is none.
pub(in crate::config) fn optional_path(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    key: &'static str,
    folder: &Path,
) -> Option<Written<PathBuf>> {
    let written = section.value(source, key, |text| match text {
        "" => Ok(None),
        path => absolute(path, folder).map(Some),
    })?;
    Some(Written { value: written.value?, at: written.at })
}

/// Who may speak to listeners: this host where nothing is written, and never everybody.
pub(in crate::config) fn allow_clients(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    everybody: &str,
) -> Vec<IpNet> {
    let Some(written) = section.list(source, "allow_clients", network) else {
        return loopback().to_vec();
    };
    for network in written.iter().filter(|network| network.value.prefix_len() == 0) {
        source.fault(network.at.clone(), everybody);
    }
    values(Some(written))
}

pub(in crate::config) fn values<T>(written: Option<Vec<Written<T>>>) -> Vec<T> {
    written.unwrap_or_default().into_iter().map(|written| written.value).collect()
}

pub(in crate::config) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
