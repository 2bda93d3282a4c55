//! The database: the one file that names RocksDB.

use crate::directory::Directory;
use crate::error::Error;
use crate::keys::{self, RowKey};
use crate::options::Options;
use crate::position::Position;
use crate::table::Table;
use crate::write_set::WriteSet;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, DBRawIterator, DataBlockIndexType, ErrorKind, LogLevel, ReadOptions,
    SnapshotWithThreadMode, WriteBatch, WriteBufferManager, WriteOptions,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store of one state directory, which is locked while any clone of it lives.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    // IMPORTANT: declared before the directory, so that the database is closed before the lock is let go.
    db: DB,
    directory: Directory,
    logged: WriteOptions,
    unlogged: WriteOptions,
    read: ReadOptions,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store")
            .field(&self.shared.directory.database)
            .finish()
    }
}

/// Bytes that a write batch spends on each write besides its key and value: kind, family, two lengths.
const BATCH_OVERHEAD: usize = 12;

impl Store {
    /// Opens the store in a directory, which is made if it is missing. Files in it that are not ours are left alone.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let directory = Directory::open(dir)?;
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let db_options = database_options(options, &cache, !directory.has_database);
        let families = Table::ALL
            .map(|table| ColumnFamilyDescriptor::new(table.name(), family(table, options, &cache)));
        let db = DB::open_cf_descriptors(&db_options, &directory.database, families)
            .map_err(|e| open_error(dir, &directory.database, &e))?;
        let mut logged = WriteOptions::default();
        logged.set_sync(false);
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(Self {
            shared: Arc::new(Shared {
                db,
                directory,
                logged,
                unlogged,
                read: ReadOptions::default(),
            }),
        })
    }

    /// Reads a row in place.
    pub fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        self.get_raw(table, RowKey::new(key).as_ref(), read)
    }

    /// The position of a partition in a table.
    pub fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        self.get_raw(table, &keys::position(partition), Position::decode)?
            .map(|position| position.ok_or_else(|| self.bad_position(table, partition)))
            .transpose()
    }

    /// Every position in a table, by partition.
    pub fn positions(&self, table: Table) -> Result<Vec<(i32, Position)>, Error> {
        let mut read = ReadOptions::default();
        read.set_iterate_upper_bound([keys::ROW]);
        let mut iter = self
            .shared
            .db
            .raw_iterator_cf_opt(self.family(table)?, read);
        iter.seek([keys::POSITION]);
        let mut positions = Vec::new();
        while let Some((key, value)) = iter.item() {
            let partition = keys::partition_of(key).ok_or_else(|| self.bad_position(table, -1))?;
            let position =
                Position::decode(value).ok_or_else(|| self.bad_position(table, partition))?;
            positions.push((partition, position));
            iter.next();
        }
        iter.status().map_err(|e| self.error(&e))?;
        Ok(positions)
    }

    /// Applies a set of writes to logged tables: all of them or none, and what a crash of the process cannot lose. The set
    /// comes back empty; after an error it is as it was.
    pub fn apply(&self, writes: &mut WriteSet) -> Result<(), Error> {
        if !writes.tables().all(Table::is_logged) {
            return Err(Error::WrongApply {
                found: "an unlogged table",
                wanted: "logged tables",
            });
        }
        self.write(writes, &self.shared.logged)
    }

    /// Applies a set of writes to [`Table::Recent`] without logging them: all of them or none, but a crash loses what was not
    /// flushed yet, rows with their positions. Sort the writes by key: that is much cheaper. The set comes back empty.
    pub fn apply_unlogged(&self, writes: &mut WriteSet) -> Result<(), Error> {
        if writes.tables().any(Table::is_logged) {
            return Err(Error::WrongApply {
                found: "a logged table",
                wanted: "unlogged tables",
            });
        }
        self.write(writes, &self.shared.unlogged)
    }

    /// Deletes the position of a partition and all rows whose keys begin with `prefix`, at once.
    pub fn drop_partition(&self, table: Table, prefix: &[u8], partition: i32) -> Result<(), Error> {
        let family = self.family(table)?;
        let mut batch = WriteBatch::default();
        let start = RowKey::new(prefix);
        // Every prefix under the row tag has an end, because the tag itself is no 255.
        let end = keys::after_prefix(start.as_ref()).unwrap_or_default();
        batch.delete_range_cf(family, start.as_ref(), end.as_slice());
        batch.delete_cf(family, keys::position(partition));
        let options = if table.is_logged() {
            &self.shared.logged
        } else {
            &self.shared.unlogged
        };
        self.shared
            .db
            .write_opt(batch, options)
            .map_err(|e| self.error(&e))
    }

    /// A read view of this moment, over all tables. Long-lived ones keep deleted rows on disk.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            store: self,
            inner: self.shared.db.snapshot(),
        }
    }

    /// Writes what a table holds in memory to disk.
    pub fn flush(&self, table: Table) -> Result<(), Error> {
        self.shared
            .db
            .flush_cf(self.family(table)?)
            .map_err(|e| self.error(&e))
    }

    /// About how many rows a table has, positions included. 0 when the database cannot tell.
    pub fn estimated_rows(&self, table: Table) -> u64 {
        let Ok(family) = self.family(table) else {
            return 0;
        };
        let rows = self
            .shared
            .db
            .property_int_value_cf(family, "rocksdb.estimate-num-keys");
        rows.ok().flatten().unwrap_or(0)
    }

    /// Bytes of the database's files.
    pub fn disk_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.shared.directory.database) else {
            return 0;
        };
        entries
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    fn write(&self, writes: &mut WriteSet, options: &WriteOptions) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut families = [None; Table::ALL.len()];
        for (slot, table) in families.iter_mut().zip(Table::ALL) {
            *slot = Some(self.family(table)?);
        }
        let capacity = writes.byte_len() + writes.len() * BATCH_OVERHEAD + BATCH_OVERHEAD;
        let mut batch = WriteBatch::with_capacity_bytes(capacity);
        for write in writes.writes() {
            let Some(family) = families.get(write.table as usize).copied().flatten() else {
                continue;
            };
            match write.value {
                Some(value) => batch.put_cf(family, write.key, value),
                None => batch.delete_cf(family, write.key),
            }
        }
        self.shared
            .db
            .write_opt(batch, options)
            .map_err(|e| self.error(&e))?;
        writes.clear();
        Ok(())
    }

    fn get_raw<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let found = self
            .shared
            .db
            .get_pinned_cf_opt(self.family(table)?, key, &self.shared.read)
            .map_err(|e| self.error(&e))?;
        Ok(found.map(|value| read(&value)))
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, Error> {
        self.shared
            .db
            .cf_handle(table.name())
            .ok_or_else(|| Error::Failed {
                dir: self.shared.directory.database.clone(),
                detail: format!("no column family {}", table.name()),
            })
    }

    fn bad_position(&self, table: Table, partition: i32) -> Error {
        Error::Corrupt {
            dir: self.shared.directory.database.clone(),
            detail: format!(
                "the position of partition {partition} in {} cannot be read",
                table.name()
            ),
        }
    }

    fn error(&self, e: &rocksdb::Error) -> Error {
        error(&self.shared.directory.database, e)
    }
}

/// A read view of one moment.
pub struct Snapshot<'s> {
    store: &'s Store,
    inner: SnapshotWithThreadMode<'s, DB>,
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
        let found = self
            .inner
            .get_pinned_cf(self.store.family(table)?, RowKey::new(key))
            .map_err(|e| self.store.error(&e))?;
        Ok(found.map(|value| read(&value)))
    }

    /// The position of a partition in a table.
    pub fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        let found = self
            .inner
            .get_pinned_cf(self.store.family(table)?, keys::position(partition))
            .map_err(|e| self.store.error(&e))?;
        found
            .map(|value| {
                Position::decode(&value).ok_or_else(|| self.store.bad_position(table, partition))
            })
            .transpose()
    }

    /// Walks the rows from `start` (in) to `end` (out).
    pub fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Result<Scan<'_>, Error> {
        let mut read = ReadOptions::default();
        let (start, end) = (RowKey::new(start), RowKey::new(end));
        read.set_iterate_lower_bound(start.as_ref());
        read.set_iterate_upper_bound(end.as_ref());
        let mut iter = self
            .inner
            .raw_iterator_cf_opt(self.store.family(table)?, read);
        // RocksDB asserts nothing about bounds the wrong way round: such a range is empty here.
        let empty = start.as_ref() >= end.as_ref();
        if !empty {
            match direction {
                Direction::Forward => iter.seek_to_first(),
                Direction::Backward => iter.seek_to_last(),
            }
        }
        Ok(Scan {
            store: self.store,
            iter,
            direction,
            state: if empty { State::Done } else { State::AtNext },
        })
    }
}

/// A cursor over rows, which are lent until the next step.
pub struct Scan<'s> {
    store: &'s Store,
    iter: DBRawIterator<'s>,
    direction: Direction,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The iterator stands on the row to give next.
    AtNext,
    /// The iterator stands on the row that was given last.
    AtGiven,
    Done,
}

impl Scan<'_> {
    /// The next key and value, or `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "rows are lent, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, Error> {
        match (self.state, self.direction) {
            (State::Done, _) => return Ok(None),
            (State::AtNext, _) => {}
            (State::AtGiven, Direction::Forward) => self.iter.next(),
            (State::AtGiven, Direction::Backward) => self.iter.prev(),
        }
        self.state = State::AtGiven;
        if !self.iter.valid() {
            self.state = State::Done;
            self.iter.status().map_err(|e| self.store.error(&e))?;
            return Ok(None);
        }
        Ok(self
            .iter
            .item()
            .and_then(|(key, value)| Some((key.get(1..)?, value))))
    }
}

fn database_options(options: &Options, cache: &Cache, create: bool) -> rocksdb::Options {
    let mut db = rocksdb::Options::default();
    // IMPORTANT: only where no database is: RocksDB would otherwise start afresh over one that lost its CURRENT file.
    db.create_if_missing(create);
    db.create_missing_column_families(true);
    db.set_max_open_files(options.max_open_files);
    db.set_max_total_wal_size(options.wal_bytes);
    db.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        options.memtable_bytes,
        false,
        cache.clone(),
    ));
    db.set_max_background_jobs(2);
    db.set_bytes_per_sync(1 << 20);
    db.set_wal_bytes_per_sync(1 << 20);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db
}

fn family(table: Table, options: &Options, cache: &Cache) -> rocksdb::Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(6);
    if matches!(table, Table::Content | Table::Pending) {
        // Point reads of whole keys, many of which miss.
        blocks.set_bloom_filter(10.0, false);
        blocks.set_whole_key_filtering(true);
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_block_size(8 << 10);
    } else {
        blocks.set_block_size(32 << 10);
    }
    let mut family = rocksdb::Options::default();
    family.set_block_based_table_factory(&blocks);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_write_buffer_size(options.memtable_bytes / 2);
    family.set_max_write_buffer_number(3);
    family.set_level_compaction_dynamic_level_bytes(true);
    if table == Table::Recent {
        // Written once, read rarely, deleted soon: rewrite rows as seldom as can be.
        family.set_compaction_style(DBCompactionStyle::Universal);
    }
    family
}

fn error(database: &Path, e: &rocksdb::Error) -> Error {
    let dir: PathBuf = database.to_owned();
    let detail = e.to_string();
    match e.kind() {
        ErrorKind::Corruption => Error::Corrupt { dir, detail },
        ErrorKind::IOError if detail.contains("No space left") => Error::DiskFull { dir, detail },
        _ => Error::Failed { dir, detail },
    }
}

fn open_error(dir: &Path, database: &Path, e: &rocksdb::Error) -> Error {
    let detail = e.to_string();
    let text = detail.as_str();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        return Error::Locked {
            dir: dir.to_owned(),
            pid: None,
        };
    }
    // What a database of ours cannot do without, RocksDB also reports as a missing file or a bad argument.
    let broken = ["does not exist", "No such file", "no such file", "CURRENT"];
    if broken.iter().any(|sign| text.contains(sign)) {
        return Error::Corrupt {
            dir: database.to_owned(),
            detail,
        };
    }
    error(database, e)
}
