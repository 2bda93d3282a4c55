//! A writer that is killed leaves, for each table, the rows of exactly the position it reached.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use thmanyah_state::{Direction, Options, Position, Store, Table, WriteSet};

const CHILD: &str = "THMANYAH_STATE_TEST_KILL_DIR";
const ROWS_PER_SET: i64 = 3;
/// Recent is flushed once, after this many sets.
const FLUSHED: i64 = 50;
/// The child is killed after it has told of this many sets.
const TOLD: i64 = 200;

fn rows_of_set(writes: &mut WriteSet, table: Table, set: i64) {
    for row in 0..ROWS_PER_SET {
        writes.put(table, &(set * ROWS_PER_SET + row).to_be_bytes(), b"row");
    }
    let position = Position {
        offset: set + 1,
        topic_id: [3; 16],
        fresh_at_ms: set,
    };
    writes.set_position(table, 0, position);
}

/// Writes sets without end, telling of each.
fn write_until_killed(dir: &Path) {
    let store = Store::open(dir, &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    for set in 0.. {
        rows_of_set(&mut writes, Table::Content, set);
        rows_of_set(&mut writes, Table::Pending, set);
        store.apply(&mut writes).unwrap();
        rows_of_set(&mut writes, Table::Recent, set);
        store.apply_unlogged(&mut writes).unwrap();
        if set + 1 == FLUSHED {
            store.flush(Table::Recent).unwrap();
        }
        println!("SET {set}");
    }
}

/// The number of sets a table holds; panics when its rows are not exactly theirs.
fn sets(store: &Store, table: Table) -> i64 {
    let position = store.position(table, 0).unwrap();
    let sets = position.map_or(0, |position| position.offset);
    let snapshot = store.snapshot();
    let mut scan = snapshot
        .scan(table, &[], &[255; 9], Direction::Forward)
        .unwrap();
    let mut rows = 0i64;
    while let Some((key, _)) = scan.next().unwrap() {
        assert_eq!(key, rows.to_be_bytes(), "{table:?}");
        rows += 1;
    }
    assert_eq!(rows, sets * ROWS_PER_SET, "{table:?}");
    sets
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A directory whose writer was killed after [`TOLD`] sets.
fn killed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_writer", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let last = format!("SET {TOLD}");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.any(|line| line.unwrap() == last);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told, "the writer ended before it was killed");
    dir
}

#[test]
fn the_writer() {
    if let Some(dir) = env::var_os(CHILD) {
        write_until_killed(dir.as_ref());
    }
}

#[test]
fn after_a_kill_nothing_that_was_applied_is_missing_and_rows_agree_with_positions() {
    let dir = killed();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let content = sets(&store, Table::Content);
    assert!(content > TOLD, "{content} sets of more than {TOLD}");
    assert_eq!(sets(&store, Table::Pending), content);
    let recent = sets(&store, Table::Recent);
    assert!((FLUSHED..=content).contains(&recent), "{recent}");
}

#[test]
fn a_log_cut_anywhere_leaves_an_older_prefix_of_whole_sets() {
    let dir = killed();
    let log = fs::read_dir(dir.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension() == Some(OsStr::new("log")))
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let len = log.metadata().unwrap().len();
    let mut last = 0;
    for tenth in 0..=10 {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let log = copied.path().join("db").join(log.file_name());
        let file = fs::OpenOptions::new().write(true).open(log).unwrap();
        file.set_len(len * tenth / 10).unwrap();
        let store = Store::open(copied.path(), &Options::default()).unwrap();
        let content = sets(&store, Table::Content);
        assert_eq!(sets(&store, Table::Pending), content);
        sets(&store, Table::Recent);
        assert!(content >= last);
        last = content;
    }
    assert!(last > TOLD);
}
