//! The state directory: made, locked, and checked before the database in it is touched.

use crate::error::Error;
use crate::format;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A locked state directory. The lock goes with the value.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The directory itself.
    pub(crate) path: PathBuf,
    /// Where the database lives.
    pub(crate) database: PathBuf,
    /// Whether a database is there already.
    pub(crate) has_database: bool,
    _lock: Lock,
}

/// The lock on a state directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Let go by name: a process that is forked meanwhile holds the file too until it becomes another program, and closing ours
    /// would leave the directory locked for so long.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Makes the directory if it is missing, locks it, and checks its format.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let unwritable = |source| Error::Unwritable {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(unwritable)?;
        let lock = lock(dir)?;
        let database = dir.join("db");
        let has_database = has_database(&database).map_err(unwritable)?;
        if !format::check(dir)? {
            if has_database {
                return Err(Error::Foreign { dir: database });
            }
            // IMPORTANT: before the database is made, so that a database without the file is known not to be ours.
            format::write(dir).map_err(unwritable)?;
        }
        fs::create_dir_all(&database).map_err(unwritable)?;
        Ok(Self {
            path: dir.to_owned(),
            database,
            has_database,
            _lock: lock,
        })
    }

    /// Locks a directory that holds a database, and checks its format. Nothing is written.
    pub(crate) fn open_existing(dir: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unwritable {
            dir: dir.to_owned(),
            source,
        };
        let database = dir.join("db");
        if !has_database(&database).map_err(unreadable)? {
            return Err(Error::Missing {
                dir: dir.to_owned(),
            });
        }
        let mut file = match File::open(dir.join(LOCK)) {
            Ok(file) => file,
            // A copy may come without it, and then nobody has it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::open(dir).map_err(unreadable)?,
            Err(e) => return Err(unreadable(e)),
        };
        take(&mut file, dir)?;
        if !format::check(dir)? {
            return Err(Error::Foreign { dir: database });
        }
        Ok(Self {
            path: dir.to_owned(),
            database,
            has_database: true,
            _lock: Lock(file),
        })
    }

    /// Makes a directory of this format without a database, and says where that belongs.
    pub(crate) fn create_empty(dir: &Path) -> Result<PathBuf, Error> {
        let unwritable = |source| Error::Unwritable {
            dir: dir.to_owned(),
            source,
        };
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(unwritable)?;
        }
        fs::create_dir(dir).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Occupied {
                dir: dir.to_owned(),
            },
            _ => unwritable(source),
        })?;
        format::write(dir).map_err(unwritable)?;
        Ok(dir.join("db"))
    }
}

/// Name of the file that is locked.
const LOCK: &str = "LOCK";

/// Takes the lock and leaves this process's number in it for whoever comes next.
fn lock(dir: &Path) -> Result<Lock, Error> {
    let unwritable = |source| Error::Unwritable {
        dir: dir.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK))
        .map_err(unwritable)?;
    take(&mut file, dir)?;
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(unwritable)?;
    Ok(Lock(file))
}

/// Locks the file, or tells who has it.
fn take(file: &mut File, dir: &Path) -> Result<(), Error> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(Error::Locked {
                dir: dir.to_owned(),
                pid: holder.trim().parse().ok(),
            })
        }
        Err(e) => Err(Error::Unwritable {
            dir: dir.to_owned(),
            source: e.into(),
        }),
    }
}

/// Whether the folder holds a database: a `CURRENT`, a table file or a log. `RocksDB` makes those last, so other files are
/// left over from a creation that was cut short.
fn has_database(database: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(database) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        let extension = Path::new(&name).extension().and_then(OsStr::to_str);
        if name == "CURRENT" || matches!(extension, Some("sst" | "log")) {
            return Ok(true);
        }
    }
    Ok(false)
}
