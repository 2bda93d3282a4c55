//! Runs a schedule: its steps, then the healing, then quiet, then the oracle.

use super::actors::{Actors, new_memory};
use super::counts::Counts;
use super::edge::Shared;
use super::input::{Inputs, content_id};
use super::oracle;
use super::rng::Rng;
use super::schedule::{DEADLINE_MS, Loss, Schedule, Step};
use super::store::Kind;
use super::world::{Armed, CHANGELOG, CONTENT, ENRICHED, PENDING, RAW, SEEN, World};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use thmanyah::codec::{decode_checkpoint, decode_parked};
use thmanyah::domain::Ledger;

/// Turns in which a healed deployment must come to rest.
const PATIENCE: usize = 12_000;
/// Turns between two looks whether it has.
const LOOK: usize = 25;
/// So many looks in a row that find nothing but parked events, and those are looked at.
const WAKES: usize = 24;
/// How often a process may end by itself in one schedule.
const EXITS: u32 = 60;

/// What came of a schedule.
pub struct Outcome {
    /// What was reached.
    pub counts: Counts,
    /// What must not be; empty when all is well.
    pub violations: Vec<String>,
    /// What happened, when it was wanted.
    pub trace: Vec<String>,
}

/// Runs a schedule.
pub fn run(schedule: &Schedule, traced: bool) -> Outcome {
    let nodes = usize::from(schedule.shape.nodes);
    let kinds = (0..nodes).map(|_| {
        if schedule.shape.real_stores {
            Kind::new_rocks()
        } else {
            new_memory()
        }
    });
    let sim = Rc::new(Shared {
        world: RefCell::new(World::new(schedule.shape, traced)),
        actors: RefCell::new(Actors::new(kinds.collect())),
        depth: Cell::new(0),
    });
    let mut run = Run {
        sim: Rc::clone(&sim),
        inputs: Inputs::default(),
    };
    sim.world.borrow_mut().rng = Rng::new(schedule.seed);
    for node in 0..nodes {
        sim.start(node);
    }
    for step in &schedule.steps {
        run.step(step);
        if !sim.world.borrow().violations.is_empty() {
            break;
        }
    }
    if sim.world.borrow().violations.is_empty() {
        run.finish(schedule.seed);
    }
    sim.tear_down();
    let mut world = sim.world.borrow_mut();
    Outcome {
        counts: std::mem::take(&mut world.counts),
        violations: std::mem::take(&mut world.violations),
        trace: world.trace.take().unwrap_or_default(),
    }
}

struct Run {
    sim: Rc<Shared>,
    inputs: Inputs,
}

impl Run {
    fn step(&mut self, step: &Step) {
        if !matches!(step, Step::Run { .. }) {
            self.sim.world.borrow_mut().note(|| format!("{step:?}"));
        }
        let sim = Rc::clone(&self.sim);
        match *step {
            Step::Run { seed, turns } => {
                sim.world.borrow_mut().rng = Rng::new(seed);
                self.restart(false);
                for _ in 0..turns {
                    sim.turn();
                }
            }
            Step::Wait { ms } => sim.world.borrow_mut().advance(u64::from(ms) * 1000),
            Step::Arm { node, fault } => {
                let node = node.into();
                sim.world.borrow_mut().faults.push(Armed { node, fault });
            }
            Step::Kill { node, loss } => self.kill(node.into(), loss),
            Step::Shutdown { node } => sim.shut_down(node.into()),
            Step::Jump { node, ms } => self.jump(node.into(), ms.into()),
            Step::Expire {
                node,
                worker,
                slips,
            } => self.expire(node, worker, slips),
            Step::Hold { node, part, ms } => {
                let mut world = sim.world.borrow_mut();
                let until = world.now_us + u64::from(ms) * 1000;
                world.held.push((node.into(), part, until));
            }
            Step::Rebalance { enricher } => {
                let mut world = sim.world.borrow_mut();
                let now = world.now_us;
                world.groups[usize::from(!enricher)].rebalance(now);
            }
            Step::SlowMarkers { ms } => {
                sim.world.borrow_mut().slow_markers_us = u64::from(ms) * 1000;
            }
            Step::Compact { topic, tombstones } => self.compact(topic, tombstones),
            Step::Retain { input } => self.retain(input),
            _ => self.inputs.append(step, &mut sim.world.borrow_mut()),
        }
    }

    fn kill(&self, node: usize, loss: Loss) {
        let process = self.sim.actors.borrow().nodes[node].process;
        if let Some(process) = process {
            self.sim.kill(process, loss);
        }
    }

    fn jump(&mut self, node: usize, ms: i64) {
        let mut actors = self.sim.actors.borrow_mut();
        let mut world = self.sim.world.borrow_mut();
        let node = &mut actors.nodes[node];
        // Clocks of several hosts stay nearer to each other than the deadline.
        let several = world.shape.nodes > 1;
        let most = if several { DEADLINE_MS / 4 } else { i64::MAX };
        node.skew_ms = (node.skew_ms + ms).clamp(-most, most);
        if let Some(process) = node.process {
            world.processes[process].skew_ms = node.skew_ms;
        }
        world.counts.reach("a wall clock jumped");
        self.inputs.clocks_jumped = true;
    }

    fn expire(&self, node: u8, worker: u8, slips: bool) {
        let mut world = self.sim.world.borrow_mut();
        let (group, instance) = if worker < world.shape.workers {
            (0, format!("node-{node}-{worker}"))
        } else {
            (1, format!("materializer-{node}"))
        };
        for client in &mut world.clients {
            if client.instance == instance && !client.closed {
                client.slips = slips;
            }
        }
        world.expire(group, &instance);
    }

    fn compact(&self, topic: u8, tombstones: bool) {
        let mut world = self.sim.world.borrow_mut();
        let topic = [CHANGELOG, PENDING, SEEN][usize::from(topic) % 3];
        // Tombstones stay until every fold that is not rebuilt has passed them: here, until the table is gone anyway.
        let before_ms = if tombstones && topic != CHANGELOG {
            0
        } else {
            i64::MIN
        };
        for partition in 0..world.logs[topic].len() as i32 {
            let end = world.log(topic, partition).stable_end();
            let log = world.log(topic, partition);
            log.compact(end, before_ms);
        }
        world.counts.reach("a changelog was compacted");
    }

    fn retain(&self, input: bool) {
        let mut world = self.sim.world.borrow_mut();
        for partition in 0..world.shape.partitions {
            let from = if input {
                let offsets = &world.groups[0].offsets;
                offsets.get(&partition).map(|(offset, _)| *offset)
            } else {
                let log = world.log(SEEN, partition);
                let end = log.stable_end();
                let mut found = None;
                for (_, entry) in log.committed_before(end) {
                    if entry.key.as_deref() == Some(b"position")
                        && let Some(Ok(checkpoint)) = entry.value.as_deref().map(decode_checkpoint)
                    {
                        found = Some(checkpoint.enriched.0);
                    }
                }
                found
            };
            let topic = if input { RAW } else { ENRICHED };
            if let Some(from) = from {
                world.log(topic, partition).retain_from(from);
                world.counts.reach("retention moved a log start");
            }
        }
    }

    /// Starts what is not running: all of it, or what chance picks.
    fn restart(&self, all: bool) {
        let nodes = self.sim.actors.borrow().nodes.len();
        for node in 0..nodes {
            let gone = self.sim.actors.borrow().nodes[node].process.is_none();
            if gone && (all || self.sim.world.borrow_mut().rng.chance(2, 3)) {
                self.sim.start(node);
            }
        }
    }

    /// Everything heals; the deployment comes to rest, and is looked at.
    fn finish(&mut self, seed: u64) {
        let mut rng = Rng::new(!seed);
        self.sim.world.borrow_mut().rng = rng.clone();
        self.heal();
        if rng.chance(1, 3) && self.is_well() {
            // Every disk is lost, and all that is left is the log.
            self.sim
                .world
                .borrow_mut()
                .note(|| "every disk is lost".to_owned());
            let nodes = self.sim.actors.borrow().nodes.len();
            for node in 0..nodes {
                self.kill(node, Loss::Disk);
            }
            self.inputs.repeat_one(&mut self.sim.world.borrow_mut());
            self.heal();
        }
        if self.is_well() {
            oracle::check(&self.inputs, &self.sim);
        }
    }

    fn is_well(&self) -> bool {
        self.sim.world.borrow().violations.is_empty()
    }

    fn heal(&self) {
        {
            let mut world = self.sim.world.borrow_mut();
            world.note(|| "healing".to_owned());
            world.faults.clear();
            world.held.clear();
            world.slow_markers_us = 0;
            for late in std::mem::take(&mut world.late) {
                world.arrive(late);
            }
        }
        let mut read_up = 0;
        for turn in 0..PATIENCE {
            if turn % LOOK == 0 {
                self.restart(true);
                if !self.is_well() {
                    return;
                }
                let waiting = self.waiting();
                if waiting == Some(0) && read_up > 2 {
                    return;
                }
                read_up = if waiting.is_some() { read_up + 1 } else { 0 };
                if read_up == WAKES && waiting > Some(0) {
                    self.all_woken();
                }
                if read_up > WAKES {
                    // What is left waits for its deadline.
                    self.sim.world.borrow_mut().advance(1_000_000);
                }
            }
            self.sim.turn();
        }
        let exits = self
            .sim
            .actors
            .borrow()
            .nodes
            .iter()
            .map(|node| node.exits)
            .max();
        let mut world = self.sim.world.borrow_mut();
        if exits > Some(EXITS) {
            world.violate(format!("a process ended {exits:?} times"));
        }
        let offsets = world.groups[0].offsets.clone();
        world.violate(format!("no rest: offsets {offsets:?}"));
    }

    /// How many events are parked, once everything else was processed and nothing is under way.
    fn waiting(&self) -> Option<u64> {
        let world = self.sim.world.borrow();
        let whole = world.groups.iter().all(super::group::Group::is_whole);
        if !whole || !world.txns_are_settled() {
            return None;
        }
        let mut parked = 0;
        for (group, topic) in [(0, RAW), (1, CONTENT)] {
            for (partition, log) in world.logs[topic].iter().enumerate() {
                let committed = world.groups[group].offsets.get(&(partition as i32));
                let (position, metadata) = match committed {
                    Some((position, metadata)) => (*position, metadata.as_str()),
                    None => (0, ""),
                };
                // The content group follows markers; the watermark waits for it.
                let end = if topic == RAW {
                    log.records_end()
                } else {
                    log.end()
                };
                if position < end {
                    return None;
                }
                parked += Ledger::parse(metadata).map_or(0, |ledger| ledger.pending);
            }
        }
        Some(parked)
    }

    /// Long after everything else came to rest no event may be parked whose content is there.
    fn all_woken(&self) {
        let mut world = self.sim.world.borrow_mut();
        let mut known = BTreeMap::new();
        for change in &self.inputs.changes {
            known.insert(content_id(change.content), change.row.is_some());
        }
        let mut forgotten = Vec::new();
        for log in &world.logs[PENDING] {
            let mut parked = BTreeMap::new();
            for (_, entry) in log.committed_before(log.end()) {
                parked.insert(entry.key.clone(), entry.value.clone());
            }
            for value in parked.into_values().flatten() {
                let Ok(event) = decode_parked(&value).map(|parked| parked.event) else {
                    continue;
                };
                let content = event.content_id.map(|id| id.text());
                let content = content.map(|text| String::from_utf8_lossy(&text).into_owned());
                if content.is_some_and(|content| known.get(&content) == Some(&true)) {
                    forgotten.push(event.id.0);
                }
            }
        }
        for id in forgotten {
            world.violate(format!("event {id} is parked though its content is there"));
        }
    }
}
