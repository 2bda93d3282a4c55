//! One part of a simulated process, and why it may end the process.

use super::edge::SimEdge;
use super::store::Disk;
use thmanyah::content::{
    ContentTable, Following, Materializer, MaterializerError, MaterializerSettings, Replica,
    ReplicaError, ReplicaPositions, Vouching,
};
use thmanyah::health::Health;
use thmanyah::kafka::{MemberError, MemberSettings, ProducerSettings, Transactor, TransactorError};
use thmanyah::metrics::Metrics;
use thmanyah::run::{BarrierError, Restoring, Worker, WorkerError, WorkerParts};

/// One part.
pub(super) enum Actor {
    Joining(Box<(WorkerParts<SimEdge>, ProducerSettings, MemberSettings)>),
    Worker(Box<Worker<SimEdge>>),
    Barrier(Box<Restoring<SimEdge>>),
    Replica(Box<Replica<SimEdge>>),
    Following(Box<Following<SimEdge>>),
    Watermark(Box<Vouching<SimEdge>>),
    Materializing(Box<(MaterializerSettings, ContentTable<Disk>, ReplicaPositions)>),
    Materializer(Box<Materializer<SimEdge>>),
}

/// Why a process ended by itself.
pub(super) enum Exit {
    /// A successor has its name.
    Fenced,
    /// It would be started again.
    Restart(String),
    /// It refuses to go on, or found its state broken.
    Refused(String),
}

impl From<TransactorError> for Exit {
    fn from(error: TransactorError) -> Self {
        match error {
            TransactorError::Member(MemberError::Fenced(_)) => Self::Fenced,
            other => Self::Restart(other.to_string()),
        }
    }
}

impl From<WorkerError> for Exit {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Transactor(error) => error.into(),
            WorkerError::Barrier(
                BarrierError::Offsets(_) | BarrierError::Changelog(_) | BarrierError::CalledOff,
            ) => Self::Restart(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<MaterializerError> for Exit {
    fn from(error: MaterializerError) -> Self {
        match error {
            MaterializerError::Transactor(error) => error.into(),
            MaterializerError::Offsets(error) => Self::Restart(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<ReplicaError> for Exit {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Changelog(_) | ReplicaError::Offsets(_) => {
                Self::Restart(error.to_string())
            }
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Actor {
    /// One turn; what it has become.
    pub(super) fn turn(
        self,
        edge: &SimEdge,
        metrics: &Metrics,
        health: &Health,
    ) -> Result<Self, Exit> {
        Ok(match self {
            Self::Joining(parts) => {
                let (parts, producer, member) = *parts;
                let transactor =
                    Transactor::start(edge.clone(), producer, member, metrics.clone())?;
                Self::Worker(Box::new(Worker::new(parts, transactor)))
            }
            Self::Worker(mut worker) => {
                worker.turn()?;
                Self::Worker(worker)
            }
            Self::Barrier(barrier) => {
                barrier.serve();
                Self::Barrier(barrier)
            }
            Self::Replica(replica) => Self::Following(Box::new(replica.follow()?)),
            Self::Following(mut following) => {
                following.turn(metrics, health)?;
                Self::Following(following)
            }
            Self::Watermark(mut watermark) => {
                watermark.turn();
                Self::Watermark(watermark)
            }
            Self::Materializing(parts) => {
                let (settings, table, positions) = *parts;
                Self::Materializer(Box::new(Materializer::start(
                    edge.clone(),
                    settings,
                    table,
                    positions,
                    metrics.clone(),
                )?))
            }
            Self::Materializer(mut materializer) => {
                materializer.turn()?;
                Self::Materializer(materializer)
            }
        })
    }

    /// An orderly end.
    pub(super) fn finish(self) -> Result<(), Exit> {
        match self {
            Self::Worker(worker) => Ok(worker.finish()?),
            Self::Materializer(materializer) => Ok(materializer.finish()?),
            _ => Ok(()),
        }
    }
}
