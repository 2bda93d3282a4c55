//! Instants in UTC as microseconds, and the one time grammar that records and the HTTP API share.

use serde::{Deserialize, Serialize};
use std::fmt;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// An instant in UTC: microseconds since 1970-01-01T00:00:00Z, from year 1 to year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

/// Why a text is no time that this system accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// Not `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
    Grammar,
    /// The grammar fits, but no such date, hour, minute, second or offset exists.
    NoSuchTime,
    /// Before 0001-01-01T00:00:00Z or after 9999-12-31T23:59:59.999999Z.
    OutOfRange,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grammar => "not YYYY-MM-DDThh:mm:ss[.fraction](Z|+hh:mm|-hh:mm)",
            Self::NoSuchTime => "no such date, hour, minute, second or offset",
            Self::OutOfRange => "outside 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z",
        })
    }
}

impl std::error::Error for TimeError {}

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799 * MICROS_PER_SECOND + 999_999);

    /// From microseconds since the epoch; `None` outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// From milliseconds since the epoch; `None` outside the years 1 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1000).and_then(Self::from_micros)
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Reads `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`. Digits past the sixth of the fraction are cut, not rounded.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let mut cursor = Cursor(text.as_bytes());
        let year = cursor.number(4)?;
        cursor.expect(b'-')?;
        let month = cursor.number(2)?;
        cursor.expect(b'-')?;
        let day = cursor.number(2)?;
        cursor.expect(b'T')?;
        let hour = cursor.number(2)?;
        cursor.expect(b':')?;
        let minute = cursor.number(2)?;
        cursor.expect(b':')?;
        let second = cursor.number(2)?;
        let fraction = cursor.fraction()?;
        let offset_minutes = cursor.zone()?;
        let date_exists =
            (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
        if !date_exists || hour > 23 || minute > 59 || second > 59 {
            return Err(TimeError::NoSuchTime);
        }
        let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY
            + hour * 3600
            + minute * 60
            + second
            - offset_minutes * 60;
        Self::from_micros(seconds * MICROS_PER_SECOND + fraction).ok_or(TimeError::OutOfRange)
    }

    /// Appends the text form: UTC, `Z`, a fraction only when it is not zero and without trailing zeros.
    pub fn write_to(self, out: &mut Vec<u8>) {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let mut fraction = self.0.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let two = |n: i64| [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        out.extend_from_slice(&two(year / 100));
        out.extend_from_slice(&two(year % 100));
        for (mark, n) in [
            (b'-', month),
            (b'-', day),
            (b'T', of_day / 3600),
            (b':', of_day / 60 % 60),
            (b':', of_day % 60),
        ] {
            out.push(mark);
            out.extend_from_slice(&two(n));
        }
        if fraction > 0 {
            out.push(b'.');
            let mut unit = MICROS_PER_SECOND / 10;
            while fraction > 0 {
                out.push(b'0' + (fraction / unit) as u8);
                fraction %= unit;
                unit /= 10;
            }
        }
        out.push(b'Z');
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(27);
        self.write_to(&mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Reads the grammar left to right, bytes at a time.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn digit(&mut self) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        let digit = first.is_ascii_digit().then(|| i64::from(first - b'0'))?;
        self.0 = rest;
        Some(digit)
    }

    fn number(&mut self, digits: usize) -> Result<i64, TimeError> {
        (0..digits).try_fold(0, |sum, _| {
            self.digit()
                .map(|digit| sum * 10 + digit)
                .ok_or(TimeError::Grammar)
        })
    }

    fn expect(&mut self, byte: u8) -> Result<(), TimeError> {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                Ok(())
            }
            _ => Err(TimeError::Grammar),
        }
    }

    /// The fraction in microseconds; 0 when there is none.
    fn fraction(&mut self) -> Result<i64, TimeError> {
        if self.peek() != Some(b'.') {
            return Ok(0);
        }
        self.expect(b'.')?;
        let mut micros = 0;
        let mut unit = MICROS_PER_SECOND / 10;
        let mut digits = 0;
        while let Some(digit) = self.digit() {
            micros += digit * unit;
            unit /= 10;
            digits += 1;
        }
        if digits == 0 {
            return Err(TimeError::Grammar);
        }
        Ok(micros)
    }

    /// Minutes east of UTC. The zone is required, and nothing may follow it.
    fn zone(&mut self) -> Result<i64, TimeError> {
        let sign = match self.peek() {
            Some(b'Z') => 0,
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(TimeError::Grammar),
        };
        self.0 = self.0.get(1..).unwrap_or_default();
        let minutes = if sign == 0 {
            0
        } else {
            let hours = self.number(2)?;
            self.expect(b':')?;
            let minutes = self.number(2)?;
            if hours > 23 || minutes > 59 {
                return Err(TimeError::NoSuchTime);
            }
            hours * 60 + minutes
        };
        if self.0.is_empty() {
            Ok(sign * minutes)
        } else {
            Err(TimeError::Grammar)
        }
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`], from the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Result<i64, TimeError> {
        Timestamp::parse(text).map(Timestamp::micros)
    }

    #[test]
    fn the_first_and_the_last_instant_are_accepted() {
        for (text, instant) in [
            ("0001-01-01T00:00:00Z", Timestamp::MIN),
            ("9999-12-31T23:59:59.999999Z", Timestamp::MAX),
            ("9999-12-31T23:59:59.9999999999Z", Timestamp::MAX),
            ("0001-01-01T23:59:00+23:59", Timestamp::MIN),
            ("0000-12-31T00:01:00-23:59", Timestamp::MIN),
            ("9999-12-31T00:00:59.999999-23:59", Timestamp::MAX),
        ] {
            assert_eq!(Timestamp::parse(text), Ok(instant), "{text}");
        }
    }

    #[test]
    fn an_offset_that_pushes_over_the_edge_is_out_of_range() {
        for text in [
            "0001-01-01T00:00:00+00:01",
            "0001-01-01T23:58:59.999999+23:59",
            "9999-12-31T23:59:59.999999-00:01",
            "9999-12-31T00:01:00-23:59",
            "0000-12-31T23:59:59.999999Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(micros(text), Err(TimeError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn an_offset_is_taken_off_and_may_be_zero_in_either_sign() {
        let noon = micros("2025-01-01T12:00:00Z");
        for text in [
            "2025-01-01T12:00:00+00:00",
            "2025-01-01T12:00:00-00:00",
            "2025-01-01T15:00:00+03:00",
            "2025-01-02T11:59:00+23:59",
            "2024-12-31T12:01:00-23:59",
        ] {
            assert_eq!(micros(text), noon, "{text}");
        }
    }

    #[test]
    fn digits_past_the_sixth_are_cut_and_never_rounded() {
        let base = micros("2025-01-01T00:00:00Z").unwrap_or_default();
        for (fraction, expected) in [
            ("1", 100_000),
            ("12", 120_000),
            ("000001", 1),
            ("0000009", 0),
            ("123456999999999999999999999999", 123_456),
            ("9999999", 999_999),
        ] {
            let text = format!("2025-01-01T00:00:00.{fraction}Z");
            assert_eq!(micros(&text), Ok(base + expected), "{text}");
        }
    }

    #[test]
    fn a_time_that_does_not_exist_is_refused() {
        for text in [
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-04-31T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-01-32T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:00+00:60",
        ] {
            assert_eq!(micros(text), Err(TimeError::NoSuchTime), "{text}");
        }
        assert!(micros("2000-02-29T00:00:00Z").is_ok());
        assert!(micros("2024-02-29T00:00:00Z").is_ok());
    }

    #[test]
    fn another_grammar_is_refused() {
        for text in [
            "",
            "infinity",
            "2025-01-01",
            "2025-01-01T00:00:00",
            "2025-01-01t00:00:00Z",
            "2025-01-01T00:00:00z",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00,1Z",
            "2025-01-01T00:00:00 Z",
            "2025-01-01T00:00:00ZZ",
            "2025-01-01T00:00:00Z ",
            " 2025-01-01T00:00:00Z",
            "2025-01-01T00:00:00+03",
            "2025-01-01T00:00:00+0300",
            "2025-01-01T00:00:00+3:00",
            "2025-01-01T00:00:00+03:00:00",
            "2025-01-01T00:00:00Z BC",
            "+2025-01-01T00:00:00Z",
            "-0044-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "25-01-01T00:00:00Z",
            "2025-1-1T00:00:00Z",
            "20250101T000000Z",
            "٢٠٢٥-01-01T00:00:00Z",
        ] {
            assert_eq!(micros(text), Err(TimeError::Grammar), "{text}");
        }
    }

    #[test]
    fn integers_outside_of_the_years_1_to_9999_are_no_instant() {
        for edge in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(Timestamp::from_micros(edge.micros()), Some(edge));
        }
        assert_eq!(Timestamp::from_micros(Timestamp::MIN.micros() - 1), None);
        assert_eq!(Timestamp::from_micros(Timestamp::MAX.micros() + 1), None);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_millis(i64::MIN), None);
        assert_eq!(
            Timestamp::from_millis(-62_135_596_800_000),
            Some(Timestamp::MIN)
        );
    }
}
