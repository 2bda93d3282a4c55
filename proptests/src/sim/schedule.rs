//! A schedule: what happens, in order, as an explicit list, so that a failing one can be made smaller step by step.

use super::rng::Rng;

/// Where a process can die or be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before a new epoch is asked for.
    Init,
    /// Before queued records are sent.
    Send,
    /// Before the transaction's offsets are sent.
    BeforeOffsets,
    /// After the transaction's offsets were sent.
    AfterOffsets,
    /// Before `EndTxn` is sent.
    BeforeEnd,
    /// After the commit is durable, before the process knows.
    AfterEnd,
    /// Before an abort.
    Abort,
    /// Inside a rebalance callback.
    Callback,
    /// Before a poll.
    Poll,
    /// Before a question about offsets.
    Ask,
    /// Before a read of a log.
    Read,
    /// Before the store is written.
    BeforeApply,
    /// While the store is written.
    InsideApply,
    /// After the store was written.
    AfterApply,
    /// Before reading goes on after a barrier.
    Resume,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 15] = [
        Self::Init,
        Self::Send,
        Self::BeforeOffsets,
        Self::AfterOffsets,
        Self::BeforeEnd,
        Self::AfterEnd,
        Self::Abort,
        Self::Callback,
        Self::Poll,
        Self::Ask,
        Self::Read,
        Self::BeforeApply,
        Self::InsideApply,
        Self::AfterApply,
        Self::Resume,
    ];
}

/// What becomes of a dead process's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything applied is there.
    Nothing,
    /// So many of the last sets are lost, as by a loss of power.
    Sets(usize),
    /// It is gone.
    Disk,
}

/// What goes wrong with one call of a node's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies at the point, when it comes there the `nth` time.
    Die {
        /// Where.
        point: Point,
        /// How often it passes before.
        nth: u8,
        /// What it loses.
        loss: Loss,
    },
    /// The process stops at the point while others go on for so many turns.
    Stop {
        /// Where.
        point: Point,
        /// How often it passes before.
        nth: u8,
        /// For how long.
        turns: u16,
        /// Whether another process takes its name meanwhile.
        successor: bool,
    },
    /// The client retries `EndTxn` unseen; the first copy arrives after so many later requests of that producer.
    HiddenRetry {
        /// Of a commit, or of an abort.
        commit: bool,
        /// When the first copy arrives.
        passes: u8,
        /// Whether it takes long.
        slow: bool,
        /// Whether the client's log or statistics tell of trouble. One of the two always does.
        trouble: bool,
    },
    /// The same with the transaction's offsets.
    LateOffsets {
        /// When the first copy arrives.
        passes: u8,
    },
    /// A commit's answer is lost.
    LostAnswer {
        /// Whether it was committed.
        durable: bool,
        /// What flags the client's error carries: abort required, fatal.
        flags: (bool, bool),
    },
    /// A call of the transaction may be repeated.
    Retriable,
    /// An abort fails.
    AbortFails,
    /// A record is not delivered.
    Undelivered,
    /// The brokers do not answer so many questions.
    Silence {
        /// How many.
        questions: u8,
    },
    /// Reading does not go on after a barrier.
    ResumeFails,
}

/// A part that gets no time for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The materializer.
    Materializer,
    /// The content replica.
    Replica,
    /// The content watermark.
    Watermark,
    /// The barriers.
    Barriers,
    /// The workers.
    Workers,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// An engagement event is appended to the input.
    Event {
        /// Partition.
        partition: i32,
        /// Id.
        id: i64,
        /// Its content, if it has one.
        content: Option<u8>,
    },
    /// A record that is no event.
    Poison {
        /// Partition.
        partition: i32,
        /// Which kind.
        kind: u8,
    },
    /// A null value.
    Tombstone {
        /// Partition.
        partition: i32,
    },
    /// A content row is written.
    Content {
        /// Which.
        content: u8,
        /// Its length.
        length: i32,
        /// Whether the record lacks the title, as for a large column that did not change.
        toast: bool,
    },
    /// A content row is deleted.
    ContentGone {
        /// Which.
        content: u8,
    },
    /// A record that is no content row.
    ContentPoison,
    /// So many turns of parts that the seed picks.
    Run {
        /// Decides who runs, and all that is left to chance.
        seed: u64,
        /// How many turns.
        turns: u16,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        ms: u32,
    },
    /// Something will go wrong for a node.
    Arm {
        /// The node.
        node: u8,
        /// What.
        fault: Fault,
    },
    /// A node dies here and now.
    Kill {
        /// The node.
        node: u8,
        /// What it loses.
        loss: Loss,
    },
    /// A node stops in an orderly way.
    Shutdown {
        /// The node.
        node: u8,
    },
    /// A node's wall clock jumps.
    Jump {
        /// The node.
        node: u8,
        /// By so many milliseconds.
        ms: i32,
    },
    /// A worker's membership expires.
    Expire {
        /// The node.
        node: u8,
        /// The worker; the materializer beyond the last.
        worker: u8,
        /// Whether the client slips into a new one without a revocation.
        slips: bool,
    },
    /// A part of a node gets no time.
    Hold {
        /// The node.
        node: u8,
        /// Which part.
        part: Held,
        /// For how long, in milliseconds.
        ms: u16,
    },
    /// A group rebalances for no visible reason.
    Rebalance {
        /// The enricher's, else the materializer's.
        enricher: bool,
    },
    /// The markers of the next transaction take their time.
    SlowMarkers {
        /// Milliseconds at most.
        ms: u16,
    },
    /// A changelog is compacted: content, pending, seen.
    Compact {
        /// Which of them.
        topic: u8,
        /// Whether old tombstones go.
        tombstones: bool,
    },
    /// Retention deletes what was processed of the input, or checkpointed of the enriched topic.
    Retain {
        /// The input, else the enriched topic.
        input: bool,
    },
}

/// What the simulated deployment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Input partitions.
    pub partitions: i32,
    /// Partitions of the content topics.
    pub content_partitions: i32,
    /// Processes that share the work.
    pub nodes: u8,
    /// Workers of each.
    pub workers: u8,
    /// Size of a transaction.
    pub transaction_steps: usize,
    /// Containers of published ids that a partition keeps in memory.
    pub seen_containers: usize,
    /// Wake-ups that a worker's queue holds.
    pub wakeups: usize,
    /// Whether the stores are real ones.
    pub real_stores: bool,
}

/// A whole schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it came from.
    pub seed: u64,
    /// The deployment.
    pub shape: Shape,
    /// What happens.
    pub steps: Vec<Step>,
}

/// How long an event waits for its content, in milliseconds.
pub(super) const DEADLINE_MS: i64 = 12_000;
/// Contents there may be.
const CONTENTS: usize = 4;

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64, real_stores: bool) -> Self {
        let mut rng = Rng::new(seed);
        let shape = Shape {
            partitions: rng.between(1, 4) as i32,
            content_partitions: rng.between(1, 3) as i32,
            nodes: [1, 2, 2, 2, 3][rng.below(5)],
            workers: [1, 1, 2][rng.below(3)],
            transaction_steps: rng.between(2, 9) as usize,
            seen_containers: rng.between(1, 6) as usize,
            wakeups: if rng.chance(1, 4) { 1 } else { 64 },
            real_stores,
        };
        let mut author = Author {
            shape,
            ids: Vec::new(),
            stride: [1, 1, 7, 70_001, -70_001][rng.below(5)],
            faults: rng.between(1, 10),
            rng,
            steps: Vec::new(),
        };
        for _ in 0..author.rng.between(15, 45) {
            author.write();
        }
        Self {
            seed,
            shape,
            steps: author.steps,
        }
    }
}

/// Writes a schedule.
struct Author {
    rng: Rng,
    shape: Shape,
    /// Events sent so far.
    ids: Vec<Step>,
    stride: i64,
    /// Faults in so many of twelve places.
    faults: u64,
    steps: Vec<Step>,
}

impl Author {
    fn write(&mut self) {
        for _ in 0..self.rng.below(3) {
            let input = self.input();
            self.steps.push(input);
        }
        if self.rng.chance(self.faults, 12) {
            let trouble = self.trouble();
            self.steps.push(trouble);
        }
        let turns = if self.rng.chance(1, 5) { 60 } else { 20 };
        let step = Step::Run {
            seed: self.rng.next(),
            turns: self.rng.between(2, turns) as u16,
        };
        self.steps.push(step);
        if self.rng.chance(1, 12) {
            let ms = self.rng.between(100, 9_000) as u32;
            self.steps.push(Step::Wait { ms });
        }
    }

    fn input(&mut self) -> Step {
        let partition = self.rng.below(self.shape.partitions as usize) as i32;
        let content = self.rng.below(CONTENTS) as u8;
        match self.rng.below(20) {
            0..=9 => self.event(partition, content),
            10 | 11 if !self.ids.is_empty() => self.ids[self.rng.below(self.ids.len())],
            12 => Step::Poison {
                partition,
                kind: self.rng.below(4) as u8,
            },
            13 => Step::Tombstone { partition },
            14 => Step::ContentGone { content },
            15 if self.rng.chance(1, 3) => Step::ContentPoison,
            _ => Step::Content {
                content,
                length: self.rng.between(1, 5_000) as i32,
                toast: self.rng.chance(1, 4),
            },
        }
    }

    fn event(&mut self, partition: i32, content: u8) -> Step {
        // Each id has one partition; ids of one partition come neither dense nor in order.
        let number =
            self.ids.len() as i64 * i64::from(self.shape.partitions) + i64::from(partition);
        let swapped = if self.rng.chance(1, 3) {
            1_000 - number
        } else {
            number
        };
        let step = Step::Event {
            partition,
            id: swapped * self.stride,
            content: (!self.rng.chance(1, 12)).then_some(content),
        };
        self.ids.push(step);
        step
    }

    fn loss(&mut self) -> Loss {
        match self.rng.below(5) {
            0 => Loss::Disk,
            1 | 2 => Loss::Sets(self.rng.between(1, 12) as usize),
            _ => Loss::Nothing,
        }
    }

    fn point(&mut self) -> Point {
        Point::ALL[self.rng.below(Point::ALL.len())]
    }

    fn trouble(&mut self) -> Step {
        let node = self.rng.below(usize::from(self.shape.nodes)) as u8;
        match self.rng.below(34) {
            0..=13 => Step::Arm {
                node,
                fault: self.fault(),
            },
            14 | 15 => Step::Kill {
                node,
                loss: self.loss(),
            },
            16 => Step::Shutdown { node },
            17 | 18 => Step::Jump {
                node,
                ms: self.jump(),
            },
            19 | 20 => Step::Expire {
                node,
                worker: self.rng.below(usize::from(self.shape.workers) + 1) as u8,
                slips: self.rng.chance(1, 2),
            },
            21 | 22 => Step::Rebalance {
                enricher: self.rng.chance(3, 4),
            },
            23 | 24 => Step::SlowMarkers {
                ms: self.rng.between(50, 3_000) as u16,
            },
            30..=33 => Step::Hold {
                node,
                part: [
                    Held::Materializer,
                    Held::Materializer,
                    Held::Replica,
                    Held::Replica,
                    Held::Watermark,
                    Held::Barriers,
                    Held::Workers,
                ][self.rng.below(7)],
                ms: self.rng.between(500, 30_000) as u16,
            },
            25 | 26 => Step::Compact {
                topic: self.rng.below(3) as u8,
                tombstones: self.rng.chance(1, 3),
            },
            _ => Step::Retain {
                input: self.rng.chance(1, 2),
            },
        }
    }

    /// Hosts whose clocks differ by more than the deadline would give up too early; one host alone may jump at will.
    fn jump(&mut self) -> i32 {
        let most = if self.shape.nodes == 1 { 40_000 } else { 600 };
        self.rng.between(0, 2 * most) as i32 - most as i32
    }

    fn fault(&mut self) -> Fault {
        let passes = self.rng.between(0, 6) as u8;
        let nth = [0, 0, 0, 1, 2, 5][self.rng.below(6)];
        match self.rng.below(24) {
            0..=7 => Fault::Die {
                point: self.point(),
                nth,
                loss: self.loss(),
            },
            8..=11 => Fault::Stop {
                point: self.point(),
                nth,
                turns: if self.rng.chance(1, 2) { 25 } else { 400 },
                successor: self.rng.chance(1, 4),
            },
            12..=14 => {
                let slow = self.rng.chance(2, 3);
                Fault::HiddenRetry {
                    commit: self.rng.chance(3, 4),
                    passes,
                    slow,
                    trouble: !slow || self.rng.chance(1, 2),
                }
            }
            15 => Fault::LateOffsets { passes },
            16 | 17 => Fault::LostAnswer {
                durable: self.rng.chance(1, 2),
                flags: [(true, false), (false, false), (false, true)][self.rng.below(3)],
            },
            18 => Fault::Retriable,
            19 => Fault::AbortFails,
            20 => Fault::Undelivered,
            21 => Fault::ResumeFails,
            _ => Fault::Silence {
                questions: self.rng.between(1, 20) as u8,
            },
        }
    }
}
