//! What one event costs in the codec: parse, join, encode. Times are per event, on one core.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use std::hint::black_box;
use thmanyah::codec::{
    EventRecord, EventRules, decode_event, decode_parked, encode_parked, write_enriched,
};
use thmanyah::domain::{
    ContentType, ContentVersion, Enriched, Event, JoinContent, JoinStatus, Offset, ParkedEvent,
    Partition,
};

/// The value of the first record of a sample file.
fn first_value(jsonl: &str) -> String {
    let line = jsonl.lines().next().unwrap_or_default();
    let record: Value = serde_json::from_str(line).expect("a sample is JSON");
    record
        .get("value")
        .and_then(Value::as_str)
        .expect("a value")
        .to_owned()
}

fn event(value: &[u8], rules: EventRules) -> Event<'_> {
    match decode_event(Some(value), &rules) {
        Ok(EventRecord::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

fn join_content() -> JoinContent {
    JoinContent {
        content_type: Some(ContentType::Podcast),
        length_seconds: Some(1200),
        version: ContentVersion {
            partition: Partition(3),
            offset: Offset(7),
        },
    }
}

fn codec(c: &mut Criterion) {
    let envelope = first_value(include_str!(
        "../../proptests/fixtures/samples/engagement-events.envelope.jsonl"
    ));
    let with_schema = first_value(include_str!(
        "../../proptests/fixtures/samples/engagement-events.envelope-with-schema.jsonl"
    ));
    let flattened = first_value(include_str!(
        "../../proptests/fixtures/samples/engagement-events.flattened.jsonl"
    ));
    let rules = EventRules::default();
    let mut parse = c.benchmark_group("parse");
    for (name, value) in [
        ("envelope", &envelope),
        ("envelope with schema", &with_schema),
        ("flattened", &flattened),
    ] {
        parse.throughput(Throughput::Bytes(value.len() as u64));
        parse.bench_function(format!("{name}, {} bytes", value.len()), |b| {
            b.iter(|| decode_event(Some(black_box(value.as_bytes())), &rules));
        });
    }
    parse.finish();

    let fact = event(envelope.as_bytes(), rules);
    c.bench_function("join", |b| {
        b.iter(|| {
            Enriched::join(
                black_box(&fact),
                Some(black_box(join_content())),
                JoinStatus::Joined,
            )
        });
    });
    let enriched = Enriched::join(&fact, Some(join_content()), JoinStatus::Joined);
    let mut out = Vec::with_capacity(1024);
    c.bench_function("encode enriched", |b| {
        b.iter(|| {
            out.clear();
            write_enriched(black_box(&enriched), &mut out);
            out.len()
        });
    });
    c.bench_function("parse, join and encode", |b| {
        b.iter(|| {
            out.clear();
            let event = event(black_box(envelope.as_bytes()), rules);
            let enriched = Enriched::join(&event, Some(join_content()), JoinStatus::Joined);
            write_enriched(&enriched, &mut out);
            out.len()
        });
    });
    let parked = ParkedEvent {
        event: fact.clone(),
        raw_offset: Offset(1),
        raw_timestamp_ms: Some(1_795_507_401_153),
        parked_at_ms: 1_795_507_401_200,
        backfill: None,
    };
    c.bench_function("encode parked", |b| {
        b.iter(|| {
            out.clear();
            encode_parked(black_box(&parked), &mut out);
            out.len()
        });
    });
    let mut value = Vec::new();
    encode_parked(&parked, &mut value);
    c.bench_function("decode parked", |b| {
        b.iter(|| decode_parked(black_box(&value)).is_ok());
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
