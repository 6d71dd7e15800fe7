//! What is ours: domains, networks, host names, authserv-ids. The ground that trust stands on.
//!
//! Takes: settings, checked by `config`. Standards: RFC 8601 §1.6 (trust boundary), `ADMD`.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::mail::address::{Address, Domain};

/// What the administrator declared as ours.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Domains whose mailboxes are ours; responses to them are not judged.
    pub domains: HashSet<Domain>,
    /// Networks of own submission.
    pub networks: Vec<IpNet>,
    /// Gateways and backup MX whose `Received` line is believed.
    pub trusted_relays: Vec<IpNet>,
    /// Names our hosts write after `by` in `Received`; lower case.
    pub hosts: HashSet<String>,
    /// Whose `Authentication-Results` are ours; lower case (RFC 8601 §2.5).
    pub authserv_ids: HashSet<String>,
    /// Whether our border removes foreign `Authentication-Results` of these ids.
    pub authserv_stripped: bool,
    /// Whether our filter writes its line directly below our `Received` line instead of above it.
    pub authserv_below: bool,
}

impl Site {
    /// Whether the domain is one of ours; a subdomain of ours is not.
    pub fn is_local_domain(&self, domain: &Domain) -> bool {
        self.domains.contains(domain)
    }

    /// Whether the address lies in a domain of ours.
    pub fn is_local(&self, address: &Address) -> bool {
        address.domain().is_some_and(|domain| self.is_local_domain(domain))
    }

    /// Whether mail from this client is own submission.
    pub fn is_inside(&self, ip: IpAddr) -> bool {
        contains(&self.networks, ip)
    }

    /// Whether this client is a gateway or backup MX that we believe.
    pub fn is_trusted_relay(&self, ip: IpAddr) -> bool {
        contains(&self.trusted_relays, ip)
    }

    /// Whether this name is one of our hosts.
    pub fn is_own_host(&self, name: &str) -> bool {
        self.hosts.contains(&name.trim_end_matches('.').to_ascii_lowercase())
    }
}

/// Why: an IPv4 client of a dual-stack listener shows as `::ffff:192.0.2.1`, and is the same host.
fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_same_host() {
        let site = Site { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Site::default() };
        assert!(site.is_inside("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!site.is_inside("::1".parse().unwrap()));
    }

    #[test]
    fn a_subdomain_is_not_ours_unless_named() {
        let domain = |text| Domain::parse(text).unwrap();
        let site = Site { domains: [domain("uni.example")].into(), ..Site::default() };
        assert!(site.is_local_domain(&domain("uni.example")));
        assert!(!site.is_local_domain(&domain("students.uni.example")));
    }
}
