//! A checkpoint is a state directory like any other: the same rows, its own life, hard links instead of copies.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use thmanyah_state::{Direction, Error, Options, Position, Store, Table, WriteSet};

/// Rows, and partitions' positions.
type Contents = (Vec<(Vec<u8>, Vec<u8>)>, Vec<(i32, Position)>);

fn fill(store: &Store, from: u32, to: u32) {
    let mut writes = WriteSet::new();
    for (table, partition) in [(Table::Content, 0), (Table::Pending, 3)] {
        for i in from..to {
            writes.put(table, &i.to_be_bytes(), &[7; 100]);
        }
        let position = Position {
            offset: i64::from(to),
            topic_id: [1; 16],
            fresh_at_ms: 5,
        };
        writes.set_position(table, partition, position);
    }
    store.apply(&mut writes).unwrap();
    for i in from..to {
        writes.put(Table::Recent, &i.to_be_bytes(), b"recent");
    }
    store.apply_unlogged(&mut writes).unwrap();
}

fn contents(store: &Store) -> Vec<Contents> {
    let snapshot = store.snapshot();
    Table::ALL
        .map(|table| {
            let mut rows = Vec::new();
            let mut scan = snapshot
                .scan(table, &[], &[255; 9], Direction::Forward)
                .unwrap();
            while let Some((key, value)) = scan.next().unwrap() {
                rows.push((key.to_vec(), value.to_vec()));
            }
            (rows, store.positions(table).unwrap())
        })
        .to_vec()
}

/// Table files that share their bytes with another directory.
fn linked(dir: &Path) -> usize {
    fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "sst"))
        .filter(|entry| entry.metadata().unwrap().nlink() > 1)
        .count()
}

#[test]
fn a_store_opened_from_a_checkpoint_is_the_same_and_lives_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (home, copy) = (dir.path().join("home"), dir.path().join("deep/copy"));
    let store = Store::open(&home, &Options::default()).unwrap();
    fill(&store, 0, 5_000);
    let before = contents(&store);
    store.checkpoint(&copy).unwrap();
    assert!(linked(&copy) > 0, "the files are links");
    fill(&store, 2_000, 9_000);
    assert_ne!(contents(&store), before);

    // Both are open at once.
    let other = Store::open(&copy, &Options::default()).unwrap();
    assert_eq!(contents(&other), before);
    fill(&other, 5_000, 5_001);
    let after = contents(&store);
    drop(other);
    drop(store);
    let store = Store::open(&home, &Options::default()).unwrap();
    assert_eq!(contents(&store), after);
}

#[test]
fn a_directory_that_is_there_is_not_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home"), &Options::default()).unwrap();
    let there = dir.path().join("there");
    fs::create_dir(&there).unwrap();
    let refused = store.checkpoint(&there).unwrap_err();
    assert!(
        matches!(&refused, Error::Occupied { dir } if *dir == there),
        "{refused}"
    );
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
}
