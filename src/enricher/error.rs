//! Why a step failed. Bad input never is an error: it becomes a dead letter.

use super::rules::Misplaced;
use crate::codec::ValueError;
use crate::domain::{Container, EventId, Offset, Partition};
use std::fmt;

/// Why a step failed.
#[derive(Debug)]
pub enum TaskError<E> {
    /// A look-up failed.
    View(E),
    /// A parked event is in the index but not in the store.
    ParkedMissing(Partition, EventId),
    /// A container of published ids in the store cannot be read.
    SeenUnreadable(Partition, Container),
    /// A parked event had been published already.
    PublishedTwice(Partition, EventId),
    /// A parked event's stored value cannot be read.
    ParkedUnreadable(Partition, EventId, ValueError),
    /// A record does not lie where its id belongs, and keys are strict.
    Misplaced(Partition, Offset, EventId, Misplaced),
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(error) => error.fmt(f),
            Self::ParkedMissing(partition, id) => {
                write!(
                    f,
                    "partition {partition}: parked event {id} is missing from the store"
                )
            }
            Self::SeenUnreadable(partition, container) => write!(
                f,
                "partition {partition}: container {} of the published ids is unreadable",
                container.0
            ),
            Self::PublishedTwice(partition, id) => write!(
                f,
                "partition {partition}: parked event {id} was published before; nothing was written"
            ),
            Self::Misplaced(partition, offset, id, why) => write!(
                f,
                "partition {partition}, offset {offset}: event {id} is misplaced: {why}. An id that comes in two partitions \
                 would be published twice, so `strict_keys` stops here. Give upstream back its key converter and number of \
                 partitions; to process such records all the same, set strict_keys = false"
            ),
            Self::ParkedUnreadable(partition, id, error) => {
                write!(
                    f,
                    "partition {partition}: parked event {id} is unreadable: {error}"
                )
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for TaskError<E> {}
