//! Where the set-up step leaves what it fetched.

use std::path::{Path, PathBuf};

use crate::Error;

/// The directory that set-up fills: `$THMANYAH_CACHE`, else `$HOME/.cache/thmanyah`.
pub fn cache_dir() -> PathBuf {
    std::env::var_os("THMANYAH_CACHE")
        .filter(|dir| !dir.is_empty())
        .map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
                Path::new(&home).join(".cache/thmanyah")
            },
            PathBuf::from,
        )
}

/// A file or directory of the cache, or the advice to run the set-up.
pub(crate) fn cached(name: &str) -> Result<PathBuf, Error> {
    let path = cache_dir().join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(Error::NotSetUp(path))
    }
}

/// All jars of a directory of the cache, as a class path.
///
/// The files are named one by one and in order, not by a wildcard: the archive of loaded classes that set-up prepares
/// is only valid for exactly the class path it was made with.
pub(crate) fn class_path(name: &str) -> Result<String, Error> {
    let dir = cached(name)?;
    let entries = std::fs::read_dir(&dir).map_err(Error::io(format!("list {}", dir.display())))?;
    let mut jars: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "jar"))
        .map(|path| path.display().to_string())
        .collect();
    if jars.is_empty() {
        return Err(Error::NotSetUp(dir));
    }
    jars.sort();
    Ok(jars.join(":"))
}

/// The flags for a small Java service that should start fast.
pub(crate) fn java_flags(archive: &str) -> Vec<String> {
    let mut flags: Vec<String> = [
        "-Xms256m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
    ]
    .map(String::from)
    .into();
    // Classes that were parsed and verified once; it halves the start. Java ignores an archive that does not fit.
    if let Ok(archive) = cached(archive) {
        flags.push(format!("-XX:SharedArchiveFile={}", archive.display()));
        flags.push("-Xlog:cds=off".into());
        flags.push("-Xlog:cds+dynamic=off".into());
    }
    flags
}
