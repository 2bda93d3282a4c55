//! What a mock has seen: of each key, and in which order. Its memory is bounded; what it had no room for is counted.

use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sums over all requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests to post an event, whatever became of them.
    pub requests: u64,
    /// Events that were taken, duplicates included.
    pub accepted: u64,
    /// Different keys among them.
    pub distinct: u64,
    /// Events that were there already when they came.
    pub duplicates: u64,
    /// Events that came after one with a greater id of the same content and the same partition, and were not there yet. The
    /// partition of an event is its id modulo the number of partitions, and ids ascend in it; where that is not so, this says
    /// nothing.
    pub out_of_order: u64,
    /// Keys that came with another body than before.
    pub changed_bodies: u64,
    /// Requests without a key, without JSON, or whose key is not the `event_id` of the body.
    pub malformed: u64,
    /// Requests that did not prove what they have to.
    pub unauthorized: u64,
    /// Events that were taken and not remembered, as the memory was full: duplicates among them are not seen as such.
    pub forgotten: u64,
    /// Faults that were played.
    pub faults: BTreeMap<String, u64>,
}

/// What was seen of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeySeen {
    /// Requests.
    pub attempts: u64,
    /// How often the event was taken.
    pub accepted: u64,
    /// The body that came last.
    pub body: String,
    /// The headers that came last, but for `Authorization`.
    pub headers: BTreeMap<String, String>,
}

/// An event that was taken, in the order of their coming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Its key.
    pub key: String,
    /// Its content.
    pub content_id: Option<String>,
    /// Whether it was there already.
    pub duplicate: bool,
    /// When it was taken, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// An event as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The key.
    pub key: String,
    /// `content_id` of the body.
    pub content_id: Option<String>,
    /// The body.
    pub body: String,
    /// The headers that are remembered.
    pub headers: BTreeMap<String, String>,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The memory.
#[derive(Debug)]
pub struct Seen {
    /// Keys that it has room for, and as many events in their order.
    room: usize,
    partitions: i64,
    totals: Totals,
    keys: HashMap<String, KeySeen>,
    journal: Vec<Accepted>,
    /// The greatest id of each content and partition.
    greatest: HashMap<(String, i64), i64>,
}

impl Seen {
    /// An empty memory with room for so many events.
    pub fn new(room: usize, partitions: u32) -> Self {
        Self {
            room,
            partitions: i64::from(partitions.max(1)),
            totals: Totals::default(),
            keys: HashMap::new(),
            journal: Vec::new(),
            greatest: HashMap::new(),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.room, u32::try_from(self.partitions).unwrap_or(1));
    }

    /// The sums.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What is counted besides what comes here.
    pub fn totals_mut(&mut self) -> &mut Totals {
        &mut self.totals
    }

    /// A fault was played.
    pub fn played(&mut self, fault: String) {
        *self.totals.faults.entry(fault).or_default() += 1;
    }

    /// What is known of a key.
    pub fn key(&self, key: &str) -> Option<&KeySeen> {
        self.keys.get(key)
    }

    /// The events that were taken, in order.
    pub fn journal(&self) -> &[Accepted] {
        &self.journal
    }

    /// A request with this event came.
    pub fn came(&mut self, arrival: &Arrival) {
        if self.keys.len() >= self.room && !self.keys.contains_key(&arrival.key) {
            return;
        }
        let seen = self.keys.entry(arrival.key.clone()).or_default();
        seen.attempts += 1;
        if seen.attempts > 1 && seen.body != arrival.body {
            self.totals.changed_bodies += 1;
        }
        seen.body.clone_from(&arrival.body);
        seen.headers.clone_from(&arrival.headers);
    }

    /// Whether the event was taken before.
    pub fn has(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|seen| seen.accepted > 0)
    }

    /// The event is taken.
    pub fn accept(&mut self, arrival: &Arrival) {
        self.totals.accepted += 1;
        let Some(seen) = self.keys.get_mut(&arrival.key) else {
            self.totals.forgotten += 1;
            return;
        };
        seen.accepted += 1;
        let duplicate = seen.accepted > 1;
        if duplicate {
            self.totals.duplicates += 1;
        } else {
            self.totals.distinct += 1;
            self.judge_order(arrival);
        }
        if self.journal.len() < self.room {
            self.journal.push(Accepted {
                key: arrival.key.clone(),
                content_id: arrival.content_id.clone(),
                duplicate,
                at_ms: now_ms(),
            });
        } else {
            self.totals.forgotten += 1;
        }
    }

    fn judge_order(&mut self, arrival: &Arrival) {
        // Events without a content have no order.
        let (Some(content), Ok(id)) = (&arrival.content_id, arrival.key.parse::<i64>()) else {
            return;
        };
        let place = (content.clone(), id.rem_euclid(self.partitions));
        let greatest = self.greatest.entry(place).or_insert(id);
        if id < *greatest {
            self.totals.out_of_order += 1;
        }
        *greatest = id.max(*greatest);
    }
}
