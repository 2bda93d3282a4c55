//! The parts of simulated processes: the product's own, one turn at a time.

use super::actor::{Actor, Exit};
use super::edge::{Died, Shared, SimEdge};
use super::folds;
use super::parts::parts;
use super::schedule::Loss;
use super::store::{Disk, Kind, Memory};
use super::world::{Part, Process};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thmanyah::health::Health;
use thmanyah::kafka::TopicId;
use thmanyah::metrics::Metrics;

/// Nested turns at most.
const DEPTH: u32 = 4;
/// Sleeps in one turn at most, where a part of the same process cannot go on before this one.
const NAPS: u32 = 200;
/// Sleeps in one turn that are too many anywhere.
const FOREVER: u32 = 6_000;

thread_local! {
    /// Counters are of no interest here, and making them is slow.
    pub(super) static METRICS: Metrics = Metrics::new();
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
        // Nested too deep, what it waits for may have no room.
        if naps > FOREVER && running.len() == 1 {
            let mut world = self.world.borrow_mut();
            world.violate("a part waits for ever".to_owned());
        }
        if naps > FOREVER || beneath && naps > NAPS {
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
            folds::disk(&world, &node.kind, &mut wrong);
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

/// A disk of a new node.
pub(super) fn new_memory() -> Kind {
    Kind::Memory(Memory::default())
}
