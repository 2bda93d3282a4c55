//! The database: the one file that names `RocksDB`.

use crate::directory::Directory;
use crate::error::Error;
use crate::options::Options;
use crate::table::Table;
use crate::write_set::{Write, WriteSet};
use roaring::RoaringBitmap;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, DBRawIterator, DataBlockIndexType, ErrorKind, IngestExternalFileOptions,
    LogLevel, MergeOperands, ReadOptions, SnapshotWithThreadMode, SstFileWriter, WriteBatch,
    WriteBufferManager, WriteOptions, checkpoint::Checkpoint,
};
use std::path::{Path, PathBuf};

/// An open database with one column family for each table. Keys carry their tags here.
pub(crate) struct Database {
    db: DB,
    path: PathBuf,
    logged: WriteOptions,
    unlogged: WriteOptions,
    read: ReadOptions,
    /// For files that are written beside the database, with the families' own options.
    options: Options,
}

/// A key and its value, lent.
pub type Row<'r> = (&'r [u8], &'r [u8]);

/// Bytes that a write batch spends on each write besides its key and value: kind, family, two lengths.
const BATCH_OVERHEAD: usize = 12;

impl Database {
    pub(crate) fn open(
        dir: &Path,
        directory: &Directory,
        options: &Options,
    ) -> Result<Self, Error> {
        Self::open_as(dir, directory, options, false)
    }

    /// Opens a database that is there already, without writing to it.
    pub(crate) fn open_read_only(
        dir: &Path,
        directory: &Directory,
        options: &Options,
    ) -> Result<Self, Error> {
        Self::open_as(dir, directory, options, true)
    }

    fn open_as(
        dir: &Path,
        directory: &Directory,
        options: &Options,
        read_only: bool,
    ) -> Result<Self, Error> {
        let path = directory.database.clone();
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let db_options = database_options(options, &cache, !directory.has_database);
        let families = Table::ALL
            .map(|table| ColumnFamilyDescriptor::new(table.name(), family(table, options, &cache)));
        let opened = if read_only {
            DB::open_cf_descriptors_read_only(&db_options, &path, families, false)
        } else {
            DB::open_cf_descriptors(&db_options, &path, families)
        };
        let db = opened.map_err(|e| open_error(dir, &path, &e))?;
        let mut logged = WriteOptions::default();
        logged.set_sync(false);
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(Self {
            db,
            path,
            logged,
            unlogged,
            read: ReadOptions::default(),
            options: *options,
        })
    }

    /// Where the database's files are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let found = self
            .db
            .get_pinned_cf_opt(self.family(table)?, key, &self.read)
            .map_err(|e| self.error(&e))?;
        Ok(found.map(|value| read(&value)))
    }

    pub(crate) fn write(&self, writes: &WriteSet, logged: bool) -> Result<(), Error> {
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
                Some(value) if write.merge => batch.merge_cf(family, write.key, value),
                Some(value) => batch.put_cf(family, write.key, value),
                None => batch.delete_cf(family, write.key),
            }
        }
        self.write_batch(batch, logged)
    }

    /// Deletes every key from `start` (in) to `end` (out), and one more key, at once.
    pub(crate) fn delete_range_and(
        &self,
        table: Table,
        (start, end): (&[u8], &[u8]),
        key: &[u8],
    ) -> Result<(), Error> {
        let family = self.family(table)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(family, start, end);
        batch.delete_cf(family, key);
        self.write_batch(batch, table.is_logged())
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            database: self,
            snapshot: self.db.snapshot(),
        }
    }

    pub(crate) fn flush(&self, table: Table) -> Result<(), Error> {
        self.db
            .flush_cf(self.family(table)?)
            .map_err(|e| self.error(&e))
    }

    /// Makes a table file of these writes, whose keys rise, and takes it in: all of them or none, on disk when this returns.
    pub(crate) fn ingest(
        &self,
        table: Table,
        writes: &[Write<'_>],
        file: &Path,
    ) -> Result<(), Error> {
        // A cache of no size: what is written is not read here.
        let cache = Cache::new_lru_cache(0);
        let options = family(table, &self.options, &cache);
        let mut sorted = SstFileWriter::create(&options);
        sorted.open(file).map_err(|e| self.error(&e))?;
        for write in writes {
            match write.value {
                Some(value) => sorted.put(write.key, value),
                None => sorted.delete(write.key),
            }
            .map_err(|e| self.error(&e))?;
        }
        sorted.finish().map_err(|e| self.error(&e))?;
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        self.db
            .ingest_external_file_cf_opts(self.family(table)?, &how, vec![file])
            .map_err(|e| self.error(&e))
    }

    /// Whether a table's files are merged in the background.
    pub(crate) fn set_compaction(&self, table: Table, on: bool) -> Result<(), Error> {
        let off = if on { "false" } else { "true" };
        self.db
            .set_options_cf(self.family(table)?, &[("disable_auto_compactions", off)])
            .map_err(|e| self.error(&e))
    }

    /// Makes a database of hard links to the files of this one in a folder that is not there yet.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<(), Error> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|e| self.error(&e))
    }

    pub(crate) fn estimated_keys(&self, table: Table) -> Option<u64> {
        self.property(table, "rocksdb.estimate-num-keys")
    }

    /// Bytes of a table's files.
    pub(crate) fn file_bytes(&self, table: Table) -> Option<u64> {
        self.property(table, "rocksdb.total-sst-files-size")
    }

    fn property(&self, table: Table, name: &str) -> Option<u64> {
        self.db
            .property_int_value_cf(self.family(table).ok()?, name)
            .ok()?
    }

    fn write_batch(&self, batch: WriteBatch, logged: bool) -> Result<(), Error> {
        let options = if logged { &self.logged } else { &self.unlogged };
        self.db
            .write_opt(batch, options)
            .map_err(|e| self.error(&e))
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, Error> {
        self.db
            .cf_handle(table.name())
            .ok_or_else(|| Error::Failed {
                dir: self.path.clone(),
                detail: format!("no column family {}", table.name()),
            })
    }

    fn error(&self, e: &rocksdb::Error) -> Error {
        error(&self.path, e)
    }
}

/// The database as it was at one moment.
pub(crate) struct View<'d> {
    database: &'d Database,
    snapshot: SnapshotWithThreadMode<'d, DB>,
}

impl View<'_> {
    pub(crate) fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let found = self
            .snapshot
            .get_pinned_cf(self.database.family(table)?, key)
            .map_err(|e| self.database.error(&e))?;
        Ok(found.map(|value| read(&value)))
    }

    /// A cursor over the keys from `start` (in) to `end` (out), which must not lie before it.
    pub(crate) fn cursor(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
    ) -> Result<Cursor<'_>, Error> {
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(start);
        read.set_iterate_upper_bound(end);
        Ok(Cursor {
            database: self.database,
            iter: self
                .snapshot
                .raw_iterator_cf_opt(self.database.family(table)?, read),
        })
    }
}

/// A cursor over keys and values.
pub(crate) struct Cursor<'v> {
    database: &'v Database,
    iter: DBRawIterator<'v>,
}

impl Cursor<'_> {
    pub(crate) fn seek_first(&mut self) {
        self.iter.seek_to_first();
    }

    pub(crate) fn seek_last(&mut self) {
        self.iter.seek_to_last();
    }

    pub(crate) fn forward(&mut self) {
        self.iter.next();
    }

    pub(crate) fn backward(&mut self) {
        self.iter.prev();
    }

    /// Where the cursor stands; `None` past either end.
    pub(crate) fn item(&self) -> Result<Option<Row<'_>>, Error> {
        if !self.iter.valid() {
            self.iter.status().map_err(|e| self.database.error(&e))?;
        }
        Ok(self.iter.item())
    }
}

/// Name of the merge operator; it is on disk.
const UNION: &str = "thmanyah.roaring-union";

/// The union of serialised roaring bitmaps. Bytes that are no bitmap fail the read or the compaction that meets them.
fn union(_: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut all = RoaringBitmap::new();
    for bytes in existing.into_iter().chain(operands) {
        all |= RoaringBitmap::deserialize_from(bytes).ok()?;
    }
    let mut bytes = Vec::with_capacity(all.serialized_size());
    all.serialize_into(&mut bytes).ok()?;
    Some(bytes)
}

/// Files of a bulk load before a table's writers are slowed down: until they are merged, they are many.
const LOADED_FILES: i32 = 512;

/// Sorted runs of recent rows from which on some are merged: each merge rewrites them.
const RECENT_RUNS: i32 = 16;

fn database_options(options: &Options, cache: &Cache, create: bool) -> rocksdb::Options {
    let mut db = rocksdb::Options::default();
    // IMPORTANT: only where no database is: `RocksDB` would otherwise start afresh over one that lost its CURRENT file.
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
    if matches!(table, Table::Content | Table::Pending | Table::Seen) {
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
    if table == Table::Seen {
        family.set_merge_operator_associative(UNION, union);
    }
    family.set_write_buffer_size(options.memtable_bytes / 2);
    family.set_max_write_buffer_number(3);
    family.set_level_compaction_dynamic_level_bytes(true);
    if table == Table::Content {
        family.set_level_zero_slowdown_writes_trigger(LOADED_FILES);
        family.set_level_zero_stop_writes_trigger(2 * LOADED_FILES);
    }
    if table == Table::Recent {
        // Written once, read rarely, deleted soon: rewrite rows as seldom as can be.
        family.set_compaction_style(DBCompactionStyle::Universal);
        // Runs of rising times hardly overlap, so a query reads few of them however many there are.
        family.set_level_zero_file_num_compaction_trigger(RECENT_RUNS);
        family.set_level_zero_slowdown_writes_trigger(2 * RECENT_RUNS);
        family.set_level_zero_stop_writes_trigger(3 * RECENT_RUNS);
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
    // What a database of ours cannot do without, `RocksDB` also reports as a missing file or a bad argument.
    let broken = ["does not exist", "No such file", "no such file", "CURRENT"];
    if broken.iter().any(|sign| text.contains(sign)) {
        return Error::Corrupt {
            dir: database.to_owned(),
            detail,
        };
    }
    error(database, e)
}
