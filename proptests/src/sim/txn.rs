//! The transaction coordinator: epochs, `EndTxn`, markers, time-outs, and requests that arrive late.

use super::log::{Entry, State};
use super::world::{Due, World};
use std::collections::BTreeSet;

/// How long a transaction may stay open.
const TIMEOUT_US: u64 = 10_000_000;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The epoch is not the current one.
    Fenced,
    /// The last transaction's markers are still being written.
    Busy,
    /// The transaction is in another state.
    Invalid,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxnState {
    /// None yet.
    Empty,
    /// Open.
    Ongoing,
    /// Decided; markers are on their way.
    Prepared(bool),
    /// Decided, and all markers are written.
    Complete(bool),
}

/// One transactional id.
pub(super) struct Txn {
    id: String,
    /// The current epoch.
    pub(super) epoch: i32,
    /// Where its transaction stands.
    pub(super) state: TxnState,
    partitions: BTreeSet<(usize, i32)>,
    group: Option<usize>,
    began_us: u64,
    markers: usize,
}

/// Where a marker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A partition of a topic.
    Log(usize, i32),
    /// The group's offsets.
    Offsets(usize),
}

/// A copy of a request that is stuck on its way; its retry was served meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Late {
    /// Producer.
    pub(super) producer: u64,
    /// The epoch it was sent with.
    pub(super) epoch: i32,
    /// How many requests of that producer it lets pass before it arrives.
    pub(super) passes: u32,
    /// The request.
    pub(super) request: LateRequest,
}

/// What is stuck.
#[derive(Clone, Debug)]
pub(super) enum LateRequest {
    /// `EndTxn`.
    End {
        /// Commit or abort.
        commit: bool,
    },
    /// `TxnOffsetCommit`, validated by the group when it arrives.
    Offsets {
        /// The group.
        group: usize,
        /// Who sends.
        meta: super::group::GroupMeta,
        /// `(partition, position, metadata)`.
        positions: Vec<(i32, i64, String)>,
    },
}

impl World {
    /// The transaction of a producer.
    pub(super) fn txn(&mut self, producer: u64) -> &mut Txn {
        &mut self.txns[producer as usize]
    }

    /// `InitProducerId`: a new epoch, once what an earlier one left is ended.
    pub(super) fn init_producer(&mut self, id: &str) -> Result<(u64, i32), Refusal> {
        let found = self.txns.iter().position(|txn| txn.id == id);
        let producer = found.unwrap_or_else(|| {
            self.txns.push(Txn {
                id: id.to_owned(),
                epoch: -1,
                state: TxnState::Empty,
                partitions: BTreeSet::new(),
                group: None,
                began_us: 0,
                markers: 0,
            });
            self.txns.len() - 1
        }) as u64;
        let txn = self.txn(producer);
        match txn.state {
            TxnState::Ongoing => {
                txn.epoch += 1;
                self.prepare(producer, false);
                Err(Refusal::Busy)
            }
            TxnState::Prepared(_) => Err(Refusal::Busy),
            TxnState::Empty | TxnState::Complete(_) => {
                txn.epoch += 1;
                let epoch = txn.epoch;
                Ok((producer, epoch))
            }
        }
    }

    /// Adds a partition, or a group's offsets, to the transaction, opening it.
    pub(super) fn add_to_txn(
        &mut self,
        producer: u64,
        epoch: i32,
        target: Target,
    ) -> Result<(), Refusal> {
        self.let_pass(producer);
        let now = self.now_us;
        let txn = self.txn(producer);
        if txn.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        match txn.state {
            TxnState::Prepared(_) => return Err(Refusal::Busy),
            TxnState::Ongoing => {}
            TxnState::Empty | TxnState::Complete(_) => {
                txn.state = TxnState::Ongoing;
                txn.began_us = now;
                txn.partitions.clear();
                txn.group = None;
            }
        }
        match target {
            Target::Log(topic, partition) => {
                txn.partitions.insert((topic, partition));
            }
            Target::Offsets(group) => txn.group = Some(group),
        }
        Ok(())
    }

    /// Appends a record of a transaction. The partition's leader asks the coordinator whether it takes part.
    pub(super) fn produce(
        &mut self,
        producer: u64,
        epoch: i32,
        (topic, partition): (usize, i32),
        mut entry: Entry,
    ) -> Result<i64, Refusal> {
        self.let_pass(producer);
        let txn = self.txn(producer);
        if txn.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        if txn.state != TxnState::Ongoing || !txn.partitions.contains(&(topic, partition)) {
            return Err(Refusal::Invalid);
        }
        entry.producer = Some(producer);
        entry.state = State::Open;
        Ok(self.log(topic, partition).append(entry))
    }

    /// `TxnOffsetCommit`, once the group has validated its sender.
    pub(super) fn pend_offsets(
        &mut self,
        producer: u64,
        epoch: i32,
        group: usize,
        positions: &[(i32, i64, String)],
    ) -> Result<(), Refusal> {
        let txn = self.txn(producer);
        if txn.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        if txn.state != TxnState::Ongoing || txn.group != Some(group) {
            return Err(Refusal::Invalid);
        }
        let pending = self.groups[group].pending.entry(producer).or_default();
        for (partition, position, metadata) in positions {
            pending.insert(*partition, (*position, metadata.clone()));
        }
        Ok(())
    }

    /// `EndTxn`.
    pub(super) fn end_txn(
        &mut self,
        producer: u64,
        epoch: i32,
        commit: bool,
    ) -> Result<(), Refusal> {
        let txn = self.txn(producer);
        if txn.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        match txn.state {
            TxnState::Ongoing => {
                self.prepare(producer, commit);
                Ok(())
            }
            TxnState::Prepared(decided) | TxnState::Complete(decided) if decided == commit => {
                Ok(())
            }
            _ => Err(Refusal::Invalid),
        }
    }

    /// The decision is durable; the markers go out.
    fn prepare(&mut self, producer: u64, commit: bool) {
        let slow_us = std::mem::take(&mut self.slow_markers_us);
        let txn = self.txn(producer);
        txn.state = TxnState::Prepared(commit);
        let mut targets: Vec<Target> = txn
            .partitions
            .iter()
            .map(|(topic, partition)| Target::Log(*topic, *partition))
            .collect();
        targets.extend(txn.group.map(Target::Offsets));
        txn.markers = targets.len();
        for target in targets {
            let delay = self.rng.between(0, 2_000) + self.rng.between(0, slow_us + 1);
            self.schedule(
                delay,
                Due::Marker {
                    producer,
                    target,
                    commit,
                },
            );
        }
    }

    /// Writes one marker.
    pub(super) fn write_marker(&mut self, producer: u64, target: Target, commit: bool) {
        match target {
            Target::Log(topic, partition) => {
                let at_ms = self.broker_ms();
                self.log(topic, partition).mark(producer, commit, at_ms);
            }
            Target::Offsets(group) => self.groups[group].decide(producer, commit),
        }
        let txn = self.txn(producer);
        txn.markers -= 1;
        if txn.markers == 0 {
            txn.state = TxnState::Complete(commit);
        }
    }

    /// Aborts what was open for too long.
    pub(super) fn sweep_txns(&mut self) {
        let now = self.now_us;
        for producer in 0..self.txns.len() as u64 {
            let txn = self.txn(producer);
            if txn.state == TxnState::Ongoing && now - txn.began_us > TIMEOUT_US {
                txn.epoch += 1;
                self.prepare(producer, false);
                self.counts.reach("a transaction timed out");
            }
        }
    }

    /// Whether the record's transaction is committed, though its marker is still on its way.
    pub(super) fn will_commit(&self, entry: &Entry) -> bool {
        let decided = |producer: u64| {
            let txn = self.txns.get(producer as usize);
            txn.is_some_and(|txn| txn.state == TxnState::Prepared(true))
        };
        entry.state == State::Open && entry.producer.is_some_and(decided)
    }

    /// Whether no transaction is undecided.
    pub(super) fn txns_are_settled(&self) -> bool {
        self.txns
            .iter()
            .all(|txn| matches!(txn.state, TxnState::Empty | TxnState::Complete(_)))
    }

    /// One more request of this producer arrives: what was stuck may come right before it.
    fn let_pass(&mut self, producer: u64) {
        if self.late.is_empty() {
            return;
        }
        if matches!(self.txn(producer).state, TxnState::Prepared(_)) {
            return;
        }
        let mut arrived = Vec::new();
        self.late.retain_mut(|late| {
            if late.producer != producer {
                return true;
            }
            if late.passes == 0 {
                arrived.push(late.clone());
                return false;
            }
            late.passes -= 1;
            true
        });
        for late in arrived {
            self.arrive(late);
        }
    }

    /// A late copy arrives.
    pub(super) fn arrive(&mut self, late: Late) {
        let Late {
            producer,
            epoch,
            request,
            ..
        } = late;
        let (name, outcome) = match request {
            LateRequest::End { commit } => ("EndTxn", self.end_txn(producer, epoch, commit)),
            LateRequest::Offsets {
                group,
                meta,
                positions,
            } => {
                let valid = self.groups[group].validate(&meta).is_ok();
                let outcome = if valid {
                    self.pend_offsets(producer, epoch, group, &positions)
                } else {
                    Err(Refusal::Invalid)
                };
                ("TxnOffsetCommit", outcome)
            }
        };
        self.note(|| format!("late {name} of producer {producer}: {outcome:?}"));
        match (name, outcome) {
            ("EndTxn", Err(_)) => self.counts.reach("a late EndTxn was refused"),
            ("EndTxn", Ok(())) => self.counts.reach("a late EndTxn met its own transaction"),
            (_, Err(_)) => self.counts.reach("a late TxnOffsetCommit was refused"),
            (_, Ok(())) => self
                .counts
                .reach("a late TxnOffsetCommit met its own transaction"),
        }
    }
}
