//! How much memory this process may take, the tightest limit of its control groups or else what the machine has, and what
//! each part gets of it.

use std::fs;
use std::path::{Path, PathBuf};

/// When nothing can be read: a size that any machine has.
const UNKNOWN: u64 = 1 << 30;

/// The memory limit of this process in bytes.
pub fn memory_limit() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limits = limit_files(&groups)
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter_map(|text| limit_of(&text));
    limits
        .chain(machine_bytes(&machine))
        .min()
        .unwrap_or(UNKNOWN)
}

/// Every file that may limit a process of these control groups: version 2 nests, and each ancestor counts. In a container
/// the path is often that of the host, so the root is always looked at too.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes")];
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = Path::new("/sys/fs/cgroup").join(unified.unwrap_or_default());
    let ancestors = own
        .ancestors()
        .filter(|path| path.starts_with("/sys/fs/cgroup"));
    files.extend(ancestors.map(|path| path.join("memory.max")));
    files
}

/// A limit in bytes; `max` is none.
fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// A cached content row, with its share of the table that is half empty.
const CACHED_ROW: u64 = 128;
/// A container of published ids at its largest.
const CONTAINER: u64 = 8 * KIB;
/// Consumers beside the workers': materializer, replica, recent.
const OTHER_CONSUMERS: u64 = 3;

/// What each part that grows with the work gets of the memory limit. Every field is a maximum, in bytes unless it says
/// otherwise. Together they are five eighths of the limit; the rest is for the program, queries and the index of parked
/// events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Block cache of the store, memtables included: a quarter.
    pub block_cache: u64,
    /// Memtables of the store: a sixteenth.
    pub memtables: u64,
    /// Records fetched ahead, for one consumer: a sixteenth for all, and librdkafka's own bookkeeping takes as much again.
    pub fetched: u64,
    /// Records not yet acknowledged, for one producer: an eighth for all.
    pub sent: u64,
    /// Content rows kept decoded, in rows: a sixteenth.
    pub content_rows: usize,
    /// Containers of published ids that a partition keeps, in containers: a thirty-second for all.
    pub seen_containers: usize,
    /// Parked events of an open transaction, for one worker: a thirty-second for all.
    pub transaction: u64,
}

impl Budget {
    /// The parts of `limit` bytes in a process of so many workers, when it owns all partitions.
    pub fn of(limit: u64, workers: usize, partitions: i32) -> Self {
        let workers = (workers as u64).max(1);
        let partitions = (i64::from(partitions).max(1)).cast_unsigned();
        let containers = limit / 32 / CONTAINER / partitions;
        Self {
            block_cache: (limit / 4).clamp(16 * MIB, 4096 * MIB),
            memtables: (limit / 16).clamp(8 * MIB, 64 * MIB),
            fetched: (limit / 16 / (workers + OTHER_CONSUMERS)).clamp(MIB, 64 * MIB),
            sent: (limit / 8 / (workers + 1)).clamp(4 * MIB, 256 * MIB),
            content_rows: (limit / 16 / CACHED_ROW) as usize,
            seen_containers: containers.clamp(4, 1024) as usize,
            transaction: (limit / 32 / workers).clamp(MIB, 16 * MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_process_and_each_of_its_ancestors_limit_it() {
        let files = limit_files("1:name=x:/y\n0::/pods/a\n");
        for path in [
            "/sys/fs/cgroup/pods/a/memory.max",
            "/sys/fs/cgroup/pods/memory.max",
            "/sys/fs/cgroup/memory.max",
        ] {
            assert!(
                files.contains(&PathBuf::from(path)),
                "{path} is not in {files:?}"
            );
        }
        assert_eq!(limit_files("").len(), 2);
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(limit_of("536870912\n"), Some(536_870_912));
        assert_eq!(limit_of("max\n"), None);
        assert_eq!(
            machine_bytes("MemFree: 1 kB\nMemTotal:   16 kB\n"),
            Some(16_384)
        );
        assert!(memory_limit() > 0);
    }

    #[test]
    fn the_parts_of_a_budget_stay_below_their_shares_however_many_there_are() {
        for (workers, partitions) in [(1, 1), (4, 24), (16, 256)] {
            let limit = 4 << 30;
            let budget = Budget::of(limit, workers, partitions);
            let many = workers as u64;
            let sum = budget.block_cache
                + 2 * budget.fetched * (many + OTHER_CONSUMERS)
                + budget.sent * (many + 1)
                + budget.content_rows as u64 * CACHED_ROW
                + budget.seen_containers as u64 * CONTAINER * partitions as u64
                + budget.transaction * many;
            assert!(sum <= limit / 8 * 5, "{workers} workers take {sum}");
        }
    }

    #[test]
    fn a_budget_follows_the_limit_between_its_bounds() {
        let small = Budget::of(256 << 20, 2, 4);
        assert_eq!((small.block_cache, small.memtables), (64 * MIB, 16 * MIB));
        assert_eq!(small.fetched, 16 * MIB / 5);
        assert_eq!(small.content_rows, 131_072);
        let none = Budget::of(u64::MAX, 2, 4);
        assert_eq!((none.block_cache, none.memtables), (4096 * MIB, 64 * MIB));
        assert_eq!((none.fetched, none.sent), (64 * MIB, 256 * MIB));
        assert_eq!((none.seen_containers, none.transaction), (1024, 16 * MIB));
        let tiny = Budget::of(0, 2, 4);
        assert_eq!((tiny.fetched, tiny.seen_containers), (MIB, 4));
    }
}
