//! What a run of events adds to the board and to the counters, summed up before it is sent: a pure function of the events.

use crate::codec::Published;
use crate::domain::{ContentId, EventType, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet};

const BUCKET_MICROS: i64 = 10_000_000;
const DAY_MICROS: i64 = 86_400_000_000;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// So long after its end a bucket is kept; the library goes by the same number.
const BUCKET_KEPT_MS: i64 = HOUR_MS;
/// An event that names a moment further ahead of its publication than this is on no board: each bucket is a key, and a clock
/// that is years ahead must not make keys for years. By the record's own time, so that a rebuild decides the same.
const AHEAD_MS: i64 = HOUR_MS;
/// So long after the publication of its last event a counter is kept.
const COUNTER_KEPT_MS: i64 = 8 * DAY_MS;

/// Counters of one content and day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Events by type, in the order of [`place_of`].
    pub(super) events: [i64; 4],
    /// Engagement in milliseconds.
    pub(super) engagement_ms: i64,
    /// Who engaged.
    pub(super) users: BTreeSet<UserId>,
    /// Until when they are kept, in seconds since the epoch.
    pub(super) kept_until: i64,
}

/// The sums of a run of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deltas {
    /// Milliseconds of a bucket's contents.
    board: BTreeMap<i64, BTreeMap<ContentId, i64>>,
    /// By content, and days since the epoch.
    counters: BTreeMap<(ContentId, i64), Counts>,
}

impl Deltas {
    /// Adds an event that was published at `published_ms`. `now_ms` is a moment that is past for Redis: what has expired there
    /// by then is left out.
    pub(super) fn add(&mut self, event: &Published<'_>, published_ms: i64, now_ms: i64) {
        let Some(content) = event.content_id else {
            return;
        };
        let micros = event.event_ts.micros();
        if let Some(duration) = event.duration_ms {
            let bucket = micros.div_euclid(BUCKET_MICROS);
            let ends_ms = (bucket + 1) * (BUCKET_MICROS / 1000);
            let ahead = micros.div_euclid(1000) - published_ms > AHEAD_MS;
            if !ahead && ends_ms + BUCKET_KEPT_MS > now_ms {
                *self
                    .board
                    .entry(bucket)
                    .or_default()
                    .entry(content)
                    .or_default() += i64::from(duration);
            }
        }
        let kept_until_ms =
            (published_ms + COUNTER_KEPT_MS).div_euclid(HOUR_MS) * HOUR_MS + HOUR_MS;
        if kept_until_ms <= now_ms {
            return;
        }
        let day = micros.div_euclid(DAY_MICROS);
        let counts = self.counters.entry((content, day)).or_default();
        if let Some(count) = counts.events.get_mut(place_of(event.event_type)) {
            *count += 1;
        }
        counts.engagement_ms += i64::from(event.duration_ms.unwrap_or(0));
        counts.users.extend(event.user_id);
        counts.kept_until = counts.kept_until.max(kept_until_ms / 1000);
    }

    /// As the library's `thmanyah_apply` takes them.
    pub(super) fn arguments(&self) -> Vec<Vec<u8>> {
        let mut arguments = Vec::new();
        number(&mut arguments, self.board.len() as i64);
        for (bucket, contents) in &self.board {
            number(&mut arguments, *bucket);
            number(&mut arguments, contents.len() as i64);
            for (content, duration) in contents {
                arguments.push(content.text().to_vec());
                number(&mut arguments, *duration);
            }
        }
        number(&mut arguments, self.counters.len() as i64);
        for ((content, day), counts) in &self.counters {
            arguments.push(content.text().to_vec());
            arguments.push(date(*day));
            number(&mut arguments, counts.kept_until);
            for count in counts.events {
                number(&mut arguments, count);
            }
            number(&mut arguments, counts.engagement_ms);
            number(&mut arguments, counts.users.len() as i64);
            arguments.extend(counts.users.iter().map(|user| user.text().to_vec()));
        }
        arguments
    }
}

/// Where a type's count stands: play, pause, finish, click.
fn place_of(event_type: EventType) -> usize {
    match event_type {
        EventType::Play => 0,
        EventType::Pause => 1,
        EventType::Finish => 2,
        EventType::Click => 3,
    }
}

fn number(arguments: &mut Vec<Vec<u8>>, number: i64) {
    arguments.push(itoa::Buffer::new().format(number).as_bytes().to_vec());
}

/// `YYYY-MM-DD` of a day since the epoch.
fn date(day: i64) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(midnight) = Timestamp::from_micros(day * DAY_MICROS) {
        midnight.write_to(&mut text);
    }
    text.truncate("YYYY-MM-DD".len());
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use crate::domain::EventId;
    use proptest::prelude::*;

    /// A day before the counters of a record of that moment expire, give or take.
    const NOW_MS: i64 = 1_800_000_000_000;

    fn event(content: Option<u8>, ts_ms: i64, duration_ms: Option<i32>) -> Published<'static> {
        Published {
            event_id: EventId(1),
            content_id: content.map(|content| ContentId([content; 16])),
            user_id: Some(UserId([7; 16])),
            event_type: EventType::Finish,
            event_ts: Timestamp::from_millis(ts_ms).unwrap(),
            duration_ms,
            device: None,
            content_type: None,
            length_seconds: None,
            engagement_seconds: None,
            engagement_pct: None,
        }
    }

    fn text(deltas: &Deltas) -> Vec<String> {
        let arguments = deltas.arguments().into_iter();
        arguments
            .map(|argument| String::from_utf8(argument).unwrap())
            .collect()
    }

    #[test]
    fn events_of_one_bucket_and_content_are_one_sum() {
        let mut deltas = Deltas::default();
        for (ts, duration) in [
            (NOW_MS, Some(5)),
            (NOW_MS + 9_999, Some(7)),
            (NOW_MS, None),
            (NOW_MS + 10_000, Some(0)),
        ] {
            deltas.add(&event(Some(1), ts, duration), NOW_MS, NOW_MS);
        }
        let id = "01010101-0101-0101-0101-010101010101";
        let user = "07070707-0707-0707-0707-070707070707";
        assert_eq!(
            text(&deltas),
            [
                "2",
                "180000000",
                "1",
                id,
                "12",
                "180000001",
                "1",
                id,
                "0", //
                "1",
                id,
                "2027-01-15",
                "1800694800",
                "0",
                "0",
                "4",
                "0",
                "12",
                "1",
                user
            ]
        );
    }

    #[test]
    fn what_names_no_content_counts_nowhere() {
        let mut deltas = Deltas::default();
        deltas.add(&event(None, NOW_MS, Some(5)), NOW_MS, NOW_MS);
        assert_eq!(deltas, Deltas::default());
        assert_eq!(text(&deltas), ["0", "0"]);
    }

    #[test]
    fn what_is_too_old_or_too_far_ahead_feeds_the_counters_alone() {
        for (ts, on_board) in [
            (NOW_MS + AHEAD_MS, true),
            (NOW_MS + AHEAD_MS + 1, false),
            (NOW_MS - BUCKET_KEPT_MS, true),
            (NOW_MS - BUCKET_KEPT_MS - 1, false),
            (Timestamp::MAX.micros() / 1000, false),
            (Timestamp::MIN.micros() / 1000, false),
        ] {
            let mut deltas = Deltas::default();
            deltas.add(&event(Some(1), ts, Some(5)), NOW_MS, NOW_MS);
            assert_eq!(deltas.board.len(), usize::from(on_board), "{ts}");
            assert_eq!(deltas.counters.len(), 1, "{ts}");
        }
    }

    #[test]
    fn what_was_published_eight_days_ago_is_not_counted_any_more() {
        for (age_ms, counted) in [(8 * DAY_MS, true), (8 * DAY_MS + HOUR_MS + 1, false)] {
            let mut deltas = Deltas::default();
            deltas.add(&event(Some(1), 0, Some(5)), NOW_MS - age_ms, NOW_MS);
            assert_eq!(deltas.counters.len(), usize::from(counted));
        }
    }

    proptest! {
        #[test]
        fn two_runs_add_up_to_one(
            events in prop::collection::vec((0u8..3, -40_000i64..40_000, prop::option::of(0i32..9), 0u8..3), 0..40),
            cut in 0usize..40,
        ) {
            let mut whole = Deltas::default();
            let mut parts = [Deltas::default(), Deltas::default()];
            for (number, (content, ts, duration, user)) in events.iter().enumerate() {
                let mut event = event(Some(*content), NOW_MS + ts, *duration);
                event.user_id = Some(UserId([*user; 16]));
                whole.add(&event, NOW_MS, NOW_MS);
                parts.get_mut(usize::from(number >= cut)).unwrap().add(&event, NOW_MS, NOW_MS);
            }
            let [mut sum, second] = parts;
            for (bucket, contents) in second.board {
                for (content, duration) in contents {
                    *sum.board.entry(bucket).or_default().entry(content).or_default() += duration;
                }
            }
            for (key, counts) in second.counters {
                let into = sum.counters.entry(key).or_default();
                for (into, count) in into.events.iter_mut().zip(counts.events) {
                    *into += count;
                }
                into.engagement_ms += counts.engagement_ms;
                into.users.extend(counts.users);
                into.kept_until = into.kept_until.max(counts.kept_until);
            }
            prop_assert_eq!(sum, whole);
        }
    }
}
