//! What a loop over the store needs of it. [`Store`] is the one on disk; a simulator may bring one in memory that loses writes
//! as a power cut does.

use crate::bulk::BulkLoad;
use crate::error::Error;
use crate::position::Position;
use crate::store::{Direction, Row, Scan, Snapshot, Store};
use crate::table::Table;
use crate::write_set::WriteSet;

/// Tables with positions, written in atomic sets.
pub trait Tables: Clone {
    /// A read view.
    type Moment<'t>: Moment
    where
        Self: 't;

    /// Reads a row in place.
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error>;

    /// The position of a partition in a table.
    fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error>;

    /// Applies a set of writes: all of them or none. The set comes back empty; after an error it is as it was.
    fn apply(&self, writes: &mut WriteSet) -> Result<(), Error>;

    /// Begins a bulk load of a table; `None` in a store that has no such thing.
    fn begin_load(&self, table: Table) -> Result<Option<BulkLoad>, Error> {
        let _ = table;
        Ok(None)
    }

    /// Deletes the position of a partition and all rows whose keys begin with `prefix`, at once.
    fn drop_partition(&self, table: Table, prefix: &[u8], partition: i32) -> Result<(), Error>;

    /// About how many rows a table has.
    fn estimated_rows(&self, table: Table) -> u64;

    /// A read view of this moment, over all tables.
    fn snapshot(&self) -> Self::Moment<'_>;
}

/// A read view of one moment.
pub trait Moment {
    /// Rows in order.
    type Rows<'m>: Rows
    where
        Self: 'm;

    /// Reads a row in place.
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error>;

    /// Walks the rows from `start` (in) up to `end` (out). A range the wrong way round is empty.
    fn rows(&self, table: Table, start: &[u8], end: &[u8]) -> Result<Self::Rows<'_>, Error>;
}

/// A cursor over rows, which are lent until the next step.
pub trait Rows {
    /// The next key and value, or `None` at the end.
    fn next(&mut self) -> Result<Option<Row<'_>>, Error>;
}

impl Tables for Store {
    type Moment<'t> = Snapshot<'t>;

    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        Self::get(self, table, key, read)
    }

    fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        Self::position(self, table, partition)
    }

    fn apply(&self, writes: &mut WriteSet) -> Result<(), Error> {
        Self::apply(self, writes)
    }

    fn begin_load(&self, table: Table) -> Result<Option<BulkLoad>, Error> {
        BulkLoad::begin(self, table).map(Some)
    }

    fn drop_partition(&self, table: Table, prefix: &[u8], partition: i32) -> Result<(), Error> {
        Self::drop_partition(self, table, prefix, partition)
    }

    fn estimated_rows(&self, table: Table) -> u64 {
        Self::estimated_rows(self, table)
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Self::snapshot(self)
    }
}

impl Moment for Snapshot<'_> {
    type Rows<'m>
        = Scan<'m>
    where
        Self: 'm;

    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        Snapshot::get(self, table, key, read)
    }

    fn rows(&self, table: Table, start: &[u8], end: &[u8]) -> Result<Scan<'_>, Error> {
        self.scan(table, start, end, Direction::Forward)
    }
}

impl Rows for Scan<'_> {
    fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        Scan::next(self)
    }
}
