//! Why a worker, or the process, ended.

use super::barrier::BarrierError;
use super::view::ViewError;
use crate::content::{ContentTableError, MaterializerError, ReplicaError};
use crate::enricher::TaskError;
use crate::kafka::{DescribeError, MemberError, OffsetsError, ProducerError, TransactorError};
use crate::recent::RecentError;
use crate::sinks::{GroupError, SinkEnd};
use std::net::SocketAddr;

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// The topics' ids.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// Offsets.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The materializer.
    #[error("materializer: {0}")]
    Materializer(MaterializerError),
    /// The content replica.
    #[error("content replica: {0}")]
    Replica(ReplicaError),
    /// The follower of the enriched topic.
    #[error("recent events: {0}")]
    Recent(RecentError),
    /// A sink.
    #[error("sink: {0}")]
    Sink(SinkEnd),
    /// The HTTP listener.
    #[error("cannot listen on {listen}: {reason}; choose another --listen")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A secret that a setting names.
    #[error("`{0}`: {1}")]
    Secret(&'static str, String),
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A successor has this instance's name.
    #[error(transparent)]
    Fenced(FencedBy),
    /// A thread panicked; its message was logged.
    #[error("the thread `{0}` panicked")]
    Panicked(String),
}

// The message of a part's error is inside its own, so it is no source: the end of the process would tell it twice.
impl From<MaterializerError> for RunError {
    fn from(error: MaterializerError) -> Self {
        Self::Materializer(error)
    }
}

impl From<ReplicaError> for RunError {
    fn from(error: ReplicaError) -> Self {
        Self::Replica(error)
    }
}

impl From<RecentError> for RunError {
    fn from(error: RecentError) -> Self {
        Self::Recent(error)
    }
}

impl From<SinkEnd> for RunError {
    fn from(error: SinkEnd) -> Self {
        Self::Sink(error)
    }
}

impl RunError {
    /// Whether a successor took this instance's place.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced(_)) || self.fenced_member().is_some()
    }

    /// The member whose name a successor has.
    pub(super) fn fenced_member(&self) -> Option<&str> {
        match self {
            Self::Worker(WorkerError::Transactor(TransactorError::Member(
                MemberError::Fenced(instance),
            )))
            | Self::Materializer(MaterializerError::Transactor(TransactorError::Member(
                MemberError::Fenced(instance),
            )))
            | Self::Sink(SinkEnd::Group(GroupError::Fenced { instance, .. })) => Some(instance),
            _ => None,
        }
    }

    /// A stop while something was waited for is an orderly end.
    pub(super) fn is_stop(&self) -> bool {
        matches!(
            self,
            Self::Worker(
                WorkerError::Transactor(TransactorError::Producer(ProducerError::Stopped))
                    | WorkerError::Barrier(BarrierError::CalledOff)
            ) | Self::Materializer(MaterializerError::Transactor(TransactorError::Producer(
                ProducerError::Stopped
            )))
        )
    }
}

/// Who has this instance's name now.
#[derive(Debug, thiserror::Error)]
#[error(
    "fenced: another process now runs as `{instance}`, on host {}; stop one of the two, or give each --instance of its own",
    .host.as_deref().unwrap_or("that the brokers do not tell")
)]
pub struct FencedBy {
    /// The member's name.
    pub instance: String,
    /// Where it runs now, where the brokers tell.
    pub host: Option<String>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The consumer or the producer.
    #[error(transparent)]
    Transactor(#[from] TransactorError),
    /// The restore barrier.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// The store.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// A content row.
    #[error(transparent)]
    Content(#[from] ContentTableError),
    /// A topic refuses a record, and its settings do not say why.
    #[error(
        "{0}, although it is no larger than the topic's max.message.bytes says; raise that, or give this user leave to \
         describe the topic's configuration"
    )]
    Refused(String),
    /// The step found the state broken.
    #[error("{0}")]
    Broken(String),
}

impl From<MemberError> for WorkerError {
    fn from(error: MemberError) -> Self {
        Self::Transactor(error.into())
    }
}

impl From<ProducerError> for WorkerError {
    fn from(error: ProducerError) -> Self {
        Self::Transactor(error.into())
    }
}

impl From<TaskError<ViewError>> for WorkerError {
    fn from(error: TaskError<ViewError>) -> Self {
        match error {
            TaskError::View(ViewError::Store(error)) => Self::Store(error),
            TaskError::View(ViewError::Content(error)) => Self::Content(error),
            broken => Self::Broken(broken.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_part_is_told_once() {
        let fenced = TransactorError::Member(MemberError::Fenced("thmanyah-materializer-0".into()));
        let error = RunError::from(MaterializerError::Transactor(fenced));
        let told = format!("{:#}", anyhow::Error::from(error));
        assert_eq!(told.matches("fenced").count(), 1, "{told}");
    }
}
