//! The allow list and the deny list: whom the administrator knows better than DNS does.
//!
//! Takes: entries, checked by `config`. Gives: the entry that stands for an address, the most
//! specific first: address, domain, `.domain` (the domain and all below it, nearest first).

use std::collections::HashMap;
use std::fmt;

use crate::mail::address::{Address, Domain};
use crate::mail::time::Timestamp;

/// Whom an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// One mailbox; the local part in lower case.
    Address {
        /// Unquoted, lower case.
        local: String,
        /// The domain.
        domain: Domain,
    },
    /// Every mailbox of this domain, of none below it.
    Domain(Domain),
    /// Every mailbox of this domain and of all below it; written `.domain`.
    Below(Domain),
}

impl Pattern {
    /// Reads an address, a domain or `.domain`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Pattern> {
        if text.contains('@') {
            let address = Address::parse(text)?;
            let domain = address.domain()?.clone();
            return Some(Pattern::Address { local: address.local().to_ascii_lowercase(), domain });
        }
        match text.strip_prefix('.') {
            Some(domain) => Domain::parse(domain).map(Pattern::Below),
            None => Domain::parse(text).map(Pattern::Domain),
        }
    }

    /// Whether the address is meant.
    pub fn matches(&self, address: &Address) -> bool {
        let Some(found) = address.domain() else { return false };
        match self {
            Pattern::Address { local, domain } => {
                domain == found && address.local().eq_ignore_ascii_case(local)
            }
            Pattern::Domain(domain) => domain == found,
            Pattern::Below(domain) => found.is_within(domain),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Address { local, domain } => write!(f, "{local}@{domain}"),
            Pattern::Domain(domain) => write!(f, "{domain}"),
            Pattern::Below(domain) => write!(f, ".{domain}"),
        }
    }
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub pattern: Pattern,
    /// From when on it does not count; `None`: it counts until it is taken out.
    pub expires: Option<Timestamp>,
    /// Why it stands there.
    pub reason: String,
    /// Who put it there.
    pub author: String,
    /// Allow list only: helps even when the verdict is *failed*. Must expire.
    pub forged: bool,
    /// Where it is written, for people: `allow.list:12`.
    pub written_at: String,
}

/// One list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    entries: HashMap<Pattern, Vec<Entry>>,
}

impl List {
    /// A list of these entries.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> List {
        let mut list = List::default();
        for entry in entries {
            list.entries.entry(entry.pattern.clone()).or_default().push(entry);
        }
        list
    }

    /// The entry that stands for this address at this moment, the most specific first.
    pub fn entry_for(&self, address: &Address, now: Timestamp) -> Option<&Entry> {
        let domain = address.domain()?;
        let local = address.local().to_ascii_lowercase();
        self.standing(&Pattern::Address { local, domain: domain.clone() }, now)
            .or_else(|| self.standing(&Pattern::Domain(domain.clone()), now))
            .or_else(|| {
                let mut ancestors = std::iter::successors(Some(domain.clone()), Domain::parent);
                ancestors.find_map(|above| self.standing(&Pattern::Below(above), now))
            })
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flatten()
    }

    /// Of several entries for one pattern, one that helps against forgery comes first.
    fn standing(&self, pattern: &Pattern, now: Timestamp) -> Option<&Entry> {
        let standing = |entry: &&Entry| entry.expires.is_none_or(|expires| now < expires);
        let entries = self.entries.get(pattern)?.iter().filter(standing);
        entries.max_by_key(|entry| entry.forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pattern: &str, expires: Option<i64>) -> Entry {
        Entry {
            pattern: Pattern::parse(pattern).unwrap(),
            expires: expires.map(Timestamp::from_millis),
            reason: pattern.to_owned(),
            author: String::new(),
            forged: false,
            written_at: String::new(),
        }
    }

    #[test]
    fn the_most_specific_entry_that_has_not_expired_stands() {
        let list = List::new([
            entry("joe@a.bank.example", Some(100)),
            entry("a.bank.example", Some(200)),
            entry(".bank.example", None),
            entry(".example", None),
        ]);
        let found = |text: &str, now: i64| {
            let address = Address::parse(text).unwrap();
            list.entry_for(&address, Timestamp::from_millis(now)).map(|entry| entry.reason.as_str())
        };
        assert_eq!(found("Joe@A.bank.example", 99), Some("joe@a.bank.example"));
        assert_eq!(found("Joe@A.bank.example", 100), Some("a.bank.example"));
        assert_eq!(found("ann@a.bank.example", 200), Some(".bank.example"));
        assert_eq!(found("ann@b.a.bank.example", 0), Some(".bank.example"));
        assert_eq!(found("ann@bank.example", 0), Some(".bank.example"));
        assert_eq!(found("ann@evilbank.example", 0), Some(".example"));
        assert_eq!(found("ann@bank.test", 0), None);
    }

    #[test]
    fn patterns_are_addresses_domains_and_what_lies_below() {
        for text in ["joe@bank.example", "bank.example", ".bank.example"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", ".", "@bank.example", "a b", "*.example"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
        let joe = Address::parse("joe@mail.bank.example").unwrap();
        assert!(Pattern::parse(".bank.example").unwrap().matches(&joe));
        assert!(!Pattern::parse("bank.example").unwrap().matches(&joe));
    }
}
