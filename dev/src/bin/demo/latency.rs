//! What came out, read back from the log: how often, how it was joined, and how long after its row was committed.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use serde::Deserialize;
use thmanyah_dev::{Broker, INPUT_TOPICS};

use crate::destinations::{Sample, Seen};

const ENRICHED: &str = "engagement-events.enriched";

/// What the enriched topic holds.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    /// Records of the topic.
    pub(crate) published: u64,
    /// Different keys among them.
    pub(crate) distinct: u64,
    /// How many there are of each `join-status`.
    pub(crate) by_status: BTreeMap<String, u64>,
    /// Milliseconds from the commit in PostgreSQL to the enriched record, without the events that waited for a content in
    /// vain: that wait is by design.
    pub(crate) from_commit: Percentiles,
    /// The part of it since the record was in the input topic.
    pub(crate) from_raw: Percentiles,
    /// The same up to the moment at which the event showed there.
    pub(crate) to_redis: Percentiles,
    pub(crate) to_bigquery: Percentiles,
    pub(crate) to_external: Percentiles,
    /// Enriched records per second between the first and the last.
    pub(crate) per_second: f64,
}

/// Sorted values.
#[derive(Debug, Default)]
pub(crate) struct Percentiles(Vec<i64>);

impl Percentiles {
    fn new(mut values: Vec<i64>) -> Self {
        values.sort_unstable();
        Self(values)
    }

    /// The value that `percent` of the values do not exceed.
    pub(crate) fn at(&self, percent: usize) -> Option<i64> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

#[derive(Deserialize)]
struct Envelope {
    source: Source,
}

/// `ts_ms` is the time of the commit in PostgreSQL.
#[derive(Deserialize)]
struct Source {
    ts_ms: i64,
}

/// Reads both topics to their ends.
pub(crate) fn read_back(broker: &Broker, seen: &Seen) -> Result<ReadBack> {
    let [events, _] = INPUT_TOPICS;
    let mut commits: HashMap<(i32, i64), i64> = HashMap::new();
    broker.read_topic(events, |record| {
        let envelope = serde_json::from_slice::<Envelope>(record.payload().unwrap_or_default());
        if let Ok(envelope) = envelope {
            commits.insert((record.partition(), record.offset()), envelope.source.ts_ms);
        }
    })?;

    let mut read = ReadBack::default();
    let mut ids: HashSet<Vec<u8>> = HashSet::new();
    let (mut from_commit, mut from_raw) = (Vec::new(), Vec::new());
    let mut arrivals = Vec::new();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    broker.read_topic(ENRICHED, |record| {
        read.published += 1;
        ids.insert(record.key().unwrap_or_default().to_vec());
        let status = header(record, "join-status").unwrap_or("?").to_owned();
        let waited_in_vain = status == "timeout";
        *read.by_status.entry(status).or_default() += 1;
        let Some(published) = record.timestamp().to_millis().filter(|_| !waited_in_vain) else {
            return;
        };
        (first, last) = (first.min(published), last.max(published));
        let number = |name| header(record, name)?.parse::<i64>().ok();
        let origin = number("raw-partition").zip(number("raw-offset"));
        let commit = origin
            .and_then(|(partition, offset)| commits.get(&(i32::try_from(partition).ok()?, offset)));
        from_commit.extend(commit.map(|commit| published - commit));
        arrivals.extend(commit.map(|commit| {
            Arrival {
                partition: record.partition(),
                offset: record.offset(),
                event_id: std::str::from_utf8(record.key().unwrap_or_default())
                    .ok()
                    .and_then(|key| key.parse().ok())
                    .unwrap_or_default(),
                committed_ms: *commit,
            }
        }));
        from_raw.extend(number("raw-timestamp").map(|raw| published - raw));
    })?;
    read.distinct = ids.len() as u64;
    read.per_second = from_raw.len() as f64 * 1e3 / (last.saturating_sub(first)).max(1) as f64;
    read.from_commit = Percentiles::new(from_commit);
    read.from_raw = Percentiles::new(from_raw);
    read.to_redis = until_shown(&arrivals, &seen.redis);
    read.to_bigquery = until_shown(&arrivals, &seen.bigquery);
    let taken = arrivals
        .iter()
        .filter_map(|event| Some(seen.external.get(&event.event_id)? - event.committed_ms));
    read.to_external = Percentiles::new(taken.collect());
    Ok(read)
}

/// An enriched record on its way to the destinations.
struct Arrival {
    partition: i32,
    offset: i64,
    event_id: i64,
    committed_ms: i64,
}

/// From each event's commit to the first look at which a destination was past it.
fn until_shown(arrivals: &[Arrival], samples: &[Sample]) -> Percentiles {
    let shown = arrivals.iter().filter_map(|event| {
        let past = |sample: &Sample| sample.positions.get(&event.partition) > Some(&event.offset);
        let first = samples.partition_point(|sample| !past(sample));
        Some(samples.get(first)?.at_ms - event.committed_ms)
    });
    Percentiles::new(shown.collect())
}

fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let headers = record.headers()?;
    let header = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

#[cfg(test)]
mod tests {
    use super::Percentiles;

    #[test]
    fn a_percentile_is_the_smallest_value_that_covers_its_share() {
        let values = Percentiles::new((1..=200).rev().collect());
        assert_eq!(
            [values.at(50), values.at(99), values.at(100)],
            [Some(100), Some(198), Some(200)]
        );
        assert_eq!(Percentiles::new(vec![7]).at(50), Some(7));
        assert_eq!(Percentiles::default().at(50), None);
    }
}
