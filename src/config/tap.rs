//! `[tap]`: who may tell us of inbound mail, and what is made of it.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::file::{Section, Source, Written};
use crate::config::sections::{allow_clients, to_usize, values};
use crate::config::tls::{self, Least, Wanted};
use crate::config::words::{absolute, network};
use crate::mail::address::Domain;
use crate::mail::limits::TAP_SESSIONS_MAX;
use crate::mail::limits_of_clients::PASS_CLIENT_SESSIONS_MAX;
use crate::relay::hop::Hop;
use crate::tls::server::Identity;
use crate::wire::endpoint::{Endpoint, Listen};
use crate::wire::proxy::Tells;
use crate::wire::secure::{Starttls, TlsUse};

/// The taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// How long inbound mail may wait for a verdict.
    pub wait: Duration,
    /// Bytes of one message that are kept for DKIM.
    pub inspect_max: usize,
    /// Bytes of messages that are kept at once.
    pub memory_max: usize,
    /// The field in which our spam filter writes its score.
    pub spam_field: Option<String>,
    /// Who may speak to the taps.
    pub allow_clients: Vec<IpNet>,
    /// Where the milter tap listens.
    pub milter: Vec<Endpoint>,
    /// Where other programs post what they know.
    pub http: Vec<Endpoint>,
    /// The token they must show.
    pub http_token: Option<String>,
    /// Where the SMTP pass-through tap listens.
    pub smtp: Vec<Listen>,
    /// What TLS it offers in the clear.
    pub smtp_starttls: Starttls,
    /// The MTAs behind it, tried in order.
    pub smtp_next_hops: Vec<Hop>,
    /// How they are told who the client is.
    pub smtp_tells: Tells,
    /// Sessions of one of its clients at once.
    pub smtp_client_sessions_max: usize,
    /// Whose Authentication-Results the milter tap writes; `None`: it writes none.
    pub authserv_id: Option<String>,
}

impl Tap {
    /// Whether anybody can tell us of inbound mail.
    pub fn is_on(&self) -> bool {
        !(self.milter.is_empty() && self.smtp.is_empty() && self.http.is_empty())
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Reads it; beside it the networks of gateways, with their places.
pub fn tap(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    identity: Option<&Identity>,
) -> (Tap, Vec<Written<IpNet>>) {
    let mut section = root.section(source, "tap");
    let relays = section.list(source, "trusted_relays", network).unwrap_or_default();
    let wait = section.duration(source, "wait", Duration::ZERO..=SECOND * 60);
    let inspect_max = section.size(source, "inspect_max", 64 << 10..=1 << 30);
    let memory_max = section.size(source, "memory_max", 1 << 20..=1 << 40);
    let spam_field = section.value(source, "spam_field", field_name);
    let everybody = "anybody could make us believe anything: name your MTAs' networks";
    let allow_clients = allow_clients(&mut section, source, everybody);
    let mut inner = section.section(source, "milter");
    let milter = inner.list(source, "listen", |text| Ok(Endpoint::parse(text)?));
    let authserv_id = inner.value(source, "authserv_id", |text| match text {
        "" => Ok(None),
        text => match Domain::parse(text) {
            Some(name) => Ok(Some(name.to_string())),
            None => Err("write a host name, such as \"mx.example.org\"".to_owned()),
        },
    });
    inner.end(source);
    let pass = smtp(&mut section, source, folder, identity);
    let (http, http_token) = http(&mut section, source, folder);
    section.end(source);
    let bytes = |size: Option<u64>, default| to_usize(size.unwrap_or(default));
    let tap = Tap {
        wait: wait.unwrap_or(SECOND * 2),
        inspect_max: bytes(inspect_max, 25 << 20),
        memory_max: bytes(memory_max, 128 << 20),
        spam_field: spam_field.and_then(|written| written.value),
        allow_clients,
        milter: values(milter),
        http,
        http_token,
        smtp: pass.listen,
        smtp_starttls: pass.starttls,
        smtp_next_hops: pass.next_hops,
        smtp_tells: pass.tells,
        smtp_client_sessions_max: pass.client_sessions_max,
        authserv_id: authserv_id.and_then(|written| written.value),
    };
    (tap, relays)
}

fn http(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
) -> (Vec<Endpoint>, Option<String>) {
    let mut inner = section.section(source, "http");
    let listen = inner.list(source, "listen", |text| Ok(Endpoint::parse(text)?));
    let token = inner.value(source, "token_file", |path| {
        if path.is_empty() {
            return Ok(None);
        }
        let path = absolute(path, folder)?;
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|fault| format!("{}: {fault}", path.display()))?;
        match text.trim() {
            token if token.len() >= 16 => Ok(Some(token.to_owned())),
            _ => Err("the token must have 16 characters at least".to_owned()),
        }
    });
    inner.end(source);
    let token = token.and_then(|written| written.value);
    let listen = listen.unwrap_or_default();
    for endpoint in listen.iter().filter(|endpoint| token.is_none() && !endpoint.value.is_near()) {
        let what = "whoever reaches this can make us believe anything: set `tap.http.token_file`, \
                    or listen at 127.0.0.1";
        source.fault(endpoint.at.clone(), what);
    }
    (values(Some(listen)), token)
}

/// `[tap.smtp]`.
struct Pass {
    listen: Vec<Listen>,
    starttls: Starttls,
    next_hops: Vec<Hop>,
    tells: Tells,
    client_sessions_max: usize,
}

fn smtp(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    identity: Option<&Identity>,
) -> Pass {
    let mut inner = section.section(source, "smtp");
    let at = inner.at.clone();
    let listen = tls::listeners(&mut inner, source, identity, Least::None).unwrap_or_default();
    let starttls = tls::starttls(&mut inner, source, identity);
    let next_hops = pass_next_hops(&mut inner, source, folder);
    let tells = inner.value(source, "client", |text| {
        let found = Tells::NAMES.iter().find(|(name, _)| *name == text).map(|(_, tells)| *tells);
        found.ok_or("write \"xclient\", \"proxy\", \"proxy-v2\" or \"none\"".to_owned())
    });
    let of_one = inner.number(source, "client_sessions_max", 1..=TAP_SESSIONS_MAX as u64);
    inner.end(source);
    if !listen.is_empty() && next_hops.is_empty() {
        source.fault(at, "`tap.smtp.next_hop` is missing: name the MTA behind");
    }
    for hop in &next_hops {
        tls::must_be_another(source, hop, &listen);
    }
    let next_hops = values(Some(next_hops));
    let tells = tells.map(|written| written.value).unwrap_or_default();
    let of_one = of_one.map(|written| to_usize(written.value));
    let client_sessions_max = of_one.unwrap_or(PASS_CLIENT_SESSIONS_MAX);
    Pass { listen, starttls, next_hops, tells, client_sessions_max }
}

/// Why TLS is off where nothing is written: the MTA behind is on the same host most often, and is
/// told the client's address before anything else.
fn pass_next_hops(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
) -> Vec<Written<Hop>> {
    let mut table = section.section(source, "next_hop_tls");
    let usual = Wanted::usual(TlsUse::Off).over(&mut table, source, folder);
    table.end(source);
    let written = tls::next_hops(section, source, folder, &usual, Least::None).unwrap_or_default();
    for hop in written.iter().filter(|hop| hop.value.at.lmtp) {
        source
            .fault(hop.at.clone(), "the SMTP tap passes SMTP through: name an MTA that speaks it");
    }
    written
}

fn field_name(text: &str) -> Result<Option<String>, String> {
    let is_name = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    match (text, is_name) {
        ("", _) => Ok(None),
        (_, true) => Ok(Some(text.to_owned())),
        (_, false) => Err("write the name of a header field, such as \"X-Spam-Score\"".to_owned()),
    }
}
