//! The materializer: validates `content.raw` and writes the normalised rows to `content.changelog`, bad rows to the dead
//! letters, and its offsets, in one transaction.

use super::error::MaterializerError;
use super::letter::{bury, encode_within};
use super::positions::ReplicaPositions;
use super::table::ContentTable;
use super::unreplicated::{Unreplicated, resolve};
use crate::codec::{ContentChange, TimeMode, decode_content};
use crate::kafka::{
    Edge, Isolation, MemberSettings, Offsets, OffsetsError, Outgoing, ProducerError,
    ProducerSettings, TopicLimits, Transactor, TransactorError,
};
use crate::metrics::Metrics;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Records in one transaction.
const TRANSACTION_RECORDS: u64 = 5_000;
/// Bytes of content rows in one transaction, which are kept until the replica shows them.
const TRANSACTION_BYTES: usize = 8 << 20;
/// One wait for a record.
const POLL: Duration = Duration::from_millis(20);

/// What the materializer needs.
#[derive(Clone)]
pub struct MaterializerSettings {
    /// Group membership.
    pub member: MemberSettings,
    /// Transactions.
    pub producer: ProducerSettings,
    /// `content.changelog`.
    pub changelog_topic: String,
    /// Its number of partitions.
    pub changelog_partitions: i32,
    /// The dead letters.
    pub dlq_topic: String,
    /// The largest records that the output topics take.
    pub limits: TopicLimits,
    /// How `publish_ts` is written.
    pub time: TimeMode,
    /// How long a transaction stays open.
    pub commit_interval: Duration,
}

/// What became of the records of a transaction.
#[derive(Default)]
struct Counts {
    upserted: u64,
    deleted: u64,
    dead_letter: u64,
    truncated: u64,
    bytes: usize,
}

impl Counts {
    fn records(&self) -> u64 {
        self.upserted + self.deleted + self.dead_letter
    }

    fn is_full(&self) -> bool {
        self.records() >= TRANSACTION_RECORDS || self.bytes >= TRANSACTION_BYTES
    }
}

/// An owned partition that is past its gate.
struct Active {
    /// Next offset to read.
    position: i64,
    /// What the group has committed.
    committed: Option<i64>,
}

/// One thread: a member of the materializer's group with one transactional producer.
pub struct Materializer<E: Edge> {
    edge: E,
    settings: MaterializerSettings,
    transactor: Transactor<E>,
    committed: E::Offsets,
    ends: E::Offsets,
    table: ContentTable<E::Store>,
    replica: ReplicaPositions,
    metrics: Metrics,
    /// Whether the group has ever assigned anything, be it nothing.
    joined: bool,
    active: BTreeMap<i32, Active>,
    /// Partitions that wait until the replica shows all rows written so far, by this process or another; with the
    /// changelog's ends once they are known.
    gated: Vec<i32>,
    gate: Option<BTreeMap<i32, i64>>,
    unreplicated: Unreplicated,
    buffer: Vec<u8>,
    /// What the open transaction holds; counted once it committed.
    counts: Counts,
    opened: Option<Instant>,
    /// When the markers were followed last.
    looked: Instant,
    /// What the topics said when a record was refused last.
    refused: Option<TopicLimits>,
}

impl<E: Edge> Materializer<E> {
    /// Fences predecessors and joins the group.
    pub fn start(
        edge: E,
        settings: MaterializerSettings,
        table: ContentTable<E::Store>,
        replica: ReplicaPositions,
        metrics: Metrics,
    ) -> Result<Self, MaterializerError> {
        let group = &settings.member.group;
        let committed = edge.offsets(group, Isolation::Committed)?;
        let ends = edge.offsets(group, Isolation::Uncommitted)?;
        let transactor = Transactor::start(
            edge.clone(),
            settings.producer.clone(),
            settings.member.clone(),
            metrics.clone(),
        )?;
        Ok(Self {
            looked: edge.instant(),
            refused: None,
            edge,
            settings,
            transactor,
            committed,
            ends,
            table,
            replica,
            metrics,
            joined: false,
            active: BTreeMap::new(),
            gated: Vec::new(),
            gate: None,
            unreplicated: Unreplicated::default(),
            buffer: Vec::new(),
            counts: Counts::default(),
            opened: None,
        })
    }

    /// Runs until `stop` is set; then commits what is open. `ready` is called once, when it first is in the group and past the
    /// gate with what was assigned.
    pub fn run(
        mut self,
        stop: &AtomicBool,
        beat: impl Fn(),
        ready: impl FnOnce(),
    ) -> Result<(), MaterializerError> {
        let mut ready = Some(ready);
        while !stop.load(Ordering::Relaxed) {
            beat();
            self.turn()?;
            if self.joined
                && self.gated.is_empty()
                && let Some(ready) = ready.take()
            {
                ready();
            }
        }
        self.finish()
    }

    /// One round of the loop, and the way back after a failure.
    pub fn turn(&mut self) -> Result<(), MaterializerError> {
        let outcome = self.step();
        self.recover(outcome)
    }

    /// Commits what is open.
    pub fn finish(mut self) -> Result<(), MaterializerError> {
        let outcome = if self.opened.is_some() {
            self.commit()
        } else {
            Ok(())
        };
        self.recover(outcome)
    }

    /// One round: a rebalance's consequences, the gate, records, a commit that is due.
    fn step(&mut self) -> Result<(), MaterializerError> {
        if let Some(changes) = self.transactor.changes() {
            self.joined = true;
            for partition in &changes.revoked {
                self.active.remove(partition);
            }
            self.gated
                .retain(|partition| !changes.revoked.contains(partition));
            // Everything owned goes through the gate again, also where nothing was open: librdkafka can slip from an expired
            // membership into a new one, and another member may have committed in between.
            self.forget_open();
            let mut partitions = changes.assigned;
            partitions.extend(std::mem::take(&mut self.active).into_keys());
            self.close_gate(partitions)?;
        }
        self.open_gate()?;
        self.unreplicated.prune(&self.replica);
        if self.unreplicated.is_crowded() {
            // The replica comes first.
            if self.opened.is_some() {
                return self.commit();
            }
            self.edge.sleep(POLL);
            return Ok(());
        }
        let mut wait = POLL;
        let began = self.edge.instant();
        while !self.counts.is_full() && self.edge.since(began) < self.settings.commit_interval {
            if !self.poll(wait)? {
                break;
            }
            wait = Duration::ZERO;
        }
        let due = self
            .opened
            .is_some_and(|at| self.edge.since(at) >= self.settings.commit_interval);
        if due || self.counts.is_full() {
            return self.commit();
        }
        // Markers move the position without a record, and the watermark waits for committed positions.
        if self.opened.is_none() && self.edge.since(self.looked) >= self.settings.commit_interval {
            self.looked = self.edge.instant();
            self.follow_markers();
            if self
                .active
                .values()
                .any(|active| active.committed != Some(active.position))
            {
                return self.commit();
            }
        }
        Ok(())
    }

    /// Handles one record; false when none came.
    fn poll(&mut self, wait: Duration) -> Result<bool, MaterializerError> {
        let transactor = &self.transactor;
        let Some(record) = transactor.poll(wait)? else {
            return Ok(false);
        };
        let Some(active) = self.active.get_mut(&record.partition()) else {
            return Ok(true);
        };
        active.position = record.offset() + 1;
        let settings = &self.settings;
        let change = decode_content(record.key(), record.payload(), settings.time);
        let written = match change {
            Ok(ContentChange::Upsert(patch)) => {
                let row = resolve(patch, &self.unreplicated, &self.table, &self.metrics)?;
                encode_within(&row, settings.limits.content, &mut self.buffer)
                    .map(|()| (row.id, Some(row)))
            }
            Ok(ContentChange::Delete(id)) => Ok((id, None)),
            Err(why) => Err(why),
        };
        let outgoing = match written {
            Ok((id, row)) => {
                let upsert = row.is_some();
                self.counts.upserted += u64::from(upsert);
                self.counts.deleted += u64::from(!upsert);
                self.counts.bytes += if upsert { self.buffer.len() } else { 0 };
                self.unreplicated.wrote(id, row);
                transactor.send([Outgoing {
                    topic: &settings.changelog_topic,
                    partition: None,
                    key: Some(&id.text()),
                    value: upsert.then_some(self.buffer.as_slice()),
                    headers: None,
                    track: None,
                }])
            }
            Err(why) => {
                let (letter, whole) = bury(settings, &record, &why);
                self.counts.dead_letter += 1;
                self.counts.truncated += u64::from(!whole);
                transactor.send([letter])
            }
        };
        self.opened.get_or_insert_with(|| self.edge.instant());
        outgoing?;
        Ok(true)
    }

    fn commit(&mut self) -> Result<(), MaterializerError> {
        let positions: Vec<_> = self
            .active
            .iter()
            .map(|(partition, active)| (*partition, active.position, String::new()))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let _ = self.transactor.commit(positions)?;
        for active in self.active.values_mut() {
            active.committed = Some(active.position);
        }
        let counts = std::mem::take(&mut self.counts);
        self.metrics.content.upserted.inc_by(counts.upserted);
        self.metrics.content.deleted.inc_by(counts.deleted);
        self.metrics.content.dead_letter.inc_by(counts.dead_letter);
        self.metrics.truncated.inc_by(counts.truncated);
        if counts.records() > 0 {
            self.opened = None;
            let ends = self.changelog_ends()?;
            self.unreplicated.committed(ends);
        }
        Ok(())
    }

    /// Takes positions that only markers moved, and the starting offset where nothing came yet.
    fn follow_markers(&mut self) {
        for (partition, active) in &mut self.active {
            if let Some(position) = self.transactor.member().position(*partition) {
                active.position = active.position.max(position);
            }
        }
    }

    /// Puts partitions behind the gate: they are read once the replica shows every row written so far.
    fn close_gate(&mut self, partitions: Vec<i32>) -> Result<(), MaterializerError> {
        for partition in &partitions {
            self.transactor.member().pause(*partition)?;
        }
        self.gated.extend(partitions);
        self.gate = None;
        Ok(())
    }

    /// Begins to read the gated partitions where the group's commit says, if the replica is there.
    fn open_gate(&mut self) -> Result<(), MaterializerError> {
        if self.gated.is_empty() {
            return Ok(());
        }
        let gate = match self.gate.take() {
            Some(gate) => gate,
            None => self.changelog_ends()?,
        };
        if !self.replica.reached(&gate) {
            self.gate = Some(gate);
            return Ok(());
        }
        let topic = &self.settings.member.topic;
        let committed = self
            .committed
            .committed(topic, self.gated.iter().copied())?;
        let bounds = self.committed.bounds(topic, self.gated.iter().copied())?;
        let mut resumed = Vec::with_capacity(self.gated.len());
        for (partition, committed) in committed {
            let start = bounds.get(&partition).map_or(0, |(start, _)| *start);
            let position = committed.offset.unwrap_or(start);
            if position < start {
                return Err(MaterializerError::InputTruncated {
                    topic: topic.clone(),
                    partition,
                    start,
                    committed: position,
                });
            }
            resumed.push((partition, position));
            let committed = committed.offset;
            self.active.insert(
                partition,
                Active {
                    position,
                    committed,
                },
            );
        }
        let gated = std::mem::take(&mut self.gated);
        if let Err(error) = self.transactor.member().resume_at(&resumed) {
            // Brokers that do not answer now will answer later.
            tracing::warn!(%error, "reading does not start: through the gate again");
            self.active
                .retain(|partition, _| !gated.contains(partition));
            return self.close_gate(gated);
        }
        Ok(())
    }

    fn changelog_ends(&self) -> Result<BTreeMap<i32, i64>, OffsetsError> {
        let partitions: Vec<i32> = (0..self.settings.changelog_partitions).collect();
        self.ends.ends(&self.settings.changelog_topic, &partitions)
    }

    /// The one way back after a failed call: no transaction is open, and everything owned goes through the gate again.
    fn recover(&mut self, outcome: Result<(), MaterializerError>) -> Result<(), MaterializerError> {
        match outcome {
            // The next round begins with what the rebalance changed.
            Err(MaterializerError::Transactor(TransactorError::Producer(
                ProducerError::Interrupted,
            ))) => Ok(()),
            Err(MaterializerError::Transactor(TransactorError::Producer(failure))) => {
                tracing::warn!(%failure, "the materializer starts over from what was committed");
                self.forget_open();
                if let ProducerError::TooLarge(why) = &failure {
                    self.follow_limits(why)?;
                }
                let partitions = std::mem::take(&mut self.active).into_keys().collect();
                match self.transactor.recover(&failure) {
                    Err(TransactorError::Producer(ProducerError::Stopped)) => return Ok(()),
                    outcome => outcome?,
                }
                self.close_gate(partitions)
            }
            Err(MaterializerError::Offsets(error)) => {
                // The brokers did not answer; nothing is lost by asking again in the next round.
                tracing::debug!(%error, "the materializer asks again");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// A topic takes less than was known, or else the same refusal would come for ever.
    fn follow_limits(&mut self, refusal: &str) -> Result<(), MaterializerError> {
        let Some(limits) = self.edge.limits() else {
            // Brokers that do not answer now will answer when the record is refused again.
            return Ok(());
        };
        if self.refused.replace(limits) == Some(limits) {
            return Err(MaterializerError::Refused(refusal.to_owned()));
        }
        tracing::warn!(
            ?limits,
            "the topics take records of these sizes from now on"
        );
        self.settings.limits = limits;
        Ok(())
    }

    fn forget_open(&mut self) {
        self.unreplicated = Unreplicated::default();
        self.counts = Counts::default();
        self.opened = None;
    }
}
