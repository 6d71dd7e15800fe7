//! Gateways that nobody declared: self-protection against SPF results that are about them.
//!
//! Takes: a store. Gives: `Relays`, the same store, which watches what is remembered. A client
//! whose mail fails SPF for many domains, passes for few, and bears signatures of the domains it
//! fails for is no forger, who cannot sign for them: it is a gateway or forwarder, and SPF is about
//! it, not about the peer. Its SPF and DMARC results count as unknown, with a gap and an alarm.
//! Bounds: `limits_of_memory::RELAYS_WATCHED_MAX` clients, the least recently seen go first;
//! forgotten at a restart and learnt again.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::judge::alignment::is_signed_near;
use crate::judge::correlation::Recalled;
use crate::judge::evidence::{AuthResult, Gap, GapCause, Source, SpfScope};
use crate::judge::subject::{Inbound, InboundId, State};
use crate::mail::address::{Address, Domain};
use crate::mail::limits_of_memory::{
    RELAY_FAILED_DOMAINS_MIN, RELAY_PASSED_PERCENT_MAX, RELAY_SIGNED_DOMAINS_MIN,
    RELAY_WATCHED_FOR, RELAYS_WATCHED_MAX,
};
use crate::mail::time::Timestamp;
use crate::store::{Asking, Health, Request, Store};

/// A store that watches clients.
pub struct Relays {
    store: Arc<dyn Store>,
    clients: Mutex<LruCache<IpAddr, Client>>,
}

/// What was seen of one client.
#[derive(Debug)]
struct Client {
    since: Timestamp,
    failed: HashSet<Domain>,
    /// Of the failed ones those that its mail was signed by.
    signed: HashSet<Domain>,
    passed: HashSet<Domain>,
    suspected: bool,
}

impl Relays {
    /// Watches what goes into this store.
    pub fn new(store: Arc<dyn Store>) -> Relays {
        Relays { store, clients: Mutex::new(LruCache::new(RELAYS_WATCHED_MAX)) }
    }

    /// Clients that look like gateways.
    pub fn suspected(&self) -> Vec<IpAddr> {
        let clients = self.lock();
        clients.iter().filter(|(_, client)| client.suspected).map(|(ip, _)| *ip).collect()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<IpAddr, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, record: &Inbound) {
        let seen = record.client.zip(record.mail_from.address().and_then(Address::domain));
        let Some((ip, domain)) = seen.filter(|_| record.state == State::Complete) else { return };
        let mut of_tap = record.findings.iter().filter(|findings| findings.source == Source::Tap);
        let spf = of_tap
            .clone()
            .flat_map(|findings| &findings.spf)
            .find(|spf| spf.scope == SpfScope::MailFrom && spf.domain.as_ref() == Some(domain));
        let Some(spf) = spf else { return };
        let signed = of_tap.any(|findings| is_signed_near(&findings.dkim, domain));
        let mut clients = self.lock();
        let client = clients.get_or_insert_mut(ip, || Client::new(record.arrived));
        if record.arrived.since(client.since) >= RELAY_WATCHED_FOR {
            // Why it stays suspected: a quiet day has not declared it.
            *client = Client { suspected: client.suspected, ..Client::new(record.arrived) };
        }
        client.count(spf.result, domain, signed);
        if !client.suspected && client.is_relay() {
            client.suspected = true;
            tracing::warn!(client = %ip, "{UNDECLARED}");
        }
    }

    fn with_gap(&self, found: Recalled) -> Recalled {
        let Some(ip) = found.record.client else { return found };
        if !self.lock().peek(&ip).is_some_and(|client| client.suspected) {
            return found;
        }
        let mut record = Inbound::clone(&found.record);
        for findings in &mut record.findings {
            findings.spf.clear();
            findings.evaluated.spf = false;
            findings.dmarc.retain(|dmarc| dmarc.result == AuthResult::Pass);
        }
        record.gaps.push(Gap::new(GapCause::BehindRelay, &format!("{ip} {UNDECLARED}")));
        Recalled { record: Arc::new(record), ..found }
    }
}

/// What is wrong, and what to do.
pub const UNDECLARED: &str =
    "looks like a gateway of yours: if it is one, name it in `tap.trusted_relays`";

impl Client {
    fn new(since: Timestamp) -> Client {
        Client {
            since,
            failed: HashSet::new(),
            signed: HashSet::new(),
            passed: HashSet::new(),
            suspected: false,
        }
    }

    fn count(&mut self, result: AuthResult, domain: &Domain, signed: bool) {
        let room = |set: &HashSet<Domain>| set.len() < 10 * RELAY_FAILED_DOMAINS_MIN;
        match result {
            AuthResult::Fail | AuthResult::SoftFail => {
                if room(&self.failed) {
                    self.failed.insert(domain.clone());
                }
                if signed && room(&self.signed) {
                    self.signed.insert(domain.clone());
                }
            }
            AuthResult::Pass if room(&self.passed) => drop(self.passed.insert(domain.clone())),
            _ => {}
        }
    }

    fn is_relay(&self) -> bool {
        let all = self.failed.len() + self.passed.len();
        self.failed.len() >= RELAY_FAILED_DOMAINS_MIN
            && self.passed.len() * 100 < all * RELAY_PASSED_PERCENT_MAX
            && self.signed.len() >= RELAY_SIGNED_DOMAINS_MIN
    }
}

impl Store for Relays {
    fn remember<'a>(&'a self, record: &'a Inbound) -> Asking<'a, ()> {
        self.watch(record);
        self.store.remember(record)
    }

    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async {
            let found = self.store.recall(request).await?;
            Ok(found.into_iter().map(|found| self.with_gap(found)).collect())
        })
    }

    fn answered<'a>(&'a self, id: InboundId, by: &'a Address, at: Timestamp) -> Asking<'a, ()> {
        self.store.answered(id, by, at)
    }

    fn expire(&self, now: Timestamp) -> Asking<'_, usize> {
        self.store.expire(now)
    }

    fn flush(&self) -> Asking<'_, ()> {
        self.store.flush()
    }

    fn health(&self) -> Health {
        Health { undeclared: self.suspected(), ..self.store.health() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::evidence::{DkimFinding, DmarcFinding, Evaluated, Findings, SpfFinding};
    use crate::judge::original::SubjectKind;
    use crate::judge::subject::{LookUp, TapKind, Way};
    use crate::mail::address::ReversePath;
    use crate::store::keyed::StoreKey;
    use crate::store::memory::{Memory, Settings};

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

    fn inbound(n: usize, spf: AuthResult, signed: bool) -> Inbound {
        let address = Address::parse(&format!("joe@d{n}.example")).unwrap();
        let domain = address.domain().cloned();
        let mail_from = ReversePath::Address(address);
        let dkim = if signed { AuthResult::Pass } else { AuthResult::None };
        let findings = Findings {
            mail_from: Some(mail_from.clone()),
            spf: vec![SpfFinding::of(spf, domain.clone())],
            dkim: vec![DkimFinding::of(dkim, domain.clone())],
            dmarc: vec![DmarcFinding { result: AuthResult::Fail, from_domain: domain }],
            evaluated: Evaluated::ALL,
            ..Findings::of(Source::Tap)
        };
        Inbound {
            id: InboundId::new(NOW, n as u128),
            tap: TapKind::Milter,
            host: String::new(),
            queue_id: None,
            began: NOW,
            arrived: NOW,
            state: State::Complete,
            client: Some("192.0.2.7".parse().unwrap()),
            helo: String::new(),
            way: Way::Outside,
            mail_from,
            envelope_id: None,
            recipients: Vec::new(),
            message_ids: vec![n.to_string()],
            from: Vec::new(),
            sender: None,
            reply_to: Vec::new(),
            notify: Vec::new(),
            kind: SubjectKind::default(),
            spam: None,
            findings: vec![findings],
            gaps: Vec::new(),
        }
    }

    /// Whether a client with this mail behind it is suspected, and so the last record bears a gap.
    async fn suspected(mail: impl Iterator<Item = (AuthResult, bool)>) -> bool {
        let bounds = Settings {
            retention: std::time::Duration::from_secs(3600),
            records_max: 100_000,
            bytes_max: 100 << 20,
        };
        let memory = Memory::new(bounds, Arc::new(StoreKey::new([1; 32])));
        let relays = Relays::new(Arc::new(memory));
        let mut last = 0;
        for (n, (spf, signed)) in mail.enumerate() {
            relays.remember(&inbound(n, spf, signed)).await.unwrap();
            last = n;
        }
        let look_ups = vec![LookUp::MessageId(last.to_string())];
        let request = Request { look_ups, responder: None, now: NOW };
        let found = relays.recall(&request).await.unwrap();
        let record = &found[0].record;
        let has_gap = GapCause::BehindRelay.is_among(&record.gaps);
        assert_eq!(has_gap, !relays.suspected().is_empty());
        assert_eq!(has_gap, record.findings[0].spf.is_empty());
        assert_eq!(has_gap, !record.findings[0].evaluated.spf);
        assert_eq!(has_gap, record.findings[0].dmarc.is_empty());
        assert_eq!(has_gap, !relays.health().undeclared.is_empty());
        has_gap
    }

    #[tokio::test]
    async fn a_gateway_that_nobody_declared_is_known_by_the_signatures_it_passes_on() {
        let (fail, pass) = (AuthResult::SoftFail, AuthResult::Pass);
        let failing = |count: usize, signed: usize| (0..count).map(move |n| (fail, n < signed));
        assert!(suspected(failing(20, 5)).await);
        assert!(!suspected(failing(19, 19)).await);
        // A forger fails for as many domains, and signs for none of them.
        assert!(!suspected(failing(200, 0)).await);
        let passing = |count: usize| (0..count).map(move |_| (pass, true));
        assert!(suspected(passing(4).chain(failing(20, 20))).await);
        assert!(!suspected(passing(6).chain(failing(20, 20))).await);
    }
}
