//! A snapshot shows one moment, over all tables, whatever is written after it.

#![allow(clippy::unwrap_used)]

use thmanyah_state::{Direction, Options, Position, Store, Table, WriteSet};

fn position(offset: i64) -> Position {
    Position {
        offset,
        topic_id: [9; 16],
        fresh_at_ms: 0,
    }
}

fn rows(store: &Store, start: &[u8], end: &[u8], direction: Direction) -> Vec<Vec<u8>> {
    let snapshot = store.snapshot();
    let mut scan = snapshot
        .scan(Table::Content, start, end, direction)
        .unwrap();
    let mut keys = Vec::new();
    while let Some((key, _)) = scan.next().unwrap() {
        keys.push(key.to_vec());
    }
    // Past the end the scan stays there.
    assert!(scan.next().unwrap().is_none());
    keys
}

#[test]
fn later_writes_deletes_and_drops_do_not_show_in_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    writes.put(Table::Content, b"a", b"1");
    writes.put(Table::Pending, b"b", b"2");
    writes.set_position(Table::Content, 0, position(1));
    store.apply(&mut writes).unwrap();
    assert!(writes.is_empty());

    let snapshot = store.snapshot();
    writes.put(Table::Content, b"a", b"changed");
    writes.put(Table::Content, b"new", b"3");
    writes.delete(Table::Pending, b"b");
    writes.set_position(Table::Content, 0, position(2));
    store.apply(&mut writes).unwrap();
    store.drop_partition(Table::Content, b"a", 0).unwrap();

    let get = |table, key: &[u8]| snapshot.get(table, key, <[u8]>::to_vec).unwrap();
    assert_eq!(get(Table::Content, b"a"), Some(b"1".to_vec()));
    assert_eq!(get(Table::Content, b"new"), None);
    assert_eq!(get(Table::Pending, b"b"), Some(b"2".to_vec()));
    assert_eq!(
        snapshot.position(Table::Content, 0).unwrap(),
        Some(position(1))
    );
    assert_eq!(store.get(Table::Content, b"a", <[u8]>::len).unwrap(), None);
    assert_eq!(store.position(Table::Content, 0).unwrap(), None);
    assert_eq!(
        store.get(Table::Content, b"new", <[u8]>::to_vec).unwrap(),
        Some(b"3".to_vec())
    );
}

#[test]
fn a_scan_gives_its_range_in_either_direction_and_never_a_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    for key in ["", "a", "b", "c", "d"] {
        writes.put(Table::Content, key.as_bytes(), b"");
    }
    for partition in [0, 1, i32::MAX] {
        writes.set_position(Table::Content, partition, position(7));
    }
    store.apply(&mut writes).unwrap();
    assert_eq!(
        rows(&store, b"a", b"c", Direction::Forward),
        [b"a".to_vec(), b"b".to_vec()]
    );
    assert_eq!(
        rows(&store, b"b", b"\xff", Direction::Backward),
        [b"d".to_vec(), b"c".to_vec(), b"b".to_vec()]
    );
    assert_eq!(rows(&store, b"", b"\xff", Direction::Forward).len(), 5);
    assert_eq!(rows(&store, b"", b"\xff", Direction::Backward).len(), 5);
    for (start, end) in [(b"b", b"b"), (b"c", b"a")] {
        for direction in [Direction::Forward, Direction::Backward] {
            assert!(rows(&store, start, end, direction).is_empty());
        }
    }
    let positions = store.positions(Table::Content).unwrap();
    assert_eq!(
        positions,
        [0, 1, i32::MAX].map(|partition| (partition, position(7)))
    );
    assert!(store.positions(Table::Pending).unwrap().is_empty());
}

#[test]
fn dropping_a_partition_leaves_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    for partition in [0i32, 1, 255, 256] {
        let key = [partition.to_be_bytes().as_slice(), b"row"].concat();
        writes.put(Table::Pending, &key, b"");
        writes.set_position(Table::Pending, partition, position(1));
    }
    store.apply(&mut writes).unwrap();
    store
        .drop_partition(Table::Pending, &255i32.to_be_bytes(), 255)
        .unwrap();
    let left: Vec<i32> = store
        .positions(Table::Pending)
        .unwrap()
        .into_iter()
        .map(|(partition, _)| partition)
        .collect();
    assert_eq!(left, [0, 1, 256]);
    for partition in [0i32, 1, 255, 256] {
        let key = [partition.to_be_bytes().as_slice(), b"row"].concat();
        let row = store.get(Table::Pending, &key, <[u8]>::len).unwrap();
        assert_eq!(row.is_some(), partition != 255, "{partition}");
    }
}
