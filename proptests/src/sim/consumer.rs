//! A group member's client in the simulated world.

use super::edge::SimEdge;
use super::group::{Fetch, GroupMeta};
use super::offsets::record;
use super::schedule::{Fault, Point};
use super::world::World;
use rdkafka::message::OwnedMessage;
use std::sync::Arc;
use std::time::Duration;
use thmanyah::kafka::{Callbacks, GroupConsumer, PollFailure};

/// One member.
pub(super) struct SimConsumer {
    pub(super) edge: SimEdge,
    pub(super) client: usize,
    pub(super) topic: usize,
    pub(super) callbacks: Arc<Callbacks<SimEdge>>,
}

impl SimConsumer {
    /// Serves one callback; false when there was none.
    fn serve_event(&self) -> bool {
        let event = {
            let mut world = self.edge.world();
            let client = &mut world.clients[self.client];
            let event = client.event.take();
            // What is added comes in a poll of its own.
            if let Some(event) = &event
                && !event.revoke.is_empty()
                && event.assign.is_some()
            {
                client.event = Some(super::group::Event {
                    revoke: Vec::new(),
                    assign: event.assign.clone(),
                });
            }
            event
        };
        let Some(event) = event else {
            return false;
        };
        self.edge.world().note(|| format!("rebalance: {event:?}"));
        self.edge.world().clients[self.client].serving = true;
        if !event.revoke.is_empty() {
            self.callbacks.revoked(self, &event.revoke);
            self.edge.world().rejoin(self.client);
        } else if let Some(added) = &event.assign {
            self.callbacks.assigned(self, added);
        }
        self.edge.world().clients[self.client].serving = false;
        true
    }

    fn fetch(&self, world: &mut World) -> Result<Option<OwnedMessage>, PollFailure> {
        let partitions: Vec<i32> = world.clients[self.client].owned.keys().copied().collect();
        for partition in partitions {
            let Some(Fetch {
                position: Some(position),
                paused: false,
            }) = world.clients[self.client].owned.get(&partition).cloned()
            else {
                continue;
            };
            let log = world.log(self.topic, partition);
            if position < log.start {
                return Err(PollFailure::OutOfRange);
            }
            let (found, behind) = log.next_committed(position);
            if let Some(fetch) = world.clients[self.client].owned.get_mut(&partition) {
                fetch.position = Some(behind);
            }
            if let Some(offset) = found {
                return Ok(Some(record(world, self.topic, partition, offset)));
            }
        }
        Ok(None)
    }
}

impl GroupConsumer for SimConsumer {
    type Group = GroupMeta;
    type Record<'r> = OwnedMessage;

    fn next(&self, timeout: Duration) -> Result<Option<OwnedMessage>, PollFailure> {
        self.edge.reach(Point::Poll);
        if self.edge.world().clients[self.client].fenced {
            return Err(PollFailure::Fenced);
        }
        if self.serve_event() {
            return Ok(None);
        }
        let mut world = self.edge.world();
        let found = self.fetch(&mut world)?;
        if found.is_none() {
            world.advance(timeout.as_micros() as u64);
        }
        Ok(found)
    }

    fn group(&self) -> Option<GroupMeta> {
        Some(self.edge.world().clients[self.client].meta())
    }

    fn add(&self, partitions: &[i32]) -> Result<(), String> {
        self.edge.reach(Point::Callback);
        let mut world = self.edge.world();
        for partition in partitions {
            let fetch = Fetch {
                position: None,
                paused: true,
            };
            world.clients[self.client].owned.insert(*partition, fetch);
        }
        Ok(())
    }

    fn remove(&self, partitions: &[i32]) -> Result<(), String> {
        self.edge.reach(Point::Callback);
        let mut world = self.edge.world();
        for partition in partitions {
            world.clients[self.client].owned.remove(partition);
        }
        Ok(())
    }

    fn stop_reading(&self, partition: i32) -> Result<(), String> {
        let mut world = self.edge.world();
        if let Some(fetch) = world.clients[self.client].owned.get_mut(&partition) {
            fetch.paused = true;
        }
        Ok(())
    }

    fn read_from(&self, positions: &[(i32, i64)]) -> Result<(), String> {
        self.edge.reach(Point::Resume);
        let mut world = self.edge.world();
        let fails = |fault: &Fault| (*fault == Fault::ResumeFails).then_some(());
        if world.take_fault(self.edge.process, fails).is_some() {
            world.advance(500_000);
            return Err("the brokers do not answer".to_owned());
        }
        for (partition, position) in positions {
            let Some(fetch) = world.clients[self.client].owned.get_mut(partition) else {
                return Err(format!("partition {partition}: Erroneous state"));
            };
            *fetch = Fetch {
                position: Some(*position),
                paused: false,
            };
        }
        Ok(())
    }

    fn position_of(&self, partition: i32) -> Option<i64> {
        self.edge.world().clients[self.client]
            .owned
            .get(&partition)?
            .position
    }
}
