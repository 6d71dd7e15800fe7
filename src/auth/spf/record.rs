//! An SPF record, as values. Any fault anywhere in it is a fault of the whole (RFC 7208 §4.6).
//!
//! Takes: the text of a TXT record that begins with `v=spf1`. Gives: `SpfRecord`.
//! Errors: `Fault` (permanent; the domain's owner acts): the record is worth a permerror.
//! Bounds: `limits::SPF_RECORD_BYTES_MAX`.
//! Standards: RFC 7208 §4.5, §4.6, §5, §6, §12.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::auth::spf::expand::DomainSpec;
use crate::judge::evidence::AuthResult;
use crate::mail::limits::SPF_RECORD_BYTES_MAX;

/// A record without faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfRecord {
    /// The directives, in order.
    pub directives: Vec<Directive>,
    /// redirect= (RFC 7208 §6.1).
    pub redirect: Option<DomainSpec>,
}

/// A qualifier and a mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What a match means: pass, fail, softfail or neutral (RFC 7208 §4.6.2).
    pub result: AuthResult,
    /// What is matched.
    pub mechanism: Mechanism,
    /// The directive as written.
    pub text: String,
}

/// What a directive matches (RFC 7208 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `all`: everybody.
    All,
    /// `include:`: whom another record passes.
    Include(DomainSpec),
    /// `a`: the addresses of a name; of the domain itself when none is said.
    A(Option<DomainSpec>, Cidr),
    /// `mx`: the addresses of its mail servers.
    Mx(Option<DomainSpec>, Cidr),
    /// `ptr`: whose own name lies within a domain.
    Ptr(Option<DomainSpec>),
    /// `ip4:` and `ip6:`.
    Ip(IpNet),
    /// `exists:`: everybody for whom a name exists.
    Exists(DomainSpec),
}

/// The prefix lengths of `a` and `mx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Up to 32.
    pub v4: u8,
    /// Up to 128.
    pub v6: u8,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} in {term:?}")]
pub struct Fault {
    /// The term.
    pub term: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Whether a TXT record is an SPF record: `v=spf1` alone or before a space (RFC 7208 §4.5).
pub fn is_spf(text: &[u8]) -> bool {
    let (version, rest) = text.split_at(text.len().min(6));
    version.eq_ignore_ascii_case(b"v=spf1") && matches!(rest.first(), None | Some(b' '))
}

impl SpfRecord {
    /// Reads a record for which `is_spf` holds.
    pub fn parse(text: &[u8]) -> Result<SpfRecord, Fault> {
        let fault = |what| Fault { term: "v=spf1".to_owned(), what };
        if text.len() > SPF_RECORD_BYTES_MAX {
            return Err(fault("too long a record"));
        }
        // RFC 7208 §3.1: "composed of US-ASCII characters".
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| fault("a byte that is not ASCII"))?;
        let mut record = SpfRecord { directives: Vec::new(), redirect: None };
        let mut has_explanation = false;
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            let fault = |what| Fault { term: term.to_owned(), what };
            match modifier(term) {
                None => record.directives.push(directive(term).map_err(fault)?),
                Some((name, value)) if name.eq_ignore_ascii_case("redirect") => {
                    let target = DomainSpec::parse(value).map_err(fault)?;
                    if record.redirect.replace(target).is_some() {
                        return Err(fault("a second redirect"));
                    }
                }
                Some((name, value)) if name.eq_ignore_ascii_case("exp") => {
                    DomainSpec::parse(value).map_err(fault)?;
                    if std::mem::replace(&mut has_explanation, true) {
                        return Err(fault("a second exp"));
                    }
                }
                Some((_, value)) => DomainSpec::check_macro_string(value).map_err(fault)?,
            }
        }
        Ok(record)
    }
}

/// `name "=" …` (RFC 7208 §12); `None` for anything else, which must be a directive then.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let mut bytes = name.bytes();
    let right = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    right.then_some((name, value))
}

/// `[ qualifier ] mechanism` (RFC 7208 §4.6.1).
fn directive(term: &str) -> Result<Directive, &'static str> {
    let (result, rest) = match term.split_at_checked(1) {
        Some(("+", rest)) => (AuthResult::Pass, rest),
        Some(("-", rest)) => (AuthResult::Fail, rest),
        Some(("~", rest)) => (AuthResult::SoftFail, rest),
        Some(("?", rest)) => (AuthResult::Neutral, rest),
        _ => (AuthResult::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, argument) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let mechanism = match (name.to_ascii_lowercase().as_str(), argument) {
        ("all", "") => Mechanism::All,
        ("include", _) => Mechanism::Include(required(argument)?),
        ("a", _) => {
            let (argument, cidr) = without_cidr(argument)?;
            Mechanism::A(optional(argument)?, cidr)
        }
        ("mx", _) => {
            let (argument, cidr) = without_cidr(argument)?;
            Mechanism::Mx(optional(argument)?, cidr)
        }
        ("ptr", _) => Mechanism::Ptr(optional(argument)?),
        ("ip4", _) => Mechanism::Ip(ip4(argument).ok_or("no IPv4 network")?),
        ("ip6", _) => Mechanism::Ip(ip6(argument).ok_or("no IPv6 network")?),
        ("exists", _) => Mechanism::Exists(required(argument)?),
        _ => return Err("no such mechanism"),
    };
    Ok(Directive { result, mechanism, text: term.to_owned() })
}

/// `":" domain-spec`.
fn required(argument: &str) -> Result<DomainSpec, &'static str> {
    DomainSpec::parse(argument.strip_prefix(':').ok_or("no domain")?)
}

/// `[ ":" domain-spec ]`.
fn optional(argument: &str) -> Result<Option<DomainSpec>, &'static str> {
    match argument {
        "" => Ok(None),
        _ => required(argument).map(Some),
    }
}

/// Takes `dual-cidr-length` off the end: `[ "/" v4 ] [ "//" v6 ]` (RFC 7208 §12).
fn without_cidr(argument: &str) -> Result<(&str, Cidr), &'static str> {
    const WRONG: &str = "no prefix length";
    let (argument, v6) = match number_behind(argument, "//") {
        Some((rest, digits)) => (rest, prefix_length(digits, 128).ok_or(WRONG)?),
        None => (argument, 128),
    };
    let (argument, v4) = match number_behind(argument, "/") {
        Some((rest, digits)) => (rest, prefix_length(digits, 32).ok_or(WRONG)?),
        None => (argument, 32),
    };
    Ok((argument, Cidr { v4, v6 }))
}

/// `text mark 1*DIGIT` → text and digits.
fn number_behind<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let (rest, digits) = text.rsplit_once(mark)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((rest, digits))
}

/// A prefix length without leading zeros.
fn prefix_length(digits: &str, max: u8) -> Option<u8> {
    let leads_with_zero = digits.len() > 1 && digits.starts_with('0');
    digits.parse().ok().filter(|length| *length <= max && !leads_with_zero)
}

fn ip4(argument: &str) -> Option<IpNet> {
    let (address, length) = network(argument.strip_prefix(':')?, 32)?;
    Some(IpNet::V4(Ipv4Net::new(address.parse().ok()?, length).ok()?))
}

fn ip6(argument: &str) -> Option<IpNet> {
    let (address, length) = network(argument.strip_prefix(':')?, 128)?;
    Some(IpNet::V6(Ipv6Net::new(address.parse().ok()?, length).ok()?))
}

fn network(text: &str, max: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        None => Some((text, max)),
        Some((address, digits)) => {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            Some((address, prefix_length(digits, max).filter(|_| is_number)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_told_from_other_texts() {
        for (text, expected) in [
            ("v=spf1", true),
            ("V=SpF1 -all", true),
            ("v=spf1  ", true),
            ("v=spf10", false),
            ("v=spf1-all", false),
            (" v=spf1 -all", false),
            ("spf", false),
            ("", false),
        ] {
            assert_eq!(is_spf(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn terms_are_read() {
        let record = SpfRecord::parse(
            b"v=spf1 A  mx:m.example/24//64 ?ptr ~ip4:192.0.2.0/24 +ip6:2001:db8::/32 a//0 \
              redirect=r.example exp=%{d}.e.example x-y.z_1=%{s} -aLL ",
        );
        let record = record.unwrap();
        let domain = |text| DomainSpec::parse(text).unwrap();
        let narrow = Cidr { v4: 32, v6: 128 };
        let read: Vec<(AuthResult, Mechanism)> = record
            .directives
            .into_iter()
            .map(|directive| (directive.result, directive.mechanism))
            .collect();
        assert_eq!(
            read,
            [
                (AuthResult::Pass, Mechanism::A(None, narrow)),
                (
                    AuthResult::Pass,
                    Mechanism::Mx(Some(domain("m.example")), Cidr { v4: 24, v6: 64 })
                ),
                (AuthResult::Neutral, Mechanism::Ptr(None)),
                (AuthResult::SoftFail, Mechanism::Ip("192.0.2.0/24".parse().unwrap())),
                (AuthResult::Pass, Mechanism::Ip("2001:db8::/32".parse().unwrap())),
                (AuthResult::Pass, Mechanism::A(None, Cidr { v4: 32, v6: 0 })),
                (AuthResult::Fail, Mechanism::All),
            ]
        );
        assert_eq!(record.redirect, Some(domain("r.example")));
    }

    #[test]
    fn one_fault_is_a_fault_of_the_whole() {
        for term in [
            "all.",
            "all:a.example",
            "all/8",
            "-",
            "+",
            "++all",
            "foo",
            "ipv4:192.0.2.1",
            "ip4",
            "ip4:",
            "ip4:192.0.2",
            "ip4:192.0.2.1/33",
            "ip4:192.0.2.1/",
            "ip4:192.0.2.1/024",
            "ip4:192.0.2.1//32",
            "ip4:192.0.2.1/+8",
            "ip6:192.0.2.1",
            "ip6:2001:db8::1/129",
            "ip6:fe80::1%1",
            "a:",
            "a/33",
            "a//129",
            "a/24//",
            "a/08",
            "a:a.example/-1",
            "mx/abc",
            "ptr/24",
            "include",
            "include:",
            "include:com",
            "include:a.example/24",
            "exists",
            "exists:a.example//64",
            "redirect=",
            "redirect=com",
            "redirect:a.example",
            "exp=",
            "=x",
            "1a=b",
            "x=%",
            "x=%{z}",
            "a.example",
            "redirect=a.example redirect=b.example",
            "exp=a.example exp=a.example",
            "a\tmx",
        ] {
            let text = format!("v=spf1 {term} +all");
            assert!(SpfRecord::parse(text.as_bytes()).is_err(), "{term:?}");
        }
        assert!(SpfRecord::parse(b"v=spf1 a:\xefa.example +all").is_err());
        let long = format!("v=spf1 {}", "a ".repeat(SPF_RECORD_BYTES_MAX / 2));
        assert!(SpfRecord::parse(long.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_a_fault(text in vec(any::<u8>(), 0..80)) {
            let _ = SpfRecord::parse(&text);
            let _ = SpfRecord::parse(&[b"v=spf1 ".to_vec(), text].concat());
        }
    }
}
