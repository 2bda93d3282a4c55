//! One partition of a simulated topic: records, transaction markers, the last stable offset, compaction, retention.

use rdkafka::message::OwnedHeaders;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Bytes of a key or a value.
pub(super) type Bytes = Option<Rc<[u8]>>;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Written outside any transaction.
    Plain,
    /// Its transaction is not decided.
    Open,
    /// Its transaction was committed.
    Committed,
    /// Its transaction was aborted.
    Aborted,
    /// A transaction marker.
    Marker,
}

/// One offset.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// When it was appended, in milliseconds since the epoch by the broker's clock.
    pub(super) at_ms: i64,
    /// Key.
    pub(super) key: Bytes,
    /// Value.
    pub(super) value: Bytes,
    /// Headers.
    pub(super) headers: Option<OwnedHeaders>,
    /// The producer whose transaction it belongs to.
    pub(super) producer: Option<u64>,
    /// What became of it.
    pub(super) state: State,
    /// Whether compaction or retention took it away. It is kept for the oracle.
    pub(super) removed: bool,
}

impl Entry {
    /// Whether a reader of committed records is given it, if it was not removed.
    pub(super) fn is_committed(&self) -> bool {
        matches!(self.state, State::Plain | State::Committed)
    }
}

/// One partition.
#[derive(Default)]
pub(super) struct Log {
    /// Every entry ever, by offset.
    pub(super) entries: Vec<Entry>,
    /// Log start.
    pub(super) start: i64,
    /// First offset of each undecided transaction.
    open: BTreeMap<u64, i64>,
}

impl Log {
    /// The next offset to be written.
    pub(super) fn end(&self) -> i64 {
        self.entries.len() as i64
    }

    /// Behind the last record: markers may follow.
    pub(super) fn records_end(&self) -> i64 {
        let last = self.entries.iter().rposition(|e| e.state != State::Marker);
        last.map_or(0, |at| at as i64 + 1)
    }

    /// The last stable offset.
    pub(super) fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end())
    }

    /// Appends a record and says its offset.
    pub(super) fn append(&mut self, entry: Entry) -> i64 {
        let offset = self.end();
        if let (State::Open, Some(producer)) = (entry.state, entry.producer) {
            self.open.entry(producer).or_insert(offset);
        }
        self.entries.push(entry);
        offset
    }

    /// Writes the marker that decides a producer's transaction here.
    pub(super) fn mark(&mut self, producer: u64, committed: bool, at_ms: i64) {
        if let Some(first) = self.open.remove(&producer) {
            let state = if committed {
                State::Committed
            } else {
                State::Aborted
            };
            for entry in self.entries.iter_mut().skip(first as usize) {
                if entry.producer == Some(producer) && entry.state == State::Open {
                    entry.state = state;
                }
            }
        }
        self.entries.push(Entry {
            at_ms,
            key: None,
            value: None,
            headers: None,
            producer: Some(producer),
            state: State::Marker,
            removed: false,
        });
    }

    /// The next committed record at or behind `from`, and the position behind it, or behind what is no record.
    pub(super) fn next_committed(&self, from: i64) -> (Option<i64>, i64) {
        let end = self.stable_end();
        let mut at = from;
        while at < end {
            let entry = self.entries.get(at as usize);
            if entry.is_some_and(|entry| entry.is_committed() && !entry.removed) {
                return (Some(at), at + 1);
            }
            at += 1;
        }
        (None, at)
    }

    /// Committed records before `end`, the removed ones included.
    pub(super) fn committed_before(&self, end: i64) -> impl Iterator<Item = (i64, &Entry)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (at as i64, entry))
            .take_while(move |(at, _)| *at < end)
            .filter(|(_, entry)| entry.is_committed())
    }

    /// Keeps only the newest record of each key among those before `end`, and no tombstone older than `tombstones_before_ms`.
    pub(super) fn compact(&mut self, end: i64, tombstones_before_ms: i64) {
        let end = end.min(self.stable_end()) as usize;
        let mut newer = BTreeSet::new();
        for entry in self.entries.iter_mut().take(end).rev() {
            if !entry.is_committed() {
                continue;
            }
            let is_newest = newer.insert(entry.key.clone());
            let is_dead = entry.value.is_none() && entry.at_ms < tombstones_before_ms;
            entry.removed |= !is_newest || is_dead;
        }
    }

    /// Deletes everything before `start`.
    pub(super) fn retain_from(&mut self, start: i64) {
        self.start = self.start.max(start.min(self.stable_end()));
        for entry in self.entries.iter_mut().take(self.start as usize) {
            entry.removed = true;
        }
    }
}
