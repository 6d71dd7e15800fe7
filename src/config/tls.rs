//! `[tls]`, and how next hops are spoken to: certificates, trust, names and passwords.
//!
//! Takes: keys, and the files they name. Gives: `Identity`, `Hop`s. Errors: faults with line and
//! remedy; what stands in a file of passwords is never shown.
//! Bounds: `limits_of_tls::PEM_BYTES_MAX`, `limits_of_tls::SECRETS_BYTES_MAX`.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::ServerName;

use crate::config::file::{Section, Source, Written};
use crate::config::sections::{optional_path, values};
use crate::mail::limits_of_tls::{CERTIFICATE_ENDS_SOON, PEM_BYTES_MAX, SECRETS_BYTES_MAX};
use crate::mail::time::Timestamp;
use crate::relay::hop::{Hop, HopTls};
use crate::tls::Validity;
use crate::tls::client::{Connector, Fingerprint, Trust};
use crate::tls::server::{File, Identity};
use crate::wire::endpoint::{Endpoint, Listen, NextHop};
use crate::wire::opening::Login;
use crate::wire::secure::{Starttls, TlsUse};

/// `[tls]`: what listeners show, and what an administrator should know of it.
pub fn identity(
    root: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    now: Timestamp,
) -> (Option<Identity>, Vec<String>) {
    let mut section = root.section(source, "tls");
    let certificate = optional_path(&mut section, source, "certificate_file", folder);
    let key = optional_path(&mut section, source, "key_file", folder);
    section.end(source);
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return (None, Vec::new()),
        (Some(one), None) => {
            source.fault(one.at, "`tls.key_file` is missing: name the key of this certificate");
            return (None, Vec::new());
        }
        (None, Some(one)) => {
            let what = "`tls.certificate_file` is missing: name the certificate of this key";
            source.fault(one.at, what);
            return (None, Vec::new());
        }
    };
    if let Some(what) = readable_by_others(&key.value) {
        source.fault(key.at.clone(), what);
    }
    let pem = file(source, &certificate, PEM_BYTES_MAX);
    let (Some(pem), Some(key_pem)) = (pem, file(source, &key, PEM_BYTES_MAX)) else {
        return (None, Vec::new());
    };
    match Identity::read(&pem, &key_pem) {
        Ok(identity) => {
            let warnings = ending(&certificate.value, identity.validity, now);
            (Some(identity), warnings.into_iter().collect())
        }
        Err((which, fault)) => {
            let at = if which == File::Certificate { certificate } else { key };
            source.fault(at.at, format!("{}: {fault}", at.value.display()));
            (None, Vec::new())
        }
    }
}

/// What is wrong with the dates of a certificate.
fn ending(path: &Path, validity: Validity, now: Timestamp) -> Option<String> {
    let path = path.display();
    match validity {
        Validity { until: Some(until), .. } if until < now => Some(format!(
            "{path}: the certificate ended at {until}: clients that look at it turn away; renew it \
             and send SIGHUP"
        )),
        Validity { from: Some(from), .. } if from > now => {
            Some(format!("{path}: the certificate begins at {from}: until then clients turn away"))
        }
        Validity { until: Some(until), .. } if until < now.plus(CERTIFICATE_ENDS_SOON) => {
            Some(format!("{path}: the certificate ends at {until}: renew it and send SIGHUP"))
        }
        _ => None,
    }
}

/// What a listener offers in the clear: `off`, `offer`, `require`.
pub fn starttls(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    identity: Option<&Identity>,
) -> Starttls {
    let wanted = section.value(source, "starttls", |text| match text {
        "off" => Ok(Starttls::Off),
        "offer" => Ok(Starttls::Offered),
        "require" => Ok(Starttls::Required),
        _ => Err("write \"off\", \"offer\" or \"require\"".to_owned()),
    });
    match (wanted, identity) {
        (Some(written), None) if written.value == Starttls::Required => {
            source.fault(written.at, NO_CERTIFICATE);
            Starttls::Off
        }
        (_, None) => Starttls::Off,
        (wanted, Some(_)) => wanted.map_or(Starttls::Offered, |written| written.value),
    }
}

/// Where listeners of mail are; `tls:` needs a certificate.
pub fn listeners(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    identity: Option<&Identity>,
    least: Least,
) -> Option<Vec<Listen>> {
    let parse = |text: &str| Ok(Listen::parse(text)?);
    let listen = match least {
        Least::One => section.some(source, "listen", parse),
        Least::None => section.list(source, "listen", parse),
    };
    for listen in listen.iter().flatten().filter(|listen| listen.value.tls && identity.is_none()) {
        source.fault(listen.at.clone(), NO_CERTIFICATE);
    }
    listen.map(|written| values(Some(written)))
}

/// What is missing where TLS is to be spoken to clients.
const NO_CERTIFICATE: &str =
    "there is no certificate for TLS: set `tls.certificate_file` and `tls.key_file`";

/// How a next hop is to be spoken to, as it is written.
#[derive(Clone, Debug)]
pub struct Wanted {
    mode: TlsUse,
    is_verified: bool,
    authorities: Option<Written<PathBuf>>,
    pins: Vec<Written<Fingerprint>>,
}

impl Wanted {
    /// What is wanted where nothing is written.
    pub fn usual(mode: TlsUse) -> Wanted {
        Wanted { mode, is_verified: true, authorities: None, pins: Vec::new() }
    }

    /// Reads the keys of a table over what holds where they are not written.
    ///
    /// Why all three of them are replaced together: a table that names fingerprints does not mean
    /// the authorities that are usual elsewhere.
    pub fn over(self, section: &mut Section<'_>, source: &mut Source<'_>, folder: &Path) -> Wanted {
        let mode = section.value(source, "mode", |text| match text {
            "off" => Ok(TlsUse::Off),
            "opportunistic" => Ok(TlsUse::Opportunistic),
            "require" => Ok(TlsUse::Required),
            _ => Err("write \"off\", \"opportunistic\" or \"require\"".to_owned()),
        });
        let verify = section.value(source, "verify", |text| match text {
            "system" => Ok(true),
            "none" => Ok(false),
            _ => Err("write \"system\" or \"none\"; or set `ca_file` or `fingerprints`".to_owned()),
        });
        let authorities = optional_path(section, source, "ca_file", folder);
        let pins = section.list(source, "fingerprints", |text| {
            Fingerprint::parse(text)
                .ok_or("write the SHA-256 of the certificate, 64 hexadecimal digits".to_owned())
        });
        let pins = pins.unwrap_or_default();
        let mode = mode.map_or(self.mode, |written| written.value);
        if verify.is_none() && authorities.is_none() && pins.is_empty() {
            return Wanted { mode, ..self };
        }
        let is_verified = verify.as_ref().is_none_or(|written| written.value);
        if let Some(none) = verify.filter(|_| !is_verified)
            && (authorities.is_some() || !pins.is_empty())
        {
            source.fault(none.at, "`verify = \"none\"` contradicts `ca_file` and `fingerprints`");
        }
        if let (Some(authorities), false) = (&authorities, pins.is_empty()) {
            let what = "`ca_file` and `fingerprints` say two things: take one of them out";
            source.fault(authorities.at.clone(), what);
        }
        Wanted { mode, is_verified, authorities, pins }
    }

    /// The next hop; `name` is what its certificate must have.
    pub fn hop(
        &self,
        source: &mut Source<'_>,
        next_hop: Written<NextHop>,
        name: Option<Written<ServerName<'static>>>,
    ) -> Hop {
        let Written { value: at, at: place } = next_hop;
        let mode = if at.tls { TlsUse::Required } else { self.mode };
        let looks = self.authorities.is_some() || !self.pins.is_empty();
        if mode != TlsUse::Required && looks {
            source.fault(
                place.clone(),
                "a certificate is looked at only with `mode = \"require\"`: what fails would go on in \
                 the clear",
            );
        }
        if mode == TlsUse::Off {
            return Hop::clear(at);
        }
        let trust = match mode {
            TlsUse::Required => self.trust(source),
            _ => Some(Trust::Anyone),
        };
        let needs_name = matches!(trust, Some(Trust::System | Trust::Authorities(_)));
        let name = name.map(|written| written.value).or_else(|| name_of(&at.endpoint));
        let name = match name {
            None if needs_name => {
                let what =
                    "which name must its certificate have? Write { to = \"…\", name = \"…\" }";
                source.fault(place.clone(), what);
                None
            }
            name => name.or_else(|| ServerName::try_from("localhost").ok()),
        };
        let connector = match trust.map(Connector::new) {
            Some(Ok(connector)) => Some(Arc::new(connector)),
            Some(Err(fault)) => {
                source.fault(place, fault.to_string());
                None
            }
            None => None,
        };
        let both = connector.zip(name);
        let is_required = mode == TlsUse::Required;
        let tls = both.map(|(connector, name)| HopTls { is_required, connector, name });
        Hop { tls, ..Hop::clear(at) }
    }

    fn trust(&self, source: &mut Source<'_>) -> Option<Trust> {
        if !self.pins.is_empty() {
            return Some(Trust::Pinned(self.pins.iter().map(|pin| pin.value).collect()));
        }
        let Some(path) = &self.authorities else {
            return Some(if self.is_verified { Trust::System } else { Trust::Anyone });
        };
        let pem = file(source, path, PEM_BYTES_MAX)?;
        match Trust::authorities(&pem) {
            Ok(trust) => Some(trust),
            Err(fault) => {
                source.fault(path.at.clone(), format!("{}: {fault}", path.value.display()));
                None
            }
        }
    }
}

/// How many there must be when a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// It may be empty.
    None,
    /// One.
    One,
}

/// The next hops of a list: each a string, or a table with a name and keys of its own.
pub fn next_hops(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    usual: &Wanted,
    least: Least,
) -> Option<Vec<Written<Hop>>> {
    let before = source.faults.len();
    let items = section.mixed(source, "next_hop")?;
    let parsed = |source: &mut Source<'_>, text: &Written<String>| {
        section.item(source, "next_hop", text, |text| Ok(NextHop::parse(text)?))
    };
    let mut hops = Vec::new();
    for item in items {
        match item {
            Ok(text) => {
                if let Some(next_hop) = parsed(source, &text) {
                    hops.push(Written { value: usual.hop(source, next_hop, None), at: text.at });
                }
            }
            Err(mut table) => {
                let at = table.at.clone();
                let to = table.value(source, "to", |text| Ok(text.to_owned()));
                let name = table.value(source, "name", |text| {
                    let name = ServerName::try_from(text.to_owned());
                    name.map_err(|_| "write a host name or an IP address".to_owned())
                });
                let wanted = usual.clone().over(&mut table, source, folder);
                table.end(source);
                let Some(to) = to else {
                    source.fault(at, "a next hop needs `to = \"host:port\"`");
                    continue;
                };
                if let Some(next_hop) = parsed(source, &to) {
                    hops.push(Written { value: wanted.hop(source, next_hop, name), at });
                }
            }
        }
    }
    if least == Least::One {
        section.needs_one(source, "next_hop", &hops, before);
    }
    Some(hops)
}

/// A next hop must not be one of our listeners.
pub fn must_be_another(source: &mut Source<'_>, hop: &Written<Hop>, listen: &[Listen]) {
    if listen.iter().any(|listen| listen.endpoint == hop.value.at.endpoint) {
        source.fault(hop.at.clone(), "the next hop is our own listener: mail would go round");
    }
}

/// `outbound.auth_file` and `outbound.auth_in_clear`: gives the next hops their logins.
pub fn logins(
    section: &mut Section<'_>,
    source: &mut Source<'_>,
    folder: &Path,
    hops: &mut [Hop],
) -> Vec<String> {
    let path = optional_path(section, source, "auth_file", folder);
    let in_clear = section.boolean(source, "auth_in_clear").is_some_and(|written| written.value);
    let Some(path) = path else { return Vec::new() };
    if let Some(what) = readable_by_others(&path.value) {
        source.fault(path.at.clone(), what);
    }
    let Some(bytes) = file(source, &path, SECRETS_BYTES_MAX) else { return Vec::new() };
    let mut warnings = Vec::new();
    for (to, login) in secrets(source, &path, &bytes) {
        let is_for_all = to == "*";
        let meant = hops.iter_mut().filter(|hop| is_for_all || hop.at.to_string() == to);
        let meant: Vec<&mut Hop> = meant.collect();
        if meant.is_empty() {
            let what = "a line of it names no next hop: write it as in `outbound.next_hop`, or *";
            source.fault(path.at.clone(), format!("{}: {what}", path.value.display()));
        }
        for hop in meant.into_iter().filter(|hop| !is_for_all || hop.login.is_none()) {
            hop.login = Some(login.clone());
            hop.login_in_clear = in_clear || hop.at.endpoint.is_near();
            if !hop.login_in_clear && hop.tls_use() != TlsUse::Required {
                source.fault(path.at.clone(), format!(
                    "{} would get the password without TLS, or whoever answers in its place: set \
                     `mode = \"require\"` in `[outbound.next_hop_tls]`, or `outbound.auth_in_clear`",
                    hop.at
                ));
            }
            if hop.tls.as_ref().is_some_and(|tls| tls.is_required && !tls.connector.verifies()) {
                warnings.push(format!(
                    "{}: its certificate is not looked at (`verify`): whoever answers gets the password",
                    hop.at
                ));
            }
        }
    }
    warnings
}

/// `NEXT_HOP USER PASSWORD`, a line each. Why a fault shows the number of the line and not the line.
fn secrets(source: &mut Source<'_>, path: &Written<PathBuf>, bytes: &[u8]) -> Vec<(String, Login)> {
    let name = path.value.display();
    let Ok(text) = std::str::from_utf8(bytes) else {
        source.fault(path.at.clone(), format!("{name}: this is no UTF-8"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.splitn(3, [' ', '\t']);
        let (to, user, password) = (words.next(), words.next(), words.next());
        let login = user.zip(password).and_then(|(user, password)| Login::new(user, password));
        match to.zip(login) {
            Some((to, login)) => found.push((to.to_owned(), login)),
            None => source.fault(
                path.at.clone(),
                format!("{name}, line {number}: write NEXT_HOP USER PASSWORD"),
            ),
        }
    }
    // Why: a line for one next hop comes before that for all.
    found.sort_by_key(|(to, _)| to == "*");
    if found.is_empty() {
        source.fault(path.at.clone(), format!("{name} names nobody: take `auth_file` out"));
    }
    found
}

fn name_of(endpoint: &Endpoint) -> Option<ServerName<'static>> {
    match endpoint {
        Endpoint::Tcp { host, .. } => ServerName::try_from(host.clone()).ok(),
        Endpoint::Unix(_) => None,
    }
}

/// Why a file with secrets in it must not be as it is.
fn readable_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode();
    let shown = path.display();
    (mode & 0o007 != 0)
        .then(|| format!("{shown}: every user of this host can read or write it: chmod o= {shown}"))
}

fn file(source: &mut Source<'_>, path: &Written<PathBuf>, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path.value)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    let what = match read {
        Ok(_) if bytes.len() as u64 > bytes_max => format!("has more than {bytes_max} bytes"),
        Ok(_) => return Some(bytes),
        Err(fault) => format!("cannot be read: {fault}"),
    };
    source.fault(path.at.clone(), format!("{} {what}", path.value.display()));
    None
}
