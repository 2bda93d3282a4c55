//! Tables, positions and snapshots over the database.

use crate::directory::Directory;
use crate::error::Error;
use crate::keys::{self, RowKey};
use crate::options::Options;
use crate::position::Position;
pub use crate::rocks::Row;
use crate::rocks::{Cursor, Database, View};
use crate::table::Table;
use crate::write_set::WriteSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The store of one state directory, which is locked while any clone of it lives.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    // IMPORTANT: declared before the directory, so that the database is closed before the lock is let go.
    database: Database,
    directory: Directory,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store")
            .field(&self.database().path())
            .finish()
    }
}

impl Store {
    /// Opens the store in a directory, which is made if it is missing. Files in it that are not ours are left alone.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let directory = Directory::open(dir)?;
        let database = Database::open(dir, &directory, options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                directory,
            }),
        })
    }

    /// Opens a store that is there, to read it: nothing is made or changed, and every write fails. The directory is locked all
    /// the same.
    pub fn open_read_only(dir: &Path, options: &Options) -> Result<Self, Error> {
        let directory = Directory::open_existing(dir)?;
        let database = Database::open_read_only(dir, &directory, options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                directory,
            }),
        })
    }

    /// Makes a state directory of its own out of hard links to the files of this one, as it is now. It takes no room until
    /// files here are replaced, costs no more than a flush, and can be opened, copied or moved like any other.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        let target = Directory::create_empty(dir)?;
        self.database().checkpoint(&target)
    }

    /// Reads a row in place.
    pub fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        self.database().get(table, RowKey::new(key).as_ref(), read)
    }

    /// The position of a partition in a table.
    pub fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        self.database()
            .get(table, &keys::position(partition), Position::decode)?
            .map(|position| position.ok_or_else(|| self.bad_position(table)))
            .transpose()
    }

    /// Every position in a table, by partition.
    pub fn positions(&self, table: Table) -> Result<Vec<(i32, Position)>, Error> {
        let view = self.database().view();
        let mut cursor = view.cursor(table, &[keys::POSITION], &[keys::ROW])?;
        cursor.seek_first();
        let mut positions = Vec::new();
        while let Some((key, value)) = cursor.item()? {
            let position = keys::partition_of(key).zip(Position::decode(value));
            positions.push(position.ok_or_else(|| self.bad_position(table))?);
            cursor.forward();
        }
        Ok(positions)
    }

    /// Applies a set of writes to logged tables: all of them or none, and what a crash of the process cannot lose. The set
    /// comes back empty; after an error it is as it was.
    pub fn apply(&self, writes: &mut WriteSet) -> Result<(), Error> {
        self.write(writes, true)
    }

    /// Applies a set of writes to [`Table::Recent`] without logging them: all of them or none, but a crash loses what was not
    /// flushed yet, rows with their positions. Sort the writes by key: that is much cheaper. The set comes back empty.
    pub fn apply_unlogged(&self, writes: &mut WriteSet) -> Result<(), Error> {
        self.write(writes, false)
    }

    /// Deletes the position of a partition and all rows whose keys begin with `prefix`, at once.
    pub fn drop_partition(&self, table: Table, prefix: &[u8], partition: i32) -> Result<(), Error> {
        let start = RowKey::new(prefix);
        // There is an end, because the tag in front is no 255.
        let end = keys::after_prefix(start.as_ref()).unwrap_or_default();
        self.database()
            .delete_range_and(table, (start.as_ref(), &end), &keys::position(partition))
    }

    /// A read view of this moment, over all tables. Long-lived ones keep deleted rows on disk.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            store: self,
            view: self.database().view(),
        }
    }

    /// Writes what a table holds in memory to disk.
    pub fn flush(&self, table: Table) -> Result<(), Error> {
        self.database().flush(table)
    }

    /// About how many rows a table has, positions included. 0 when the database cannot tell.
    pub fn estimated_rows(&self, table: Table) -> u64 {
        self.database().estimated_keys(table).unwrap_or(0)
    }

    /// Bytes of the database's files.
    pub fn disk_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.database().path()) else {
            return 0;
        };
        entries
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Bytes of a table's files; what is in memory only is left out.
    pub fn table_bytes(&self, table: Table) -> u64 {
        self.database().file_bytes(table).unwrap_or(0)
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.directory.path
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    fn write(&self, writes: &mut WriteSet, logged: bool) -> Result<(), Error> {
        if let Some(table) = writes.tables().find(|table| table.is_logged() != logged) {
            return Err(Error::WrongApply { table, logged });
        }
        if !writes.is_empty() {
            self.database().write(writes, logged)?;
            writes.clear();
        }
        Ok(())
    }

    fn bad_position(&self, table: Table) -> Error {
        Error::Corrupt {
            dir: self.database().path().to_owned(),
            detail: format!("a position in table {} cannot be read", table.name()),
        }
    }
}

/// A read view of one moment.
pub struct Snapshot<'s> {
    store: &'s Store,
    view: View<'s>,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    Forward,
    /// From the largest key down.
    Backward,
}

impl Snapshot<'_> {
    /// Reads a row in place.
    pub fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        self.view.get(table, RowKey::new(key).as_ref(), read)
    }

    /// The position of a partition in a table.
    pub fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        self.view
            .get(table, &keys::position(partition), Position::decode)?
            .map(|position| position.ok_or_else(|| self.store.bad_position(table)))
            .transpose()
    }

    /// Walks the rows from `start` (in) to `end` (out). A range the wrong way round is empty.
    pub fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Scan<'_>, Error> {
        let (start, end) = (RowKey::new(start), RowKey::new(end));
        let mut cursor = self.view.cursor(table, start.as_ref(), end.as_ref())?;
        let state = if start.as_ref() >= end.as_ref() {
            State::Done
        } else {
            match direction {
                Direction::Forward => cursor.seek_first(),
                Direction::Backward => cursor.seek_last(),
            }
            State::AtNext
        };
        Ok(Scan {
            cursor,
            direction,
            state,
        })
    }
}

/// A cursor over rows, which are lent until the next step.
pub struct Scan<'s> {
    cursor: Cursor<'s>,
    direction: Direction,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The cursor stands on the row to give next.
    AtNext,
    /// The cursor stands on the row that was given last.
    AtGiven,
    Done,
}

impl Scan<'_> {
    /// The next key and value, or `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "rows are lent, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        match (self.state, self.direction) {
            (State::Done, _) => return Ok(None),
            (State::AtNext, _) => {}
            (State::AtGiven, Direction::Forward) => self.cursor.forward(),
            (State::AtGiven, Direction::Backward) => self.cursor.backward(),
        }
        self.state = State::AtGiven;
        let item = self.cursor.item()?;
        if item.is_none() {
            // A cursor past its end must not be moved.
            self.state = State::Done;
        }
        Ok(item.and_then(|(key, value)| Some((key.get(1..)?, value))))
    }
}
