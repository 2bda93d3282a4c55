//! The Redis sink as a process between a real Kafka and a real Redis: killed again and again, or left with a Redis that does not
//! let it do its work.
#![allow(clippy::indexing_slicing)]

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thmanyah_dev::{Broker, BrokerOptions, ProcessorOptions, Redis, RedisOptions, Topic};
use thmanyah_proptests::board::Engaged;
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::flow::now_ms;
use thmanyah_proptests::oracle::{EventRow, expected_enriched};
use thmanyah_proptests::redis_view::{compare, hostile_events, moments, positions, read_numbers};
use thmanyah_proptests::topics::Record;

const ENRICHED: &str = "engagement-events.enriched";
const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_mins(1);
const PREFIX: &str = "thm";

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker starts"));

/// How often the sink is killed; `make chaos-sinks` asks for more.
fn kills() -> i64 {
    let asked = std::env::var("SINK_KILLS").ok();
    asked.and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// A deployment with an enriched topic that this test fills.
struct Rig {
    deployment: Deployment<'static>,
    publisher: BaseProducer,
}

impl Rig {
    fn new(app: &str) -> Result<Self> {
        let deployment = Deployment::new(&BROKER, app, PARTITIONS)?;
        let topic = Topic::new(&deployment.topic(ENRICHED), PARTITIONS)
            .with("message.timestamp.type", "LogAppendTime")
            .with("max.message.bytes", "8388608");
        BROKER.create_topics(&[topic])?;
        let mut client = BROKER.client();
        client.set("transactional.id", format!("{app}-publisher"));
        let publisher: BaseProducer = client.create()?;
        publisher.init_transactions(LIMIT)?;
        Ok(Self {
            deployment,
            publisher,
        })
    }

    /// Publishes in one transaction, which leaves a mark in each partition, or leaves nothing but marks.
    fn publish(&self, rows: &[EventRow], commit: bool) -> Result<()> {
        self.publisher.begin_transaction()?;
        for row in rows {
            self.send(row.id, &expected_enriched(row, None))?;
        }
        if commit {
            self.publisher.commit_transaction(LIMIT)?;
        } else {
            self.publisher.flush(LIMIT)?;
            self.publisher.abort_transaction(LIMIT)?;
        }
        Ok(())
    }

    fn send(&self, id: i64, value: &[u8]) -> Result<()> {
        let (topic, key) = (self.deployment.topic(ENRICHED), id.to_string());
        let partition = i32::try_from(id % i64::from(PARTITIONS))?;
        let record = BaseRecord::to(&topic)
            .partition(partition)
            .key(&key)
            .payload(value);
        self.publisher.send(record).map_err(|(error, _)| error)?;
        self.publisher.poll(Duration::ZERO);
        Ok(())
    }

    fn options(&self, redis: &Redis) -> ProcessorOptions {
        let mut options = self.deployment.options("a").args(["--roles", "sink-redis"]);
        options.env.extend([
            ("THMANYAH_SINKS__REDIS__URL".into(), redis.url()),
            ("THMANYAH_SINKS__REDIS__BATCH_RECORDS".into(), "100".into()),
            ("THMANYAH_SINKS__REDIS__LINGER".into(), "1ms".into()),
        ]);
        options
    }

    /// Waits until Redis has everything that is in the topic, and compares.
    fn compare(&self, redis: &Redis, while_waiting: &mut Logged) -> Result<usize> {
        let records = self.deployment.read(ENRICHED)?;
        let end = |partition| {
            let last = records
                .iter()
                .filter(|record: &&Record| record.partition == partition)
                .map(|record| record.offset)
                .max();
            last.map_or(0, |last| last + 1)
        };
        await_until(LIMIT, "Redis to have all", || {
            ensure!(while_waiting.ended().is_none(), "the sink ended");
            let positions = positions(redis, PREFIX)?;
            Ok((0..PARTITIONS)
                .all(|partition| positions.get(&partition) == Some(&end(partition)))
                .then_some(()))
        })?;
        let events = Engaged::all(&records);
        compare(redis, PREFIX, &events, &moments(now_ms()))?;
        Ok(events.len())
    }
}

fn total(redis: &Redis) -> Result<i64> {
    Ok(positions(redis, PREFIX)?.values().sum())
}

#[test]
fn twenty_thousand_events_count_once_though_the_sink_is_killed_again_and_again() -> Result<()> {
    let seed: u64 = rand::random();
    run_killed(seed).with_context(|| format!("seed {seed}"))
}

fn run_killed(seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rig = Rig::new("rkill")?;
    let mut redis = Redis::start(RedisOptions::default())?;
    let rows = hostile_events(&mut rng, 0..20_000, now_ms());
    let kills = kills();
    let slice = rows.len() / usize::try_from(kills + 1)? - 5;
    let mut sink = Logged::spawn(rig.options(&redis))?;
    let mut done = 0;
    for kill in 0..kills {
        let (first, second) = rows[done..done + slice].split_at(rng.random_range(0..slice));
        done += slice;
        let before = total(&redis)?;
        rig.publish(first, true)?;
        rig.publish(second, false)?;
        rig.publish(second, true)?;
        let some = rng.random_range(1..90);
        await_until(LIMIT, "the sink to get on", || {
            ensure!(sink.ended().is_none(), "the sink ended");
            Ok((total(&redis)? >= before + some).then_some(()))
        })?;
        // Every other time its last calls wait in a Redis that stands still, and are made after its death.
        if kill % 2 == 0 {
            redis.pause();
            rig.publish(&rows[done..done + 5], true)?;
            done += 5;
        }
        sink.kill9();
        redis.resume();
        if kill % 7 == 3 {
            redis.restart()?;
        }
        sink.respawn()?;
    }
    for rest in rows[done..].chunks(1_000) {
        rig.publish(rest, true)?;
    }
    // What is no enriched event is a dead letter, and holds up nothing.
    rig.publisher.begin_transaction()?;
    rig.send(3, b"no event")?;
    rig.publisher.commit_transaction(LIMIT)?;
    ensure!(rig.compare(&redis, &mut sink)? == rows.len());
    let letters = rig.deployment.read("engagement-events.dlq")?;
    let [letter] = &letters[..] else {
        anyhow::bail!("{letters:?}");
    };
    ensure!(
        letter.value.as_deref() == Some(b"no event")
            && letter.text("dlq-stage") == Some("sink-redis")
    );

    redis.restart_empty()?;
    ensure!(rig.compare(&redis, &mut sink)? == rows.len());
    await_until(LIMIT, "the rebuild to be told of as done", || {
        let status = read_numbers(&redis, "thmanyah_status", PREFIX, &[])?;
        Ok((status.get("rebuilding") == Some(&0)).then_some(()))
    })?;
    ensure!(sink.metric("thmanyah_sink_rebuilding_partitions", &[("sink", "redis")])? == Some(0.0));
    let status = sink.terminate(LIMIT)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_redis_with_tls_and_a_user_of_its_own_is_delivered_to_once_it_lets_the_sink() -> Result<()> {
    let rig = Rig::new("rtls")?;
    let redis = Redis::start(
        RedisOptions::default()
            .tls()
            .with("maxmemory-policy", "allkeys-lru")
            .user("sink on >secret ~{thm}* +ping"),
    )?;
    let rows = hostile_events(&mut ChaCha8Rng::seed_from_u64(1), 0..500, now_ms());
    rig.publish(&rows, true)?;
    let mut options = rig.options(&redis);
    options.env.extend([
        (
            "SSL_CERT_FILE".into(),
            redis.certificate().display().to_string(),
        ),
        ("THMANYAH_SINKS__REDIS__USERNAME".into(), "sink".into()),
        ("THMANYAH_SINKS__REDIS__PASSWORD".into(), "secret".into()),
    ]);
    let mut sink = Logged::spawn(options)?;
    let told = "ACL SETUSER sink ~{thm}* +@read +@write +@scripting +@connection +time +info";
    await_until(LIMIT, "one clear message", || {
        ensure!(sink.ended().is_none(), "the sink ended");
        Ok(sink.log().contains(told).then_some(()))
    })?;
    let words: Vec<&str> = told.split(' ').collect();
    redis.command(&words)?;
    ensure!(rig.compare(&redis, &mut sink)? == rows.len());
    let log = sink.log();
    let times = log
        .lines()
        .filter(|line| line.contains("ACL SETUSER"))
        .count();
    ensure!(times == 1, "told {times} times");
    ensure!(log.contains("maxmemory-policy to noeviction"));
    ensure!(!log.contains("secret"), "the password is in the log");
    Ok(())
}
