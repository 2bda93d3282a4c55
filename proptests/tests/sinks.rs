//! What all sinks have in common, with real destinations: none holds up another, an operator's pause outlives the process,
//! events that retention took first are told, and partitions that move lose nothing.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use thmanyah_dev::{
    BigQuery, Broker, BrokerOptions, ExternalSystem, Processor, ProcessorOptions, Redis,
    RedisOptions, ScratchDir, Topic, get,
};
use thmanyah_proptests::deployment::await_until;
use thmanyah_proptests::published::{Filling, fill};

const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_mins(1);
const ENRICHED: &str = "engagement-events.enriched";
const TOKEN: &str = "operate";

/// A broker with the topics that upstream makes, and a place for state.
struct Site {
    broker: Broker,
    state: ScratchDir,
}

impl Site {
    fn new() -> Result<Self> {
        let broker = Broker::start(BrokerOptions::default())?;
        let inputs = ["engagement-events.raw", "content.raw"];
        broker.create_topics(&inputs.map(|name| Topic::new(name, PARTITIONS)))?;
        Ok(Self {
            broker,
            state: ScratchDir::new("sinks")?,
        })
    }

    /// Publishes so many events with ids from `first` on.
    fn publish(&self, first: i64, events: usize) -> Result<()> {
        let filling = Filling {
            first_id: first,
            ..Filling::new(PARTITIONS, events, 50, 7)
        };
        fill(&self.broker, ENRICHED, &filling).map(drop)
    }

    /// Writes to each partition in a transaction that is aborted.
    fn abort_some(&self) -> Result<()> {
        let mut client = self.broker.client();
        let producer: BaseProducer = client.set("transactional.id", "aborts").create()?;
        producer.init_transactions(LIMIT)?;
        producer.begin_transaction()?;
        for partition in 0..PARTITIONS {
            let record = BaseRecord::<(), _>::to(ENRICHED).partition(partition);
            let sent = producer.send(record.payload("nobody sees this"));
            sent.map_err(|(error, _)| error)?;
        }
        producer.flush(LIMIT)?;
        Ok(producer.abort_transaction(LIMIT)?)
    }

    /// Whether a group has committed the end of each partition.
    fn is_at_the_end(&self, group: &str) -> Result<Option<()>> {
        let viewer: BaseConsumer = self.broker.client().set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            asked.add_partition(ENRICHED, partition);
        }
        for element in viewer.committed_offsets(asked, LIMIT)?.elements() {
            let (_, end) = viewer.fetch_watermarks(ENRICHED, element.partition(), LIMIT)?;
            if element.offset() != Offset::Offset(end) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn options(
        &self,
        instance: &str,
        roles: &str,
        settings: &[(&str, String)],
    ) -> ProcessorOptions {
        let dir = self.state.path().join(instance);
        let mut options =
            ProcessorOptions::new(self.broker.bootstrap(), instance, &dir).args(["--roles", roles]);
        let settings = settings.iter();
        options.env = settings
            .map(|(name, value)| (format!("THMANYAH_{name}"), value.clone()))
            .collect();
        options
            .env
            .push(("THMANYAH_HTTP__OPERATE_TOKEN".into(), TOKEN.into()));
        options
    }
}

/// Events that a sink has delivered, as far as this process knows.
fn delivered(processor: &Processor, sink: &str) -> Result<u64> {
    let count = processor.metric("thmanyah_sink_events_total", &[("sink", sink)])?;
    Ok(count.unwrap_or_default() as u64)
}

fn await_delivered(processor: &mut Processor, sink: &str, events: u64) -> Result<()> {
    await_until(LIMIT, &format!("{events} events by {sink}"), || {
        ensure!(
            processor.ended().is_none(),
            "it ended:\n{}",
            processor.log()
        );
        Ok((delivered(processor, sink)? >= events).then_some(()))
    })
}

/// Different events that the external system has.
fn distinct(external: &ExternalSystem) -> Result<u64> {
    let seen: Value = serde_json::from_str(&external.get("/seen")?.body)?;
    seen.get("distinct")
        .and_then(Value::as_u64)
        .context("the mock tells no number")
}

fn await_distinct(external: &ExternalSystem, events: u64) -> Result<()> {
    await_until(LIMIT, &format!("{events} different events"), || {
        Ok((distinct(external)? == events).then_some(()))
    })
}

#[test]
fn a_destination_that_is_dead_holds_up_no_other_and_catches_up_by_itself() -> Result<()> {
    let site = Site::new()?;
    let redis = Redis::start(RedisOptions::default())?;
    let mut bigquery = BigQuery::start()?;
    let external = ExternalSystem::start(PARTITIONS)?;
    let settings = [
        ("SINKS__REDIS__URL", redis.url()),
        ("SINKS__HTTP__URL", external.events_url()),
        ("SINKS__BIGQUERY__PROJECT", bigquery.project().to_owned()),
        ("SINKS__BIGQUERY__REST_URL", bigquery.rest_url()),
        ("SINKS__BIGQUERY__GRPC_URL", bigquery.grpc_url()),
    ];
    site.publish(1, 2_000)?;
    let roles = "sink-bigquery,sink-redis,sink-http";
    let mut processor = Processor::start(site.options("0", roles, &settings))?;
    for sink in ["bigquery", "redis", "http"] {
        await_delivered(&mut processor, sink, 2_000)?;
    }
    bigquery.kill9();
    site.publish(2_001, 2_000)?;
    for sink in ["redis", "http"] {
        await_delivered(&mut processor, sink, 4_000)?;
    }
    await_distinct(&external, 4_000)?;
    ensure!(
        delivered(&processor, "bigquery")? == 2_000,
        "to a dead destination"
    );
    await_until(LIMIT, "readiness to name the sink that is unwell", || {
        let ready = processor.get("/readyz")?;
        ensure!(ready.status == 200, "{}", ready.body);
        Ok(ready.body.contains("sink-bigquery").then_some(()))
    })?;
    ensure!(processor.metric("thmanyah_sink_up", &[("sink", "redis")])? == Some(1.0));
    ensure!(processor.metric("thmanyah_sink_up", &[("sink", "bigquery")])? == Some(0.0));
    bigquery.restart()?;
    await_delivered(&mut processor, "bigquery", 4_000)?;
    let sql = "SELECT COUNT(*), COUNT(DISTINCT event_id) FROM `engagement.engagement_events`";
    let rows = bigquery.query(sql, &[])?;
    ensure!(
        rows == [["4000", "4000"].map(|cell| Some(cell.to_owned())).to_vec()],
        "{rows:?}"
    );
    await_until(LIMIT, "all sinks to be well", || {
        Ok((!processor.get("/readyz")?.body.contains("unwell")).then_some(()))
    })
}

#[test]
fn urls_that_are_none_are_told_once_each_and_hold_up_no_other_sink() -> Result<()> {
    let site = Site::new()?;
    let external = ExternalSystem::start(PARTITIONS)?;
    let settings = [
        ("SINKS__REDIS__URL", "127.0.0.1:6379".to_owned()),
        ("SINKS__HTTP__URL", external.events_url()),
        ("SINKS__BIGQUERY__PROJECT", "thmanyah".to_owned()),
        ("SINKS__BIGQUERY__REST_URL", "nowhere".to_owned()),
        ("SINKS__BIGQUERY__GRPC_URL", "ftp://127.0.0.1".to_owned()),
    ];
    site.publish(1, 400)?;
    let roles = "sink-bigquery,sink-redis,sink-http";
    let mut processor = Processor::start(site.options("0", roles, &settings))?;
    await_delivered(&mut processor, "http", 400)?;
    let mut told = Vec::new();
    for (sink, setting) in [("redis", "url"), ("bigquery", "rest_url")] {
        let problem = format!("`sinks.{sink}.{setting}` must be ");
        await_until(LIMIT, &problem, || {
            let ready = processor.get("/readyz")?;
            ensure!(ready.status == 200, "{}", ready.body);
            Ok(ready.body.contains(&problem).then_some(()))
        })?;
        ensure!(processor.metric("thmanyah_sink_up", &[("sink", sink)])? == Some(0.0));
        told.push(problem);
    }
    ensure!(processor.metric("thmanyah_sink_up", &[("sink", "http")])? == Some(1.0));
    for problem in told {
        await_until(LIMIT, &format!("{problem} in the log"), || {
            Ok(processor.log().contains(&problem).then_some(()))
        })?;
        ensure!(
            processor.log().matches(&problem).count() == 1,
            "{}",
            processor.log()
        );
    }
    Ok(())
}

#[test]
fn a_destination_that_hangs_is_told_of_before_all_partitions_have_tried_it() -> Result<()> {
    let site = Site::new()?;
    site.publish(1, 400)?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    silent.set_nonblocking(true)?;
    let settings = [
        (
            "SINKS__REDIS__URL",
            format!("redis://{}", silent.local_addr()?),
        ),
        ("SINKS__REDIS__TIMEOUT", "2s".to_owned()),
    ];
    let processor = Processor::start(site.options("0", "sink-redis", &settings))?;
    await_until(LIMIT, "readiness to name the sink", || {
        let ready = processor.get("/readyz")?;
        Ok(ready.body.contains("does not answer").then_some(()))
    })?;
    let tried = std::iter::from_fn(|| silent.accept().ok()).count();
    let partitions = usize::try_from(PARTITIONS)?;
    ensure!((1..partitions).contains(&tried), "after {tried} of them");
    Ok(())
}

#[test]
fn a_pause_outlives_the_process_until_somebody_resumes() -> Result<()> {
    let site = Site::new()?;
    let external = ExternalSystem::start(PARTITIONS)?;
    let settings = [("SINKS__HTTP__URL", external.events_url())];
    site.publish(1, 500)?;
    let mut processor = Processor::start(site.options("0", "sink-http", &settings))?;
    await_distinct(&external, 500)?;
    operate(&processor, "pause")?;
    site.publish(501, 500)?;
    await_until(LIMIT, "the lag to show", || {
        let lag = processor.metric("thmanyah_sink_lag", &[("sink", "http")])?;
        Ok((lag >= Some(500.0)).then_some(()))
    })?;
    let status = processor.terminate(LIMIT)?;
    ensure!(status.success(), "{status}: {}", processor.log());
    processor.restart()?;
    let sinks: Value = serde_json::from_str(&get(&format!("{}/v1/sinks", processor.url()))?.body)?;
    ensure!(
        sinks.pointer("/items/0/paused") == Some(&Value::Bool(true)),
        "{sinks}"
    );
    ensure!(distinct(&external)? == 500, "delivered while it was paused");
    operate(&processor, "resume")?;
    await_distinct(&external, 1_000)?;
    await_until(LIMIT, "no lag", || {
        let lag = processor.metric("thmanyah_sink_lag", &[("sink", "http")])?;
        Ok((lag == Some(0.0)).then_some(()))
    })
}

fn operate(processor: &Processor, what: &str) -> Result<()> {
    let url = format!("{}/v1/sinks/http/{what}", processor.url());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.post(url).bearer_auth(TOKEN).send().await?;
        Ok::<_, reqwest::Error>(answer.status())
    })?;
    ensure!(status.is_success(), "{what}: {status}");
    Ok(())
}

#[test]
fn lag_and_age_are_true_without_any_new_event_from_the_start_of_an_outage_to_a_restart()
-> Result<()> {
    let site = Site::new()?;
    let mut redis = Redis::start(RedisOptions::default())?;
    redis.kill9();
    site.publish(1, 400)?;
    let settings = [("SINKS__REDIS__URL", redis.url())];
    let mut processor = Processor::start(site.options("0", "sink-redis", &settings))?;
    let metric = |processor: &Processor, name: &str| {
        let name = format!("thmanyah_sink_{name}");
        processor.metric(&name, &[("sink", "redis")])
    };
    await_until(LIMIT, "all to wait, and since when", || {
        let waits = metric(&processor, "lag")? >= Some(400.0)
            && metric(&processor, "oldest_undelivered_seconds")? > Some(0.0)
            && metric(&processor, "up")? == Some(0.0);
        Ok(waits.then_some(()))
    })?;
    redis.restart()?;
    let is_well = |processor: &Processor| {
        await_until(LIMIT, "nothing to wait", || {
            let waits = metric(processor, "lag")? != Some(0.0)
                || metric(processor, "oldest_undelivered_seconds")? != Some(0.0)
                || metric(processor, "up")? != Some(1.0);
            Ok((!waits).then_some(()))
        })
    };
    await_delivered(&mut processor, "redis", 400)?;
    is_well(&processor)?;
    processor.kill9();
    // The log of each partition goes on with what no reader sees.
    site.abort_some()?;
    processor.restart()?;
    await_until(LIMIT, "the group to be at the end of the log", || {
        site.is_at_the_end("thmanyah-sink-redis")
    })?;
    is_well(&processor)?;
    ensure!(delivered(&processor, "redis")? == 0, "nothing came since");
    Ok(())
}

#[test]
fn what_retention_took_before_it_was_delivered_is_told_and_the_rest_arrives() -> Result<()> {
    let site = Site::new()?;
    let external = ExternalSystem::start(PARTITIONS)?;
    let settings = [("SINKS__HTTP__URL", external.events_url())];
    site.publish(1, 400)?;
    let mut processor = Processor::start(site.options("0", "sink-http", &settings))?;
    await_distinct(&external, 400)?;
    let status = processor.terminate(LIMIT)?;
    ensure!(status.success(), "{status}: {}", processor.log());
    // All that is there now, delivered or not, goes; then more comes.
    site.publish(401, 400)?;
    delete_everything(&site.broker)?;
    site.publish(801, 400)?;
    processor.restart()?;
    await_until(LIMIT, "the last events", || {
        let last = external.get("/seen/1200")?;
        Ok((last.status == 200).then_some(()))
    })?;
    await_distinct(&external, 800)?;
    let lost = processor.metric("thmanyah_sink_lost_events_total", &[("sink", "http")])?;
    ensure!(lost >= Some(400.0), "{lost:?}");
    ensure!(
        processor
            .log()
            .contains("deleted from the topic before they were delivered")
    );
    Ok(())
}

#[test]
fn marks_of_transactions_that_retention_took_are_not_told_as_lost_events() -> Result<()> {
    let site = Site::new()?;
    let redis = Redis::start(RedisOptions::default())?;
    let settings = [("SINKS__REDIS__URL", redis.url())];
    site.publish(1, 400)?;
    let mut processor = Processor::start(site.options("0", "sink-redis", &settings))?;
    await_delivered(&mut processor, "redis", 400)?;
    // The second time the fence is still where the last event ended, and the log has begun behind that before.
    for _ in 0..2 {
        site.abort_some()?;
        await_until(LIMIT, "the group to be at the end of the log", || {
            site.is_at_the_end("thmanyah-sink-redis")
        })?;
        let status = processor.terminate(LIMIT)?;
        ensure!(status.success(), "{status}: {}", processor.log());
        delete_everything(&site.broker)?;
        processor.restart()?;
    }
    site.publish(401, 400)?;
    await_delivered(&mut processor, "redis", 400)?;
    let lost = processor.metric("thmanyah_sink_lost_events_total", &[("sink", "redis")])?;
    ensure!(lost == Some(0.0), "{lost:?}: {}", processor.log());
    ensure!(!processor.log().contains("were deleted from the topic"));
    Ok(())
}

fn delete_everything(broker: &Broker) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = broker.client().create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(ENRICHED, partition, Offset::End)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let deleted = runtime.block_on(admin.delete_records(&all, &AdminOptions::new()))?;
    let failed = deleted
        .elements()
        .iter()
        .find_map(|partition| partition.error().err());
    failed.map_or(Ok(()), |error| Err(anyhow!(error)))
}

#[test]
fn partitions_that_move_between_instances_lose_nothing() -> Result<()> {
    let site = Site::new()?;
    let external = ExternalSystem::start(PARTITIONS)?;
    let settings = [
        ("SINKS__HTTP__URL", external.events_url()),
        ("SINKS__HTTP__BATCH_RECORDS", "50".to_owned()),
    ];
    site.publish(1, 3_000)?;
    let first = Processor::start(site.options("a", "sink-http", &settings))?;
    await_until(LIMIT, "the first events", || {
        Ok((distinct(&external)? > 100).then_some(()))
    })?;
    // One comes while the other is at work; then the first dies.
    let mut second = Processor::start(site.options("b", "sink-http", &settings))?;
    await_until(LIMIT, "the second to deliver", || {
        Ok((delivered(&second, "http")? > 0 || distinct(&external)? == 3_000).then_some(()))
    })?;
    drop(first);
    site.publish(3_001, 1_000)?;
    await_distinct(&external, 4_000)?;
    let status = second.terminate(LIMIT)?;
    ensure!(status.success(), "{status}: {}", second.log());
    Ok(())
}
