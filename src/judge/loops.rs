//! Station 6: is this going round?
//!
//! Takes: the laps that our own trace proves, the hops. Gives: a `LoopFinding`, or nothing.
//! A loop that is only suspected is never held. Standards: RFC 5321 §6.3.

use crate::judge::Case;
use crate::judge::classify::Guarded;
use crate::judge::decision::{LoopFinding, LoopKind};
use crate::judge::evidence::Laps;
use crate::judge::policy::LoopLimits;
use crate::mail::address::ForwardPath;
use crate::mail::time::Timestamp;

/// The loop that this copy for this recipient is in; `None` when nothing proves one.
///
/// `laps` is what our trace shows of the message's earlier ways to this recipient.
pub fn loop_finding(
    case: &Case,
    recipient: &ForwardPath,
    laps: &Laps,
    limits: &LoopLimits,
    now: Timestamp,
) -> Option<LoopFinding> {
    let response = case.class.guarded() == Guarded::Response;
    let laps_max = if response { 0 } else { limits.laps_max };
    let hops_max = if response { limits.hops_max_response } else { limits.hops_max };
    let kind = if laps.count > laps_max {
        LoopKind::Lap
    } else if case.hops > hops_max && (response || laps.count > 0) {
        // Why: hops alone prove nothing of mail that is no response: long paths exist.
        LoopKind::Hops
    } else {
        return None;
    };
    Some(LoopFinding {
        kind,
        laps: laps.count,
        hops: case.hops,
        between: vec![recipient.to_string()],
        first_seen: laps.first.unwrap_or(now),
        last_seen: laps.last,
        stopped: 1,
    })
}
