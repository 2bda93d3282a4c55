//! Answers of a broker that come late, on librdkafka's own mock cluster, whose delays can be set.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord};
use thmanyah::config::{Config, Flags, Layers};
use thmanyah::kafka::{
    Kafka, LimitReader, MemberSettings, ProducerSettings, TopicLimits, Transactor,
};
use thmanyah::metrics::Metrics;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "late";
/// A steady trickle, for longer than the half second after which a late answer is asked for again.
const RECORDS: i64 = 200;
/// Longer than what comes between an assignment and the seek, and shorter than any time-out.
const DELAY: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_mins(1);
/// Between two records.
const POLL: Duration = Duration::from_millis(10);

fn send(producer: &BaseProducer, number: i64) -> Result<()> {
    let value = number.to_string();
    let record = BaseRecord::<(), str>::to(TOPIC)
        .partition(0)
        .payload(&value);
    producer
        .send(record)
        .map_err(|(error, _)| anyhow::anyhow!("{error}"))?;
    producer.poll(Duration::ZERO);
    Ok(())
}

fn transactor(brokers: &str) -> Result<Transactor<Kafka>> {
    let flags = Flags {
        file: None,
        settings: [
            ("--bootstrap-servers", brokers),
            ("--instance", "0"),
            ("--state-dir", "."),
        ]
        .map(|(flag, value)| (flag, value.to_owned()))
        .to_vec(),
    };
    let config = Config::load(&Layers::from_parts(&flags, [])?)?;
    let stop = CancellationToken::new();
    let limits = LimitReader::new(config.kafka.clone(), config.topics, 8 << 20, stop);
    let client = config.kafka.client();
    let edge = Kafka::new(client, (1 << 20, 16 << 20), limits, &TopicLimits::default());
    let producer = ProducerSettings {
        transactional_id: "late-0".to_owned(),
        transaction_timeout: config.kafka.transaction_timeout,
        max_record_bytes: 8 << 20,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let member = MemberSettings {
        group: "late".to_owned(),
        instance: "late-0".to_owned(),
        topic: TOPIC.to_owned(),
        session_timeout: config.kafka.session_timeout,
        heartbeat: config.kafka.heartbeat,
        max_poll_interval: config.kafka.max_poll_interval,
        unsettle: Arc::default(),
    };
    Ok(Transactor::start(edge, producer, member, Metrics::new())?)
}

#[test]
fn a_partition_is_read_from_where_it_was_sought_however_late_its_assignment_is_answered()
-> Result<()> {
    let cluster = MockCluster::new(1)?;
    cluster.create_topic(TOPIC, 1, 1)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("linger.ms", "0")
        .create()?;
    let transactor = transactor(&cluster.bootstrap_servers())?;
    cluster.broker_round_trip_time(1, DELAY)?;
    let began = Instant::now();
    let (mut assigned, mut sent, mut next) = (false, 0, 0);
    while next < RECORDS {
        ensure!(
            began.elapsed() < LIMIT,
            "{next} of {sent} records were read"
        );
        if let Some(record) = transactor.poll(POLL)? {
            let offset = record.offset();
            ensure!(offset == next, "record {offset} came instead of {next}");
            next += 1;
        }
        if transactor.changes().is_some() {
            // As soon as can be: whatever the assignment asked the broker is not answered yet.
            transactor.member().resume_at(&[(0, 0)]).context("resume")?;
            assigned = true;
        }
        if assigned && sent < RECORDS {
            send(&producer, sent)?;
            sent += 1;
        }
    }
    Ok(())
}
