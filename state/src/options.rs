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

impl Options {
    /// Bounds for a process that may take `limit_bytes` of memory: a quarter of it for the cache, which the memtables are
    /// part of. The rest is for the program itself and for the operating system's file cache.
    pub fn for_memory(limit_bytes: u64) -> Self {
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        Self {
            block_cache_bytes: (limit / 4).clamp(16 * MIB, 4096 * MIB),
            memtable_bytes: (limit / 16).clamp(8 * MIB, 64 * MIB),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_gives_small_bounds_and_a_large_one_is_capped() {
        let small = Options::for_memory(256 << 20);
        assert_eq!(small.block_cache_bytes, 64 * MIB);
        assert_eq!(small.memtable_bytes, 16 * MIB);
        let none = Options::for_memory(u64::MAX);
        assert_eq!(none.block_cache_bytes, 4096 * MIB);
        assert_eq!(none.memtable_bytes, 64 * MIB);
    }
}
