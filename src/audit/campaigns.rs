//! Campaigns: of a joe job the first copy is held, of all further ones the envelope.
//!
//! A copy is a JSON line in `<event>-<n>.copies` beside the first one, durable before it is
//! acknowledged; copies that come together share a sync.
//! Bounds: `limits::CAMPAIGNS_MAX`, `limits::CAMPAIGN_COPIES_MAX`.

use std::collections::BTreeMap;

use crate::audit::batch::locked;
use crate::audit::disk::{How, write_all};
use crate::audit::fault::{Error, disk};
use crate::audit::folder::{Folder, on_disk};
use crate::audit::held::{HeldId, Part};
use crate::audit::writer::Done;
use crate::mail::limits::CAMPAIGN_COPIES_MAX;
use crate::mail::time::Timestamp;

/// A copy that wants to join the first of its campaign.
#[derive(Debug)]
pub struct Join {
    /// The first copy.
    pub first: HeldId,
    /// The copy as a line, with its line end.
    pub line: String,
    /// When it came.
    pub time: Timestamp,
    /// Told whether it was taken in; not, when the first one is gone or has copies enough.
    pub done: Done<bool>,
}

/// Serves those who came together. Blocks.
pub fn serve_joins(folder: &Folder, joins: Vec<Join>) {
    let mut campaigns: BTreeMap<HeldId, Vec<Join>> = BTreeMap::new();
    for join in joins {
        campaigns.entry(join.first).or_default().push(join);
    }
    let mut served = Vec::with_capacity(campaigns.len());
    {
        let _changing = locked(&folder.changing);
        for (first, joins) in campaigns {
            served.push((take_in(folder, first, &joins), first, joins));
        }
    }
    let unnamed: Vec<HeldId> = folder.books(|books| {
        let written = served.iter().filter(|(taken, _, _)| *taken == Ok(true));
        let firsts = written.map(|(_, first, _)| *first);
        firsts.filter(|id| books.held.get(id).is_some_and(|held| !held.copies_named)).collect()
    });
    let named = if unnamed.is_empty() { Ok(()) } else { name(folder, &unnamed) };
    for (taken, first, joins) in served {
        let answer = match &named {
            Err(fault) if unnamed.contains(&first) => taken.and(Err(fault.clone())),
            _ => taken,
        };
        joins.into_iter().for_each(|join| drop(join.done.send(answer.clone())));
    }
}

/// Makes the names of files durable that were made for copies.
fn name(folder: &Folder, firsts: &[HeldId]) -> Result<(), Error> {
    folder.sync()?;
    folder.books(|books| {
        for first in firsts {
            if let Some(held) = books.held.get_mut(first) {
                held.copies_named = true;
            }
        }
    });
    Ok(())
}

/// Writes copies beside the first one; `false` when they have to be held in full.
fn take_in(folder: &Folder, first: HeldId, joins: &[Join]) -> Result<bool, Error> {
    let text: String = joins.iter().map(|join| join.line.as_str()).collect();
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let bytes_max = folder.settings().max_bytes;
    let claimed = folder.books(|books| {
        let held = books.held.get(&first).filter(|held| !held.detached)?;
        let before = held.copies_bytes;
        let more = on_disk(before.saturating_add(length)).saturating_sub(on_disk(before));
        let fits =
            held.copies < CAMPAIGN_COPIES_MAX && books.bytes.saturating_add(more) <= bytes_max;
        books.bytes = books.bytes.saturating_add(if fits { more } else { 0 });
        fits.then_some((before, more))
    });
    let Some((before, more)) = claimed else { return Ok(false) };
    if let Err(fault) = append(folder, first, before, text.as_bytes()) {
        folder.unclaim(more, 0);
        return Err(fault);
    }
    let last = joins.iter().map(|join| join.time).max().unwrap_or_default();
    folder.books(|books| {
        if let Some(held) = books.held.get_mut(&first) {
            let count = u64::try_from(joins.len()).unwrap_or(u64::MAX);
            held.copies = held.copies.saturating_add(count);
            held.copies_bytes = before.saturating_add(length);
            held.last = held.last.max(last);
        }
    });
    Ok(true)
}

/// Appends to the file of copies, all or nothing, and syncs it.
fn append(folder: &Folder, first: HeldId, before: u64, text: &[u8]) -> Result<(), Error> {
    let path = folder.file(first, Part::Copies);
    let file = folder.disk().open(&path, How::Append(0o600)).map_err(disk("open", &path))?;
    // What stands behind the last acknowledged copy is left from a write that failed.
    if file.size_bytes().map_err(disk("read", &path))? != before {
        file.cut(before).map_err(disk("cut", &path))?;
    }
    let written = write_all(&*file, text).map_err(disk("write", &path));
    let synced = written.and_then(|()| file.sync().map_err(disk("sync", &path)));
    synced.inspect_err(|_| drop(file.cut(before)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;
    use ulid::Ulid;

    use super::*;
    use crate::audit::disk::RealDisk;
    use crate::audit::folder::Held;
    use crate::audit::quarantine::Settings;
    use crate::mail::limits::CAMPAIGN_COPIES_MAX;

    #[test]
    fn a_copy_that_was_on_its_way_does_not_join_what_is_being_released_or_has_enough() {
        let path = tempfile::tempdir().unwrap();
        let settings = Settings { path: path.path().to_owned(), ..Settings::default() };
        let folder = Folder::open(Arc::new(RealDisk), settings).unwrap();
        let first = HeldId { event: Ulid::nil(), n: 1 };
        let held = Held {
            bytes: 0,
            last: Timestamp::default(),
            class: None,
            failed: true,
            campaign: None,
            copies: 0,
            copies_bytes: 0,
            copies_named: false,
            detached: false,
        };
        let join = |held: Option<Held>| {
            folder.books(|books| held.map(|held| books.insert(first, held)));
            let (done, mut answer) = oneshot::channel();
            let line = "{}\n".to_owned();
            serve_joins(&folder, vec![Join { first, line, time: Timestamp::default(), done }]);
            answer.try_recv().unwrap()
        };
        assert_eq!(join(None), Ok(false));
        assert_eq!(join(Some(Held { detached: true, ..held.clone() })), Ok(false));
        let full = Held { copies: CAMPAIGN_COPIES_MAX, ..held.clone() };
        assert_eq!(join(Some(full)), Ok(false));
        assert_eq!(join(Some(held)), Ok(true));
    }
}
