//! Simulated disks made of real stores: what a dying process leaves is a copy of its files, with the end of the write-ahead log
//! cut off.

use super::schedule::Loss;
use super::store::{Kind, Memory};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use thmanyah_state::{Options, Store};

/// Bytes of the log that one lost set stands for.
const SET_BYTES: u64 = 150;

/// A store in a directory of its own.
#[derive(Clone)]
pub(super) struct Rocks {
    /// The store.
    pub(super) store: Store,
    dir: Arc<TempDir>,
}

fn options() -> Options {
    Options {
        block_cache_bytes: 4 << 20,
        memtable_bytes: 4 << 20,
        ..Options::default()
    }
}

impl Rocks {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self::open(dir)
    }

    fn open(dir: TempDir) -> Self {
        let store = Store::open(dir.path(), &options()).expect("what is left of a store opens");
        Self {
            store,
            dir: Arc::new(dir),
        }
    }

    /// What is left of the files when the process dies now and so much of the log was not on the disk yet.
    fn remains(&self, lost_bytes: u64) -> Self {
        let dir = copy_still(self.dir.path());
        if let Some((path, length)) = last_log(&dir.path().join("db")) {
            let file = fs::OpenOptions::new().write(true).open(path);
            let file = file.expect("the copy can be written");
            file.set_len(length.saturating_sub(lost_bytes))
                .expect("the copy can be cut");
        }
        Self::open(dir)
    }
}

/// Copies a store that works on in the background: again, when a flush or a compaction changed its files meanwhile.
fn copy_still(from: &Path) -> TempDir {
    loop {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let before = tables(from);
        if copy(from, dir.path()) && tables(from) == before {
            return dir;
        }
    }
}

/// The names and lengths of a store's files, logs apart, which only grow.
fn tables(dir: &Path) -> BTreeMap<OsString, u64> {
    let entries = fs::read_dir(dir.join("db")).expect("the directory is there");
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let is_log = name.to_string_lossy().to_ascii_lowercase().contains("log");
            (!is_log).then_some((name, entry.metadata().ok()?.len()))
        })
        .collect()
}

/// Says whether every file was there until it was copied.
fn copy(from: &Path, to: &Path) -> bool {
    let mut whole = true;
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("its entries can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("a directory can be made");
            whole &= copy(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            whole &= fs::copy(entry.path(), target).is_ok();
        }
    }
    whole
}

/// The newest write-ahead log and its length.
fn last_log(dir: &Path) -> Option<(PathBuf, u64)> {
    let logs = fs::read_dir(dir).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let length = path.metadata().ok()?.len();
        (path.extension()? == "log").then_some((path, length))
    });
    logs.max()
}

impl Kind {
    /// A disk with a real store.
    pub(super) fn new_rocks() -> Self {
        Self::Rocks(Rocks::new())
    }

    /// An empty disk of the same kind.
    pub(super) fn another(&self) -> Self {
        match self {
            Self::Memory(_) => Self::Memory(Memory::default()),
            Self::Rocks(_) => Self::new_rocks(),
        }
    }

    /// What a dead process leaves; says what was lost.
    pub(super) fn lose(&mut self, loss: Loss) -> Option<&'static str> {
        match (&*self, loss) {
            (_, Loss::Disk) => {
                *self = self.another();
                Some("local disk lost")
            }
            (Self::Memory(_), Loss::Nothing) => None,
            (Self::Memory(memory), Loss::Sets(sets)) => {
                (memory.fall_back(sets) > 0).then_some("power loss took writes back")
            }
            (Self::Rocks(rocks), loss) => {
                let sets = match loss {
                    Loss::Sets(sets) => sets as u64,
                    _ => 0,
                };
                *self = Self::Rocks(rocks.remains(sets * SET_BYTES));
                (sets > 0).then_some("power loss took writes back")
            }
        }
    }
}
