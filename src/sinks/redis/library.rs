//! The library of functions in Redis: loaded where it is missing, older or other than ours, and proved to be usable.

use super::super::destination::SinkError;
use super::connection::Connection;
use sha2::{Digest, Sha256};
use std::fmt::Write;

const SOURCE: &str = include_str!("library.lua");
/// Version of [`SOURCE`], which names it, too.
const VERSION: i64 = 1;
/// What stands in the source for the digest of the source.
const PLACEHOLDER: &str = "@DIGEST@";

/// Digest of the source as it stands in the repository.
fn digest() -> String {
    Sha256::digest(SOURCE)
        .iter()
        .take(16)
        .fold(String::new(), |mut hex, byte| {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Whether ours takes the place of what is loaded.
fn is_to_be_loaded(loaded: Option<&(i64, String)>) -> bool {
    match loaded {
        None => true,
        Some((version, text)) => *version < VERSION || (*version == VERSION && *text != digest()),
    }
}

/// Sees to it that the library is there and that this user may use it. `key` is the declared key of each call.
pub(super) async fn ensure(connection: &Connection, key: &str) -> Result<(), SinkError> {
    let mut ask = redis::cmd("FCALL_RO");
    ask.arg("thmanyah_version").arg(1).arg(key);
    let loaded: Option<(i64, String)> = match connection.try_call(&ask).await? {
        Ok(loaded) => Some(loaded),
        Err(error) if error.to_string().contains("Function not found") => None,
        Err(error) => return Err(connection.peer().explain(&error)),
    };
    if is_to_be_loaded(loaded.as_ref()) {
        let source = SOURCE.replace(PLACEHOLDER, &digest());
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(source);
        connection.call::<String>(&load).await?;
        tracing::info!(version = VERSION, before = ?loaded.map(|(version, _)| version), "loaded the functions of the Redis sink");
    }
    let mut probe = redis::cmd("FCALL");
    probe.arg("thmanyah_probe").arg(1).arg(key);
    connection.call::<i64>(&probe).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_names_its_version_and_has_one_place_for_its_digest() {
        assert!(SOURCE.starts_with("#!lua name=thmanyah\n"));
        assert!(SOURCE.contains(&format!("local VERSION = {VERSION}\n")));
        assert_eq!(SOURCE.matches(PLACEHOLDER).count(), 1);
    }

    #[test]
    fn ours_takes_the_place_of_an_older_or_other_one_never_of_a_newer_one() {
        assert!(is_to_be_loaded(None));
        assert!(is_to_be_loaded(Some(&(VERSION - 1, digest()))));
        assert!(is_to_be_loaded(Some(&(VERSION, "other".into()))));
        assert!(!is_to_be_loaded(Some(&(VERSION, digest()))));
        assert!(!is_to_be_loaded(Some(&(VERSION + 1, "other".into()))));
    }
}
