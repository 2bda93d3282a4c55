//! A transactional producer's client in the simulated world.

use super::edge::{SimEdge, topic_number};
use super::group::GroupMeta;
use super::log::{Entry, State};
use super::schedule::{Fault, Point};
use super::txn::{Late, LateRequest, Refusal, Target};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use thmanyah::kafka::{CallError, Outgoing, RawProducer, Track};

/// Between two tries of a request that came too early, in microseconds.
const BACKOFF_US: u64 = 20_000;

/// A client that will be given an epoch.
pub(super) struct ProducerClient {
    id: String,
    producer: u64,
    epoch: i32,
    queue: VecDeque<Queued>,
    /// What the coordinator was told to add to the transaction.
    added: BTreeSet<Target>,
    delivered: BTreeMap<(Track, i32), i64>,
    failed: Option<String>,
    fatal: Option<String>,
    trouble: u64,
}

struct Queued {
    topic: usize,
    partition: i32,
    track: Option<Track>,
    entry: Entry,
}

impl ProducerClient {
    /// A client of this transactional id, not initialised yet.
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            producer: 0,
            epoch: -1,
            queue: VecDeque::new(),
            added: BTreeSet::new(),
            delivered: BTreeMap::new(),
            failed: None,
            fatal: None,
            trouble: 0,
        }
    }
}

/// One producer.
pub(super) struct SimProducer {
    pub(super) edge: SimEdge,
    pub(super) client: usize,
}

/// An error with its flags: abort required, fatal.
fn error((requires_abort, fatal): (bool, bool), reason: &str) -> CallError {
    CallError {
        retriable: false,
        requires_abort,
        fatal,
        stale: false,
        reason: reason.to_owned(),
    }
}

fn retriable(reason: &str) -> CallError {
    CallError {
        retriable: true,
        ..error((false, false), reason)
    }
}

/// Sends a request until the coordinator has time for it.
fn persist<T>(
    world: &mut World,
    request: impl Fn(&mut World) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    loop {
        match request(world) {
            Err(Refusal::Busy) => world.advance(BACKOFF_US),
            outcome => return outcome,
        }
    }
}

impl SimProducer {
    fn add(&self, world: &mut World, target: Target) -> Result<(), Refusal> {
        let client = &world.producers[self.client];
        let (producer, epoch) = (client.producer, client.epoch);
        if client.added.contains(&target) {
            return Ok(());
        }
        persist(world, |world| world.add_to_txn(producer, epoch, target))?;
        world.producers[self.client].added.insert(target);
        Ok(())
    }

    /// Sends what is queued.
    fn deliver(&self) {
        if self.edge.world().producers[self.client].queue.is_empty() {
            return;
        }
        self.edge.reach(Point::Send);
        let mut world = self.edge.world();
        let lost = |fault: &Fault| (*fault == Fault::Undelivered).then_some(());
        let mut lost = world.take_fault(self.edge.process, lost).is_some();
        while let Some(queued) = world.producers[self.client].queue.pop_front() {
            let Queued {
                topic,
                partition,
                track,
                entry,
            } = queued;
            let client = &world.producers[self.client];
            let (producer, epoch) = (client.producer, client.epoch);
            let outcome = if std::mem::take(&mut lost) {
                Err(Refusal::Invalid)
            } else {
                self.add(&mut world, Target::Log(topic, partition))
                    .and_then(|()| world.produce(producer, epoch, (topic, partition), entry))
            };
            let hard = world.rng.chance(1, 2);
            let client = &mut world.producers[self.client];
            match outcome {
                Ok(offset) => {
                    if let Some(track) = track {
                        client.delivered.insert((track, partition), offset + 1);
                    }
                }
                Err(refusal) => {
                    client.failed.get_or_insert(format!("{refusal:?}"));
                    if refusal == Refusal::Fenced && hard {
                        client.fatal.get_or_insert("fenced".to_owned());
                    }
                    client.queue.clear();
                }
            }
        }
    }

    /// Ends the transaction as a healthy client does.
    fn end(&self, world: &mut World, commit: bool) -> Result<(), CallError> {
        let client = &world.producers[self.client];
        let (producer, epoch) = (client.producer, client.epoch);
        if client.added.is_empty() {
            // Nothing to tell the coordinator.
            return Ok(());
        }
        let outcome = persist(world, |world| world.end_txn(producer, epoch, commit));
        let flags = [(false, true), (true, false), (false, false)][world.rng.below(3)];
        outcome.map_err(|refusal| error(flags, &format!("{refusal:?}")))
    }

    /// The first copy of `EndTxn` is stuck, the client waits, and its retry goes through.
    fn end_twice(
        &self,
        commit: bool,
        (passes, slow, trouble): (u8, bool, bool),
    ) -> Result<(), CallError> {
        let mut world = self.edge.world();
        world.counts.reach("EndTxn retried unseen");
        let client = &mut world.producers[self.client];
        client.trouble += u64::from(trouble);
        let late = Late {
            producer: client.producer,
            epoch: client.epoch,
            passes: passes.into(),
            request: LateRequest::End { commit },
        };
        let waited = if slow {
            world.rng.between(420_000, 1_500_000)
        } else {
            30_000
        };
        world.advance(waited);
        let outcome = self.end(&mut world, commit);
        world.late.push(late);
        outcome
    }

    fn note_commit(&self) {
        let mut world = self.edge.world();
        let checkpoint = world.producers[self.client]
            .delivered
            .keys()
            .any(|(track, _)| *track == Track::Seen);
        let slot = world.running.last().map_or(0, |(_, slot, _)| *slot);
        world.processes[self.edge.process].unapplied = Some((slot, checkpoint));
        world.note(|| {
            if checkpoint {
                "commits a checkpoint".to_owned()
            } else {
                "commits".to_owned()
            }
        });
    }
}

impl RawProducer for SimProducer {
    type Group = GroupMeta;

    fn init(&self, timeout: Duration) -> Result<(), CallError> {
        self.edge.reach(Point::Init);
        let mut world = self.edge.world();
        let id = world.producers[self.client].id.clone();
        let until = world.now_us + timeout.as_micros() as u64;
        loop {
            match world.init_producer(&id) {
                Ok((producer, epoch)) => {
                    let client = &mut world.producers[self.client];
                    (client.producer, client.epoch) = (producer, epoch);
                    return Ok(());
                }
                Err(_) if world.now_us >= until => return Err(retriable("busy")),
                Err(_) => world.advance(BACKOFF_US),
            }
        }
    }

    fn begin(&self) -> Result<(), CallError> {
        let mut world = self.edge.world();
        let client = &mut world.producers[self.client];
        client.added.clear();
        client.delivered.clear();
        client.failed = None;
        match &client.fatal {
            Some(reason) => Err(error((false, true), reason)),
            None => Ok(()),
        }
    }

    fn queue<'a>(&self, record: Outgoing<'a>) -> Result<Option<Outgoing<'a>>, String> {
        let mut world = self.edge.world();
        let topic = topic_number(record.topic);
        let partitions = world.logs[topic].len() as u32;
        let partition = record.partition.unwrap_or_else(|| {
            let key = record.key.unwrap_or_default();
            let hash = key.iter().fold(7u32, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u32::from(*byte))
            });
            (hash % partitions) as i32
        });
        let entry = Entry {
            at_ms: world.broker_ms(),
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers,
            producer: None,
            state: State::Open,
            removed: false,
        };
        let queued = Queued {
            topic,
            partition,
            track: record.track,
            entry,
        };
        world.producers[self.client].queue.push_back(queued);
        Ok(None)
    }

    fn serve(&self) {
        if self.edge.is_ending() {
            return;
        }
        if self.edge.world().rng.chance(1, 2) {
            self.deliver();
        }
    }

    fn push(&self, _: Duration) {
        self.deliver();
    }

    fn in_flight(&self) -> usize {
        self.edge.world().producers[self.client].queue.len()
    }

    fn purge(&self) {
        self.edge.world().producers[self.client].queue.clear();
    }

    fn send_offsets(
        &self,
        _: &str,
        positions: &[(i32, i64, String)],
        group: &GroupMeta,
    ) -> Result<(), CallError> {
        self.edge.reach(Point::BeforeOffsets);
        let mut world = self.edge.world();
        let again = |fault: &Fault| (*fault == Fault::Retriable).then_some(());
        if world.take_fault(self.edge.process, again).is_some() {
            return Err(retriable("try again"));
        }
        let late = world.take_fault(self.edge.process, |fault| match fault {
            Fault::LateOffsets { passes } => Some(*passes),
            _ => None,
        });
        let client = &world.producers[self.client];
        let (producer, epoch) = (client.producer, client.epoch);
        if late.is_some() {
            world.counts.reach("TxnOffsetCommit retried unseen");
            let pause = world.rng.between(420_000, 900_000);
            world.advance(pause);
        }
        let fatal = |refusal: Refusal| error((false, true), &format!("{refusal:?}"));
        self.add(&mut world, Target::Offsets(group.group))
            .map_err(fatal)?;
        if let Err(why) = world.groups[group.group].validate(group) {
            world.counts.reach("offsets were refused by the group");
            world.note(|| format!("offsets refused: {why}"));
            return Err(CallError {
                stale: why == "ILLEGAL_GENERATION",
                ..error((true, false), why)
            });
        }
        world
            .pend_offsets(producer, epoch, group.group, positions)
            .map_err(fatal)?;
        world.note(|| format!("offsets {positions:?}"));
        if let Some(passes) = late {
            world.late.push(Late {
                producer,
                epoch,
                passes: passes.into(),
                request: LateRequest::Offsets {
                    group: group.group,
                    meta: group.clone(),
                    positions: positions.to_vec(),
                },
            });
        }
        drop(world);
        self.edge.reach(Point::AfterOffsets);
        Ok(())
    }

    fn commit(&self) -> Result<(), CallError> {
        self.edge.reach(Point::BeforeEnd);
        let process = self.edge.process;
        let fault = self.edge.world().take_fault(process, |fault| match fault {
            Fault::HiddenRetry { commit: true, .. }
            | Fault::LostAnswer { .. }
            | Fault::Retriable => Some(*fault),
            _ => None,
        });
        match fault {
            Some(Fault::Retriable) => return Err(retriable("try again")),
            Some(Fault::HiddenRetry {
                passes,
                slow,
                trouble,
                ..
            }) => {
                self.end_twice(true, (passes, slow, trouble))?;
            }
            Some(Fault::LostAnswer { durable, flags }) => {
                let mut world = self.edge.world();
                let durable = durable && self.end(&mut world, true).is_ok();
                world.counts.reach(if durable {
                    "outcome unknown: committed"
                } else {
                    "outcome unknown: not committed"
                });
                world.note(|| format!("the commit's answer is lost, committed: {durable}"));
                if !durable {
                    // It may be on its way still.
                    let client = &world.producers[self.client];
                    let (producer, epoch) = (client.producer, client.epoch);
                    let passes = world.rng.between(0, 8) as u32;
                    world.late.push(Late {
                        producer,
                        epoch,
                        passes,
                        request: LateRequest::End { commit: true },
                    });
                }
                return Err(error(flags, "the answer is lost"));
            }
            _ => {
                let mut world = self.edge.world();
                self.end(&mut world, true)?;
            }
        }
        self.note_commit();
        self.edge.reach(Point::AfterEnd);
        Ok(())
    }

    fn abort(&self) -> Result<(), CallError> {
        if self.edge.is_ending() {
            return Ok(());
        }
        self.edge.reach(Point::Abort);
        let process = self.edge.process;
        let fault = self.edge.world().take_fault(process, |fault| match fault {
            Fault::HiddenRetry { commit: false, .. } | Fault::AbortFails => Some(*fault),
            _ => None,
        });
        match fault {
            Some(Fault::HiddenRetry {
                passes,
                slow,
                trouble,
                ..
            }) => self.end_twice(false, (passes, slow, trouble)),
            Some(_) => Err(error((false, true), "the abort failed")),
            None => {
                let mut world = self.edge.world();
                world.note(|| "aborts".to_owned());
                self.end(&mut world, false)
            }
        }
    }

    fn failed_delivery(&self) -> Option<String> {
        self.edge.world().producers[self.client].failed.clone()
    }

    fn fatal(&self) -> Option<String> {
        self.edge.world().producers[self.client].fatal.clone()
    }

    fn trouble(&self) -> u64 {
        self.edge.world().producers[self.client].trouble
    }

    fn take_delivered(&self) -> BTreeMap<(Track, i32), i64> {
        std::mem::take(&mut self.edge.world().producers[self.client].delivered)
    }
}
