//! The table of the BigQuery sink, beside the enriched topic that it must equal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use thmanyah_dev::BigQuery;

use crate::published::Written;

/// A row, each column as text; NULL is none.
pub type Row = Vec<Option<String>>;

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// NUMERIC columns are compared by their decimal digits: an emulator pads them with zeros.
const NUMERIC: [usize; 2] = [9, 10];
const FIELDS: [&str; 11] = [
    "event_id",
    "content_id",
    "user_id",
    "event_type",
    "event_ts",
    "duration_ms",
    "device",
    "content_type",
    "length_seconds",
    "engagement_seconds",
    "engagement_pct",
];

/// All rows of a table, in the order of partitions and offsets.
pub fn rows(bigquery: &BigQuery, table: &str) -> Result<Vec<Row>> {
    let sql = format!(
        "SELECT event_id, content_id, user_id, event_type, UNIX_MICROS(event_ts), duration_ms, device, content_type, \
         length_seconds, CAST(engagement_seconds AS STRING), CAST(engagement_pct AS STRING), _kafka_partition, _kafka_offset \
         FROM {table} ORDER BY _kafka_partition, _kafka_offset, event_id"
    );
    let mut rows = bigquery.query(&sql, &[])?;
    for row in &mut rows {
        for column in NUMERIC {
            if let Some(Some(number)) = row.get_mut(column)
                && number.contains('.')
            {
                *number = number
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_owned();
            }
        }
    }
    Ok(rows)
}

/// The row of an event, from its JSON.
pub fn expected(written: &Written) -> Result<Row> {
    let json: Value = serde_json::from_slice(&written.value)?;
    let mut row = Vec::new();
    for field in FIELDS {
        row.push(match (field, json.get(field)) {
            ("event_ts", _) => Some(written.event.event_ts.micros().to_string()),
            (_, Some(Value::Null)) => None,
            (_, Some(Value::String(text))) => Some(text.clone()),
            (_, Some(Value::Number(number))) => Some(number.to_string()),
            (_, other) => bail!("{field}: {other:?}"),
        });
    }
    row.push(Some(written.partition.to_string()));
    row.push(Some(written.offset.to_string()));
    Ok(row)
}

/// How many rows there are; none when the table does not exist or the emulator does not answer.
pub fn count(bigquery: &BigQuery, table: &str) -> Option<usize> {
    let rows = bigquery
        .query(&format!("SELECT COUNT(*) FROM {table}"), &[])
        .ok()?;
    rows.first()?.first()?.as_deref()?.parse().ok()
}

/// Waits until a table has so many rows.
pub fn await_count(bigquery: &BigQuery, table: &str, wanted: usize, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let found = count(bigquery, table);
        if found.is_some_and(|found| found >= wanted) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < limit,
            "{found:?} rows of {wanted} after {limit:?}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Fails unless the table holds what was written, each event once, column by column.
pub fn must_equal(bigquery: &BigQuery, table: &str, written: &[Vec<Written>]) -> Result<()> {
    let found = rows(bigquery, table)?;
    let wanted = written.iter().flatten().map(expected);
    let wanted: Vec<Row> = wanted.collect::<Result<_>>()?;
    for (found, wanted) in found.iter().zip(&wanted) {
        ensure!(found == wanted, "found {found:?}, wanted {wanted:?}");
    }
    ensure!(
        found.len() == wanted.len(),
        "{} rows, wanted {}: the first that differs is {:?}",
        found.len(),
        wanted.len(),
        found.get(wanted.len()).or(wanted.get(found.len()))
    );
    ensure!(!found.is_empty(), "nothing to compare");
    found.first().context("no rows").map(drop)
}
