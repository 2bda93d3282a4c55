//! Look-ups of content rows: a bounded cache of decoded rows in front of the store.

use super::rows::{StoredContent, StoredError, read_stored};
use crate::domain::{ContentId, ContentVersion, JoinContent};
use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::Arc;
use thmanyah_state::{Moment, Rows, Store, Table, Tables};

/// Locks that look-ups are spread over.
const SHARDS: usize = 64;

/// A table of up to this many rows is read into the cache as a whole when the process starts: in order that takes a tenth of
/// what as many look-ups take.
const WARM_ROWS: usize = 250_000;

/// Why a look-up failed.
#[derive(Debug, thiserror::Error)]
pub enum ContentTableError {
    /// The store.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// A stored row.
    #[error(transparent)]
    Row(#[from] StoredError),
}

/// The content table as joins see it. Cheap to clone.
///
/// IMPORTANT: coherence. A miss reads the store while it holds the shard's lock, and the replica refreshes a cached row
/// after it wrote the store, under the same lock. So whatever is cached is never older than what the replica has announced.
#[derive(Clone)]
pub struct ContentTable<S = Store> {
    store: S,
    shards: Arc<[Mutex<HashMap<ContentId, JoinContent>>]>,
    hasher: RandomState,
    rows_per_shard: usize,
}

impl<S: Tables> ContentTable<S> {
    /// A table over the store that keeps up to `rows` decoded rows.
    pub fn new(store: S, rows: usize) -> Self {
        Self {
            store,
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            hasher: RandomState::default(),
            rows_per_shard: rows.div_ceil(SHARDS).max(1),
        }
    }

    /// What a join takes from the row, if there is one.
    pub fn get(&self, id: ContentId) -> Result<Option<JoinContent>, ContentTableError> {
        let Some(shard) = self.shard(id) else {
            return self.get_fresh(id);
        };
        let mut rows = shard.lock();
        if let Some(row) = rows.get(&id) {
            return Ok(Some(*row));
        }
        let Some(row) = self.get_fresh(id)? else {
            return Ok(None);
        };
        if rows.len() >= self.rows_per_shard {
            // Drops an arbitrary eighth: no bookkeeping on hits, and what is popular comes back at its next look-up.
            let mut kept = 0usize;
            rows.retain(|_, _| {
                kept += 1;
                !kept.is_multiple_of(8)
            });
        }
        rows.insert(id, row);
        Ok(Some(row))
    }

    /// Fills the cache from the store, when all of a table of moderate size fits.
    ///
    /// IMPORTANT: only while nobody writes the table, which is before the replica follows its changelog: a row that was read
    /// here must not overwrite, or outlive, a newer one that the replica has announced.
    pub(super) fn warm(&self) -> Result<(), ContentTableError> {
        let rows = self.store.estimated_rows(Table::Content) as usize;
        if rows > WARM_ROWS.min(self.rows_per_shard.saturating_mul(SHARDS) / 2) {
            return Ok(());
        }
        let snapshot = self.store.snapshot();
        let mut rows = snapshot.rows(Table::Content, &[], &[0xff; 17])?;
        while let Some((key, value)) = rows.next()? {
            let Ok(id) = key.try_into().map(ContentId) else {
                continue;
            };
            let row = read_stored(value)?.join();
            if let Some(shard) = self.shard(id) {
                shard.lock().insert(id, row);
            }
        }
        Ok(())
    }

    /// The same, read from the store.
    pub fn get_fresh(&self, id: ContentId) -> Result<Option<JoinContent>, ContentTableError> {
        Ok(self.row(id)?.map(|stored| stored.join()))
    }

    /// The whole row, read from the store.
    pub fn row(&self, id: ContentId) -> Result<Option<StoredContent>, ContentTableError> {
        let stored = self.store.get(Table::Content, &id.0, read_stored)?;
        Ok(stored.transpose()?)
    }

    /// The replica wrote this row to the store, or deleted it.
    pub(super) fn refresh(&self, id: ContentId, row: Option<JoinContent>) {
        let Some(shard) = self.shard(id) else {
            return;
        };
        let mut rows = shard.lock();
        match row {
            Some(row) => {
                // A batch may hold several writes of a row, and a miss may have cached the last of them already.
                if let Some(cached) = rows.get_mut(&id)
                    && !is_older(row.version, cached.version)
                {
                    *cached = row;
                }
            }
            None => {
                rows.remove(&id);
            }
        }
    }

    /// The replica dropped rows of a partition: everything cached is doubtful.
    pub(super) fn forget_all(&self) {
        for shard in self.shards.iter() {
            shard.lock().clear();
        }
    }

    fn shard(&self, id: ContentId) -> Option<&Mutex<HashMap<ContentId, JoinContent>>> {
        let at = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards.get(at)
    }
}

/// Whether the first is an earlier write of the row than the second. A row stays in its partition.
fn is_older(a: ContentVersion, b: ContentVersion) -> bool {
    a.partition == b.partition && a.offset < b.offset
}
