//! Loading a table in large sorted files: without write-ahead log, memtable, and compaction meanwhile.

use crate::error::Error;
use crate::store::Store;
use crate::table::Table;
use crate::write_set::WriteSet;
use std::fs;
use std::path::PathBuf;

/// Where the files are made, beside the database so that they can be moved into it.
const FOLDER: &str = "loading";

/// Files taken in after which they are merged meanwhile: a read looks into each.
const UNMERGED: u32 = 64;

/// A bulk load of one table. Meanwhile nothing else may write that table. The table's files are merged in the background
/// again when it is dropped.
#[derive(Debug)]
pub struct BulkLoad {
    store: Store,
    table: Table,
    folder: PathBuf,
    files: u32,
}

impl BulkLoad {
    /// Begins a load.
    pub fn begin(store: &Store, table: Table) -> Result<Self, Error> {
        let folder = store.dir().join(FOLDER);
        let unwritable = |source| Error::Unwritable {
            dir: folder.clone(),
            source,
        };
        // A load that was cut short may have left a file.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(unwritable)?;
        }
        fs::create_dir_all(&folder).map_err(unwritable)?;
        // IMPORTANT: a file that is taken in is on disk at once; the write-ahead log behind earlier writes may not be. Were
        // these not flushed first, a loss of power could keep a later position and lose earlier rows.
        store.flush(table)?;
        store.database().set_compaction(table, false)?;
        Ok(Self {
            store: store.clone(),
            table,
            folder,
            files: 0,
        })
    }

    /// Takes in a set of puts and deletes of the table, positions among them: all or none, on disk when this returns. The set
    /// comes back empty; after an error it is as it was.
    pub fn ingest(&mut self, writes: &mut WriteSet) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        let sorted = writes.sorted();
        if sorted.iter().any(|w| w.merge || w.table != self.table) {
            return Err(Error::WrongLoad { table: self.table });
        }
        let file = self.folder.join(self.table.name());
        self.store.database().ingest(self.table, &sorted, &file)?;
        writes.clear();
        self.files += 1;
        if self.files == UNMERGED {
            self.store.database().set_compaction(self.table, true)?;
        }
        Ok(())
    }
}

impl Drop for BulkLoad {
    fn drop(&mut self) {
        // Both are tried again by whoever loads or opens next.
        let _ = self.store.database().set_compaction(self.table, true);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
