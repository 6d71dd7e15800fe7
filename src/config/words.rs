//! Single values of the configuration: text in, a value or a remedy out.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::audit::sinks::{JOURNAL, SinkSettings, SyslogTo};
use crate::config::{Sandbox, values};
use crate::judge::decision::VerdictKind;
use crate::judge::lists::Pattern;
use crate::judge::loops::conversation::Rate;
use crate::judge::policy::{ClassPattern, Mode, RuleAction};
use crate::judge::subject::SpamScore;
use crate::mail::address::Domain;
use crate::mail::limits::{RATE_COUNT_MAX, RATE_SPAN_MAX};
use crate::wire::endpoint::Endpoint;

/// `127.0.0.0/8` and `::1`.
pub fn loopback() -> [IpNet; 2] {
    let v4 = std::net::Ipv4Addr::LOCALHOST;
    let v6 = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    let v4 = ipnet::Ipv4Net::new(v4, 8).map(|network| network.trunc());
    [v4.map_or(IpNet::from(v6), IpNet::from), IpNet::from(v6)]
}

/// `observe` or `enforce`.
pub fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "observe" => Ok(Mode::Observe),
        "enforce" => Ok(Mode::Enforce),
        _ => Err("write \"observe\" or \"enforce\"".to_owned()),
    }
}

/// Whether the process gives up what it does not need.
pub fn sandbox(text: &str) -> Result<Sandbox, String> {
    match text {
        "best-effort" => Ok(Sandbox::BestEffort),
        "require" => Ok(Sandbox::Require),
        "off" => Ok(Sandbox::Off),
        _ => Err("write \"best-effort\", \"require\" or \"off\"".to_owned()),
    }
}

/// A host name.
pub fn host_name(text: &str) -> Result<String, String> {
    let name = Domain::parse(text).ok_or("this is no host name")?;
    Ok(name.as_str().to_owned())
}

/// A path, relative to the configuration's folder.
pub fn absolute(text: &str, folder: &Path) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("a path cannot be empty".to_owned()),
        false => Ok(folder.join(text)),
    }
}

/// An IP address or a network without bits behind its prefix.
pub fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| "write an IP address or a network, such as \"192.0.2.0/24\"".to_owned())?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(format!("bits are set behind the prefix: write \"{}\"", network.trunc())),
    }
}

/// An EHLO keyword, in upper case.
pub fn keyword(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if text.is_empty() || text.len() > 60 || !text.bytes().all(plain) {
        return Err("an EHLO keyword is letters, digits and hyphens".to_owned());
    }
    let keyword = text.to_ascii_uppercase();
    match HOP_BY_HOP.contains(&keyword.as_str()) {
        true => Err(format!("{keyword} holds for one connection and cannot be passed on")),
        false => Ok(keyword),
    }
}

/// EHLO keywords that say what the server itself does with a connection.
const HOP_BY_HOP: &[&str] = &[
    "ATRN",
    "AUTH",
    "BINARYMIME",
    "BURL",
    "CHECKPOINT",
    "CHUNKING",
    "ENHANCEDSTATUSCODES",
    "ETRN",
    "PIPELINING",
    "STARTTLS",
    "TURN",
    "XCLIENT",
    "XFORWARD",
];

/// An address, a domain or `.domain`.
pub fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).ok_or("write an address, a domain, or .domain for all below it".to_owned())
}

/// A class that is judged.
pub fn class(text: &str) -> Result<ClassPattern, String> {
    ClassPattern::parse(text).ok_or_else(|| {
        "write a class that is judged: auto-reply, challenge, mdn, dsn, dsn.failed, dsn.delayed, \
         dsn.delivered, dsn.relayed, dsn.expanded, dmarc-report, feedback-report"
            .to_owned()
    })
}

/// One of the five verdicts.
pub fn verdict(text: &str) -> Result<VerdictKind, String> {
    VerdictKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        "write authenticated, failed, unauthenticated, unresolved or unknown".to_owned()
    })
}

/// What a rule does.
pub fn action(text: &str) -> Result<RuleAction, String> {
    match text {
        "deliver" => Ok(RuleAction::Deliver),
        "limit" => Ok(RuleAction::Limit),
        "suppress" => Ok(RuleAction::Suppress),
        "quarantine" => Ok(RuleAction::Quarantine),
        "reject" => Ok(RuleAction::Reject),
        "discard" => Ok(RuleAction::Discard),
        "defer" => Ok(RuleAction::Defer),
        _ => Err("write deliver, limit, suppress, quarantine, reject, discard or defer".to_owned()),
    }
}

/// Points of a spam filter; nothing for an empty text.
pub fn points(text: &str) -> Result<Option<SpamScore>, String> {
    match text {
        "" => Ok(None),
        text => match SpamScore::parse(text) {
            Some(score) => Ok(Some(score)),
            None => Err("write a number of points, such as \"6\" or \"5.5\"".to_owned()),
        },
    }
}

/// A number and a time, `4/1h`; at most `RATE_COUNT_MAX` in at most `RATE_SPAN_MAX`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let parts = text.split_once('/');
    let rate = parts.and_then(|(count, span)| {
        Some(Rate { count: count.parse().ok()?, span: values::duration(span).ok()? })
    });
    let rate = rate.ok_or("write a number and a time, such as \"4/1h\"")?;
    match (1..=RATE_COUNT_MAX).contains(&rate.count) && rate.span <= RATE_SPAN_MAX {
        true => Ok(rate),
        false => Err(format!("at least 1 and at most {RATE_COUNT_MAX}, in at most 7 days")),
    }
}

/// Where records go beside the file.
pub fn sink(text: &str, hostname: &str) -> Result<SinkSettings, String> {
    let hostname = hostname.to_owned();
    let syslog = |to| Ok(SinkSettings::Syslog { to, hostname: hostname.clone(), facility: 2 });
    let place = |place: &str| Endpoint::parse(place).map(|found| found.to_string());
    match text.split_once(':') {
        None if text == "journald" => Ok(SinkSettings::Journal(PathBuf::from(JOURNAL))),
        Some(("journald", path)) if path.starts_with('/') => {
            Ok(SinkSettings::Journal(PathBuf::from(path)))
        }
        Some(("syslog", path)) if path.starts_with('/') => {
            syslog(SyslogTo::Unix(PathBuf::from(path)))
        }
        Some(("syslog-udp", to)) => syslog(SyslogTo::Udp(place(to)?)),
        Some(("syslog-tcp", to)) => syslog(SyslogTo::Tcp(place(to)?)),
        _ => Err("write \"journald\", \"syslog:/dev/log\", \"syslog-udp:host:514\" or \
                  \"syslog-tcp:host:601\""
            .to_owned()),
    }
}
