//! The file of the embedded store: its tables, and what is done to them in one transaction.
//!
//! Takes: rows, already hashed and sealed. Gives: the same. Errors: redb's own.
//! Every record stands in `RECORDS` in the order of time; each of its names points at it from
//! `INDEX`, which begins with the day, so that what is written and what expires lies together;
//! what an owner has is counted in `OWNERS`.
//! Bounds: records, bytes, and an owner's share of both; the oldest go first.

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::judge::subject::{Inbound, InboundId};
use crate::mail::limits::RECALLED_MAX;
use crate::mail::limits_of_memory::{EXPIRED_AT_ONCE_MAX, OWNER_SHARE};
use crate::mail::time::Timestamp;
use crate::store::codec::encoded;
use crate::store::keyed::{Hashed, StoreKey};
use crate::store::memory::Settings;

const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records 1");
const INDEX: TableDefinition<'_, (u16, Hashed, u128), ()> = TableDefinition::new("index 1");
const ANSWERS: TableDefinition<'_, (u128, Hashed), i64> = TableDefinition::new("answers 1");
const OWNERS: TableDefinition<'_, Hashed, (u64, u64)> = TableDefinition::new("owners 1");
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts 1");

/// The name of the sum of all rows' bytes in `COUNTS`.
const BYTES: &str = "bytes";

/// What a row takes beside its body: its place in the tables, as measured with redb 4.5.
const ROW_BYTES: u64 = 100;

/// What each of its keys takes.
const KEY_BYTES: u64 = 80;

const DAY_MILLIS: i64 = 86_400_000;

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its names.
    pub keys: Vec<Hashed>,
    /// Its owners.
    pub owners: Vec<Hashed>,
    /// The record, sealed or plain.
    pub body: Vec<u8>,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record, new or in place of its former state.
    Put(InboundId, Row),
    /// An answer.
    Answered(InboundId, Hashed, Timestamp),
}

/// A row that was found: its id, its bytes, and the responder's last answer to it.
pub type FoundRow = (InboundId, Vec<u8>, Option<Timestamp>);

type Done<T> = Result<T, redb::Error>;

impl Row {
    /// A record under this key; sealed with it unless `plain`. `None` when that cannot be done.
    pub fn of(record: &Inbound, key: &StoreKey, plain: bool) -> Option<Row> {
        let bytes = encoded(record)?;
        let mut keys: Vec<Hashed> =
            record.look_ups().iter().map(|look_up| key.look_up(look_up)).collect();
        keys.sort_unstable();
        keys.dedup();
        let body = if plain { StoreKey::plain(&bytes) } else { key.seal(&bytes)? };
        Some(Row { keys, owners: key.owners(record), body })
    }

    fn cost(&self) -> u64 {
        let keys = (self.keys.len() + self.owners.len()) as u64;
        self.body.len() as u64 + keys * KEY_BYTES + ROW_BYTES
    }
}

/// Writes changes in one transaction, durable when it returns.
pub fn write(database: &Database, changes: &[Change], settings: &Settings) -> Done<()> {
    let transaction = begin(database)?;
    {
        let mut tables = Tables::open(&transaction)?;
        for change in changes {
            match change {
                Change::Put(id, row) => tables.put(*id, row, settings)?,
                Change::Answered(id, by, at) => tables.answered(*id, *by, *at)?,
            }
        }
    }
    Ok(transaction.commit()?)
}

/// Lets go of some rows that are too old; gives how many.
pub fn expire(database: &Database, settings: &Settings, now: Timestamp) -> Done<usize> {
    let transaction = begin(database)?;
    let mut gone = 0;
    {
        let mut tables = Tables::open(&transaction)?;
        while gone < EXPIRED_AT_ONCE_MAX
            && let Some(id) = tables.oldest()?
            && now.since(id.at()) >= settings.retention
        {
            tables.remove(id)?;
            gone += 1;
        }
    }
    transaction.commit()?;
    Ok(gone)
}

/// Rows and bytes, by the sums that are kept.
pub fn size(transaction: &ReadTransaction) -> Done<(u64, u64)> {
    let records = transaction.open_table(RECORDS)?.len()?;
    let bytes = transaction.open_table(COUNTS)?.get(BYTES)?.map_or(0, |bytes| bytes.value());
    Ok((records, bytes))
}

/// Makes the tables where there are none.
pub fn prepare(database: &Database) -> Done<()> {
    let transaction = begin(database)?;
    drop(Tables::open(&transaction)?);
    Ok(transaction.commit()?)
}

/// The rows under any of these keys that came in at `from` or later; of each key the latest.
pub fn find(
    transaction: &ReadTransaction,
    keys: &[Hashed],
    by: &[Hashed],
    from: Timestamp,
    to: Timestamp,
) -> Done<Vec<FoundRow>> {
    let (records, index) = (transaction.open_table(RECORDS)?, transaction.open_table(INDEX)?);
    let answers = transaction.open_table(ANSWERS)?;
    let mut ids: Vec<u128> = Vec::new();
    for key in keys {
        let mut left = RECALLED_MAX;
        // Why a day more: ids of a tap whose clock is ahead.
        for day in (day(from)..=day(to).saturating_add(1)).rev() {
            let filed = index.range((day, *key, 0)..=(day, *key, u128::MAX))?.rev();
            for entry in filed.take(left) {
                let (_, _, id) = entry?.0.value();
                ids.push(id);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids.into_iter().rev().map(InboundId::from_u128).filter(|id| id.at() >= from) {
        let Some(bytes) = records.get(id.as_u128())? else { continue };
        let mut last = None;
        for by in by {
            let at = answers.get((id.as_u128(), *by))?.map(|at| at.value());
            last = last.max(at.map(Timestamp::from_millis));
        }
        found.push((id, bytes.value().to_vec(), last));
    }
    Ok(found)
}

/// Begins to read.
pub fn reading(database: &impl ReadableDatabase) -> Done<ReadTransaction> {
    Ok(database.begin_read()?)
}

fn begin(database: &Database) -> Done<WriteTransaction> {
    let mut transaction = database.begin_write()?;
    // Why: without it the file is read whole after a crash, and the daemon starts late.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn day(at: Timestamp) -> u16 {
    u16::try_from(at.as_millis().max(0) / DAY_MILLIS).unwrap_or(u16::MAX)
}

/// The tables, open for writing.
struct Tables<'t> {
    records: Table<'t, u128, &'static [u8]>,
    index: Table<'t, (u16, Hashed, u128), ()>,
    answers: Table<'t, (u128, Hashed), i64>,
    owners: Table<'t, Hashed, (u64, u64)>,
    counts: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Done<Tables<'t>> {
        Ok(Tables {
            records: transaction.open_table(RECORDS)?,
            index: transaction.open_table(INDEX)?,
            answers: transaction.open_table(ANSWERS)?,
            owners: transaction.open_table(OWNERS)?,
            counts: transaction.open_table(COUNTS)?,
        })
    }

    fn put(&mut self, id: InboundId, row: &Row, settings: &Settings) -> Done<()> {
        let Ok(bytes) = postcard::to_allocvec(row) else { return Ok(()) };
        let former = self.row(id)?;
        self.records.insert(id.as_u128(), bytes.as_slice())?;
        match former {
            // Most often only the results are new.
            Some(former) if former.keys == row.keys && former.owners == row.owners => {
                self.recost(&former, row)?;
            }
            Some(former) => {
                self.unfile(id, &former)?;
                self.file(id, row)?;
            }
            None => self.file(id, row)?,
        }
        for owner in &row.owners {
            self.bound_owner(*owner, settings)?;
        }
        let records_max = settings.records_max as u64;
        while self.records.len()? > records_max || self.bytes()? > settings.bytes_max as u64 {
            let Some(oldest) = self.oldest()? else { break };
            self.remove(oldest)?;
        }
        Ok(())
    }

    fn answered(&mut self, id: InboundId, by: Hashed, at: Timestamp) -> Done<()> {
        if self.records.get(id.as_u128())?.is_some() {
            self.answers.insert((id.as_u128(), by), at.as_millis())?;
        }
        Ok(())
    }

    fn row(&self, id: InboundId) -> Done<Option<Row>> {
        let bytes = self.records.get(id.as_u128())?;
        Ok(bytes.and_then(|bytes| postcard::from_bytes(bytes.value()).ok()))
    }

    fn oldest(&self) -> Done<Option<InboundId>> {
        Ok(self.records.first()?.map(|(id, _)| InboundId::from_u128(id.value())))
    }

    /// Files a row under its names and owners, and counts it.
    fn file(&mut self, id: InboundId, row: &Row) -> Done<()> {
        for key in row.keys.iter().chain(&row.owners) {
            self.index.insert((day(id.at()), *key, id.as_u128()), ())?;
        }
        for owner in &row.owners {
            let (records, bytes) = self.owned(*owner)?;
            self.owners.insert(*owner, (records + 1, bytes.saturating_add(row.cost())))?;
        }
        let bytes = self.bytes()?.saturating_add(row.cost());
        self.counts.insert(BYTES, bytes)?;
        Ok(())
    }

    /// The way back from `file`.
    fn unfile(&mut self, id: InboundId, row: &Row) -> Done<()> {
        for key in row.keys.iter().chain(&row.owners) {
            self.index.remove((day(id.at()), *key, id.as_u128()))?;
        }
        for owner in &row.owners {
            match self.owned(*owner)? {
                (0 | 1, _) => drop(self.owners.remove(*owner)?),
                (records, bytes) => {
                    let left = (records - 1, bytes.saturating_sub(row.cost()));
                    self.owners.insert(*owner, left)?;
                }
            }
        }
        let bytes = self.bytes()?.saturating_sub(row.cost());
        self.counts.insert(BYTES, bytes)?;
        Ok(())
    }

    /// Counts a row of another size in its place.
    fn recost(&mut self, former: &Row, row: &Row) -> Done<()> {
        let changed = |bytes: u64| bytes.saturating_add(row.cost()).saturating_sub(former.cost());
        for owner in &row.owners {
            let (records, bytes) = self.owned(*owner)?;
            self.owners.insert(*owner, (records, changed(bytes)))?;
        }
        let bytes = changed(self.bytes()?);
        self.counts.insert(BYTES, bytes)?;
        Ok(())
    }

    fn remove(&mut self, id: InboundId) -> Done<()> {
        let row = self.row(id)?;
        self.records.remove(id.as_u128())?;
        if let Some(row) = row {
            self.unfile(id, &row)?;
        }
        let all = (id.as_u128(), 0)..=(id.as_u128(), Hashed::MAX);
        Ok(self.answers.retain_in(all, |_, _| false)?)
    }

    /// What an owner has too much goes, oldest first.
    fn bound_owner(&mut self, owner: Hashed, settings: &Settings) -> Done<()> {
        let records_max = (settings.records_max / OWNER_SHARE).max(1) as u64;
        let bytes_max = (settings.bytes_max / OWNER_SHARE) as u64;
        loop {
            let (records, bytes) = self.owned(owner)?;
            if records <= records_max && (bytes <= bytes_max || records <= 1) {
                return Ok(());
            }
            let Some(oldest) = self.oldest_of(owner)? else { return Ok(()) };
            self.remove(oldest)?;
        }
    }

    fn oldest_of(&self, owner: Hashed) -> Done<Option<InboundId>> {
        let Some(oldest) = self.oldest()? else { return Ok(None) };
        let last = self.records.last()?.map_or(oldest, |(id, _)| InboundId::from_u128(id.value()));
        for day in day(oldest.at())..=day(last.at()) {
            let mut filed = self.index.range((day, owner, 0)..=(day, owner, u128::MAX))?;
            if let Some(entry) = filed.next() {
                return Ok(Some(InboundId::from_u128(entry?.0.value().2)));
            }
        }
        Ok(None)
    }

    fn owned(&self, owner: Hashed) -> Done<(u64, u64)> {
        Ok(self.owners.get(owner)?.map_or((0, 0), |owned| owned.value()))
    }

    fn bytes(&self) -> Done<u64> {
        Ok(self.counts.get(BYTES)?.map_or(0, |bytes| bytes.value()))
    }
}
