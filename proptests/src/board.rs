//! What Redis must hold, worked out the slow way from the enriched topic: the board of a moment, and the counters of each
//! content and day. Nothing here uses the code of thmanyah.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::topics::Record;

const BUCKET_MS: i64 = 10_000;
const BUCKETS: i64 = 60;
/// An event this much later than its own publication is on no board.
const AHEAD_MS: i64 = 3_600_000;

/// An enriched event, as far as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engaged {
    content: Option<String>,
    user: Option<String>,
    kind: String,
    at_ms: i64,
    date: String,
    duration_ms: Option<i64>,
    published_ms: i64,
}

/// Counters of one content and day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Events by type.
    pub events: BTreeMap<String, i64>,
    /// Milliseconds.
    pub engagement_ms: i64,
    /// Who engaged.
    pub users: BTreeSet<String>,
}

impl Engaged {
    /// Reads an enriched JSON.
    pub fn parse(value: &[u8], published_ms: i64) -> Result<Self> {
        let json: Value = serde_json::from_slice(value)?;
        let text = |name: &str| json.get(name)?.as_str().map(str::to_owned);
        let time = text("event_ts").context("no event_ts")?;
        Ok(Self {
            content: text("content_id"),
            user: text("user_id"),
            kind: text("event_type").context("no event_type")?,
            at_ms: millis(&time).with_context(|| time.clone())?,
            date: time.get(..10).context("no date")?.to_owned(),
            duration_ms: json.get("duration_ms").and_then(Value::as_i64),
            published_ms,
        })
    }

    /// The enriched events among records; the others are left out.
    pub fn all(records: &[Record]) -> Vec<Self> {
        let read = |record: &Record| {
            let published_ms = record.timestamp_ms?;
            Self::parse(record.value.as_deref()?, published_ms).ok()
        };
        records.iter().filter_map(read).collect()
    }
}

/// Content and milliseconds at a moment: the most first, equal ones by content.
pub fn board(events: &[Engaged], at_ms: i64) -> Vec<(String, i64)> {
    let last = at_ms.div_euclid(BUCKET_MS);
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for event in events {
        let bucket = event.at_ms.div_euclid(BUCKET_MS);
        let counts = bucket > last - BUCKETS
            && bucket <= last
            && event.at_ms - event.published_ms <= AHEAD_MS;
        if let (Some(content), Some(duration), true) = (&event.content, event.duration_ms, counts) {
            *sums.entry(content).or_default() += duration;
        }
    }
    let mut board: Vec<(String, i64)> = sums
        .into_iter()
        .map(|(content, sum)| (content.to_owned(), sum))
        .collect();
    board.sort_by_key(|(content, sum)| (-sum, content.clone()));
    board
}

/// Counters by content and date.
pub fn counters(events: &[Engaged]) -> BTreeMap<(String, String), Counted> {
    let mut counters: BTreeMap<(String, String), Counted> = BTreeMap::new();
    for event in events {
        if let Some(content) = &event.content {
            let counted = counters
                .entry((content.clone(), event.date.clone()))
                .or_default();
            *counted.events.entry(event.kind.clone()).or_default() += 1;
            counted.engagement_ms += event.duration_ms.unwrap_or(0);
            counted.users.extend(event.user.clone());
        }
    }
    counters
}

/// Milliseconds since the epoch of `YYYY-MM-DDThh:mm:ss[.fraction]Z`: the calendar is walked one year and month at a time.
fn millis(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, mark: char| -> Option<Vec<i64>> {
        text.split(mark).map(|part| part.parse().ok()).collect()
    };
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?.try_into().ok()?;
    let fraction: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = |year: i64| if leap(year) { 366 } else { 365 };
    let mut days: i64 =
        (1970..year).map(length).sum::<i64>() - (year..1970).map(length).sum::<i64>();
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    days += months
        .iter()
        .take(usize::try_from(month - 1).ok()?)
        .sum::<i64>()
        + day
        - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_735_734_600_000;

    fn event(content: &str, at_ms: i64, duration_ms: Option<i64>) -> Engaged {
        Engaged {
            content: Some(content.to_owned()),
            user: Some("u".to_owned()),
            kind: "play".to_owned(),
            at_ms,
            date: "2025-01-01".to_owned(),
            duration_ms,
            published_ms: NOW,
        }
    }

    #[test]
    fn times_are_read_back_as_they_were_written() {
        for micros in [
            0,
            -1_000,
            951_782_400_100_000,
            1_735_734_600_000_000,
            -62_135_596_800_000_000,
        ] {
            assert_eq!(
                millis(&crate::oracle::utc(micros)),
                Some(micros / 1000),
                "{micros}"
            );
        }
    }

    #[test]
    fn a_window_holds_the_sixty_buckets_up_to_its_moment() {
        let events = [
            event("in", NOW, Some(1)),
            event("in", NOW - 590_000, Some(2)),
            event("old", NOW - 590_001, Some(4)),
            event("next", NOW + 10_000, Some(8)),
            event("same bucket", NOW + 9_999, Some(3)),
            event("null", NOW, None),
            event("nought", NOW, Some(0)),
        ];
        let expected = [("in", 3), ("same bucket", 3), ("nought", 0)];
        assert_eq!(
            board(&events, NOW),
            expected.map(|(content, sum)| (content.to_owned(), sum))
        );
    }

    #[test]
    fn what_was_far_ahead_when_it_was_published_is_on_no_board() {
        let later = NOW + AHEAD_MS;
        let events = [
            event("in", later, Some(1)),
            event("out", later + 1, Some(1)),
        ];
        assert_eq!(board(&events, later), [("in".to_owned(), 1)]);
        assert_eq!(counters(&events).len(), 2);
    }

    #[test]
    fn an_enriched_json_is_counted_by_its_content_and_day() {
        let row = crate::oracle::EventRow {
            id: 1,
            content_id: Some("c".to_owned()),
            user_id: Some("u".to_owned()),
            event_type: "click".to_owned(),
            event_ts_micros: NOW * 1000 + 999,
            duration_ms: Some(7),
            device: None,
        };
        let json = crate::oracle::expected_enriched(&row, None);
        let engaged = Engaged::parse(&json, NOW).expect("it is an enriched event");
        assert_eq!(
            board(std::slice::from_ref(&engaged), NOW),
            [("c".to_owned(), 7)]
        );
        let counted = Counted {
            events: BTreeMap::from([("click".to_owned(), 1)]),
            engagement_ms: 7,
            users: BTreeSet::from(["u".to_owned()]),
        };
        let key = ("c".to_owned(), "2025-01-01".to_owned());
        assert_eq!(counters(&[engaged]), BTreeMap::from([(key, counted)]));
    }
}
