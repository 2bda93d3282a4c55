//! Why a partition is refused, in words that an operator can act on.

use crate::domain::LedgerError;
use crate::kafka::{ChangelogError, OffsetsError};

/// Why a partition cannot be processed.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// Offsets cannot be read.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A changelog cannot be read.
    #[error(transparent)]
    Changelog(#[from] ChangelogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// A commit is missing where there must have been one.
    #[error(
        "group `{group}` has no committed offset for partition {partition} of `{topic}`, but the partition's outputs are \
         not empty: starting at the beginning would publish events twice. Offsets expire after 7 days without a member, \
         and a reset drops them. Set the group's offset, with the ledger as its metadata, from the last commit known; or \
         run under another --app with new output topics"
    )]
    CommitLost {
        /// Group.
        group: String,
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// A commit has no readable ledger.
    #[error(
        "the commit of group `{group}` for partition {partition} of `{topic}` carries no ledger (`{metadata}`: {reason}). \
         An offset that was reset by hand loses it. Set the offset again with the last ledger as its metadata"
    )]
    LedgerUnreadable {
        /// Group.
        group: String,
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// What was committed.
        metadata: String,
        /// Why it is no ledger.
        reason: LedgerError,
    },
    /// Records were deleted before they were processed.
    #[error(
        "partition {partition} of `{topic}` holds offsets {start} to {end}, but it was processed up to {committed}: \
         records are gone. Restore the topic, or accept the loss by setting the group's offset to {start} with its \
         metadata unchanged"
    )]
    InputTruncated {
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Log start.
        start: i64,
        /// Log end.
        end: i64,
        /// Committed position.
        committed: i64,
    },
    /// The pending table does not agree with the ledger, even when built anew.
    #[error(
        "partition {partition}: {found} events are parked, the ledger says {expected}, also after `{topic}` was read anew: \
         the changelog lost records. Nothing was written"
    )]
    PendingMismatch {
        /// The pending topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Events found.
        found: u64,
        /// Events according to the ledger.
        expected: u64,
    },
    /// The published ids do not agree with the ledger, even when built anew.
    #[error(
        "partition {partition}: {found:?} ids are known as published, the ledger says {expected}, also after `{topic}` and \
         `{enriched}` were read anew: a checkpoint or the records behind the last one are gone (does the retention of \
         `{enriched}` cover the longest outage?). Nothing was written"
    )]
    SeenMismatch {
        /// The topic of checkpoints.
        topic: String,
        /// The enriched topic.
        enriched: String,
        /// Partition.
        partition: i32,
        /// Ids found; none when a container is unreadable.
        found: Option<u64>,
        /// Events published according to the ledger.
        expected: u64,
    },
    /// A stored row is not what was written.
    #[error("partition {partition}: a parked event in the store is unreadable: {reason}")]
    ParkedUnreadable {
        /// Partition.
        partition: i32,
        /// What the codec said.
        reason: String,
    },
    /// The thread beside the worker cannot be started.
    #[error(
        "the system refused a thread for restoring partitions: {0}; raise the limit of threads (ulimit -u, pids.max)"
    )]
    NoThread(std::io::Error),
    /// The thread beside the worker is gone, and with it every restore that was asked for.
    #[error(
        "the thread that restores partitions panicked, its own message says why; nothing was written, a restart restores anew"
    )]
    RestorerEnded,
    /// The group's commits moved while the barrier worked: it has to begin again.
    #[error("another process committed meanwhile")]
    Overtaken,
    /// The barrier was called off: the assignment changed, or the process stops.
    #[error("called off")]
    CalledOff,
}

impl BarrierError {
    /// Whether the same question may get an answer: the brokers did not answer, or retention deleted what was about to be
    /// read, in which case the log's bounds are asked for again.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Offsets(_) | Self::Changelog(ChangelogError::OutOfRange(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_retention_deletes_while_it_is_read_is_read_again_from_where_it_begins_now() {
        let gone = ChangelogError::OutOfRange("topic".to_owned());
        assert!(BarrierError::from(gone).may_pass());
        let broken = ChangelogError::Read {
            topic: "topic".to_owned(),
            reason: "broken".to_owned(),
        };
        assert!(!BarrierError::from(broken).may_pass());
        assert!(!BarrierError::CalledOff.may_pass());
    }
}
