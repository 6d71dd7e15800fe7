//! The file of the embedded store: its tables, and what is done to them in one transaction.
//!
//! Takes: rows, already hashed and sealed. Gives: the same. Errors: redb's own.
//! Every record stands in `RECORDS` in the order of time, under a short number made of its id; each
//! of its names points at it from `INDEX`; what an owner has is counted in `OWNERS`. Keys are short
//! because the upper pages of each table should stay in memory: a look-up then reads one page of
//! the index and one of records; among ten millions one more, above the records.
//! Bounds: records, bytes, and an owner's share of both; the oldest go first.

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableHandle, WriteTransaction,
};

use crate::judge::subject::{Inbound, InboundId};
use crate::mail::limits::RECALLED_MAX;
use crate::mail::limits_of_memory::{EXPIRED_AT_ONCE_MAX, OWNER_FILED, OWNER_SHARE};
use crate::mail::time::Timestamp;
use crate::store::codec::encoded;
use crate::store::keyed::{Hashed, StoreKey};
use crate::store::memory::Settings;

// The number in each name is that of the form: a file that has other tables is of another version.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records 2");
const INDEX: TableDefinition<'_, (Hashed, u64), ()> = TableDefinition::new("index 2");
const ANSWERS: TableDefinition<'_, (u64, Hashed), i64> = TableDefinition::new("answers 2");
const OWNERS: TableDefinition<'_, Hashed, (u64, u64)> = TableDefinition::new("owners 2");
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts 2");

/// The name of the sum of all rows' bytes in `COUNTS`.
const BYTES: &str = "bytes";

/// What a row takes beside its bytes: its place in the tables, as measured with redb 4.5.
const ROW_BYTES: u64 = 130;

/// What each of its names and owners takes.
const KEY_BYTES: u64 = 40;

/// The short number of an id ends in so many bits of its chance; above them stand its
/// milliseconds, until the year 2109. Two records of one millisecond have the same number once in
/// four million; then the later takes the place of the earlier, which counts as never seen.
const CHANCE_BITS: u32 = 22;

/// What a row begins with: which owners are filed, how many there are, how many names.
const HEAD_BYTES: usize = 4;

/// A record as it is kept: its owners and names, and the record, sealed or plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Box<[u8]>);

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record, new or in place of its former state.
    Put(InboundId, Row),
    /// An answer.
    Answered(InboundId, Hashed, Timestamp),
}

/// A row that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRow {
    /// Its number.
    pub number: u64,
    /// The responder's last answer to it.
    pub answered: Option<Timestamp>,
    bytes: Vec<u8>,
}

type Done<T> = Result<T, redb::Error>;

impl Row {
    /// A record under this key; sealed with it unless `plain`. `None` when that cannot be done.
    pub fn of(record: &Inbound, key: &StoreKey, plain: bool) -> Option<Row> {
        let bytes = encoded(record)?;
        let mut names: Vec<Hashed> =
            record.look_ups().iter().map(|look_up| key.look_up(look_up)).collect();
        names.sort_unstable();
        names.dedup();
        let owners = key.owners(record);
        let body = if plain { StoreKey::plain(&bytes) } else { key.seal(&bytes)? };
        let hashes = (owners.len() + names.len()) * size_of::<Hashed>();
        let mut row = Vec::with_capacity(HEAD_BYTES + hashes + body.len());
        row.extend([0, u8::try_from(owners.len()).ok()?]);
        row.extend(u16::try_from(names.len()).ok()?.to_le_bytes());
        row.extend(owners.iter().chain(&names).flat_map(|hashed| hashed.to_le_bytes()));
        row.extend_from_slice(&body);
        Some(Row(row.into()))
    }
}

#[cfg(test)]
impl Row {
    /// So many bytes that say nothing.
    pub fn blank(bytes: usize) -> Row {
        Row(vec![0; bytes].into())
    }
}

impl Change {
    /// What it takes in memory beside itself.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put(_, row) => row.0.len(),
            Change::Answered(..) => 0,
        }
    }
}

impl FoundRow {
    /// The record, sealed or plain; `None` when the row is damaged.
    pub fn body(&self) -> Option<&[u8]> {
        View::of(&self.bytes).map(|row| row.body)
    }
}

/// The number that a record has in the file.
pub fn number(id: InboundId) -> u64 {
    let chance = u64::try_from(id.as_u128() & ((1 << CHANCE_BITS) - 1)).unwrap_or(0);
    first_at(id.at()) | chance
}

/// The lowest number of this moment.
fn first_at(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0) << CHANCE_BITS
}

fn at(number: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(number >> CHANCE_BITS).unwrap_or(i64::MAX))
}

/// Writes changes in one transaction, durable when it returns.
pub fn write(database: &Database, changes: &[Change], settings: &Settings) -> Done<()> {
    let transaction = begin(database)?;
    let mut tables = Tables::open(&transaction)?;
    for change in changes {
        match change {
            Change::Put(id, row) => tables.put(number(*id), row, settings)?,
            Change::Answered(id, by, at) => tables.answered(number(*id), *by, *at)?,
        }
    }
    tables.close()?;
    Ok(transaction.commit()?)
}

/// Lets go of some rows that are too old; gives how many.
pub fn expire(database: &Database, settings: &Settings, now: Timestamp) -> Done<usize> {
    let transaction = begin(database)?;
    let mut tables = Tables::open(&transaction)?;
    let mut gone = 0;
    while gone < EXPIRED_AT_ONCE_MAX
        && let Some(oldest) = tables.oldest()?
        && now.since(at(oldest)) >= settings.retention
    {
        tables.remove(oldest)?;
        gone += 1;
    }
    tables.close()?;
    transaction.commit()?;
    Ok(gone)
}

/// Rows and bytes, by the sums that are kept.
pub fn size(transaction: &ReadTransaction) -> Done<(u64, u64)> {
    let records = transaction.open_table(RECORDS)?.len()?;
    let bytes = transaction.open_table(COUNTS)?.get(BYTES)?.map_or(0, |bytes| bytes.value());
    Ok((records, bytes))
}

/// Whether the file is of another version: it has tables that are not ours.
pub fn is_of_another_version(database: &impl ReadableDatabase) -> Done<bool> {
    let ours = [RECORDS.name(), INDEX.name(), ANSWERS.name(), OWNERS.name(), COUNTS.name()];
    let transaction = database.begin_read()?;
    let mut tables = transaction.list_tables()?;
    Ok(tables.any(|table| !ours.contains(&table.name())))
}

/// Makes the tables where there are none.
pub fn prepare(database: &Database) -> Done<()> {
    let transaction = begin(database)?;
    Tables::open(&transaction)?.close()?;
    Ok(transaction.commit()?)
}

/// The rows under any of these names that came in at `from` or later; of each name the latest.
/// Among them may be one in 2^64 that has another name: whoever reads them compares.
pub fn find(
    transaction: &ReadTransaction,
    names: &[Hashed],
    by: &[Hashed],
    from: Timestamp,
) -> Done<Vec<FoundRow>> {
    let (records, index) = (transaction.open_table(RECORDS)?, transaction.open_table(INDEX)?);
    let answers = transaction.open_table(ANSWERS)?;
    let mut numbers: Vec<u64> = Vec::new();
    for name in names {
        let filed = index.range((*name, first_at(from))..=(*name, u64::MAX))?.rev();
        for entry in filed.take(RECALLED_MAX) {
            let (_, number) = entry?.0.value();
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers.into_iter().rev() {
        let Some(bytes) = records.get(number)? else { continue };
        let mut answered = None;
        for by in by {
            let at = answers.get((number, *by))?.map(|at| at.value());
            answered = answered.max(at.map(Timestamp::from_millis));
        }
        found.push(FoundRow { number, answered, bytes: bytes.value().to_vec() });
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

/// A row's parts.
#[derive(Clone, Copy)]
struct View<'r> {
    /// A bit for each owner that it is filed under.
    filed: u8,
    owners: &'r [u8],
    names: &'r [u8],
    body: &'r [u8],
}

impl<'r> View<'r> {
    fn of(bytes: &'r [u8]) -> Option<View<'r>> {
        let (&[filed, owners, low, high], rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let names = usize::from(u16::from_le_bytes([low, high])) * size_of::<Hashed>();
        let (owners, rest) = rest.split_at_checked(usize::from(owners) * size_of::<Hashed>())?;
        let (names, body) = rest.split_at_checked(names)?;
        Some(View { filed, owners, names, body })
    }

    fn owners(&self) -> impl Iterator<Item = Hashed> + use<'r> {
        hashes(self.owners)
    }

    fn names(&self) -> impl Iterator<Item = Hashed> + use<'r> {
        hashes(self.names)
    }

    /// Owners, each with its bit.
    fn owners_with_bits(&self) -> impl Iterator<Item = (Hashed, u8)> + use<'r> {
        self.owners().zip((0..u8::BITS).map(|place| 1 << place))
    }

    fn cost(&self) -> u64 {
        let hashes = self.owners.len() + self.names.len();
        let keys = (hashes / size_of::<Hashed>()) as u64;
        (hashes + self.body.len()) as u64 + keys * KEY_BYTES + ROW_BYTES
    }
}

fn hashes(bytes: &[u8]) -> impl Iterator<Item = Hashed> + use<'_> {
    bytes.as_chunks().0.iter().map(|hashed| Hashed::from_le_bytes(*hashed))
}

/// The tables, open for writing.
struct Tables<'t> {
    records: Table<'t, u64, &'static [u8]>,
    index: Table<'t, (Hashed, u64), ()>,
    answers: Table<'t, (u64, Hashed), i64>,
    owners: Table<'t, Hashed, (u64, u64)>,
    counts: Table<'t, &'static str, u64>,
    /// The sum of all rows' bytes.
    bytes: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Done<Tables<'t>> {
        let counts = transaction.open_table(COUNTS)?;
        let bytes = counts.get(BYTES)?.map_or(0, |bytes| bytes.value());
        Ok(Tables {
            records: transaction.open_table(RECORDS)?,
            index: transaction.open_table(INDEX)?,
            answers: transaction.open_table(ANSWERS)?,
            owners: transaction.open_table(OWNERS)?,
            counts,
            bytes,
        })
    }

    /// Writes the sum down.
    fn close(mut self) -> Done<()> {
        self.counts.insert(BYTES, self.bytes)?;
        Ok(())
    }

    fn put(&mut self, number: u64, row: &Row, settings: &Settings) -> Done<()> {
        let Some(view) = View::of(&row.0) else { return Ok(()) };
        let former = self.records.get(number)?.map(|bytes| bytes.value().to_vec());
        let former = former.as_deref().and_then(View::of);
        let share = Share::of(settings);
        let filed = match former {
            // Most often only the results are new.
            Some(former) if former.names == view.names && former.owners == view.owners => {
                self.recost(&former, &view)?;
                former.filed
            }
            former => {
                if let Some(former) = former {
                    self.unfile(number, &former)?;
                }
                self.file(number, &view, &share)?
            }
        };
        let mut bytes = row.0.clone();
        if let Some(first) = bytes.first_mut() {
            *first = filed;
        }
        self.records.insert(number, &*bytes)?;
        for owner in view.owners() {
            self.bound_owner(owner, &share)?;
        }
        let records_max = settings.records_max as u64;
        while self.records.len()? > records_max || self.bytes > settings.bytes_max as u64 {
            let Some(oldest) = self.oldest()? else { break };
            self.remove(oldest)?;
        }
        Ok(())
    }

    fn answered(&mut self, number: u64, by: Hashed, at: Timestamp) -> Done<()> {
        if self.records.get(number)?.is_some() {
            self.answers.insert((number, by), at.as_millis())?;
        }
        Ok(())
    }

    fn oldest(&self) -> Done<Option<u64>> {
        Ok(self.records.first()?.map(|(number, _)| number.value()))
    }

    /// Files a row under its names, and counts it; gives the bits of the owners that it is filed
    /// under. Why not all: most never come near their share, and each entry is a page to write.
    fn file(&mut self, number: u64, row: &View<'_>, share: &Share) -> Done<u8> {
        for name in row.names() {
            self.index.insert((name, number), ())?;
        }
        let mut filed = 0;
        for (owner, bit) in row.owners_with_bits() {
            let (records, bytes) = self.owned(owner)?;
            let owned = (records + 1, bytes.saturating_add(row.cost()));
            self.owners.insert(owner, owned)?;
            if share.is_near(owned) {
                self.index.insert((owner, number), ())?;
                filed |= bit;
            }
        }
        self.bytes = self.bytes.saturating_add(row.cost());
        Ok(filed)
    }

    /// The way back from `file`.
    fn unfile(&mut self, number: u64, row: &View<'_>) -> Done<()> {
        for name in row.names() {
            self.index.remove((name, number))?;
        }
        for (owner, bit) in row.owners_with_bits() {
            if row.filed & bit != 0 {
                self.index.remove((owner, number))?;
            }
            match self.owned(owner)? {
                (0 | 1, _) => drop(self.owners.remove(owner)?),
                (records, bytes) => {
                    let left = (records - 1, bytes.saturating_sub(row.cost()));
                    self.owners.insert(owner, left)?;
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(row.cost());
        Ok(())
    }

    /// Counts a row of another size in its place.
    fn recost(&mut self, former: &View<'_>, row: &View<'_>) -> Done<()> {
        let (former, now) = (former.cost(), row.cost());
        if former == now {
            return Ok(());
        }
        let changed = |bytes: u64| bytes.saturating_add(now).saturating_sub(former);
        for owner in row.owners() {
            let (records, bytes) = self.owned(owner)?;
            self.owners.insert(owner, (records, changed(bytes)))?;
        }
        self.bytes = changed(self.bytes);
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Done<()> {
        let bytes = self.records.remove(number)?.map(|bytes| bytes.value().to_vec());
        if let Some(row) = bytes.as_deref().and_then(View::of) {
            self.unfile(number, &row)?;
        }
        Ok(self.answers.retain_in((number, 0)..=(number, Hashed::MAX), |_, _| false)?)
    }

    /// What an owner has too much goes, oldest first. His first ones, from before he came near his
    /// share, are not filed under him: they go when they are old.
    fn bound_owner(&mut self, owner: Hashed, share: &Share) -> Done<()> {
        while share.is_over(self.owned(owner)?) {
            let mut filed = self.index.range((owner, 0)..=(owner, u64::MAX))?;
            let Some(oldest) = filed.next() else { return Ok(()) };
            let (_, number) = oldest?.0.value();
            drop(filed);
            self.remove(number)?;
            // Why: a damaged row cannot say what it was filed under; it must not be met again.
            self.index.remove((owner, number))?;
        }
        Ok(())
    }

    fn owned(&self, owner: Hashed) -> Done<(u64, u64)> {
        Ok(self.owners.get(owner)?.map_or((0, 0), |owned| owned.value()))
    }
}

/// How many records and bytes one owner may have.
struct Share {
    records: u64,
    bytes: u64,
}

impl Share {
    fn of(settings: &Settings) -> Share {
        Share {
            records: (settings.records_max / OWNER_SHARE).max(1) as u64,
            bytes: (settings.bytes_max / OWNER_SHARE) as u64,
        }
    }

    fn is_over(&self, (records, bytes): (u64, u64)) -> bool {
        records > self.records || (bytes > self.bytes && records > 1)
    }

    /// Whether an owner with so much is to be watched.
    fn is_near(&self, (records, bytes): (u64, u64)) -> bool {
        records > self.records / OWNER_FILED || bytes > self.bytes / OWNER_FILED
    }
}
