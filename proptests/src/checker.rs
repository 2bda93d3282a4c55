//! Compares what was published with the oracle: every event once, byte for byte, in order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use thmanyah::codec::decode_content_row;
use thmanyah::domain::{ContentType, Ledger};

use crate::deployment::Deployment;
use crate::evidence::Evidence;
use crate::feed::HOSTILE;
use crate::oracle::{EventRow, JoinedRow, expected_enriched};
use crate::topics::{Record, fold, total};

/// What was found, for a test to assert on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Enriched records by join status.
    pub by_status: BTreeMap<String, usize>,
    /// Dead letters of the engagement events.
    pub dead_events: usize,
    /// Dead letters of content.
    pub dead_content: usize,
}

impl Findings {
    /// How many enriched records have a join status.
    pub fn status(&self, status: &str) -> usize {
        self.by_status.get(status).copied().unwrap_or_default()
    }
}

/// Checks a deployment that is through with everything, given the rows that were inserted. Records that must become dead
/// letters carry the header [`HOSTILE`]; no other may.
pub fn check(deployment: &Deployment<'_>, rows: &BTreeMap<i64, EventRow>) -> Result<Findings> {
    check_evidence(&Evidence::of(deployment)?, rows)
}

/// The same, of what was read before.
pub fn check_evidence(found: &Evidence, rows: &BTreeMap<i64, EventRow>) -> Result<Findings> {
    let (raw, dlq) = (&found.raw, &found.dlq);
    let by_status = check_enriched(raw, rows, &found.enriched, &found.changelog)?;
    let dead_events = check_dead_letters("enricher", &found.events_topic, raw, dlq)?;
    let (topic, content_raw) = (&found.content_topic, &found.content_raw);
    let dead_content = check_dead_letters("materializer", topic, content_raw, dlq)?;
    ensure!(
        dead_events + dead_content == dlq.len(),
        "{} dead letters come from nowhere",
        dlq.len() - dead_events - dead_content
    );
    check_ledgers(found)?;
    Ok(Findings {
        by_status,
        dead_events,
        dead_content,
    })
}

fn is_hostile(record: &Record) -> bool {
    record.header(HOSTILE).is_some()
}

/// The id of a good event's record.
fn raw_id(record: &Record) -> Result<i64> {
    let value: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
    value
        .pointer("/after/id")
        .and_then(Value::as_i64)
        .context("a raw record without an id")
}

/// The good raw records that are no copies of an earlier one.
fn first_deliveries(raw: &[Record]) -> Result<Vec<&Record>> {
    let mut ids = BTreeSet::new();
    let mut first = Vec::new();
    for record in raw.iter().filter(|record| !is_hostile(record)) {
        if ids.insert(raw_id(record)?) {
            first.push(record);
        }
    }
    Ok(first)
}

/// The first delivery of every good event is published exactly once, as the oracle has it, in order. Returns how many have each status.
pub fn check_enriched(
    raw: &[Record],
    rows: &BTreeMap<i64, EventRow>,
    enriched: &[Record],
    changelog: &[Record],
) -> Result<BTreeMap<String, usize>> {
    let mut origins = BTreeMap::new();
    for record in first_deliveries(raw)? {
        origins.insert(record.place(), (raw_id(record)?, record.timestamp_ms));
    }
    let changelog: BTreeMap<_, _> = changelog.iter().map(|r| (r.place(), r)).collect();
    let mut published: BTreeMap<i64, (i32, i64)> = BTreeMap::new();
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    let mut order = Order::default();
    for record in enriched {
        let told = || format!("enriched record at {:?}: {record:?}", record.place());
        let id = record.event_id().with_context(told)?;
        match published.entry(id) {
            Entry::Occupied(first) => {
                bail!(
                    "event {id} was published twice, first at {:?}; {}",
                    first.get(),
                    told()
                )
            }
            Entry::Vacant(place) => place.insert(record.place()),
        };
        let origin = record
            .number("raw-partition")
            .zip(record.number("raw-offset"));
        let (partition, offset) = origin.with_context(told)?;
        ensure!(
            partition == i64::from(record.partition),
            "another partition; {}",
            told()
        );
        let (raw_id, raw_ms) = origins
            .remove(&(record.partition, offset))
            .with_context(|| format!("its raw record is a later copy, or none; {}", told()))?;
        ensure!(
            raw_id == id,
            "its raw record is that of event {raw_id}; {}",
            told()
        );
        ensure!(
            record.number("raw-timestamp") == raw_ms,
            "another time; {}",
            told()
        );
        let row = rows.get(&id).with_context(told)?;
        let status = record.text("join-status").with_context(told)?;
        let joined = joined(record, row, status, &changelog).with_context(told)?;
        let expected = expected_enriched(row, joined.as_ref().map(|(row, _)| row));
        ensure!(
            record.value.as_deref() == Some(expected.as_slice()),
            "the oracle has {}, published is {}; {}",
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()),
            told()
        );
        let version = joined.map(|(_, version)| version);
        order
            .check(record.partition, offset, row, status, version)
            .with_context(told)?;
        *by_status.entry(status.to_owned()).or_default() += 1;
    }
    if let Some((place, (id, _))) = origins.first_key_value() {
        bail!(
            "{} events were lost, the first is {id} at {place:?}",
            origins.len()
        );
    }
    Ok(by_status)
}

type Version = (i32, i64);

/// The content row that an enriched record says it was joined with.
fn joined(
    record: &Record,
    row: &EventRow,
    status: &str,
    changelog: &BTreeMap<(i32, i64), &Record>,
) -> Result<Option<(JoinedRow, Version)>> {
    let version = record.text("content-version");
    match status {
        "none" => ensure!(row.content_id.is_none() && version.is_none()),
        "timeout" => ensure!(row.content_id.is_some() && version.is_none()),
        "joined" | "late" => ensure!(row.content_id.is_some() && version.is_some()),
        _ => bail!("an unknown join status"),
    }
    let Some(version) = version else {
        return Ok(None);
    };
    let (partition, offset) = version.split_once(':').context("no version")?;
    let version = (partition.parse()?, offset.parse()?);
    let written = changelog.get(&version).context("no such version")?;
    let value = written.value.as_deref().context("a tombstone was joined")?;
    let content = decode_content_row(value)?;
    ensure!(
        Some(content.id.to_string()) == row.content_id,
        "the version is one of content {}",
        content.id
    );
    let joined = JoinedRow {
        content_type: content
            .content_type
            .map(ContentType::name)
            .map(str::to_owned),
        length_seconds: content.length_seconds,
    };
    Ok(Some((joined, version)))
}

/// The last of each kind that was seen, to compare the next with.
#[derive(Default)]
struct Order {
    by_partition: BTreeMap<i32, i64>,
    by_content: BTreeMap<(i32, String), i64>,
    versions: BTreeMap<(i32, String), Version>,
}

impl Order {
    fn check(
        &mut self,
        partition: i32,
        offset: i64,
        row: &EventRow,
        status: &str,
        version: Option<Version>,
    ) -> Result<()> {
        if matches!(status, "joined" | "none") {
            let last = self.by_partition.insert(partition, offset).unwrap_or(-1);
            ensure!(last < offset, "overtaken by that of raw offset {last}");
        }
        if let Some(id) = &row.content_id {
            let key = (partition, id.clone());
            let last = self.by_content.insert(key.clone(), offset).unwrap_or(-1);
            ensure!(
                last < offset,
                "overtaken by its content's of raw offset {last}"
            );
            if let Some(version) = version {
                let last = self.versions.insert(key, version).unwrap_or(version);
                ensure!(
                    last <= version,
                    "joined with an older version than {last:?}"
                );
            }
        }
        Ok(())
    }
}

/// Every hostile record has exactly one dead letter with its own bytes, and nothing else has. Returns their number.
pub fn check_dead_letters(
    stage: &str,
    topic: &str,
    raw: &[Record],
    dlq: &[Record],
) -> Result<usize> {
    let mut hostile: BTreeMap<_, _> = raw
        .iter()
        .filter(|record| is_hostile(record))
        .map(|record| (record.place(), record))
        .collect();
    let mut found = 0;
    for letter in dlq
        .iter()
        .filter(|l| l.text("dlq-source-topic") == Some(topic))
    {
        let told = || format!("dead letter at {:?}: {letter:?}", letter.place());
        let place = letter
            .number("dlq-source-partition")
            .zip(letter.number("dlq-source-offset"));
        let (partition, offset) = place.with_context(told)?;
        let source = hostile
            .remove(&(i32::try_from(partition)?, offset))
            .with_context(|| format!("a second one, or its record is good; {}", told()))?;
        ensure!(letter.key == source.key, "another key; {}", told());
        ensure!(letter.value == source.value, "another value; {}", told());
        ensure!(
            letter.text("dlq-stage") == Some(stage),
            "another stage; {}",
            told()
        );
        ensure!(
            letter.number("dlq-source-timestamp") == source.timestamp_ms,
            "another time; {}",
            told()
        );
        ensure!(
            letter.text("dlq-detail").is_some_and(|d| !d.is_empty()),
            "{}",
            told()
        );
        // The header that marks a hostile record says which reason is right, where the test knows it.
        let expected = source.text(HOSTILE).unwrap_or_default();
        let reason = letter.text("dlq-reason").unwrap_or_default();
        ensure!(
            expected == "any" || reason == expected,
            "the reason is {reason}, not {expected}; {}",
            told()
        );
        found += 1;
    }
    if let Some((place, record)) = hostile.first_key_value() {
        bail!(
            "{} of {topic} have no dead letter, the first at {place:?}: {record:?}",
            hostile.len()
        );
    }
    Ok(found)
}

/// The ledgers agree with what the topics hold.
fn check_ledgers(found: &Evidence) -> Result<()> {
    let (raw, enriched, dlq) = (&found.raw, &found.enriched, &found.dlq);
    let ledgers = &found.ledgers;
    let in_partition = |records: &[Record], partition: i32| {
        records
            .iter()
            .filter(|record| record.partition == partition)
            .count() as u64
    };
    let dead = |partition: i32| {
        let stage = dlq
            .iter()
            .filter(|l| l.text("dlq-stage") == Some("enricher"));
        stage
            .filter(|l| l.number("dlq-source-partition") == Some(i64::from(partition)))
            .count() as u64
    };
    let first = first_deliveries(raw)?;
    let copies = |partition: i32| {
        let good = raw.iter().filter(|record| !is_hostile(record));
        let good = good.filter(|record| record.partition == partition).count();
        let first = first.iter().filter(|record| record.partition == partition);
        (good - first.count()) as u64
    };
    for (partition, (_, ledger)) in ledgers {
        let found = Ledger {
            consumed: in_partition(raw, *partition),
            enriched: in_partition(enriched, *partition),
            dead: dead(*partition),
            duplicate: copies(*partition),
            ignored: 0,
            pending: 0,
        };
        ensure!(
            *ledger == found,
            "partition {partition}: the ledger is {ledger:?}, the topics hold {found:?}"
        );
    }
    let with_records: BTreeSet<i32> = raw.iter().map(|record| record.partition).collect();
    let told: BTreeSet<i32> = ledgers.keys().copied().collect();
    ensure!(
        with_records.is_subset(&told),
        "{with_records:?} have records, {told:?} ledgers"
    );
    ensure!(total(ledgers.values().map(|(_, l)| l)).balances());
    let parked = fold(&found.pending);
    ensure!(
        parked.is_empty(),
        "{} are still parked in the changelog",
        parked.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::check_enriched;
    use crate::feed::{event_value, play};
    use crate::oracle::{EventRow, expected_enriched};
    use crate::topics::Record;

    fn record(offset: i64, value: Vec<u8>) -> Record {
        Record {
            partition: 0,
            offset,
            timestamp_ms: Some(5),
            key: None,
            value: Some(value),
            headers: Vec::new(),
        }
    }

    /// Three events without content, as they went in and as they must come out.
    fn sound() -> (Vec<Record>, BTreeMap<i64, EventRow>, Vec<Record>) {
        let rows: Vec<EventRow> = (1..4).map(|id| play(id, None)).collect();
        let raw = rows.iter().map(|row| record(row.id, event_value(row)));
        let enriched = rows.iter().map(|row| {
            let mut record = record(10 * row.id, expected_enriched(row, None));
            record.key = Some(row.id.to_string().into_bytes());
            record.headers = [
                ("raw-partition", "0".to_owned()),
                ("raw-offset", row.id.to_string()),
                ("raw-timestamp", "5".to_owned()),
                ("join-status", "none".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), Some(value.into_bytes())))
            .to_vec();
            record
        });
        let (raw, enriched) = (raw.collect(), enriched.collect());
        (
            raw,
            rows.into_iter().map(|row| (row.id, row)).collect(),
            enriched,
        )
    }

    /// The complaint about the sound records once `spoil` has changed them.
    fn complaint(spoil: impl FnOnce(&mut Vec<Record>)) -> String {
        let (raw, rows, mut enriched) = sound();
        spoil(&mut enriched);
        match check_enriched(&raw, &rows, &enriched, &[]) {
            Ok(found) => format!("none: {found:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn sound_records_pass() {
        assert_eq!(complaint(|_| ()), "none: {\"none\": 3}");
    }

    #[test]
    fn each_way_to_break_the_promise_is_told() {
        let lost = complaint(|enriched| drop(enriched.pop()));
        assert!(lost.starts_with("1 events were lost"), "{lost}");
        let doubled = complaint(|enriched| enriched.extend(enriched.last().cloned()));
        assert!(doubled.contains("published twice"), "{doubled}");
        let overtaken = complaint(|enriched| enriched.swap(0, 1));
        assert!(overtaken.contains("overtaken"), "{overtaken}");
        let altered = complaint(|enriched| {
            if let Some(value) = enriched
                .first_mut()
                .and_then(|record| record.value.as_mut())
            {
                value.push(b' ');
            }
        });
        assert!(altered.contains("the oracle has"), "{altered}");
        let elsewhere = complaint(|enriched| {
            if let Some(record) = enriched.first_mut() {
                record.partition = 1;
            }
        });
        assert!(elsewhere.contains("another partition"), "{elsewhere}");
    }
}
