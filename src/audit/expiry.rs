//! The quarantine now and then: what was sealed and has no name yet gets it, what is old goes.
//!
//! Takes: now. Gives: `Expired`. Every function here blocks. Errors: none; what the disk refuses is
//! counted and stays for the next time, and the rest is done.

use std::time::Duration;

use crate::audit::fault::Error;
use crate::audit::folder::{Folder, Held};
use crate::audit::held::HeldId;
use crate::mail::limits::{HELD_LIST_MAX, HELD_OVERDUE_AFTER};
use crate::mail::time::Timestamp;

/// What was done and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Messages that were sealed, could not get their names, and are held now.
    pub named: Vec<HeldId>,
    /// Messages that went because they were old.
    pub removed: Vec<HeldId>,
    /// Messages that never go by themselves and are held for more than a day: for an alarm; at
    /// most `limits::HELD_LIST_MAX`, the oldest.
    pub overdue: Vec<HeldId>,
    /// How many there are of those.
    pub overdue_count: usize,
    /// How many messages could not be named or removed.
    pub faults: usize,
    /// The first reason of those.
    pub fault: Option<Error>,
}

/// Does it.
pub fn expire(folder: &Folder, now: Timestamp) -> Expired {
    let mut expired = Expired::default();
    name_sealed(folder, &mut expired);
    let age_max = folder.settings().max_age;
    let older = |held: &Held, span: Duration| now.since(held.last) > span;
    let is_old = |held: &Held| held.expires() && older(held, age_max);
    let is_overdue = |held: &Held| !held.expires() && older(held, HELD_OVERDUE_AFTER);
    let (old, overdue): (Vec<HeldId>, Vec<HeldId>) = folder.books(|books| {
        let which = |so: &dyn Fn(&Held) -> bool| {
            books.held.iter().filter(|(_, held)| so(held)).map(|(id, _)| *id).collect()
        };
        (which(&is_old), which(&is_overdue))
    });
    expired.overdue_count = overdue.len();
    expired.overdue = overdue;
    expired.overdue.truncate(HELD_LIST_MAX);
    for id in old {
        match folder.take_away_if(id, is_old) {
            Ok(()) => expired.removed.push(id),
            // A copy joined it meanwhile, or somebody else took it away.
            Err(Error::NotHeld(_)) => {}
            Err(fault) => expired.failed(fault),
        }
    }
    expired
}

/// Tries again what `Sealed::commit` could not do.
fn name_sealed(folder: &Folder, expired: &mut Expired) {
    let waiting: Vec<HeldId> = folder.books(|books| books.unnamed.keys().copied().collect());
    let mut named = Vec::with_capacity(waiting.len());
    for id in waiting {
        match folder.name_again(id) {
            Ok(()) => named.push(id),
            Err(fault) => expired.failed(fault),
        }
    }
    if named.is_empty() {
        return;
    }
    if let Err(fault) = folder.sync() {
        return named.iter().for_each(|_| expired.failed(fault.clone()));
    }
    folder.books(|books| {
        for id in &named {
            if let Some(held) = books.unnamed.remove(id) {
                books.arrived(*id, held);
            }
        }
    });
    expired.named = named;
}

impl Expired {
    fn failed(&mut self, fault: Error) {
        self.faults = self.faults.saturating_add(1);
        self.fault.get_or_insert(fault);
    }
}
