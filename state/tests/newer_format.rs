//! A directory of a newer release is refused and left as it is.

#![allow(clippy::unwrap_used)]

use std::fs;
use thmanyah_state::{Error, Options, Store, Table, WriteSet};
use xxhash_rust::xxh3::xxh3_64;

#[test]
fn a_newer_format_is_refused_by_name_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    writes.put(Table::Content, b"key", b"value");
    store.apply(&mut writes).unwrap();
    drop(store);
    let file = dir.path().join("FORMAT");
    let old = fs::read(&file).unwrap();
    let head = "thmanyah-state 2";
    let newer = format!("{head} {:016x}\n", xxh3_64(head.as_bytes()));
    fs::write(&file, &newer).unwrap();
    let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(fs::read(&file).unwrap(), newer.as_bytes());
    fs::write(&file, old).unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let value = store.get(Table::Content, b"key", <[u8]>::to_vec).unwrap();
    assert_eq!(value.as_deref(), Some(b"value".as_slice()));
}
