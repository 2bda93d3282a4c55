//! Records in, rows out: batch, query and sweep against a real store, without Kafka.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::codec::write_enriched;
use crate::domain::{
    ContentId, Enriched, Event, EventId, EventType, JoinStatus, Timestamp, UserId,
};
use std::borrow::Cow;
use std::collections::BTreeSet;
use tempfile::TempDir;
use thmanyah_state::{Options, Store, Table, WriteSet};

const TOPIC: [u8; 16] = [5; 16];

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    (dir, store)
}

fn ts(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn json(id: i64, event_ts: i64, content: u8, event_type: EventType) -> Vec<u8> {
    let event = Event {
        id: EventId(id),
        content_id: (content > 0).then_some(ContentId([content; 16])),
        user_id: (id % 2 == 0).then_some(UserId([9; 16])),
        event_type,
        event_ts: ts(event_ts),
        duration_ms: Some(1),
        device: Some(Cow::Borrowed("\"event_ts\":\"جهاز")),
    };
    let mut out = Vec::new();
    write_enriched(&Enriched::join(&event, None, JoinStatus::None), &mut out);
    out
}

fn play(id: i64, event_ts: i64) -> Vec<u8> {
    json(id, event_ts, 1, EventType::Play)
}

/// Writes records, each published at its own millisecond, as one batch.
fn write(store: &Store, records: &[(i32, i64, i64, Vec<u8>)], keep_from_ms: i64) -> Batch {
    let mut batch = Batch::default();
    for (partition, offset, published_ms, json) in records {
        let record = Record {
            partition: *partition,
            offset: *offset,
            published_ms: *published_ms,
            json,
        };
        batch.add(record, keep_from_ms);
    }
    let mut writes = WriteSet::new();
    let snapshot = store.snapshot();
    let known = |of| Known {
        topic_id: TOPIC,
        at_end_ms: 0,
        dropped: dropped_up_to(&snapshot, &[of]).unwrap(),
    };
    batch.stage(known, |_, _| {}, &mut writes);
    assert!(batch.is_empty());
    store.apply_unlogged(&mut writes).unwrap();
    batch
}

fn request(partitions: &[i32]) -> PageRequest<'_> {
    PageRequest {
        partitions,
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        after: None,
        filter: Filter::default(),
        limits: Limits {
            items: 1000,
            bytes: usize::MAX,
            rows: usize::MAX,
        },
    }
}

fn read(store: &Store, request: &PageRequest<'_>) -> (Vec<Vec<u8>>, Page) {
    let mut items = Vec::new();
    let page = page(&store.snapshot(), request, |json| items.push(json.to_vec())).unwrap();
    assert_eq!(items.len(), page.items);
    (items, page)
}

fn ids(items: &[Vec<u8>]) -> Vec<i64> {
    let id = |json: &Vec<u8>| Head::read(json).unwrap().event_id.0;
    items.iter().map(id).collect()
}

fn sweep_all(store: &Store, of: i32, keep_from_ms: i64) -> Swept {
    let mut writes = WriteSet::new();
    let swept = sweep(&store.snapshot(), of, keep_from_ms, &mut writes).unwrap();
    store.apply_unlogged(&mut writes).unwrap();
    swept
}

#[test]
fn the_head_of_what_the_codec_writes_is_read() {
    let text = json(-42, 1_500_000, 3, EventType::Finish);
    let head = Head::read(&text).unwrap();
    assert_eq!(head.event_id, EventId(-42));
    assert_eq!(head.content_id, Some(ContentId([3; 16]).text().as_slice()));
    assert_eq!(head.event_type, b"finish");
    assert_eq!(head.event_ts, ts(1_500_000));
    let bare = json(i64::MAX, Timestamp::MIN.micros(), 0, EventType::Play);
    let head = Head::read(&bare).unwrap();
    assert_eq!(head.content_id, None);
    assert_eq!(head.event_ts, Timestamp::MIN);
}

#[test]
fn what_is_no_enriched_event_has_no_head() {
    let good = play(1, 0);
    for cut in 0..good.len() {
        assert_eq!(Head::read(&good[..cut]), None, "{cut}");
    }
    for bad in [
        b"".as_slice(),
        b"{}",
        b"\xff\xfe",
        b"{\"event_id\":\"x\",\"content_id\":null",
    ] {
        assert_eq!(Head::read(bad), None);
    }
}

#[test]
fn a_batch_makes_events_readable_in_order_and_by_id_with_its_position() {
    let (_dir, store) = store();
    let records = [
        (1, 10, 100, play(3, 30)),
        (0, 20, 100, play(2, -20)),
        (1, 11, 101, play(-1, 30)),
        (0, 22, 103, play(10, 30)),
        (0, 23, 102, play(9, 30)),
    ];
    write(&store, &records, 0);
    let (items, page) = read(&store, &request(&[0, 1]));
    assert_eq!(ids(&items), [2, -1, 3, 9, 10]);
    assert_eq!(page.next, None);
    assert_eq!(items[0], records[1].3, "byte for byte");
    assert_eq!(ids(&read(&store, &request(&[1])).0), [-1, 3]);
    let snapshot = store.snapshot();
    let found = find(&snapshot, &[0, 1], EventId(-1), <[u8]>::to_vec).unwrap();
    assert_eq!(found, Some(records[2].3.clone()));
    assert_eq!(
        find(&snapshot, &[0], EventId(-1), <[u8]>::len).unwrap(),
        None
    );
    let position = store.position(Table::Recent, 0).unwrap().unwrap();
    assert_eq!(
        (position.offset, position.fresh_at_ms, position.topic_id),
        (24, 103, TOPIC)
    );
}

#[test]
fn a_range_takes_its_start_in_and_leaves_its_end_out() {
    let (_dir, store) = store();
    let records: Vec<_> = (0..10).map(|i| (0, i, 0, play(i, i * 10))).collect();
    write(&store, &records, 0);
    let mut request = request(&[0]);
    request.from = ts(20);
    request.to = ts(50);
    assert_eq!(ids(&read(&store, &request).0), [2, 3, 4]);
    request.to = ts(20);
    assert_eq!(read(&store, &request).1.next, None);
    assert!(read(&store, &request).0.is_empty());
}

#[test]
fn pages_of_any_size_give_every_event_once_and_end_exactly_at_the_last() {
    let (_dir, store) = store();
    let partitions = [0, 1, 2];
    let records: Vec<_> = (0..97i64)
        .map(|i| (i as i32 % 3, i, 0, play(i * 7 % 97, i * i % 13)))
        .collect();
    write(&store, &records, 0);
    let all = ids(&read(&store, &request(&partitions)).0);
    assert_eq!(all.len(), 97);
    for (items, bytes, rows) in [
        (1, usize::MAX, usize::MAX),
        (97, usize::MAX, usize::MAX),
        (10, 1, usize::MAX),
        (5, usize::MAX, 3),
    ] {
        let mut request = request(&partitions);
        request.limits = Limits { items, bytes, rows };
        let mut found = Vec::new();
        loop {
            let (items, page) = read(&store, &request);
            assert!(page.next.is_none() || !items.is_empty());
            found.extend(ids(&items));
            if page.next.is_none() {
                break;
            }
            request.after = page.next;
        }
        assert_eq!(found, all, "{items} {bytes} {rows}");
    }
}

#[test]
fn a_filter_that_matches_rarely_gives_short_pages_that_go_on() {
    let (_dir, store) = store();
    let records: Vec<_> = (0..100)
        .map(|i| {
            let kind = if i == 70 {
                EventType::Click
            } else {
                EventType::Play
            };
            (0, i, 0, json(i, i, if i == 90 { 2 } else { 1 }, kind))
        })
        .collect();
    write(&store, &records, 0);
    let mut request = request(&[0]);
    request.filter.event_type = Some(EventType::Click);
    request.limits.rows = 30;
    let mut pages = Vec::new();
    loop {
        let (items, page) = read(&store, &request);
        pages.push(ids(&items));
        request.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec![], vec![], vec![70], vec![]]);
    request.after = None;
    request.limits.rows = 1000;
    request.filter = Filter {
        content_id: Some(ContentId([2; 16])),
        event_type: Some(EventType::Play),
    };
    assert_eq!(ids(&read(&store, &request).0), [90]);
}

#[test]
fn an_event_in_two_partitions_is_given_once() {
    let (_dir, store) = store();
    write(&store, &[(0, 0, 0, play(1, 5)), (1, 0, 0, play(1, 5))], 0);
    assert_eq!(ids(&read(&store, &request(&[0, 1])).0), [1]);
}

#[test]
fn a_record_that_is_no_event_moves_the_position_and_is_counted() {
    let (_dir, store) = store();
    let batch = write(&store, &[(0, 7, 1, b"hello".to_vec())], 0);
    assert_eq!(batch.unreadable(), 1);
    let position = store.position(Table::Recent, 0).unwrap().unwrap();
    assert_eq!(position.offset, 8);
    assert!(read(&store, &request(&[0])).0.is_empty());
}

#[test]
fn a_record_that_is_already_too_old_leaves_no_row_but_is_known_to_be_dropped() {
    let (_dir, store) = store();
    write(
        &store,
        &[(0, 0, 99, play(1, 500)), (0, 1, 100, play(2, 7))],
        100,
    );
    assert_eq!(ids(&read(&store, &request(&[0])).0), [2]);
    let dropped = dropped_up_to(&store.snapshot(), &[0, 1]).unwrap();
    assert_eq!(dropped, Some(ts(500)));
}

#[test]
fn what_the_log_lost_before_it_was_read_counts_as_dropped() {
    let (_dir, store) = store();
    let json = play(1, 1);
    let record = Record {
        partition: 0,
        offset: 900,
        published_ms: 2_000,
        json: &json,
    };
    let mut batch = Batch::default();
    batch.note_lost_before(&record);
    batch.add(record, 0);
    let mut writes = WriteSet::new();
    let mut told = Vec::new();
    batch.stage(
        |_| Known::default(),
        |of, event_ts| told.push((of, event_ts)),
        &mut writes,
    );
    store.apply_unlogged(&mut writes).unwrap();
    assert_eq!(told, [(0, ts(2_000_000))]);
    let dropped = dropped_up_to(&store.snapshot(), &[0]).unwrap();
    assert_eq!(dropped, Some(ts(2_000_000)));
}

#[test]
fn the_sweep_goes_by_publication_and_raises_what_was_dropped() {
    let (_dir, store) = store();
    // Published early about late times, and late about early times.
    write(
        &store,
        &[(0, 0, 100, play(1, 900)), (0, 1, 110, play(2, 800))],
        0,
    );
    write(&store, &[(0, 2, 200, play(3, 5))], 0);
    assert_eq!(sweep_all(&store, 0, 110), Swept::default());
    let swept = sweep_all(&store, 0, 111);
    assert_eq!((swept.rows, swept.dropped), (2, Some(ts(900))));
    assert_eq!(ids(&read(&store, &request(&[0])).0), [3]);
    let snapshot = store.snapshot();
    assert_eq!(
        find(&snapshot, &[0], EventId(1), <[u8]>::len).unwrap(),
        None
    );
    assert!(
        find(&snapshot, &[0], EventId(3), <[u8]>::len)
            .unwrap()
            .is_some()
    );
    assert_eq!(dropped_up_to(&snapshot, &[0]).unwrap(), Some(ts(900)));
    // A later drop of earlier times does not lower it, and nothing is left behind.
    let swept = sweep_all(&store, 0, 1_000);
    assert_eq!((swept.rows, swept.dropped), (1, None));
    assert_eq!(
        dropped_up_to(&store.snapshot(), &[0]).unwrap(),
        Some(ts(900))
    );
    let left = rows_left(&store);
    assert_eq!(
        left,
        BTreeSet::from([vec![0, 0, 0, 0, super::keys::DROPPED]])
    );
    let position = store.position(Table::Recent, 0).unwrap().unwrap();
    assert_eq!(position.offset, 3);
}

fn rows_left(store: &Store) -> BTreeSet<Vec<u8>> {
    let snapshot = store.snapshot();
    let direction = thmanyah_state::Direction::Forward;
    let mut scan = snapshot
        .scan(Table::Recent, &[], &[255; 8], direction)
        .unwrap();
    let mut left = BTreeSet::new();
    while let Some((key, _)) = scan.next().unwrap() {
        left.insert(key.to_vec());
    }
    left
}

#[test]
fn an_event_that_was_published_again_outlives_the_sweep_of_its_first_copy() {
    let (_dir, store) = store();
    write(&store, &[(0, 0, 100, play(1, 5))], 0);
    write(&store, &[(0, 9, 300, play(1, 5))], 0);
    let swept = sweep_all(&store, 0, 200);
    assert_eq!(swept.dropped, None);
    assert_eq!(ids(&read(&store, &request(&[0])).0), [1]);
    sweep_all(&store, 0, 400);
    assert!(read(&store, &request(&[0])).0.is_empty());
}

#[test]
fn a_sweep_is_bounded_and_the_next_one_goes_on() {
    let (_dir, store) = store();
    let mut offset = 0;
    for _ in 0..5 {
        let records: Vec<_> = (0..8_000)
            .map(|i| {
                offset += 1;
                (0, offset, 1, play(offset, i))
            })
            .collect();
        write(&store, &records, 0);
    }
    let mut rows = Vec::new();
    loop {
        let swept = sweep_all(&store, 0, 2);
        if swept.rows == 0 {
            break;
        }
        rows.push(swept.rows);
    }
    assert_eq!(rows, [24_000, 16_000]);
    assert!(read(&store, &request(&[0])).0.is_empty());
}

#[test]
fn dropping_a_partition_leaves_none_of_its_rows_and_all_of_the_others() {
    let (_dir, store) = store();
    write(&store, &[(0, 0, 1, play(1, 1)), (1, 0, 1, play(2, 2))], 0);
    store
        .drop_partition(Table::Recent, &super::keys::partition(0), 0)
        .unwrap();
    assert!(rows_left(&store).iter().all(|key| key[..4] == [0, 0, 0, 1]));
    assert_eq!(ids(&read(&store, &request(&[0, 1])).0), [2]);
    assert_eq!(store.position(Table::Recent, 0).unwrap(), None);
}
