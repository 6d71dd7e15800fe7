//! The quarantine: what was acknowledged is there byte for byte, whatever dies and whenever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use replyguard::audit::disk::RealDisk;
use replyguard::audit::fault::{Error, Kind};
use replyguard::audit::held::{CampaignKey, HeldId, Holding, Part};
use replyguard::audit::quarantine::{OnFull, Quarantine, Settings, Stage};
use replyguard::audit::recovery::Recovered;
use replyguard::judge::classify::Class;
use replyguard::judge::decision::{Action, Decision, Reason, Verdict};
use replyguard::mail::envelope::{Envelope, Recipient};
use replyguard::mail::time::Timestamp;

use crate::disk::{Faults, ModelDisk};
use crate::random::Random;
use crate::records::{NOW, decision, envelope, event};

const CAMPAIGN: CampaignKey = CampaignKey(77);

fn id(number: u64) -> HeldId {
    HeldId { event: event(number), n: 1 }
}

/// What is to be held, owned.
pub struct Letter {
    pub id: HeldId,
    pub envelope: Envelope,
    pub decisions: Vec<Decision>,
    pub class: Class,
    pub campaign: Option<CampaignKey>,
    pub time: Timestamp,
    pub message: Bytes,
}

impl Letter {
    /// Number `number`: its verdict is failed, it is of no campaign, and has some 100 bytes.
    pub fn new(number: u64) -> Letter {
        Letter {
            id: id(number),
            envelope: envelope(&["joe@bank.example", "\"ann smith\"@shop.example"]),
            decisions: vec![decision(Action::Quarantine), decision(Action::Quarantine)],
            class: Class::AutoReply,
            campaign: None,
            time: NOW,
            message: Bytes::from(format!("Subject: {number}\r\n\r\n..\n\0\u{fe}\r\n").repeat(4)),
        }
    }

    fn of_campaign(number: u64) -> Letter {
        Letter { campaign: Some(CAMPAIGN), ..Letter::new(number) }
    }

    fn unknown(number: u64) -> Letter {
        let mut letter = Letter::new(number);
        letter.decisions[0].verdict = Some(Verdict::Unresolved);
        letter
    }

    fn personal(number: u64) -> Letter {
        let mut letter = Letter { class: Class::Personal, ..Letter::new(number) };
        for decision in &mut letter.decisions {
            (decision.verdict, decision.reason) = (None, Reason::Loop);
        }
        letter
    }

    async fn with<T>(&self, act: impl AsyncFnOnce(&Holding<'_>) -> T) -> T {
        let recipients: Vec<(&Recipient, &Decision)> =
            self.envelope.recipients.iter().zip(&self.decisions).collect();
        let holding = Holding {
            id: self.id,
            time: self.time,
            envelope: &self.envelope,
            recipients: &recipients,
            message_id: Some("1@uni.example"),
            class: self.class,
            campaign: self.campaign,
        };
        act(&holding).await
    }

    pub async fn hold(&self, quarantine: &Quarantine) -> Result<HeldId, Error> {
        self.with(async |holding| quarantine.hold(holding, self.message.clone()).await).await
    }

    async fn join(&self, quarantine: &Quarantine) -> Result<Option<HeldId>, Error> {
        self.with(async |holding| quarantine.join(holding).await).await
    }

    /// As a joe job's copies are held: beside the first one, or in full.
    pub async fn join_or_hold(&self, quarantine: &Quarantine) -> Result<HeldId, Error> {
        match self.join(quarantine).await? {
            Some(first) => Ok(first),
            None => self.hold(quarantine).await,
        }
    }

    /// In pieces, as it streams in.
    async fn staged(&self, quarantine: &Quarantine) -> Result<Stage, Error> {
        let mut stage = self.with(async |holding| quarantine.stage(holding).await).await?;
        for piece in self.message.chunks(17) {
            stage = stage.write(piece).await?;
        }
        Ok(stage)
    }

    /// As when others get it.
    pub async fn stage_and_commit(&self, quarantine: &Quarantine) -> Result<HeldId, Error> {
        self.staged(quarantine).await?.seal().await?.commit().await
    }

    /// As when nobody gets it.
    async fn stage_and_hold(&self, quarantine: &Quarantine) -> Result<HeldId, Error> {
        self.staged(quarantine).await?.hold().await
    }
}

fn settings(path: &Path) -> Settings {
    Settings { path: path.to_owned(), ..Settings::default() }
}

fn model_settings() -> Settings {
    settings(Path::new("/q"))
}

async fn open(disk: &ModelDisk, settings: &Settings) -> (Quarantine, Recovered) {
    Quarantine::open(Arc::new(disk.clone()), settings.clone()).await.unwrap()
}

async fn bytes_of(quarantine: &Quarantine, id: HeldId) -> Result<Vec<u8>, Error> {
    let mut opened = quarantine.read(id).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = opened.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn ids(quarantine: &Quarantine) -> Vec<HeldId> {
    let listed = quarantine.list(None, usize::MAX).await.unwrap();
    listed.into_iter().map(|listed| listed.id).collect()
}

#[tokio::test]
async fn a_message_is_held_byte_for_byte_with_its_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("quarantine"));
    let open = || Quarantine::open(Arc::new(RealDisk), settings.clone());
    let (quarantine, _) = open().await.unwrap();
    let (short, mut long) = (Letter::new(1), Letter::new(2));
    long.message = Bytes::from(vec![b'x'; 1 << 20]);
    assert_eq!(short.hold(&quarantine).await.unwrap(), id(1));
    let mut stage = long.with(async |holding| quarantine.stage(holding).await).await.unwrap();
    for piece in long.message.chunks(300_000) {
        stage = stage.write(piece).await.unwrap();
    }
    let sealed = stage.seal().await.unwrap();
    assert_eq!((sealed.id(), ids(&quarantine).await), (id(2), vec![id(1)]));
    sealed.commit().await.unwrap();
    let health = quarantine.health();
    drop(quarantine);
    let (quarantine, recovered) = open().await.unwrap();
    assert_eq!(recovered, Recovered::default());
    assert_eq!(quarantine.health(), health, "the books are the same after a restart");
    for letter in [short, long] {
        assert_eq!(bytes_of(&quarantine, letter.id).await.unwrap(), letter.message);
        let file = settings.path.join(format!("{}.eml", letter.id));
        assert_eq!(fs::read(file).unwrap(), letter.message);
    }
    let slip = quarantine.read(id(1)).await.unwrap().slip;
    assert_eq!(slip.envelope.mail_from, "<>");
    let rcpt = &slip.envelope.recipients[1];
    assert_eq!(rcpt.path, "<\"ann smith\"@shop.example>");
    assert_eq!(rcpt.parameters, ["notify=NEVER"]);
    assert_eq!((rcpt.verdict.as_deref(), rcpt.reason.as_str()), (Some("failed"), "failed-spf"));
    assert_eq!(quarantine.list(Some(id(1)), 9).await.unwrap()[0].slip.size, 1 << 20);
    quarantine.remove(id(1)).await.unwrap();
    assert_eq!(quarantine.remove(id(1)).await, Err(Error::NotHeld(id(1))));
    assert_eq!(ids(&quarantine).await, [id(2)]);
    quarantine.remove(id(2)).await.unwrap();
    assert_eq!(fs::read_dir(&settings.path).unwrap().count(), 0);
    assert_eq!(quarantine.health().bytes, 0);
}

#[tokio::test]
async fn a_stage_that_is_dropped_leaves_nothing() {
    let disk = ModelDisk::default();
    let (quarantine, _) = open(&disk, &model_settings()).await;
    let letter = Letter::new(1);
    let stage = letter.with(async |holding| quarantine.stage(holding).await).await.unwrap();
    assert_eq!(letter.hold(&quarantine).await, Err(Error::Twice(id(1))));
    let open_still = stage.write(&letter.message).await.unwrap();
    let stage = Letter::new(2).with(async |holding| quarantine.stage(holding).await).await;
    let sealed = stage.unwrap().write(&letter.message).await.unwrap().seal().await.unwrap();
    assert_eq!(quarantine.health().arriving, 2);
    drop((open_still, sealed));
    until(|| disk.names().is_empty()).await;
    until(|| quarantine.health() == Default::default()).await;
    letter.hold(&quarantine).await.unwrap();
    let other = Letter { id: id(1), ..Letter::new(2) };
    assert_eq!(other.hold(&quarantine).await, Err(Error::Twice(id(1))));
    assert_eq!(bytes_of(&quarantine, id(1)).await.unwrap(), letter.message);
}

/// Waits until something that is under way has happened.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_or_a_held_message() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let (quarantine, _) = Quarantine::open(Arc::new(RealDisk), settings.clone()).await.unwrap();
    let quarantine = Arc::new(quarantine);
    for number in 0..100 {
        let task = tokio::spawn({
            let quarantine = Arc::clone(&quarantine);
            async move { drop(Letter::new(number).hold(&quarantine).await) }
        });
        for _ in 0..number % 20 {
            tokio::task::yield_now().await;
        }
        task.abort();
        drop(task.await);
    }
    // Why until it fits, and not once: what was given up before it began may still begin.
    let balanced = async || {
        let held = ids(&quarantine).await.len();
        let names = fs::read_dir(folder.path()).unwrap().count();
        quarantine.health().arriving == 0 && names == held * 2
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !balanced().await {
        assert!(std::time::Instant::now() < deadline, "something is left over");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_quarantine_says_so_or_drops_what_is_forged() {
    let disk = ModelDisk::default();
    // A message and its slip take a block each.
    let defer = Settings { max_bytes: 3 * 2 * 4096, ..model_settings() };
    let (quarantine, _) = open(&disk, &defer).await;
    Letter::unknown(1).hold(&quarantine).await.unwrap();
    Letter::new(2).hold(&quarantine).await.unwrap();
    Letter::new(3).hold(&quarantine).await.unwrap();
    let fault = Letter::new(4).hold(&quarantine).await.unwrap_err();
    assert!(matches!(fault, Error::Full { messages: 3, .. }), "{fault}");
    assert_eq!(fault.kind(), Kind::Temporary);
    until(|| quarantine.health().arriving == 0).await;
    assert_eq!(quarantine.health().bytes, 3 * 2 * 4096);
    drop(quarantine);
    let drop_oldest = Settings { on_full: OnFull::DropOldest, ..defer };
    let (quarantine, _) = open(&disk, &drop_oldest).await;
    Letter::new(5).hold(&quarantine).await.unwrap();
    assert_eq!(ids(&quarantine).await, [id(1), id(3), id(5)]);
    Letter::unknown(6).hold(&quarantine).await.unwrap();
    Letter::unknown(7).hold(&quarantine).await.unwrap();
    assert_eq!(ids(&quarantine).await, [id(1), id(6), id(7)]);
    assert_eq!(quarantine.health().dropped, 3);
    assert!(matches!(Letter::new(8).hold(&quarantine).await, Err(Error::Full { .. })));
    assert_eq!(ids(&quarantine).await, [id(1), id(6), id(7)]);
}

#[tokio::test]
async fn one_file_that_cannot_be_removed_stops_neither_expiry_nor_dropping() {
    let disk = ModelDisk::default();
    let settings = Settings {
        max_bytes: 4 * 2 * 4096,
        max_age: Duration::from_secs(1000),
        on_full: OnFull::DropOldest,
        ..model_settings()
    };
    let (quarantine, _) = open(&disk, &settings).await;
    for number in 1..5 {
        Letter::new(number).hold(&quarantine).await.unwrap();
    }
    disk.stick(&settings.path.join(Part::Message.name(id(1))));
    Letter::new(5).hold(&quarantine).await.unwrap();
    assert_eq!(ids(&quarantine).await, [1, 3, 4, 5].map(id));
    let expired = quarantine.expire(NOW.plus(Duration::from_secs(1001))).await.unwrap();
    assert_eq!((expired.removed, expired.faults), ([3, 4, 5].map(id).to_vec(), 1));
    assert!(expired.fault.unwrap().to_string().contains("cannot remove"));
}

#[tokio::test]
async fn nothing_held_goes_for_what_is_delivered_or_can_never_fit() {
    let disk = ModelDisk::default();
    let on_full = OnFull::DropOldest;
    let (quarantine, _) =
        open(&disk, &Settings { max_bytes: 2 * 2 * 4096, on_full, ..model_settings() }).await;
    Letter::new(1).hold(&quarantine).await.unwrap();
    Letter::new(2).hold(&quarantine).await.unwrap();
    let letter = Letter::new(3);
    let stage = letter.with(async |holding| quarantine.stage_in_case(holding).await).await;
    assert!(stage.unwrap().write(&letter.message).await.unwrap().seal().await.is_err());
    let large = Letter { message: Bytes::from(vec![b'x'; 5 * 4096]), ..Letter::new(4) };
    assert!(matches!(large.hold(&quarantine).await, Err(Error::Full { .. })));
    assert_eq!(ids(&quarantine).await, [id(1), id(2)]);
    until(|| quarantine.health().arriving == 0).await;
    Letter::new(5).hold(&quarantine).await.unwrap();
    assert_eq!(ids(&quarantine).await, [id(2), id(5)]);
}

#[tokio::test]
async fn messages_have_a_bound_too() {
    let disk = ModelDisk::default();
    let (quarantine, _) = open(&disk, &Settings { max_messages: 2, ..model_settings() }).await;
    Letter::new(1).hold(&quarantine).await.unwrap();
    let second = Letter::new(2);
    let stage = second.with(async |holding| quarantine.stage(holding).await).await.unwrap();
    assert!(matches!(Letter::new(3).hold(&quarantine).await, Err(Error::Full { .. })));
    drop(stage);
    until(|| quarantine.health().arriving == 0).await;
    Letter::new(3).hold(&quarantine).await.unwrap();
}

#[tokio::test]
async fn a_full_or_failing_disk_leaves_nothing_half() {
    let disk = ModelDisk::default();
    let (quarantine, _) = open(&disk, &model_settings()).await;
    for faults in [
        Faults { write: true, ..Faults::default() },
        Faults { sync: true, ..Faults::default() },
        Faults { sync_folder: true, ..Faults::default() },
        Faults { open: true, ..Faults::default() },
    ] {
        disk.set_faults(faults);
        let held = Letter::new(1).hold(&quarantine).await;
        assert_eq!(held.unwrap_err().kind(), Kind::Temporary, "{faults:?}");
        let staged = Letter::new(2).stage_and_commit(&quarantine).await;
        assert_eq!(staged.unwrap_err().kind(), Kind::Temporary, "{faults:?}");
        until(|| disk.names().is_empty()).await;
    }
    disk.set_faults(Faults { rename: true, ..Faults::default() });
    assert!(Letter::new(1).hold(&quarantine).await.is_err());
    assert!(Letter::new(2).stage_and_hold(&quarantine).await.is_err());
    until(|| disk.names().is_empty()).await;
    disk.set_faults(Faults::default());
    disk.leave_free(Some(50));
    let fault = Letter::new(1).hold(&quarantine).await.unwrap_err();
    assert!(fault.to_string().contains("make room"), "{fault}");
    disk.leave_free(None);
    until(|| quarantine.health() == Default::default()).await;
    Letter::new(1).hold(&quarantine).await.unwrap();
}

/// Law 1. Goal: once others have got their copies nothing of a sealed one goes, whatever the disk
/// says to its commit. Method: each fault of it; then the next try, and a restart instead of it.
#[tokio::test]
async fn what_others_have_got_stays_when_its_names_cannot_be_given() {
    for (faults, again) in [
        (Faults { rename: true, ..Faults::default() }, true),
        (Faults { rename: true, ..Faults::default() }, false),
        (Faults { sync_folder: true, ..Faults::default() }, true),
        (Faults { sync_folder: true, ..Faults::default() }, false),
    ] {
        let disk = ModelDisk::default();
        let (quarantine, _) = open(&disk, &model_settings()).await;
        let letter = Letter::new(1);
        let sealed = letter.staged(&quarantine).await.unwrap().seal().await.unwrap();
        disk.set_faults(faults);
        assert_eq!(sealed.commit().await.unwrap_err().kind(), Kind::Temporary);
        let tried = quarantine.expire(NOW).await.unwrap();
        assert_eq!((tried.named, tried.faults), (vec![], 1), "{faults:?}");
        assert_eq!((ids(&quarantine).await, quarantine.health().arriving), (vec![], 1));
        disk.set_faults(Faults::default());
        let after = match again {
            true => {
                assert_eq!(quarantine.expire(NOW).await.unwrap().named, [id(1)], "{faults:?}");
                assert_eq!(quarantine.health().arriving, 0);
                disk.crashed(&mut Random(1))
            }
            false => disk.killed(),
        };
        let before = quarantine.health();
        let (quarantine, _) = open(&after, &model_settings()).await;
        assert_eq!(bytes_of(&quarantine, id(1)).await.unwrap(), letter.message, "{faults:?}");
        assert_eq!(quarantine.health().bytes, before.bytes);
    }
}

#[tokio::test]
async fn responses_expire_and_what_people_wrote_does_not() {
    let disk = ModelDisk::default();
    let settings = Settings { max_age: Duration::from_secs(1000), ..model_settings() };
    let (quarantine, _) = open(&disk, &settings).await;
    let later = NOW.plus(Duration::from_secs(600));
    Letter::of_campaign(1).hold(&quarantine).await.unwrap();
    Letter::new(2).hold(&quarantine).await.unwrap();
    Letter { time: later, ..Letter::new(3) }.hold(&quarantine).await.unwrap();
    Letter::personal(4).hold(&quarantine).await.unwrap();
    let copy = Letter { time: later, ..Letter::of_campaign(5) };
    assert_eq!(copy.join(&quarantine).await, Ok(Some(id(1))));
    drop(quarantine);
    let (quarantine, _) = open(&disk, &settings).await;
    let now = NOW.plus(Duration::from_secs(1001));
    let expired = quarantine.expire(now).await.unwrap();
    // Number 1 is as old as number 2, but has a young copy.
    assert_eq!((expired.removed, expired.overdue_count), (vec![id(2)], 0));
    let expired = quarantine.expire(NOW.plus(Duration::from_secs(90_000))).await.unwrap();
    assert_eq!(expired.removed, [id(1), id(3)]);
    assert_eq!((expired.overdue, expired.overdue_count), (vec![id(4)], 1));
    assert_eq!(ids(&quarantine).await, [id(4)]);
}

#[tokio::test]
async fn copies_of_a_campaign_are_noted_beside_the_first() {
    let disk = ModelDisk::default();
    let settings = model_settings();
    let (quarantine, _) = open(&disk, &settings).await;
    assert_eq!(Letter::of_campaign(1).join(&quarantine).await, Ok(None));
    Letter::of_campaign(1).hold(&quarantine).await.unwrap();
    let quarantine = Arc::new(quarantine);
    let tasks: Vec<_> = (2..42)
        .map(|number| {
            let quarantine = Arc::clone(&quarantine);
            tokio::spawn(async move { Letter::of_campaign(number).join(&quarantine).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(Some(id(1))));
    }
    // Nobody joins who is of another campaign, or of none, or whose verdict is not failed.
    let other = Letter { campaign: Some(CampaignKey(78)), ..Letter::new(50) };
    let mut unknown = Letter::unknown(51);
    unknown.campaign = Some(CAMPAIGN);
    for letter in [other, unknown, Letter::new(52)] {
        assert_eq!(letter.join(&quarantine).await, Ok(None));
    }
    let health = quarantine.health();
    assert_eq!((health.messages, health.copies), (1, 40));
    let after = disk.crashed(&mut Random(9));
    let (quarantine, _) = open(&after, &settings).await;
    assert_eq!(quarantine.health(), health);
    let copies = quarantine.copies(id(1), 0, 100).await.unwrap();
    let events: BTreeSet<String> = copies.iter().map(|copy| copy.event.clone()).collect();
    assert_eq!(events, (2..42).map(|number| event(number).to_string()).collect());
    assert_eq!(copies[0].envelope.recipients[0].path, "<joe@bank.example>");
    assert_eq!(quarantine.copies(id(1), 38, 100).await.unwrap(), copies[38..]);
    assert_eq!(Letter::of_campaign(60).join(&quarantine).await, Ok(Some(id(1))));
    quarantine.detach(id(1)).await.unwrap();
    assert_eq!(Letter::of_campaign(61).join(&quarantine).await, Ok(None));
    quarantine.remove(id(1)).await.unwrap();
    assert!(after.names().is_empty() && quarantine.health().bytes == 0);
    assert_eq!(Letter::of_campaign(62).join_or_hold(&quarantine).await, Ok(id(62)));
    assert_eq!(Letter::of_campaign(63).join(&quarantine).await, Ok(Some(id(62))));
}

#[tokio::test]
async fn a_copy_that_cannot_be_noted_is_not_acknowledged() {
    let disk = ModelDisk::default();
    let (quarantine, _) = open(&disk, &model_settings()).await;
    Letter::of_campaign(1).hold(&quarantine).await.unwrap();
    for faults in [
        Faults { open: true, ..Faults::default() },
        Faults { write: true, ..Faults::default() },
        Faults { sync: true, ..Faults::default() },
        Faults { sync_folder: true, ..Faults::default() },
    ] {
        disk.set_faults(faults);
        assert!(Letter::of_campaign(2).join(&quarantine).await.is_err(), "{faults:?}");
    }
    disk.set_faults(Faults::default());
    assert_eq!(Letter::of_campaign(3).join(&quarantine).await, Ok(Some(id(1))));
    for seed in 0..20 {
        let (quarantine, _) = open(&disk.crashed(&mut Random(seed)), &model_settings()).await;
        let copies = quarantine.copies(id(1), 0, 9).await.unwrap();
        assert!(copies.iter().any(|copy| copy.event == event(3).to_string()), "{copies:?}");
    }
}

#[tokio::test]
async fn foreign_and_damaged_files_are_left_alone() {
    let disk = ModelDisk::default();
    let settings = model_settings();
    let (quarantine, _) = open(&disk, &settings).await;
    Letter::new(1).hold(&quarantine).await.unwrap();
    Letter::new(2).hold(&quarantine).await.unwrap();
    let path = |name: &str| settings.path.join(name);
    let part = |number, part: Part| settings.path.join(part.name(id(number)));
    disk.put(&path("README"), b"x");
    disk.put(&path("notes.json"), b"x");
    disk.put(&part(3, Part::Message), b"a message without a slip");
    disk.put(&part(2, Part::Slip), b"{\"v\":9}");
    let mut bytes = disk.bytes(&part(1, Part::Message)).unwrap();
    bytes[0] ^= 1;
    disk.put(&part(1, Part::Message), &bytes);
    drop(quarantine);
    let (quarantine, recovered) = open(&disk, &settings).await;
    assert_eq!((recovered.stray, recovered.removed.len()), (4, 0));
    assert_eq!(disk.names().len(), 7);
    assert_eq!(ids(&quarantine).await, [id(1)]);
    let fault = bytes_of(&quarantine, id(1)).await.unwrap_err();
    assert!(matches!(fault, Error::Damaged { .. }), "{fault}");
}

#[tokio::test]
async fn what_was_sealed_and_not_committed_is_held_after_a_crash() {
    let disk = ModelDisk::default();
    let settings = model_settings();
    let (quarantine, _) = open(&disk, &settings).await;
    let (sealed, open_still) = (Letter::new(1), Letter::new(2));
    let stage = sealed.with(async |holding| quarantine.stage(holding).await).await.unwrap();
    let sealed_stage = stage.write(&sealed.message).await.unwrap().seal().await.unwrap();
    let stage = open_still.with(async |holding| quarantine.stage(holding).await).await.unwrap();
    let stage = stage.write(&open_still.message).await.unwrap();
    let (after, recovered) = open(&disk.killed(), &settings).await;
    assert_eq!((recovered.held, recovered.removed), (vec![id(1)], vec![id(2)]));
    assert_eq!(bytes_of(&after, id(1)).await.unwrap(), sealed.message);
    drop((sealed_stage, stage));
}

/// Goal: each state that a crash can leave is told from the others. Method: each, by hand.
#[tokio::test]
async fn every_state_that_a_crash_can_leave_is_brought_in_order() {
    use Part::{Copies, Message, PendingMessage, PendingSlip, Slip};
    let (model, settings) = (ModelDisk::default(), model_settings());
    let (quarantine, _) = open(&model, &settings).await;
    Letter::of_campaign(1).hold(&quarantine).await.unwrap();
    Letter::of_campaign(2).join(&quarantine).await.unwrap();
    let file = |part: Part| settings.path.join(part.name(id(1)));
    let [message, slip, copies] =
        [Message, Slip, Copies].map(|part| model.bytes(&file(part)).unwrap());
    let (torn, torn_slip) = (&message[..50], &slip[..100]);
    let zeros = [&message[..50], &vec![0; message.len() - 50]].concat();
    let held = |count| (count, 0, 0, message.len());
    let (gone, stray) = ((0, 1, 0, 0), (0, 0, 1, message.len()));
    for (state, expected) in [
        (vec![(PendingMessage, &message[..])], gone),
        (vec![(PendingMessage, torn), (PendingSlip, &slip)], gone),
        (vec![(PendingMessage, &zeros), (PendingSlip, &slip)], gone),
        (vec![(PendingMessage, &message), (PendingSlip, torn_slip)], gone),
        (vec![(PendingMessage, &message), (PendingSlip, b"")], gone),
        (vec![(PendingSlip, &slip)], gone),
        (vec![(PendingMessage, &message), (PendingSlip, &slip)], held(1)),
        (vec![(Message, &message), (PendingSlip, &slip)], held(1)),
        (vec![(PendingMessage, &message), (Slip, &slip)], held(1)),
        (vec![(Message, &message), (Slip, &slip), (Copies, &copies)], held(0)),
        (vec![(Message, &message), (Slip, &slip), (Copies, &copies[..9])], held(0)),
        (vec![(Slip, &slip)], gone),
        (vec![(Slip, &slip), (Copies, &copies)], gone),
        (vec![(Copies, &copies)], gone),
        (vec![(Message, &message)], stray),
        (vec![(Message, &message), (PendingSlip, b"{\"v\":2}")], stray),
        (vec![(Message, &message), (Slip, torn_slip)], stray),
    ] {
        let disk = ModelDisk::default();
        state.iter().for_each(|(part, bytes)| disk.put(&file(*part), bytes));
        let (quarantine, found) = open(&disk, &settings).await;
        let left = disk.bytes(&file(Message)).map_or(0, |bytes| bytes.len());
        let counts = (found.held.len(), found.removed.len(), found.stray, left);
        let names: Vec<Part> = state.iter().map(|(part, _)| *part).collect();
        assert_eq!(counts, expected, "{names:?}");
        if expected == held(0) || expected == held(1) {
            assert_eq!(bytes_of(&quarantine, id(1)).await.unwrap(), message);
            let whole = u64::from(state.iter().any(|(_, bytes)| *bytes == copies));
            assert_eq!(quarantine.health().copies, whole);
        }
        assert!(expected != gone || disk.names().is_empty(), "{names:?}: {:?}", disk.names());
    }
}

/// Everything the quarantine does, until the disk dies: what was acknowledged as held, as joined
/// to which first one, as removed.
async fn work_until_death(disk: &ModelDisk) -> (Vec<u64>, Vec<(u64, HeldId)>, Vec<u64>) {
    let (mut held, mut joined, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let opened = Quarantine::open(Arc::new(disk.clone()), model_settings()).await;
    let Ok((quarantine, _)) = opened else { return (held, joined, removed) };
    for number in [1, 2] {
        held.extend(Letter::new(number).hold(&quarantine).await.map(|_| number));
    }
    held.extend(Letter::new(3).stage_and_commit(&quarantine).await.map(|_| 3));
    held.extend(Letter::of_campaign(4).hold(&quarantine).await.map(|_| 4));
    for number in [5, 6] {
        let join = Letter::of_campaign(number).join(&quarantine).await;
        joined.extend(join.ok().flatten().map(|first| (number, first)));
    }
    removed.extend(quarantine.remove(id(1)).await.map(|()| 1));
    held.extend(Letter::new(7).stage_and_commit(&quarantine).await.map(|_| 7));
    (held, joined, removed)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Laws 1 and 2. Goal: whenever process or system die, what was acknowledged is held byte for
/// byte, nothing else but whole messages is, and nothing stays on its way. Method: every moment.
#[test]
fn what_was_acknowledged_is_held() {
    for operations in 0..110 {
        for seed in 0..6 {
            let disk = ModelDisk::default();
            disk.die_after(operations);
            let (held, joined, removed) = block_on(work_until_death(&disk));
            let after = [(disk.killed(), true), (disk.crashed(&mut Random(seed)), false)];
            for (after, killed) in after {
                block_on(async {
                    let (quarantine, recovered) = open(&after, &model_settings()).await;
                    assert!(recovered.stray == 0 || !killed);
                    let found = ids(&quarantine).await;
                    for number in held.iter().filter(|number| !removed.contains(number)) {
                        // A removal that was not acknowledged may have happened or not.
                        assert!(found.contains(&id(*number)) || *number == 1, "{number} is lost");
                    }
                    for found in &found {
                        let number = (1..8).find(|number| id(*number) == *found).unwrap();
                        let bytes = bytes_of(&quarantine, *found).await.unwrap();
                        assert_eq!(bytes, Letter::new(number).message);
                    }
                    for (number, first) in &joined {
                        let copies = quarantine.copies(*first, 0, 9).await.unwrap();
                        let own = event(*number).to_string();
                        assert!(copies.iter().any(|copy| copy.event == own), "{number} is lost");
                    }
                    let pending = |name: &PathBuf| name.to_str().unwrap().ends_with(".pending");
                    assert!(!after.names().iter().any(pending));
                    let before = quarantine.health();
                    let (again, recovered) = open(&after, &model_settings()).await;
                    assert_eq!((again.health(), recovered.held.len()), (before, 0));
                });
            }
        }
    }
}
