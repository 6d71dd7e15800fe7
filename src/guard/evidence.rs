//! Station 4: what do we know about the subject message, and have we seen this before?
//!
//! Takes: a case. Gives: `Gathered`: the answers of DNS and of the memory. All are asked at once,
//! within one deadline; what is not there by then is a `Gap`, or `temperror` in the findings.
//! Bounds: `limits::EVIDENCE_TIME_MAX`, `limits::DOMAINS_ASKED_MAX` domains a message.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::auth::Authenticator;
use crate::auth::arc::{self, ArcReport};
use crate::auth::dkim::{DkimReport, Prepared};
use crate::auth::spf::SpfOutcome;
use crate::guard::inquiry::Inquiry;
use crate::guard::limited::Counted;
use crate::guard::loops::{self, Round};
use crate::guard::recall::Known;
use crate::guard::reverify::Again;
use crate::judge::Case;
use crate::judge::alignment::shares_registrable;
use crate::judge::classify::Guarded;
use crate::judge::evidence::{DomainFacts, Evidence, Gap, GapCause, RecipientEvidence, SentBefore};
use crate::judge::loops::LoopEvidence;
use crate::judge::policy::Policy;
use crate::judge::rewritten::foreign_original;
use crate::mail::address::{Domain, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::limits::{DOMAINS_ASKED_MAX, EVIDENCE_TIME_MAX};
use crate::mail::message::Message;

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

    /// What the chain of seals of a message says; by default that it was not verified.
    fn arc(&self, prepared: arc::Prepared) -> Asking<'_, ArcReport> {
        Box::pin(async { prepared.unverified() })
    }
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

    fn arc(&self, prepared: arc::Prepared) -> Asking<'_, ArcReport> {
        Box::pin(Authenticator::arc(self, prepared))
    }
}

/// The evidence, and what the responses are counted under.
#[derive(Default)]
pub struct Gathered {
    /// What `decide` sees.
    pub evidence: Evidence,
    /// One for each recipient of a response or report, in envelope order.
    pub counted: Vec<Counted>,
    /// One for each recipient: this copy, on its way.
    pub rounds: Vec<Round>,
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
        let known = self.recall(envelope, case, policy).await;
        evidence.recipients = known.into_iter().map(uncounted).collect();
        if guarded {
            evidence.findings.extend(case.original.findings.clone());
            evidence.gaps.extend(case.original.gaps.iter().cloned());
            if !self.is_tapped {
                evidence.gaps.push(Gap::new(GapCause::NoTap, "no tap is set up"));
            }
            let deadline = Instant::now() + EVIDENCE_TIME_MAX;
            let again = Again { envelope, message, case, policy };
            self.read_seals(&again, &mut evidence, deadline).await;
            let questions = questions(envelope, &evidence, policy);
            let need = again.need(&evidence);
            let paths = again.paths(&evidence);
            let (answers, verified) = tokio::join!(
                self.ask_all(questions, deadline),
                self.verify(&again, need, &paths, deadline),
            );
            evidence.domains.extend(answers);
            self.add_verified(&again, verified, &mut evidence, deadline).await;
            self.ask_about(envelope, policy, &mut evidence, deadline).await;
            self.count_signatures(&again, &mut evidence).await;
        }
        let (mut all_counted, mut rounds) = (Vec::new(), Vec::new());
        let limits = &policy.loops.conversation;
        let asking = loops::Asking { trace_key: &self.trace_key, limits, now: self.now() };
        for (recipient, known) in envelope.recipients.iter().zip(&mut evidence.recipients) {
            if guarded {
                let counted =
                    self.counted(case, &recipient.path, envelope.client.listener, &policy.site);
                known.sent_before = Ok(self.sent_before(&counted));
                all_counted.push(counted);
            }
            let (round, loops) = self.loops.ask(envelope, case, &recipient.path, &asking);
            rounds.push(round);
            known.loops = loops;
        }
        Gathered { evidence, counted: all_counted, rounds }
    }

    /// Asks about the domains that the evidence names and that nobody asked about yet.
    async fn ask_about(
        &self,
        envelope: &Envelope,
        policy: &Policy,
        evidence: &mut Evidence,
        deadline: Instant,
    ) {
        let mut questions = questions(envelope, evidence, policy);
        questions.asked.retain(|domain| !evidence.domains.contains_key(domain));
        questions.left_out.retain(|domain| !evidence.domains.contains_key(domain));
        evidence.domains.extend(self.ask_all(questions, deadline).await);
    }

    /// What is published for each domain; by the deadline there is an answer or a gap for each.
    async fn ask_all(
        &self,
        questions: Questions,
        deadline: Instant,
    ) -> BTreeMap<Domain, DomainFacts> {
        let Questions { asked, left_out } = questions;
        let ask = |domain| async move { (Domain::clone(domain), self.facts.ask(domain).await) };
        // Why not tasks: what is known already is answered at once.
        let mut asking: FuturesUnordered<_> = asked.iter().map(ask).collect();
        let mut answers = BTreeMap::new();
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            answers.extend([answer]);
        }
        drop(asking);
        for domain in asked {
            let unknown = |domain: &Domain| unknown(GapCause::Dns, &format!("{domain}: {LATE}"));
            answers.entry(domain).or_insert_with_key(unknown);
        }
        let too_many = format!("more than {DOMAINS_ASKED_MAX} domains in one message");
        let unasked = left_out.into_iter();
        answers.extend(unasked.map(|domain| (domain, unknown(GapCause::NotEvaluated, &too_many))));
        answers
    }
}

/// What is known of one recipient before anything is counted.
fn uncounted(known: Known) -> RecipientEvidence {
    RecipientEvidence {
        sent_before: Ok(SentBefore::default()),
        loops: LoopEvidence::default(),
        answered: known.answered,
        gaps: known.gaps,
    }
}

/// Why an answer is not there.
pub(in crate::guard) const LATE: &str = "no answer in the time a message may take";

fn unknown(cause: GapCause, detail: &str) -> DomainFacts {
    let gap = || Gap::new(cause, detail);
    DomainFacts { dmarc: Err(gap()), receives: Err(gap()) }
}

/// The domains whose facts can matter.
struct Questions {
    asked: BTreeSet<Domain>,
    /// Recipients' domains beyond `limits::DOMAINS_ASKED_MAX`.
    left_out: BTreeSet<Domain>,
}

/// The domains of the recipients, and those in the findings that may speak for one of them.
fn questions(envelope: &Envelope, evidence: &Evidence, policy: &Policy) -> Questions {
    let recipients = envelope.recipients.iter().filter_map(|recipient| recipient.path.address());
    let mut asked: BTreeSet<Domain> = recipients
        .filter_map(|address| match foreign_original(address, &policy.site) {
            Some(original) => original.domain().cloned(),
            None => address.domain().cloned(),
        })
        .filter(|domain| !policy.site.is_local_domain(domain))
        .collect();
    let first_left_out = asked.iter().nth(DOMAINS_ASKED_MAX).cloned();
    let left_out = first_left_out.map(|first| asked.split_off(&first)).unwrap_or_default();
    let recorded = evidence.recipients.iter().filter_map(|known| known.answered.as_ref());
    let recorded = recorded.flat_map(|answered| &answered.subjects);
    let recorded = recorded.flat_map(|subject| &subject.findings);
    let said = evidence.findings.iter().chain(recorded).flat_map(|findings| {
        let spf = findings.spf.iter().filter_map(|spf| spf.domain.as_ref());
        let dkim = findings.dkim.iter().filter_map(|dkim| dkim.domain.as_ref());
        let dmarc = findings.dmarc.iter().filter_map(|dmarc| dmarc.from_domain.as_ref());
        spf.chain(dkim).chain(dmarc)
    });
    let related: Vec<Domain> = said
        .filter(|said| asked.iter().any(|own| shares_registrable(own, said)))
        .take(DOMAINS_ASKED_MAX)
        .cloned()
        .collect();
    asked.extend(related);
    Questions { asked, left_out }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::auth::spf::Identity;
    use crate::guard::clock::Clock;
    use crate::guard::inquiry::InForce;
    use crate::guard::loops::LoopMemory;
    use crate::judge::evidence::{AuthResult, DmarcFacts, Receives, SpfScope};
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::site::Site;
    use crate::judge::trace::TraceKey;
    use crate::mail::address::{Address, ForwardPath};
    use crate::mail::envelope::{Client, MailFrom, Parameters, Recipient};
    use crate::mail::header::Completeness;
    use crate::mail::time::Timestamp;
    use crate::store::answers::Answers;
    use crate::store::null::Null;

    /// Answers each question after so long.
    struct Slow(Duration);

    impl Facts for Slow {
        fn ask<'a>(&'a self, domain: &'a Domain) -> Asking<'a, DomainFacts> {
            Box::pin(async move {
                tokio::time::sleep(self.0).await;
                let (organizational, record) = (domain.clone(), None);
                let dmarc = Ok(DmarcFacts { organizational, record, above: None });
                DomainFacts { dmarc, receives: Ok(Receives::Yes) }
            })
        }

        fn spf<'a>(
            &'a self,
            _client: IpAddr,
            _helo: &'a str,
            _mail_from: &'a ReversePath,
        ) -> Asking<'a, SpfOutcome> {
            Box::pin(async move {
                tokio::time::sleep(self.0).await;
                let identity =
                    Identity { scope: SpfScope::MailFrom, local: "joe", domain: "bank.example" };
                let outcome = SpfOutcome::unanswered(&identity, "");
                SpfOutcome { result: AuthResult::Neutral, reason: None, ..outcome }
            })
        }

        fn dkim(&self, prepared: Prepared) -> Asking<'_, DkimReport> {
            Box::pin(async move {
                tokio::time::sleep(self.0).await;
                prepared.unanswered("slow")
            })
        }
    }

    const BOUNCE: &str = "Received: by mx.ours.test (Postfix) id 1A; Sat, 12 Sep 2020 12:00:00 +0000\n\
        From: MAILER-DAEMON@ours.test\nSubject: Undelivered Mail Returned to Sender\n\
        Auto-Submitted: auto-replied\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
        --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.ours.test\n\n\
        Final-Recipient: rfc822; gone@ours.test\nAction: failed\nStatus: 5.1.1\n\n\
        --b\nContent-Type: message/rfc822\n\nReturn-Path: <joe@bank.example>\n\
        Received: from x (unknown [192.0.2.66]) by mx.ours.test (Postfix) id 1A;\n Sat, 12 Sep 2020 \
        11:59:59 +0000\nDKIM-Signature: v=1; a=rsa-sha256; d=bank.example; s=s; h=from; bh=AAAA; \
        b=AAAA\nFrom: joe@bank.example\n\nx\n--b--\n";

    fn inquiry(each: Duration) -> Inquiry {
        let site = Site { hosts: ["mx.ours.test".to_owned()].into(), ..Site::default() };
        Inquiry {
            facts: Arc::new(Slow(each)),
            store: Arc::new(Null),
            is_tapped: false,
            answers: Answers::new([1; 32]),
            loops: LoopMemory::blank(FingerprintKey::new([3; 32])),
            clock: Clock::From(Timestamp::from_millis(1_600_000_000_000), Instant::now()),
            loop_site: "here".to_owned(),
            trace_key: TraceKey::new([2; 32]),
            fingerprint_key: FingerprintKey::new([3; 32]),
            policy: ArcSwap::from_pointee(InForce::new(Policy { site, ..Policy::default() })),
        }
    }

    fn envelope(recipients: &[String]) -> Envelope {
        let recipient = |to: &String| Recipient {
            path: ForwardPath::Address(Address::parse(to).unwrap()),
            path_text: format!("<{to}>"),
            parameters: Parameters::default(),
        };
        let mail = MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        };
        let recipients = recipients.iter().map(recipient).collect();
        Envelope { client: Client::default(), mail, recipients }
    }

    /// The evidence, and how long it took.
    async fn gathered(each: Duration) -> (Evidence, Duration) {
        let (inquiry, began) = (inquiry(each), Instant::now());
        let envelope = envelope(&["joe@bank.example".to_owned()]);
        let message = Message::new(BOUNCE.to_owned(), Completeness::Whole);
        let explained = inquiry.explain(&envelope, &message).await;
        (explained.evidence, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_asked_at_once() {
        let each = Duration::from_secs(6);
        let (evidence, took) = gathered(each).await;
        assert_eq!(took.as_secs(), 6);
        let found = &evidence.findings[0];
        assert_eq!((found.spf[0].result, found.dkim.len()), (AuthResult::Neutral, 1));
        assert!(evidence.domains.values().all(|facts| facts.dmarc.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_in_time_is_a_gap_or_a_temporary_error() {
        let (evidence, took) = gathered(Duration::from_secs(3600)).await;
        assert_eq!(took.as_secs(), EVIDENCE_TIME_MAX.as_secs());
        let found = &evidence.findings[0];
        assert_eq!(found.spf[0].result, AuthResult::TempError);
        assert_eq!(found.spf[0].domain.as_ref().unwrap().as_str(), "bank.example");
        assert_eq!(found.dkim[0].result, AuthResult::TempError);
        assert_eq!(found.dkim[0].reason.as_deref(), Some(LATE));
        let facts = evidence.domains.values().next().unwrap();
        assert_eq!(facts.dmarc.as_ref().unwrap_err().cause, GapCause::Dns);
        let told = |gap: &Gap| gap.detail == format!("SPF of bank.example: {LATE}");
        assert!(evidence.gaps.iter().any(told), "{:?}", evidence.gaps);
    }

    #[test]
    fn domains_beyond_the_cap_are_left_out_by_name() {
        let recipients: Vec<String> =
            (0..DOMAINS_ASKED_MAX + 5).map(|n| format!("joe@d{n:03}.example")).collect();
        let mut twice = recipients.clone();
        twice.extend(recipients);
        let questions = questions(&envelope(&twice), &Evidence::default(), &Policy::default());
        assert_eq!((questions.asked.len(), questions.left_out.len()), (DOMAINS_ASKED_MAX, 5));
        assert!(questions.left_out.iter().any(|domain| domain.as_str() == "d068.example"));
    }

    #[tokio::test]
    async fn of_a_domain_that_nobody_asked_about_the_evidence_says_so() {
        let recipients: Vec<String> =
            (0..=DOMAINS_ASKED_MAX).map(|n| format!("joe@d{n:03}.example")).collect();
        let message = Message::new(BOUNCE.to_owned(), Completeness::Whole);
        let inquiry = inquiry(Duration::ZERO);
        let evidence = inquiry.explain(&envelope(&recipients), &message).await.evidence;
        let last = evidence.domains.get(&Domain::parse("d064.example").unwrap()).unwrap();
        assert_eq!(last.dmarc.as_ref().unwrap_err().cause, GapCause::NotEvaluated);
        let first = evidence.domains.get(&Domain::parse("d000.example").unwrap()).unwrap();
        assert!(first.dmarc.is_ok());
    }
}
