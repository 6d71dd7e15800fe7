//! How values are written in the configuration: durations, sizes, dates.

use std::time::Duration;

use crate::mail::time::Timestamp;

/// Reads `"500ms"`, `"30s"`, `"2m"`, `"4h"`, `"14d"`; the error says how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units: &[(&str, u64)] =
        &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let millis = with_unit(text, units)
        .ok_or("write a duration as a number and ms, s, m, h or d, such as \"30s\"")?;
    Ok(Duration::from_millis(millis))
}

/// Reads `"500B"`, `"256KiB"`, `"25MiB"`, `"4GiB"`; the error says how to write it.
pub fn size(text: &str) -> Result<u64, String> {
    let units: &[(&str, u64)] =
        &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];
    with_unit(text, units)
        .ok_or_else(|| "write a size as a number and B, KiB, MiB or GiB, such as \"25MiB\"".into())
}

/// Reads `2026-12-31` (the end of that day, UTC) or an RFC 3339 moment.
pub fn expiry(text: &str) -> Result<Timestamp, String> {
    if let Some(moment) = Timestamp::parse_rfc3339(text) {
        return Ok(moment);
    }
    let last = format!("{text}T23:59:59.999Z");
    let date = (text.len() == 10).then(|| Timestamp::parse_rfc3339(&last)).flatten();
    date.ok_or_else(|| "write a date as \"2026-12-31\" or a moment as RFC 3339 has it".into())
}

/// A duration as it is written.
pub fn show_duration(duration: &Duration) -> String {
    let units: &[(&str, u128)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    in_units(duration.as_millis(), units).unwrap_or_else(|| format!("{}ms", duration.as_millis()))
}

/// A size as it is written.
pub fn show_size(bytes: &u64) -> String {
    let units: &[(&str, u128)] =
        &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    in_units(u128::from(*bytes), units).unwrap_or_else(|| format!("{bytes}B"))
}

fn in_units(amount: u128, units: &[(&str, u128)]) -> Option<String> {
    let fits = |(_, factor): &&(&str, u128)| amount >= *factor && amount.is_multiple_of(*factor);
    units.iter().find(fits).map(|(unit, factor)| format!("{}{unit}", amount / factor))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(size("256KiB"), Ok(262_144));
        assert_eq!(size("0B"), Ok(0));
        for text in ["", "30", "s", "30 s", "-1s", "1.5h", "99999999999999999999d", "30S"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "25", "25MB", "25 MiB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for text in ["500ms", "30s", "5m", "4h", "14d"] {
            assert_eq!(show_duration(&duration(text).unwrap()), text);
        }
        for text in ["500B", "256KiB", "25MiB", "4GiB"] {
            assert_eq!(show_size(&size(text).unwrap()), text);
        }
    }

    #[test]
    fn an_expiry_lasts_to_the_end_of_its_day() {
        let moment = Timestamp::parse_rfc3339("2026-12-31T23:59:59.999Z").unwrap();
        assert_eq!(expiry("2026-12-31"), Ok(moment));
        assert!(expiry("2026-12-31T10:00:00+01:00").is_ok());
        for text in ["", "tomorrow", "31.12.2026", "2026-13-01", "2026-02-30"] {
            assert!(expiry(text).is_err(), "{text}");
        }
    }
}
