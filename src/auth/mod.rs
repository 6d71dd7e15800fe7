//! Authentication over DNS: what domains publish, and what a message proves.
//!
//! Takes: domains, and what is known of a message's way in. Gives: the values of
//! `judge::evidence`. Errors: `AuthError` at the start; later, what DNS does not say is a `Gap`
//! with cause `dns`, never a silent "no" (Law 5).
//! Bounds: every question has the deadline `dns.timeout`; `places` says how many ask at once, and
//! who finds no place in time is told so; the rest stands in `limits`.
//! Standards: RFC 9989 (DMARC), RFC 7505 (null MX), RFC 8020 (NXDOMAIN).

pub mod arc;
pub mod dkim;
pub mod dmarc;
pub mod dns;
pub mod places;
pub mod spf;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::arc::ArcReport;
use crate::auth::dkim::{DkimReport, Prepared};
use crate::auth::dns::{Answer, Dns, Kind, Question, Record, Trouble};
use crate::auth::places::Places;
use crate::auth::spf::{Identity, SpfOutcome};
use crate::judge::evidence::{
    AuthResult, DmarcFacts, DomainFacts, Gap, GapCause, Known, Receives, SpfScope,
};
use crate::mail::address::{Domain, ReversePath};
use crate::mail::limits::VERIFICATION_TIME_MAX;

/// `[dns]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whom to ask; empty: the system's servers.
    pub servers: Vec<SocketAddr>,
    /// How long whatever is asked may take in all.
    pub timeout: Duration,
    /// `auth.best_guess`: whether a domain without SPF is taken to have `spf::GUESS`.
    pub best_guess: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { servers: Vec::new(), timeout: Duration::from_secs(5), best_guess: false }
    }
}

/// Why there can be no authentication.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Permanent; the operator acts: the system's name servers cannot be read.
    #[error("the system names no DNS servers, set dns.servers: {0}")]
    NoServers(String),
}

/// Answers what the judge asks of DNS. Cheap to clone; its memory is shared by the clones.
#[derive(Clone)]
pub struct Authenticator {
    dns: Dns,
    best_guess: bool,
    places: Arc<Places>,
}

impl Authenticator {
    /// Starts with an empty memory; asks nothing yet.
    pub fn new(settings: &Settings) -> Result<Authenticator, AuthError> {
        let dns = Dns::new(&settings.servers, settings.timeout);
        let dns = dns.map_err(|error| AuthError::NoServers(error.to_string()))?;
        Ok(Authenticator { dns, best_guess: settings.best_guess, places: Arc::default() })
    }

    /// What DNS says of a domain, within `dns.timeout`.
    pub async fn facts(&self, domain: &Domain) -> DomainFacts {
        let deadline = Instant::now() + self.dns.timeout();
        let Some(_place) = self.places.take(domain.as_str(), deadline).await else {
            let gap = || Gap::new(GapCause::Dns, &format!("{domain}: {NO_ROOM}"));
            return DomainFacts { dmarc: Err(gap()), receives: Err(gap()) };
        };
        let (walk, receives) = tokio::join!(
            dmarc::walk(&self.dns, domain, deadline),
            receives(&self.dns, domain, deadline),
        );
        DomainFacts { dmarc: dmarc_facts(walk, &receives), receives }
    }

    /// What SPF says of a client: for MAIL FROM, or for HELO when MAIL FROM is null
    /// (RFC 7208 §2.4); `none` for an address literal. Each question has `dns.timeout`.
    pub async fn spf(&self, client: IpAddr, helo: &str, mail_from: &ReversePath) -> SpfOutcome {
        let deadline = Instant::now() + VERIFICATION_TIME_MAX;
        let identity = match mail_from.address() {
            Some(address) => Identity {
                scope: SpfScope::MailFrom,
                local: address.local(),
                domain: address.domain().map_or("", Domain::as_str),
            },
            None => Identity { scope: SpfScope::Helo, local: "", domain: helo },
        };
        let Some(_place) = self.places.take(identity.domain, deadline).await else {
            return SpfOutcome::unanswered(&identity, NO_ROOM);
        };
        let outcome = spf::check(&self.dns, client, helo, &identity, deadline).await;
        match outcome.result {
            AuthResult::None if self.best_guess && identity.scope == SpfScope::MailFrom => {
                spf::guess(&self.dns, client, helo, &identity, deadline).await
            }
            _ => outcome,
        }
    }

    /// What the signatures of a message say, once it was made ready.
    pub async fn dkim(&self, prepared: Prepared) -> DkimReport {
        let deadline = Instant::now() + VERIFICATION_TIME_MAX;
        match self.places.take(prepared.first_domain(), deadline).await {
            Some(_place) => prepared.verify(&self.dns, deadline).await,
            None => prepared.unanswered(NO_ROOM),
        }
    }

    /// What the chain of seals of a message says, once it was made ready.
    pub async fn arc(&self, prepared: arc::Prepared) -> ArcReport {
        prepared.verify(&self.dns, Instant::now() + VERIFICATION_TIME_MAX).await
    }
}

/// Why a verification was not begun.
const NO_ROOM: &str = "too many verifications at once";

fn dmarc_facts(walk: Known<dmarc::Walk>, receives: &Known<Receives>) -> Known<DmarcFacts> {
    let walk = walk?;
    match receives {
        Ok(receives) => Ok(walk.facts(*receives != Receives::NoSuchDomain)),
        Err(gap) if walk.depends_on_existence() => Err(gap.clone()),
        Err(_) => Ok(walk.facts(true)),
    }
}

/// Whether a domain can receive mail: not with a null MX (RFC 7505 §3), not when it does not exist.
///
/// Why a second answer, asked anew and for another kind of record: a name that exists and is
/// denied once would cost a genuine sender his reply, and there are servers that deny a name
/// because they know nothing of MX (RFC 8020 §2 makes NXDOMAIN a matter of the name alone).
async fn receives(dns: &Dns, domain: &Domain, deadline: Instant) -> Known<Receives> {
    let gap = |trouble: Trouble| Gap::new(GapCause::Dns, &trouble.to_string());
    let first = Question::new(Kind::Mx, domain.as_str());
    match dns.ask(first, deadline).await.map_err(gap)? {
        Answer::NoData => return Ok(Receives::Yes),
        Answer::Records(records) => return Ok(from_exchanges(&records)),
        Answer::NoSuchName => {}
    }
    let second = Question::new(Kind::A, domain.as_str()).anew();
    match dns.ask(second, deadline).await.map_err(gap)? {
        Answer::NoSuchName => Ok(Receives::NoSuchDomain),
        Answer::NoData | Answer::Records(_) => Ok(Receives::Yes),
    }
}

/// RFC 7505 §3: a null MX stands alone. Beside others it is a mistake, and the others count.
fn from_exchanges(records: &[Record]) -> Receives {
    match records {
        [Record::Exchange { host, .. }] if host.is_empty() => Receives::NullMx,
        _ => Receives::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::dkim::Extent;
    use crate::mail::address::Address;
    use crate::mail::limits::VERIFICATIONS_OF_ONE_MAX;
    use crate::mail::time::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_in_time_is_told_so() {
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let settings = Settings { servers: vec![nowhere], ..Settings::default() };
        let authenticator = Authenticator::new(&settings).unwrap();
        let mut taken = Vec::new();
        for _ in 0..VERIFICATIONS_OF_ONE_MAX {
            let soon = Instant::now() + Duration::from_secs(1);
            taken.push(authenticator.places.take("bank.example", soon).await.unwrap());
        }
        let facts = authenticator.facts(&Domain::parse("bank.example").unwrap()).await;
        let gap = facts.receives.unwrap_err();
        assert_eq!(gap.cause, GapCause::Dns);
        assert_eq!(gap.detail, "bank.example: too many verifications at once");
        assert!(facts.dmarc.is_err());
        let path = ReversePath::Address(Address::parse("joe@bank.example").unwrap());
        let spf = authenticator.spf("192.0.2.1".parse().unwrap(), "x", &path).await;
        assert_eq!((spf.result, spf.domain.as_str()), (AuthResult::TempError, "bank.example"));
        let signed = "DKIM-Signature: v=1; a=rsa-sha256; d=bank.example; s=s; h=from; bh=AAAA; \
                      b=AAAA\r\nDKIM-Signature: v=2\r\nFrom: joe@bank.example\r\n\r\nx\r\n";
        let now = Timestamp::from_millis(0);
        let prepared = Prepared::read(signed.as_bytes(), Extent::Whole, now);
        let results = authenticator.dkim(prepared).await.signatures;
        let results: Vec<AuthResult> = results.iter().map(|outcome| outcome.result).collect();
        assert_eq!(results, [AuthResult::TempError, AuthResult::PermError]);
    }
}
