//! DMARC: the record that applies to a domain, and its organizational domain, by the DNS tree walk.
//!
//! Takes: a domain. Gives: `Walk`, then `DmarcFacts`. Errors: a `Gap` where a level that could
//! change the outcome gave no answer. Bounds: `limits::DMARC_WALK_QUESTIONS_MAX`.
//! Standards: RFC 9989 §4.7, §4.8 (records), §4.10 (tree walk), §4.10.1 (which record applies),
//! §4.10.2 (organizational domain).
//!
//! Why not mail-auth's walk: there an error at any level, the TLD's included, makes the whole
//! result temperror; it takes the first of two records, and refuses a record for a tag that
//! RFC 9989 §4.8 tells to ignore.

use tokio::time::Instant;

use crate::auth::dns::{Answer, Dns, Kind, Question};
use crate::judge::evidence::{
    Alignment, DmarcFacts, DmarcPolicy, DmarcRecord, Gap, GapCause, Known,
};
use crate::mail::address::{Address, Domain};
use crate::mail::limits::DMARC_WALK_QUESTIONS_MAX;

/// What the tree walk found, from the domain upwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    domain: Domain,
    found: Vec<(Domain, Published)>,
    above: Option<Gap>,
}

/// A DMARC policy record as published (RFC 9989 §4.7); tags we have no use for left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    policy: Option<Policies>,
    dkim_alignment: Alignment,
    spf_alignment: Alignment,
    suffix: Suffix,
}

/// p=, sp= and np= with t= applied. For a record that asks for nothing usable there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policies {
    domain: DmarcPolicy,
    subdomain: DmarcPolicy,
    missing_subdomain: DmarcPolicy,
}

/// psd= (RFC 9989 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Public,
    Organizational,
    Unsaid,
}

/// Walks the tree (RFC 9989 §4.10). All levels are asked at once: there are at most eight, and
/// a slow one above must not use up the time of the one that counts.
pub async fn walk(dns: &Dns, domain: &Domain, deadline: Instant) -> Known<Walk> {
    let ask = |level: Domain| {
        let pending = dns.begin(Question::new(Kind::Txt, &format!("_dmarc.{level}")));
        (level, pending)
    };
    let asked: Vec<_> = levels(domain).into_iter().map(ask).collect();
    let mut walk = Walk { domain: domain.clone(), found: Vec::new(), above: None };
    for (level, pending) in asked {
        match pending.answer(deadline).await {
            Ok(answer) => {
                let Some(record) = only_record(&answer) else { continue };
                let stops = record.suffix != Suffix::Unsaid;
                walk.found.push((level, record));
                if stops {
                    break;
                }
            }
            // Why: what a public suffix publishes can't be the organizational domain of a name
            // below it, and hardly any suffix publishes: a resolver that refuses to speak of
            // `com` must not make every domain unknown. It is said, though.
            Err(trouble) if level != *domain && is_public_suffix(&level) => {
                let gap = || Gap::new(GapCause::Dns, &trouble.to_string());
                walk.above.get_or_insert_with(gap);
            }
            Err(trouble) => return Err(Gap::new(GapCause::Dns, &trouble.to_string())),
        }
    }
    Ok(walk)
}

impl Walk {
    /// Whether it matters if the domain exists: where sp= and np= differ (RFC 9989 §4.7).
    pub fn depends_on_existence(&self) -> bool {
        let applicable = self.applicable().filter(|(name, _)| *name != self.domain);
        let policies = applicable.and_then(|(_, record)| record.policy);
        policies.is_some_and(|policies| policies.subdomain != policies.missing_subdomain)
    }

    /// The facts; `exists` says whether the domain exists, and matters only where
    /// `depends_on_existence`.
    pub fn facts(&self, exists: bool) -> DmarcFacts {
        let record = self.applicable().and_then(|(name, record)| {
            let policies = record.policy?;
            let policy = match exists {
                _ if *name == self.domain => policies.domain,
                true => policies.subdomain,
                false => policies.missing_subdomain,
            };
            Some(DmarcRecord {
                published_at: name.clone(),
                policy,
                dkim_alignment: record.dkim_alignment,
                spf_alignment: record.spf_alignment,
            })
        });
        DmarcFacts { organizational: self.organizational(), record, above: self.above.clone() }
    }

    /// RFC 9989 §4.10.2: psd=n; one below psd=y; the fewest labels; otherwise the domain itself.
    fn organizational(&self) -> Domain {
        for (name, record) in &self.found {
            match record.suffix {
                Suffix::Organizational => return name.clone(),
                // Where the walk started nothing is below: the domain itself.
                Suffix::Public => return shortened(&self.domain, name.label_count() + 1),
                Suffix::Unsaid => {}
            }
        }
        self.found.last().map_or_else(|| self.domain.clone(), |(name, _)| name.clone())
    }

    /// RFC 9989 §4.10.1: the domain's own record, its organizational domain's, its suffix's.
    fn applicable(&self) -> Option<&(Domain, Published)> {
        let organizational = self.organizational();
        let at = |wanted: &Domain| self.found.iter().find(|(name, _)| name == wanted);
        let of_suffix = || self.found.iter().find(|(_, found)| found.suffix == Suffix::Public);
        at(&self.domain).or_else(|| at(&organizational)).or_else(of_suffix)
    }
}

/// The names that are asked, RFC 9989 §4.10 steps 1 to 7: the domain, then its ancestors; of a
/// domain with eight labels or more only those with seven or fewer.
fn levels(domain: &Domain) -> Vec<Domain> {
    let labels_max = DMARC_WALK_QUESTIONS_MAX - 1;
    let first = (domain.label_count() > labels_max).then(|| shortened(domain, labels_max));
    let first = first.or_else(|| domain.parent());
    let above = std::iter::successors(first, Domain::parent);
    std::iter::once(domain.clone()).chain(above).take(DMARC_WALK_QUESTIONS_MAX).collect()
}

/// The last `labels` labels.
fn shortened(domain: &Domain, labels: usize) -> Domain {
    let mut ancestors = std::iter::successors(Some(domain.clone()), Domain::parent);
    ancestors.find(|name| name.label_count() <= labels).unwrap_or_else(|| domain.clone())
}

fn is_public_suffix(domain: &Domain) -> bool {
    let name = domain.as_str().as_bytes();
    psl::suffix(name).is_some_and(|suffix| suffix.as_bytes() == name)
}

/// The one DMARC record of an answer; several are none (RFC 9989 §4.10 steps 2 and 6).
fn only_record(answer: &Answer) -> Option<Published> {
    let mut records = answer.texts().filter_map(Published::parse);
    records.next().filter(|_| records.next().is_none())
}

impl Published {
    /// Reads a record; `None` when `v=DMARC1` does not come first (RFC 9989 §4.7). Unknown tags
    /// are ignored, those with errors have their default (RFC 9989 §4.8). Of a tag that stands
    /// there twice the first counts.
    pub fn parse(text: &[u8]) -> Option<Published> {
        let text = String::from_utf8_lossy(text);
        let mut tags = text.split(';').map(|tag| {
            let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
            (name.trim_matches(WSP), value.trim_matches(WSP))
        });
        let is_version = |(name, value): (&str, &str)| {
            name.eq_ignore_ascii_case("v") && value == "DMARC1" && !text.starts_with(WSP)
        };
        if !tags.next().is_some_and(is_version) {
            return None;
        }
        let tags: Vec<(&str, &str)> = tags.collect();
        let value = |wanted: &str| {
            let tag = tags.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            tag.map(|(_, value)| *value)
        };
        let suffix = match value("psd") {
            Some("y" | "Y") => Suffix::Public,
            Some("n" | "N") => Suffix::Organizational,
            _ => Suffix::Unsaid,
        };
        Some(Published {
            policy: Policies::of(&value),
            dkim_alignment: alignment(value("adkim")),
            spf_alignment: alignment(value("aspf")),
            suffix,
        })
    }
}

impl Policies {
    /// RFC 9989 §4.10.1: a p= that is missing or wrong, or a wrong sp= or np=, means p=none where
    /// reports are asked for, and otherwise nothing.
    fn of<'a>(value: &impl Fn(&str) -> Option<&'a str>) -> Option<Policies> {
        let none = Policies {
            domain: DmarcPolicy::None,
            subdomain: DmarcPolicy::None,
            missing_subdomain: DmarcPolicy::None,
        };
        let reported = value("rua").is_some_and(|uris| uris.split(',').any(is_report_uri));
        let broken = reported.then_some(none);
        let tag = |name| value(name).map(policy);
        let Some(Some(domain)) = tag("p") else { return broken };
        let subdomain = tag("sp").unwrap_or(Some(domain));
        let missing = tag("np").unwrap_or(subdomain);
        let (Some(subdomain), Some(missing)) = (subdomain, missing) else { return broken };
        let applied = match value("t") {
            Some("y" | "Y") => one_below,
            _ => |policy| policy,
        };
        Some(Policies {
            domain: applied(domain),
            subdomain: applied(subdomain),
            missing_subdomain: applied(missing),
        })
    }
}

const WSP: [char; 2] = [' ', '\t'];

fn policy(value: &str) -> Option<DmarcPolicy> {
    match value.to_ascii_lowercase().as_str() {
        "none" => Some(DmarcPolicy::None),
        "quarantine" => Some(DmarcPolicy::Quarantine),
        "reject" => Some(DmarcPolicy::Reject),
        _ => None,
    }
}

/// t=y asks for the policy one level below (RFC 9989 §4.7).
fn one_below(policy: DmarcPolicy) -> DmarcPolicy {
    match policy {
        DmarcPolicy::Reject => DmarcPolicy::Quarantine,
        DmarcPolicy::Quarantine | DmarcPolicy::None => DmarcPolicy::None,
    }
}

fn alignment(value: Option<&str>) -> Alignment {
    match value {
        Some("s" | "S") => Alignment::Strict,
        _ => Alignment::Relaxed,
    }
}

/// Whether this could be a reporting URI (RFC 9989 §4.8), an obsolete `!size` behind it or not.
fn is_report_uri(uri: &str) -> bool {
    let uri = uri.trim_matches(WSP);
    let uri = uri.split_once('!').map_or(uri, |(uri, _size)| uri);
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    if scheme.eq_ignore_ascii_case("mailto") {
        let address = rest.split_once('?').map_or(rest, |(address, _)| address);
        return Address::parse(address).is_some();
    }
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_have_the_form_of_rfc_9989() {
        let read = |text: &str| Published::parse(text.as_bytes());
        let record = read("v=DMARC1; p=reject; adkim=s; aspf=R; psd=n; adkim=r").unwrap();
        assert_eq!(record.dkim_alignment, Alignment::Strict);
        assert_eq!(record.spf_alignment, Alignment::Relaxed);
        assert_eq!(record.suffix, Suffix::Organizational);
        assert_eq!(read("v=DMARC1; psd=Y").unwrap().suffix, Suffix::Public);
        assert_eq!(read("v=DMARC1; psd=u").unwrap().suffix, Suffix::Unsaid);
        assert_eq!(read("v=DMARC1 p=reject"), None);
        assert_eq!(read("DMARC1; p=reject"), None);
    }

    #[test]
    fn what_asks_for_reports_names_an_address() {
        for (uri, expected) in [
            ("mailto:d@corp.example", true),
            (" MAILTO:d@corp.example!10m\t", true),
            ("mailto:d@corp.example?subject=x", true),
            ("https://corp.example/dmarc", true),
            ("mailto:", false),
            ("d@corp.example", false),
            (":x", false),
            ("https:", false),
            ("1x:y", false),
            ("", false),
        ] {
            assert_eq!(is_report_uri(uri), expected, "{uri:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(text in vec(any::<u8>(), 0..80)) {
            let _ = Published::parse(&text);
            let _ = Published::parse(&[b"v=DMARC1;".to_vec(), text].concat());
        }

        #[test]
        fn a_walk_asks_at_most_eight_names_each_above_the_one_before(
            name in "([a-c]\\.){0,20}example",
        ) {
            let domain = Domain::parse(&name).unwrap();
            let levels = levels(&domain);
            prop_assert!(levels.len() <= DMARC_WALK_QUESTIONS_MAX);
            prop_assert_eq!(&levels[0], &domain);
            prop_assert_eq!(levels.last().unwrap().as_str(), "example");
            for pair in levels.windows(2) {
                prop_assert!(pair[0].is_within(&pair[1]) && pair[0] != pair[1]);
            }
        }
    }
}
