//! Each event once in BigQuery, whatever becomes of who writes it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thmanyah::config::{BigQueryConfig, Config, Flags, Layers};
use thmanyah::health::Health;
use thmanyah::kafka::{Kafka, LimitReader, TopicLimits};
use thmanyah::metrics::Metrics;
use thmanyah::sinks::{
    Batch, BigQuerySink, Breaker, Condition, Destination, Frame, Lane, LetterSettings, Letters,
    Record, StateTopic, Taken,
};
use thmanyah_dev::{Processor, Topic};
use thmanyah_proptests::bigquery_site::{Site, Stage, await_line, stage};
use thmanyah_proptests::published::Written;
use thmanyah_proptests::table::{await_count, count, must_equal};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_mins(1);
/// A killed client leaves a connection behind in the emulator, which has 256.
const KILLS_PER_EMULATOR: usize = 50;

/// `SINK_KILLS` for another number.
fn kills() -> usize {
    let set = std::env::var("SINK_KILLS").ok();
    set.and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

#[test]
fn a_sink_that_is_killed_again_and_again_writes_each_event_once() -> Result<()> {
    let mut stage = stage();
    let (kills, seed) = (kills(), rand::random::<u64>());
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let site = Site::new(&stage, "killed", 4)?;
    let events = 1_000 * kills.max(20);
    let written = site.fill(&stage, 1, events)?;
    let mut sink = Processor::spawn(site.options(&stage, &[("BATCH_RECORDS", "100")]))?;
    let mut progress = Vec::new();
    for kill in 1..=kills {
        if rng.random_ratio(1, 4) {
            // At any moment, also while it starts and takes partitions over.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        } else {
            let opened = sink.log().matches("opened a stream").count();
            await_line(&mut sink, "opened a stream", opened + 1, LIMIT)?;
            std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        }
        sink.kill9();
        progress.push(count(&stage.bigquery, &site.table()).unwrap_or_default());
        if kill % KILLS_PER_EMULATOR == 0 {
            stage.bigquery.restart()?;
        }
        sink.respawn()?;
    }
    await_count(&stage.bigquery, &site.table(), events, LIMIT)?;
    println!("rows after each kill: {progress:?}");
    must_equal(&stage.bigquery, &site.table(), &written)
}

/// One of those who fight for a partition.
struct Contender {
    sink: BigQuerySink,
    frame: Frame,
    log: Arc<Vec<Record>>,
    topic_id: [u8; 16],
    opened: Arc<AtomicU32>,
    done: Arc<AtomicBool>,
}

impl Contender {
    /// Takes the partition over, writes, and lets go of it in the middle of what it does, until the last record is there.
    async fn fight(self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.sink.prepare().await.unwrap();
        while !self.done.load(Ordering::Relaxed) {
            let time = Duration::from_millis(rng.random_range(50..1_500));
            // Dropped at whatever await it is, as a kill would end it.
            let _ = tokio::time::timeout(time, self.attempt(&mut rng)).await;
        }
    }

    async fn attempt(&self, rng: &mut ChaCha8Rng) -> Option<()> {
        let end = self.log.last()?.offset + 1;
        let taken = Taken {
            partition: 0,
            topic_id: self.topic_id,
            log_start: 0,
            log_end: end,
            committed: None,
        };
        let opened = self.sink.open(taken, self.frame.clone()).await;
        let (mut lane, mut position) = opened.ok()?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        while position < end {
            let from = self.log.partition_point(|record| record.offset < position);
            let most = rng.random_range(1..30);
            let records = self.log.iter().skip(from).take(most).cloned().collect();
            let batch = Batch { records };
            position = batch.next_offset();
            lane.deliver(&batch).await.ok()?;
        }
        self.done.store(true, Ordering::Relaxed);
        Some(())
    }
}

fn configuration(stage: &Stage, dataset: &str) -> Result<Config> {
    let text = |text: &str| text.to_owned();
    let environment = [
        ("KAFKA__BOOTSTRAP_SERVERS", text(stage.broker.bootstrap())),
        ("INSTANCE", text("0")),
        ("STATE_DIR", text(".")),
        ("SINKS__BIGQUERY__PROJECT", text(stage.bigquery.project())),
        ("SINKS__BIGQUERY__DATASET", text(dataset)),
        ("SINKS__BIGQUERY__REST_URL", stage.bigquery.rest_url()),
        ("SINKS__BIGQUERY__GRPC_URL", stage.bigquery.grpc_url()),
    ];
    let environment =
        environment.map(|(name, value)| (format!("THMANYAH_{name}").into(), value.into()));
    let layers = Layers::from_parts(&Flags::default(), environment)?;
    Ok(Config::load(&layers)?)
}

fn states(config: &Config, topic: &str) -> StateTopic {
    let stop = CancellationToken::new();
    let limits = LimitReader::new(config.kafka.clone(), config.topics.clone(), 1 << 20, stop);
    let shares = (1 << 20, 1 << 20);
    StateTopic {
        kafka: Kafka::new(
            config.kafka.client(),
            shares,
            limits,
            &TopicLimits::default(),
        ),
        topic: topic.to_owned(),
        partitions: 1,
        app: "fight".to_owned(),
    }
}

fn frame(config: &Config) -> Result<Frame> {
    let metrics = Metrics::new().sink("bigquery");
    let breaker = Arc::new(Breaker::new());
    let letters = LetterSettings {
        client: config.kafka.client(),
        topic: "fight.dlq".into(),
        limit: 1_000_000,
        stage: "sink-bigquery".into(),
        source: "enriched".into(),
    };
    let health = Arc::new(Health::new());
    Ok(Frame {
        condition: Condition::new("bigquery", health, metrics.clone(), Arc::clone(&breaker)),
        letters: Letters::new(letters, metrics.clone())?,
        metrics,
        breaker,
    })
}

fn record(written: &Written) -> Record {
    Record {
        offset: written.offset,
        timestamp_ms: written.timestamp_ms,
        key: None,
        value: written.value.clone(),
    }
}

#[test]
fn two_that_fight_for_a_partition_write_each_event_once() -> Result<()> {
    let parts = stage();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let site = Site::new(&parts, "fight", 1)?;
    let written = site.fill(&parts, 1, 3_000)?;
    let state = site.topic("sinks.state");
    let compacted = Topic::new(&state, 1).with("cleanup.policy", "compact");
    parts.broker.create_topics(&[compacted])?;
    let config = configuration(&parts, "fight")?;
    let bigquery: &BigQueryConfig = &config.sinks.bigquery;
    let log = Arc::new(written.iter().flatten().map(record).collect());
    let (opened, done) = (Arc::default(), Arc::default());
    let runtime = tokio::runtime::Runtime::new()?;
    let fights = (0..2).map(|number| {
        let contender = Contender {
            sink: BigQuerySink::new(bigquery, states(&config, &state))?,
            frame: frame(&config)?,
            log: Arc::clone(&log),
            topic_id: [7; 16],
            opened: Arc::clone(&opened),
            done: Arc::clone(&done),
        };
        Ok(runtime.spawn(contender.fight(seed ^ number)))
    });
    let fights: Vec<_> = fights.collect::<Result<_>>()?;
    for fight in fights {
        runtime.block_on(fight)?;
    }
    println!("{} streams were opened", opened.load(Ordering::Relaxed));
    assert!(opened.load(Ordering::Relaxed) > 2, "nobody fought");
    must_equal(&parts.bigquery, &site.table(), &written)
}
