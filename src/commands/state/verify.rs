//! `thmanyah state verify`: folds the logs again and compares.

use super::compare::{Findings, Key, Last, Rows, compare, hash, padded};
use super::log::{Bounds, read};
use super::seen::{self, Covered};
use crate::codec::decode_content_row;
use crate::commands::Failure;
use crate::commands::args::SettingFlags;
use crate::config::{Config, KafkaConfig, Layers, LogConfig, TopicName, TopicNames};
use crate::content::{split, version_bytes};
use crate::domain::{ContentId, ContentVersion, EventId, Offset, Partition};
use crate::kafka::{Isolation, OffsetReader, Offsets, TopicId, topic_ids};
use crate::logging;
use crate::run::{parked_key, seen_rows};
use anyhow::{Context, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::Duration;
use thmanyah_state::{Options, Store, Table};

/// How long the brokers may take to describe the topics.
const DESCRIBE: Duration = Duration::from_secs(10);
/// Name that questions are asked under; nothing is committed.
const GROUP: &str = "thmanyah-state-verify";

const OTHER_TOPIC: &str = "the stored position is of a topic that was deleted and made again; a start will rebuild the partition";
const OUTSIDE: &str =
    "the stored position lies outside the log; a start will rebuild the partition";

const CONTENT: Rows = Rows {
    table: Table::Content,
    name: |key| ContentId(*key).to_string(),
    partition: |_, value| split(value).ok().map(|(version, _)| version.partition.0),
};
const PENDING: Rows = Rows {
    table: Table::Pending,
    name: |key| event_id(key).to_string(),
    partition: |key, _| key.first_chunk().map(|bytes| i32::from_be_bytes(*bytes)),
};

/// The id in a parked event's key.
fn event_id(key: &Key) -> i64 {
    let bits = key.iter().skip(4).take(8);
    let bits = bits.fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    (bits ^ (1 << 63)) as i64
}

/// A key, and the hash of what is stored under it; none for a tombstone.
type Row = (Key, Option<u64>);

/// What is needed to read the logs.
struct Logs {
    client: ClientConfig,
    ids: BTreeMap<String, TopicId>,
}

/// Compares, and tells.
pub(super) fn verify(flags: &SettingFlags, json: bool) -> Result<(), Failure> {
    let layers = Layers::gather(&flags.layer())?;
    let dir = Config::state_dir(&layers)?;
    let (kafka, topics) = (KafkaConfig::load(&layers)?, TopicNames::load(&layers)?);
    logging::start(&LogConfig::load(&layers)?);
    let store = Store::open_read_only(&dir, &Options::default())?;
    let found = findings(&store, &kafka, &topics).map_err(Failure::Failed)?;
    let differences: u64 = found.values().map(|findings| findings.differences).sum();
    let mut out = io::stdout().lock();
    if json {
        let report = serde_json::json!({"agrees": differences == 0, "tables": found});
        writeln!(out, "{report}")?;
    } else {
        print(&mut out, &found)?;
    }
    if differences > 0 {
        return Err(Failure::Failed(anyhow!(
            "{} and the log disagree in {differences} places; move the directory away and start the processor to have it \
             rebuilt",
            dir.display()
        )));
    }
    Ok(())
}

fn findings(
    store: &Store,
    kafka: &KafkaConfig,
    topics: &TopicNames,
) -> Result<BTreeMap<&'static str, Findings>> {
    let names = [
        &topics.content_changelog,
        &topics.pending,
        &topics.seen,
        &topics.enriched,
    ];
    let names = names.map(TopicName::as_str);
    let client = kafka.client();
    let asking = OffsetReader::new(&client, GROUP, Isolation::Uncommitted)?;
    let ids = topic_ids(asking.client(), &names, DESCRIBE)
        .with_context(|| format!("brokers {}", kafka.bootstrap_servers))?;
    drop(asking);
    let logs = Logs { client, ids };
    let [content, pending, seen, enriched] = names;
    Ok(BTreeMap::from([
        (
            Table::Content.name(),
            logs.rows(store, &CONTENT, content, content_row)?,
        ),
        (
            Table::Pending.name(),
            logs.rows(store, &PENDING, pending, parked_row)?,
        ),
        (Table::Seen.name(), logs.seen(store, seen, enriched)?),
    ]))
}

impl Logs {
    /// Log bounds of the partitions whose positions can be compared; the others are differences.
    fn comparable(
        &self,
        topic: &str,
        positions: Vec<(i32, i64, TopicId)>,
        findings: &mut Findings,
    ) -> Result<(Bounds, BTreeMap<i32, i64>)> {
        let partitions: Vec<i32> = positions.iter().map(|(partition, ..)| *partition).collect();
        let asking = OffsetReader::new(&self.client, GROUP, Isolation::Uncommitted)?;
        let all = asking.bounds(topic, partitions)?;
        let (mut bounds, mut comparable) = (Bounds::new(), BTreeMap::new());
        for (partition, position, id) in positions {
            let (start, end) = all.get(&partition).copied().unwrap_or_default();
            if self.ids.get(topic) != Some(&id) {
                findings.add(partition, None, OTHER_TOPIC);
            } else if position < start || position > end {
                findings.add(partition, None, OUTSIDE);
            } else {
                bounds.insert(partition, (start, end));
                comparable.insert(partition, position);
            }
        }
        Ok((bounds, comparable))
    }

    fn rows(
        &self,
        store: &Store,
        rows: &Rows,
        topic: &str,
        row: fn(&BorrowedMessage<'_>) -> Option<Row>,
    ) -> Result<Findings> {
        let mut findings = Findings::default();
        let positions = stored_positions(store, rows.table)?;
        let (bounds, positions) = self.comparable(topic, positions, &mut findings)?;
        let mut log = HashMap::new();
        read(&self.client, topic, &bounds, |record| {
            if let Some((key, value)) = row(record) {
                let (partition, offset) = (record.partition(), record.offset());
                let last = Last {
                    partition,
                    offset,
                    value,
                };
                log.insert(key, last);
            }
        })?;
        compare(store, rows, &positions, log, &mut findings)?;
        Ok(findings)
    }

    fn seen(&self, store: &Store, seen: &str, enriched: &str) -> Result<Findings> {
        let mut findings = Findings::default();
        let stored = stored_positions(store, Table::Seen)?;
        let (bounds, positions) = self.comparable(seen, stored, &mut findings)?;
        let snapshot = store.snapshot();
        let asking = OffsetReader::new(&self.client, GROUP, Isolation::Uncommitted)?;
        let tail_bounds = asking.bounds(enriched, positions.keys().copied())?;
        let mut covered = BTreeMap::new();
        for partition in positions.keys() {
            // A position that retention has passed is none the worse: what is gone from the log is asked of nobody.
            match seen_rows::covered(&snapshot, Partition(*partition))? {
                Some((_, id)) if self.ids.get(enriched) != Some(&id) => {
                    findings.add(*partition, None, OTHER_TOPIC);
                }
                Some((offset, _)) => drop(covered.insert(*partition, offset.0)),
                None => {}
            }
        }
        let checkpoints = Covered {
            topic: seen,
            bounds,
            positions,
        };
        let tail = Covered {
            topic: enriched,
            bounds: tail_bounds,
            positions: covered,
        };
        seen::compare(&self.client, store, &checkpoints, &tail, &mut findings)?;
        Ok(findings)
    }
}

fn stored_positions(store: &Store, table: Table) -> Result<Vec<(i32, i64, TopicId)>> {
    let positions = store.positions(table)?;
    Ok(positions
        .into_iter()
        .map(|(partition, position)| (partition, position.offset, position.topic_id))
        .collect())
}

/// A record of the content changelog as the replica stores it; what it skips is nothing here either.
fn content_row(record: &BorrowedMessage<'_>) -> Option<Row> {
    let id = ContentId::parse(std::str::from_utf8(record.key()?).ok()?)?;
    let Some(value) = record.payload() else {
        return Some((id.0, None));
    };
    decode_content_row(value).ok()?;
    let version = version_bytes(ContentVersion {
        partition: Partition(record.partition()),
        offset: Offset(record.offset()),
    });
    Some((id.0, Some(hash(&[&version, value]))))
}

/// A record of the pending changelog as the barrier stores it.
fn parked_row(record: &BorrowedMessage<'_>) -> Option<Row> {
    let id = std::str::from_utf8(record.key()?).ok()?.parse().ok()?;
    let key = parked_key(Partition(record.partition()), EventId(id));
    Some((padded(&key), record.payload().map(|value| hash(&[value]))))
}

fn print(out: &mut impl Write, found: &BTreeMap<&'static str, Findings>) -> io::Result<()> {
    for (table, findings) in found {
        let verdict = match findings.differences {
            0 => "agrees with the log".to_owned(),
            n => format!("{n} DIFFERENCES"),
        };
        let (compared, since) = (findings.compared, findings.changed_since);
        writeln!(
            out,
            "{table:<8} {compared} compared, {since} changed in the log since: {verdict}"
        )?;
        for difference in &findings.told {
            let partition = difference.partition;
            let key = difference.key.as_deref().unwrap_or("as a whole");
            writeln!(out, "  partition {partition}, {key}: {}", difference.what)?;
        }
        let more = findings.differences - findings.told.len() as u64;
        if more > 0 {
            writeln!(out, "  … and {more} more")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_key_gives_its_id_back() {
        for id in [i64::MIN, -1, 0, 42, i64::MAX] {
            let key = padded(&parked_key(Partition(7), EventId(id)));
            assert_eq!(event_id(&key), id);
            assert_eq!((PENDING.partition)(&key, &[]), Some(7));
        }
    }
}
