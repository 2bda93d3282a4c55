//! What can be wrong with settings: each error names the setting, where it came from, and the way out.

use super::layers::{Origin, ways_to_set};
use std::path::PathBuf;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {} ({named_by}): {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it.
        named_by: Origin,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}:{column}: not valid TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// No setting is called so.
    #[error("unknown setting `{key}` ({origin}){}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// What stands there.
        key: String,
        /// Where.
        origin: Origin,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// No setting has this variable.
    #[error("unknown environment variable `{name}`{}", suggestion(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known variable that looks most like it.
        nearest: Option<String>,
    },
    /// A value cannot be used.
    #[error("`{key}`{} ({origin}): {problem}", shown(value.as_deref()))]
    Invalid {
        /// The setting.
        key: String,
        /// Who set it.
        origin: Origin,
        /// The value, unless it is secret or long.
        value: Option<String>,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A required setting is not set.
    #[error("`{key}` is not set: {}", ways_to_set(key, *flag))]
    Missing {
        /// The setting.
        key: String,
        /// Its flag.
        flag: Option<&'static str>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean `{nearest}`?"),
        None => ": `thmanyah config` lists all settings".to_owned(),
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" = {value:?}"))
}

/// The candidate that takes the fewest edits to reach, if they are few.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let limit = (word.len() / 3).max(2);
    candidates
        .map(|candidate| (distance(word, &candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, with one row of memory.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (slot, b) in row.iter_mut().skip(1).zip(&to) {
            let above = *slot;
            let change = diagonal + usize::from(a != *b);
            left = change.min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested_and_a_far_one_is_not() {
        let keys = || ["enricher.deadline", "recent.retention", "app"].map(str::to_owned);
        for (word, expected) in [
            ("enricher.dedline", Some("enricher.deadline")),
            ("recent.retentoin", Some("recent.retention")),
            ("ap", Some("app")),
            ("something.else.altogether", None),
        ] {
            assert_eq!(
                nearest(word, keys().into_iter()).as_deref(),
                expected,
                "{word}"
            );
        }
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }
}
