//! Station 9: what happened. The audit log (`Trail`) and the quarantine.
//!
//! Takes: records of decisions, before an irrevocable act of ours or after the next hop's reply.
//! Gives: lines in a file that stay. Errors: `Error`, each temporary or permanent; when the file
//! cannot be written, `OnFailure` says what becomes of the mail.
//! Bounds: `Settings::max_bytes` on disk, `limits::AUDIT_KEPT_BYTES_MAX` in memory.
//! Law 1: nothing irrevocable before it is written. Law 2: each recipient has a record.

pub mod answered;
pub mod batch;
pub mod campaigns;
pub mod disk;
pub mod expiry;
pub mod fault;
pub mod files;
pub mod findings;
pub mod folder;
pub mod held;
pub mod ledger;
pub mod pseudonym;
pub mod quarantine;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod rounds;
pub mod seen;
pub mod sinks;
pub mod words;
pub mod writer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Notify, oneshot};

use crate::audit::batch::{Batches, locked};
use crate::audit::disk::Disk;
use crate::audit::fault::Error;
use crate::audit::ledger::{RepeatKey, Room, Shared, TrailHealth};
use crate::audit::pseudonym::Pseudonyms;
use crate::audit::record::Record;
use crate::audit::sinks::{Sink, SinkSettings};
use crate::audit::writer::{Append, Done, Job, Line, Spill, Until, Writer, serve_syncs};
use crate::judge::classify::{Class, Guarded};
use crate::mail::limits::AUDIT_SYNC_AFTER;

/// What the audit log is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that is written. Rotated ones stand beside it, the key of pseudonyms too.
    pub path: PathBuf,
    /// Permission bits of the files.
    pub file_mode: u32,
    /// Bytes of all files together; the oldest go first.
    pub max_bytes: u64,
    /// Bytes of a file before the next one is begun; at most half of `max_bytes` counts.
    pub rotate_bytes: u64,
    /// What becomes of mail while the file cannot be written.
    pub on_failure: OnFailure,
    /// Whether local parts of addresses are replaced by pseudonyms.
    pub pseudonymise: bool,
    /// Where records go beside the file.
    pub sinks: Vec<SinkSettings>,
}

impl Default for Settings {
    /// The documented defaults, with an empty path.
    fn default() -> Settings {
        Settings {
            path: PathBuf::new(),
            file_mode: 0o600,
            max_bytes: 4 << 30,
            rotate_bytes: 256 << 20,
            on_failure: OnFailure::DeliverPersonal,
            pseudonymise: false,
            sinks: Vec::new(),
        }
    }
}

/// What becomes of mail while the audit log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Responses and reports get 451. All other mail goes out; its records wait in memory, and
    /// go to the extra sinks.
    #[default]
    DeliverPersonal,
    /// All mail gets 451.
    DeferAll,
}

/// When an append is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the line is in the file: it survives our own death, and within a second the system's.
    Written,
    /// When it is on the disk.
    Synced,
}

/// Whose mail goes out while the audit log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treated {
    /// As its class says: responses and reports get 451.
    ByClass,
    /// It goes as personal mail does: the guard only observes.
    AsPersonal,
}

/// The audit log.
#[derive(Debug)]
pub struct Trail {
    settings: Settings,
    shared: Arc<Shared>,
    writes: Arc<Batches<Job>>,
    syncs: Arc<Batches<Done<()>>>,
    pseudonyms: Option<Pseudonyms>,
    sinks: Vec<Sink>,
}

/// Room in the audit log for the records of a message in flight; given back when dropped.
#[derive(Debug)]
pub struct Reservation(Room);

impl Trail {
    /// Opens the log, makes it when there is none, and cuts off what a crash left torn.
    ///
    /// Must be called inside a tokio runtime. An error here is for the administrator, at start.
    pub async fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Trail, Error> {
        let opened = {
            let settings = settings.clone();
            move || {
                let (writer, shared) = Writer::open(Arc::clone(&disk), &settings)?;
                let key = || Pseudonyms::open(&*disk, &settings.path.with_extension("key"));
                let pseudonyms = settings.pseudonymise.then(key).transpose()?;
                Ok((writer, shared, pseudonyms))
            }
        };
        let opened = tokio::task::spawn_blocking(opened).await.map_err(|_| Error::Stopped)?;
        let (mut writer, shared, pseudonyms) = opened?;
        let syncs = {
            let (shared, path) = (Arc::clone(&shared), settings.path.clone());
            Batches::new(move |waiting| serve_syncs(&shared, &path, waiting))
        };
        writer.sync_through(&syncs);
        let writer = Arc::new(Mutex::new(writer));
        let asked = Arc::clone(&writer);
        let writes = Batches::with_quick(
            move |jobs| locked(&writer).serve(jobs),
            move |jobs| locked(&asked).is_quick(jobs),
        );
        tokio::spawn(sync_in_time(
            Arc::clone(&shared.bell),
            Arc::downgrade(&shared),
            Arc::downgrade(&writes),
            Arc::downgrade(&syncs),
        ));
        let sinks = settings.sinks.iter().cloned().map(Sink::start).collect();
        Ok(Trail { settings, shared, writes, syncs, pseudonyms, sinks })
    }

    /// Appends the records of one message, in their order and together.
    ///
    /// When it returns `Ok`, they are where `durability` says. A record that says that a message
    /// was held or discarded is synced in any case (law 1). An error is temporary: the caller
    /// answers 451. While the file cannot be written, it is `Ok` for what the next hop has taken,
    /// and with `OnFailure::DeliverPersonal` for mail that is no response: then the records wait in
    /// memory. Beside one that says held or discarded it is an error, and only the records of what
    /// the next hop has taken wait.
    /// Dropping the future does not take the records back.
    pub async fn append(&self, records: &[Record], durability: Durability) -> Result<(), Error> {
        self.append_reserved(Reservation(self.shared.promise(0)), records, durability).await
    }

    /// The same, into room reserved before.
    pub async fn append_reserved(
        &self,
        Reservation(room): Reservation,
        records: &[Record],
        durability: Durability,
    ) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let records = self.for_the_log(records)?;
        let until = match durability {
            Durability::Written if !records.iter().any(Record::is_irrevocable) => Until::Written,
            _ => Until::Synced,
        };
        let delivered = records.iter().any(Record::is_delivered);
        let all_may = until == Until::Written && (delivered || self.may_spill(&records));
        // Why by itself what the next hop has taken: with LMTP that stands whatever becomes of the
        // other recipients' copies, and law 2 wants its record.
        let may_spill = |record: &Record| match all_may || record.is_delivered() {
            true => Spill::May,
            false => Spill::MayNot,
        };
        let lines: Vec<Line> = records
            .iter()
            .map(|record| self.line(record, may_spill(record)))
            .collect::<Result<_, _>>()?;
        let for_sinks: Vec<String> = match self.sinks.is_empty() {
            true => Vec::new(),
            false => lines.iter().map(|line| line.full.trim_end().to_owned()).collect(),
        };
        let (done, result) = oneshot::channel();
        self.writes.push(Job::Append(Append { lines, room, until, done }));
        result.await.map_err(|_| Error::Stopped)??;
        for sink in &self.sinks {
            let each = records.iter().zip(&for_sinks);
            each.for_each(|(record, line)| sink.offer(record, line));
        }
        Ok(())
    }

    /// Reserves room for these records, endings included, before their message is relayed.
    ///
    /// What is reserved can be written even when the disk is full meanwhile (where the file
    /// system can allocate ahead; elsewhere it is only looked whether there is room). An error is
    /// temporary: 451 before the next hop has heard of the message. Where records may wait in
    /// memory (see `append`), it is `Ok` even then.
    pub async fn reserve(&self, records: &[Record]) -> Result<Reservation, Error> {
        self.reserve_as(records, Treated::ByClass).await
    }

    /// The same, and says whether responses are kept back when there is no room.
    pub async fn reserve_as(
        &self,
        records: &[Record],
        treated: Treated,
    ) -> Result<Reservation, Error> {
        let personal = treated == Treated::AsPersonal
            && self.settings.on_failure == OnFailure::DeliverPersonal;
        let records = self.for_the_log(records)?;
        let each = records.iter().map(Record::room_bytes);
        let bytes = each.sum::<Result<u64, Error>>()?;
        if self.shared.with(|ledger| ledger.trouble.is_none())
            && let Some(room) = self.shared.room(bytes)
        {
            return Ok(Reservation(room));
        }
        let (done, result) = oneshot::channel();
        self.writes.push(Job::Reserve { bytes, done });
        match result.await.map_err(|_| Error::Stopped)? {
            Ok(room) => Ok(Reservation(room)),
            Err(_) if personal || self.may_spill(&records) => {
                Ok(Reservation(self.shared.promise(0)))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Goes over to a new file; the old one gets the moment behind its name, unless another
    /// program (logrotate) has moved it away already.
    pub async fn reopen(&self) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.writes.push(Job::Reopen(done));
        result.await.map_err(|_| Error::Stopped)?
    }

    /// Makes durable what is written, and tries once more to write what waits in memory. For the
    /// end of the program.
    pub async fn flush(&self) -> Result<(), Error> {
        self.writes.push(Job::Retry);
        let (done, result) = oneshot::channel();
        // A job behind it shows that it was served.
        self.writes.push(Job::Reserve { bytes: 0, done });
        drop(result.await.map_err(|_| Error::Stopped)??);
        let (done, result) = oneshot::channel();
        self.syncs.push(done);
        result.await.map_err(|_| Error::Stopped)??;
        let health = self.health();
        match health.waiting_bytes {
            0 => Ok(()),
            _ => Err(health.trouble.unwrap_or(Error::Stopped)),
        }
    }

    /// How it goes: for status and metrics.
    pub fn health(&self) -> TrailHealth {
        let sinks = self.sinks.iter().map(Sink::health).collect();
        TrailHealth { sinks, ..self.shared.with(|ledger| ledger.health()) }
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    fn for_the_log<'a>(&self, records: &'a [Record]) -> Result<Cow<'a, [Record]>, Error> {
        Ok(match &self.pseudonyms {
            None => Cow::Borrowed(records),
            Some(pseudonyms) => {
                let renamed = records.iter().map(|record| pseudonyms.record(record));
                Cow::Owned(renamed.collect::<Result<_, _>>()?)
            }
        })
    }

    fn may_spill(&self, records: &[Record]) -> bool {
        let unguarded = |record: &Record| record.class().map(Class::guarded) == Some(Guarded::No);
        self.settings.on_failure == OnFailure::DeliverPersonal && records.iter().all(unguarded)
    }

    /// The record's line; beside it the short one, when an earlier record says the same.
    ///
    /// Why only the first recipient's record is referred to: an event names it and no other.
    fn line(&self, record: &Record, spill: Spill) -> Result<Line, Error> {
        let full = with_end(record.line()?);
        let Some(key) = repeat_key(record) else {
            return Ok(Line { full, short: None, origin: None, spill });
        };
        let (known, generation) =
            self.shared.with(|ledger| (ledger.same_as(&key), ledger.generation));
        let Some(event) = known else {
            let origin = (record.n == 1).then(|| (key, record.event.clone()));
            return Ok(Line { full, short: None, origin, spill });
        };
        let short = with_end(record.short(event).line()?);
        Ok(Line { full, short: Some((generation, short)), origin: None, spill })
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.shared.bell.notify_one();
    }
}

/// What identical records have in common; `None` for one that is not of a joe job.
fn repeat_key(record: &Record) -> Option<RepeatKey> {
    let whole = record.is_failed() && record.left_out.is_empty();
    let evidence = record.evidence.as_ref().filter(|_| whole)?;
    let text = serde_json::to_vec(&(&record.signals, evidence)).ok()?;
    Some(*blake3::hash(&text).as_bytes())
}

fn with_end(mut line: String) -> String {
    line.push('\n');
    line
}

/// Syncs what was only written, within a second; tries again while the file cannot be written.
/// Ends with the `Trail`, which rings a last time.
async fn sync_in_time(
    bell: Arc<Notify>,
    shared: Weak<Shared>,
    writes: Weak<Batches<Job>>,
    syncs: Weak<Batches<Done<()>>>,
) {
    loop {
        bell.notified().await;
        tokio::time::sleep(AUDIT_SYNC_AFTER).await;
        let (Some(books), Some(writes), Some(syncs)) =
            (shared.upgrade(), writes.upgrade(), syncs.upgrade())
        else {
            return;
        };
        if books.with(|ledger| ledger.suspect || ledger.has_spilled()) {
            writes.push(Job::Retry);
        } else {
            syncs.push(oneshot::channel().0);
        }
    }
}
