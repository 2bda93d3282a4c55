//! Durations and sizes: numbers with a unit.

use super::layers::Raw;
use super::values::{Value, quoted, scalar};
use std::fmt;
use std::time::Duration;

impl Value for Duration {
    const EXPECTS: &'static str = "a duration such as 7.5s, 100ms or 24h";

    fn parse(raw: &Raw) -> Result<Self, String> {
        parse_duration(scalar(raw)?)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&show_duration(*self)))
    }
}

/// Units of time, largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration: numbers with a unit, decimals allowed, such as `7.5s`, `100ms`, `24h` or `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        "must be a duration: a number and one of d, h, m, s, ms, us, ns, such as 7.5s or 100ms"
            .to_owned()
    };
    let mut rest = text.trim();
    let mut nanos = 0u128;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        let part = scaled(number, scale).ok_or_else(wrong)?;
        nanos = nanos.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| "a duration out of range".to_owned())
}

/// A decimal number times a scale, exactly; digits below a nanosecond are cut.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let divisor = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().ok()?;
    Some(whole * scale + fraction * scale / divisor)
}

/// Writes a duration so that [`parse_duration`] reads the same one.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, scale) in UNITS {
        // As people set them: `24h`, not `1d`, and `60s`, not `1m`.
        let usual = match unit {
            "d" => false,
            "m" => nanos > scale,
            _ => nanos >= scale,
        };
        if usual && nanos.is_multiple_of(scale) {
            return format!("{}{unit}", nanos / scale);
        }
        if unit == "s" && nanos >= scale && nanos.is_multiple_of(1_000_000) {
            let millis = format!("{:03}", nanos % scale / 1_000_000);
            return format!("{}.{}s", nanos / scale, millis.trim_end_matches('0'));
        }
    }
    "0s".to_owned()
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Units of size, larger first.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().find(|(name, size)| {
            (name.contains('i') || *name == "B") && self.0 >= *size && self.0.is_multiple_of(*size)
        });
        match unit {
            Some((name, size)) => write!(f, "{} {name}", self.0 / size),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Value for Bytes {
    const EXPECTS: &'static str = "a size such as 64 MiB";

    fn parse(raw: &Raw) -> Result<Self, String> {
        let wrong =
            || "must be a size: a number and one of B, kB, KiB, MB, MiB, GB, GiB".to_owned();
        let text = scalar(raw)?.trim();
        let number_len = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_len);
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        let size = SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(size).map(Self).ok_or_else(wrong)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Value for Option<Bytes> {
    const EXPECTS: &'static str = Bytes::EXPECTS;

    fn parse(raw: &Raw) -> Result<Self, String> {
        Bytes::parse(raw).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn to_toml(&self) -> Option<String> {
        self.and_then(|bytes| bytes.to_toml())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units_and_decimals() {
        for (text, nanos) in [
            ("7.5s", 7_500_000_000),
            ("60s", 60_000_000_000),
            ("1m", 60_000_000_000),
            ("100ms", 100_000_000),
            ("0.25ms", 250_000),
            ("24h", 86_400_000_000_000),
            ("1d", 86_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("0s", 0),
            ("1us", 1_000),
            ("1.9ns", 1),
            (" 5s ", 5_000_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "5x",
            "1.s",
            ".5s",
            "1.2.3s",
            "1e3s",
            "7,5s",
            "5S",
            "٥s",
            "5s5",
            "999999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_survives_being_shown() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1500ns"),
            (100_000_000, "100ms"),
            (7_500_000_000, "7.5s"),
            (1_000_000_001, "1000000001ns"),
            (60_000_000_000, "60s"),
            (90_000_000_000, "90s"),
            (120_000_000_000, "2m"),
            (3_600_000_000_000, "1h"),
            (86_400_000_000_000, "24h"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(show_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_read_with_units_and_survive_being_shown() {
        for (text, bytes) in [
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("12", 12),
            ("12 B", 12),
            ("3 KiB", 3072),
        ] {
            let parsed = Bytes::parse(&Raw::Scalar(text.to_owned()));
            assert_eq!(parsed, Ok(Bytes(bytes)), "{text}");
            let shown = Bytes(bytes).to_string();
            assert_eq!(
                Bytes::parse(&Raw::Scalar(shown)),
                Ok(Bytes(bytes)),
                "{text}"
            );
        }
        for text in ["", "MiB", "-1 B", "1.5 MiB", "1 mib", "99999999999 GiB"] {
            assert!(
                Bytes::parse(&Raw::Scalar(text.to_owned())).is_err(),
                "{text}"
            );
        }
    }
}
