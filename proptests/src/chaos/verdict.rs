//! The end: everything is processed, and the checker looks at all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use thmanyah_dev::Cluster;

use super::field::{DEADLINE, PARTITIONS};
use super::load::rows;
use super::watch::committed;
use crate::checker::{Findings, check_evidence};
use crate::deployment::await_until;
use crate::evidence::Evidence;
use crate::feed::HOSTILE;
use crate::topics::{ledgers, total};

pub(super) const ENRICHER: &str = "thmanyah-enricher";
const MATERIALIZER: &str = "thmanyah-materializer";
pub(super) const EVENTS: &str = "engagement-events.raw";
const CONTENT: &str = "content.raw";

/// How long the rest may take, the last deadlines included.
const SETTLE_LIMIT: Duration = Duration::from_mins(5);
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long an appended record may take until the brokers show it to readers: a replica that is frozen holds it back until it
/// is taken for dead, which a broker that leads the cluster may put off.
const HIDDEN: Duration = Duration::from_secs(20);

/// Waits until both input topics are processed to their ends and no event is parked.
pub(super) fn settle(cluster: &Cluster) -> Result<()> {
    let client = |group: &str| -> Result<BaseConsumer> {
        Ok(cluster.client().set("group.id", group).create()?)
    };
    let materializer = client(MATERIALIZER)?;
    let mut seen = String::new();
    let settled = await_until(SETTLE_LIMIT, "the rest to be processed", || {
        let content = committed(&materializer, CONTENT).unwrap_or_default();
        // Brokers that do not answer now will answer later.
        let Ok(ledgers) = ledgers(cluster.bootstrap(), ENRICHER, EVENTS, PARTITIONS) else {
            return Ok(None);
        };
        let pending = total(ledgers.values().map(|(_, ledger)| ledger)).pending;
        let events: BTreeMap<i32, i64> = ledgers.iter().map(|(p, (at, _))| (*p, *at)).collect();
        let (Some(event_ends), Some(content_ends)) =
            (ends(&materializer, EVENTS), ends(&materializer, CONTENT))
        else {
            return Ok(None);
        };
        seen = format!(
            "events at {events:?} of {event_ends:?}, content at {content:?} of {content_ends:?}, {pending} parked"
        );
        let done = events == event_ends && content == content_ends && pending == 0;
        Ok(done.then_some(()))
    });
    settled.context(seen)
}

/// The end of each partition.
fn ends(consumer: &BaseConsumer, topic: &str) -> Option<BTreeMap<i32, i64>> {
    (0..PARTITIONS)
        .map(|partition| {
            let bounds = consumer.fetch_watermarks(topic, partition, ASK_LIMIT);
            Some((partition, bounds.ok()?.1))
        })
        .collect()
}

/// What is in the topics.
pub(super) fn read(cluster: &Cluster) -> Result<Evidence> {
    Evidence::read(cluster.bootstrap(), ENRICHER, PARTITIONS, str::to_owned)
}

/// Checks everything; the first thing that is wrong is the error.
pub(super) fn judge(evidence: &Evidence, last_id: i64) -> Result<Findings> {
    let findings = check_evidence(evidence, &rows(last_id))?;
    check_time_outs(evidence)?;
    Ok(findings)
}

/// No event was given up on whose content was there in time.
fn check_time_outs(evidence: &Evidence) -> Result<()> {
    let mut came: BTreeMap<String, i64> = BTreeMap::new();
    for record in &evidence.content_raw {
        if record.header(HOSTILE).is_some() {
            continue;
        }
        let row: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        let id = row.pointer("/after/id").and_then(Value::as_str);
        let at = record.timestamp_ms.context("content without a time")?;
        let came = came.entry(id.context("content without an id")?.to_owned());
        let earliest = came.or_insert(at);
        *earliest = at.min(*earliest);
    }
    let patience = DEADLINE.as_millis() as i64 - HIDDEN.as_millis() as i64;
    for record in &evidence.enriched {
        if record.text("join-status") != Some("timeout") {
            continue;
        }
        let row: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        let id = row.get("content_id").and_then(Value::as_str);
        let event_at = record.number("raw-timestamp").context("no raw-timestamp")?;
        if let Some(came) = id.and_then(|id| came.get(id)) {
            ensure!(
                *came > event_at + patience,
                "an event of {event_at} was given up on, but its content came at {came}: {record:?}"
            );
        }
    }
    Ok(())
}
