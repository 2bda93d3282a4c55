//! The bare copy: the least that librdkafka costs for the same records in the same transactions. It reads the raw records
//! `read_committed` and writes as many bytes as an enriched event has; it parses nothing and keeps nothing.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of an enriched event's value.
const ENRICHED_BYTES: usize = 340;
/// The processor's defaults.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const COMMIT_RECORDS: usize = 10_000;
const IDLE: Duration = Duration::from_millis(20);
/// The processor polls its producer after this many records.
const POLL_EVERY: usize = 256;

/// What to copy.
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    #[arg(long)]
    pub(crate) bootstrap: String,
    #[arg(long)]
    pub(crate) from: String,
    #[arg(long)]
    pub(crate) to: String,
    #[arg(long)]
    pub(crate) group: String,
    #[arg(long)]
    pub(crate) threads: usize,
}

/// Copies until standard input ends, which it does with the one who started it.
pub(crate) fn run(args: &CopyArgs) -> Result<()> {
    std::thread::scope(|scope| {
        for number in 0..args.threads {
            scope.spawn(move || {
                let failed = Copier::start(args, number).and_then(Copier::copy);
                // A half of the copy would be measured as a whole one.
                fail(&failed.err().unwrap_or_else(|| anyhow!("the copy ended")));
            });
        }
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0)
    })
}

fn fail(error: &anyhow::Error) -> ! {
    eprintln!("bare copy: {error:#}");
    std::process::exit(1)
}

#[derive(Default)]
struct Rebalances(AtomicBool);

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Copier {
    consumer: BaseConsumer<Rebalances>,
    producer: BaseProducer,
    from: String,
    to: String,
    positions: BTreeMap<i32, i64>,
    records: usize,
    opened: Option<Instant>,
}

impl Copier {
    fn start(args: &CopyArgs, number: usize) -> Result<Self> {
        let id = format!("{}-{number}", args.group);
        // The processor's own settings.
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &args.bootstrap)
            .set("transactional.id", &id)
            .set("transaction.timeout.ms", "15000")
            .set("retry.backoff.ms", "500")
            .set("retry.backoff.max.ms", "1000")
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .create()
            .context("make a producer")?;
        producer
            .init_transactions(Duration::from_secs(30))
            .context("init_transactions")?;
        let consumer: BaseConsumer<Rebalances> = ClientConfig::new()
            .set("bootstrap.servers", &args.bootstrap)
            .set("group.id", &args.group)
            .set("group.instance.id", &id)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "2000")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "20000")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.queue.backoff.ms", "20")
            .create_with_context(Rebalances::default())
            .context("make a consumer")?;
        consumer.subscribe(&[&args.from]).context("subscribe")?;
        Ok(Self {
            consumer,
            producer,
            from: args.from.clone(),
            to: args.to.clone(),
            positions: BTreeMap::new(),
            records: 0,
            opened: None,
        })
    }

    fn copy(mut self) -> Result<()> {
        loop {
            let left = self.opened.map_or(IDLE, |at| {
                COMMIT_INTERVAL.saturating_sub(at.elapsed()).min(IDLE)
            });
            self.read(left)?;
            let due = self
                .opened
                .is_some_and(|at| at.elapsed() >= COMMIT_INTERVAL);
            if due || self.records >= COMMIT_RECORDS {
                self.commit()?;
            }
        }
    }

    /// Copies records until the transaction is full or none comes.
    fn read(&mut self, mut wait: Duration) -> Result<()> {
        while self.records < COMMIT_RECORDS {
            let polled = self.consumer.poll(wait);
            wait = Duration::ZERO;
            if self.consumer.context().0.swap(false, Ordering::Relaxed) {
                drop(polled);
                return self.start_over();
            }
            // Errors are notices; what is fatal leaves the copy standing still, which is seen.
            let Some(Ok(record)) = polled else {
                return Ok(());
            };
            if self.opened.is_none() {
                self.producer.begin_transaction().context("begin")?;
                self.opened = Some(Instant::now());
            }
            let bytes = record.payload().unwrap_or_default();
            let mut next = BaseRecord::<[u8], [u8]>::to(&self.to)
                .partition(record.partition())
                .payload(bytes.get(..ENRICHED_BYTES).unwrap_or(bytes));
            next.key = record.key();
            self.positions
                .insert(record.partition(), record.offset() + 1);
            while let Err((error, refused)) = self.producer.send(next) {
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => {}
                    // The transaction has failed meanwhile, and with it all that it holds.
                    Some(RDKafkaErrorCode::State) => {
                        drop(record);
                        return self.start_over();
                    }
                    _ => return Err(error).context("send"),
                }
                self.producer.poll(Duration::from_millis(1));
                next = refused;
            }
            self.records += 1;
            if self.records.is_multiple_of(POLL_EVERY) {
                self.producer.poll(Duration::ZERO);
                if self
                    .opened
                    .is_some_and(|at| at.elapsed() >= COMMIT_INTERVAL)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        loop {
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() == 0 {
                break;
            }
            flush(&self.producer);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in &self.positions {
            offsets.add_partition_offset(&self.from, *partition, Offset::Offset(*position))?;
        }
        let group = self
            .consumer
            .group_metadata()
            .context("no group metadata")?;
        let committed = self
            .producer
            .send_offsets_to_transaction(&offsets, &group, Timeout::Never)
            .and_then(|()| self.producer.commit_transaction(Timeout::Never));
        match committed {
            Ok(()) => self.close(),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                self.start_over()?;
            }
            Err(error) => return Err(error).context("commit"),
        }
        Ok(())
    }

    fn close(&mut self) {
        self.positions.clear();
        self.records = 0;
        self.opened = None;
    }

    /// Aborts what is open and reads on from what was committed.
    fn start_over(&mut self) -> Result<()> {
        if self.opened.is_some() {
            self.producer
                .purge(PurgeConfig::default().queue().inflight());
            while self.producer.in_flight_count() > 0 {
                self.producer.poll(Duration::from_millis(1));
            }
            self.producer
                .abort_transaction(Timeout::Never)
                .context("abort")?;
        }
        let touched = !self.positions.is_empty();
        self.close();
        let kept = self.consumer.assignment()?;
        if touched && kept.count() > 0 {
            let mut committed = self
                .consumer
                .committed_offsets(kept, Duration::from_secs(10))?;
            for partition in committed.elements_for_topic(&self.from) {
                let mut partition = partition;
                if partition.offset() == Offset::Invalid {
                    partition.set_offset(Offset::Beginning)?;
                }
            }
            committed = self
                .consumer
                .seek_partitions(committed, Duration::from_secs(10))?;
            for partition in committed.elements() {
                partition.error().context("seek")?;
            }
        }
        Ok(())
    }
}

/// Waits a millisecond for deliveries and lets librdkafka send at once, as the processor does.
#[allow(unsafe_code, reason = "rdkafka's own flush polls in steps of 100 ms")]
fn flush(producer: &BaseProducer) {
    // SAFETY: the native client lives as long as the producer, and rd_kafka_flush is thread-safe.
    unsafe {
        rdkafka::bindings::rd_kafka_flush(producer.client().native_ptr(), 1);
    }
}
