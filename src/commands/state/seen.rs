//! Comparing the published ids with the log.
//!
//! Two sets stand for the log: what the store must hold (containers checkpointed before its position, ids published before its
//! enriched position) and what it may hold (all that the log knows). They are the same for a store that stands at the end.

use super::compare::{Findings, MISSING, UNEXPECTED, UNREADABLE};
use super::log::{Bounds, read};
use crate::codec::decode_seen;
use crate::domain::{Container, Partition};
use crate::run::{CHECKPOINT_KEY, seen_rows};
use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::message::Message;
use roaring::{RoaringBitmap, RoaringTreemap};
use std::collections::BTreeMap;
use thmanyah_state::Store;

/// The ids of one partition. An id is kept as the bits of its number.
#[derive(Default)]
struct Ids {
    must: RoaringTreemap,
    may: RoaringTreemap,
}

/// A log with its bounds, and up to where the store covers it.
pub(super) struct Covered<'c> {
    pub(super) topic: &'c str,
    pub(super) bounds: Bounds,
    pub(super) positions: BTreeMap<i32, i64>,
}

impl Covered<'_> {
    fn is_before(&self, partition: i32, offset: i64) -> bool {
        self.positions.get(&partition).is_some_and(|p| offset < *p)
    }
}

/// Compares the ids of the partitions that both logs have bounds for.
pub(super) fn compare(
    client: &ClientConfig,
    store: &Store,
    checkpoints: &Covered<'_>,
    enriched: &Covered<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let mut log: BTreeMap<i32, Ids> = BTreeMap::new();
    read(client, checkpoints.topic, &checkpoints.bounds, |record| {
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(value)) = (key, record.payload()) else {
            return;
        };
        let bitmap = decode_seen(value).ok().filter(|_| key != CHECKPOINT_KEY);
        let bitmap = bitmap.and_then(|bytes| RoaringBitmap::deserialize_from(bytes).ok());
        let (Ok(container), Some(bitmap)) = (key.parse().map(Container), bitmap) else {
            return;
        };
        let ids = log.entry(record.partition()).or_default();
        let must = checkpoints.is_before(record.partition(), record.offset());
        for id in ids_of(container, &bitmap) {
            ids.may.insert(id);
            if must {
                ids.must.insert(id);
            }
        }
    })?;
    read(client, enriched.topic, &enriched.bounds, |record| {
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(|key| key.parse::<i64>().ok()) else {
            return;
        };
        let ids = log.entry(record.partition()).or_default();
        ids.may.insert(id as u64);
        if enriched.is_before(record.partition(), record.offset()) {
            ids.must.insert(id as u64);
        }
    })?;
    let snapshot = store.snapshot();
    for partition in checkpoints.positions.keys() {
        let mut stored = RoaringTreemap::new();
        seen_rows::containers(&snapshot, Partition(*partition), |container, bytes| {
            if let Ok(bitmap) = RoaringBitmap::deserialize_from(bytes) {
                stored.extend(ids_of(container, &bitmap));
            } else {
                let key = Some(format!("container {}", container.0));
                findings.add(*partition, key, UNREADABLE);
            }
        })?;
        let ids = log.remove(partition).unwrap_or_default();
        findings.compared += stored.len();
        findings.changed_since += (&ids.may - &stored).len() - (&ids.must - &stored).len();
        for (wrong, what) in [
            (&ids.must - &stored, MISSING),
            (&stored - &ids.may, UNEXPECTED),
        ] {
            for id in &wrong {
                findings.add(*partition, Some((id as i64).to_string()), what);
            }
        }
    }
    Ok(())
}

fn ids_of(container: Container, bitmap: &RoaringBitmap) -> impl Iterator<Item = u64> {
    let high = (container.0 as u64) << 16;
    bitmap.iter().map(move |place| high | u64::from(place))
}
