//! Comparing a table of the store with a fold of its log, key by key.

use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use thmanyah_state::{Direction, Store, Table};

/// Differences that are told one by one; beyond them they are counted.
const TOLD: usize = 100;

/// A key of a table, padded with zeros: keys of one table have one length.
pub(super) type Key = [u8; 16];

/// The last that a log says of a key.
pub(super) struct Last {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Hash of the stored value; `None` is a tombstone.
    pub(super) value: Option<u64>,
}

/// What became of a table.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    /// Rows, or ids, that were compared.
    pub(super) compared: u64,
    /// Keys that the log changed behind the stored position, and which say nothing about the store.
    pub(super) changed_since: u64,
    pub(super) differences: u64,
    /// The first of them.
    pub(super) told: Vec<Difference>,
}

/// A difference.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) partition: i32,
    /// The content's or event's id; none where a whole partition is meant.
    pub(super) key: Option<String>,
    pub(super) what: &'static str,
}

pub(super) const MISSING: &str = "the log has it, the store has not";
pub(super) const UNEXPECTED: &str = "the store has it, the log has not";
pub(super) const UNREADABLE: &str = "the row in the store cannot be read";
pub(super) const OTHER: &str = "the store has another value than the log";

impl Findings {
    pub(super) fn add(&mut self, partition: i32, key: Option<String>, what: &'static str) {
        self.differences += 1;
        if self.told.len() < TOLD {
            self.told.push(Difference {
                partition,
                key,
                what,
            });
        }
    }
}

/// The parts of a stored value, hashed.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// A key as it is compared.
pub(super) fn padded(key: &[u8]) -> Key {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    padded
}

/// How a table's rows are told apart.
pub(super) struct Rows {
    pub(super) table: Table,
    /// A key as people know it.
    pub(super) name: fn(&Key) -> String,
    /// The partition that a row came from.
    pub(super) partition: fn(&[u8], &[u8]) -> Option<i32>,
}

/// Compares the rows of the partitions whose positions are given. `log` is what their log says as a whole: a key whose last
/// record lies at or behind the position is left out, as the record before it may have been compacted away.
pub(super) fn compare(
    store: &Store,
    rows: &Rows,
    positions: &BTreeMap<i32, i64>,
    mut log: HashMap<Key, Last>,
    findings: &mut Findings,
) -> Result<(), thmanyah_state::Error> {
    let snapshot = store.snapshot();
    let mut scan = snapshot.scan(rows.table, &[], &[0xff; 32], Direction::Forward)?;
    while let Some((key, value)) = scan.next()? {
        let Some(partition) = (rows.partition)(key, value) else {
            findings.add(-1, Some((rows.name)(&padded(key))), UNREADABLE);
            continue;
        };
        let Some(position) = positions.get(&partition) else {
            continue;
        };
        let key = padded(key);
        let found = log.remove(&key);
        let told = match found
            .as_ref()
            .map(|last| (last.offset < *position, last.value))
        {
            Some((false, _)) => {
                findings.changed_since += 1;
                continue;
            }
            Some((true, Some(expected))) if expected == hash(&[value]) => None,
            Some((true, Some(_))) => Some(OTHER),
            Some((true, None)) | None => Some(UNEXPECTED),
        };
        findings.compared += 1;
        if let Some(what) = told {
            findings.add(partition, Some((rows.name)(&key)), what);
        }
    }
    // What is left is not in the store.
    let mut left: Vec<_> = log.into_iter().collect();
    left.sort_unstable_by_key(|(key, _)| *key);
    for (key, last) in left {
        let position = positions.get(&last.partition).copied().unwrap_or(0);
        if last.offset >= position {
            findings.changed_since += 1;
        } else if last.value.is_some() {
            findings.compared += 1;
            findings.add(last.partition, Some((rows.name)(&key)), MISSING);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use thmanyah_state::{Options, WriteSet};

    const ROWS: Rows = Rows {
        table: Table::Pending,
        name: |key| key[0].to_string(),
        partition: |_, value| value.first().map(|byte| i32::from(*byte)),
    };

    fn last(partition: u8, offset: i64, value: Option<&[u8]>) -> Last {
        Last {
            partition: i32::from(partition),
            offset,
            value: value.map(|value| hash(&[value])),
        }
    }

    #[test]
    fn each_kind_of_difference_is_told_by_key_and_what_changed_since_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        let mut writes = WriteSet::new();
        for key in [1, 2, 3, 5, 7, 8] {
            writes.put(Table::Pending, &[key], &[0, key]);
        }
        writes.put(Table::Pending, &[9], &[1, 9]);
        store.apply(&mut writes).unwrap();
        let log = [
            (1, last(0, 3, Some(&[0, 1]))),
            (2, last(0, 4, Some(&[0, 99]))),
            (3, last(0, 5, None)),
            (4, last(0, 6, Some(&[0, 4]))),
            // From here on behind the position.
            (5, last(0, 10, None)),
            (6, last(0, 11, Some(&[0, 6]))),
            (7, last(0, 12, Some(&[0, 99]))),
        ];
        let log = log.map(|(key, last)| (padded(&[key]), last)).into();
        let mut findings = Findings::default();
        let positions = BTreeMap::from([(0, 10)]);
        compare(&store, &ROWS, &positions, log, &mut findings).unwrap();
        let told: Vec<_> = findings
            .told
            .iter()
            .map(|d| (d.key.as_deref().unwrap_or_default(), d.what))
            .collect();
        let expected = [
            ("2", OTHER),
            ("3", UNEXPECTED),
            ("8", UNEXPECTED),
            ("4", MISSING),
        ];
        assert_eq!(told, expected);
        assert_eq!(findings.differences, 4);
        assert_eq!((findings.compared, findings.changed_since), (5, 3));
    }
}
