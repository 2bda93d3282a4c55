//! A store opened to be read: nothing is made or changed, and it is refused while a process has it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use thmanyah_state::{Error, Options, Store, Table, WriteSet};

/// Every file with its length.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for folder in [dir.to_owned(), dir.join("db")] {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let length = entry.metadata().unwrap().len();
            if entry.path().is_file() {
                found.insert(entry.path().display().to_string(), length);
            }
        }
    }
    found
}

#[test]
fn what_is_in_the_write_ahead_log_alone_is_read_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    writes.put(Table::Content, b"k", b"v");
    store.apply(&mut writes).unwrap();
    let refused = Store::open_read_only(dir.path(), &Options::default()).unwrap_err();
    assert!(
        matches!(refused, Error::Locked { pid: Some(_), .. }),
        "{refused}"
    );
    drop(store);

    let before = files(dir.path());
    let store = Store::open_read_only(dir.path(), &Options::default()).unwrap();
    let found = store.get(Table::Content, b"k", <[u8]>::to_vec).unwrap();
    assert_eq!(found, Some(b"v".to_vec()));
    writes.put(Table::Content, b"k", b"other");
    store.apply(&mut writes).unwrap_err();
    let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    drop(store);
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_directory_without_state_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for missing in [dir.path().to_owned(), dir.path().join("nothing")] {
        let refused = Store::open_read_only(&missing, &Options::default()).unwrap_err();
        assert!(
            matches!(&refused, Error::Missing { dir } if *dir == missing),
            "{refused}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
