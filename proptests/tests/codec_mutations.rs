//! A million mutated records: nothing panics, nothing decodes two ways, and what decodes can be written.

#![allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use thmanyah::codec::{
    ContentChange, EventRecord, EventRules, OperationRule, TimeMode, decode_content,
    decode_content_row, decode_event, decode_parked, encode_content, encode_parked, write_enriched,
};
use thmanyah::domain::{
    ContentType, ContentVersion, DeadLetter, Enriched, JoinContent, JoinStatus, Offset,
    ParkedEvent, Partition, Reason,
};

const INPUTS: u64 = 1_000_000;
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

/// Texts that mean something to the decoder.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{}",
    "[]",
    "\"op\":",
    "\"after\":",
    "\"before\":",
    "\"schema\":",
    "\"payload\":",
    "\"id\":",
    "\"__op\":\"c\",",
    "\"__deleted\":\"true\",",
    "\"c\"",
    "\"d\"",
    "-",
    "0",
    "1e400",
    "1.5",
    "9223372036854775808",
    "-9223372036854775808",
    "2147483648",
    "\"infinity\"",
    "NaN",
    "\u{feff}",
    "9999-12-31T23:59:59.999999Z",
    "__debezium_unavailable_value",
    "ض",
];

/// Keys of a JSON object in their order.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::with_capacity(FIELDS.len());
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        json.deserialize_map(KeysVisitor)
    }
}

/// Keys and values of every sample, and small records besides.
fn corpus() -> Vec<Vec<u8>> {
    let folder = format!("{}/fixtures/samples", env!("CARGO_MANIFEST_DIR"));
    let mut corpus = Vec::new();
    for table in ["engagement-events", "content"] {
        for shape in ["envelope", "envelope-with-schema", "flattened"] {
            let text = std::fs::read_to_string(format!("{folder}/{table}.{shape}.jsonl"));
            for line in text.expect("a fixture").lines() {
                let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
                for part in ["key", "value"] {
                    corpus.extend(record[part].as_str().map(|text| text.as_bytes().to_vec()));
                }
            }
        }
    }
    // Few of the samples are events that stay whole after an edit: more of them, so that what follows a decode is tried.
    for device in ["\"ios\"", "null", "\"\\u0628\\\"\\\\\"", "\"ضاد\""] {
        let event = format!(
            r#"{{"id":7,"event_type":"click","event_ts":"2025-01-01T00:00:00Z","device":{device}}}"#
        );
        for record in [
            event.clone(),
            format!("{{\"op\":\"c\",\"after\":{event}}}"),
            format!("{{\"schema\":{{}},\"payload\":{event}}}"),
        ] {
            corpus.push(record.into_bytes());
        }
    }
    corpus
}

/// A place in the bytes, its end included.
fn place(rng: &mut ChaCha8Rng, bytes: &[u8]) -> usize {
    rng.random_range(0..=bytes.len())
}

/// One to four edits of one record, or no record at all.
fn mutated(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    if rng.random_ratio(1, 50) {
        let length = rng.random_range(0..200);
        return (0..length).map(|_| rng.random()).collect();
    }
    let mut bytes = corpus.choose(rng).expect("a corpus").clone();
    for _ in 0..*[1, 1, 1, 2, 4].choose(rng).expect("a count") {
        edit(rng, &mut bytes, corpus);
    }
    bytes
}

fn edit(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = place(rng, bytes);
    match rng.random_range(0..13) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        1 => bytes.truncate(at),
        2 | 8..=12 => {
            // A digit becomes another: numbers, times and UUIDs change their value.
            let digits: Vec<usize> = (0..bytes.len())
                .filter(|at| bytes[*at].is_ascii_digit())
                .collect();
            if let Some(at) = digits.choose(rng) {
                bytes[*at] = rng.random_range(b'0'..=b'9');
            }
        }
        3 => {
            let other = corpus.choose(rng).expect("a corpus");
            let from = place(rng, other);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        4 => {
            let end = (at + rng.random_range(0..60)).min(bytes.len());
            let slice = bytes[at..end].to_vec();
            let to = place(rng, bytes);
            bytes.splice(to..to, slice);
        }
        5 => {
            let end = (at + rng.random_range(0..20)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let token = TOKENS.choose(rng).expect("a token");
            bytes.splice(at..at, token.bytes());
        }
        _ => {
            // A value is replaced by a token: the record stays JSON more often than not.
            let colons: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b':').collect();
            if let Some(colon) = colons.choose(rng) {
                let end = bytes[*colon..]
                    .iter()
                    .position(|b| matches!(b, b',' | b'}'));
                let end = end.map_or(bytes.len(), |end| colon + end);
                let token = TOKENS.choose(rng).expect("a token");
                bytes.splice(colon + 1..end, token.bytes());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    events: u64,
    changes: u64,
    dead: u64,
}

fn check(bytes: &[u8], rng: &mut ChaCha8Rng, tally: &mut Tally) {
    let rules = EventRules {
        updates: *[OperationRule::DeadLetter, OperationRule::Ignore]
            .choose(rng)
            .expect("one"),
        time: *[TimeMode::Iso, TimeMode::Iso, TimeMode::EpochMicros]
            .choose(rng)
            .expect("one"),
        ..EventRules::default()
    };
    let decoded = decode_event(Some(bytes), &rules);
    assert_eq!(
        decoded,
        decode_event(Some(bytes), &rules),
        "decoded two ways"
    );
    agrees_with_another_reader(bytes, &decoded);
    match decoded {
        Ok(EventRecord::Event(event)) => {
            tally.events += 1;
            let content = JoinContent {
                content_type: Some(ContentType::Video),
                length_seconds: Some(rng.random_range(0..=i32::MAX)),
                version: ContentVersion {
                    partition: Partition(0),
                    offset: Offset(0),
                },
            };
            let mut out = Vec::new();
            let enriched = Enriched::join(&event, Some(content), JoinStatus::Joined);
            write_enriched(&enriched, &mut out);
            let Keys(keys) = serde_json::from_slice(&out).expect("enriched JSON");
            assert_eq!(keys, FIELDS);
            let parked = ParkedEvent {
                event,
                raw_offset: Offset(rng.random()),
                raw_timestamp_ms: rng.random::<bool>().then(|| rng.random()),
                parked_at_ms: rng.random(),
                backfill: rng.random::<bool>().then(|| bytes.into()),
            };
            out.clear();
            encode_parked(&parked, &mut out);
            assert_eq!(decode_parked(&out).as_ref(), Ok(&parked));
            damaged_values_are_no_panic(&mut out, rng);
        }
        Ok(EventRecord::Ignored(_)) => {}
        Err(dead) => {
            tally.dead += 1;
            assert!(dead.detail.chars().count() <= 200, "{dead}");
        }
    }
    let content = decode_content(Some(bytes), Some(bytes), rules.time);
    assert_eq!(
        content,
        decode_content(Some(bytes), Some(bytes), rules.time)
    );
    if let Ok(ContentChange::Upsert(patch)) = content {
        tally.changes += 1;
        let (row, _) = patch.resolve(None);
        let mut out = Vec::new();
        encode_content(&row, &mut out);
        assert_eq!(decode_content_row(&out).as_ref(), Ok(&row));
        damaged_values_are_no_panic(&mut out, rng);
    }
    let _ = decode_content(Some(bytes), None, rules.time);
    let _ = decode_content_row(bytes);
    let _ = decode_parked(bytes);
}

/// What is no JSON is refused as such, what is refused as such has a fault, and an event's fields stand in the record.
fn agrees_with_another_reader(bytes: &[u8], decoded: &Result<EventRecord<'_>, DeadLetter>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let reason = decoded.as_ref().err().map(|dead| dead.reason);
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        let syntax = [Reason::Empty, Reason::TooDeep, Reason::NotJson];
        assert!(
            reason.is_some_and(|reason| syntax.contains(&reason)),
            "{reason:?}"
        );
        return;
    }
    let Ok(record) = serde_json::from_str::<Value>(text) else {
        return;
    };
    assert_ne!(reason, Some(Reason::NotJson));
    let Ok(EventRecord::Event(event)) = decoded else {
        return;
    };
    let payload = record.get("payload");
    let rows = [
        Some(&record),
        payload,
        record.get("after"),
        payload.and_then(|payload| payload.get("after")),
    ];
    let stands = rows.into_iter().flatten().any(|row| {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        // The other reader takes `-0` for a fraction.
        let number = |name: &str| match row.get(name) {
            Some(value) if value.is_f64() && value.as_f64() == Some(0.0) => Some(0),
            value => value.and_then(Value::as_i64),
        };
        number("id") == Some(event.id.0)
            && number("duration_ms") == event.duration_ms.map(i64::from)
            && text("event_type") == Some(event.event_type.name())
            && text("device") == event.device.as_deref()
            && text("user_id").map(str::to_lowercase) == event.user_id.map(|id| id.to_string())
            && text("content_id").map(str::to_lowercase)
                == event.content_id.map(|id| id.to_string())
    });
    assert!(stands, "{event:?}");
}

/// One damaged byte of a changelog's value: refused or read, never a panic.
fn damaged_values_are_no_panic(value: &mut [u8], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(1..value.len());
    value[at] = rng.random();
    let _ = decode_content_row(value);
    let _ = decode_parked(value);
}

#[test]
fn a_million_mutated_records_neither_panic_nor_decode_two_ways() {
    let first: u64 = std::env::var("THMANYAH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(8);
    let corpus = corpus();
    let mut tally = Tally::default();
    for seed in first..first + INPUTS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bytes = mutated(&mut rng, &corpus);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&bytes, &mut rng, &mut tally)));
        assert!(
            checked.is_ok(),
            "THMANYAH_SEED={seed} replays it: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
    // The edits must leave enough records whole for the checks of what decodes.
    assert!(tally.events > INPUTS / 20, "{tally:?}");
    assert!(tally.changes > INPUTS / 20, "{tally:?}");
    assert!(tally.dead > INPUTS / 4, "{tally:?}");
}
