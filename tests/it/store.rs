//! The memory of inbound messages: one suite for every store, then what each promises alone.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use replyguard::judge::evidence::{
    AuthResult, DkimFinding, DmarcFinding, Evaluated, Findings, Gap, GapCause, Source, SpfFinding,
};
use replyguard::judge::original::SubjectKind;
use replyguard::judge::subject::{Inbound, InboundId, LookUp, SpamScore, State, TapKind, Way};
use replyguard::mail::address::{Address, Domain, ReversePath};
use replyguard::mail::limits::RECALLED_MAX;
use replyguard::mail::time::Timestamp;
use replyguard::store::embedded::{Embedded, Keys, OpenError, Settings, Snapshot};
use replyguard::store::keyed::StoreKey;
use replyguard::store::memory::{self, Memory};
use replyguard::store::null::Null;
use replyguard::store::{Request, Store};

const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
const DAY: Duration = Duration::from_secs(86_400);
pub const BOUNDS: memory::Settings = memory::Settings {
    retention: Duration::from_secs(7 * 86_400),
    records_max: 3200,
    bytes_max: 64 << 20,
};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A message number `n` from `from` to `to`, `n` milliseconds after `NOW`; everything in it set.
pub fn inbound(n: u32, from: &str, to: &str) -> Inbound {
    let at = NOW.plus(Duration::from_millis(n.into()));
    let domain = address(from).domain().cloned();
    let findings = Findings {
        mail_from: Some(ReversePath::Address(address(from))),
        from: vec![address(from)],
        spf: vec![SpfFinding {
            address: Some(address(from)),
            everybody: Some("+all".to_owned()),
            ..SpfFinding::of(AuthResult::SoftFail, domain.clone())
        }],
        dkim: vec![DkimFinding {
            signs_from: true,
            header_only: true,
            reason: Some("its key is gone".to_owned()),
            ..DkimFinding::of(AuthResult::Neutral, Domain::parse("esp.example"))
        }],
        dmarc: vec![DmarcFinding { result: AuthResult::None, from_domain: domain }],
        evaluated: Evaluated::ALL,
        ..Findings::of(Source::Tap)
    };
    Inbound {
        id: InboundId::new(at, n.into()),
        tap: TapKind::Milter,
        host: "mx.uni.example".to_owned(),
        queue_id: Some(format!("Q{n}")),
        began: at,
        arrived: at,
        state: State::Complete,
        client: Some(IpAddr::from([192, 0, 2, u8::try_from(n % 251).unwrap()])),
        helo: "mail.bank.example".to_owned(),
        way: Way::Outside,
        mail_from: ReversePath::Address(address(from)),
        envelope_id: None,
        recipients: vec![address(to)],
        message_ids: vec![format!("{n}@bank.example")],
        from: vec![address(from)],
        sender: None,
        reply_to: Vec::new(),
        notify: Vec::new(),
        kind: SubjectKind { list: Some("List-Id: x".to_owned()), automatic: None },
        spam: Some(SpamScore::from_thousandths(5100)),
        findings: vec![findings],
        gaps: vec![Gap::new(GapCause::BehindRelay, "gw.example")],
    }
}

pub fn by_id(id: &str) -> Request {
    request(LookUp::MessageId(id.to_owned()))
}

fn request(look_up: LookUp) -> Request {
    let now = NOW.plus(Duration::from_secs(60));
    Request { look_ups: vec![look_up], responder: Some(address("ann@uni.example")), now }
}

pub fn keys(byte: u8) -> Keys {
    Keys { current: Arc::new(StoreKey::new([byte; 32])), former: None }
}

pub fn settings(folder: &Path, file: memory::Settings) -> Settings {
    Settings { path: folder.join("store.redb"), file, memory_bytes_max: 16 << 20, plain: false }
}

fn embedded(folder: &Path) -> Embedded {
    let (store, damage) = Embedded::open(settings(folder, BOUNDS), keys(1)).unwrap();
    assert_eq!(damage, None);
    store
}

/// Every store that remembers, empty, within `bounds`. The embedded one twice: as it is, and with
/// so little memory that everything comes from its file.
fn stores(bounds: memory::Settings) -> Vec<(&'static str, Box<dyn Store>, tempfile::TempDir)> {
    let folder = || tempfile::tempdir().unwrap();
    let key = Arc::new(StoreKey::new([1; 32]));
    let mut all: Vec<(&'static str, Box<dyn Store>, tempfile::TempDir)> =
        vec![("memory", Box::new(Memory::new(bounds, key)), folder())];
    for (name, memory_bytes_max) in [("embedded", 16 << 20), ("embedded, file alone", 0)] {
        let folder = folder();
        let settings = Settings { memory_bytes_max, ..settings(folder.path(), bounds) };
        let (store, _) = Embedded::open(settings, keys(1)).unwrap();
        all.push((name, Box::new(store), folder));
    }
    all
}

async fn put(store: &dyn Store, record: &Inbound) {
    store.remember(record).await.unwrap();
}

/// The ids found for a name, latest first, once everything is written.
async fn found(store: &dyn Store, request: &Request) -> Vec<u128> {
    store.flush().await.unwrap();
    let found = store.recall(request).await.unwrap();
    found.iter().map(|found| found.record.id.as_u128() & 0xffff).collect()
}

#[tokio::test]
async fn a_record_is_recalled_whole_under_each_of_its_names() {
    for (name, store, _folder) in stores(BOUNDS) {
        let record = inbound(7, "joe@bank.example", "ann@uni.example");
        put(&*store, &record).await;
        put(&*store, &inbound(8, "eve@spam.example", "bob@uni.example")).await;
        store.flush().await.unwrap();
        for look_up in record.look_ups() {
            let recalled = store.recall(&request(look_up.clone())).await.unwrap();
            assert_eq!(recalled.len(), 1, "{name} {look_up:?}");
            assert_eq!(*recalled[0].record, record, "{name}");
            assert_eq!(recalled[0].answered, None);
        }
        let mut all = by_id("8@bank.example");
        all.look_ups.extend(record.look_ups());
        assert_eq!(found(&*store, &all).await, [8, 7], "{name}: each once, latest first");
        assert!(found(&*store, &by_id("9@bank.example")).await.is_empty(), "{name}");
        assert_eq!(store.health().lost, 0, "{name}");
    }
}

#[tokio::test]
async fn complete_replaces_pending_and_keeps_what_was_noted() {
    for (name, store, _folder) in stores(BOUNDS) {
        let complete = inbound(7, "joe@bank.example", "ann@uni.example");
        let pending = Inbound {
            state: State::Pending,
            findings: Vec::new(),
            message_ids: vec!["early@bank.example".to_owned()],
            ..complete.clone()
        };
        put(&*store, &pending).await;
        store.answered(pending.id, &address("ANN+x@uni.example"), NOW).await.unwrap();
        put(&*store, &complete).await;
        store.flush().await.unwrap();
        let recalled = store.recall(&by_id("7@bank.example")).await.unwrap();
        assert_eq!(*recalled[0].record, complete, "{name}");
        assert_eq!(recalled[0].answered, Some(NOW), "{name}");
        let other =
            Request { responder: Some(address("bob@uni.example")), ..by_id("7@bank.example") };
        assert_eq!(store.recall(&other).await.unwrap()[0].answered, None, "{name}");
        assert!(found(&*store, &by_id("early@bank.example")).await.is_empty(), "{name}");
        let embedded_counts = store.health().records;
        assert!(embedded_counts <= 1, "{name}: {embedded_counts}");
    }
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_not_given_and_goes_little_by_little() {
    for (name, store, _folder) in stores(BOUNDS) {
        for n in 0..5 {
            put(&*store, &inbound(n, "joe@bank.example", "ann@uni.example")).await;
        }
        let pair = LookUp::pair(&address("joe@bank.example"), &address("ann@uni.example"));
        let late = |after: Duration| Request { now: NOW.plus(after), ..request(pair.clone()) };
        assert_eq!(found(&*store, &late(7 * DAY)).await, [4, 3, 2, 1], "{name}");
        let soon = NOW.plus(7 * DAY + Duration::from_millis(2));
        assert_eq!(store.expire(soon).await.unwrap(), 3, "{name}");
        assert_eq!(store.expire(soon).await.unwrap(), 0, "{name}");
        assert_eq!(found(&*store, &late(6 * DAY)).await, [4, 3], "{name}");
        assert_eq!(store.health().records, 2, "{name}");
    }
}

#[tokio::test]
async fn of_one_name_the_latest_are_given() {
    for (name, store, _folder) in stores(BOUNDS) {
        let max = u32::try_from(RECALLED_MAX).unwrap();
        for n in 0..max + 5 {
            let record = Inbound {
                message_ids: vec!["same@bank.example".to_owned()],
                ..inbound(n, &format!("u{n}@bank.example"), "ann@uni.example")
            };
            put(&*store, &record).await;
        }
        let found = found(&*store, &by_id("same@bank.example")).await;
        assert_eq!(found.len(), RECALLED_MAX, "{name}");
        assert_eq!(found[0], u128::from(max) + 4, "{name}");
    }
}

#[tokio::test]
async fn records_and_bytes_are_bounded_and_the_oldest_go() {
    for bounds in [
        memory::Settings { records_max: 320, ..BOUNDS },
        memory::Settings { bytes_max: 320 * 900, ..BOUNDS },
    ] {
        for (name, store, _folder) in stores(bounds) {
            for n in 0..1000 {
                put(&*store, &inbound(n, &format!("u{n}@bank.example"), "ann@uni.example")).await;
            }
            store.flush().await.unwrap();
            let health = store.health();
            assert!((100..=400).contains(&health.records), "{name} {bounds:?} {health:?}");
            assert!(health.bytes <= bounds.bytes_max as u64 + 20_000, "{name} {health:?}");
            assert_eq!(found(&*store, &by_id("999@bank.example")).await, [999], "{name}");
            assert!(found(&*store, &by_id("3@bank.example")).await.is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn no_client_and_no_mail_from_owns_more_than_its_share() {
    for (name, store, _folder) in stores(BOUNDS) {
        put(&*store, &inbound(0, "joe@bank.example", "ann@uni.example")).await;
        for n in 1..200 {
            let client = Some("2001:db8::1".parse::<IpAddr>().unwrap());
            let from = format!("u{n}@spam.example");
            put(&*store, &Inbound { client, ..inbound(n, &from, "bob@uni.example") }).await;
        }
        for n in 200..400 {
            put(&*store, &inbound(n, "Flood@spam.example", "bob@uni.example")).await;
        }
        store.flush().await.unwrap();
        assert_eq!(store.health().records, 1 + 32 + 32, "{name}");
        assert_eq!(found(&*store, &by_id("0@bank.example")).await, [0], "{name}");
        assert_eq!(found(&*store, &by_id("199@bank.example")).await, [199], "{name}");
        assert!(found(&*store, &by_id("100@bank.example")).await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn hostile_sizes_are_cut() {
    for (name, store, _folder) in stores(BOUNDS) {
        let many = |n: u32| (0..n).map(|n| address(&format!("u{n}@bank.example"))).collect();
        let record = Inbound {
            recipients: many(50_000),
            from: many(50_000),
            helo: "x".repeat(1 << 20),
            ..inbound(7, "joe@bank.example", "ann@uni.example")
        };
        put(&*store, &record).await;
        assert_eq!(found(&*store, &by_id("7@bank.example")).await, [7], "{name}");
        assert!(store.health().bytes < 64 << 10, "{name} {:?}", store.health());
    }
}

#[tokio::test]
async fn the_null_store_remembers_nothing() {
    put(&Null, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
    assert!(found(&Null, &by_id("7@bank.example")).await.is_empty());
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_written() {
    let (folder, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = embedded(folder.path());
    for n in 0..300 {
        put(&store, &inbound(n, &format!("u{n}@bank.example"), "ann@uni.example")).await;
    }
    store.flush().await.unwrap();
    // What a crash leaves behind: the file as it stands, never closed.
    std::fs::copy(folder.path().join("store.redb"), after.path().join("store.redb")).unwrap();
    let began = std::time::Instant::now();
    let reopened = embedded(after.path());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(found(&reopened, &by_id("0@bank.example")).await, [0]);
    assert_eq!(reopened.health().records, 300);
}

#[tokio::test]
async fn what_was_remembered_is_written_soon_without_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    put(&store, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while store.health().records == 0 && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.health().records, 1);
    drop(store);
    let reopened = embedded(folder.path());
    assert_eq!(found(&reopened, &by_id("7@bank.example")).await, [7]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_store_begins_anew() {
    for damage in ["garbage", "cut", "middle"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = embedded(folder.path());
        for n in 0..200 {
            put(&store, &inbound(n, &format!("u{n}@bank.example"), "ann@uni.example")).await;
        }
        store.flush().await.unwrap();
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            "garbage" => bytes = vec![0x55; 100_000],
            "cut" => bytes.truncate(bytes.len() / 3),
            _ => bytes[64..4096].fill(0xaa),
        }
        std::fs::write(&path, &bytes).unwrap();
        let (store, told) = Embedded::open(settings(folder.path(), BOUNDS), keys(1)).unwrap();
        assert!(told.unwrap().contains("store.damaged"), "{damage}");
        assert!(folder.path().join("store.damaged").exists(), "{damage}");
        put(&store, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
        assert_eq!(found(&store, &by_id("7@bank.example")).await, [7], "{damage}");
    }
}

#[tokio::test]
async fn one_process_writes_and_others_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    put(&store, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
    store.flush().await.unwrap();
    let second = Embedded::open(settings(folder.path(), BOUNDS), keys(1));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    assert!(!folder.path().join("store.damaged").exists());
    let beside = Snapshot::open(settings(folder.path(), BOUNDS), keys(1)).unwrap();
    assert_eq!(found(&beside, &by_id("7@bank.example")).await, [7]);
    put(&store, &inbound(8, "joe@bank.example", "ann@uni.example")).await;
    store.flush().await.unwrap();
    assert_eq!(found(&beside, &by_id("8@bank.example")).await, [8]);
}

#[tokio::test]
async fn nothing_stands_in_the_file_in_clear_unless_asked_for() {
    let shows = |path: &Path, text: &str| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for plain in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { plain, ..settings(folder.path(), BOUNDS) };
        let (store, _) = Embedded::open(settings.clone(), keys(1)).unwrap();
        put(&store, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
        store.flush().await.unwrap();
        drop(store);
        for text in ["joe", "bank.example", "ann@uni", "Q7", "mx.uni"] {
            assert_eq!(shows(&settings.path, text), plain, "{text}");
        }
    }
}

#[tokio::test]
async fn a_former_key_opens_what_it_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let record = inbound(7, "joe@bank.example", "ann@uni.example");
    put(&store, &record).await;
    store.answered(record.id, &address("ann@uni.example"), NOW).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    let open = |keys| Embedded::open(settings(folder.path(), BOUNDS), keys).unwrap().0;
    let without = open(keys(2));
    assert!(found(&without, &by_id("7@bank.example")).await.is_empty());
    drop(without);
    let with = open(Keys { former: Some(Arc::new(StoreKey::new([1; 32]))), ..keys(2) });
    let recalled = with.recall(&by_id("7@bank.example")).await.unwrap();
    assert_eq!(*recalled[0].record, record);
    assert_eq!(recalled[0].answered, Some(NOW));
}

#[tokio::test]
async fn a_file_of_another_version_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let of_before = redb::TableDefinition::<u128, &[u8]>::new("records 1");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(of_before).unwrap().insert(1, &b"x"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (store, told) = Embedded::open(settings(folder.path(), BOUNDS), keys(1)).unwrap();
    assert!(told.unwrap().contains("is of another version and lies at"));
    assert!(folder.path().join("store.former").exists());
    put(&store, &inbound(7, "joe@bank.example", "ann@uni.example")).await;
    drop(store);
    let reopened = embedded(folder.path());
    assert_eq!(found(&reopened, &by_id("7@bank.example")).await, [7]);
}

/// Goal: two records that get one number in the file do not become one record. Method: ids that
/// differ in the part that the number leaves out; the later takes the place of the earlier, whole.
#[tokio::test]
async fn of_two_records_with_one_number_the_later_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let earlier = inbound(7, "joe@bank.example", "ann@uni.example");
    let later = Inbound {
        id: InboundId::new(earlier.id.at(), 7 + (1 << 22)),
        ..inbound(8, "eve@spam.example", "bob@uni.example")
    };
    assert_ne!(earlier.id, later.id);
    put(&store, &earlier).await;
    put(&store, &later).await;
    store.flush().await.unwrap();
    drop(store);
    let store = embedded(folder.path());
    assert_eq!(store.health().records, 1);
    assert!(found(&store, &by_id("7@bank.example")).await.is_empty());
    assert_eq!(store.recall(&by_id("8@bank.example")).await.unwrap()[0].record.id, later.id);
}

/// Goal: an owner who comes near his share late is held to it too, and what he had before stays
/// until it is old. Method: half a share of small records, then very many.
#[tokio::test]
async fn an_owner_is_held_to_his_share_whenever_he_comes_near_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    for n in 0..100 {
        put(&store, &inbound(n, "Flood@spam.example", "bob@uni.example")).await;
    }
    store.flush().await.unwrap();
    drop(store);
    let store = embedded(folder.path());
    for n in 100..200 {
        put(&store, &inbound(n, "Flood@spam.example", "bob@uni.example")).await;
    }
    store.flush().await.unwrap();
    assert_eq!(store.health().records, 32);
    // What was remembered last is in memory too, where shares are counted on their own.
    drop(store);
    let store = embedded(folder.path());
    for (n, there) in [(3, true), (4, false), (171, false), (172, true), (199, true)] {
        let by_id = by_id(&format!("{n}@bank.example"));
        assert_eq!(!found(&store, &by_id).await.is_empty(), there, "{n}");
    }
    // What is old goes with all that was counted of it.
    while store.expire(NOW.plus(30 * DAY)).await.unwrap() > 0 {}
    assert_eq!((store.health().records, store.health().bytes), (0, 0));
    put(&store, &inbound(7, "Flood@spam.example", "bob@uni.example")).await;
    store.flush().await.unwrap();
    assert_eq!(store.health().records, 1);
}
