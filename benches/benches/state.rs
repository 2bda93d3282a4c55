//! The store: a point read, a set of 1,000 writes, a scan, and what a batch of recent events costs.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use thmanyah::recent::{Batch, Known, Record};
use thmanyah_state::{Direction, Options, Position, Store, Table, WriteSet};

const ROWS: u64 = 100_000;
const VALUE: [u8; 120] = [7; 120];
/// Events of one batch of recent events.
const EVENTS: i64 = 10_000;

/// A key as content has it: 16 bytes without order.
fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    tail.copy_from_slice(&i.to_be_bytes());
    key
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), &Options::default()).expect("a new directory opens")
}

fn reads_and_writes(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let mut writes = WriteSet::new();
    for i in 0..ROWS {
        writes.put(Table::Content, &key(i), &VALUE);
    }
    store.apply(&mut writes).expect("writes apply");
    store.flush(Table::Content).expect("flushes");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut group = c.benchmark_group("state");
    group.bench_function("get, found", |b| {
        b.iter(|| {
            store.get(
                Table::Content,
                &key(random.random_range(0..ROWS)),
                <[u8]>::len,
            )
        });
    });
    group.bench_function("get, absent", |b| {
        b.iter(|| {
            store.get(
                Table::Content,
                &key(random.random_range(ROWS..2 * ROWS)),
                <[u8]>::len,
            )
        });
    });
    group.throughput(Throughput::Elements(1_000));
    let mut next = 0u64;
    group.bench_function("apply 1,000 puts", |b| {
        b.iter(|| {
            for _ in 0..1_000 {
                next += 1;
                writes.put(Table::Pending, &key(next), &VALUE);
            }
            let position = Position {
                offset: 1,
                topic_id: [0; 16],
                fresh_at_ms: 0,
            };
            writes.set_position(Table::Pending, 0, position);
            store.apply(&mut writes)
        });
    });
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("scan 10,000 rows", |b| {
        b.iter(|| {
            let snapshot = store.snapshot();
            let mut scan = snapshot
                .scan(Table::Content, &[], &[255; 17], Direction::Forward)
                .expect("scans");
            for _ in 0..10_000 {
                black_box(scan.next().expect("steps"));
            }
        });
    });
    group.finish();
}

fn event(id: i64, micros: i64) -> String {
    let (second, fraction) = (micros / 1_000_000 % 60, micros % 1_000_000);
    format!(
        "{{\"event_id\":\"{id}\",\"content_id\":\"25f6ae98-4cbb-41cc-8fc9-8111e899a363\",\"user_id\":\"25f6ae98-4cbb-41cc-8fc9-8111e899a363\",\"event_type\":\"play\",\"event_ts\":\"2025-01-01T12:30:{second:02}.{fraction:06}Z\",\"duration_ms\":12340,\"device\":\"ios\",\"content_type\":\"podcast\",\"length_seconds\":1200,\"engagement_seconds\":12.34,\"engagement_pct\":0.01}}"
    )
}

fn recent(c: &mut Criterion) {
    let mut group = c.benchmark_group("recent");
    group.throughput(Throughput::Elements(EVENTS.unsigned_abs()));
    for (name, rising) in [("rising event_ts", true), ("random event_ts", false)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = open(&dir);
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut writes = WriteSet::new();
        let mut batch = Batch::default();
        let mut next = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let events = (next..next + EVENTS).map(|id| {
                        let micros = if rising {
                            id * 5
                        } else {
                            random.random_range(0..60_000_000)
                        };
                        event(id, micros)
                    });
                    let events: Vec<String> = events.collect();
                    next += EVENTS;
                    (next - EVENTS, events)
                },
                |(first, events)| {
                    for (offset, json) in (first..).zip(&events) {
                        let record = Record {
                            partition: (offset % 4) as i32,
                            offset,
                            published_ms: offset,
                            json: json.as_bytes(),
                        };
                        batch.add(record, 0);
                    }
                    batch.stage(|_| Known::default(), |_, _| {}, &mut writes);
                    store.apply_unlogged(&mut writes).expect("writes apply");
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, reads_and_writes, recent);
criterion_main!(benches);
