//! Why the materializer cannot go on.

use super::table::ContentTableError;
use crate::kafka::{MemberError, OffsetsError, ProducerError, TransactorError};

/// Why the materializer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MaterializerError {
    /// The consumer or the producer.
    #[error(transparent)]
    Transactor(#[from] TransactorError),
    /// The table.
    #[error(transparent)]
    Table(#[from] ContentTableError),
    /// Committed offsets.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A topic refuses a record, and its settings do not say why.
    #[error(
        "{0}, although it is no larger than the topic's max.message.bytes says; raise that, or give this user leave to \
         describe the topic's configuration"
    )]
    Refused(String),
    /// The input lost records.
    #[error(
        "partition {partition} of `{topic}` begins at {start}, but it was processed up to {committed} only: rows are \
         lost. Have the connector take a new snapshot, then reset the group's offset of this partition to {start}"
    )]
    InputTruncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Log start.
        start: i64,
        /// Committed position.
        committed: i64,
    },
}

impl From<MemberError> for MaterializerError {
    fn from(error: MemberError) -> Self {
        Self::Transactor(error.into())
    }
}

impl From<ProducerError> for MaterializerError {
    fn from(error: ProducerError) -> Self {
        Self::Transactor(error.into())
    }
}
