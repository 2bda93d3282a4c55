//! What must hold when all is quiet.

use super::edge::Shared;
use super::folds;
use super::input::{Inputs, Raw, Sent, content_id};
use super::log::{Entry, Log};
use super::schedule::DEADLINE_MS;
use super::world::{CHANGELOG, CONTENT, DEAD, ENRICHED, RAW, SEEN, TOPICS, World};
use crate::oracle::{EventRow, JoinedRow, expected_enriched};
use rdkafka::message::Headers;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use thmanyah::codec::{decode_checkpoint, decode_content_row, decode_seen};
use thmanyah::domain::Ledger;

/// Looks at everything; what is wrong is told to the world.
pub(super) fn check(inputs: &Inputs, sim: &Shared) {
    let mut wrong = Vec::new();
    {
        let world = sim.world.borrow();
        for partition in 0..world.shape.partitions {
            Outputs::of(&world, partition).check(inputs, &world, &mut wrong);
            ledger(inputs, &world, partition, &mut wrong);
            checkpoints(&world, partition, &mut wrong);
        }
        dead_letters(inputs, &world, &mut wrong);
        content(inputs, &world, &mut wrong);
        for node in &sim.actors.borrow().nodes {
            folds::disk(&world, &node.kind, &mut wrong);
        }
    }
    let mut world = sim.world.borrow_mut();
    for what in wrong {
        world.violate(what);
    }
}

fn header<'e>(entry: &'e Entry, name: &str) -> Option<&'e str> {
    let headers = entry.headers.as_ref()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}

/// One enriched record.
struct Output<'w> {
    id: i64,
    raw_offset: i64,
    status: &'w str,
    version: Option<(i32, i64)>,
    entry: &'w Entry,
}

struct Outputs<'w> {
    partition: i32,
    outputs: Vec<Output<'w>>,
}

impl<'w> Outputs<'w> {
    fn of(world: &'w World, partition: i32) -> Self {
        let log = &world.logs[ENRICHED][partition as usize];
        let outputs = log.committed_before(log.end()).map(|(_, entry)| {
            let version = header(entry, "content-version").and_then(|text| {
                let (partition, offset) = text.split_once(':')?;
                Some((partition.parse().ok()?, offset.parse().ok()?))
            });
            Output {
                id: key(entry).parse().unwrap_or(i64::MIN),
                raw_offset: header(entry, "raw-offset")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(-1),
                status: header(entry, "join-status").unwrap_or_default(),
                version,
                entry,
            }
        });
        Self {
            partition,
            outputs: outputs.collect(),
        }
    }

    fn check(&self, inputs: &Inputs, world: &World, wrong: &mut Vec<String>) {
        let p = self.partition;
        let mut first: BTreeMap<i64, (&Sent, &EventRow, Option<u8>)> = BTreeMap::new();
        for sent in &inputs.sent {
            if let (true, Raw::Event { row, content }) = (sent.partition == p, &sent.raw) {
                first.entry(row.id).or_insert((sent, row, *content));
            }
        }
        let mut seen = BTreeSet::new();
        let mut last_in_order = -1;
        let mut last_of: BTreeMap<Option<u8>, i64> = BTreeMap::new();
        let mut version_of: BTreeMap<u8, i64> = BTreeMap::new();
        for output in &self.outputs {
            let id = output.id;
            if !seen.insert(id) {
                wrong.push(format!("partition {p}: event {id} was published twice"));
            }
            let Some((sent, row, content)) = first.get(&id).copied() else {
                wrong.push(format!("partition {p}: event {id} was never sent"));
                continue;
            };
            if output.raw_offset != sent.offset {
                wrong.push(format!(
                    "partition {p}: event {id} came from offset {}, its first record is at {}",
                    output.raw_offset, sent.offset
                ));
            }
            if matches!(output.status, "joined" | "none") {
                if output.raw_offset < last_in_order {
                    wrong.push(format!("partition {p}: event {id} is out of order"));
                }
                last_in_order = output.raw_offset;
            }
            if content.is_some() {
                let last = last_of.entry(content).or_insert(-1);
                if output.raw_offset < *last {
                    wrong.push(format!(
                        "partition {p}: event {id} was overtaken by another of its content"
                    ));
                }
                *last = output.raw_offset;
            }
            if let (Some(content), Some((_, offset))) = (content, output.version) {
                let last = version_of.entry(content).or_insert(-1);
                if offset < *last {
                    wrong.push(format!("partition {p}: event {id} went back a version"));
                }
                *last = offset;
            }
            self.value(output, row, content, world, wrong);
            if output.status == "timeout" {
                self.time_out(output, sent, content, inputs, wrong);
            }
        }
        for id in first.keys() {
            if !seen.contains(id) {
                wrong.push(format!("partition {p}: event {id} was never published"));
            }
        }
    }

    fn value(
        &self,
        output: &Output<'_>,
        row: &EventRow,
        content: Option<u8>,
        world: &World,
        wrong: &mut Vec<String>,
    ) {
        let joined = output.version.and_then(|(partition, offset)| {
            let entry = world.logs[CHANGELOG]
                .get(partition as usize)?
                .entries
                .get(offset as usize)?;
            let row = decode_content_row(entry.value.as_deref()?).ok()?;
            let is_of = content.map(content_id) == Some(key(entry).to_owned());
            (entry.is_committed() && is_of).then(|| JoinedRow {
                content_type: row.content_type.map(|kind| kind.name().to_owned()),
                length_seconds: row.length_seconds,
            })
        });
        let fits = match output.status {
            "joined" | "late" => joined.is_some(),
            "timeout" => output.version.is_none() && content.is_some(),
            "none" => output.version.is_none() && content.is_none(),
            _ => false,
        };
        let expected = expected_enriched(row, joined.as_ref());
        if !fits || output.entry.value.as_deref() != Some(expected.as_slice()) {
            wrong.push(format!(
                "partition {}: event {} is {} with status {:?}, expected {}",
                self.partition,
                row.id,
                String::from_utf8_lossy(output.entry.value.as_deref().unwrap_or_default()),
                output.status,
                String::from_utf8_lossy(&expected)
            ));
        }
    }

    /// Whether giving up was right: the content was not there when the event came, or it was deleted.
    fn time_out(
        &self,
        output: &Output<'_>,
        sent: &Sent,
        content: Option<u8>,
        inputs: &Inputs,
        wrong: &mut Vec<String>,
    ) {
        let changes: Vec<_> = inputs
            .changes
            .iter()
            .filter(|change| Some(change.content) == content && change.at_ms <= output.entry.at_ms)
            .collect();
        let before = changes
            .iter()
            .rev()
            .find(|change| change.at_ms <= sent.at_ms);
        let was_there = before.is_some_and(|change| change.row.is_some());
        let deleted_since = changes
            .iter()
            .any(|change| change.at_ms >= sent.at_ms && change.row.is_none());
        if was_there && !deleted_since {
            wrong.push(format!(
                "partition {}: event {} was given up on though its content was there before it",
                self.partition, output.id
            ));
        }
        if !inputs.clocks_jumped && output.entry.at_ms < sent.at_ms + DEADLINE_MS {
            wrong.push(format!(
                "partition {}: event {} was given up on before its deadline",
                self.partition, output.id
            ));
        }
    }
}

pub(super) fn key(entry: &Entry) -> &str {
    let key = entry.key.as_deref().unwrap_or_default();
    std::str::from_utf8(key).unwrap_or_default()
}

/// The ledger tells what became of every record.
fn ledger(inputs: &Inputs, world: &World, partition: i32, wrong: &mut Vec<String>) {
    let mut expected = Ledger::default();
    let mut ids = BTreeSet::new();
    for sent in inputs
        .sent
        .iter()
        .filter(|sent| sent.partition == partition)
    {
        expected.consumed += 1;
        match &sent.raw {
            Raw::Event { row, .. } if ids.insert(row.id) => expected.enriched += 1,
            Raw::Event { .. } => expected.duplicate += 1,
            Raw::Poison => expected.dead += 1,
            Raw::Tombstone => expected.ignored += 1,
        }
    }
    let committed = world.groups[0].offsets.get(&partition);
    let found = match committed {
        Some((_, metadata)) => Ledger::parse(metadata).ok(),
        None => Some(Ledger::default()),
    };
    if found != Some(expected) {
        wrong.push(format!(
            "partition {partition}: ledger {found:?}, expected {expected:?}"
        ));
    }
}

/// Each record that is none has one dead letter, with its own bytes.
fn dead_letters(inputs: &Inputs, world: &World, wrong: &mut Vec<String>) {
    let mut expected: BTreeSet<(usize, i32, i64)> = inputs
        .sent
        .iter()
        .filter(|sent| matches!(sent.raw, Raw::Poison))
        .map(|sent| (RAW, sent.partition, sent.offset))
        .collect();
    expected.extend(
        inputs
            .bad_content
            .iter()
            .map(|(p, offset)| (CONTENT, *p, *offset)),
    );
    let log = &world.logs[DEAD][0];
    for (_, entry) in log.committed_before(log.end()) {
        let number = |name: &str| header(entry, name).and_then(|text| text.parse::<i64>().ok());
        let topic = header(entry, "dlq-source-topic").unwrap_or_default();
        let source = (
            TOPICS
                .iter()
                .position(|name| *name == topic)
                .unwrap_or(usize::MAX),
            number("dlq-source-partition").unwrap_or(-1) as i32,
            number("dlq-source-offset").unwrap_or(-1),
        );
        if !expected.remove(&source) {
            wrong.push(format!("a dead letter too many, of {source:?}"));
            continue;
        }
        let original = &world.logs[source.0][source.1 as usize].entries[source.2 as usize];
        if (&original.key, &original.value) != (&entry.key, &entry.value) {
            wrong.push(format!("the dead letter of {source:?} has other bytes"));
        }
    }
    if !expected.is_empty() {
        wrong.push(format!("dead letters are missing: {expected:?}"));
    }
}

/// The checkpoints with the enriched records behind them know every published id.
fn checkpoints(world: &World, partition: i32, wrong: &mut Vec<String>) {
    let enriched = &world.logs[ENRICHED][partition as usize];
    let published = ids_before(enriched, enriched.end());
    let log = &world.logs[SEEN][partition as usize];
    let mut known = BTreeSet::new();
    let mut from = 0;
    for (_, entry) in log.committed_before(log.end()) {
        let Some(value) = entry.value.as_deref() else {
            continue;
        };
        if key(entry) == "position" {
            if let Ok(checkpoint) = decode_checkpoint(value) {
                from = checkpoint.enriched.0;
            }
        } else if let (Ok(container), Ok(bitmap)) = (key(entry).parse::<i64>(), decode_seen(value))
        {
            known.extend(ids_of(container, bitmap));
        }
    }
    let before = ids_before(enriched, from);
    if let Some(id) = before.difference(&known).next() {
        wrong.push(format!(
            "partition {partition}: the checkpoint at {from} does not know event {id}"
        ));
    }
    if let Some(id) = known.difference(&published).next() {
        wrong.push(format!(
            "partition {partition}: a checkpoint knows event {id}, which was not published"
        ));
    }
}

fn ids_before(log: &Log, end: i64) -> BTreeSet<i64> {
    log.committed_before(end)
        .filter_map(|(_, entry)| key(entry).parse().ok())
        .collect()
}

pub(super) fn ids_of(container: i64, bitmap: &[u8]) -> Vec<i64> {
    let bitmap = RoaringBitmap::deserialize_from(bitmap).unwrap_or_default();
    bitmap
        .iter()
        .map(|place| (container << 16) | i64::from(place))
        .collect()
}

/// The content changelog ends with what the content topic says.
fn content(inputs: &Inputs, world: &World, wrong: &mut Vec<String>) {
    let mut expected: BTreeMap<String, (Option<i32>, Option<String>)> = BTreeMap::new();
    for change in &inputs.changes {
        let id = content_id(change.content);
        match &change.row {
            Some((length, title)) => {
                let kept = expected.get(&id).and_then(|(_, title)| title.clone());
                let title = title.clone().or(kept);
                expected.insert(id, (Some(*length), title));
            }
            None => {
                expected.remove(&id);
            }
        }
    }
    let mut found = BTreeMap::new();
    for log in &world.logs[CHANGELOG] {
        for (_, entry) in log.committed_before(log.end()) {
            match entry.value.as_deref().map(decode_content_row) {
                Some(Ok(row)) => {
                    found.insert(key(entry).to_owned(), (row.length_seconds, row.title))
                }
                _ => found.remove(key(entry)),
            };
        }
    }
    if found != expected {
        wrong.push(format!(
            "the content table is {found:?}, expected {expected:?}"
        ));
    }
}
