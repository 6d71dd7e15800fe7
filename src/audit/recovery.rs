//! The quarantine at start: what a crash left on its way is held or removed, the rest is counted.
//!
//! A message on its way of which message and slip are whole becomes held: it was sealed, perhaps
//! even relayed for other recipients, and may have been acknowledged. One that is not whole was
//! never acknowledged and is removed. Foreign files are left alone and counted.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::audit::disk::{How, Stream};
use crate::audit::fault::{Error, disk};
use crate::audit::files::{count_lines, each_block, whole_bytes};
use crate::audit::folder::{Folder, Held, TORN, on_disk};
use crate::audit::held::{CopySlip, HeldId, LOCK, Part, Slip};
use crate::mail::time::Timestamp;

/// What was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages that a crash left on their way, whole: they are held now.
    pub held: Vec<HeldId>,
    /// Messages that a crash left in part: they are gone, their clients have them.
    pub removed: Vec<HeldId>,
    /// Files that are not ours, or not whole: left alone.
    pub stray: u64,
}

/// Which files of a message there are, with their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    message: Option<u64>,
    pending_message: Option<u64>,
    slip: Option<u64>,
    pending_slip: Option<u64>,
    copies: Option<u64>,
}

/// Looks through the folder, brings it in order and fills its books. Blocks.
pub fn recover(folder: &Folder) -> Result<Recovered, Error> {
    let mut found: BTreeMap<HeldId, Parts> = BTreeMap::new();
    let mut recovered = Recovered::default();
    let each = &mut |name: &str, bytes: u64| match Part::of(name) {
        None if name == LOCK => {}
        None => recovered.stray = recovered.stray.saturating_add(1),
        Some((id, part)) => {
            let parts = found.entry(id).or_default();
            *match part {
                Part::Message => &mut parts.message,
                Part::PendingMessage => &mut parts.pending_message,
                Part::Slip => &mut parts.slip,
                Part::PendingSlip => &mut parts.pending_slip,
                Part::Copies => &mut parts.copies,
            } = Some(bytes);
        }
    };
    folder.disk().each_file(folder.path(), each).map_err(disk("list the folder", folder.path()))?;
    for (id, parts) in found {
        recover_one(folder, id, parts, &mut recovered)?;
    }
    folder.sync()?;
    Ok(recovered)
}

fn recover_one(
    folder: &Folder,
    id: HeldId,
    parts: Parts,
    recovered: &mut Recovered,
) -> Result<(), Error> {
    let on_its_way = parts.pending_message.is_some() || parts.pending_slip.is_some();
    let message = parts.message.or(parts.pending_message);
    let slip = match (parts.slip, parts.pending_slip) {
        (Some(_), _) => folder.slip(id, Part::Slip),
        (None, Some(_)) => folder.slip(id, Part::PendingSlip),
        (None, None) => Err(Error::NotHeld(id)),
    };
    match (message, slip) {
        (_, Err(fault @ Error::Disk { .. })) => return Err(fault),
        (Some(_), Ok(slip)) if on_its_way && is_whole(folder, id, parts, &slip)? => {
            finish(folder, id, parts)?;
            take_in(folder, id, parts, &slip)?;
            recovered.held.push(id);
        }
        (Some(size), Ok(slip)) if !on_its_way && slip.size == size => {
            take_in(folder, id, parts, &slip)?;
        }
        // Not sealed; or a removal that was cut short.
        (Some(_), Ok(_) | Err(Error::NotHeld(_) | Error::Damaged { what: TORN, .. }))
            if on_its_way =>
        {
            folder.forget(id);
            recovered.removed.push(id);
        }
        (None, _) => {
            folder.forget(id);
            folder.remove_parts(id)?;
            recovered.removed.push(id);
        }
        (Some(size), slip) => {
            let path = folder.file(id, Part::Message);
            let fault = slip.err().map(|fault| fault.to_string()).unwrap_or_default();
            tracing::warn!(path = %path.display(), fault, "held, but not whole: left alone");
            folder.books(|books| books.bytes = books.bytes.saturating_add(on_disk(size)));
            recovered.stray = recovered.stray.saturating_add(1);
        }
    }
    Ok(())
}

/// Whether the message is the one that the slip was written for.
fn is_whole(folder: &Folder, id: HeldId, parts: Parts, slip: &Slip) -> Result<bool, Error> {
    let part = if parts.message.is_some() { Part::Message } else { Part::PendingMessage };
    let (file, size) = folder.read(id, part)?;
    let mut hasher = blake3::Hasher::new();
    each_block(&*file, 0, size, |block| {
        hasher.update(block);
        true
    })
    .map_err(disk("read", &folder.file(id, part)))?;
    Ok(size == slip.size && hasher.finalize().to_hex().as_str() == slip.blake3)
}

/// Gives the files the names that the crash left them without.
fn finish(folder: &Folder, id: HeldId, parts: Parts) -> Result<(), Error> {
    if parts.message.is_none() {
        folder.rename(id, Part::PendingMessage, Part::Message)?;
    }
    if parts.slip.is_none() {
        folder.rename(id, Part::PendingSlip, Part::Slip)?;
    }
    Ok(())
}

fn take_in(folder: &Folder, id: HeldId, parts: Parts, slip: &Slip) -> Result<(), Error> {
    let slip_bytes = parts.slip.or(parts.pending_slip).unwrap_or(0);
    let bytes = on_disk(slip.size).saturating_add(on_disk(slip_bytes));
    let mut held = Held::new(slip, bytes);
    if parts.copies.is_some() {
        read_copies(folder, id, &mut held)?;
    }
    folder.books(|books| {
        let all = bytes.saturating_add(on_disk(held.copies_bytes));
        books.bytes = books.bytes.saturating_add(all);
        books.insert(id, held);
    });
    Ok(())
}

/// Counts the copies beside a held message; cuts off one that a crash left torn.
fn read_copies(folder: &Folder, id: HeldId, held: &mut Held) -> Result<(), Error> {
    let path = folder.file(id, Part::Copies);
    let file = folder.disk().open(&path, How::Append(0o600)).map_err(disk("open", &path))?;
    let whole = whole_bytes(&*file).map_err(disk("read", &path))?;
    file.cut(whole).map_err(disk("cut", &path))?;
    held.copies_bytes = whole;
    // The folder is synced when all is looked through.
    held.copies_named = true;
    held.copies = count_lines(&*file, whole).map_err(disk("read", &path))?;
    let lines = std::io::BufReader::new(Stream::new(file)).lines();
    let last = lines.map_while(Result::ok).last();
    let copy = last.and_then(|line| serde_json::from_str::<CopySlip>(&line).ok());
    let time = copy.and_then(|copy| Timestamp::parse_rfc3339(&copy.time));
    held.last = held.last.max(time.unwrap_or_default());
    Ok(())
}
