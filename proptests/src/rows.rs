//! The rows of PostgreSQL, as the oracle wants them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use thmanyah_dev::Postgres;

use crate::oracle::EventRow;

const EVENTS: &str = "SELECT json_build_object('id', id, 'content_id', content_id, 'user_id', user_id, \
    'event_type', event_type, 'micros', (extract(epoch FROM event_ts) * 1000000)::bigint, \
    'duration_ms', duration_ms, 'device', device) FROM engagement_events";

/// Every row of `engagement_events` by its id.
pub fn event_rows(postgres: &Postgres) -> Result<BTreeMap<i64, EventRow>> {
    postgres
        .query(EVENTS)?
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line)?;
            let row = event_row(&row).with_context(|| format!("no row: {line}"))?;
            Ok((row.id, row))
        })
        .collect()
}

fn event_row(row: &Value) -> Option<EventRow> {
    let text = |name: &str| row.get(name)?.as_str().map(str::to_owned);
    let number = |name: &str| row.get(name)?.as_i64();
    Some(EventRow {
        id: number("id")?,
        content_id: text("content_id"),
        user_id: text("user_id"),
        event_type: text("event_type")?,
        event_ts_micros: number("micros")?,
        duration_ms: number("duration_ms").and_then(|millis| i32::try_from(millis).ok()),
        device: text("device"),
    })
}
