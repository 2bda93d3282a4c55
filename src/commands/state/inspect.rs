//! `thmanyah state inspect`: what a state directory holds, without Kafka.

use crate::commands::Failure;
use crate::commands::args::SettingFlags;
use crate::config::{Config, Layers};
use crate::domain::{Partition, Timestamp};
use crate::kafka::TopicId;
use crate::run::seen_rows;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use thmanyah_state::{Direction, FORMAT, Options, Position, Store, Table};

/// All there is to tell.
#[derive(Serialize)]
struct Report {
    state_dir: String,
    format: u32,
    bytes: u64,
    tables: BTreeMap<&'static str, TableReport>,
}

#[derive(Serialize)]
struct TableReport {
    /// Of files; what is in the write-ahead log only is left out.
    bytes: u64,
    /// Estimated for `recent`, counted for the others.
    rows: u64,
    partitions: BTreeMap<i32, PartitionReport>,
}

#[derive(Serialize)]
struct PartitionReport {
    position: i64,
    topic_id: String,
    fresh_at: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    seen: Option<SeenReport>,
}

#[derive(Serialize)]
struct SeenReport {
    /// `None` when a container is unreadable.
    ids: Option<u64>,
    containers: u64,
    /// Containers that changed since their last checkpoint.
    marked: u64,
    enriched_position: Option<i64>,
    enriched_topic_id: Option<String>,
}

/// Prints the report.
pub(super) fn inspect(flags: &SettingFlags, json: bool) -> Result<(), Failure> {
    let dir = Config::state_dir(&Layers::gather(&flags.layer())?)?;
    let store = Store::open_read_only(&dir, &Options::default())?;
    let report = report(&store, &dir)?;
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string(&report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(())
}

fn report(store: &Store, dir: &Path) -> Result<Report, thmanyah_state::Error> {
    let mut tables = BTreeMap::new();
    for table in Table::ALL {
        let mut partitions = BTreeMap::new();
        for (partition, position) in store.positions(table)? {
            let seen = match table {
                Table::Seen => Some(seen(store, Partition(partition))?),
                _ => None,
            };
            partitions.insert(partition, partition_report(position, seen));
        }
        let rows = match table {
            Table::Recent => store.estimated_rows(table),
            _ => count(store, table)?,
        };
        let bytes = store.table_bytes(table);
        tables.insert(
            table.name(),
            TableReport {
                bytes,
                rows,
                partitions,
            },
        );
    }
    Ok(Report {
        state_dir: dir.display().to_string(),
        format: FORMAT,
        bytes: store.disk_bytes(),
        tables,
    })
}

fn partition_report(position: Position, seen: Option<SeenReport>) -> PartitionReport {
    PartitionReport {
        position: position.offset,
        topic_id: topic_id_text(&position.topic_id),
        fresh_at: time_text(position.fresh_at_ms),
        seen,
    }
}

fn count(store: &Store, table: Table) -> Result<u64, thmanyah_state::Error> {
    let snapshot = store.snapshot();
    let mut rows = snapshot.scan(table, &[], &[0xff; 32], Direction::Forward)?;
    let mut count = 0;
    while rows.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn seen(store: &Store, partition: Partition) -> Result<SeenReport, thmanyah_state::Error> {
    let snapshot = store.snapshot();
    let mut containers = 0;
    seen_rows::containers(&snapshot, partition, |_, _| containers += 1)?;
    let covered = seen_rows::covered(&snapshot, partition)?;
    Ok(SeenReport {
        ids: seen_rows::count(&snapshot, partition)?,
        containers,
        marked: seen_rows::marked(&snapshot, partition, usize::MAX)?.len() as u64,
        enriched_position: covered.map(|(offset, _)| offset.0),
        enriched_topic_id: covered.map(|(_, id)| topic_id_text(&id)),
    })
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let (dir, format, bytes) = (&report.state_dir, report.format, size(report.bytes));
    writeln!(out, "{dir}: format {format}, {bytes} on disk")?;
    for (name, table) in &report.tables {
        let about = if *name == Table::Recent.name() {
            "about "
        } else {
            ""
        };
        let (rows, bytes) = (table.rows, size(table.bytes));
        writeln!(out, "\n{name}: {about}{rows} rows, {bytes} in files")?;
        for (partition, p) in &table.partitions {
            let fresh = p.fresh_at.as_deref().unwrap_or("-");
            let (position, topic) = (p.position, &p.topic_id);
            writeln!(
                out,
                "  partition {partition}: position {position} of topic {topic}, fresh at {fresh}"
            )?;
            if let Some(seen) = &p.seen {
                let ids = seen.ids.map_or("unreadable".to_owned(), |n| n.to_string());
                let covered = seen
                    .enriched_position
                    .map_or("-".to_owned(), |n| n.to_string());
                writeln!(
                    out,
                    "    {ids} ids in {} containers, {} of them not checkpointed; enriched position {covered} of topic {}",
                    seen.containers,
                    seen.marked,
                    seen.enriched_topic_id.as_deref().unwrap_or("-")
                )?;
            }
        }
    }
    Ok(())
}

/// A size for people.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if value < 10_240 {
            break;
        }
        value /= 1024;
        unit = larger;
    }
    format!("{value} {unit}")
}

fn time_text(ms: i64) -> Option<String> {
    let mut text = Vec::new();
    Timestamp::from_millis(ms)?.write_to(&mut text);
    String::from_utf8(text).ok()
}

/// A topic id as Kafka's own tools print it: URL-safe base64 without padding.
pub(super) fn topic_id_text(id: &TopicId) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(*id);
    (0..22)
        .map(|digit| {
            // The last digit holds the two bits that are left, at its top.
            let index = match digit {
                21 => (bits & 0b11) << 4,
                _ => (bits >> (122 - 6 * digit)) & 0b11_1111,
            };
            char::from(ALPHABET.get(index as usize).copied().unwrap_or(b'A'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_printed_as_kafka_prints_it() {
        assert_eq!(topic_id_text(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(topic_id_text(&[0xff; 16]), "_____________________w");
        let mut id = [0; 16];
        id[0] = 0b0000_0100;
        assert_eq!(topic_id_text(&id), "BAAAAAAAAAAAAAAAAAAAAA");
    }

    #[test]
    fn sizes_keep_two_digits_at_least() {
        assert_eq!(size(10_239), "10239 B");
        assert_eq!(size(10_240), "10 KiB");
        assert_eq!(size(5 << 30), "5120 MiB");
    }
}
