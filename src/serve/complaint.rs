//! A line in the log that a flood must not repeat.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::mail::limits_of_clients::COMPLAINED_EVERY;

/// Something that is complained of once a `COMPLAINED_EVERY`, with how often it happened.
#[derive(Debug, Default)]
pub struct Complaint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    since: u64,
}

impl Complaint {
    /// It happened once more. How often it did since it was last said, if it is to be said now.
    pub fn is_due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += 1;
        if state.said.is_some_and(|said| said.elapsed() < COMPLAINED_EVERY) {
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_line_a_minute_and_the_next_line_counts_it() {
        let complaint = Complaint::default();
        assert_eq!(complaint.is_due(), Some(1));
        for _ in 0..1000 {
            assert_eq!(complaint.is_due(), None);
        }
        tokio::time::advance(COMPLAINED_EVERY).await;
        assert_eq!(complaint.is_due(), Some(1001));
    }
}
