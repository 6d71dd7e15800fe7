//! The tap: an inbound message is verified while its client is still known, and remembered.
//!
//! Takes: `Seen`. Gives: `Taken`, after at most `Settings::wait`; what is not verified by then is
//! remembered as pending, and completed behind the caller's back. It never refuses, never holds
//! mail up for a fault of ours, and decides nothing: it only adds what we know.
//! Errors: none; a fault becomes a `Gap`, a count and a line in the log.
//! Bounds: `limits::TAP_VERIFICATIONS_MAX` messages at once, each `limits::VERIFICATION_TIME_MAX`.
//! Standards: RFC 7208, RFC 6376, RFC 9989 §4.4, RFC 8617.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::auth::dkim::{DkimReport, Extent, Prepared};
use crate::guard::ids::Ids;
use crate::guard::inquiry::Inquiry;
use crate::guard::reverify::spf_finding;
use crate::guard::tapped::Counts;
use crate::judge::alignment::{Aligned, aligned, is_signed_near, shares_registrable};
use crate::judge::arrival::{Arrival, Seen, arrival};
use crate::judge::evidence::{
    AuthResult, DmarcFinding, DomainFacts, Evaluated, Findings, Gap, GapCause, Source, SpfFinding,
    SpfScope,
};
use crate::judge::findings::{Identities, sealed};
use crate::judge::posted::{Said, complete};
use crate::judge::subject::{Inbound, InboundId, SpamScore, State, Way};
use crate::mail::address::{Address, Domain};
use crate::mail::author::{Author, AuthorSign};
use crate::mail::limits::{
    STORE_DEADLINE, TAP_VERIFICATIONS_MAX, VERIFICATION_TIME_MAX, VERIFIED_INLINE_BYTES_MAX,
};
use crate::mail::message::Kept;
use crate::mail::raw::split;
use crate::mail::time::Timestamp;
use crate::store::Store;

/// What a tap is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long inbound mail may wait for a verdict.
    pub wait: Duration,
    /// In which field our spam filter writes its score.
    pub spam_field: Option<String>,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The way it came in.
    pub way: Way,
    /// Whether an inside host handed it in without a user.
    pub is_from_inside: bool,
    /// Its results; `None` when they were not there in time.
    pub results: Option<Results>,
}

/// What was found, for those who write it into the message.
#[derive(Clone, Debug)]
pub struct Results {
    /// The complete record.
    pub record: Inbound,
    /// DMARC of the author's domain.
    pub dmarc: Option<DmarcFinding>,
}

/// A message under verification. When it is dropped, nobody hears of it.
pub struct Verifying {
    pending: Inbound,
    is_from_inside: bool,
    task: Task,
    results: Option<Results>,
    queue_id: Option<String>,
}

/// By what a message is verified.
enum Means {
    /// By what it is, so much of which was kept.
    Message(Kept),
    /// By what another program said, with its spam score.
    Said(Said, Option<SpamScore>),
}

/// The verification; it ends when this is dropped.
struct Task(JoinHandle<Results>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Verifying {
    /// The id it got in the queue, which is known only now.
    pub fn queued(&mut self, id: Option<String>) {
        self.queue_id = id;
    }

    /// Waits for the results, but no longer than this.
    pub async fn wait(&mut self, patience: Duration) {
        if let Ok(Ok(results)) = timeout(patience, &mut self.task.0).await {
            self.results = Some(results);
        }
    }
}

/// The inbound path.
pub struct Tap {
    inquiry: Arc<Inquiry>,
    store: Arc<dyn Store>,
    settings: Settings,
    places: Arc<Semaphore>,
    ids: Ids,
    counts: Counts,
}

impl Tap {
    /// A tap over these.
    pub fn new(inquiry: Arc<Inquiry>, store: Arc<dyn Store>, settings: Settings) -> Arc<Tap> {
        let places = Arc::new(Semaphore::new(TAP_VERIFICATIONS_MAX));
        let (ids, counts) = (Ids::default(), Counts::default());
        Arc::new(Tap { inquiry, store, settings, places, ids, counts })
    }

    /// What it is given.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it did.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.inquiry.now()
    }

    /// An id for a record.
    pub fn new_id(&self) -> InboundId {
        InboundId::from_u128(self.ids.next(self.now()).0)
    }

    /// Takes a message in that is accepted: verified and remembered, or remembered as pending,
    /// when it returns; neither, when the store does not answer.
    pub async fn take(self: &Arc<Tap>, seen: Seen, kept: Kept) -> Taken {
        let until = Instant::now() + self.settings.wait;
        let mut verifying = self.begin(seen, kept);
        verifying.wait(self.patience()).await;
        self.accepted(verifying, until).await
    }

    /// How long results are waited for; the rest of `Settings::wait` is the store's.
    pub fn patience(&self) -> Duration {
        self.settings.wait * 3 / 4
    }

    /// Begins to verify a message that is not accepted yet. Nothing is remembered of it before.
    pub fn begin(self: &Arc<Tap>, seen: Seen, kept: Kept) -> Verifying {
        self.begin_by(seen, Means::Message(kept))
    }

    fn begin_by(self: &Arc<Tap>, seen: Seen, means: Means) -> Verifying {
        self.counts.of(seen.tap).saw(seen.arrived);
        let in_force = self.inquiry.in_force();
        let arrival = arrival(&seen, &in_force.policy.site);
        let (pending, is_from_inside) = (arrival.record.clone(), arrival.is_from_inside);
        let tap = Arc::clone(self);
        let deadline = Instant::now() + VERIFICATION_TIME_MAX;
        let verified = async move {
            let results = match means {
                Means::Message(kept) => tap.verified(arrival, seen.message, kept, deadline).await,
                Means::Said(said, spam) => {
                    tap.completed(arrival, &seen.message, said, spam, deadline).await
                }
            };
            tap.counts.of(seen.tap).took(tap.now().since(seen.arrived));
            results
        };
        let task = Task(tokio::spawn(verified));
        Verifying { pending, is_from_inside, task, results: None, queue_id: None }
    }

    /// Remembers a message that was accepted: complete when its results are there, otherwise
    /// pending, and complete when they are. Returns when the first of it is done, or at `until`;
    /// the rest runs on.
    ///
    /// Why one write in the usual case: a response comes after our answer, so the pending record
    /// is needed only where the answer comes before the results.
    pub async fn accepted(self: &Arc<Tap>, verifying: Verifying, until: Instant) -> Taken {
        let Verifying { pending, is_from_inside, mut task, results, queue_id } = verifying;
        let way = pending.way.clone();
        let with_id = move |mut record: Inbound| {
            record.queue_id = queue_id.clone().or(record.queue_id);
            record.within_limits()
        };
        let record = results.as_ref().map_or(pending, |results| results.record.clone());
        let record = with_id(record);
        let is_late = results.is_none();
        if is_late {
            Counts::add(&self.counts.of(record.tap).late);
        }
        let tap = Arc::clone(self);
        let (told, hears) = oneshot::channel();
        tokio::spawn(async move {
            tap.remember(&record).await;
            // Whoever waited may be gone: then nobody is told.
            let _ = told.send(());
            if is_late && let Ok(results) = (&mut task.0).await {
                tap.remember(&with_id(results.record)).await;
            }
        });
        let _ = timeout_at(until, hears).await;
        Taken { way, is_from_inside, results }
    }

    /// Takes a message in that another program verified. SPF is asked here where it did not.
    pub async fn take_verified(
        self: &Arc<Tap>,
        seen: Seen,
        said: Said,
        spam: Option<SpamScore>,
    ) -> Taken {
        let until = Instant::now() + self.settings.wait;
        let mut verifying = self.begin_by(seen, Means::Said(said, spam));
        verifying.wait(self.patience()).await;
        self.accepted(verifying, until).await
    }

    /// Remembers a record that is complete from the start, as others verified it.
    pub async fn remember(&self, record: &Inbound) {
        let failed = match timeout(STORE_DEADLINE, self.store.remember(record)).await {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => fault.to_string(),
            Err(_elapsed) => "the store did not answer in time".to_owned(),
        };
        Counts::add(&self.counts.of(record.tap).store_failed);
        warn!(%failed, "an inbound message is not remembered");
    }

    /// The complete record of what another program verified, at most SPF left out.
    async fn completed(
        &self,
        arrival: Arrival,
        header: &[u8],
        mut said: Said,
        spam: Option<SpamScore>,
        deadline: Instant,
    ) -> Results {
        if said.spf.is_none()
            && let Some(spf) = self.spf(&arrival.record, arrival.spf.clone(), deadline).await
        {
            (said.spf, said.everybody) = (Some(spf.result), spf.everybody);
        }
        Results { record: complete(arrival, header, &said, spam), dmarc: None }
    }

    /// The complete record.
    async fn verified(
        &self,
        arrival: Arrival,
        message: Bytes,
        kept: Kept,
        deadline: Instant,
    ) -> Results {
        let Arrival { mut record, spf, is_verified, gateways, .. } = arrival;
        record.state = State::Complete;
        if !is_verified {
            return Results { record, dmarc: None };
        }
        let mut author = Author::of(&split(&message).0);
        if kept == Kept::PartOfHeader {
            // Why: another From may stand in the part that was not read.
            author.sign = Some(AuthorSign::Unreadable);
        }
        let Ok(_place) = self.places.try_acquire() else {
            Counts::add(&self.counts.of(record.tap).overloaded);
            let detail = "too many messages were being verified";
            record.gaps.push(Gap::new(GapCause::NotEvaluated, detail));
            record.findings = vec![findings(&record, &author, None, None)];
            return Results { record, dmarc: None };
        };
        let (spf, report, own, sealed) = tokio::join!(
            self.spf(&record, spf, deadline),
            self.signatures(message.clone(), kept, deadline),
            self.facts_of(author_domain(&author), deadline),
            self.seals(message, kept, &record, author.sign, deadline),
        );
        if kept != Kept::Whole {
            let detail = "not all of it was read: `tap.inspect_max`";
            record.gaps.push(Gap::new(GapCause::Truncated, detail));
        }
        if let Some(left_out @ 1..) = report.as_ref().map(|report| report.signatures_left_out) {
            let detail = format!("{left_out} signatures behind the first ones");
            record.gaps.push(Gap::new(GapCause::NotEvaluated, &detail));
        }
        let mut findings = findings(&record, &author, spf, report.as_ref());
        let dmarc = self.dmarc(&author, &findings, own, deadline).await;
        // Why: SPF of a client that a gateway hides could have passed.
        let hidden = GapCause::BehindRelay.is_among(&record.gaps);
        let dmarc = dmarc.filter(|(found, _)| !hidden || found.result != AuthResult::Fail);
        findings.evaluated.dmarc = dmarc.is_some();
        let stands = dmarc.clone().filter(|(_, rests)| may_stand(*rests, &findings));
        findings.dmarc.extend(stands.map(|(dmarc, _)| dmarc));
        let gateways = gateways.map(|said| looked_through(said, findings.spf.first()));
        // Why seals first: SPF of a forwarder's own address fails whom the forwarder saw pass.
        record.findings = sealed.into_iter().chain([findings]).chain(gateways).collect();
        Results { record: record.within_limits(), dmarc: dmarc.map(|(dmarc, _)| dmarc) }
    }

    async fn spf(
        &self,
        record: &Inbound,
        client: Option<(std::net::IpAddr, String)>,
        deadline: Instant,
    ) -> Option<SpfFinding> {
        let (ip, helo) = client?;
        record.mail_from.address()?;
        let asking = self.inquiry.facts.spf(ip, &helo, &record.mail_from);
        let finding = match timeout_at(deadline, asking).await {
            Ok(outcome) => spf_finding(Some(&record.mail_from), ip, &outcome),
            Err(_elapsed) => {
                let address = record.mail_from.address().cloned();
                let domain = address.as_ref().and_then(Address::domain).cloned();
                SpfFinding { address, ..SpfFinding::of(AuthResult::TempError, domain) }
            }
        };
        Some(finding)
    }

    /// What the signatures say; `None` where the header is not whole, or time ran out.
    async fn signatures(&self, message: Bytes, kept: Kept, until: Instant) -> Option<DkimReport> {
        let extent = match kept {
            Kept::Whole => Extent::Whole,
            Kept::Header => Extent::Header,
            Kept::PartOfHeader => return None,
        };
        let now = self.now();
        let prepared = match message.len() <= VERIFIED_INLINE_BYTES_MAX {
            true => {
                let prepared = Prepared::read(&message, extent, now);
                drop(message);
                prepared
            }
            false => {
                let hashing = move || Prepared::read(&message, extent, now);
                tokio::task::spawn_blocking(hashing).await.ok()?
            }
        };
        timeout_at(until, self.inquiry.facts.dkim(prepared)).await.ok()
    }

    /// What forwarders that are believed found out before they passed the message on (RFC 8617).
    async fn seals(
        &self,
        message: Bytes,
        kept: Kept,
        record: &Inbound,
        author_sign: Option<AuthorSign>,
        until: Instant,
    ) -> Vec<Findings> {
        let in_force = self.inquiry.in_force();
        let policy = &in_force.policy;
        if policy.arc_sealers.is_empty() || kept != Kept::Whole {
            return Vec::new();
        }
        let asking = self.inquiry.seals(message, record.arrived, policy);
        let Ok(Some(report)) = timeout_at(until, asking).await else { return Vec::new() };
        let sets = report.believed(&policy.arc_sealers).iter().filter_map(|set| {
            let identities = Identities {
                mail_from: None,
                from: record.from.clone(),
                sender: record.sender.clone(),
                author_sign,
            };
            Some(sealed(set.results.as_ref()?, &set.sealer, identities))
        });
        sets.collect()
    }

    async fn facts_of(
        &self,
        domain: Option<&Domain>,
        until: Instant,
    ) -> BTreeMap<Domain, DomainFacts> {
        let Some(domain) = domain else { return BTreeMap::new() };
        let facts = timeout_at(until, self.inquiry.facts.ask(domain)).await;
        facts.map(|facts| BTreeMap::from([(domain.clone(), facts)])).unwrap_or_default()
    }

    /// DMARC of the author's domain (RFC 9989 §4.4); `None` where nobody is its author.
    async fn dmarc(
        &self,
        author: &Author,
        findings: &Findings,
        mut facts: BTreeMap<Domain, DomainFacts>,
        until: Instant,
    ) -> Option<(DmarcFinding, Rests)> {
        let domain = author_domain(author)?;
        let passed = |result: AuthResult| result == AuthResult::Pass;
        let dkim = findings.dkim.iter().filter(|dkim| passed(dkim.result));
        let dkim: Vec<&Domain> = dkim.filter_map(|dkim| dkim.domain.as_ref()).collect();
        let spf = findings.spf.iter();
        let spf = spf.filter(|spf| passed(spf.result) && spf.scope == SpfScope::MailFrom);
        let spf: Vec<&Domain> = spf.filter_map(|spf| spf.domain.as_ref()).collect();
        for other in dkim.iter().chain(&spf) {
            if *other != domain && shares_registrable(domain, other) {
                facts.append(&mut self.facts_of(Some(other), until).await);
            }
        }
        let dmarc = |result, rests| {
            Some((DmarcFinding { result, from_domain: Some(domain.clone()) }, rests))
        };
        let Some(Ok(found)) = facts.get(domain).map(|facts| &facts.dmarc) else {
            return dmarc(AuthResult::TempError, Rests::Nothing);
        };
        let Some(record) = &found.record else {
            return dmarc(AuthResult::None, Rests::Nothing);
        };
        let dkim = dkim.iter().map(|other| (other, record.dkim_alignment, Rests::Signature));
        let spf = spf.iter().map(|other| (other, record.spf_alignment, Rests::Path));
        let is_open = |result: AuthResult| result == AuthResult::TempError;
        let mut open = findings.spf.iter().any(|spf| is_open(spf.result))
            || findings.dkim.iter().any(|dkim| is_open(dkim.result) || dkim.header_only)
            || !findings.evaluated.dkim;
        for (other, mode, rests) in dkim.chain(spf) {
            match aligned(domain, other, &facts, mode) {
                Aligned::Same | Aligned::InLine | Aligned::Sibling => {
                    return dmarc(AuthResult::Pass, rests);
                }
                Aligned::NotKnown => open = true,
                Aligned::No => {}
            }
        }
        let result = if open { AuthResult::TempError } else { AuthResult::Fail };
        dmarc(result, Rests::Nothing)
    }
}

/// What a DMARC result rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rests {
    Signature,
    Path,
    Nothing,
}

/// The domain that wrote it; `None` where From names nobody, or several.
fn author_domain(author: &Author) -> Option<&Domain> {
    author.mailboxes.first().filter(|_| author.sign.is_none())?.domain()
}

/// Whether a DMARC result may stand in the record. A pass that rests on SPF of another address, or
/// of everybody, would prove an author whom nothing proves: any user of the domain could name him.
fn may_stand(rests: Rests, findings: &Findings) -> bool {
    let is_authors = |spf: &SpfFinding| {
        let address = spf.address.as_ref().filter(|_| spf.everybody.is_none());
        address.is_some_and(|address| findings.from.iter().all(|from| from.same_mailbox(address)))
    };
    rests != Rests::Path || findings.spf.iter().any(is_authors)
}

/// What a gateway's own line reports, as far as it can be believed: a pass that lets everybody in
/// proves nobody, one that was not asked again its domain at the most, and what DMARC passed by
/// without a signature stands no better. `own` is what SPF says of the client before the gateway.
fn looked_through(mut said: Findings, own: Option<&SpfFinding>) -> Findings {
    let own = own.filter(|own| own.result != AuthResult::TempError);
    for spf in said.spf.iter_mut().filter(|spf| spf.result == AuthResult::Pass) {
        match own.filter(|own| own.domain == spf.domain) {
            Some(own) => spf.everybody.clone_from(&own.everybody),
            None => (spf.address, said.mail_from) = (None, None),
        }
    }
    let is_narrow = own.is_some_and(|own| own.everybody.is_none());
    said.dmarc.retain(|dmarc| {
        let domain = dmarc.from_domain.as_ref();
        dmarc.result != AuthResult::Pass
            || is_narrow
            || domain.is_some_and(|domain| is_signed_near(&said.dkim, domain))
    });
    said
}

fn findings(
    record: &Inbound,
    author: &Author,
    spf: Option<SpfFinding>,
    report: Option<&DkimReport>,
) -> Findings {
    let signatures = report.map(|report| report.signatures.as_slice()).unwrap_or_default();
    let own_submission = match &record.way {
        Way::OwnSubmission(sign) => Some(sign.clone()),
        Way::Outside | Way::Reinjected | Way::BehindRelay(_) => None,
    };
    Findings {
        mail_from: Some(record.mail_from.clone()),
        from: author.mailboxes.clone(),
        sender: record.sender.clone(),
        evaluated: Evaluated { spf: spf.is_some(), dkim: report.is_some(), dmarc: false },
        spf: spf.into_iter().collect(),
        dkim: signatures.iter().map(|outcome| outcome.finding()).collect(),
        own_submission,
        author_sign: author.sign,
        ..Findings::of(Source::Tap)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use arc_swap::ArcSwap;

    use super::*;
    use crate::auth::spf::SpfOutcome;
    use crate::guard::clock::Clock;
    use crate::guard::evidence::{Asking, Facts};
    use crate::guard::inquiry::InForce;
    use crate::guard::loops::LoopMemory;
    use crate::judge::correlation::Recalled;
    use crate::judge::evidence::{
        Alignment, DkimFinding, DmarcFacts, DmarcPolicy, DmarcRecord, Receives,
    };
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::policy::Policy;
    use crate::judge::site::Site;
    use crate::judge::subject::{LookUp, TapKind};
    use crate::judge::trace::TraceKey;
    use crate::mail::address::ReversePath;
    use crate::store::answers::Answers;
    use crate::store::null::Null;
    use crate::store::{self, Health, Request, StoreError};

    const SECOND: Duration = Duration::from_secs(1);

    /// A DNS in which everybody publishes DMARC and passes SPF, after a while.
    struct Zone(Duration);

    impl Facts for Zone {
        fn ask<'a>(&'a self, domain: &'a Domain) -> Asking<'a, DomainFacts> {
            let record = DmarcRecord {
                published_at: domain.clone(),
                policy: DmarcPolicy::Reject,
                dkim_alignment: Alignment::Relaxed,
                spf_alignment: Alignment::Relaxed,
            };
            let organizational = domain.parent().filter(|parent| parent.label_count() > 1);
            let dmarc = DmarcFacts {
                organizational: organizational.unwrap_or(domain.clone()),
                record: Some(record),
                above: None,
            };
            Box::pin(async { DomainFacts { dmarc: Ok(dmarc), receives: Ok(Receives::Yes) } })
        }

        fn spf<'a>(
            &'a self,
            _: std::net::IpAddr,
            _: &'a str,
            mail_from: &'a ReversePath,
        ) -> Asking<'a, SpfOutcome> {
            let domain = mail_from.address().and_then(Address::domain).unwrap().to_string();
            Box::pin(async {
                tokio::time::sleep(self.0).await;
                SpfOutcome {
                    result: AuthResult::Pass,
                    scope: SpfScope::MailFrom,
                    domain,
                    matched: None,
                    reason: None,
                    is_guessed: false,
                }
            })
        }

        fn dkim(&self, _: Prepared) -> Asking<'_, DkimReport> {
            let author = Author { mailboxes: Vec::new(), sign: None };
            Box::pin(async {
                DkimReport { signatures: Vec::new(), signatures_left_out: 0, author }
            })
        }
    }

    /// A store that keeps a list, and fails when told to.
    #[derive(Default)]
    pub(crate) struct Shelf {
        pub(crate) records: Mutex<Vec<Inbound>>,
        is_stuck: AtomicBool,
        is_full: AtomicBool,
    }

    impl Store for Shelf {
        fn remember<'a>(&'a self, record: &'a Inbound) -> store::Asking<'a, ()> {
            Box::pin(async {
                if self.is_stuck.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                if self.is_full.load(Ordering::Relaxed) {
                    return Err(StoreError::Failed("disk full".to_owned()));
                }
                self.records.lock().unwrap().push(record.clone());
                Ok(())
            })
        }

        fn recall<'a>(&'a self, request: &'a Request) -> store::Asking<'a, Vec<Recalled>> {
            Null.recall(request)
        }

        fn answered<'a>(
            &'a self,
            _: InboundId,
            _: &'a Address,
            _: Timestamp,
        ) -> store::Asking<'a, ()> {
            Box::pin(async { Ok(()) })
        }

        fn expire(&self, _: Timestamp) -> store::Asking<'_, usize> {
            Box::pin(async { Ok(0) })
        }

        fn flush(&self) -> store::Asking<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn health(&self) -> Health {
            Health::default()
        }
    }

    pub(crate) fn tap(answers_after: Duration) -> (Arc<Tap>, Arc<Shelf>) {
        let hosts = ["mx.ours.example".to_owned()].into();
        let policy = Policy { site: Site { hosts, ..Site::default() }, ..Policy::default() };
        let inquiry = Inquiry {
            facts: Arc::new(Zone(answers_after)),
            store: Arc::new(Null),
            is_tapped: false,
            answers: Answers::new([1; 32]),
            loops: LoopMemory::blank(FingerprintKey::new([3; 32])),
            clock: Clock::From(Timestamp::from_millis(1_600_000_000_000), Instant::now()),
            loop_site: "here".to_owned(),
            trace_key: TraceKey::new([2; 32]),
            fingerprint_key: FingerprintKey::new([3; 32]),
            policy: ArcSwap::from_pointee(InForce::new(policy)),
        };
        let shelf = Arc::new(Shelf::default());
        let settings = Settings { wait: SECOND * 2, spam_field: None };
        let store = Arc::<Shelf>::clone(&shelf);
        (Tap::new(Arc::new(inquiry), store, settings), shelf)
    }

    fn seen(tap: &Tap, mail_from: &str, from: &str) -> Seen {
        Seen {
            id: tap.new_id(),
            tap: TapKind::Milter,
            host: "mx.ours.example".to_owned(),
            queue_id: Some("4ABC".to_owned()),
            began: tap.now(),
            arrived: tap.now(),
            client: Some("192.0.2.55".parse().unwrap()),
            helo: "x".to_owned(),
            authenticated: None,
            mail_from: ReversePath::Address(Address::parse(mail_from).unwrap()),
            envelope_id: None,
            recipients: vec![Address::parse("alice@ours.example").unwrap()],
            message: format!("From: {from}\r\nMessage-ID: <1@far.example>\r\n\r\n").into(),
            spam_field: None,
        }
    }

    async fn take(tap: &Arc<Tap>) -> (Taken, Duration) {
        let began = Instant::now();
        let seen = seen(tap, "joe@far.example", "joe@far.example");
        (tap.take(seen, Kept::Whole).await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_verified_in_time_is_written_once() {
        let (tap, shelf) = tap(SECOND);
        let (taken, waited) = take(&tap).await;
        assert_eq!(waited, SECOND);
        let records = shelf.records.lock().unwrap().clone();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].state, State::Complete);
        assert_eq!(records[0].findings[0].spf[0].result, AuthResult::Pass);
        assert!(records[0].look_ups().contains(&LookUp::QueueId("4ABC".to_owned())));
        assert_eq!(taken.results.unwrap().dmarc.unwrap().result, AuthResult::Pass);
    }

    /// Goal: a slow zone holds nobody up and is not forgotten. Method: it answers after 6 s.
    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_pending_first_and_complete_later() {
        let (tap, shelf) = tap(SECOND * 6);
        let (taken, waited) = take(&tap).await;
        assert!(taken.results.is_none() && waited <= SECOND * 2, "{waited:?}");
        let states = || {
            let records = shelf.records.lock().unwrap();
            records.iter().map(|record| (record.id, record.state)).collect::<Vec<_>>()
        };
        let id = states()[0].0;
        assert_eq!(states(), [(id, State::Pending)]);
        tokio::time::sleep(SECOND * 7).await;
        assert_eq!(states(), [(id, State::Pending), (id, State::Complete)]);
        assert_eq!(tap.counts().of(TapKind::Milter).late.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_that_never_answers_ends_as_a_temporary_error() {
        let (tap, shelf) = tap(SECOND * 3600);
        take(&tap).await;
        tokio::time::sleep(VERIFICATION_TIME_MAX).await;
        let records = shelf.records.lock().unwrap();
        let findings = &records[1].findings[0];
        assert_eq!(findings.spf[0].result, AuthResult::TempError);
        assert_eq!(findings.dmarc[0].result, AuthResult::TempError);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_store_holds_nobody_up() {
        for (stuck, full) in [(true, false), (false, true)] {
            let (tap, shelf) = tap(Duration::ZERO);
            shelf.is_stuck.store(stuck, Ordering::Relaxed);
            shelf.is_full.store(full, Ordering::Relaxed);
            let (_, waited) = take(&tap).await;
            assert!(waited <= SECOND * 2, "{waited:?}");
            tokio::time::sleep(STORE_DEADLINE).await;
            assert_eq!(tap.counts().of(TapKind::Milter).store_failed.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_bound_messages_are_recorded_unverified() {
        let (tap, shelf) = tap(SECOND);
        let _all = tap.places.try_acquire_many(u32::try_from(TAP_VERIFICATIONS_MAX).unwrap());
        let (_, waited) = take(&tap).await;
        assert_eq!(waited, Duration::ZERO);
        let records = shelf.records.lock().unwrap();
        assert_eq!(records[0].gaps[0].cause, GapCause::NotEvaluated);
        assert_eq!(records[0].findings[0].evaluated, Evaluated::default());
    }

    /// Goal: a pass that rests on another address of the domain does not name its author. Method:
    /// SPF passes for one user and From names another, then the same one.
    #[tokio::test(start_paused = true)]
    async fn an_author_is_not_proven_by_spf_of_somebody_else() {
        let (tap, shelf) = tap(Duration::ZERO);
        for (from, recorded) in [("ceo@far.example", 0), ("joe@far.example", 1)] {
            let taken = tap.take(seen(&tap, "joe@far.example", from), Kept::Whole).await;
            assert_eq!(taken.results.unwrap().dmarc.unwrap().result, AuthResult::Pass);
            let record = shelf.records.lock().unwrap().pop().unwrap();
            assert_eq!(record.findings[0].dmarc.len(), recorded, "{from}");
        }
    }

    /// Goal: whoever comes through a gateway that hides him did not fail. Method: a client with a
    /// private address, so that SPF cannot be asked.
    #[tokio::test(start_paused = true)]
    async fn behind_a_gateway_that_hides_the_client_nothing_failed() {
        let (tap, shelf) = tap(Duration::ZERO);
        let hidden = Some("10.0.0.7".parse().unwrap());
        let seen = Seen { client: hidden, ..seen(&tap, "joe@far.example", "joe@far.example") };
        assert!(tap.take(seen, Kept::Whole).await.results.unwrap().dmarc.is_none());
        let record = shelf.records.lock().unwrap().pop().unwrap();
        assert_eq!(
            record.findings[0].evaluated,
            Evaluated { spf: false, dkim: true, dmarc: false }
        );
        assert_eq!(
            (&record.findings[0].spf[..], &record.findings[0].dmarc[..]),
            (&[][..], &[][..])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn dmarc_is_of_the_authors_domain_and_its_organization() {
        let (tap, _) = tap(Duration::ZERO);
        for (mail_from, from, result) in [
            ("x@bounce.far.example", "joe@far.example", AuthResult::Pass),
            ("x@far.example", "joe@mail.far.example", AuthResult::Pass),
            ("x@forger.example", "victim@bank.example", AuthResult::Fail),
        ] {
            let taken = tap.take(seen(&tap, mail_from, from), Kept::Whole).await;
            assert_eq!(taken.results.unwrap().dmarc.unwrap().result, result, "{mail_from} {from}");
        }
        let nobody = tap.take(seen(&tap, "x@far.example", "a@b.example, c@d.example"), Kept::Whole);
        assert!(nobody.await.results.unwrap().dmarc.is_none());
    }

    /// A gateway says that SPF passed, or DMARC; what SPF says of its client decides how much of it
    /// counts.
    #[test]
    fn a_gateways_passes_are_looked_through() {
        let domain = Domain::parse("bank.example");
        let address = Address::parse("joe@bank.example");
        let spf = |result, everybody: Option<&str>| SpfFinding {
            address: address.clone(),
            everybody: everybody.map(str::to_owned),
            ..SpfFinding::of(result, domain.clone())
        };
        let signature = |by: &str| DkimFinding::of(AuthResult::Pass, Domain::parse(by));
        let said = |dkim: &[&str]| Findings {
            mail_from: address.clone().map(ReversePath::Address),
            from: address.iter().cloned().collect(),
            spf: vec![spf(AuthResult::Pass, None)],
            dkim: dkim.iter().map(|by| signature(by)).collect(),
            dmarc: vec![DmarcFinding { result: AuthResult::Pass, from_domain: domain.clone() }],
            evaluated: Evaluated::ALL,
            ..Findings::of(Source::AuthResults { authserv_id: "gw.example".to_owned() })
        };
        let (pass, silent) = (AuthResult::Pass, AuthResult::TempError);
        for (own, dkim, everybody, has_address, has_dmarc) in [
            (Some(spf(pass, None)), &[][..], false, true, true),
            (Some(spf(pass, Some("+all"))), &[], true, true, false),
            (Some(spf(pass, Some("+all"))), &["mail.bank.example"], true, true, true),
            (Some(spf(pass, Some("+all"))), &["spam.example"], true, true, false),
            (Some(spf(silent, None)), &[], false, false, false),
            (None, &[], false, false, false),
            (None, &["bank.example"], false, false, true),
        ] {
            let found = looked_through(said(dkim), own.as_ref());
            let shown = (found.spf[0].everybody.is_some(), found.spf[0].address.is_some());
            assert_eq!(shown, (everybody, has_address), "{own:?} {dkim:?}");
            assert_eq!(found.mail_from.is_some(), has_address, "{own:?} {dkim:?}");
            assert_eq!(found.dmarc.len(), usize::from(has_dmarc), "{own:?} {dkim:?}");
        }
    }
}
