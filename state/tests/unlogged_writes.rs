//! Writes without a log: lost with their position by a crash, kept by a flush or a clean close, never mixed with logged ones.

#![allow(clippy::unwrap_used)]

use std::env;
use std::process::Command;
use thmanyah_state::{Error, Options, Position, Store, Table, WriteSet};

const CHILD: &str = "THMANYAH_STATE_TEST_UNLOGGED_DIR";

fn position(offset: i64) -> Position {
    Position {
        offset,
        topic_id: [1; 16],
        fresh_at_ms: 5,
    }
}

fn write(store: &Store, key: &[u8], offset: i64) {
    let mut writes = WriteSet::new();
    writes.put(Table::Recent, key, b"row");
    writes.set_position(Table::Recent, 0, position(offset));
    store.apply_unlogged(&mut writes).unwrap();
    assert!(writes.is_empty());
}

fn has(store: &Store, key: &[u8]) -> bool {
    let row = store.get(Table::Recent, key, <[u8]>::len).unwrap();
    row.is_some()
}

#[test]
fn an_abort_loses_unflushed_rows_together_with_their_position() {
    if let Some(dir) = env::var_os(CHILD) {
        let store = Store::open(dir.as_ref(), &Options::default()).unwrap();
        write(&store, b"flushed", 1);
        store.flush(Table::Recent).unwrap();
        write(&store, b"lost", 2);
        assert_eq!(store.position(Table::Recent, 0).unwrap(), Some(position(2)));
        std::process::abort();
    }
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "an_abort_loses_unflushed_rows_together_with_their_position",
        ])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    assert!(!child.status.success());
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    assert_eq!(store.position(Table::Recent, 0).unwrap(), Some(position(1)));
    assert!(has(&store, b"flushed"));
    assert!(!has(&store, b"lost"));
}

#[test]
fn a_clean_close_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    write(&store, b"key", 1);
    drop(store);
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    assert_eq!(store.position(Table::Recent, 0).unwrap(), Some(position(1)));
    assert!(has(&store, b"key"));
}

#[test]
fn each_table_takes_one_kind_of_write_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut mixed = WriteSet::new();
    mixed.put(Table::Recent, b"a", b"");
    mixed.put(Table::Content, b"b", b"");
    for refused in [store.apply(&mut mixed), store.apply_unlogged(&mut mixed)] {
        assert!(matches!(refused, Err(Error::WrongApply { .. })));
        assert_eq!(mixed.len(), 2);
    }
    assert!(!has(&store, b"a"));
}
