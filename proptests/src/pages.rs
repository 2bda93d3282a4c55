//! The HTTP API as a client pages through it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use thmanyah_dev::Processor;

use crate::deployment::await_until;

/// A range that holds every time there is.
pub const ALL_TIMES: &str = "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z";

/// Every item of a paged resource, page by page; `query` comes without a cursor.
pub fn all_items(processor: &Processor, path: &str, query: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let next = match &cursor {
            Some(cursor) => format!("{path}?{query}&cursor={cursor}"),
            None => format!("{path}?{query}"),
        };
        let answer = processor.get(&next)?;
        ensure!(
            answer.status == 200,
            "{next}: {} {}",
            answer.status,
            answer.body
        );
        let page: Value = serde_json::from_str(&answer.body)?;
        let found = page
            .get("items")
            .and_then(Value::as_array)
            .context("no items")?;
        items.extend(found.iter().cloned());
        match page.get("next_cursor").context("no next_cursor")? {
            Value::String(next) => cursor = Some(next.clone()),
            _ => return Ok(items),
        }
    }
}

/// Waits until the API has read the enriched topic up to `count` events, and gives all of them.
pub fn await_events(processor: &Processor, count: usize) -> Result<Vec<Value>> {
    let limit = Duration::from_mins(1);
    await_until(limit, "the API to have all events", || {
        let query = format!("{ALL_TIMES}&limit=1000");
        if processor
            .get(&format!("/v1/enriched-events?{query}"))?
            .status
            == 503
        {
            return Ok(None);
        }
        let items = all_items(processor, "/v1/enriched-events", &query)?;
        ensure!(
            items.len() <= count,
            "the API has {} events of {count}",
            items.len()
        );
        Ok((items.len() == count).then_some(items))
    })
}
