//! Fills the input topics, and keeps one of them flowing.

use crate::records::{Order, Records};
use anyhow::{Context, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FLUSH: Duration = Duration::from_mins(1);
/// Events a second while restarts are measured.
const FLOW_PER_SECOND: u64 = 2_000;
/// How often the flow is topped up.
const TICK: Duration = Duration::from_millis(5);

/// Writes to one topic, partitioned as Java does.
pub struct Writer {
    producer: BaseProducer,
    topic: String,
}

impl Writer {
    /// A writer to `topic`.
    pub fn new(bootstrap: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .create()
            .context("make a producer")?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Queues the record that is in the buffers.
    pub fn write(&self, records: &Records) -> Result<()> {
        let mut next = BaseRecord::to(&self.topic)
            .key(records.key.as_str())
            .payload(records.value.as_str());
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.producer.poll(Duration::from_millis(10));
                    next = refused;
                }
                Err((error, _)) => bail!("write to {}: {error}", self.topic),
            }
        }
    }

    /// Waits until everything is in the log.
    pub fn finish(&self) -> Result<()> {
        self.producer.flush(FLUSH).context("flush the input")
    }
}

/// Fills the content topic.
pub fn contents(bootstrap: &str, topic: &str, records: &mut Records) -> Result<()> {
    let writer = Writer::new(bootstrap, topic)?;
    for index in 0..records.contents() {
        records.content(index);
        writer.write(records)?;
    }
    writer.finish()
}

/// Fills a topic of events; ids begin at 1.
pub fn events(
    bootstrap: &str,
    topic: &str,
    records: &mut Records,
    count: u64,
    order: Order,
) -> Result<()> {
    let writer = Writer::new(bootstrap, topic)?;
    for id in 1..=count {
        records.event(id, order);
        writer.write(records)?;
    }
    writer.finish()
}

/// Fills a topic with events that must all be refused; ids begin at 1.
pub fn bad_events(bootstrap: &str, topic: &str, records: &mut Records, count: u64) -> Result<()> {
    let writer = Writer::new(bootstrap, topic)?;
    for id in 1..=count {
        records.event(id, Order::Rising);
        records.spoil();
        writer.write(records)?;
    }
    writer.finish()
}

/// A steady flow of further events. It ends when dropped.
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flow {
    /// Begins with event `first`.
    pub fn start(bootstrap: &str, topic: &str, mut records: Records, first: u64) -> Result<Self> {
        let writer = Writer::new(bootstrap, topic)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = began.elapsed().as_millis() as u64 * FLOW_PER_SECOND / 1000;
                while written < due {
                    records.event(first + written, Order::Rising);
                    writer.write(&records)?;
                    written += 1;
                }
                writer.producer.poll(Duration::ZERO);
                std::thread::sleep(TICK);
            }
            writer.finish()
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its failure shows in what is measured: nothing comes out.
            let _ = thread.join();
        }
    }
}
