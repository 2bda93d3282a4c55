//! The parts of simulated processes: the product's own, one turn at a time.

use super::edge::{Died, Shared, SimEdge};
use super::oracle;
use super::schedule::{DEADLINE_MS, Loss, Shape};
use super::store::{Disk, Kind, Memory};
use super::world::{CHANGELOG, CONTENT, DEAD, ENRICHED, PENDING, Part, Process, RAW, SEEN, TOPICS};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thmanyah::codec::{EventRules, OperationRule, TimeMode};
use thmanyah::content::{
    ContentTable, ContentWatermark, Following, Materializer, MaterializerError,
    MaterializerSettings, Replica, ReplicaError, ReplicaSettings, Vouching, WatermarkSettings,
};
use thmanyah::enricher::Rules;
use thmanyah::health::Health;
use thmanyah::kafka::{
    MemberError, MemberSettings, ProducerSettings, TopicId, TopicLimits, Transactor,
    TransactorError,
};
use thmanyah::metrics::Metrics;
use thmanyah::run::{
    BarrierError, BarrierSettings, Leases, Ownership, Restorer, Restoring, StoreView, Surroundings,
    Worker, WorkerError, WorkerParts, WorkerSettings,
};

/// Nested turns at most.
const DEPTH: u32 = 3;
/// Sleeps in one turn at most, where a part of the same process cannot go on before this one.
const NAPS: u32 = 200;
/// How long a transaction stays open.
const COMMIT_INTERVAL: Duration = Duration::from_millis(60);
/// How often published ids are checkpointed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(900);

thread_local! {
    /// Counters are of no interest here, and making them is slow.
    static METRICS: Metrics = Metrics::new();
}

/// The id of a topic.
pub(super) fn topic_id(topic: usize) -> TopicId {
    [topic as u8 + 1; 16]
}

/// A place where processes run one after another.
pub(super) struct Node {
    /// Its disk.
    pub(super) kind: Kind,
    /// The process that has its name.
    pub(super) process: Option<usize>,
    /// Its clock before the brokers', in milliseconds.
    pub(super) skew_ms: i64,
    /// How often a process ended by itself.
    pub(super) exits: u32,
}

/// Every part of every process.
pub(super) struct Actors {
    /// The nodes.
    pub(super) nodes: Vec<Node>,
    slots: Vec<Slot>,
}

struct Slot {
    process: usize,
    part: Part,
    /// None while it runs, and once it is gone.
    actor: Option<Actor>,
    /// How often it slept in this turn.
    naps: u32,
}

/// One part.
enum Actor {
    Joining(Box<(WorkerParts<SimEdge>, ProducerSettings, MemberSettings)>),
    Worker(Box<Worker<SimEdge>>),
    Barrier(Box<Restoring<SimEdge>>),
    Replica(Box<Replica<SimEdge>>),
    Following(Box<Following<SimEdge>>),
    Watermark(Box<Vouching<SimEdge>>),
    Materializing(
        Box<(
            MaterializerSettings,
            ContentTable<Disk>,
            thmanyah::content::ReplicaPositions,
        )>,
    ),
    Materializer(Box<Materializer<SimEdge>>),
}

/// Why a process ended by itself.
enum Exit {
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
            TransactorError::Member(MemberError::OutOfRange(_)) => Self::Refused(error.to_string()),
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
    fn turn(self, edge: &SimEdge, metrics: &Metrics, health: &Health) -> Result<Self, Exit> {
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
    fn finish(self) -> Result<(), Exit> {
        match self {
            Self::Worker(worker) => Ok(worker.finish()?),
            Self::Materializer(materializer) => Ok(materializer.finish()?),
            _ => Ok(()),
        }
    }
}

impl Actors {
    /// Nodes with empty disks.
    pub(super) fn new(kinds: Vec<Kind>) -> Self {
        let nodes = kinds.into_iter().map(|kind| Node {
            kind,
            process: None,
            skew_ms: 0,
            exits: 0,
        });
        Self {
            nodes: nodes.collect(),
            slots: Vec::new(),
        }
    }
}

impl Shared {
    /// Starts a process on a node, under the node's name.
    pub(super) fn start(self: &Rc<Self>, node: usize) {
        let (process, shape) = {
            let mut world = self.world.borrow_mut();
            let skew_ms = self.actors.borrow().nodes[node].skew_ms;
            world.processes.push(Process {
                node,
                alive: true,
                stopped: 0,
                replaced: false,
                skew_ms,
                stop: Arc::new(AtomicBool::new(false)),
                unapplied: None,
            });
            let process = world.processes.len() - 1;
            world.note(|| format!("node {node} starts as process {process}"));
            (process, world.shape)
        };
        let edge = SimEdge {
            sim: Rc::clone(self),
            process,
        };
        let kind = self.actors.borrow().nodes[node].kind.clone();
        let disk = Disk {
            kind,
            process: Some(edge.clone()),
        };
        let parts = parts(&edge, node, shape, &disk);
        let mut actors = self.actors.borrow_mut();
        actors.nodes[node].process = Some(process);
        actors
            .slots
            .extend(parts.into_iter().map(|(part, actor)| Slot {
                process,
                part,
                actor: Some(actor),
                naps: 0,
            }));
    }

    /// A part sleeps. One that waits for another whose turn it interrupted would wait for ever: its process ends then.
    pub(super) fn nap(self: &Rc<Self>) {
        let running = self.world.borrow().running.clone();
        let Some((process, at, _)) = running.last().copied() else {
            return;
        };
        let beneath = running
            .iter()
            .rev()
            .skip(1)
            .any(|(other, _, _)| *other == process);
        let mut actors = self.actors.borrow_mut();
        let slot = &mut actors.slots[at];
        slot.naps += 1;
        let naps = slot.naps;
        drop(actors);
        if beneath && naps > NAPS {
            self.kill(process, Loss::Nothing);
        }
    }

    /// One turn of some part that can run now.
    pub(super) fn turn(self: &Rc<Self>) {
        if self.depth.get() >= DEPTH {
            return;
        }
        let Some(slot) = self.pick() else {
            self.world.borrow_mut().advance(20_000);
            return;
        };
        self.run_slot(slot, false);
    }

    fn pick(&self) -> Option<usize> {
        let actors = self.actors.borrow();
        let mut world = self.world.borrow_mut();
        let may = |slot: &Slot| {
            let Some(actor) = &slot.actor else {
                return false;
            };
            if !world.processes[slot.process].runs() || world.is_held(slot.process, slot.part) {
                return false;
            }
            let Actor::Barrier(barrier) = actor else {
                return true;
            };
            barrier.is_asked() && self.depth.get() + 1 < DEPTH
        };
        let count = actors.slots.iter().filter(|slot| may(slot)).count();
        if count == 0 {
            return None;
        }
        let found: Vec<usize> = (0..actors.slots.len())
            .filter(|at| may(&actors.slots[*at]))
            .collect();
        let at = world.rng.below(found.len());
        Some(found[at])
    }

    fn run_slot(self: &Rc<Self>, at: usize, finish: bool) {
        let (process, part, actor) = {
            let mut actors = self.actors.borrow_mut();
            let slot = &mut actors.slots[at];
            slot.naps = 0;
            (slot.process, slot.part, slot.actor.take())
        };
        let Some(actor) = actor else {
            return;
        };
        let edge = SimEdge {
            sim: Rc::clone(self),
            process,
        };
        let nested = {
            let mut world = self.world.borrow_mut();
            world.running.push((process, at, part));
            world.running.len()
        };
        self.depth.set(self.depth.get() + 1);
        let health = Health::new();
        let outcome = METRICS.with(|metrics| {
            catch_unwind(AssertUnwindSafe(|| {
                if finish {
                    actor.finish().map(|()| None)
                } else {
                    actor.turn(&edge, metrics, &health).map(Some)
                }
            }))
        });
        self.depth.set(self.depth.get() - 1);
        self.world.borrow_mut().running.truncate(nested - 1);
        match outcome {
            Ok(Ok(actor)) => {
                let alive = self.world.borrow().processes[process].alive;
                let mut actors = self.actors.borrow_mut();
                if alive {
                    actors.slots[at].actor = actor;
                } else {
                    drop(actors);
                    drop(actor);
                }
            }
            Ok(Err(exit)) => self.exit(process, exit),
            Err(payload) if payload.is::<Died>() => {}
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned().or_else(|| {
                    payload
                        .downcast_ref::<&str>()
                        .map(|text| (*text).to_owned())
                });
                let text = text.unwrap_or_default();
                self.world
                    .borrow_mut()
                    .violate(format!("a part panicked: {text}"));
                self.kill(process, Loss::Nothing);
            }
        }
    }

    fn exit(self: &Rc<Self>, process: usize, exit: Exit) {
        {
            let mut world = self.world.borrow_mut();
            let (node, replaced) = {
                let process = &world.processes[process];
                (process.node, process.replaced)
            };
            // The name belongs to the last that came, which may be the one that stood still before it joined, and each worker
            // and the materializer have one of their own.
            let namesake = world
                .processes
                .iter()
                .any(|other| other.node == node && other.replaced);
            match exit {
                Exit::Fenced if namesake => world.note(|| "ends, fenced".to_owned()),
                Exit::Fenced => world.violate("fenced without a successor".to_owned()),
                Exit::Restart(why) => world.note(|| format!("ends: {why}")),
                Exit::Refused(why) if replaced => world.note(|| format!("ends: {why}")),
                Exit::Refused(why) => world.violate(format!("refused to go on: {why}")),
            }
            self.actors.borrow_mut().nodes[node].exits += 1;
        }
        self.kill(process, Loss::Nothing);
    }

    /// A process is no more.
    pub(super) fn kill(self: &Rc<Self>, process: usize, loss: Loss) {
        let node = {
            let mut world = self.world.borrow_mut();
            if !std::mem::take(&mut world.processes[process].alive) {
                return;
            }
            for client in &mut world.clients {
                client.closed |= client.process == process;
            }
            world.note(|| format!("process {process} is gone: {loss:?}"));
            (!world.processes[process].replaced).then_some(world.processes[process].node)
        };
        let mut ended = Vec::new();
        let mut actors = self.actors.borrow_mut();
        for slot in &mut actors.slots {
            if slot.process == process {
                ended.extend(slot.actor.take());
            }
        }
        if let Some(node) = node {
            let node = &mut actors.nodes[node];
            node.process = None;
            let reached = node.kind.lose(loss);
            let mut world = self.world.borrow_mut();
            if let Some(reached) = reached {
                world.counts.reach(reached);
            }
            let mut wrong = Vec::new();
            oracle::disk(&world, &node.kind, &mut wrong);
            for what in wrong {
                world.violate(format!("what a process left: {what}"));
            }
        }
        drop(actors);
        drop(ended);
    }

    /// Another process takes the name of one that stands still, on another disk.
    pub(super) fn replace(self: &Rc<Self>, process: usize) {
        let node = {
            let mut world = self.world.borrow_mut();
            let old = &mut world.processes[process];
            if old.replaced || !old.alive {
                return;
            }
            old.replaced = true;
            let node = old.node;
            world.counts.reach("a zombie went on beside its successor");
            node
        };
        let kind = self.actors.borrow().nodes[node].kind.another();
        self.actors.borrow_mut().nodes[node].kind = kind;
        self.start(node);
    }

    /// An orderly end of a node's process.
    pub(super) fn shut_down(self: &Rc<Self>, node: usize) {
        let Some(process) = self.actors.borrow().nodes[node].process else {
            return;
        };
        let slots: Vec<usize> = {
            let actors = self.actors.borrow();
            (0..actors.slots.len())
                .filter(|at| actors.slots[*at].process == process)
                .collect()
        };
        for slot in slots {
            self.run_slot(slot, true);
        }
        self.kill(process, Loss::Nothing);
    }

    /// Breaks the circle of references.
    pub(super) fn tear_down(&self) {
        for process in &mut self.world.borrow_mut().processes {
            process.alive = false;
        }
        let slots = std::mem::take(&mut self.actors.borrow_mut().slots);
        drop(slots);
    }
}

/// The parts of a new process.
fn parts(edge: &SimEdge, node: usize, shape: Shape, disk: &Disk) -> Vec<(Part, Actor)> {
    let metrics = METRICS.with(Clone::clone);
    let health = Arc::new(Health::new());
    let stop = Arc::clone(&edge.world().processes[edge.process].stop);
    let table = ContentTable::new(disk.clone(), 64 * 16);
    let watermark = ContentWatermark::default();
    let settings = ReplicaSettings {
        topic: TOPICS[CHANGELOG].to_owned(),
        topic_id: topic_id(CHANGELOG),
        partitions: shape.content_partitions,
        wakeups: shape.wakeups,
    };
    let mut replica = Replica::new(edge.clone(), settings, disk.clone(), table.clone());
    let positions = replica.positions();
    let leases = Leases::default();
    let owned = Ownership::new(|_| {});
    let mut parts = Vec::new();
    for number in 0..shape.workers {
        let around = Surroundings {
            edge: edge.clone(),
            store: disk.clone(),
            leases: leases.clone(),
            replica: positions.clone(),
            watermark: watermark.clone(),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            stop: Arc::clone(&stop),
        };
        let Ok((restorer, restoring)) = Restorer::new(Arc::new(barrier_settings(shape)), around)
        else {
            unreachable!("simulated clients can always be made");
        };
        let name = format!("node-{node}-{number}");
        let worker = WorkerParts {
            edge: edge.clone(),
            number: number.into(),
            settings: Arc::new(worker_settings(shape)),
            restorer,
            view: StoreView {
                content: table.clone(),
                store: disk.clone(),
            },
            store: disk.clone(),
            wakeups: replica.wakeups(),
            watermark: watermark.clone(),
            metrics: metrics.clone(),
            beat: health.worker(&name, 0),
            health: Arc::clone(&health),
            owned: owned.clone(),
        };
        let producer = producer_settings(&name, &stop);
        let member = member_settings("enricher", &name, RAW);
        let joining = Actor::Joining(Box::new((worker, producer, member)));
        parts.push((Part::Worker(number), joining));
        parts.push((Part::Barrier(number), Actor::Barrier(Box::new(restoring))));
    }
    parts.push((Part::Replica, Actor::Replica(Box::new(replica))));
    let settings = WatermarkSettings {
        group: "materializer".to_owned(),
        raw_topic: TOPICS[CONTENT].to_owned(),
        raw_partitions: shape.content_partitions,
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
        deadline: Duration::from_millis(DEADLINE_MS as u64),
    };
    let Ok(vouching) = Vouching::new(edge.clone(), settings, positions.clone(), watermark) else {
        unreachable!("simulated clients can always be made");
    };
    parts.push((Part::Watermark, Actor::Watermark(Box::new(vouching))));
    let name = format!("materializer-{node}");
    let settings = MaterializerSettings {
        member: member_settings("materializer", &name, CONTENT),
        producer: producer_settings(&name, &stop),
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
        dlq_topic: TOPICS[DEAD].to_owned(),
        time: TimeMode::Iso,
        commit_interval: COMMIT_INTERVAL,
        limits: TopicLimits::default(),
    };
    let materializing = Actor::Materializing(Box::new((settings, table, positions)));
    parts.push((Part::Materializer, materializing));
    parts
}

fn producer_settings(name: &str, stop: &Arc<AtomicBool>) -> ProducerSettings {
    ProducerSettings {
        transactional_id: name.to_owned(),
        transaction_timeout: Duration::from_secs(10),
        max_record_bytes: 1 << 20,
        stop: Arc::clone(stop),
    }
}

fn member_settings(group: &str, name: &str, topic: usize) -> MemberSettings {
    MemberSettings {
        group: group.to_owned(),
        instance: name.to_owned(),
        topic: TOPICS[topic].to_owned(),
        session_timeout: Duration::from_secs(6),
        heartbeat: Duration::from_secs(2),
        max_poll_interval: Duration::from_secs(60),
        unsettle: Arc::default(),
    }
}

fn worker_settings(shape: Shape) -> WorkerSettings {
    WorkerSettings {
        raw_topic: TOPICS[RAW].to_owned(),
        enriched_topic: TOPICS[ENRICHED].to_owned(),
        pending_topic: TOPICS[PENDING].to_owned(),
        pending_id: topic_id(PENDING),
        enriched_id: topic_id(ENRICHED),
        seen_topic: TOPICS[SEEN].to_owned(),
        seen_id: topic_id(SEEN),
        checkpoint_interval: CHECKPOINT_INTERVAL,
        dlq_topic: TOPICS[DEAD].to_owned(),
        commit_interval: COMMIT_INTERVAL,
        rules: Rules {
            events: EventRules {
                updates: OperationRule::DeadLetter,
                deletes: OperationRule::DeadLetter,
                time: TimeMode::Iso,
            },
            deadline_ms: DEADLINE_MS,
            transaction_steps: shape.transaction_steps,
            seen_containers: shape.seen_containers,
            ..Rules::default()
        },
    }
}

fn barrier_settings(shape: Shape) -> BarrierSettings {
    BarrierSettings {
        group: "enricher".to_owned(),
        raw_topic: TOPICS[RAW].to_owned(),
        enriched_topic: TOPICS[ENRICHED].to_owned(),
        pending_topic: TOPICS[PENDING].to_owned(),
        pending_id: topic_id(PENDING),
        enriched_id: topic_id(ENRICHED),
        seen_topic: TOPICS[SEEN].to_owned(),
        seen_id: topic_id(SEEN),
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
    }
}

/// A disk of a new node.
pub(super) fn new_memory() -> Kind {
    Kind::Memory(Memory::default())
}
