//! Why the store cannot be opened, read or written, told so that an operator can act on it.

use crate::table::Table;
use std::io;
use std::path::PathBuf;

/// An error of the store. None of them ever leads to anything being deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be made or written.
    #[error("state directory {} cannot be written: {source}; check that it exists and belongs to this user", dir.display())]
    Unwritable {
        /// The state directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("state directory {} is in use by another process{}; stop that one, or give this one a directory of its own", dir.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The process that has it, where it left its number.
        pid: Option<u32>,
    },
    /// No database is there.
    #[error("{} holds no state: no process has run with this directory, or it is not the one meant", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A checkpoint would mix with what is there.
    #[error("{} is there already; name a directory that is not", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory was written by a newer release.
    #[error("state directory {} has format {found}, this program knows formats up to {known}; start a newer release, or move the directory away and let it be rebuilt", dir.display())]
    NewerFormat {
        /// The state directory.
        dir: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// The file that names the format is damaged.
    #[error("{} is damaged ({detail}); move the state directory away and let it be rebuilt", file.display())]
    CorruptFormat {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A database is there, but nothing says that it is ours.
    #[error("{} holds a database without a FORMAT file beside it, so it was not made by this program; use another state directory", dir.display())]
    Foreign {
        /// The database's directory.
        dir: PathBuf,
    },
    /// A file of the database is damaged.
    #[error("the database in {} is damaged: {detail}; move the state directory away and let it be rebuilt", dir.display())]
    Corrupt {
        /// The database's directory.
        dir: PathBuf,
        /// What `RocksDB` found.
        detail: String,
    },
    /// The disk is full.
    #[error("the disk of {} is full: {detail}; make room and start again, nothing is lost", dir.display())]
    DiskFull {
        /// The database's directory.
        dir: PathBuf,
        /// What `RocksDB` said.
        detail: String,
    },
    /// Any other failure of the database.
    #[error("the database in {} failed: {detail}", dir.display())]
    Failed {
        /// The database's directory.
        dir: PathBuf,
        /// What `RocksDB` said.
        detail: String,
    },
    /// A write set holds what a bulk load does not take.
    #[error("a bulk load of table {} takes puts and deletes of that table alone", table.name())]
    WrongLoad {
        /// The table that is loaded.
        table: Table,
    },
    /// A write set went to the wrong kind of apply.
    #[error("table {} went to the apply for {} tables", table.name(), if *logged { "logged" } else { "unlogged" })]
    WrongApply {
        /// A table in the set that the call does not take.
        table: Table,
        /// Whether the call takes logged tables.
        logged: bool,
    },
}
