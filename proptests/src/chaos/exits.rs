//! How processes ended, and what they said.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

/// Why a process was expected to end, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// Nobody had asked.
    ByItself,
    /// It got SIGTERM.
    Asked,
    /// Its disk was full.
    DiskFull,
}

/// How often each end was seen: by occasion, code and last words.
#[derive(Default)]
pub(super) struct Exits(Mutex<BTreeMap<(Occasion, String, String), usize>>);

impl Exits {
    /// Notes one end; gives it in words.
    pub(super) fn note(&self, occasion: Occasion, status: ExitStatus, log: &str) -> String {
        let how = match status.code() {
            Some(code) => format!("code {code}"),
            None => status.to_string(),
        };
        let words = if status.success() {
            String::new()
        } else {
            last_words(log)
        };
        let told = format!("{how} {words}");
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts
            .entry((occasion, how, without_names(&words)))
            .or_default() += 1;
        told
    }

    /// All ends.
    pub(super) fn counts(&self) -> Vec<(Occasion, String, String, usize)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((occasion, how, words), count)| (*occasion, how.clone(), words.clone(), *count))
            .collect()
    }
}

/// The message of a failure, or where there is none the last line.
fn last_words(log: &str) -> String {
    let told = |line: &&str| line.starts_with("error: ") || line.contains("panicked at");
    let line = log.lines().rev().find(told).or(log.lines().last());
    line.unwrap_or_default().to_owned()
}

/// Messages that differ in numbers or paths alone count as one.
fn without_names(words: &str) -> String {
    let words: Vec<&str> = words
        .split(' ')
        .map(|word| {
            if word.starts_with('/') {
                "(path)"
            } else {
                word
            }
        })
        .collect();
    let words = words.join(" ");
    let mut kept = String::new();
    for part in words.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        if !number.is_empty() {
            kept.push('#');
        }
        kept.push_str(rest);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{last_words, without_names};

    #[test]
    fn messages_are_found_and_told_apart_by_their_words() {
        let log = "INFO a\nerror: partition 3 failed\nINFO b";
        assert_eq!(last_words(log), "error: partition 3 failed");
        assert_eq!(last_words("a\nb"), "b");
        assert_eq!(without_names("partition 31 of 6"), "partition # of #");
        assert_eq!(without_names("disk of /tmp/x7/db is"), "disk of (path) is");
        assert_eq!(without_names("none"), "none");
    }
}
