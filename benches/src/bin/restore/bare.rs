//! The bare reader: librdkafka with the processor's fetch settings, which counts committed records and keeps nothing.

use crate::report::Measured;
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::thread;
use std::time::{Duration, Instant};
use thmanyah_benches::cpu::cpu_seconds;

const ASK: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Nothing comes for this long: something is broken.
const STALLED: Duration = Duration::from_mins(1);

/// Reads the topics to their ends, each on a thread of its own.
pub(crate) fn read(bootstrap: &str, topics: &[&str]) -> Result<Measured> {
    let cpu = cpu_seconds(std::process::id())?;
    let began = Instant::now();
    let records = thread::scope(|scope| {
        let readers: Vec<_> = topics
            .iter()
            .map(|topic| scope.spawn(|| read_one(bootstrap, topic)))
            .collect();
        let counts = readers
            .into_iter()
            .map(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?);
        counts.sum::<Result<u64>>()
    })?;
    Ok(Measured {
        records,
        seconds: began.elapsed().as_secs_f64(),
        cpu: cpu_seconds(std::process::id())? - cpu,
        restoring: began.elapsed().as_secs_f64(),
    })
}

fn read_one(bootstrap: &str, topic: &str) -> Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bare-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", "20")
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.queue.backoff.ms", "20")
        .create()
        .context("make a consumer")?;
    let metadata = consumer.fetch_metadata(Some(topic), ASK)?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |t| t.partitions().len());
    let mut ends = TopicPartitionList::new();
    let mut start = TopicPartitionList::new();
    for partition in 0..i32::try_from(count)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ASK)?;
        ends.add_partition_offset(topic, partition, Offset::Offset(high))?;
        start.add_partition_offset(topic, partition, Offset::Offset(low))?;
    }
    consumer.assign(&start)?;
    let (mut records, mut heard) = (0, Instant::now());
    loop {
        match consumer.poll(POLL) {
            Some(Ok(_)) => {
                records += 1;
                continue;
            }
            Some(Err(error)) => return Err(error).context("read"),
            None => {}
        }
        if at_ends(&consumer, &ends)? {
            return Ok(records);
        }
        if records > 0 {
            ensure!(heard.elapsed() < STALLED, "{topic} gives nothing more");
        } else {
            heard = Instant::now();
        }
    }
}

/// Looked at only when nothing comes: markers end each log.
fn at_ends(consumer: &BaseConsumer, ends: &TopicPartitionList) -> Result<bool> {
    let positions = consumer.position()?.to_topic_map();
    let reached = ends.to_topic_map().into_iter().all(|(place, end)| {
        let (Offset::Offset(end), Some(Offset::Offset(position))) = (end, positions.get(&place))
        else {
            return end == Offset::Offset(0);
        };
        *position >= end
    });
    Ok(reached)
}
