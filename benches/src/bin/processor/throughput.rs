//! CPU time for a topic full of events, from the start of the process to the commit of the last one.

use crate::subject::{Running, Subject};
use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const ASK: Duration = Duration::from_secs(10);
/// Nothing moves for this long: something is broken.
const STALLED: Duration = Duration::from_mins(1);
/// How long the process is watched doing nothing.
const IDLE: Duration = Duration::from_secs(5);

/// One run over the topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// CPU seconds per million events, start of the process included.
    pub(crate) cpu_per_million: f64,
    /// CPU seconds until the first commit was seen.
    pub(crate) cpu_before: f64,
    /// Events a second from the first commit on.
    pub(crate) events_per_second: f64,
    /// CPU seconds a second with nothing to do.
    pub(crate) idle: f64,
}

/// Reads what a group has committed, as anyone can.
struct Progress {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Progress {
    fn of(bootstrap: &str, subject: &Subject, partitions: i32) -> Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", &subject.group)
            .set("isolation.level", "read_committed")
            .create()
            .context("make a consumer")?;
        Ok(Self {
            consumer,
            topic: subject.input.clone(),
            partitions,
        })
    }

    /// The first question about a group has its broker make the topic for commits, and is refused until it is there.
    fn await_coordinator(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.committed() {
                Ok(0) => return Ok(()),
                Ok(_) => bail!("this group has been run before"),
                Err(error) if began.elapsed() > STALLED => return Err(error),
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    fn committed(&self) -> Result<u64> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&self.topic, partition);
        }
        let list = self.consumer.committed_offsets(list, ASK)?;
        let offsets = list
            .elements()
            .into_iter()
            .filter_map(|e| match e.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            });
        Ok(offsets.sum())
    }
}

/// Runs the subject over the `events` that its input holds.
pub(crate) fn pass(
    bootstrap: &str,
    subject: &Subject,
    partitions: i32,
    events: u64,
) -> Result<Pass> {
    let progress = Progress::of(bootstrap, subject, partitions)?;
    progress.await_coordinator()?;
    let mut running = subject.start()?;
    let mut first = None;
    let (mut seen, mut moved) = (0, Instant::now());
    while seen < events {
        running.check()?;
        std::thread::sleep(LOOK_AGAIN);
        // A broker under load may answer late.
        let Ok(committed) = progress.committed() else {
            continue;
        };
        if committed > seen {
            (seen, moved) = (committed, Instant::now());
            if first.is_none() {
                first = Some((moved, committed, running.cpu()?));
            }
        }
        ensure!(
            moved.elapsed() < STALLED,
            "{} stands still at {seen} of {events}",
            subject.name
        );
    }
    let done = Instant::now();
    if subject.recent {
        await_recent(&mut running, done)?;
    }
    let cpu = running.cpu()?;
    let (first_at, first_count, cpu_before) = first.unwrap_or((done, seen, cpu));
    std::thread::sleep(IDLE);
    let idle = (running.cpu()? - cpu) / IDLE.as_secs_f64();
    Ok(Pass {
        cpu_per_million: cpu * 1e6 / events as f64,
        cpu_before,
        events_per_second: (events - first_count) as f64
            / (done - first_at).as_secs_f64().max(f64::EPSILON),
        idle,
    })
}

/// Waits until queries see everything that was published by `done`.
fn await_recent(running: &mut Running, done: Instant) -> Result<()> {
    while running.staleness().is_none_or(|age| age > done.elapsed()) {
        running.check()?;
        ensure!(done.elapsed() < STALLED, "recent events do not catch up");
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
