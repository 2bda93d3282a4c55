//! How long it takes from the start of a process that was killed to its first committed record.

use crate::subject::Subject;
use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// A first start of a round may have to wait for the session of the one killed in the round before.
const FIRST_LIMIT: Duration = Duration::from_mins(1);
/// How long a process runs before it is killed: it is in the middle of its work, with a transaction open.
const RUN: Duration = Duration::from_millis(1_030);
/// No record for this long means that all those of the killed process have been read.
const QUIET: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(5);

/// A reader that stands at the end of a subject's output.
struct Tail(BaseConsumer);

impl Tail {
    fn of(bootstrap: &str, subject: &Subject, partitions: i32) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "restart-watch")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .create()
            .context("make a consumer")?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(&subject.output, partition, Offset::End)?;
        }
        consumer.assign(&list)?;
        Ok(Self(consumer))
    }

    /// Waits for a record.
    fn next(&self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if matches!(self.0.poll(POLL), Some(Ok(_))) {
                return true;
            }
        }
        false
    }
}

/// Kills the subject under a steady flow, starts it again, and times the first record.
pub(crate) fn round(bootstrap: &str, subject: &Subject, partitions: i32) -> Result<Duration> {
    let tail = Tail::of(bootstrap, subject, partitions)?;
    let mut running = subject.start()?;
    ensure!(tail.next(FIRST_LIMIT), "{} gives nothing", subject.name);
    let began = Instant::now();
    while began.elapsed() < RUN {
        tail.next(POLL);
    }
    running.check()?;
    running.kill();
    while tail.next(QUIET) {}
    let started = Instant::now();
    let mut running = subject.start()?;
    ensure!(
        tail.next(FIRST_LIMIT),
        "{} gives nothing after a restart",
        subject.name
    );
    let took = started.elapsed();
    running.check()?;
    Ok(took)
}
