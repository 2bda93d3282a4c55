//! A state directory has one owner at a time.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::env;
use std::process::Command;
use thmanyah_state::{Error, Options, Store};

const CHILD: &str = "THMANYAH_STATE_TEST_LOCK_DIR";

#[test]
fn a_second_opener_in_the_same_process_is_refused_until_the_last_clone_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let clone = store.clone();
    drop(store);
    let refused = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(
        matches!(&refused, Error::Locked { dir: named, pid: Some(pid) } if named == dir.path() && *pid == std::process::id()),
        "{refused}"
    );
    drop(clone);
    Store::open(dir.path(), &Options::default()).unwrap();
}

#[test]
fn another_process_is_told_the_directory_and_who_has_it() {
    if let Some(dir) = env::var_os(CHILD) {
        let refused = Store::open(dir.as_ref(), &Options::default()).unwrap_err();
        println!("REFUSED {refused}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path(), &Options::default()).unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "another_process_is_told_the_directory_and_who_has_it",
            "--nocapture",
        ])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    let expected = format!(
        "REFUSED state directory {} is in use by another process (pid {})",
        dir.path().display(),
        std::process::id()
    );
    assert!(said.contains(&expected), "{said}");
}
