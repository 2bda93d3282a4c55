//! Records that do not lie where their id belongs are processed, counted, and refused only where keys are strict.

use super::*;
use crate::codec::partition_of;

const PARTITIONS: i32 = 8;

/// Feeds an event with this key; ids are chosen by the test so that they belong to the task's partition.
fn feed(bench: &mut Bench, id: i64, key: Option<&[u8]>) -> Result<(), TaskError<Infallible>> {
    let json = format!(r#"{{"id":{id},"event_type":"click","event_ts":"2025-01-01T00:00:00Z"}}"#);
    let record = RawRecord {
        offset: Offset(bench.offset),
        timestamp_ms: None,
        key,
        value: Some(json.as_bytes()),
        backfill: None,
    };
    bench.offset += 1;
    bench
        .task
        .record(&record, &bench.rules, 0, &bench.tables, &mut bench.staged)
}

fn key(id: i64) -> Vec<u8> {
    format!(r#"{{"id":{id}}}"#).into_bytes()
}

/// Ids whose key belongs to the task's partition, and some that do not.
fn ids(belong: bool) -> impl Iterator<Item = i64> {
    (1..).filter(move |id| (partition_of(&key(*id), PARTITIONS) == P) == belong)
}

fn bench(strict: bool) -> Bench {
    let mut bench = Bench::new(100);
    bench.rules.keys.partitions = PARTITIONS;
    bench.rules.keys.strict = strict;
    bench
}

#[test]
fn records_that_lie_where_their_ids_belong_pass_strict_keys() {
    let mut bench = bench(true);
    for id in ids(true).take(20) {
        feed(&mut bench, id, Some(&key(id))).unwrap();
    }
    assert_eq!(bench.staged.counts().misplaced, 0);
    assert_eq!(bench.commit().len(), 20);
}

#[test]
fn a_misplaced_record_is_processed_counted_and_told() {
    let mut bench = bench(false);
    let first = ids(true).next().unwrap();
    feed(&mut bench, first, Some(&key(first))).unwrap();
    let elsewhere = ids(false).next().unwrap();
    feed(&mut bench, elsewhere, Some(&key(elsewhere))).unwrap();
    let third = ids(true).nth(1).unwrap();
    feed(&mut bench, third, None).unwrap();
    let fourth = ids(true).nth(2).unwrap();
    let wrapped = format!(r#"{{"schema":{{}},"payload":{{"id":{fourth}}}}}"#);
    feed(&mut bench, fourth, Some(wrapped.as_bytes())).unwrap();
    assert_eq!(bench.staged.counts().misplaced, 3);
    let (partition, offset, id, why) = bench.staged.misplaced().unwrap();
    assert_eq!((partition, offset, id), (P, Offset(1), EventId(elsewhere)));
    assert!(matches!(why, Misplaced::Partition(other) if other != P));
    assert_eq!(bench.commit().len(), 4);
    assert!(bench.staged.misplaced().is_none());
}

#[test]
fn strict_keys_stop_at_the_first_misplaced_record() {
    let mut bench = bench(true);
    let first = ids(true).next().unwrap();
    feed(&mut bench, first, Some(&key(first))).unwrap();
    let second = ids(true).nth(1).unwrap();
    let error = feed(&mut bench, second, Some(b"other")).unwrap_err();
    assert!(matches!(
        error,
        TaskError::Misplaced(P, Offset(1), _, Misplaced::Key)
    ));
    let told = error.to_string();
    assert!(told.contains("strict_keys"), "{told}");
    assert_eq!(
        bench.task.position(),
        Offset(1),
        "nothing of it was processed"
    );
}

#[test]
fn bad_records_are_dead_letters_whatever_their_key() {
    let mut bench = bench(true);
    bench.feed(Some(b"{"), None);
    bench.feed(None, None);
    let ledger = bench.task.ledger();
    assert_eq!((ledger.dead, ledger.ignored), (1, 1));
}
