//! Who claims to have written a message, and the tricks with From that make readers and
//! verifiers see different authors.
//!
//! Takes: the raw fields. Gives: `Author`. Errors: none; what is odd is an `AuthorSign`.
//! Bounds: `limits::AUTHORS_MAX`. Standards: RFC 5322 §3.6.2, RFC 6854 §2 (groups), RFC 9989
//! §4.4 (a message with such a From cannot be aligned).

use mail_parser::parsers::MessageStream;
use mail_parser::{Address as ParsedAddress, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::mail::address::Address;
use crate::mail::limits::AUTHORS_MAX;
use crate::mail::raw::RawField;

/// What From says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The mailboxes of all From fields, in order; what is no address is left out.
    pub mailboxes: Vec<Address>,
    /// What is odd; `None` when there is one field with mailboxes of one domain.
    pub sign: Option<AuthorSign>,
}

/// What is odd about From. No such message authenticates its author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorSign {
    /// There is no From field.
    Missing,
    /// A field is called `Fr om` or the like: some readers take it for From, others do not.
    Disguised,
    /// There are several From fields.
    Repeated,
    /// From holds no address.
    Empty,
    /// From holds a group (RFC 6854).
    Group,
    /// From holds what is no address beside others, or too many.
    Unreadable,
    /// The mailboxes have different domains.
    Domains,
}

impl AuthorSign {
    /// The stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorSign::Missing => "from-missing",
            AuthorSign::Disguised => "from-disguised",
            AuthorSign::Repeated => "from-repeated",
            AuthorSign::Empty => "from-empty",
            AuthorSign::Group => "from-group",
            AuthorSign::Unreadable => "from-unreadable",
            AuthorSign::Domains => "from-domains",
        }
    }
}

impl Author {
    /// Reads all From fields.
    pub fn of(fields: &[RawField<'_>]) -> Author {
        let from: Vec<&RawField<'_>> = fields.iter().filter(|field| field.is("From")).collect();
        let is_disguised = fields.iter().any(|field| !field.is("From") && looks_like_from(field));
        let mut mailboxes = Vec::new();
        let mut signs = Vec::new();
        for field in &from {
            signs.extend(read(field, &mut mailboxes));
        }
        let mut domains = mailboxes.iter().map(Address::host);
        let first = domains.next();
        let sign = match from.len() {
            _ if is_disguised => Some(AuthorSign::Disguised),
            0 => Some(AuthorSign::Missing),
            1 => signs.first().copied(),
            _ => Some(AuthorSign::Repeated),
        };
        let differ = domains.any(|domain| Some(domain) != first);
        Author { mailboxes, sign: sign.or(differ.then_some(AuthorSign::Domains)) }
    }
}

/// Reads one field; gives what is odd about it.
fn read(field: &RawField<'_>, mailboxes: &mut Vec<Address>) -> Option<AuthorSign> {
    let unfolded: Vec<u8> =
        field.value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let line = [unfolded.trim_ascii(), b"\n"].concat();
    let list = match MessageStream::new(&line).parse_address() {
        HeaderValue::Address(ParsedAddress::List(list)) => list,
        HeaderValue::Address(ParsedAddress::Group(_)) => return Some(AuthorSign::Group),
        _ => return Some(AuthorSign::Empty),
    };
    if list.is_empty() {
        return Some(AuthorSign::Empty);
    }
    for parsed in list.iter().take(AUTHORS_MAX) {
        let address = parsed.address.as_deref().unwrap_or_default();
        match Address::parse(address.trim()) {
            Some(address) => mailboxes.push(address),
            None if list.len() == 1 => return Some(AuthorSign::Empty),
            None => return Some(AuthorSign::Unreadable),
        }
    }
    (list.len() > AUTHORS_MAX).then_some(AuthorSign::Unreadable)
}

/// Whether a name is `from` but for white space, control characters or bytes no name has.
fn looks_like_from(field: &RawField<'_>) -> bool {
    let visible = field.name.iter().copied().filter(u8::is_ascii_graphic);
    visible.map(|byte| byte.to_ascii_lowercase()).eq(*b"from")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(fields: &[(&str, &str)]) -> (Vec<String>, Option<&'static str>) {
        let fields: Vec<RawField<'_>> = fields
            .iter()
            .map(|(name, value)| RawField { name: name.as_bytes(), value: value.as_bytes() })
            .collect();
        let author = Author::of(&fields);
        let mailboxes = author.mailboxes.iter().map(ToString::to_string).collect();
        (mailboxes, author.sign.map(AuthorSign::as_str))
    }

    #[test]
    fn one_author_or_several_of_one_domain_are_plain() {
        let joe = " Joe =?utf-8?q?D=C3=B6?= <joe@a.example>\r\n";
        assert_eq!(author(&[("From", joe)]), (vec!["joe@a.example".to_owned()], None));
        assert_eq!(author(&[("FROM ", " joe@a.example\n")]).1, None);
        let two = " joe@a.example,\r\n \"Ann, B.\" <ann@A.example>\r\n";
        let expected = vec!["joe@a.example".to_owned(), "ann@A.example".to_owned()];
        assert_eq!(author(&[("To", " x@b.example"), ("From", two)]), (expected, None));
    }

    #[test]
    fn tricks_with_from_are_named() {
        for (fields, sign) in [
            (&[("To", " joe@a.example")][..], "from-missing"),
            (&[("Fr om", " joe@a.example"), ("From", " ann@b.example")], "from-disguised"),
            (&[(" From", " joe@a.example"), ("From", " ann@b.example")], "from-disguised"),
            (&[("From\u{a0}", " joe@a.example"), ("From", " ann@b.example")], "from-disguised"),
            (&[("From", " joe@a.example"), ("from", " joe@a.example")], "from-repeated"),
            (&[("From", " \r\n")], "from-empty"),
            (&[("From", " Joe\r\n")], "from-empty"),
            (&[("From", " <>\r\n")], "from-empty"),
            (&[("From", " us: joe@a.example, ann@a.example;\r\n")], "from-group"),
            (&[("From", " joe@a.example, ann\r\n")], "from-unreadable"),
            (&[("From", " joe@a.example, ann@b.example\r\n")], "from-domains"),
            (&[("From", " joe@a.example, ann@sub.a.example\r\n")], "from-domains"),
        ] {
            assert_eq!(author(fields).1, Some(sign), "{fields:?}");
        }
        let many = " joe@a.example,".repeat(AUTHORS_MAX + 1);
        assert_eq!(author(&[("From", &many)]).1, Some("from-unreadable"));
    }
}
