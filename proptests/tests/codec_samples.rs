//! Records of a real Debezium, in its three shapes, decode to the same facts.

#![allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use thmanyah::codec::{
    ContentChange, EventRecord, EventRules, IgnoredWhy, TimeMode, decode_content, decode_event,
};
use thmanyah::domain::{ContentId, ContentRow, Event, EventId, Reason};

type Bytes = Option<Vec<u8>>;

/// Keys and values of a sample file, in the order of their partitions.
fn records(table: &str, shape: &str) -> Vec<(Bytes, Bytes)> {
    let path = format!(
        "{}/fixtures/samples/{table}.{shape}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).expect("a fixture");
    let bytes = |json: &serde_json::Value| json.as_str().map(|text| text.as_bytes().to_vec());
    text.lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (bytes(&record["key"]), bytes(&record["value"]))
        })
        .collect()
}

const SHAPES: [&str; 3] = ["envelope", "envelope-with-schema", "flattened"];

/// What became of the records of each event id, in order.
fn events(shape: &str) -> BTreeMap<i64, Vec<Result<EventRecord<'static>, Reason>>> {
    let mut facts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, value) in records("engagement-events", shape) {
        let key: serde_json::Value = serde_json::from_slice(&key.expect("a key")).expect("JSON");
        let id = key.get("payload").unwrap_or(&key)["id"]
            .as_i64()
            .expect("an id");
        let fact = match decode_event(value.as_deref(), &EventRules::default()) {
            Ok(EventRecord::Event(event)) => Ok(EventRecord::Event(event.into_owned())),
            Ok(EventRecord::Ignored(why)) => Ok(EventRecord::Ignored(why)),
            Err(dead) => Err(dead.reason),
        };
        facts.entry(id).or_default().push(fact);
    }
    facts
}

#[test]
fn events_of_the_three_shapes_decode_to_the_same_facts() {
    let [first, second, third] = SHAPES.map(events);
    assert_eq!(first, second);
    assert_eq!(first, third);
    assert_eq!(first.len(), 5);
    for id in [1, 2, 4] {
        match first[&id].as_slice() {
            [Ok(EventRecord::Event(Event { id: found, .. }))] => assert_eq!(*found, EventId(id)),
            other => panic!("event {id}: {other:?}"),
        }
    }
    assert_eq!(first[&5], [Err(Reason::BadTime)], "infinity");
    match first[&3].as_slice() {
        [
            Ok(EventRecord::Event(_)),
            Err(Reason::OpUpdate),
            Err(Reason::OpDelete),
            Ok(EventRecord::Ignored(IgnoredWhy::Tombstone)),
        ] => {}
        other => panic!("event 3: {other:?}"),
    }
}

/// The content table after each record, and how many columns were kept.
fn content(shape: &str) -> (Vec<BTreeMap<ContentId, ContentRow>>, u32) {
    let mut table = BTreeMap::new();
    let mut kept = 0;
    let mut states = Vec::new();
    for (key, value) in records("content", shape) {
        let change = decode_content(key.as_deref(), value.as_deref(), TimeMode::Iso);
        match change.expect("a content change") {
            ContentChange::Upsert(patch) => {
                let (row, resolution) = patch.resolve(table.get(&patch_id(&key)));
                kept += resolution.kept;
                assert_eq!(resolution.lost, 0);
                table.insert(row.id, row);
            }
            ContentChange::Delete(id) => {
                assert_eq!(id, patch_id(&key));
                table.remove(&id);
            }
        }
        states.push(table.clone());
    }
    (states, kept)
}

fn patch_id(key: &Bytes) -> ContentId {
    let key = key.as_deref().expect("a key");
    match decode_content(Some(key), None, TimeMode::Iso) {
        Ok(ContentChange::Delete(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_of_the_three_shapes_folds_to_the_same_table() {
    let [first, second, third] = SHAPES.map(content);
    assert_eq!(first.0.last(), second.0.last());
    assert_eq!(first.0.last(), third.0.last());
    assert_eq!((first.1, second.1, third.1), (1, 1, 1), "one TOAST column");
    let table = first.0.last().expect("a table");
    assert_eq!(table.len(), 3);
    let toast = table
        .values()
        .find(|row| row.slug.as_deref() == Some("toast"))
        .expect("the row with a large title");
    assert_eq!(toast.length_seconds, Some(91));
    assert!(toast.title.as_ref().is_some_and(|title| title.len() > 2000));
    let arabic = first
        .0
        .iter()
        .flat_map(BTreeMap::values)
        .any(|row| row.title.as_deref() == Some("بودكاست فنجان \"٣\""));
    assert!(arabic);
}
