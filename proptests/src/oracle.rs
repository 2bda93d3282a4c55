//! The expected output for a plain row of the database, worked out the slow way: exact rationals, a calendar walked year
//! by year, and another JSON writer. Nothing here uses the code of thmanyah.

use num_bigint::BigInt;
use num_rational::BigRational;

/// A row of `engagement_events`, as PostgreSQL hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Primary key.
    pub id: i64,
    /// The content engaged with, as text.
    pub content_id: Option<String>,
    /// Who engaged, as text.
    pub user_id: Option<String>,
    /// What was done.
    pub event_type: String,
    /// When, in microseconds since the epoch.
    pub event_ts_micros: i64,
    /// For how long.
    pub duration_ms: Option<i32>,
    /// On which device.
    pub device: Option<String>,
}

/// What is used of a row of `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedRow {
    /// Kind.
    pub content_type: Option<String>,
    /// Length.
    pub length_seconds: Option<i32>,
}

/// `duration_ms / 1000.0` as the shortest decimal.
pub fn oracle_seconds(duration_ms: Option<i32>) -> Option<String> {
    duration_ms.map(|duration| shortest(&seconds(duration), 3))
}

/// `ROUND(duration_ms / 1000.0 / length_seconds, 2)`, half away from zero, as the shortest decimal.
pub fn oracle_pct(duration_ms: Option<i32>, length_seconds: Option<i32>) -> Option<String> {
    oracle_share(duration_ms, length_seconds).map(|share| shortest(&share, 2))
}

/// The same, as an exact number of hundredths over 100.
pub fn oracle_share(duration_ms: Option<i32>, length_seconds: Option<i32>) -> Option<BigRational> {
    let length = length_seconds.filter(|length| *length != 0)?;
    let hundredths = seconds(duration_ms?) / whole(length) * whole(100);
    let half = BigRational::new(1.into(), 2.into());
    let rounded = if hundredths < whole(0) {
        (hundredths - half).ceil()
    } else {
        (hundredths + half).floor()
    };
    Some(rounded / whole(100))
}

/// The enriched JSON of a row and its content, byte for byte.
pub fn expected_enriched(event: &EventRow, content: Option<&JoinedRow>) -> Vec<u8> {
    let length = content.and_then(|content| content.length_seconds);
    let content_type = content.and_then(|content| content.content_type.clone());
    let fields = [
        ("event_id", string(Some(&event.id.to_string()))),
        ("content_id", string(event.content_id.as_deref())),
        ("user_id", string(event.user_id.as_deref())),
        ("event_type", string(Some(&event.event_type))),
        ("event_ts", string(Some(&utc(event.event_ts_micros)))),
        ("duration_ms", number(event.duration_ms)),
        ("device", string(event.device.as_deref())),
        ("content_type", string(content_type.as_deref())),
        ("length_seconds", number(length)),
        (
            "engagement_seconds",
            number(oracle_seconds(event.duration_ms)),
        ),
        (
            "engagement_pct",
            number(oracle_pct(event.duration_ms, length)),
        ),
    ];
    let members: Vec<String> = fields
        .into_iter()
        .map(|(name, json)| format!("\"{name}\":{json}"))
        .collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn whole(number: i32) -> BigRational {
    BigRational::from_integer(number.into())
}

fn seconds(duration_ms: i32) -> BigRational {
    whole(duration_ms) / whole(1000)
}

/// A decimal that fits `digits` digits after the point, without zeros at its end.
fn shortest(value: &BigRational, digits: u32) -> String {
    let scaled = value * BigRational::from_integer(BigInt::from(10).pow(digits));
    assert!(scaled.is_integer(), "{value} has more than {digits} digits");
    let negative = scaled < whole(0);
    let digits = digits as usize;
    let text = scaled.to_integer().to_string();
    let text = format!(
        "{:0>width$}",
        text.trim_start_matches('-'),
        width = digits + 1
    );
    let (integer, fraction) = text.split_at(text.len() - digits);
    let decimal = format!("{integer}.{fraction}");
    let decimal = decimal.trim_end_matches('0').trim_end_matches('.');
    if negative {
        format!("-{decimal}")
    } else {
        decimal.to_owned()
    }
}

fn string(text: Option<&str>) -> String {
    serde_json::Value::from(text).to_string()
}

fn number(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// The text of an instant: the calendar is walked from 1970, one year and then one month at a time.
pub fn utc(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_year = |year: i64| if leap(year) { 366 } else { 365 };
    let mut days = micros.div_euclid(DAY);
    let mut year = 1970;
    while days < 0 {
        year -= 1;
        days += days_of_year(year);
    }
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let of_day = micros.rem_euclid(DAY);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let clock = format!(
        "{:02}:{:02}:{:02}.{fraction:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    let clock = clock.trim_end_matches('0').trim_end_matches('.');
    // A clock of `00:00:00.000000` loses its own zeros too.
    let clock = format!("{clock:<8}").replace(' ', "0");
    format!("{year:04}-{month:02}-{:02}T{clock}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_agrees_with_the_contracts_example() {
        assert_eq!(oracle_seconds(Some(12_340)).as_deref(), Some("12.34"));
        assert_eq!(
            oracle_pct(Some(12_340), Some(1200)).as_deref(),
            Some("0.01")
        );
        assert_eq!(oracle_pct(Some(12_340), Some(0)), None);
        assert_eq!(utc(1_735_734_600_000_000), "2025-01-01T12:30:00Z");
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(utc(951_782_400_100_000), "2000-02-29T00:00:00.1Z");
    }
}
