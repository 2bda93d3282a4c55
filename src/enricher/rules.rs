//! What the configuration and the topics decide about a step.

use crate::codec::{EventRules, KeyShape, partition_of};
use crate::domain::{EventId, Partition};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What the configuration and the topics decide.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How records are read.
    pub events: EventRules,
    /// How long an event waits for its content, in milliseconds.
    pub deadline_ms: i64,
    /// Releases and time-outs stop at this size of a transaction.
    pub transaction_steps: usize,
    /// They also stop when the events parked in the transaction take so many bytes of memory.
    pub transaction_bytes: usize,
    /// The largest records that the output topics take.
    pub limits: SizeLimits,
    /// Which key and partition an event's record must have.
    pub keys: KeyRules,
    /// Containers of published ids that one partition keeps in memory, each up to 8 KiB.
    pub seen_containers: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            events: EventRules::default(),
            deadline_ms: 60_000,
            transaction_steps: 10_000,
            transaction_bytes: 16 << 20,
            limits: SizeLimits::default(),
            keys: KeyRules::default(),
            seen_containers: 1024,
        }
    }
}

/// The largest records that the output topics take, in bytes as `max.message.bytes` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// The enriched topic.
    pub enriched: usize,
    /// The changelog of parked events.
    pub pending: usize,
    /// The dead letters.
    pub dead_letters: usize,
}

impl Default for SizeLimits {
    fn default() -> Self {
        Self {
            enriched: usize::MAX,
            pending: usize::MAX,
            dead_letters: usize::MAX,
        }
    }
}

/// Which key and partition an event's record must have, so that its id is recognised wherever it comes again.
#[derive(Clone, Debug, Default)]
pub struct KeyRules {
    /// Partitions of the input topic; 0 leaves keys and partitions unchecked.
    pub partitions: i32,
    /// Whether a misplaced record stops the process.
    pub strict: bool,
    /// The shape of the keys, once a record has shown it; shared by all partitions of a process.
    pub shape: Arc<OnceLock<KeyShape>>,
}

/// What is wrong with where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// The key is not that of the event's id, in the shape first seen on the topic.
    Key,
    /// The key's partition is another.
    Partition(Partition),
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str(
                "its key is not that of its id, in the shape of the first key seen on the topic",
            ),
            Self::Partition(partition) => write!(f, "its key belongs to partition {partition}"),
        }
    }
}

impl KeyRules {
    /// What is wrong with where this event's record lies, if anything.
    pub(super) fn misplaced(
        &self,
        key: Option<&[u8]>,
        id: EventId,
        partition: Partition,
    ) -> Option<Misplaced> {
        if self.partitions <= 0 {
            return None;
        }
        let key = key.unwrap_or_default();
        let fits = match self.shape.get() {
            Some(shape) => shape.fits(key, id),
            None => match KeyShape::of(key, id) {
                // Another worker may have been faster with another shape.
                Some(shape) => self.shape.get_or_init(|| shape).fits(key, id),
                None => false,
            },
        };
        if !fits {
            return Some(Misplaced::Key);
        }
        let belongs = partition_of(key, self.partitions);
        (belongs != partition).then_some(Misplaced::Partition(belongs))
    }
}
