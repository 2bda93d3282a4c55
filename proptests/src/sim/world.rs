//! The simulated world below the seam: time, topics, coordinators, processes, and what is about to go wrong.

use super::counts::Counts;
use super::group::{Client, Group, HEARTBEAT_US};
use super::log::{Entry, Log, State};
use super::producer::ProducerClient;
use super::rng::Rng;
use super::schedule::{Fault, Held, Point, Shape};
use super::txn::{Late, Target, Txn};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The input topic.
pub(super) const RAW: usize = 0;
/// The content input.
pub(super) const CONTENT: usize = 1;
/// The content changelog.
pub(super) const CHANGELOG: usize = 2;
/// The output.
pub(super) const ENRICHED: usize = 3;
/// The changelog of parked events.
pub(super) const PENDING: usize = 4;
/// Checkpoints of published ids.
pub(super) const SEEN: usize = 5;
/// Dead letters.
pub(super) const DEAD: usize = 6;
/// Names of the topics.
pub(super) const TOPICS: [&str; 7] = [
    "engagement-events.raw",
    "content.raw",
    "content.changelog",
    "engagement-events.enriched",
    "engagement-events.pending",
    "engagement-events.seen",
    "engagement-events.dlq",
];
/// The broker's clock at the start of a schedule.
pub(super) const START_MS: i64 = 1_750_000_000_000;

/// What happens at a time of its own.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// A marker arrives at its partition.
    Marker {
        /// Of whose transaction.
        producer: u64,
        /// Where.
        target: Target,
        /// Commit or abort.
        commit: bool,
    },
}

/// One run of a node.
pub(super) struct Process {
    /// The node.
    pub(super) node: usize,
    /// False once it died or ended.
    pub(super) alive: bool,
    /// How many stops it is held by.
    pub(super) stopped: u32,
    /// Whether another process has its name.
    pub(super) replaced: bool,
    /// Its wall clock before the broker's, in milliseconds.
    pub(super) skew_ms: i64,
    /// Told when it shall end.
    pub(super) stop: Arc<AtomicBool>,
    /// What was committed and not applied yet: by which actor, and whether it was a checkpoint.
    pub(super) unapplied: Option<(usize, bool)>,
}

impl Process {
    /// Whether its threads run.
    pub(super) fn runs(&self) -> bool {
        self.alive && self.stopped == 0
    }
}

/// A fault that waits for its call.
pub(super) struct Armed {
    /// Whose.
    pub(super) node: usize,
    /// What.
    pub(super) fault: Fault,
}

/// Everything outside the processes.
pub(super) struct World {
    /// Chance, as the current step's seed decides it.
    pub(super) rng: Rng,
    /// Microseconds since the start.
    pub(super) now_us: u64,
    /// The deployment.
    pub(super) shape: Shape,
    /// Topics and their partitions.
    pub(super) logs: Vec<Vec<Log>>,
    /// Transactional ids.
    pub(super) txns: Vec<Txn>,
    /// Copies of requests that are stuck.
    pub(super) late: Vec<Late>,
    /// How slow the next transaction's markers are.
    pub(super) slow_markers_us: u64,
    /// The enricher's and the materializer's group.
    pub(super) groups: [Group; 2],
    /// Members' clients.
    pub(super) clients: Vec<Client>,
    /// Producers' clients.
    pub(super) producers: Vec<ProducerClient>,
    /// Every run of every node.
    pub(super) processes: Vec<Process>,
    /// Parts that get no time until then: the node, which part.
    pub(super) held: Vec<(usize, Held, u64)>,
    /// Armed faults.
    pub(super) faults: Vec<Armed>,
    /// Which actors run, the innermost last: process, slot, whether it is a barrier or the materializer.
    pub(super) running: Vec<(usize, usize, Part)>,
    /// What was reached.
    pub(super) counts: Counts,
    /// What must not be.
    pub(super) violations: Vec<String>,
    /// What happened, when it is wanted.
    pub(super) trace: Option<Vec<String>>,
    due: Vec<(u64, Due)>,
    next_beat_us: u64,
}

/// Which part of a process an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An enricher's worker.
    Worker(u8),
    /// What takes its partitions through the barrier.
    Barrier(u8),
    /// The content replica.
    Replica,
    /// The content watermark.
    Watermark,
    /// The materializer.
    Materializer,
}

impl World {
    /// An empty world.
    pub(super) fn new(shape: Shape, traced: bool) -> Self {
        let logs = (0..TOPICS.len()).map(|topic| {
            let partitions = match topic {
                RAW | ENRICHED | PENDING | SEEN => shape.partitions,
                DEAD => 1,
                _ => shape.content_partitions,
            };
            (0..partitions).map(|_| Log::default()).collect()
        });
        Self {
            rng: Rng::new(0),
            now_us: 0,
            shape,
            logs: logs.collect(),
            txns: Vec::new(),
            late: Vec::new(),
            slow_markers_us: 0,
            groups: [
                Group::new(shape.partitions),
                Group::new(shape.content_partitions),
            ],
            clients: Vec::new(),
            producers: Vec::new(),
            processes: Vec::new(),
            held: Vec::new(),
            faults: Vec::new(),
            running: Vec::new(),
            counts: Counts::default(),
            violations: Vec::new(),
            trace: traced.then(Vec::new),
            due: Vec::new(),
            next_beat_us: 0,
        }
    }

    /// A partition of a topic.
    pub(super) fn log(&mut self, topic: usize, partition: i32) -> &mut Log {
        &mut self.logs[topic][partition as usize]
    }

    /// The brokers' clock.
    pub(super) fn broker_ms(&self) -> i64 {
        START_MS + (self.now_us / 1000) as i64
    }

    /// Appends a record outside any transaction.
    pub(super) fn append(
        &mut self,
        topic: usize,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let entry = Entry {
            at_ms: self.broker_ms(),
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers: None,
            producer: None,
            state: State::Plain,
            removed: false,
        };
        self.log(topic, partition).append(entry);
    }

    /// Something will happen later.
    pub(super) fn schedule(&mut self, delay_us: u64, due: Due) {
        self.due.push((self.now_us + delay_us, due));
    }

    /// Time passes, and what falls due happens.
    pub(super) fn advance(&mut self, us: u64) {
        let until = self.now_us + us;
        while let Some(at) = self.next_due().filter(|at| self.due[*at].0 <= until) {
            let (when, due) = self.due.swap_remove(at);
            self.now_us = self.now_us.max(when);
            match due {
                Due::Marker {
                    producer,
                    target,
                    commit,
                } => {
                    self.write_marker(producer, target, commit);
                }
            }
        }
        self.now_us = until;
        if self.now_us >= self.next_beat_us {
            self.next_beat_us = self.now_us + HEARTBEAT_US / 20;
            self.sweep_txns();
            self.run_groups();
        }
    }

    /// Whether a part of a process gets no time now.
    pub(super) fn is_held(&self, process: usize, part: Part) -> bool {
        let held = match part {
            Part::Worker(_) => Held::Workers,
            Part::Barrier(_) => Held::Barriers,
            Part::Replica => Held::Replica,
            Part::Watermark => Held::Watermark,
            Part::Materializer => Held::Materializer,
        };
        let node = self.processes[process].node;
        self.held
            .iter()
            .any(|(of, part, until)| (*of, *part) == (node, held) && *until > self.now_us)
    }

    /// When the next thing falls due.
    fn next_due(&self) -> Option<usize> {
        let due = self.due.iter().enumerate();
        due.min_by_key(|(_, (at, _))| *at).map(|(at, _)| at)
    }

    /// Takes the first armed fault of a process that `wanted` picks.
    pub(super) fn take_fault<T>(
        &mut self,
        process: usize,
        wanted: impl Fn(&Fault) -> Option<T>,
    ) -> Option<T> {
        if self.faults.is_empty() || self.processes[process].replaced {
            return None;
        }
        let node = self.processes[process].node;
        let found = self
            .faults
            .iter()
            .enumerate()
            .filter(|(_, armed)| armed.node == node)
            .find_map(|(at, armed)| Some((at, wanted(&armed.fault)?)));
        let (at, taken) = found?;
        self.faults.remove(at);
        Some(taken)
    }

    /// What becomes of a process at this point: it dies or stops.
    pub(super) fn fate(&mut self, process: usize, point: Point) -> Option<Fault> {
        if self.faults.is_empty() || self.processes[process].replaced {
            return None;
        }
        let node = self.processes[process].node;
        for at in 0..self.faults.len() {
            let armed = &mut self.faults[at];
            let (Fault::Die {
                point: here, nth, ..
            }
            | Fault::Stop {
                point: here, nth, ..
            }) = &mut armed.fault
            else {
                continue;
            };
            if armed.node != node || *here != point {
                continue;
            }
            if *nth > 0 {
                *nth -= 1;
                continue;
            }
            return Some(self.faults.remove(at).fault);
        }
        None
    }

    /// Adds a line to the trace, if there is one.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let running: Vec<String> = self
                .running
                .iter()
                .map(|(process, _, part)| format!("{process}/{part:?}"))
                .collect();
            trace.push(format!(
                "{:>9} [{}] {}",
                self.now_us,
                running.join(" > "),
                line()
            ));
        }
    }

    /// Something that must not be was found.
    pub(super) fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violations.push(what);
    }
}
