//! How much memory this process may take.

use std::fs;

/// Used where nothing can be read.
const FALLBACK: u64 = 1 << 30;

/// The limit of the control group (version 2, then 1), else the machine's memory, in bytes.
pub(super) fn limit() -> u64 {
    let machine = machine().unwrap_or(FALLBACK);
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
    // Version 1 writes a number beyond any memory where there is no limit.
    .map_or(machine, |limit: u64| limit.min(machine))
}

fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
