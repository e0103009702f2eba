//! Reads and writes lengths of time as people do: `500ms`, `3s`, `1.5s`, `2m`, `24h`.

use std::time::Duration;

/// The longest time a spec may name.
pub const DURATION_MAX: Duration = Duration::from_secs(10_000 * 3600);
/// The same as a pattern of JSON Schema.
pub(super) const PATTERN: &str = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h)$";

/// Units and their length in microseconds, `ms` before `m` and `s`.
const UNITS: [(&str, u64); 4] = [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

/// The time that a text names, to the microsecond; `None` when it is not a number (at most three decimals) with one
/// of the units, or is past [`DURATION_MAX`].
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit_us) = UNITS.iter().find_map(|(unit, us)| Some((text.strip_suffix(unit)?, *us)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |s: &str, most: usize| (1..=most).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 9) || !digits(fraction, 3) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    let us = whole.parse::<u64>().ok()?.checked_mul(unit_us)?.checked_add(thousandths * unit_us / 1000)?;
    Some(Duration::from_micros(us)).filter(|time| *time <= DURATION_MAX)
}

/// A time in the largest unit that shows it whole, to the millisecond.
pub fn show(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ if ms > 1000 => format!("{}s", ms as f64 / 1000.0),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, ms) in [("500ms", 500), ("3s", 3000), ("1.5s", 1500), ("2m", 120_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("0.25ms"), Some(Duration::from_micros(250)));
        for bad in ["", "3", "s", "3 s", "-3s", "3S", "1m30s", ".5s", "1.2345s", "3d", "99999h", "1e3s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0u64..36_000_000_000) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(time)), Some(time));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,24}") {
            let _ = parse(&text);
        }
    }
}
