//! Why a step failed. Bad input never is an error: it becomes a dead letter.

use crate::codec::ValueError;
use crate::domain::{Container, EventId, Partition};
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
