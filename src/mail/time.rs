//! A moment, in whole milliseconds since 1970-01-01 UTC.
//!
//! Gives: `Timestamp`, which comes from the one clock in `guard` or from a message's own header.
//! A span of time is `std::time::Duration`, so that no number stands for a time.
//!
//! Standards: RFC 3339 (audit log), RFC 5322 §3.3 (header dates).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in whole milliseconds since the Unix epoch, UTC; may lie before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long `earlier` lies before this moment; zero when it lies after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment and `span` more.
    pub fn plus(self, span: Duration) -> Timestamp {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Reads RFC 3339, with any fraction and offset; `None` for anything else.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Self(moment.as_millisecond()))
    }

    /// Reads the date of a header field, forgiving as mail must be; `None` when there is none.
    ///
    /// Takes the field's value, unfolded or not. RFC 5322 §3.3 and its obsolete forms.
    pub fn parse_header_date(value: &str) -> Option<Timestamp> {
        let date = mail_parser::DateTime::parse_rfc822(value)?;
        let plausible = date.is_valid() && date.year > 1970;
        plausible.then(|| Self(date.to_timestamp().saturating_mul(1000)))
    }

    /// The form of a header field's date, in UTC: `Sat, 21 Nov 2026 17:38:59 +0000`.
    pub fn header_date(self) -> String {
        let zoned = self.jiff().to_zoned(jiff::tz::TimeZone::UTC);
        jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_default()
    }

    fn jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-11-21T17:38:59.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.jiff())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_same_moment() {
        let moment = Timestamp::from_millis(1_795_282_739_042);
        assert_eq!(moment.to_string(), "2026-11-21T17:38:59.042Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-21T18:38:59.042+01:00"), Some(moment));
        assert_eq!(moment.header_date(), "Sat, 21 Nov 2026 17:38:59 +0000");
        assert_eq!(
            Timestamp::parse_header_date("Sat, 21 Nov 2026 17:38:59 +0000 (UTC)"),
            Some(Timestamp::from_millis(1_795_282_739_000))
        );
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in ["", "yesterday", "Sat, 99 Nov 2026 99:38:59 +0000"] {
            assert_eq!(Timestamp::parse_header_date(text), None, "{text}");
        }
    }

    #[test]
    fn spans_do_not_run_backwards() {
        let early = Timestamp::from_millis(5);
        let late = Timestamp::from_millis(2_005);
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::from_secs(2)), late);
    }
}
