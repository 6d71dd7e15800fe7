//! Alignment: whether one domain may speak for another. One function, used everywhere.
//!
//! Takes: two domains, what DNS says of them, and the mode the recipient's record asks for.
//! Gives: `Aligned`. Pure: the organizational domains come with the evidence.
//! Standards: RFC 9989 §4.4 and §4.10; the Public Suffix List with its private part.

use std::collections::BTreeMap;

use crate::judge::evidence::{Alignment, AuthResult, DkimFinding, DomainFacts};
use crate::mail::address::Domain;

/// How a domain stands to the recipient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aligned {
    /// The same domain.
    Same,
    /// Same organizational domain, one above the other.
    InLine,
    /// Same organizational domain, neither above the other: proves no more than the organization.
    Sibling,
    /// Not the same organization, or not near enough for the record's mode.
    No,
    /// The organizational domain of one of them could not be found out.
    NotKnown,
}

/// How `other` stands to `domain`, the recipient's, under the mode that `domain` asks for.
///
/// Relaxed: same organizational domain by the DMARC tree walk, and no public suffix between them
/// (`a.github.io` and `github.io` have different owners, whatever is published).
pub fn aligned(
    domain: &Domain,
    other: &Domain,
    facts: &BTreeMap<Domain, DomainFacts>,
    mode: Alignment,
) -> Aligned {
    if domain == other {
        return Aligned::Same;
    }
    if mode == Alignment::Strict || !shares_registrable(domain, other) {
        return Aligned::No;
    }
    let organizational = |of: &Domain| {
        facts.get(of).and_then(|facts| facts.dmarc.as_ref().ok()).map(|dmarc| &dmarc.organizational)
    };
    match (organizational(domain), organizational(other)) {
        (Some(mine), Some(theirs)) if mine != theirs => Aligned::No,
        (Some(_), Some(_)) if domain.is_within(other) || other.is_within(domain) => Aligned::InLine,
        (Some(_), Some(_)) => Aligned::Sibling,
        _ => Aligned::NotKnown,
    }
}

/// Whether both have the same registrable domain by the Public Suffix List, private part included:
/// then no public suffix lies between them. Needs no DNS, so it says whom to ask about.
pub fn shares_registrable(domain: &Domain, other: &Domain) -> bool {
    match (psl::domain_str(domain.as_str()), psl::domain_str(other.as_str())) {
        (Some(mine), Some(theirs)) => mine == theirs,
        _ => false,
    }
}

/// Whether they are one, or have the same registrable domain: what one of them does, the other's
/// owner answers for. Less than alignment, and needs no DNS.
pub fn is_near(domain: &Domain, other: &Domain) -> bool {
    domain == other || shares_registrable(domain, other)
}

/// Whether a signature passed whose domain is near this one: then DMARC of it need not rest on SPF.
pub fn is_signed_near(dkim: &[DkimFinding], domain: &Domain) -> bool {
    let passed = dkim.iter().filter(|dkim| dkim.result == AuthResult::Pass);
    passed.filter_map(|dkim| dkim.domain.as_ref()).any(|by| is_near(by, domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::evidence::{DmarcFacts, Gap, GapCause, Receives};

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn facts(organizational: &[(&str, &str)]) -> BTreeMap<Domain, DomainFacts> {
        let fact = |(of, organizational): &(&str, &str)| {
            let dmarc = match *organizational {
                "?" => Err(Gap::new(GapCause::Dns, "silent")),
                name => Ok(DmarcFacts { organizational: domain(name), record: None, above: None }),
            };
            (domain(of), DomainFacts { dmarc, receives: Ok(Receives::Yes) })
        };
        organizational.iter().map(fact).collect()
    }

    #[test]
    fn alignment_is_same_organization_and_no_public_suffix_between() {
        let known = facts(&[
            ("bank.example", "bank.example"),
            ("mail.bank.example", "bank.example"),
            ("news.bank.example", "bank.example"),
            ("own.bank.example", "own.bank.example"),
            ("silent.bank.example", "?"),
            ("shop.example", "shop.example"),
            ("joe.github.io", "github.io"),
            ("ann.github.io", "github.io"),
            ("github.io", "github.io"),
        ]);
        for (mine, theirs, expected) in [
            ("bank.example", "bank.example", Aligned::Same),
            ("bank.example", "mail.bank.example", Aligned::InLine),
            ("mail.bank.example", "bank.example", Aligned::InLine),
            ("mail.bank.example", "news.bank.example", Aligned::Sibling),
            ("bank.example", "own.bank.example", Aligned::No),
            ("bank.example", "shop.example", Aligned::No),
            ("bank.example", "silent.bank.example", Aligned::NotKnown),
            ("bank.example", "never.asked.bank.example", Aligned::NotKnown),
            ("joe.github.io", "ann.github.io", Aligned::No),
            ("joe.github.io", "github.io", Aligned::No),
        ] {
            let found = aligned(&domain(mine), &domain(theirs), &known, Alignment::Relaxed);
            assert_eq!(found, expected, "{theirs} for {mine}");
        }
        assert!(is_near(&domain("localhost"), &domain("localhost")));
        assert!(is_near(&domain("mail.bank.example"), &domain("news.bank.example")));
        assert!(!is_near(&domain("ann.github.io"), &domain("joe.github.io")));
        let strict =
            |theirs| aligned(&domain("bank.example"), &domain(theirs), &known, Alignment::Strict);
        assert_eq!(strict("bank.example"), Aligned::Same);
        assert_eq!(strict("mail.bank.example"), Aligned::No);
    }
}
