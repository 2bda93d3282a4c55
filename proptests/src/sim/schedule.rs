//! A schedule: what happens, in order, as an explicit list, so that a failing one can be made smaller step by step.

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
        /// Whether it is one thread alone that stops.
        alone: bool,
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
