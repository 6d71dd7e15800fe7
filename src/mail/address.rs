//! Addresses and domains, as compared and as written.
//!
//! Takes: the text of an SMTP path without brackets, or an addr-spec of a header field.
//! Gives: `Domain` (A-labels, lower case), `Address` (keeps the text it was written in),
//! `ReversePath`, `ForwardPath`. Errors: what is no address is `None`; the caller says so.
//! Bounds: `limits::ADDRESS_BYTES_MAX`.
//! Standards: RFC 5321 §4.1.2 and §4.1.3, RFC 5890 §2.3.2.1, RFC 6531 §3.3.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::mail::limits::ADDRESS_BYTES_MAX;

/// A domain name as it is compared and looked up: A-labels, lower case, no final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Domain(String);

impl Domain {
    /// Reads a domain name in U-labels or A-labels, with or without a final dot.
    ///
    /// `None` for an empty name, a label over 63 bytes, a name over 253, or a character outside
    /// letters, digits, hyphen and underscore (real names of hosts and keys have underscores).
    pub fn parse(text: &str) -> Option<Domain> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }
        let name = match text.is_ascii() {
            true => text.to_ascii_lowercase(),
            false => idna::domain_to_ascii(text).ok()?,
        };
        let fits = (1..=253).contains(&name.len()) && name.split('.').all(is_label);
        fits.then_some(Domain(name))
    }

    /// The name: A-labels, lower case, no final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label; `None` for a single label.
    pub fn parent(&self) -> Option<Domain> {
        self.0.split_once('.').map(|(_, rest)| Domain(rest.to_owned()))
    }

    /// How many labels the name has.
    pub fn label_count(&self) -> usize {
        self.0.split('.').count()
    }

    /// Whether this is `ancestor` or lies below it, label by label.
    pub fn is_within(&self, ancestor: &Domain) -> bool {
        self.0 == ancestor.0
            || self.0.strip_suffix(ancestor.0.as_str()).is_some_and(|front| front.ends_with('.'))
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
        let text = String::deserialize(deserializer)?;
        Domain::parse(&text).ok_or_else(|| serde::de::Error::custom("no domain name"))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What stands behind the last `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal with its brackets, lower case: `[192.0.2.1]`, `[ipv6:2001:db8::1]`.
    Literal(String),
    /// What is no host name, lower case; empty where there is none (`joe`). See `Address::odd`.
    Odd(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Host {
    /// As it stands behind the `@`.
    fn as_str(&self) -> &str {
        match self {
            Host::Domain(domain) => domain.as_str(),
            Host::Literal(text) | Host::Odd(text) => text,
        }
    }

    /// A domain, or an address literal in brackets.
    fn parse(text: &str) -> Option<Host> {
        match text.starts_with('[') {
            true => literal(text).map(Host::Literal),
            false => Domain::parse(text).map(Host::Domain),
        }
    }
}

/// A mailbox address. Keeps the text it was written in, because that is what is passed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    text: String,
    local: String,
    host: Host,
}

impl Address {
    /// Reads `local@domain` as SMTP paths and header fields write it, without angle brackets.
    ///
    /// The local part may be quoted or not; more is let through than RFC 5321 §4.1.2 allows
    /// (dots in a row), because such mailboxes exist. A source route (`@a,@b:user@c`, RFC 5321
    /// §4.1.1.3) is kept in the text and ignored. `None` for anything without local part and
    /// domain, or with white space or control characters outside quotes.
    pub fn parse(text: &str) -> Option<Address> {
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }
        let mailbox = without_route(text)?;
        let (local, host) = if mailbox.starts_with('"') {
            let (local, rest) = quoted(mailbox)?;
            (local, rest.strip_prefix('@')?)
        } else {
            let (local, host) = mailbox.rsplit_once('@')?;
            is_dot_string(local).then_some(())?;
            (local.to_owned(), host)
        };
        Some(Address { text: text.to_owned(), local, host: Host::parse(host)? })
    }

    /// Keeps a reverse-path that is no address, for those who take it all the same: `joe`, which
    /// Sendmail and Postfix complete with their own domain, `joe@a..example`, `a!joe`.
    ///
    /// `None` when it could be taken for anything but one word in angle brackets: empty, too long,
    /// with white space, control characters or angle brackets. Such an address has no domain.
    pub fn odd(text: &str) -> Option<Address> {
        let is_part = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>');
        let fits = (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.chars().all(is_part);
        let (local, host) = text.rsplit_once('@').unwrap_or((text, ""));
        fits.then(|| Address {
            text: text.to_owned(),
            local: local.to_owned(),
            host: Host::Odd(host.to_lowercase()),
        })
    }

    /// The address as it was written: quotes, route and letter case kept, no angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part without quotes and escapes, letter case kept.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain; `None` when the address has a literal or nothing of the kind instead.
    pub fn domain(&self) -> Option<&Domain> {
        match &self.host {
            Host::Domain(domain) => Some(domain),
            Host::Literal(_) | Host::Odd(_) => None,
        }
    }

    /// What stands behind the last `@`.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The mailbox as it is compared and counted: the local part without quotes, in lower case,
    /// `@`, the host. Quotes, escapes, routes and letter case make no other mailbox of it.
    ///
    /// Why: RFC 5321 §2.4 lets a host tell `Joe` from `joe`, but none in use does, and the
    /// domain is one and the same owner's.
    pub fn canonical(&self) -> String {
        self.canonical_of(&self.local)
    }

    /// The canonical form without what stands behind a `+` in the local part.
    ///
    /// Why: a mailbox answers under its own name what was sent to a subaddress of it (RFC 5233 §1).
    pub fn canonical_without_detail(&self) -> String {
        let plain = self.local.split_once('+').map_or(self.local.as_str(), |(plain, _)| plain);
        self.canonical_of(if plain.is_empty() { &self.local } else { plain })
    }

    fn canonical_of(&self, local: &str) -> String {
        let mut canonical = local.to_lowercase();
        canonical.extend(["@", self.host.as_str()]);
        canonical
    }

    /// Whether both name one mailbox: their canonical forms are alike.
    pub fn same_mailbox(&self, other: &Address) -> bool {
        self.host == other.host
            && (self.local == other.local || self.canonical() == other.canonical())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        Address::parse(&text).ok_or_else(|| serde::de::Error::custom("no address"))
    }
}

/// The argument of MAIL (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReversePath {
    /// The null reverse-path `<>`: nobody wants to hear of a failure.
    Null,
    /// The mailbox that failures are reported to.
    Address(Address),
}

impl ReversePath {
    /// The address; `None` for the null reverse-path.
    pub fn address(&self) -> Option<&Address> {
        match self {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        }
    }

    /// Whether both name one mailbox, or both are `<>`.
    pub fn same_path(&self, other: &ReversePath) -> bool {
        match (self.address(), other.address()) {
            (Some(one), Some(other)) => one.same_mailbox(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, ReversePath::Null)
    }
}

impl fmt::Display for ReversePath {
    /// Without brackets; the null reverse-path is the empty string.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address().map_or("", Address::as_str))
    }
}

/// The argument of RCPT (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in the letter case it was written in (RFC 5321 §4.5.1).
    Postmaster(String),
    /// A mailbox.
    Address(Address),
}

impl ForwardPath {
    /// The address; `None` for `<postmaster>`.
    pub fn address(&self) -> Option<&Address> {
        match self {
            ForwardPath::Postmaster(_) => None,
            ForwardPath::Address(address) => Some(address),
        }
    }

    /// The domain; `None` for `<postmaster>` and address literals.
    pub fn domain(&self) -> Option<&Domain> {
        self.address().and_then(Address::domain)
    }

    /// The mailbox as it is compared and counted; `postmaster` for `<postmaster>`.
    pub fn canonical(&self) -> String {
        self.address().map_or_else(|| "postmaster".to_owned(), Address::canonical)
    }
}

impl fmt::Display for ForwardPath {
    /// Without brackets, as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardPath::Postmaster(text) => f.write_str(text),
            ForwardPath::Address(address) => f.write_str(address.as_str()),
        }
    }
}

/// `@a,@b:user@c` → `user@c`; what does not begin with `@` unchanged. Every hop must be a host:
/// the route is passed on with the rest.
fn without_route(text: &str) -> Option<&str> {
    if !text.starts_with('@') {
        return Some(text);
    }
    let (route, mailbox) = text.split_once(':')?;
    let is_hop = |hop: &str| hop.strip_prefix('@').and_then(Host::parse).is_some();
    route.split(',').all(is_hop).then_some(mailbox)
}

fn is_dot_string(local: &str) -> bool {
    !local.is_empty()
        && local
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c))
}

/// Reads the quoted string at the start: its content, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some((content, chars.as_str())),
            '\\' => content.push(chars.next().filter(|c| !c.is_control())?),
            c if c.is_control() => return None,
            c => content.push(c),
        }
    }
}

fn literal(host: &str) -> Option<String> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    let fits = !inner.is_empty()
        && inner.bytes().all(|byte| byte.is_ascii_graphic() && !b"[]\\<>".contains(&byte));
    fits.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|| panic!("{text} is an address"))
    }

    #[test]
    fn what_is_written_is_kept_and_what_is_compared_is_normal() {
        for (text, local, domain) in [
            ("joe@Example.ORG.", "joe", "example.org"),
            ("\"a b\"@c.example", "a b", "c.example"),
            ("\"a\\\"@b\"@c.example", "a\"@b", "c.example"),
            ("@hop.example,@two.example:joe@c.example", "joe", "c.example"),
            ("a..b.@docomo.example", "a..b.", "docomo.example"),
            ("jürgen@bücher.example", "jürgen", "xn--bcher-kva.example"),
        ] {
            let address = address(text);
            assert_eq!(address.as_str(), text);
            assert_eq!(address.local(), local);
            assert_eq!(address.domain().unwrap().as_str(), domain);
        }
        assert_eq!(
            address("joe@[IPv6:2001:DB8::1]").host(),
            &Host::Literal("[ipv6:2001:db8::1]".into())
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "joe",
            "@example.org",
            "joe@",
            "a b@c.example",
            "a@b@c.example",
            "joe@a..b",
            "joe@-\u{7f}.example",
            "\"joe@c.example",
            "joe@[]",
            "<joe@c.example>",
            "joe@exa mple",
            "joe\r\n@c.example",
            "joe@[1.2.3.4",
            "@a.example",
            "@hop\r\n.example:joe@c.example",
            "@hop.example,two.example:joe@c.example",
        ] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@c.example", "x".repeat(2000))), None);
    }

    #[test]
    fn what_is_no_address_can_be_kept_when_it_is_one_word() {
        for text in ["joe", "joe@a..example", "a!joe", "joe@", "@", "a@b@c.example", "joe@-"] {
            let odd = Address::odd(text).unwrap_or_else(|| panic!("{text} is one word"));
            assert_eq!((odd.as_str(), odd.domain()), (text, None));
        }
        assert!(Address::odd("Joe@A..B").unwrap().same_mailbox(&Address::odd("joe@a..b").unwrap()));
        for text in ["", "a b", "a\tb", "a\r\nb", "<a>", "a>", "a\u{7f}", "a\u{a0}b"] {
            assert_eq!(Address::odd(text), None, "{text:?}");
        }
        assert_eq!(Address::odd(&"x".repeat(2000)), None);
    }

    #[test]
    fn one_mailbox_whatever_its_letter_case() {
        assert!(address("Joe@EXAMPLE.org").same_mailbox(&address("\"joe\"@example.org")));
        assert!(!address("joe@example.org").same_mailbox(&address("joe@mail.example.org")));
    }

    #[test]
    fn one_canonical_form_for_every_spelling_of_a_mailbox() {
        for text in [
            "joe.b@bank.example",
            "JOE.B@Bank.Example.",
            "\"joe.b\"@bank.example",
            "\"jo\\e.\\B\"@bank.example",
            "@hop.example:joe.b@bank.example",
        ] {
            assert_eq!(address(text).canonical(), "joe.b@bank.example", "{text}");
            assert!(address(text).same_mailbox(&address("joe.b@bank.example")), "{text}");
        }
        assert_eq!(address("JÜRGEN@bücher.example").canonical(), "jürgen@xn--bcher-kva.example");
        assert_eq!(address("Joe@[IPv6:2001:DB8::1]").canonical(), "joe@[ipv6:2001:db8::1]");
        assert_ne!(address("\"a@b\"@c.example").canonical(), address("a@b.c.example").canonical());
        let path = ForwardPath::Postmaster("PostMaster".to_owned());
        assert_eq!(path.canonical(), "postmaster");
        assert_eq!(ForwardPath::Address(address("Joe@c.example")).canonical(), "joe@c.example");
    }

    #[test]
    fn within_goes_label_by_label() {
        let domain = |text| Domain::parse(text).unwrap();
        assert!(domain("a.bank.example").is_within(&domain("bank.example")));
        assert!(domain("bank.example").is_within(&domain("bank.example")));
        assert!(!domain("evilbank.example").is_within(&domain("bank.example")));
        assert!(!domain("bank.example").is_within(&domain("a.bank.example")));
        assert_eq!(domain("a.b.c").parent(), Some(domain("b.c")));
        assert_eq!(domain("c").parent(), None);
    }
}
