//! What our own traces in a message prove of its earlier rounds.
//!
//! Takes: traces of this site, verified. Gives: `Laps` of one recipient. A trace that is older than
//! `limits::TRACE_AGE_MAX`, or from the future, counts nothing.

use ulid::Ulid;

use crate::judge::Case;
use crate::judge::loops::Laps;
use crate::judge::trace::{Lap, TraceKey};
use crate::mail::address::ForwardPath;
use crate::mail::limits::{CLOCK_SKEW_MAX, TRACE_AGE_MAX};
use crate::mail::time::Timestamp;

impl Laps {
    /// The earlier rounds of this message to this recipient.
    ///
    /// It came back when it had gone to him, and to nobody else with the same copy, then to
    /// somebody else, and is for him again. Of a copy that had gone to several the way back may be
    /// another's, who got it at the same time.
    pub fn of(case: &Case, recipient: &ForwardPath, key: &TraceKey, now: Timestamp) -> Laps {
        let mut laps = Laps::default();
        let mut elsewhere = false;
        // From the newest to the oldest, as they stand in the header.
        for (lap, at) in case.laps.iter().filter_map(|lap| Some((lap, moment(lap, now)?))) {
            if lap.went_to(recipient, key) {
                laps.count = laps.count.saturating_add(1);
                laps.came_back |= elsewhere && lap.recipients() == 1;
                laps.first = Some(laps.first.map_or(at, |first| first.min(at)));
                laps.last = Some(laps.last.map_or(at, |last| last.max(at)));
            } else {
                elsewhere |= lap.recipients() > 0;
            }
        }
        laps
    }
}

/// When the newest of our traces was written: how long ago this message left us.
pub fn left(case: &Case, now: Timestamp) -> Option<Timestamp> {
    case.laps.iter().filter_map(|lap| moment(lap, now)).max()
}

fn moment(lap: &Lap, now: Timestamp) -> Option<Timestamp> {
    let millis = Ulid::from_string(&lap.event).ok()?.timestamp_ms();
    let at = Timestamp::from_millis(i64::try_from(millis).ok()?);
    (at <= now.plus(CLOCK_SKEW_MAX) && now.since(at) <= TRACE_AGE_MAX).then_some(at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::fingerprint::FingerprintKey;
    use crate::judge::site::Site;
    use crate::judge::trace::{Arrival, TRACE_FIELD, Trace, lines};
    use crate::judge::{Keys, read};
    use crate::mail::address::{Address, ReversePath};
    use crate::mail::envelope::{Client, Envelope, MailFrom, Parameters};
    use crate::mail::header::Completeness;
    use crate::mail::message::Message;

    const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);

    fn to(text: &str) -> ForwardPath {
        ForwardPath::Address(Address::parse(text).unwrap())
    }

    fn key() -> TraceKey {
        TraceKey::new([1; 32])
    }

    /// Our lines on top of a message, for each of these rounds, the oldest first.
    fn message(rounds: &[(&[&str], i64)]) -> String {
        let mut text = "Subject: s\r\n\r\nx\r\n".to_owned();
        for (recipients, at) in rounds {
            let millis = u64::try_from(NOW.as_millis() + at).unwrap();
            let recipients: Vec<ForwardPath> = recipients.iter().map(|text| to(text)).collect();
            let event = Ulid::from_parts(millis, 7).to_string();
            let trace = Trace { site: "uni", event: &event, lap: 0, recipients: &recipients };
            let arrival = Arrival {
                helo: "mx",
                ip: None,
                with: "ESMTP",
                tls: None,
                hostname: "guard.test",
                at: NOW,
            };
            let ours = lines(&key(), &trace, &arrival, &[3; 256]);
            text = String::from_utf8(ours).unwrap() + &text;
        }
        text
    }

    fn case(text: &str, site: &str, key: &TraceKey) -> Case {
        let mail = MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        };
        let envelope = Envelope { client: Client::default(), mail, recipients: Vec::new() };
        let keys = Keys { fingerprint: &FingerprintKey::new([1; 32]), trace: key, loop_site: site };
        read(
            &envelope,
            &Message::new(text.to_owned(), Completeness::Whole),
            &Site::default(),
            &keys,
        )
    }

    fn laps(rounds: &[(&[&str], i64)], recipient: &str) -> Laps {
        Laps::of(&case(&message(rounds), "uni", &key()), &to(recipient), &key(), NOW)
    }

    const B: &str = "b@b.test";
    const C: &str = "c@c.test";

    #[test]
    fn rounds_are_counted_for_the_recipient_they_went_to() {
        let none = laps(&[(&[B], -2000)], C);
        assert_eq!(none, Laps::default());
        let two = laps(&[(&[B], -9000), (&[B], -2000)], B);
        assert_eq!((two.count, two.came_back), (2, false));
        assert_eq!(
            two.first,
            Some(NOW.plus(Duration::ZERO))
                .map(|_| { Timestamp::from_millis(NOW.as_millis() - 9000) })
        );
        assert_eq!(two.last, Some(Timestamp::from_millis(NOW.as_millis() - 2000)));
    }

    /// There and back again is a loop; two copies of one message that meet are none.
    #[test]
    fn what_comes_back_was_gone_alone() {
        assert!(laps(&[(&[B], -3), (&[C], -2)], B).came_back);
        assert!(laps(&[(&[B], -9), (&[B], -3), (&[C], -2)], B).came_back);
        assert!(!laps(&[(&[C], -3), (&[B], -2)], B).came_back);
        assert!(!laps(&[(&[B, "d@d.test"], -3), (&[C], -2)], B).came_back);
        let many: Vec<String> = (0..40).map(|n| format!("u{n}@c.test")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(!laps(&[(&[B], -3), (&many, -2)], B).came_back);
    }

    #[test]
    fn expired_foreign_and_forged_traces_count_nothing() {
        let week = i64::try_from(TRACE_AGE_MAX.as_millis()).unwrap();
        assert_eq!(laps(&[(&[B], -week)], B).count, 1);
        assert_eq!(laps(&[(&[B], -week - 1)], B).count, 0);
        assert_eq!(laps(&[(&[B], 3_600_000)], B).count, 0);
        let text = message(&[(&[B], -9)]);
        let count = |case: &Case, key: &TraceKey| Laps::of(case, &to(B), key, NOW).count;
        assert_eq!(count(&case(&text, "uni", &key()), &key()), 1);
        assert_eq!(count(&case(&text, "other", &key()), &key()), 0);
        let other = TraceKey::new([2; 32]);
        assert_eq!(count(&case(&text, "uni", &other), &other), 0);
        let copied = text.replace(TRACE_FIELD, "X-Copied");
        assert_eq!(count(&case(&copied, "uni", &key()), &key()), 0);
    }

    #[test]
    fn a_key_that_was_replaced_still_counts() {
        let text = message(&[(&[B], -9)]);
        let new = TraceKey::new([2; 32]).and_before([1; 32]);
        assert_eq!(Laps::of(&case(&text, "uni", &new), &to(B), &new, NOW).count, 1);
    }

    #[test]
    fn when_it_left_us_is_the_newest_trace() {
        let text = message(&[(&[B], -9000), (&[C], -2000)]);
        let at = left(&case(&text, "uni", &key()), NOW);
        assert_eq!(at, Some(Timestamp::from_millis(NOW.as_millis() - 2000)));
        assert_eq!(left(&case("Subject: s\n\n", "uni", &key()), NOW), None);
    }
}
