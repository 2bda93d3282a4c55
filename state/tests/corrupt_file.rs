//! A damaged file is reported as such: never read as something else, never wiped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use thmanyah_state::{Direction, Error, Options, Store, Table, WriteSet};

const ROWS: u32 = 2_000;

fn value(i: u32) -> Vec<u8> {
    // Not compressible, so that the table file holds it at full length.
    (0..40u32)
        .map(|j| (i.wrapping_mul(2_654_435_761).rotate_left(j) >> 7) as u8)
        .collect()
}

/// A closed directory whose rows are in a table file.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let mut writes = WriteSet::new();
    for i in 0..ROWS {
        writes.put(Table::Content, &i.to_be_bytes(), &value(i));
    }
    store.apply(&mut writes).unwrap();
    store.flush(Table::Content).unwrap();
    dir
}

fn find(dir: &Path, matches: impl Fn(&Path) -> bool) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| matches(path)).unwrap()
}

fn begins(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| name.starts_with(prefix))
}

/// Opens and reads everything: the rows as written, or the first error.
fn read_all(dir: &Path) -> Result<(), Error> {
    let store = Store::open(dir, &Options::default())?;
    let snapshot = store.snapshot();
    let mut scan = snapshot.scan(Table::Content, &[], &[255; 5], Direction::Forward)?;
    let mut rows = 0u32;
    while let Some((key, found)) = scan.next()? {
        assert_eq!(key, rows.to_be_bytes());
        assert_eq!(found, value(rows));
        rows += 1;
    }
    assert_eq!(rows, ROWS);
    Ok(())
}

#[test]
fn flipped_bytes_in_a_table_file_are_found() {
    let dir = filled();
    let table = find(dir.path(), |path| {
        path.extension() == Some(OsStr::new("sst"))
    });
    let good = fs::read(&table).unwrap();
    let mut found = 0;
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&table, &bad).unwrap();
        match read_all(dir.path()) {
            // A byte that nothing reads, as in a filter's padding, may be any.
            Ok(()) => {}
            Err(Error::Corrupt { .. }) => found += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(found >= 30, "{found} of 40 were found");
    fs::write(&table, &good).unwrap();
    read_all(dir.path()).unwrap();
}

#[test]
fn a_damaged_or_missing_manifest_is_found_and_nothing_is_begun_anew() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("CURRENT", |path| {
            fs::write(path, b"MANIFEST-999999\n").unwrap();
        }),
        ("CURRENT", |path| fs::write(path, b"nonsense").unwrap()),
        ("CURRENT", |path| fs::remove_file(path).unwrap()),
        ("MANIFEST-", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            fs::write(path, bytes).unwrap();
        }),
        ("MANIFEST-", |path| fs::remove_file(path).unwrap()),
    ];
    for (i, (file, damage)) in damages.into_iter().enumerate() {
        let dir = filled();
        let table = find(dir.path(), |path| {
            path.extension() == Some(OsStr::new("sst"))
        });
        damage(&find(dir.path(), |path| begins(path, file)));
        let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
        assert!(
            matches!(refused, Error::Corrupt { .. }),
            "damage {i} to {file}: {refused}"
        );
        assert!(table.exists(), "damage {i}: the rows were deleted");
    }
}

#[test]
fn a_missing_table_file_is_found() {
    let dir = filled();
    fs::remove_file(find(dir.path(), |path| {
        path.extension() == Some(OsStr::new("sst"))
    }))
    .unwrap();
    let refused = read_all(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[test]
fn a_damaged_format_file_is_named() {
    let dir = filled();
    let format = dir.path().join("FORMAT");
    for damage in [
        b"".as_slice(),
        b"thmanyah-state 1\n",
        b"\xff\xfe",
        b"thmanyah-state 1 0000000000000000\n",
    ] {
        fs::write(&format, damage).unwrap();
        let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
        assert!(
            matches!(&refused, Error::CorruptFormat { file, .. } if *file == format),
            "{refused}"
        );
        assert_eq!(fs::read(&format).unwrap(), damage);
    }
}
