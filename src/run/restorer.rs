//! Beside each worker runs what takes partitions through the barrier, so that the worker can keep polling.

use super::barrier::{Barrier, BarrierError, BarrierSettings, Passed, Surroundings};
use super::lease::Lease;
use crate::domain::Partition;
use crate::kafka::Edge;
use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Requests and outcomes waiting in their queues; the worker has one request under way at most.
const QUEUE: usize = 64;

enum Ask {
    /// Take these through the barrier, with the leases that are held.
    Pass {
        request: u64,
        leases: BTreeMap<i32, Lease>,
        partitions: Vec<i32>,
    },
    /// Measure the lag behind these positions.
    Lag(BTreeMap<i32, i64>),
}

/// The worker's end.
pub struct Restorer {
    asks: Option<Sender<Ask>>,
    outcomes: Receiver<(u64, Result<Vec<Passed>, BarrierError>)>,
    latest: Arc<AtomicU64>,
    /// What the request under way covers.
    wanted: BTreeSet<i32>,
    thread: Option<JoinHandle<()>>,
}

/// The end that restores. It is served on a thread of its own.
pub struct Restoring<E: Edge> {
    barrier: Barrier<E>,
    todo: Receiver<Ask>,
    done: Sender<(u64, Result<Vec<Passed>, BarrierError>)>,
    raw_topic: String,
    metrics: Metrics,
}

impl Restorer {
    /// Starts the thread.
    pub(super) fn start<E>(
        name: String,
        settings: Arc<BarrierSettings>,
        around: Surroundings<E>,
    ) -> Result<Self, BarrierError>
    where
        E: Edge,
        Restoring<E>: Send,
    {
        let (mut this, restoring) = Self::new(settings, around)?;
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || while restoring.serve() {})
            .map_err(BarrierError::NoThread)?;
        this.thread = Some(thread);
        Ok(this)
    }

    /// Both ends; the second has to be served.
    pub fn new<E: Edge>(
        settings: Arc<BarrierSettings>,
        around: Surroundings<E>,
    ) -> Result<(Self, Restoring<E>), BarrierError> {
        let (asks, todo) = crossbeam_channel::bounded(QUEUE);
        let (done, outcomes) = crossbeam_channel::bounded(QUEUE);
        let latest = Arc::new(AtomicU64::new(0));
        let raw_topic = settings.raw_topic.clone();
        let metrics = around.metrics.clone();
        let barrier = Barrier::new(settings, around, Arc::clone(&latest))?;
        let restorer = Self {
            asks: Some(asks),
            outcomes,
            latest,
            wanted: BTreeSet::new(),
            thread: None,
        };
        let restoring = Restoring {
            barrier,
            todo,
            done,
            raw_topic,
            metrics,
        };
        Ok((restorer, restoring))
    }

    /// Asks for partitions, beside those of a request that is still under way, which this one replaces.
    pub(super) fn request(&mut self, leases: BTreeMap<i32, Lease>, partitions: &[i32]) {
        self.wanted.extend(partitions);
        let request = self.latest.fetch_add(1, Ordering::AcqRel) + 1;
        let partitions = self.wanted.iter().copied().collect();
        self.ask(Ask::Pass {
            request,
            leases,
            partitions,
        });
    }

    /// What the request under way covers.
    pub(super) fn wanted(&self) -> impl Iterator<Item = i32> + '_ {
        self.wanted.iter().copied()
    }

    /// A partition was revoked: an outcome for it is not wanted any more. A [`request`](Self::request) must follow.
    pub(super) fn forget(&mut self, partition: i32) {
        self.wanted.remove(&partition);
    }

    /// The outcome of the latest request, once it is there.
    pub(super) fn take(&mut self) -> Option<Result<Vec<Passed>, BarrierError>> {
        loop {
            let (request, outcome) = match self.outcomes.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => return None,
                // It ends when this value is dropped, not before.
                Err(TryRecvError::Disconnected) => return Some(Err(BarrierError::RestorerEnded)),
            };
            if request == self.latest.load(Ordering::Acquire) {
                self.wanted.clear();
                return Some(outcome);
            }
        }
    }

    /// Has the lag behind the positions measured, unless the thread is busy.
    pub(super) fn measure_lag(&self, positions: BTreeMap<i32, i64>) {
        if !positions.is_empty()
            && self.wanted.is_empty()
            && let Some(asks) = &self.asks
        {
            // A full queue means that an earlier measurement is under way.
            let _ = asks.try_send(Ask::Lag(positions));
        }
    }

    fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            // A thread that is gone is found by `take`.
            let _ = asks.send(ask);
        }
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.latest.fetch_add(1, Ordering::AcqRel);
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own message.
            let _ = thread.join();
        }
    }
}

impl<E: Edge> Restoring<E> {
    /// Whether something was asked for.
    pub fn is_asked(&self) -> bool {
        !self.todo.is_empty()
    }

    /// Waits for the next request and serves it; false once the worker's end is gone.
    pub fn serve(&self) -> bool {
        let Ok(ask) = self.todo.recv() else {
            return false;
        };
        match ask {
            Ask::Pass {
                request,
                leases,
                partitions,
            } => {
                let outcome = self.barrier.pass(request, leases, &partitions);
                self.done.send((request, outcome)).is_ok()
            }
            Ask::Lag(positions) => {
                for (partition, lag) in self.barrier.lags(&positions) {
                    let lags = self.metrics.lag(&self.raw_topic, Partition(partition));
                    lags.set(lag);
                }
                true
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panicked_is_an_error_and_no_silence() {
        let (asks, _todo) = crossbeam_channel::bounded(QUEUE);
        let (done, outcomes) = crossbeam_channel::bounded(QUEUE);
        let mut restorer = Restorer {
            asks: Some(asks),
            outcomes,
            latest: Arc::default(),
            wanted: BTreeSet::new(),
            thread: None,
        };
        restorer.request(BTreeMap::new(), &[3]);
        assert!(restorer.take().is_none(), "it is under way");
        let thread = std::thread::spawn(move || {
            let _done = done;
            std::panic::resume_unwind(Box::new("a test's panic"));
        });
        thread.join().unwrap_err();
        let taken = restorer.take();
        assert!(matches!(taken, Some(Err(BarrierError::RestorerEnded))));
    }
}
