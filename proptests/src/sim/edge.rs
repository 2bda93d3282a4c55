//! The seam's second implementation: what a simulated process reaches the simulated world by.

use super::actors::Actors;
use super::consumer::SimConsumer;
use super::group::{Client, GroupMeta};
use super::offsets::{SimOffsets, SimReader};
use super::producer::{ProducerClient, SimProducer};
use super::schedule::{Fault, Loss, Point};
use super::store::Disk;
use super::world::{Part, START_MS, TOPICS, World};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use thmanyah::kafka::{
    Callbacks, ChangelogError, Edge, Isolation, MemberSettings, OffsetsError, ProducerSettings,
};

/// What unwinds the stack of a process that died.
pub(super) struct Died;

/// The world, and the parts of the processes in it.
pub(super) struct Shared {
    /// Below the seam.
    pub(super) world: RefCell<World>,
    /// Above it.
    pub(super) actors: RefCell<Actors>,
    /// How many turns are nested in one another.
    pub(super) depth: Cell<u32>,
}

/// A process's way out.
#[derive(Clone)]
pub(super) struct SimEdge {
    /// The simulation.
    pub(super) sim: Rc<Shared>,
    /// The process.
    pub(super) process: usize,
}

impl SimEdge {
    /// The world.
    pub(super) fn world(&self) -> std::cell::RefMut<'_, World> {
        self.sim.world.borrow_mut()
    }

    /// Whether the process is dead, and this call comes from what is being dropped.
    pub(super) fn is_ending(&self) -> bool {
        std::thread::panicking() || !self.world().processes[self.process].alive
    }

    /// Every call passes here: time goes by, and the process may die or stop.
    pub(super) fn reach(&self, point: Point) {
        if std::thread::panicking() {
            return;
        }
        let fate = {
            let mut world = self.world();
            if !world.processes[self.process].alive {
                drop(world);
                std::panic::resume_unwind(Box::new(Died));
            }
            let us = world.rng.between(1, 400);
            world.advance(us);
            if point == Point::AfterApply
                && let Some((_, _, Part::Worker(_))) = world.running.last()
            {
                world.processes[self.process].unapplied = None;
            }
            world.fate(self.process, point)
        };
        match fate {
            Some(Fault::Die { loss, .. }) => self.die(point, loss),
            Some(Fault::Stop {
                turns,
                successor,
                alone,
                ..
            }) => self.stop(point, turns, successor, alone),
            _ => {}
        }
    }

    fn die(&self, point: Point, loss: Loss) -> ! {
        {
            let mut world = self.world();
            let name = name_of(&world, self.process, point);
            world.counts.reach(name);
            world.note(|| format!("dies at {point:?}: {loss:?}"));
        }
        self.sim.kill(self.process, loss);
        std::panic::resume_unwind(Box::new(Died));
    }

    /// The process stands still while others go on.
    fn stop(&self, point: Point, turns: u16, successor: bool, alone: bool) {
        {
            let mut world = self.world();
            world.note(|| format!("stops at {point:?} for {turns} turns, alone: {alone}"));
            world.processes[self.process].stopped += u32::from(!alone);
        }
        if successor {
            self.sim.replace(self.process);
        }
        for _ in 0..turns {
            self.sim.turn();
        }
        if self.is_ending() {
            // It was killed, or what it waited for was.
            std::panic::resume_unwind(Box::new(Died));
        }
        let mut world = self.world();
        world.processes[self.process].stopped -= u32::from(!alone);
        world.counts.reach("a stopped process went on");
        world.note(|| "goes on".to_owned());
        // The client's own threads may be faster than this one.
        if world.rng.chance(1, 2) {
            let ahead = world.rng.between(0, 1_500_000);
            world.advance(ahead);
        }
    }

    /// Whether the process will die inside the write of the store that is under way, and if so, whether it was done by then.
    pub(super) fn dies_inside_apply(&self) -> Option<bool> {
        let mut world = self.world();
        let process = &world.processes[self.process];
        if process.replaced || !process.alive {
            return None;
        }
        let node = process.node;
        let inside = |fault: &Fault| {
            matches!(
                fault,
                Fault::Die {
                    point: Point::InsideApply,
                    ..
                } | Fault::Stop {
                    point: Point::InsideApply,
                    ..
                }
            )
        };
        let armed = world
            .faults
            .iter()
            .any(|armed| armed.node == node && inside(&armed.fault));
        armed.then(|| world.rng.chance(1, 2))
    }

    /// A barrier waits or asks: its thread is not the only one.
    pub(super) fn let_others(&self, always: bool) {
        if std::thread::panicking() {
            return;
        }
        let turns = {
            let mut world = self.world();
            let innermost = world.running.last();
            let waits = matches!(innermost, Some((_, _, Part::Barrier(_))));
            match waits {
                true if always => 1,
                true if world.rng.chance(1, 3) => world.rng.between(1, 4),
                _ => 0,
            }
        };
        for _ in 0..turns {
            self.sim.turn();
        }
        if turns > 0 {
            // It may have died meanwhile.
            self.reach(Point::Ask);
        }
    }
}

/// Which crash point of the table this is.
fn name_of(world: &World, process: usize, point: Point) -> &'static str {
    let part = world.running.last().map(|(_, _, part)| *part);
    let unapplied = world.processes[process].unapplied;
    match (point, part) {
        (_, Some(Part::Materializer)) => "died in the materializer",
        (Point::Callback, _) => "died inside a rebalance callback",
        (_, Some(Part::Barrier(_))) => "died inside the barrier",
        (Point::AfterEnd | Point::BeforeApply, Some(Part::Worker(_))) => match unapplied {
            Some((_, true)) => "died between a checkpoint and the removal of its marks",
            _ => "died after the commit, before the batch",
        },
        (Point::InsideApply, _) => "died inside the batch",
        (Point::AfterApply, _) => "died after the batch",
        (
            Point::Send | Point::BeforeOffsets | Point::AfterOffsets | Point::BeforeEnd,
            Some(Part::Worker(_)),
        ) => "died before EndTxn was durable",
        _ => "died elsewhere",
    }
}

/// The number of a topic.
pub(super) fn topic_number(name: &str) -> usize {
    TOPICS
        .iter()
        .position(|topic| *topic == name)
        .unwrap_or_else(|| panic!("no topic {name}"))
}

/// A moment that all clocks that never jump count from. Only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

impl Edge for SimEdge {
    type Producer = SimProducer;
    type Consumer = SimConsumer;
    type Group = GroupMeta;
    type Offsets = SimOffsets;
    type Reader = SimReader;
    type Store = Disk;

    fn producer(&self, settings: &ProducerSettings) -> Result<SimProducer, String> {
        let mut world = self.world();
        world
            .producers
            .push(ProducerClient::new(&settings.transactional_id));
        let client = world.producers.len() - 1;
        drop(world);
        Ok(SimProducer {
            edge: self.clone(),
            client,
        })
    }

    fn join(
        &self,
        settings: &MemberSettings,
        callbacks: Arc<Callbacks<Self>>,
    ) -> Result<SimConsumer, String> {
        let mut world = self.world();
        let group = usize::from(settings.topic == TOPICS[super::world::CONTENT]);
        world
            .clients
            .push(Client::new(self.process, group, settings.instance.clone()));
        let client = world.clients.len() - 1;
        drop(world);
        Ok(SimConsumer {
            edge: self.clone(),
            client,
            topic: topic_number(&settings.topic),
            callbacks,
        })
    }

    fn close(&self, consumer: SimConsumer) {
        // A static member does not say good-bye.
        if let Ok(mut world) = self.sim.world.try_borrow_mut() {
            world.clients[consumer.client].closed = true;
        }
    }

    fn offsets(&self, group: &str, isolation: Isolation) -> Result<SimOffsets, OffsetsError> {
        Ok(SimOffsets {
            edge: self.clone(),
            group: usize::from(group.contains("materializer")),
            isolation,
        })
    }

    fn reader(&self, topic: &str, starts: BTreeMap<i32, i64>) -> Result<SimReader, ChangelogError> {
        Ok(SimReader {
            edge: self.clone(),
            topic: topic_number(topic),
            positions: RefCell::new(starts),
        })
    }

    fn now_ms(&self) -> i64 {
        let world = self.world();
        START_MS + (world.now_us / 1000) as i64 + world.processes[self.process].skew_ms
    }

    fn instant(&self) -> Instant {
        origin() + Duration::from_micros(self.world().now_us)
    }

    fn sleep(&self, time: Duration) {
        self.world().advance(time.as_micros() as u64);
        self.sim.nap();
        self.let_others(true);
        self.reach(Point::Ask);
    }
}
