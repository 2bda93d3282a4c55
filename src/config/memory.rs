//! How much memory this process may take: the tightest limit of its control groups, else what the machine has.

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
}
