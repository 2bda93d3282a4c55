//! What is not ours in or around the directory.

#![allow(clippy::unwrap_used)]

use std::fs;
use thmanyah_state::{Error, Options, Store};

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("lost+found/inode"), b"kept").unwrap();
    fs::write(dir.path().join("notes.txt"), b"kept").unwrap();
    for _ in 0..2 {
        Store::open(dir.path(), &Options::default()).unwrap();
    }
    for file in ["lost+found/inode", "notes.txt"] {
        assert_eq!(fs::read(dir.path().join(file)).unwrap(), b"kept");
    }
}

#[test]
fn a_database_without_a_format_file_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), &Options::default()).unwrap());
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
    assert!(!dir.path().join("FORMAT").exists());
}

#[test]
fn a_missing_directory_is_made_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(&dir.path().join("a/b/c"), &Options::default()).unwrap();
}

#[test]
fn a_path_below_a_file_is_unwritable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let path = dir.path().join("file/state");
    let refused = Store::open(&path, &Options::default()).unwrap_err();
    assert!(
        matches!(&refused, Error::Unwritable { dir, .. } if *dir == path),
        "{refused}"
    );
}

#[test]
fn a_creation_that_was_cut_short_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), &Options::default()).unwrap());
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/IDENTITY"), b"half").unwrap();
    fs::write(dir.path().join("db/MANIFEST-000001"), b"half").unwrap();
    Store::open(dir.path(), &Options::default()).unwrap();
}
