//! A table loaded in bulk holds, whatever is cut off, the rows of exactly the position it reached.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use thmanyah_state::{BulkLoad, Direction, Error, Options, Position, Store, Table, WriteSet};

const CHILD: &str = "THMANYAH_STATE_TEST_BULK_DIR";
const ROWS_PER_SET: u64 = 50;
/// Sets applied through the log before the load begins.
const APPLIED: u64 = 20;
/// The child is killed after it has told of this many sets.
const TOLD: u64 = 60;

/// Keys of one set lie all over the table.
fn key(row: u64) -> [u8; 8] {
    row.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn rows_of_set(writes: &mut WriteSet, set: u64) {
    for row in set * ROWS_PER_SET..(set + 1) * ROWS_PER_SET {
        writes.put(Table::Content, &key(row), &row.to_be_bytes());
    }
    let position = Position {
        offset: set as i64 + 1,
        topic_id: [3; 16],
        fresh_at_ms: 0,
    };
    writes.set_position(Table::Content, 0, position);
}

fn load_until_killed(dir: &Path) {
    let store = Store::open(dir, &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    for set in 0..APPLIED {
        rows_of_set(&mut writes, set);
        store.apply(&mut writes).unwrap();
    }
    let mut load = BulkLoad::begin(&store, Table::Content).unwrap();
    for set in APPLIED.. {
        rows_of_set(&mut writes, set);
        load.ingest(&mut writes).unwrap();
        println!("SET {set}");
    }
}

#[test]
fn the_loader() {
    if let Some(dir) = env::var_os(CHILD) {
        load_until_killed(dir.as_ref());
    }
}

/// The number of sets in the table; panics when its rows are not exactly theirs.
fn sets(store: &Store) -> u64 {
    let position = store.position(Table::Content, 0).unwrap();
    let sets = position.map_or(0, |position| position.offset as u64);
    let snapshot = store.snapshot();
    let mut scan = snapshot
        .scan(Table::Content, &[], &[255; 9], Direction::Forward)
        .unwrap();
    let mut rows = Vec::new();
    while let Some((_, value)) = scan.next().unwrap() {
        rows.push(u64::from_be_bytes(value.try_into().unwrap()));
    }
    rows.sort_unstable();
    assert_eq!(rows, (0..sets * ROWS_PER_SET).collect::<Vec<_>>());
    sets
}

#[test]
fn a_killed_load_leaves_whole_sets_also_when_the_write_ahead_log_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_loader", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let last = format!("SET {TOLD}");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.any(|line| line.unwrap() == last);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told, "the loader ended before it was killed");
    // A loss of power may take all of a log that was never synced.
    for entry in fs::read_dir(dir.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "log") {
            fs::File::create(path).unwrap();
        }
    }
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let found = sets(&store);
    assert!(found > TOLD, "{found} sets of more than {TOLD}");
    // The next load begins over what the killed one left.
    let mut load = BulkLoad::begin(&store, Table::Content).unwrap();
    let mut writes = WriteSet::new();
    rows_of_set(&mut writes, found);
    load.ingest(&mut writes).unwrap();
    drop(load);
    assert_eq!(sets(&store), found + 1);
    rows_of_set(&mut writes, found + 1);
    store.apply(&mut writes).unwrap();
    assert_eq!(sets(&store), found + 2);
}

#[test]
fn the_last_write_of_a_key_wins_and_a_delete_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    writes.put(Table::Content, b"old", b"1");
    writes.put(Table::Content, b"gone", b"1");
    store.apply(&mut writes).unwrap();
    let mut load = BulkLoad::begin(&store, Table::Content).unwrap();
    writes.put(Table::Content, b"z", b"1");
    writes.put(Table::Content, b"old", b"2");
    writes.delete(Table::Content, b"gone");
    writes.put(Table::Content, b"a", b"1");
    writes.put(Table::Content, b"old", b"3");
    writes.delete(Table::Content, b"a");
    load.ingest(&mut writes).unwrap();
    load.ingest(&mut writes).unwrap();
    let read = |key: &[u8]| store.get(Table::Content, key, <[u8]>::to_vec).unwrap();
    assert_eq!(read(b"old"), Some(b"3".to_vec()));
    assert_eq!(read(b"z"), Some(b"1".to_vec()));
    assert_eq!((read(b"a"), read(b"gone")), (None, None));
}

#[test]
fn what_is_no_put_or_delete_of_the_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut load = BulkLoad::begin(&store, Table::Content).unwrap();
    let mut writes = WriteSet::new();
    writes.put(Table::Pending, b"k", b"v");
    assert!(matches!(
        load.ingest(&mut writes),
        Err(Error::WrongLoad {
            table: Table::Content
        })
    ));
    assert_eq!(writes.len(), 1);
}
