//! A steady flow of events through a deployment while things happen to it, and how each partition moves meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use thmanyah::kafka::GroupViewer;

use crate::checker::check;
use crate::deployment::{Deployment, await_until};
use crate::feed::{content_id, event_key, event_value, play};
use crate::oracle::EventRow;

const CONTENTS: u32 = 40;
/// Events sent at a time, and the pause after them.
const BATCH: i64 = 5;
const PACE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_mins(2);

/// The event with this id; every eleventh is about a content that comes last.
fn row(id: i64) -> EventRow {
    let content = if id % 11 == 0 {
        CONTENTS
    } else {
        (id % i64::from(CONTENTS)) as u32
    };
    play(id, Some(&content_id(content)))
}

/// The time, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// Sends events and watches them come out.
pub struct Flow<'d, 'b> {
    deployment: &'d Deployment<'b>,
    done: AtomicBool,
    /// When the records of each partition of the enriched topic were written.
    published: Mutex<BTreeMap<i32, Vec<i64>>>,
}

impl<'d, 'b> Flow<'d, 'b> {
    /// A flow that has not begun; the deployment runs already.
    pub fn new(deployment: &'d Deployment<'b>) -> Self {
        let published = (0..deployment.partitions()).map(|p| (p, Vec::new()));
        Self {
            deployment,
            done: AtomicBool::new(false),
            published: Mutex::new(published.collect()),
        }
    }

    /// Has events flow while `body` runs, then waits until all are published, and checks everything.
    pub fn during(&self, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        for number in 0..CONTENTS {
            self.deployment
                .send_content(&content_id(number), "podcast", Some(600))?;
        }
        let count = std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send());
            let tail = scope.spawn(|| self.tail());
            let outcome = self.await_motion(0).and_then(|()| body(self));
            self.done.store(true, Ordering::Relaxed);
            let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
            tail.join().map_err(|_| anyhow!("the reader panicked"))??;
            outcome.and(sent)
        })?;
        let last = content_id(CONTENTS);
        self.deployment.send_content(&last, "video", Some(60))?;
        self.deployment
            .await_total("all events", |l| l.enriched == count as u64)?;
        let rows = (1..=count).map(|id| (id, row(id))).collect();
        check(self.deployment, &rows)?;
        Ok(())
    }

    /// Waits until every partition has published a record that was written after that moment.
    pub fn await_motion(&self, since_ms: i64) -> Result<()> {
        await_until(LIMIT, "every partition to move", || {
            let published = self.published.lock();
            let published = published.unwrap_or_else(PoisonError::into_inner);
            let mut last = published.values().map(|times| times.last().copied());
            Ok(last
                .all(|last| last.is_some_and(|last| last > since_ms))
                .then_some(()))
        })
    }

    /// The longest pause of each partition after that moment. What it had stood still before is not counted: that is another
    /// fault's.
    pub fn pauses(&self, since_ms: i64) -> Vec<Duration> {
        let published = self.published.lock();
        let published = published.unwrap_or_else(PoisonError::into_inner);
        let longest = |times: &Vec<i64>| {
            let pairs = times.iter().zip(times.iter().skip(1));
            let gaps = pairs.filter(|(_, next)| **next > since_ms);
            gaps.map(|(last, next)| next - last.max(&since_ms))
                .max()
                .unwrap_or_default()
        };
        let longest = published.values().map(longest);
        longest
            .map(|ms| Duration::from_millis(ms.unsigned_abs()))
            .collect()
    }

    fn send(&self) -> Result<i64> {
        let topic = self.deployment.topic("engagement-events.raw");
        let feed = self.deployment.feed();
        let mut next = 1;
        while !self.done.load(Ordering::Relaxed) {
            for id in next..next + BATCH {
                let (key, value) = (event_key(id), event_value(&row(id)));
                feed.send(&topic, None, Some(&key), Some(&value), &[])?;
            }
            next += BATCH;
            std::thread::sleep(PACE);
        }
        feed.flush()?;
        Ok(next - 1)
    }

    fn tail(&self) -> Result<()> {
        let consumer: BaseConsumer = self
            .deployment
            .broker
            .client()
            .set("group.id", "tail")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "20")
            .create()?;
        let topic = self.deployment.topic("engagement-events.enriched");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..self.deployment.partitions() {
            partitions.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        while !self.done.load(Ordering::Relaxed) {
            // Errors here are notices: the consumer goes on by itself.
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) {
                let mut published = self
                    .published
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let times = published.entry(record.partition()).or_default();
                times.push(record.timestamp().to_millis().unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The enricher's group, seen from outside.
pub struct Group {
    viewer: GroupViewer,
    partitions: usize,
}

impl Group {
    /// Of this deployment.
    pub fn of(deployment: &Deployment<'_>) -> Result<Self> {
        Ok(Self {
            viewer: GroupViewer::new(&deployment.broker.client(), &deployment.group())?,
            partitions: deployment.partitions().unsigned_abs() as usize,
        })
    }

    /// Waits until the group lists a member, or lists it no longer.
    pub fn await_member(&self, instance: &str, listed: bool) -> Result<()> {
        let what = if listed { "to come" } else { "to be gone" };
        await_until(LIMIT, &format!("{instance} {what}"), || {
            let Ok(group) = self.viewer.describe() else {
                return Ok(None);
            };
            let found = group
                .members
                .iter()
                .any(|member| member.instance == instance);
            Ok((found == listed).then_some(()))
        })
    }

    /// Waits until the group is stable and every partition has exactly one owner.
    pub fn await_owners(&self) -> Result<()> {
        await_until(LIMIT, "an owner for every partition", || {
            let Ok(group) = self.viewer.describe() else {
                return Ok(None);
            };
            let mut owned: Vec<i32> = group
                .members
                .iter()
                .flat_map(|member| member.partitions.iter().map(|(_, partition)| *partition))
                .collect();
            owned.sort_unstable();
            owned.dedup();
            Ok((group.stable && owned.len() == self.partitions).then_some(()))
        })
    }
}

/// Times that were measured, for a table.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Takes note of one.
    pub fn add(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.0.extend(times);
    }

    /// The time that so many of a hundred stay at or under.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default()
    }

    /// Prints p50, p99 and how many there are; libtest shows it with `--nocapture`.
    #[allow(clippy::print_stderr, reason = "the figures of a run")]
    pub fn print(&self, what: &str) {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        let count = self.0.len();
        eprintln!("{what}: p50 {p50:.2?}, p99 {p99:.2?} of {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::Times;
    use std::time::Duration;

    #[test]
    fn percentiles_are_taken_from_the_times_themselves() {
        let mut times = Times::default();
        assert_eq!(times.percentile(99), Duration::ZERO);
        times.add((1..=200).map(Duration::from_millis));
        assert_eq!(times.percentile(50), Duration::from_millis(100));
        assert_eq!(times.percentile(99), Duration::from_millis(198));
    }
}
