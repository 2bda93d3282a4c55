//! The thread beside a worker that takes partitions through the barrier while the worker keeps polling.

use super::barrier::{Barrier, BarrierError, BarrierSettings, Passed, Surroundings};
use super::lease::Lease;
use crate::domain::Partition;
use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, Sender};
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
pub(super) struct Restorer {
    asks: Option<Sender<Ask>>,
    outcomes: Receiver<(u64, Result<Vec<Passed>, BarrierError>)>,
    latest: Arc<AtomicU64>,
    /// What the request under way covers.
    wanted: BTreeSet<i32>,
    thread: Option<JoinHandle<()>>,
}

impl Restorer {
    /// Starts the thread.
    pub(super) fn start(
        name: String,
        settings: Arc<BarrierSettings>,
        around: Surroundings,
    ) -> Result<Self, BarrierError> {
        let (asks, todo) = crossbeam_channel::bounded(QUEUE);
        let (done, outcomes) = crossbeam_channel::bounded(QUEUE);
        let latest = Arc::new(AtomicU64::new(0));
        let raw_topic = settings.raw_topic.clone();
        let metrics = around.metrics.clone();
        let barrier = Barrier::new(settings, around, Arc::clone(&latest))?;
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || serve(&barrier, &todo, &done, &raw_topic, &metrics))
            .ok();
        Ok(Self {
            asks: Some(asks),
            outcomes,
            latest,
            wanted: BTreeSet::new(),
            thread,
        })
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
            let (request, outcome) = self.outcomes.try_recv().ok()?;
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
            // The thread ends only when this sender is dropped.
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

fn serve(
    barrier: &Barrier,
    todo: &Receiver<Ask>,
    done: &Sender<(u64, Result<Vec<Passed>, BarrierError>)>,
    raw_topic: &str,
    metrics: &Metrics,
) {
    for ask in todo {
        match ask {
            Ask::Pass {
                request,
                leases,
                partitions,
            } => {
                let outcome = barrier.pass(request, leases, &partitions);
                if done.send((request, outcome)).is_err() {
                    return;
                }
            }
            Ask::Lag(positions) => {
                for (partition, lag) in barrier.lags(&positions) {
                    metrics.lag(raw_topic, Partition(partition)).set(lag);
                }
            }
        }
    }
}
