//! File handles: every session has one or two, and most systems give a program 1,024 to begin with.
//!
//! Takes: the configuration. Gives: how many are needed, and how many there are once all that the
//! system allows are taken. Errors: none; what cannot be raised stays as it is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::mail::limits::TAP_SESSIONS_MAX;
use crate::mail::limits_of_clients::HANDLES_BESIDE;

/// How many there must be for all sessions that the configuration allows.
pub fn needed(config: &Config) -> u64 {
    let sessions = |is_on: bool, handles: usize| if is_on { TAP_SESSIONS_MAX * handles } else { 0 };
    let taps = sessions(!config.tap.milter.is_empty(), 1)
        // Why two: one to the client, one to the MTA behind.
        + sessions(!config.tap.smtp.is_empty(), 2);
    let all = config.outbound.sessions_max + config.relay.sessions_max + taps + HANDLES_BESIDE;
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// Takes as many as the system allows; gives how many that are.
pub fn take_all() -> u64 {
    let limits = getrlimit(Resource::Nofile);
    let Rlimit { current, maximum } = limits;
    if current != maximum {
        // Why no complaint: what there is is compared with what is needed in any case.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_allowed_are_taken() {
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(take_all(), allowed);
    }
}
