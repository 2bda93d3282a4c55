//! How much memory and disk the store may take.

const MIB: usize = 1 << 20;

/// Bounds of the store. Every field is a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory of the block cache, which all tables share and to which memtables are charged.
    pub block_cache_bytes: usize,
    /// Memory of all memtables together; beyond it the largest is flushed.
    pub memtable_bytes: usize,
    /// Disk of the write-ahead log; beyond it the oldest part is flushed into tables and deleted.
    pub wal_bytes: u64,
    /// Files kept open.
    pub max_open_files: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_cache_bytes: 128 * MIB,
            memtable_bytes: 64 * MIB,
            wal_bytes: 64 << 20,
            max_open_files: 512,
        }
    }
}
