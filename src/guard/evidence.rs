//! Station 4: what do we know about the subject message, and have we seen this before?
//!
//! Takes: a case. Gives: `Gathered`: the answers of DNS and of the memory, within a deadline. A
//! failure becomes a `Gap`. Bounds: `limits::DOMAINS_ASKED_MAX` domains a message.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use ulid::Ulid;

use crate::auth::Authenticator;
use crate::auth::dkim::{DkimReport, Prepared};
use crate::auth::spf::SpfOutcome;
use crate::guard::inquiry::Inquiry;
use crate::guard::limited::Counted;
use crate::judge::Case;
use crate::judge::alignment::shares_registrable;
use crate::judge::classify::Guarded;
use crate::judge::evidence::{
    DomainFacts, Evidence, Findings, Gap, GapCause, RecipientEvidence, SentBefore,
};
use crate::judge::policy::Policy;
use crate::judge::rewritten::foreign_original;
use crate::judge::trace::{Lap, TraceKey};
use crate::mail::address::{Domain, ForwardPath, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::limits::DOMAINS_ASKED_MAX;
use crate::mail::message::Message;
use crate::mail::time::Timestamp;

/// An answer on its way.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who answers questions about domains, clients and signatures, each within a deadline of its own.
/// A trait so that a simulator can answer.
pub trait Facts: Send + Sync {
    /// What is published for a domain.
    fn ask<'a>(&'a self, domain: &'a Domain) -> Asking<'a, DomainFacts>;

    /// What SPF says of a client for MAIL FROM.
    fn spf<'a>(
        &'a self,
        client: IpAddr,
        helo: &'a str,
        mail_from: &'a ReversePath,
    ) -> Asking<'a, SpfOutcome>;

    /// What the signatures of a message say.
    fn dkim(&self, prepared: Prepared) -> Asking<'_, DkimReport>;
}

impl Facts for Authenticator {
    fn ask<'a>(&'a self, domain: &'a Domain) -> Asking<'a, DomainFacts> {
        Box::pin(self.facts(domain))
    }

    fn spf<'a>(
        &'a self,
        client: IpAddr,
        helo: &'a str,
        mail_from: &'a ReversePath,
    ) -> Asking<'a, SpfOutcome> {
        Box::pin(Authenticator::spf(self, client, helo, mail_from))
    }

    fn dkim(&self, prepared: Prepared) -> Asking<'_, DkimReport> {
        Box::pin(Authenticator::dkim(self, prepared))
    }
}

/// The evidence, and what the responses are counted under.
pub struct Gathered {
    /// What `decide` sees.
    pub evidence: Evidence,
    /// One for each recipient of a response or report, in envelope order.
    pub counted: Vec<Counted>,
}

impl Inquiry {
    /// Puts the case's questions. Mail that nobody judges asks nothing.
    pub async fn gather(
        &self,
        envelope: &Envelope,
        message: &Message,
        case: &Case,
        policy: &Policy,
    ) -> Gathered {
        let mut evidence = Evidence::default();
        let guarded = case.class.guarded() != Guarded::No;
        if guarded {
            evidence.findings.extend(case.original.findings.clone());
            evidence.gaps.extend(case.original.gaps.iter().cloned());
            evidence.gaps.push(Gap::new(GapCause::NoTap, "no tap is set up"));
            self.ask_about(envelope, policy, &mut evidence).await;
            self.reverify(envelope, message, case, policy, &mut evidence).await;
            self.ask_about(envelope, policy, &mut evidence).await;
        }
        let mut all_counted = Vec::new();
        for recipient in &envelope.recipients {
            let mut sent = SentBefore::default();
            if guarded {
                let counted = self.counted(case, &recipient.path, &policy.site);
                sent = self.sent_before(&counted);
                all_counted.push(counted);
            }
            let laps = laps(case, &recipient.path, &self.trace_key);
            evidence.recipients.push(RecipientEvidence {
                sent_before: Ok(sent),
                laps: u32::try_from(laps.len()).unwrap_or(u32::MAX),
                first_lap: laps.into_iter().min(),
            });
        }
        Gathered { evidence, counted: all_counted }
    }

    /// Asks about the domains that the evidence names and that nobody asked about yet.
    async fn ask_about(&self, envelope: &Envelope, policy: &Policy, evidence: &mut Evidence) {
        let mut asked = questions(envelope, &evidence.findings, policy);
        asked.retain(|domain| !evidence.domains.contains_key(domain));
        evidence.domains.extend(self.ask_all(asked).await);
    }

    async fn ask_all(&self, asked: BTreeSet<Domain>) -> BTreeMap<Domain, DomainFacts> {
        let mut asking = tokio::task::JoinSet::new();
        for domain in asked {
            let facts = std::sync::Arc::clone(&self.facts);
            asking.spawn(async move {
                let answer = facts.ask(&domain).await;
                (domain, answer)
            });
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = asking.join_next().await {
            if let Ok((domain, facts)) = answer {
                answers.insert(domain, facts);
            }
        }
        answers
    }
}

/// When the message went to this recipient before, as our own traces prove.
fn laps(case: &Case, recipient: &ForwardPath, key: &TraceKey) -> Vec<Timestamp> {
    let moment = |lap: &Lap| {
        let millis = Ulid::from_string(&lap.event).map(|event| event.timestamp_ms());
        Timestamp::from_millis(millis.ok().and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0))
    };
    case.laps_of(recipient, key).map(moment).collect()
}

/// The domains whose facts can matter: the recipients', and those in the findings that may speak
/// for one of them.
fn questions(envelope: &Envelope, findings: &[Findings], policy: &Policy) -> BTreeSet<Domain> {
    let recipients = envelope.recipients.iter().filter_map(|recipient| recipient.path.address());
    let own: BTreeSet<Domain> = recipients
        .filter_map(|address| match foreign_original(address, &policy.site) {
            Some(original) => original.domain().cloned(),
            None => address.domain().cloned(),
        })
        .filter(|domain| !policy.site.is_local_domain(domain))
        .take(DOMAINS_ASKED_MAX)
        .collect();
    let said = findings.iter().flat_map(|findings| {
        let spf = findings.spf.iter().filter_map(|spf| spf.domain.as_ref());
        let dkim = findings.dkim.iter().filter_map(|dkim| dkim.domain.as_ref());
        let dmarc = findings.dmarc.iter().filter_map(|dmarc| dmarc.from_domain.as_ref());
        spf.chain(dkim).chain(dmarc)
    });
    let related = said.filter(|said| own.iter().any(|own| shares_registrable(own, said)));
    own.iter().chain(related).take(DOMAINS_ASKED_MAX).cloned().collect()
}
