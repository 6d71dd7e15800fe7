//! Places for those who verify at once: few for each domain that is asked, so that one whose name
//! servers are slow keeps nobody else waiting.
//!
//! Takes: the domain that is asked, a deadline. Gives: a `Place`, or none. Bounds:
//! `limits::VERIFICATIONS_MAX` in all, `limits::VERIFICATIONS_OF_ONE_MAX` for one registrable
//! domain. Domains are counted in `limits::VERIFICATION_OWNERS` groups, chosen by chance at each
//! start, so that nobody can choose whom he shares one with.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::mail::limits::{VERIFICATION_OWNERS, VERIFICATIONS_MAX, VERIFICATIONS_OF_ONE_MAX};

/// All places.
#[derive(Debug)]
pub struct Places {
    all: Semaphore,
    of_one: Vec<Semaphore>,
    chance: RandomState,
}

/// A place, as long as it lives.
#[derive(Debug)]
pub struct Place<'a> {
    _of_one: SemaphorePermit<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Default for Places {
    fn default() -> Places {
        let of_one = || Semaphore::new(VERIFICATIONS_OF_ONE_MAX);
        Places {
            all: Semaphore::new(VERIFICATIONS_MAX),
            of_one: std::iter::repeat_with(of_one).take(VERIFICATION_OWNERS).collect(),
            chance: RandomState::new(),
        }
    }
}

impl Places {
    /// A place to ask this domain, given in any letter case; `None` when none is free by then.
    pub async fn take(&self, domain: &str, deadline: Instant) -> Option<Place<'_>> {
        let lower = domain.trim_end_matches('.').to_ascii_lowercase();
        let owner = psl::domain_str(&lower).unwrap_or(&lower);
        let groups = u64::try_from(self.of_one.len()).unwrap_or(1).max(1);
        let group = usize::try_from(self.chance.hash_one(owner) % groups).unwrap_or(0);
        let of_one = self.of_one.get(group)?;
        // Why this order: who waits for a slow domain must not keep a place meanwhile.
        let _of_one = timeout_at(deadline, of_one.acquire()).await.ok()?.ok()?;
        let _of_all = timeout_at(deadline, self.all.acquire()).await.ok()?.ok()?;
        Some(Place { _of_one, _of_all })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_domain_keeps_nobody_else_waiting() {
        let places = Places::default();
        let soon = || Instant::now() + Duration::from_secs(1);
        let mut taken = Vec::new();
        for n in 0..VERIFICATIONS_OF_ONE_MAX {
            let below = format!("{n}.Slow.example.");
            taken.push(places.take(&below, soon()).await.unwrap());
        }
        assert!(places.take("slow.example", soon()).await.is_none());
        let group = |domain: &str| places.chance.hash_one(domain) % VERIFICATION_OWNERS as u64;
        let others = (0..).map(|n| format!("bank{n}.example"));
        let other = others.into_iter().find(|other| group(other) != group("slow.example"));
        assert!(places.take(&other.unwrap(), soon()).await.is_some());
        taken.pop();
        assert!(places.take("slow.example", soon()).await.is_some());
    }
}
