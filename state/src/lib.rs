//! The local store: tables of rows with the positions they cover, in one `RocksDB`. Knows neither Kafka nor the domain.
//!
//! # What it promises
//!
//! - A table holds rows, and for each partition a [`Position`]: up to where a log has been folded into the rows. Both
//!   live in one column family, so rows and position are written, lost and read together.
//! - [`Store::apply`] is atomic over all tables. After a crash of the process everything applied is there; after a loss
//!   of power an older prefix of the writes is.
//! - [`Store::apply_unlogged`] is atomic for the one table that takes it, [`Table::Recent`]. A crash loses a suffix of the
//!   writes, each with its position.
//! - A [`BulkLoad`] takes in whole sorted files, each atomic and on disk at once; it begins with a flush of its table.
//! - Nothing is ever wiped: what cannot be opened is refused with an [`Error`] that says what to do.
//!
//! # On disk
//!
//! `DIR/LOCK` (held while open), `DIR/FORMAT` (version and checksum), `DIR/db/` (`RocksDB`), `DIR/loading/` (files of a bulk
//! load on their way into it). Anything else in `DIR` is not
//! ours and left alone. In a column family, key `00` + partition is a position and `01` + key is a row.

mod bulk;
mod directory;
mod error;
mod format;
mod keys;
mod options;
mod position;
mod rocks;
mod store;
mod table;
mod tables;
mod write_set;

pub use bulk::BulkLoad;
pub use error::Error;
pub use format::VERSION as FORMAT;
pub use options::Options;
pub use position::Position;
pub use store::{Direction, Row, Scan, Snapshot, Store};
pub use table::Table;
pub use tables::{Moment, Rows, Tables};
pub use write_set::{Write, WriteSet};
