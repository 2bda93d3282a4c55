//! A directory that format 1 was first written as still opens and reads. The fixture comes from
//! `examples/write_fixture.rs`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use thmanyah_state::{Options, Position, Store, Table};

#[test]
fn a_directory_of_format_1_opens_and_reads() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::copy(fixture.join("FORMAT"), dir.path().join("FORMAT")).unwrap();
    for entry in fs::read_dir(fixture.join("db")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("db").join(entry.file_name())).unwrap();
    }
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    for (offset, table) in (1..).zip(Table::ALL) {
        let get = |key: &[u8]| store.get(table, key, <[u8]>::to_vec).unwrap();
        assert_eq!(get(b"key"), Some(table.name().as_bytes().to_vec()));
        assert_eq!(get(b"deleted"), None);
        let position = Position {
            offset,
            topic_id: *b"0123456789abcdef",
            fresh_at_ms: 1_735_734_600_000,
        };
        assert_eq!(store.positions(table).unwrap(), [(7, position)]);
    }
    let logged = store
        .get(Table::Content, b"logged", <[u8]>::to_vec)
        .unwrap();
    assert_eq!(logged.as_deref(), Some(b"only".as_slice()));
}
