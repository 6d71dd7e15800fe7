//! The audit log: what must stay, stays; what cannot be written is told to the right caller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{fs, io};

use proptest::prelude::*;
use replyguard::audit::disk::{Disk, DiskFile, How, RealDisk};
use replyguard::audit::fault::{Error, Kind};
use replyguard::audit::reader::{Logged, Reader};
use replyguard::audit::record::{Ended, Record, SCHEMA};
use replyguard::audit::seen::{RecordedEvidence, RecordedSignal};
use replyguard::audit::sinks::{SinkSettings, SyslogTo};
use replyguard::audit::{Durability, OnFailure, Settings, Trail};
use replyguard::judge::classify::Class;
use replyguard::judge::decision::Action;
use tokio::io::AsyncReadExt;

use crate::disk::{Faults, ModelDisk};
use crate::random::Random;
use crate::records::{delivered, event, records};
use crate::schema::assert_valid;

const RESPONSE: Class = Class::AutoReply;

fn settings(folder: &Path) -> Settings {
    Settings { path: folder.join("audit.jsonl"), ..Settings::default() }
}

fn model_settings() -> Settings {
    settings(Path::new("/state"))
}

async fn open(disk: &ModelDisk, settings: &Settings) -> Trail {
    Trail::open(Arc::new(disk.clone()), settings.clone()).await.unwrap()
}

fn read(disk: impl Disk + 'static, settings: &Settings) -> (Vec<Record>, u64) {
    let mut reader = Reader::log(Arc::new(disk), settings.path.clone()).unwrap();
    let mut found = Vec::new();
    for logged in reader.by_ref() {
        let Logged { record, line } = logged.unwrap();
        assert_valid(&line);
        found.push(record);
    }
    (found, reader.skipped())
}

fn events(found: &[Record]) -> Vec<String> {
    found.iter().map(|record| record.event.clone()).collect()
}

fn names(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| event(number).to_string()).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("made/on/the/way"));
    let trail = Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap();
    let held = records(1, RESPONSE, &[Action::Quarantine, Action::Deliver]);
    trail.append(&held, Durability::Synced).await.unwrap();
    trail.append(&delivered(2, Class::Personal), Durability::Written).await.unwrap();
    let (found, skipped) = read(RealDisk, &settings);
    assert_eq!(found[..2], held[..]);
    assert_eq!((events(&found), skipped), (names([1, 1, 2]), 0));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&settings.path).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

/// Goal: no line lost, none torn, each caller's in its order. Method: many callers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_lose_nothing_and_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { rotate_bytes: 100_000, ..settings(folder.path()) };
    let trail = Arc::new(Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap());
    let tasks: Vec<_> = (0..50_u64)
        .map(|task| {
            let trail = Arc::clone(&trail);
            tokio::spawn(async move {
                for step in 0..20 {
                    let durability = match (task + step) % 5 {
                        0 => Durability::Synced,
                        _ => Durability::Written,
                    };
                    let records = delivered(task * 1000 + step, RESPONSE);
                    let room = trail.reserve(&records).await.unwrap();
                    trail.append_reserved(room, &records, durability).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (found, skipped) = read(RealDisk, &settings);
    assert_eq!((found.len(), skipped), (1000, 0));
    let mut by_task: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let tasks: BTreeMap<String, String> = (0..50)
        .flat_map(|task| {
            names((0..20).map(move |step| task * 1000 + step))
                .into_iter()
                .map(move |event| (event, task.to_string()))
        })
        .collect();
    for event in events(&found) {
        by_task.entry(tasks[&event].clone()).or_default().push(event);
    }
    assert!(by_task.values().all(|events| events.is_sorted() && events.len() == 20));
}

/// A disk whose syncs wait until they are let go; the first can be told to fail.
#[derive(Debug)]
struct SlowSync<D>(D, Arc<Gate>);

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
    waiting: AtomicU64,
    fail_once: AtomicBool,
}

impl Gate {
    fn let_go(&self) {
        *self.open.lock().unwrap() = true;
        self.bell.notify_all();
    }
}

impl<D: Disk> Disk for SlowSync<D> {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.open(path, how)?, Arc::clone(&self.1))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.make_folder(folder)
    }
    fn each_file(&self, folder: &Path, see: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
        self.0.each_file(folder, see)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_folder(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.0.free_bytes(folder)
    }
}

impl DiskFile for SlowFile {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(into, at)
    }
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
    fn cut(&self, size_bytes: u64) -> io::Result<()> {
        self.0.cut(size_bytes)
    }
    fn sync(&self) -> io::Result<()> {
        let gate = &*self.1;
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        drop(gate.bell.wait_while(gate.open.lock().unwrap(), |open| !*open).unwrap());
        match gate.fail_once.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("cannot sync")),
            false => self.0.sync(),
        }
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.0.allocate(from, to)
    }
    fn is_at(&self, path: &Path) -> bool {
        self.0.is_at(path)
    }
}

#[tokio::test]
async fn a_written_record_does_not_wait_for_anothers_sync() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let gate = Arc::<Gate>::default();
    let disk = SlowSync(RealDisk, Arc::clone(&gate));
    let trail = Arc::new(Trail::open(Arc::new(disk), settings.clone()).await.unwrap());
    let synced = tokio::spawn({
        let trail = Arc::clone(&trail);
        async move { trail.append(&delivered(1, RESPONSE), Durability::Synced).await }
    });
    for number in 2..50 {
        trail.append(&delivered(number, RESPONSE), Durability::Written).await.unwrap();
    }
    assert!(!synced.is_finished());
    gate.let_go();
    synced.await.unwrap().unwrap();
    assert_eq!(read(RealDisk, &settings).0.len(), 49);
}

/// Goal: a sync that went well after one that failed proves nothing for lines written before.
#[tokio::test(start_paused = true)]
async fn who_waits_while_a_sync_fails_is_not_told_yes_by_the_next() {
    let settings = model_settings();
    let gate = Arc::<Gate>::default();
    gate.fail_once.store(true, Ordering::SeqCst);
    let disk = SlowSync(ModelDisk::default(), Arc::clone(&gate));
    let trail = Arc::new(Trail::open(Arc::new(disk), settings.clone()).await.unwrap());
    let append = |number| {
        let trail = Arc::clone(&trail);
        tokio::spawn(
            async move { trail.append(&delivered(number, RESPONSE), Durability::Synced).await },
        )
    };
    let first = append(1);
    while gate.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let one = trail.health().written_bytes;
    let second = append(2);
    while trail.health().written_bytes == one {
        tokio::task::yield_now().await;
    }
    gate.let_go();
    assert!(first.await.unwrap().is_err());
    assert!(second.await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    append(4).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_written_record_is_synced_within_a_second() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    assert!(trail.health().unsynced_bytes > 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(trail.health().unsynced_bytes, 0);
    let after = disk.crashed(&mut Random(1));
    assert_eq!(events(&read(after, &settings).0), names([1]));
}

#[tokio::test]
async fn law_1_a_held_message_is_on_disk_whatever_the_caller_asked() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    let before = disk.syncs();
    for action in [Action::Quarantine, Action::Discard] {
        let record = records(1, RESPONSE, &[action]);
        trail.append(&record, Durability::Written).await.unwrap();
    }
    assert_eq!(disk.syncs(), before + 2);
    trail.append(&delivered(2, RESPONSE), Durability::Written).await.unwrap();
    assert_eq!(disk.syncs(), before + 2);
}

#[tokio::test]
async fn reserved_lines_can_be_written_on_a_full_disk() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    let (first, second) = (delivered(1, RESPONSE), delivered(2, RESPONSE));
    let room = trail.reserve(&first).await.unwrap();
    // Room for many: what is allocated ahead is used up by appends without a reservation.
    let others = trail.reserve(&second).await.unwrap();
    disk.leave_free(Some(0));
    let mut taken = 0;
    let fault = loop {
        match trail.append(&delivered(100 + taken, RESPONSE), Durability::Written).await {
            Ok(()) => taken += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.kind(), Kind::Temporary);
    assert!(fault.to_string().contains("make room"), "{fault}");
    assert!(trail.reserve(&delivered(3, RESPONSE)).await.is_err());
    trail.append_reserved(room, &first, Durability::Written).await.unwrap();
    drop(others);
    // What was given back is room for others.
    trail.append(&delivered(4, RESPONSE), Durability::Written).await.unwrap();
    let found = events(&read(disk, &settings).0);
    let numbers = (100..100 + taken).chain([1, 4]);
    assert_eq!(found, names(numbers));
}

#[tokio::test]
async fn a_promise_outlives_a_rotation_and_a_failed_write() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    let (second, third) = (delivered(2, RESPONSE), delivered(3, RESPONSE));
    let rooms = [trail.reserve(&second).await.unwrap(), trail.reserve(&third).await.unwrap()];
    disk.set_faults(Faults { write: true, ..Faults::default() });
    assert!(trail.append(&delivered(9, RESPONSE), Durability::Written).await.is_err());
    disk.set_faults(Faults::default());
    disk.leave_free(Some(0));
    assert!(trail.reopen().await.is_err(), "the new file would have no room for them");
    let [room, other] = rooms;
    trail.append_reserved(room, &second, Durability::Written).await.unwrap();
    disk.leave_free(Some(40_000));
    trail.reopen().await.unwrap();
    disk.leave_free(Some(0));
    trail.append_reserved(other, &third, Durability::Written).await.unwrap();
    assert_eq!(events(&read(disk, &settings).0), names([1, 2, 3]));
}

#[tokio::test]
async fn without_allocation_it_is_looked_whether_there_is_room() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    disk.set_faults(Faults { no_allocation: true, ..Faults::default() });
    let trail = open(&disk, &settings).await;
    let two = [delivered(1, RESPONSE), delivered(2, RESPONSE)].concat();
    drop(trail.reserve(&two).await.unwrap());
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    disk.leave_free(Some(1000));
    assert!(trail.reserve(&delivered(2, RESPONSE)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn while_the_file_cannot_be_written_only_personal_mail_goes_out() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    disk.set_faults(Faults { write: true, ..Faults::default() });
    for class in [RESPONSE, Class::Mdn, Class::DmarcReport] {
        let fault = trail.append(&delivered(2, class), Durability::Written).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Temporary);
    }
    // Even personal mail is not held on the strength of a record in memory (law 1).
    let looping = records(3, Class::Personal, &[Action::Quarantine]);
    assert!(trail.append(&looping, Durability::Written).await.is_err());
    for class in [Class::Personal, Class::List, Class::Bulk, Class::Notification] {
        let record = delivered(4, class);
        let room = trail.reserve(&record).await.unwrap();
        trail.append_reserved(room, &record, Durability::Written).await.unwrap();
    }
    assert!(trail.health().trouble.is_some() && trail.health().waiting_bytes > 0);
    assert_eq!(read(disk.clone(), &settings).0.len(), 1);
    disk.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((trail.health().trouble, trail.health().waiting_bytes), (None, 0));
    trail.append(&delivered(5, RESPONSE), Durability::Written).await.unwrap();
    let (found, skipped) = read(disk, &settings);
    assert_eq!((events(&found), skipped), (names([1, 4, 4, 4, 4, 5]), 0));
}

/// Law 2. With LMTP one recipient's copy is delivered and another's held: that the second cannot be
/// recorded, and gets 451, must not cost the first its record.
#[tokio::test(start_paused = true)]
async fn what_the_next_hop_has_taken_is_recorded_beside_what_cannot_be_held() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    disk.set_faults(Faults { write: true, ..Faults::default() });
    let mut both = records(1, RESPONSE, &[Action::Deliver, Action::Quarantine]);
    (both[0].outcome, both[0].reply) = (Some(Ended::Relayed), Some("250 2.0.0 ok".to_owned()));
    both[1].outcome = Some(Ended::Held);
    assert!(trail.append(&both, Durability::Synced).await.is_err());
    disk.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    trail.flush().await.unwrap();
    let found = read(disk, &settings).0;
    assert_eq!(found.iter().map(|record| record.n).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn defer_all_lets_nothing_out() {
    let disk = ModelDisk::default();
    let settings = Settings { on_failure: OnFailure::DeferAll, ..model_settings() };
    let trail = open(&disk, &settings).await;
    disk.set_faults(Faults { write: true, ..Faults::default() });
    let record = delivered(1, Class::Personal);
    assert!(trail.append(&record, Durability::Written).await.is_err());
    assert_eq!(trail.health().waiting_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_sync_lost_is_written_again() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    disk.set_faults(Faults { sync: true, ..Faults::default() });
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    let synced = trail.append(&delivered(2, RESPONSE), Durability::Synced).await;
    assert!(synced.unwrap_err().to_string().contains("cannot sync"));
    // The file is suspect now: nothing of importance is taken on its word.
    let syncs = disk.syncs();
    for _ in 0..5 {
        assert!(trail.append(&delivered(3, RESPONSE), Durability::Written).await.is_err());
    }
    assert_eq!(disk.syncs(), syncs, "nor is it tried again for each of them");
    let size = disk.bytes(&settings.path).unwrap().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(disk.bytes(&settings.path).unwrap().len(), size, "trying again adds nothing");
    disk.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    trail.append(&delivered(4, RESPONSE), Durability::Synced).await.unwrap();
    let found = events(&read(disk.crashed(&mut Random(3)), &settings).0);
    let found: BTreeSet<String> = found.into_iter().collect();
    assert!(found.is_superset(&names([1, 4]).into_iter().collect()), "{found:?}");
}

#[tokio::test]
async fn a_half_written_batch_is_taken_back() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    let before = disk.bytes(&settings.path).unwrap();
    disk.set_faults(Faults { write: true, ..Faults::default() });
    assert!(trail.append(&delivered(2, RESPONSE), Durability::Written).await.is_err());
    assert_eq!(disk.bytes(&settings.path).unwrap(), before);
}

#[tokio::test]
async fn a_file_is_rotated_in_time_and_the_oldest_goes() {
    let disk = ModelDisk::default();
    let settings = Settings { rotate_bytes: 10_000, max_bytes: 60_000, ..model_settings() };
    let trail = open(&disk, &settings).await;
    for number in 0..200 {
        let record = delivered(number, RESPONSE);
        let room = trail.reserve(&record).await.unwrap();
        trail.append_reserved(room, &record, Durability::Written).await.unwrap();
        let sizes = disk.names().into_iter().map(|name| disk.bytes(&name).unwrap().len());
        assert!(sizes.sum::<usize>() <= 60_000);
    }
    drop(trail);
    let again = open(&disk, &settings).await;
    again.append(&delivered(200, RESPONSE), Durability::Written).await.unwrap();
    let found = events(&read(disk.clone(), &settings).0);
    let kept = u64::try_from(found.len()).unwrap();
    assert!(disk.names().len() > 3 && kept > 50 && kept < 201, "{:?}", disk.names());
    assert_eq!(found, names(201 - kept..201));
}

#[tokio::test]
async fn a_rotation_that_fails_costs_no_line() {
    let disk = ModelDisk::default();
    let settings = Settings { rotate_bytes: 3_000, ..model_settings() };
    let trail = open(&disk, &settings).await;
    for number in 0..10 {
        let fault = Faults { rename: number % 2 == 0, ..Faults::default() };
        disk.set_faults(Faults { sync_folder: number % 3 == 0, ..fault });
        trail.append(&delivered(number, RESPONSE), Durability::Synced).await.unwrap();
    }
    disk.set_faults(Faults { rename: true, ..Faults::default() });
    assert!(trail.reopen().await.is_err());
    trail.append(&delivered(10, RESPONSE), Durability::Synced).await.unwrap();
    let (found, skipped) = read(disk.crashed(&mut Random(5)), &settings);
    assert_eq!((events(&found), skipped), (names(0..11), 0));
}

#[tokio::test]
async fn reopen_rotates_or_follows_logrotate() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let trail = Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap();
    trail.reopen().await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "an empty file is not rotated");
    trail.append(&delivered(1, RESPONSE), Durability::Written).await.unwrap();
    trail.reopen().await.unwrap();
    trail.append(&delivered(2, RESPONSE), Durability::Written).await.unwrap();
    assert_eq!(events(&read(RealDisk, &settings).0), names([1, 2]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let moved = folder.path().join("audit.jsonl.1");
    fs::rename(&settings.path, &moved).unwrap();
    trail.reopen().await.unwrap();
    trail.append(&delivered(3, RESPONSE), Durability::Written).await.unwrap();
    fs::remove_file(&settings.path).unwrap();
    // Even without being told, nothing is written into a file that nobody can find.
    trail.append(&delivered(4, RESPONSE), Durability::Written).await.unwrap();
    assert_eq!(events(&read(RealDisk, &settings).0), names([1, 4]));
    let moved = Reader::files(Arc::new(RealDisk), vec![moved]);
    let moved: Vec<String> = moved.map(|logged| logged.unwrap().record.event).collect();
    assert_eq!(moved, names([2]));
}

fn with_evidence(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        record.evidence = Some(RecordedEvidence {
            findings: Vec::new(),
            domains: BTreeMap::new(),
            sent_before: None,
            sent_before_gap: None,
            laps: 0,
            first_lap: None,
            last_lap: None,
            rounds: None,
            answered: None,
        });
    }
    records
}

#[tokio::test]
async fn the_records_of_a_joe_job_refer_to_the_first_of_their_file() {
    let (disk, settings) = (ModelDisk::default(), model_settings());
    let trail = open(&disk, &settings).await;
    let failed = |number| with_evidence(records(number, RESPONSE, &[Action::Quarantine]));
    // Number 0 is not referred to: an event with several records names its first only.
    let mut several = with_evidence(records(0, RESPONSE, &[Action::Quarantine; 2]));
    several[0].signals = Some(vec![RecordedSignal {
        id: "x".into(),
        detail: String::new(),
        standard: String::new(),
    }]);
    trail.append(&several, Durability::Synced).await.unwrap();
    for number in 1..4 {
        trail.append(&failed(number), Durability::Synced).await.unwrap();
    }
    trail.append(&with_evidence(delivered(4, RESPONSE)), Durability::Synced).await.unwrap();
    trail.reopen().await.unwrap();
    trail.append(&failed(5), Durability::Synced).await.unwrap();
    let found = read(disk, &settings).0.split_off(2);
    let same: Vec<Option<&str>> = found.iter().map(|record| record.same_as.as_deref()).collect();
    let first = event(1).to_string();
    assert_eq!(same, [None, Some(&*first), Some(&*first), None, None]);
    let whole: Vec<bool> =
        found.iter().map(|r| r.evidence.is_some() && r.signals.is_some()).collect();
    assert_eq!(whole, [true, false, false, true, true]);
}

#[tokio::test]
async fn nobody_is_named_in_a_pseudonymous_log() {
    let disk = ModelDisk::default();
    let settings = Settings { pseudonymise: true, ..model_settings() };
    let trail = open(&disk, &settings).await;
    let mut record = records(1, RESPONSE, &[Action::Quarantine]);
    record[0].text = "joe0@bank.example did not write it".to_owned();
    record[0].mail_from = "\"joe0\"@uni.example".to_owned();
    record[0].message_id = Some("joe.id@uni.example".to_owned());
    let room = trail.reserve(&record).await.unwrap();
    trail.append_reserved(room, &record, Durability::Synced).await.unwrap();
    drop(trail);
    let trail = open(&disk, &settings).await;
    trail.append(&record, Durability::Synced).await.unwrap();
    let found = read(disk, &settings).0;
    assert_eq!(found[0], found[1], "the key is kept");
    let line = serde_json::to_string(&found[0]).unwrap();
    assert!(!line.contains("joe0"), "{line}");
    assert!(found[0].rcpt.ends_with("@bank.example"));
    assert_eq!(found[0].message_id, record[0].message_id);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let line = delivered(1, RESPONSE)[0].line().unwrap();
    for torn in [&line[..100], "\0\0\0\0", "{\0\0\0\0\n"] {
        fs::write(&settings.path, format!("{line}\n{torn}")).unwrap();
        let trail = Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap();
        trail.append(&delivered(2, RESPONSE), Durability::Written).await.unwrap();
        let (found, skipped) = read(RealDisk, &settings);
        assert_eq!((events(&found), skipped), (names([1, 2]), 0));
    }
    for foreign in ["root:x:0:0\n", "root:x:0:0", "{}\nsomething without an end"] {
        fs::write(&settings.path, foreign).unwrap();
        let fault = Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap_err();
        assert!(matches!(fault, Error::NotALog { .. }), "{fault}");
        assert_eq!(fs::read_to_string(&settings.path).unwrap(), foreign);
    }
}

#[test]
fn what_is_no_record_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let line = delivered(1, RESPONSE)[0].line().unwrap();
    let long = "x".repeat(200_000);
    let text = format!("\n{line}\n{long}\n{{\"v\":9}}\n\0\0{line}\n\u{fffd}\n{line}\n{line}");
    fs::write(&settings.path, text).unwrap();
    let (found, skipped) = read(RealDisk, &settings);
    assert_eq!((found.len(), skipped), (2, 6));
    assert!(Reader::log(Arc::new(RealDisk), folder.path().join("none")).unwrap().next().is_none());
}

/// Goal: a real file system that is full. Method: a tmpfs of a MiB, which only root can mount.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_keeps_reserved_lines_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(folder.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return crate::skipped::skipped("it needs to mount a small file system");
    }
    let _unmount = Unmount(folder.path().to_owned());
    let settings = settings(folder.path());
    let trail = Trail::open(Arc::new(RealDisk), settings.clone()).await.unwrap();
    let (first, other) = (delivered(1, RESPONSE), delivered(2, RESPONSE));
    let room = trail.reserve(&first).await.unwrap();
    let filler = folder.path().join("filler");
    assert!(fs::write(&filler, vec![0; 8 << 20]).is_err());
    let mut taken = 0;
    while trail.append(&other, Durability::Synced).await.is_ok() {
        taken += 1;
    }
    trail.append_reserved(room, &first, Durability::Synced).await.unwrap();
    let mut given_back = 0;
    while trail.append(&other, Durability::Synced).await.is_ok() {
        given_back += 1;
    }
    trail.append(&delivered(3, Class::Personal), Durability::Written).await.unwrap();
    assert!(trail.health().waiting_bytes > 0);
    fs::remove_file(filler).unwrap();
    trail.append(&delivered(4, RESPONSE), Durability::Synced).await.unwrap();
    let numbers = std::iter::repeat_n(2, taken).chain([1]);
    let expected = numbers.chain(std::iter::repeat_n(2, given_back)).chain([3, 4]);
    let (found, skipped) = read(RealDisk, &settings);
    assert_eq!((events(&found), skipped), (names(expected), 0));
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Appends with many callers until the disk dies; what was acknowledged, and how.
async fn append_until_death(disk: &ModelDisk, settings: &Settings) -> Vec<(u64, Durability)> {
    let Ok(trail) = Trail::open(Arc::new(disk.clone()), settings.clone()).await else {
        return Vec::new();
    };
    let trail = Arc::new(trail);
    let tasks: Vec<_> = (0..4_u64)
        .map(|task| {
            let trail = Arc::clone(&trail);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for step in 0..6 {
                    let number = task * 100 + step;
                    let durability = match number % 3 {
                        0 => Durability::Synced,
                        _ => Durability::Written,
                    };
                    let record = delivered(number, RESPONSE);
                    if trail.append(&record, durability).await.is_ok() {
                        acknowledged.push((number, durability));
                    }
                    if step == 3 && task == 0 {
                        drop(trail.reopen().await);
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    acknowledged
}

/// Goal: no step of a rotation is one at which a crash loses lines. Method: every one of them.
#[test]
fn a_crash_at_any_step_of_a_rotation_loses_nothing() {
    let settings = model_settings();
    for operations in 0..50 {
        for seed in 0..12 {
            let disk = ModelDisk::default();
            let acknowledged = block_on(async {
                let trail = open(&disk, &settings).await;
                disk.die_after(operations);
                let mut acknowledged = Vec::new();
                for number in 0..4 {
                    let record = delivered(number, RESPONSE);
                    let done = trail.append(&record, Durability::Synced).await;
                    acknowledged.extend(done.is_ok().then_some(number));
                    drop(trail.reopen().await);
                }
                acknowledged
            });
            let after = disk.crashed(&mut Random(seed));
            block_on(async { drop(open(&after, &settings).await) });
            let found = events(&read(after, &settings).0);
            let lost = names(acknowledged).into_iter().find(|event| !found.contains(event));
            assert_eq!(lost, None, "after {operations} operations, seed {seed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Laws 1 and 2. Goal: whenever the process or the system dies, what was synced is there, and
    /// what was written too if only the process died; no torn line stays; the log goes on.
    #[test]
    fn what_was_acknowledged_survives(
        operations in 0_u64..90, seed in any::<u64>(), rotate_bytes in 1_000_u64..20_000,
    ) {
        let settings = Settings { rotate_bytes, ..model_settings() };
        let disk = ModelDisk::default();
        disk.die_after(operations);
        let acknowledged = block_on(append_until_death(&disk, &settings));
        let killed = disk.killed();
        let crashed = disk.crashed(&mut Random(seed));
        for (after, all) in [(killed, true), (crashed, false)] {
            block_on(async {
                let trail = open(&after, &settings).await;
                trail.append(&delivered(999, RESPONSE), Durability::Synced).await.unwrap();
            });
            let (found, skipped) = read(after.clone(), &settings);
            let found: BTreeSet<String> = events(&found).into_iter().collect();
            for (number, durability) in &acknowledged {
                let expected = all || *durability == Durability::Synced;
                let there = found.contains(&event(*number).to_string());
                prop_assert!(there || !expected, "{number} is lost, {durability:?}");
            }
            prop_assert!(found.contains(&event(999).to_string()));
            // Zeros in the middle of a file can hide lines that were only written.
            prop_assert!(skipped == 0 || !all, "{skipped} torn lines");
        }
    }
}

#[tokio::test]
async fn records_reach_syslog_and_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (log, journal) = (folder.path().join("log"), folder.path().join("journal"));
    let log_socket = tokio::net::UnixDatagram::bind(&log).unwrap();
    let journal_socket = tokio::net::UnixDatagram::bind(&journal).unwrap();
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let syslog = |to| SinkSettings::Syslog { to, hostname: "mx.example".into(), facility: 2 };
    let settings = Settings {
        sinks: vec![
            syslog(SyslogTo::Unix(log)),
            syslog(SyslogTo::Udp(udp.local_addr().unwrap().to_string())),
            syslog(SyslogTo::Tcp(tcp.local_addr().unwrap().to_string())),
            SinkSettings::Journal(journal),
        ],
        ..model_settings()
    };
    let disk = ModelDisk::default();
    let trail = open(&disk, &settings).await;
    disk.set_faults(Faults { write: true, ..Faults::default() });
    assert!(trail.append(&delivered(1, RESPONSE), Durability::Written).await.is_err());
    trail.append(&delivered(2, Class::Personal), Durability::Written).await.unwrap();
    let line = delivered(2, Class::Personal)[0].line().unwrap();
    let process = std::process::id();
    let expected =
        format!("<22>1 2026-11-21T17:38:59.042Z mx.example replyguard {process} audit - {line}");
    let mut buffer = vec![0; 70_000];
    for received in [
        log_socket.recv(&mut buffer.clone()).await.unwrap(),
        udp.recv(&mut buffer.clone()).await.unwrap(),
    ] {
        assert_eq!(received, expected.len());
    }
    let (mut stream, _) = tcp.accept().await.unwrap();
    let counted = format!("{} {expected}", expected.len());
    stream.read_exact(&mut buffer[..counted.len()]).await.unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..counted.len()]).unwrap(), counted);
    let length = journal_socket.recv(&mut buffer).await.unwrap();
    let entry = std::str::from_utf8(&buffer[..length]).unwrap();
    assert!(entry.starts_with("MESSAGE=deliver personal to joe0@bank.example: a sentence\n"));
    assert!(entry.contains(&format!("\nREPLYGUARD_RECORD={line}\n")), "{entry}");
}

#[tokio::test]
async fn a_sink_that_is_away_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        sinks: vec![SinkSettings::Journal(folder.path().join("nobody"))],
        ..model_settings()
    };
    let disk = ModelDisk::default();
    let trail = open(&disk, &settings).await;
    for number in 0..1100 {
        trail.append(&delivered(number, RESPONSE), Durability::Written).await.unwrap();
    }
    let sink = trail.health().sinks.remove(0);
    assert_eq!(sink.sent, 0);
    assert!((75..=76).contains(&sink.dropped), "{sink:?}");
}

#[test]
fn every_field_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/reference/audit-log.md")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let objects = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let fields = objects.filter_map(|object| object["properties"].as_object());
    let missing: Vec<&String> = fields
        .flat_map(|fields| fields.keys())
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/reference/audit-log.md says nothing of {missing:?}");
}

#[test]
fn the_examples_of_the_documentation_are_records() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/reference/audit-log.md")).unwrap();
    let blocks: Vec<&str> = text.split("```").filter(|block| block.starts_with("json\n")).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let value: serde_json::Value = serde_json::from_str(&block[4..]).unwrap();
        assert_valid(&value.to_string());
    }
}
