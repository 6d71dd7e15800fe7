//! Room that the recipients of a transaction take, out of what there is for messages.
//!
//! Bounds: `limits_of_clients::ENVELOPE_BYTES_FREE` without asking; then the budget of all
//! sessions, of which one message's share is always left.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mail::limits_of_clients::{ENVELOPE_BYTES_FREE, ENVELOPE_COPIES, ENVELOPE_STEP_KIB};

/// What the recipients of one transaction take; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Envelopes {
    bytes: usize,
    /// Room for those beyond `ENVELOPE_BYTES_FREE`.
    room: Option<OwnedSemaphorePermit>,
}

impl Envelopes {
    /// Whether there is room for a recipient whose command has so many bytes. `share_kib`: that of
    /// a message, which stays: whoever has named his recipients must be able to send it.
    pub fn fits(&mut self, command: usize, budget_kib: &Arc<Semaphore>, share_kib: usize) -> bool {
        let bytes = self.bytes + command * ENVELOPE_COPIES;
        let kib = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if bytes > ENVELOPE_BYTES_FREE + kib * 1024 {
            let is_left = budget_kib.available_permits() >= share_kib + ENVELOPE_STEP_KIB as usize;
            let more = Arc::clone(budget_kib).try_acquire_many_owned(ENVELOPE_STEP_KIB).ok();
            match (more.filter(|_| is_left), &mut self.room) {
                (None, _) => return false,
                (Some(more), Some(room)) => room.merge(more),
                (Some(more), room) => *room = Some(more),
            }
        }
        self.bytes = bytes;
        true
    }
}
