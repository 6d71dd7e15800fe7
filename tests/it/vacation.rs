//! Replies that embed nothing of what they answer, judged by what a tap saw come in.
//!
//! Goal: each way to poison the memory, and each kind of genuine reply, as records in and decisions
//! out. Method: records put into a store as a tap does it, then replies through `Inquiry`; what is
//! delivered is noted as the daemon notes it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use replyguard::guard::clock::Clock;
use replyguard::guard::evidence::Facts;
use replyguard::guard::inquiry::{Explained, InForce, Inquiry};
use replyguard::guard::loops::LoopMemory;
use replyguard::guard::outcome::Outcome;
use replyguard::judge::decision::Action;
use replyguard::judge::evidence::{
    AuthResult, DkimFinding, DmarcFinding, Evaluated, Findings, Gap, GapCause, Source, SpfFinding,
};
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::original::SubjectKind;
use replyguard::judge::policy::{Mode, Policy};
use replyguard::judge::site::Site;
use replyguard::judge::subject::{Inbound, InboundId, SpamScore, State, TapKind, Way};
use replyguard::judge::trace::TraceKey;
use replyguard::mail::address::{Address, Domain, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::Completeness;
use replyguard::mail::limits_of_memory::PENDING_WAIT_MAX;
use replyguard::mail::message::Message;
use replyguard::mail::reply::Reply;
use replyguard::mail::time::Timestamp;
use replyguard::store::answers::Answers;
use replyguard::store::embedded::{Embedded, Keys};
use replyguard::store::keyed::StoreKey;
use replyguard::store::memory::{self, Memory};
use replyguard::store::{Asking, Health, Request, Store, StoreError, embedded};

use crate::rig::ThoughtUp;

/// 2026-11-21 17:38:59 UTC.
const START: Timestamp = Timestamp::from_millis(1_795_282_739_000);

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// A site with a tap: what came in is in `store`, replies go through `inquiry`.
pub struct Desk {
    pub store: Arc<dyn Store>,
    pub inquiry: Arc<Inquiry>,
    number: std::cell::Cell<u32>,
}

fn desk_over(store: Arc<dyn Store>, change: impl FnOnce(&mut Policy)) -> Desk {
    desk_with(Arc::new(ThoughtUp), START, store, change)
}

/// The same with a DNS, at a time.
pub fn desk_with(
    facts: Arc<dyn Facts>,
    start: Timestamp,
    store: Arc<dyn Store>,
    change: impl FnOnce(&mut Policy),
) -> Desk {
    let site = Site {
        domains: [domain("uni.example")].into(),
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        hosts: ["mx.uni.example".to_owned()].into(),
        ..Site::default()
    };
    let mut policy = Policy { mode: Mode::Enforce, site, ..Policy::default() };
    change(&mut policy);
    let inquiry = Inquiry {
        facts,
        store: Arc::clone(&store),
        is_tapped: true,
        answers: Answers::new([1; 32]),
        loops: LoopMemory::blank(FingerprintKey::new([3; 32])),
        clock: Clock::From(start, tokio::time::Instant::now()),
        loop_site: "here".to_owned(),
        trace_key: TraceKey::new([2; 32]),
        fingerprint_key: FingerprintKey::new([3; 32]),
        policy: ArcSwap::from_pointee(InForce::new(policy)),
    };
    Desk { store, inquiry: Arc::new(inquiry), number: std::cell::Cell::new(0) }
}

pub fn memory() -> Arc<dyn Store> {
    let retention = Duration::from_secs(7 * 86_400);
    let bounds = memory::Settings { retention, records_max: 100_000, bytes_max: 64 << 20 };
    Arc::new(Memory::new(bounds, Arc::new(StoreKey::new([1; 32]))))
}

pub fn desk() -> Desk {
    desk_over(memory(), |_| {})
}

/// What the tap found, written as `spf=pass joe@bank.example dkim=pass bank.example`; then DMARC of
/// the From domain as it follows.
fn findings(results: &str, mail_from: &str, from: &str) -> Findings {
    let mut findings = Findings {
        mail_from: Some(ReversePath::Address(address(mail_from))),
        from: vec![address(from)],
        evaluated: Evaluated::ALL,
        ..Findings::of(Source::Tap)
    };
    let words: Vec<&str> = results.split(' ').filter(|word| !word.is_empty()).collect();
    for pair in words.chunks(2) {
        let (method, result) = pair[0].split_once('=').unwrap();
        let result = AuthResult::parse(result).unwrap();
        let named = Domain::parse(pair[1].rsplit('@').next().unwrap());
        match method {
            "spf" => findings.spf.push(SpfFinding {
                address: Address::parse(pair[1]),
                ..SpfFinding::of(result, named)
            }),
            "dkim" => findings.dkim.push(DkimFinding::of(result, named)),
            _ => findings.dmarc.push(DmarcFinding { result, from_domain: named }),
        }
    }
    findings
}

impl Desk {
    /// A message comes in, now.
    pub fn inbound(&self, results: &str, mail_from: &str, from: &str) -> Inbound {
        let (number, at) = (self.number.get() + 1, self.inquiry.now());
        self.number.set(number);
        Inbound {
            id: InboundId::new(at, number.into()),
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: Some(format!("Q{number}")),
            began: at,
            arrived: at,
            state: State::Complete,
            client: Some("192.0.2.10".parse().unwrap()),
            helo: "host.example".to_owned(),
            way: Way::Outside,
            mail_from: ReversePath::Address(address(mail_from)),
            envelope_id: None,
            recipients: vec![address("ann@uni.example")],
            message_ids: vec![format!("m{number}@host.example")],
            from: vec![address(from)],
            sender: None,
            reply_to: Vec::new(),
            notify: Vec::new(),
            kind: SubjectKind::default(),
            spam: None,
            findings: vec![findings(results, mail_from, from)],
            gaps: Vec::new(),
        }
    }

    pub fn genuine(&self) -> Inbound {
        let results = "spf=pass joe@bank.example dkim=pass bank.example dmarc=pass bank.example";
        self.inbound(results, "joe@bank.example", "joe@bank.example")
    }

    fn forged(&self) -> Inbound {
        let results = "spf=fail joe@bank.example dmarc=fail bank.example";
        self.inbound(results, "joe@bank.example", "joe@bank.example")
    }

    pub async fn came(&self, record: Inbound) -> Inbound {
        self.store.remember(&record).await.unwrap();
        record
    }

    pub async fn later(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// A reply of ann to `to`, which names what it answers by `header`.
    pub async fn explained(&self, to: &str, header: &str) -> Explained {
        let date = self.inquiry.now().header_date();
        let text = format!(
            "Return-Path: <>\nDate: {date}\nFrom: Ann <ann@uni.example>\nTo: {to}\n\
             Subject: Away\nAuto-Submitted: auto-replied (vacation)\n{header}\nI am away.\n"
        );
        let message = Message::new(text.replace('\n', "\r\n"), Completeness::Whole);
        let envelope = envelope(to);
        let explained = self.inquiry.explain(&envelope, &message).await;
        if explained.decisions[0].action == Action::Deliver {
            let outcome = [Outcome::Relayed(Reply::new(250, "2.0.0", "ok"))];
            let (case, evidence) = (&explained.case, &explained.evidence);
            self.inquiry.note_answers(case, evidence, &outcome, self.inquiry.now()).await;
        }
        explained
    }

    /// `action reason`, and by what the message was found: `deliver authenticated pair 1`.
    pub async fn reply(&self, to: &str, header: &str) -> String {
        let explained = self.explained(to, header).await;
        let decision = &explained.decisions[0];
        let answered = explained.evidence.recipients[0].answered.as_ref();
        let by = answered.map(|found| format!(" {} {}", found.by.as_str(), found.candidates));
        format!("{} {}{}", decision.action, decision.reason, by.unwrap_or_default())
    }

    pub async fn vacation(&self) -> String {
        self.reply("joe@bank.example", "").await
    }
}

pub fn envelope(to: &str) -> Envelope {
    let recipient = Recipient {
        path: ForwardPath::Address(address(to)),
        path_text: format!("<{to}>"),
        parameters: Parameters::default(),
    };
    Envelope {
        client: Client { ip: Some("127.0.0.1".parse().unwrap()), ..Client::default() },
        mail: MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        },
        recipients: vec![recipient],
    }
}

pub fn in_reply_to(record: &Inbound) -> String {
    format!("In-Reply-To: <{}>\n", record.message_ids[0])
}

#[tokio::test(start_paused = true)]
async fn a_genuine_sender_gets_the_reply_and_a_forged_one_does_not() {
    let desk = desk();
    let genuine = desk.came(desk.genuine()).await;
    desk.later(2).await;
    let named = in_reply_to(&genuine);
    assert_eq!(desk.reply("joe@bank.example", &named).await, "deliver authenticated message-id 1");
    desk.later(3600).await;
    let forged = desk.came(desk.forged()).await;
    desk.later(2).await;
    assert_eq!(desk.vacation().await, "quarantine failed-spf pair 1");
    let named = in_reply_to(&forged);
    assert_eq!(desk.reply("joe@bank.example", &named).await, "quarantine failed-spf message-id 1");
}

#[tokio::test(start_paused = true)]
async fn half_of_two_hundred_are_forged_and_none_of_those_is_answered() {
    let desk = desk();
    let mut delivered = 0;
    for n in 0..200 {
        let (from, is_genuine) = (format!("u{n}@bank.example"), n % 2 == 0);
        let results = match is_genuine {
            true => format!("spf=pass {from}"),
            false => format!("spf=fail {from}"),
        };
        desk.came(desk.inbound(&results, &from, &from)).await;
        desk.later(1).await;
        let answer = desk.reply(&from, "").await;
        assert_eq!(answer.starts_with("deliver"), is_genuine, "{from} {answer}");
        delivered += u32::from(answer.starts_with("deliver"));
    }
    assert_eq!(delivered, 100);
}

#[tokio::test(start_paused = true)]
async fn a_forged_mail_before_a_genuine_one_does_not_silence_it() {
    let desk = desk();
    let genuine = desk.genuine();
    desk.came(Inbound { message_ids: genuine.message_ids.clone(), ..desk.forged() }).await;
    desk.later(300).await;
    assert_eq!(desk.vacation().await, "quarantine failed-spf pair 1");
    let arrived = desk.inquiry.now();
    let id = InboundId::new(arrived, 77);
    let genuine = desk.came(Inbound { id, began: arrived, arrived, ..genuine }).await;
    desk.later(2).await;
    let named = in_reply_to(&genuine);
    assert_eq!(desk.reply("joe@bank.example", &named).await, "deliver authenticated message-id 2");
    assert_eq!(desk.vacation().await, "quarantine failed-spf pair 2");
}

#[tokio::test(start_paused = true)]
async fn a_forger_who_reuses_a_genuine_message_id_is_the_nearest() {
    let desk = desk();
    let genuine = desk.came(desk.genuine()).await;
    desk.later(5).await;
    let named = in_reply_to(&genuine);
    assert_eq!(desk.reply("joe@bank.example", &named).await, "deliver authenticated message-id 1");
    desk.later(86_400).await;
    desk.came(Inbound { message_ids: genuine.message_ids, ..desk.forged() }).await;
    desk.later(5).await;
    assert_eq!(desk.reply("joe@bank.example", &named).await, "quarantine failed-spf message-id 2");
}

#[tokio::test(start_paused = true)]
async fn of_two_within_a_minute_the_worst_counts() {
    let desk = desk();
    desk.came(desk.forged()).await;
    desk.later(30).await;
    desk.came(desk.genuine()).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine failed-spf pair 2");
}

#[tokio::test(start_paused = true)]
async fn a_spammer_with_a_passing_domain_of_his_own_points_at_nobody() {
    let desk = desk();
    let results = "spf=none joe@bank.example dkim=pass spam.example dmarc=pass spam.example";
    desk.came(desk.inbound(results, "joe@bank.example", "offer@spam.example")).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine failed-dmarc pair 1");
}

#[tokio::test(start_paused = true)]
async fn a_replayed_signature_proves_no_more_than_the_domain() {
    let desk = desk();
    // Signed for ann at the provider, sent again with another return path of it.
    let results =
        "spf=softfail joe@provider.example dkim=pass provider.example dmarc=pass provider.example";
    desk.came(desk.inbound(results, "joe@provider.example", "eve@provider.example")).await;
    desk.later(1).await;
    let answer = desk.reply("joe@provider.example", "").await;
    assert_eq!(answer, "deliver domain-only pair 1");
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_another_user_of_the_provider_is_limited() {
    let desk = desk();
    let results = "spf=pass eve@provider.example dkim=pass provider.example";
    let record = desk.inbound(results, "eve@provider.example", "eve@provider.example");
    let victim = address("victim@provider.example");
    let own = desk.came(Inbound { reply_to: vec![victim], ..record }).await;
    desk.later(1).await;
    let answer = desk.reply("victim@provider.example", &in_reply_to(&own)).await;
    assert_eq!(answer, "deliver domain-only message-id 1");
    // The helpdesk's own correspondent.
    let answer = desk.reply("eve@provider.example", &in_reply_to(&own)).await;
    assert_eq!(answer, "deliver authenticated message-id 1");
    // Somebody else's domain altogether.
    let record = desk.inbound(results, "eve@provider.example", "eve@provider.example");
    let victim = address("joe@bank.example");
    desk.came(Inbound { reply_to: vec![victim], ..record }).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine failed-dmarc pair 1");
}

#[tokio::test(start_paused = true)]
async fn what_came_as_list_traffic_or_automatic_is_not_answered() {
    let desk = desk();
    let list = SubjectKind { list: Some("List-Id: <x>".to_owned()), automatic: None };
    desk.came(Inbound { kind: list, ..desk.genuine() }).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine subject-list pair 1");
    desk.later(3600).await;
    let automatic = Some("Auto-Submitted: auto-generated".to_owned());
    let kind = SubjectKind { list: None, automatic };
    desk.came(Inbound { kind, ..desk.genuine() }).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine subject-automatic pair 1");
    desk.later(3600).await;
    desk.came(Inbound { mail_from: ReversePath::Null, ..desk.genuine() }).await;
    desk.later(1).await;
    assert_eq!(desk.vacation().await, "quarantine null-subject pair 1");
}

#[tokio::test(start_paused = true)]
async fn what_the_spam_filter_dislikes_is_answered_less_or_not_at_all() {
    let desk = desk_over(memory(), |policy| {
        policy.spam_limit = SpamScore::parse("5");
        policy.spam_suppress = SpamScore::parse("15");
    });
    for (score, expected) in [
        ("4.9", "deliver authenticated pair 1"),
        ("5", "deliver subject-spam pair 1"),
        ("15.5", "quarantine subject-spam pair 1"),
    ] {
        desk.came(Inbound { spam: SpamScore::parse(score), ..desk.genuine() }).await;
        desk.later(1).await;
        assert_eq!(desk.vacation().await, expected, "{score}");
        desk.later(3600).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_content_filter_gives_back_inherits() {
    let desk = desk();
    for is_genuine in [true, false] {
        let record = if is_genuine { desk.genuine() } else { desk.forged() };
        let first = desk.came(record).await;
        desk.later(3).await;
        let arrived = desk.inquiry.now();
        let back = Inbound {
            id: InboundId::new(arrived, 900),
            queue_id: Some("BACK".to_owned()),
            began: arrived,
            arrived,
            way: Way::Reinjected,
            client: None,
            findings: Vec::new(),
            ..first.clone()
        };
        desk.came(back).await;
        desk.later(1).await;
        let answer = desk.reply("joe@bank.example", &in_reply_to(&first)).await;
        let expected = match is_genuine {
            true => "deliver authenticated message-id 1",
            false => "quarantine failed-spf message-id 1",
        };
        assert_eq!(answer, expected);
        desk.later(3600).await;
    }
}

#[tokio::test(start_paused = true)]
async fn own_submission_proves_our_own_and_nobody_else() {
    let desk = desk();
    let sign = || Some("authenticated as ann".to_owned());
    let mut record = desk.inbound("", "joe@bank.example", "joe@bank.example");
    record.way = Way::OwnSubmission("authenticated as ann".to_owned());
    record.findings[0].own_submission = sign();
    record.findings[0].evaluated = Evaluated::default();
    desk.came(record).await;
    desk.later(1).await;
    // A hijacked account with an outside MAIL FROM.
    let answer = desk.vacation().await;
    assert!(answer.starts_with("deliver unknown"), "limited: {answer}");
}

#[tokio::test(start_paused = true)]
async fn what_came_through_a_gateway_that_hides_its_client_is_unknown() {
    let desk = desk();
    let mut record = Inbound {
        way: Way::BehindRelay("gw.uni.example".to_owned()),
        client: None,
        ..desk.inbound("", "joe@bank.example", "joe@bank.example")
    };
    // What the tap could ask: the message has no signature.
    record.findings[0].evaluated = Evaluated { dkim: true, ..Evaluated::default() };
    desk.came(record).await;
    desk.later(1).await;
    let explained = desk.explained("joe@bank.example", "").await;
    let decision = &explained.decisions[0];
    assert_eq!(decision.verdict.as_ref().and_then(|v| v.by()), Some("behind-relay"));
    assert_eq!(decision.action, Action::Deliver);
    assert!(decision.counts);
}

#[tokio::test(start_paused = true)]
async fn a_pending_record_is_waited_for_and_then_the_client_is_to_come_again() {
    let desk = desk();
    let complete = desk.genuine();
    let pending = Inbound { state: State::Pending, findings: Vec::new(), ..complete.clone() };
    desk.came(pending.clone()).await;
    desk.later(1).await;
    let began = desk.inquiry.now();
    let (answer, ()) = tokio::join!(desk.vacation(), async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        desk.came(complete.clone()).await;
    });
    assert_eq!(answer, "deliver authenticated pair 1");
    assert!(desk.inquiry.now().since(began) < Duration::from_secs(5));
    desk.came(pending).await;
    let began = desk.inquiry.now();
    assert_eq!(desk.vacation().await, "defer unresolved pair 1");
    assert!(desk.inquiry.now().since(began) >= PENDING_WAIT_MAX);
    // Its tap has died.
    desk.later(30).await;
    assert_eq!(desk.vacation().await, "deliver unknown pair 1");
}

#[tokio::test(start_paused = true)]
async fn nothing_in_the_store_is_unknown_and_limited() {
    let desk = desk();
    assert_eq!(desk.vacation().await, "deliver unknown");
    let explained = desk.explained("joe@bank.example", "").await;
    let decision = &explained.decisions[0];
    assert_eq!(decision.verdict.as_ref().and_then(|v| v.by()), Some("not-in-store"));
    assert!(decision.counts);
    let known = &explained.evidence.recipients[0];
    assert_eq!(known.gaps[0].cause, GapCause::NotInStore);
    // The genuine message of somebody else, named by whoever replies.
    let other = desk
        .came(desk.inbound("spf=pass x@plain.example", "x@plain.example", "x@plain.example"))
        .await;
    desk.later(1).await;
    let answer = desk.reply("joe@bank.example", &in_reply_to(&other)).await;
    assert_eq!(answer, "deliver unauthenticated message-id 1");
}

#[tokio::test(start_paused = true)]
async fn own_mailboxes_and_what_is_forwarded_are_not_looked_up() {
    let desk = desk_over(Arc::new(Broken), |_| {});
    let explained = desk.explained("bob@uni.example", "").await;
    assert_eq!(explained.evidence.recipients[0].gaps, []);
    let forwarded = "X-Sieve-Redirected-From: bob@uni.example\n";
    let explained = desk.explained("joe@bank.example", forwarded).await;
    assert_eq!(explained.decisions[0].reason.as_str(), "relayed-response");
    assert_eq!(explained.evidence.recipients[0].gaps, []);
}

/// A store that fails, and one that never answers.
struct Broken;
struct Silent;

impl Store for Broken {
    fn remember<'a>(&'a self, _record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(async { Err(StoreError::Busy) })
    }
    fn recall<'a>(
        &'a self,
        _request: &'a Request,
    ) -> Asking<'a, Vec<replyguard::judge::correlation::Recalled>> {
        Box::pin(async { Err(StoreError::Busy) })
    }
    fn answered<'a>(&'a self, _id: InboundId, _by: &'a Address, _at: Timestamp) -> Asking<'a, ()> {
        Box::pin(async { Err(StoreError::Busy) })
    }
    fn expire(&self, _now: Timestamp) -> Asking<'_, usize> {
        Box::pin(async { Err(StoreError::Busy) })
    }
    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(async { Err(StoreError::Busy) })
    }
    fn health(&self) -> Health {
        Health::default()
    }
}

impl Store for Silent {
    fn remember<'a>(&'a self, _record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(std::future::pending())
    }
    fn recall<'a>(
        &'a self,
        _request: &'a Request,
    ) -> Asking<'a, Vec<replyguard::judge::correlation::Recalled>> {
        Box::pin(std::future::pending())
    }
    fn answered<'a>(&'a self, _id: InboundId, _by: &'a Address, _at: Timestamp) -> Asking<'a, ()> {
        Box::pin(std::future::pending())
    }
    fn expire(&self, _now: Timestamp) -> Asking<'_, usize> {
        Box::pin(std::future::pending())
    }
    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn health(&self) -> Health {
        Health::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_a_gap_and_holds_nothing_up() {
    for store in [Arc::new(Broken) as Arc<dyn Store>, Arc::new(Silent)] {
        let desk = desk_over(store, |_| {});
        let began = desk.inquiry.now();
        let explained = desk.explained("joe@bank.example", "").await;
        assert_eq!(explained.decisions[0].reason.as_str(), "unknown");
        let gap: Vec<&Gap> = explained.evidence.recipients[0].gaps.iter().collect();
        assert_eq!(gap[0].cause, GapCause::Store);
        assert!(desk.inquiry.now().since(began) < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn the_embedded_store_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Duration::from_secs(7 * 86_400);
    let file = memory::Settings { retention, records_max: 100_000, bytes_max: 64 << 20 };
    let settings = embedded::Settings {
        path: folder.path().join("store.redb"),
        file,
        memory_bytes_max: 1 << 20,
        plain: false,
    };
    let keys = Keys { current: Arc::new(StoreKey::new([1; 32])), former: None };
    let (store, _) = Embedded::open(settings, keys).unwrap();
    let desk = desk_over(Arc::new(store), |_| {});
    desk.came(desk.genuine()).await;
    assert_eq!(desk.vacation().await, "deliver authenticated pair 1");
    let from = "eve@bank.example";
    desk.came(desk.inbound(&format!("spf=fail {from}"), from, from)).await;
    assert_eq!(desk.reply(from, "").await, "quarantine failed-spf pair 1");
}
