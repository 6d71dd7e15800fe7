//! Macros of SPF: a domain-spec, and what becomes of it for one message (RFC 7208 §7).
//!
//! Takes: the text of a domain-spec; then `Values`. Gives: `DomainSpec`; then a name to ask for.
//! Errors: what is wrong with the text. Bounds: `limits::SPF_EXPANDED_BYTES_MAX`.
//! Standards: RFC 7208 §7, §12.

use std::fmt::Write;
use std::net::IpAddr;

use crate::mail::limits::SPF_EXPANDED_BYTES_MAX;

/// A `domain-spec`: text with macros that ends like a domain name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Macro(Macro),
}

/// `%{` letter, transformers, delimiters `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: Letter,
    /// How many parts to keep, from the right; all when not said.
    parts: Option<usize>,
    is_reversed: bool,
    delimiters: String,
    is_escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Sender,
    Local,
    SenderDomain,
    Domain,
    Ip,
    ValidatedName,
    IpVersion,
    Helo,
}

/// What the macros stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The client.
    pub client: IpAddr,
    /// What it called itself.
    pub helo: &'a str,
    /// The sender's local part.
    pub local: &'a str,
    /// The sender's domain.
    pub sender_domain: &'a str,
    /// The domain whose record is evaluated.
    pub domain: &'a str,
    /// The client's own name, when its address leads back to it.
    pub validated_name: Option<&'a str>,
}

impl DomainSpec {
    /// Reads a `domain-spec` (RFC 7208 §12): macro-string, then `"." toplabel` or a macro.
    pub fn parse(text: &str) -> Result<DomainSpec, &'static str> {
        let pieces = pieces(text)?;
        let ends_well = match pieces.last() {
            Some(Piece::Macro(_)) => true,
            Some(Piece::Literal(_)) => ends_like_a_domain(text),
            None => false,
        };
        ends_well.then_some(DomainSpec(pieces)).ok_or("no domain")
    }

    /// Reads a `macro-string`, as unknown modifiers have it.
    pub fn check_macro_string(text: &str) -> Result<(), &'static str> {
        pieces(text).map(|_| ())
    }

    /// Whether the client's own name must be found first.
    pub fn needs_validated_name(&self) -> bool {
        let is_name = |piece: &Piece| {
            matches!(piece, Piece::Macro(Macro { letter: Letter::ValidatedName, .. }))
        };
        self.0.iter().any(is_name)
    }

    /// The name, without a final dot. Over 253 bytes it loses labels from the left (RFC 7208 §7.3).
    pub fn expand(&self, values: &Values<'_>) -> Result<String, &'static str> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => name.push_str(text),
                Piece::Macro(of) => name.push_str(&of.expand(values)),
            }
            if name.len() > SPF_EXPANDED_BYTES_MAX {
                return Err("a name far too long");
            }
        }
        let mut name = name.strip_suffix('.').unwrap_or(&name);
        while name.len() > 253 {
            name = name.split_once('.').map_or("", |(_, rest)| rest);
        }
        Ok(name.to_owned())
    }
}

impl Macro {
    /// Reads what stands between the braces.
    fn parse(text: &str) -> Option<Macro> {
        let mut chars = text.chars();
        let first = chars.next()?;
        let letter = match first.to_ascii_lowercase() {
            's' => Letter::Sender,
            'l' => Letter::Local,
            'o' => Letter::SenderDomain,
            'd' => Letter::Domain,
            'i' => Letter::Ip,
            'p' => Letter::ValidatedName,
            'v' => Letter::IpVersion,
            'h' => Letter::Helo,
            // c, r and t are for explanations only (RFC 7208 §7.2).
            _ => return None,
        };
        let rest = chars.as_str();
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = rest.strip_suffix(after).unwrap_or_default();
        let parts = match digits {
            "" => None,
            // RFC 7208 §7.1: "The DIGIT transformer … MUST be nonzero"; no name has more parts
            // than a number can say.
            digits => Some(digits.parse().unwrap_or(usize::MAX)).filter(|parts| *parts > 0),
        };
        if parts.is_none() && !digits.is_empty() {
            return None;
        }
        let delimiters = after.strip_prefix(['r', 'R']).unwrap_or(after);
        let right = delimiters.chars().all(|c| ".-+,/_=".contains(c));
        right.then(|| Macro {
            letter,
            parts,
            is_reversed: after.len() > delimiters.len(),
            delimiters: if delimiters.is_empty() { "." } else { delimiters }.to_owned(),
            is_escaped: first.is_ascii_uppercase(),
        })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.letter.value(values);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.is_reversed {
            parts.reverse();
        }
        let kept = self.parts.unwrap_or(parts.len()).min(parts.len());
        let text = parts.split_off(parts.len() - kept).join(".");
        if self.is_escaped { escaped(&text) } else { text }
    }
}

impl Letter {
    fn value(self, values: &Values<'_>) -> String {
        match self {
            Letter::Sender => format!("{}@{}", values.local, values.sender_domain),
            Letter::Local => values.local.to_owned(),
            Letter::SenderDomain => values.sender_domain.to_owned(),
            Letter::Domain => values.domain.to_owned(),
            Letter::Ip => dotted(values.client),
            Letter::ValidatedName => values.validated_name.unwrap_or("unknown").to_owned(),
            Letter::IpVersion if values.client.is_ipv4() => "in-addr".to_owned(),
            Letter::IpVersion => "ip6".to_owned(),
            Letter::Helo => values.helo.to_owned(),
        }
    }
}

/// An IPv4 address as usual, an IPv6 address as 32 digits with dots between (RFC 7208 §7.3).
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let digits: Vec<String> = ip
                .octets()
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 15])
                .map(|digit| format!("{digit:x}"))
                .collect();
            digits.join(".")
        }
    }
}

/// The name of an address in the reverse tree (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(ip: IpAddr) -> String {
    let dotted = dotted(ip);
    let reversed: Vec<&str> = dotted.split('.').rev().collect();
    let tree = if ip.is_ipv4() { "in-addr" } else { "ip6" };
    format!("{}.{tree}.arpa", reversed.join("."))
}

/// Percent signs for all but the unreserved characters (RFC 7208 §7.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Cuts a macro-string into its pieces.
fn pieces(text: &str) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = rest.strip_prefix(next).unwrap_or_default();
        if !next.is_ascii_graphic() {
            return Err("a character that is not visible ASCII");
        }
        if next != '%' {
            literal.push(next);
            continue;
        }
        let sign = rest.chars().next().ok_or("a lone %")?;
        rest = rest.strip_prefix(sign).unwrap_or_default();
        match sign {
            '%' => literal.push('%'),
            '_' => literal.push(' '),
            '-' => literal.push_str("%20"),
            '{' => {
                let (inner, behind) = rest.split_once('}').ok_or("no closing brace")?;
                rest = behind;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Macro(Macro::parse(inner).ok_or("no such macro")?));
            }
            _ => return Err("a lone %"),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// `"." toplabel [ "." ]` at the end, or `%%`, `%_`, `%-`, which are macros too (RFC 7208 §12).
fn ends_like_a_domain(text: &str) -> bool {
    if ["%%", "%_", "%-"].iter().any(|end| text.ends_with(end)) {
        return true;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, label)) = text.rsplit_once('.') else { return false };
    label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().any(|byte| !byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(client: &str) -> Values<'static> {
        Values {
            client: client.parse().unwrap(),
            helo: "mail.example.net",
            local: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            validated_name: Some("mx.example.org"),
        }
    }

    #[test]
    fn the_examples_of_rfc_7208_expand() {
        for (spec, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{h}", "mail.example.net"),
            ("%{p2}", "example.org"),
            ("%{S}.x", "strong-bad%40email.example.com.x"),
            ("a%%b%_c%-d.example", "a%b c%20d.example"),
            ("%{d99999999999999999999}", "email.example.com"),
        ] {
            let read = DomainSpec::parse(spec).unwrap_or_else(|what| panic!("{spec}: {what}"));
            assert_eq!(read.expand(&values("192.0.2.3")).as_deref(), Ok(expected), "{spec}");
        }
        let spec = DomainSpec::parse("%{ir}.%{v}._spf.%{d2}").unwrap();
        assert_eq!(
            spec.expand(&values("2001:db8::cb01")).unwrap(),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
        assert_eq!(reverse_name("192.0.2.3".parse().unwrap()), "3.2.0.192.in-addr.arpa");
    }

    #[test]
    fn what_is_no_domain_spec_is_refused() {
        for spec in [
            "",
            "com",
            "a.",
            ".",
            "a.1",
            "a.-b",
            "a.b-",
            "a.b/24",
            "%{d",
            "%{}",
            "%{x}.a",
            "%{d0}",
            "%{c}.a",
            "%{d-r}",
            "%{d2r!}",
            "%a.b",
            "a.b%",
            "a b.c",
            "a.b\u{e9}",
            "%{d}a",
        ] {
            assert!(DomainSpec::parse(spec).is_err(), "{spec:?}");
        }
    }

    #[test]
    fn a_name_too_long_loses_labels_from_the_left() {
        let spec = DomainSpec::parse(&format!("{}.%{{d}}", "x".repeat(240))).unwrap();
        assert_eq!(spec.expand(&values("192.0.2.3")).unwrap(), "email.example.com");
        let spec = DomainSpec::parse(&"%{s}".repeat(2000)).unwrap();
        assert_eq!(spec.expand(&values("192.0.2.3")), Err("a name far too long"));
    }

    proptest! {
        #[test]
        fn what_is_read_expands_to_a_name_of_bounded_length(text in "[a-b%{}ds0-2r./+-]{0,24}") {
            if let Ok(spec) = DomainSpec::parse(&text) {
                let name = spec.expand(&values("2001:db8::1")).unwrap();
                prop_assert!(name.len() <= 253);
            }
        }
    }
}
