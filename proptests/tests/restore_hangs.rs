//! Logs whose end no record leads to: restores that wait for the last record before the end would wait for ever. Compaction
//! and deletion of records on a real broker make such logs; the processor must come back over each, with its disk and
//! without.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use thmanyah::kafka::{ChangelogError, ChangelogReader, LogReader};
use thmanyah_dev::{Broker, BrokerOptions, Topic};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::feed::{content_id, play};
use thmanyah_proptests::oracle::EventRow;

const LIMIT: Duration = Duration::from_mins(1);
const ASK: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const PARTITIONS: i32 = 2;
const CHANGELOGS: [&str; 3] = [
    "content.changelog",
    "engagement-events.pending",
    "engagement-events.seen",
];
/// Records of a transaction that compaction will remove.
const FOREIGN: i64 = 60;

fn broker() -> Result<Broker> {
    let options = BrokerOptions::default()
        .with("log.cleaner.backoff.ms", "100")
        .with("log.cleaner.min.cleanable.ratio", "0.0");
    Ok(Broker::start(options)?)
}

/// What makes a changelog compacted at once, up to its active segment, which is a new one every millisecond.
const HASTY: [(&str, &str); 3] = [
    ("segment.ms", "1"),
    ("min.cleanable.dirty.ratio", "0.0"),
    ("delete.retention.ms", "0"),
];

/// A deployment with such changelogs.
fn deployment<'b>(broker: &'b Broker, app: &str) -> Result<Deployment<'b>> {
    let deployment = Deployment::new(broker, app, PARTITIONS)?;
    let topics = CHANGELOGS.map(|name| {
        let topic =
            Topic::new(&deployment.topic(name), PARTITIONS).with("cleanup.policy", "compact");
        HASTY
            .iter()
            .fold(topic, |topic, (key, value)| topic.with(key, value))
    });
    broker.create_topics(&topics)?;
    Ok(deployment)
}

/// Publishes events, some of which waited for their content, and stops in good order.
fn publish(deployment: &Deployment<'_>) -> Result<(Logged, BTreeMap<i64, EventRow>)> {
    let mut processor = deployment.start("0")?;
    let (early, late) = (content_id(1), content_id(2));
    let rows = |ids: std::ops::Range<i64>, content: &str| -> Vec<EventRow> {
        ids.map(|id| play(id, Some(content))).collect()
    };
    deployment.send_content(&early, "podcast", Some(1200))?;
    let rows = [rows(1..200, &early), rows(200..260, &late)].concat();
    deployment.send_events(&rows)?;
    deployment.await_total("parked events", |l| l.enriched == 199 && l.pending == 60)?;
    deployment.send_content(&late, "video", Some(60))?;
    deployment.await_total("all events", |l| l.enriched == 259)?;
    ensure!(processor.terminate(STOP_LIMIT)?.success());
    Ok((processor, rows.into_iter().map(|r| (r.id, r)).collect()))
}

/// Starts it and proves that it knows what it knew: what was published is a duplicate, what is new is not.
fn prove(
    deployment: &Deployment<'_>,
    processor: &mut Logged,
    rows: &mut BTreeMap<i64, EventRow>,
) -> Result<()> {
    let before = deployment.total()?;
    processor.restart()?;
    deployment.send_events(rows.values())?;
    let new = play(1_000 + rows.len() as i64, Some(&content_id(2)));
    deployment.send_events([&new])?;
    rows.insert(new.id, new);
    let sent = rows.len() as u64 - 1;
    deployment.await_total("duplicates, and one new event", |ledger| {
        ledger.duplicate == before.duplicate + sent && ledger.enriched == before.enriched + 1
    })?;
    ensure!(processor.terminate(STOP_LIMIT)?.success());
    check(deployment, rows)?;
    Ok(())
}

fn lose_disk(deployment: &Deployment<'_>) -> Result<()> {
    std::fs::remove_dir_all(deployment.state_dir("0")).context("lose the disk")
}

/// Ends every partition of the topics with a transaction of tombstones of keys that nobody knows.
fn append_foreign(deployment: &Deployment<'_>, topics: &[&str], commit: bool) -> Result<()> {
    let producer: BaseProducer = deployment
        .broker
        .client()
        .set("transactional.id", "foreign")
        .set("linger.ms", "0")
        .create()?;
    producer.init_transactions(ASK)?;
    producer.begin_transaction()?;
    for topic in topics {
        let topic = deployment.topic(topic);
        for (partition, number) in (0..PARTITIONS).flat_map(|p| (0..FOREIGN).map(move |n| (p, n))) {
            let key = (900_000_000 + number).to_string();
            let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&topic).key(&key);
            producer
                .send(record.partition(partition))
                .map_err(|(error, _)| anyhow!("{topic}: {error}"))?;
        }
    }
    if commit {
        producer.commit_transaction(ASK)?;
    } else {
        producer.flush(ASK)?;
        producer.abort_transaction(ASK)?;
    }
    // The answer comes before the markers are written.
    let stable: BaseConsumer = deployment
        .broker
        .client()
        .set("group.id", "stable")
        .set("isolation.level", "read_committed")
        .create()?;
    for (topic, partition) in topics
        .iter()
        .flat_map(|t| (0..PARTITIONS).map(move |p| (t, p)))
    {
        await_until(LIMIT, "the transaction's marker", || {
            let (_, end) = bounds(deployment, topic, partition)?;
            let (_, last_stable) =
                stable.fetch_watermarks(&deployment.topic(topic), partition, ASK)?;
            Ok((last_stable == end).then_some(()))
        })?;
    }
    Ok(())
}

fn raw_reader(deployment: &Deployment<'_>) -> Result<BaseConsumer> {
    let consumer = deployment
        .broker
        .client()
        .set("group.id", "raw")
        .set("isolation.level", "read_uncommitted")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    Ok(consumer)
}

/// Log start and end.
fn bounds(deployment: &Deployment<'_>, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let reader = raw_reader(deployment)?;
    Ok(reader.fetch_watermarks(&deployment.topic(topic), partition, ASK)?)
}

/// Offset behind the last record, whatever its transaction became; 0 when there is none.
fn behind_last_record(deployment: &Deployment<'_>, topic: &str, partition: i32) -> Result<i64> {
    let reader = raw_reader(deployment)?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(&deployment.topic(topic), partition, Offset::Beginning)?;
    reader.assign(&assigned)?;
    let mut last = 0;
    loop {
        match reader.poll(ASK).context("the broker gives nothing")? {
            Ok(record) => last = record.offset() + 1,
            Err(KafkaError::PartitionEOF(_)) => return Ok(last),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes the records before an offset, or all of them. Brokers refuse that for a topic that is compacted only.
fn delete_records(
    deployment: &Deployment<'_>,
    topic: &str,
    partition: i32,
    before: Offset,
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = deployment.broker.client().create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&deployment.topic(topic), partition, before)?;
    let (runtime, options) = (
        tokio::runtime::Builder::new_current_thread().build()?,
        AdminOptions::new(),
    );
    let name = deployment.topic(topic);
    for policy in ["compact,delete", "compact"] {
        let config = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let config = HASTY
            .iter()
            .fold(config.set("cleanup.policy", policy), |config, (k, v)| {
                config.set(k, v)
            });
        for altered in runtime.block_on(admin.alter_configs(&[config], &options))? {
            altered.map_err(|(_, code)| anyhow!("alter {name}: {code}"))?;
        }
        if policy == "compact" {
            break;
        }
        await_until(LIMIT, "the records to be deleted", || {
            // The broker hears of the policy a little later.
            let results = runtime.block_on(admin.delete_records(&list, &options))?;
            let refused = results.elements().iter().find_map(|e| e.error().err());
            Ok(refused.is_none().then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_tail_that_was_compacted_away_is_restored() -> Result<()> {
    let broker = broker()?;
    let deployment = deployment(&broker, "compacted")?;
    let (mut processor, mut rows) = publish(&deployment)?;
    append_foreign(&deployment, &CHANGELOGS, true)?;
    // Records of an aborted transaction are compacted away at once; its marker is in the active segment, which never is.
    append_foreign(&deployment, &CHANGELOGS, false)?;
    for topic in CHANGELOGS {
        for partition in 0..PARTITIONS {
            let what = format!("the compaction of {topic} {partition}");
            await_until(LIMIT, &what, || {
                let (_, end) = bounds(&deployment, topic, partition)?;
                let last = behind_last_record(&deployment, topic, partition)?;
                Ok((last + FOREIGN < end).then_some(()))
            })?;
        }
    }
    prove(&deployment, &mut processor, &mut rows)?;
    lose_disk(&deployment)?;
    prove(&deployment, &mut processor, &mut rows)
}

#[test]
fn partitions_whose_records_were_all_deleted_are_restored() -> Result<()> {
    let broker = broker()?;
    let deployment = deployment(&broker, "deleted")?;
    let (mut processor, mut rows) = publish(&deployment)?;
    // Nothing is parked, and every id is in the enriched topic: neither log is needed.
    let topics = ["engagement-events.pending", "engagement-events.seen"];
    append_foreign(&deployment, &topics, true)?;
    for topic in topics {
        for partition in 0..PARTITIONS {
            delete_records(&deployment, topic, partition, Offset::End)?;
            let (start, end) = bounds(&deployment, topic, partition)?;
            ensure!(
                start == end && start > 0,
                "{topic} {partition}: {start} {end}"
            );
        }
    }
    // With the disk, whose positions lie before the logs' starts; then without.
    prove(&deployment, &mut processor, &mut rows)?;
    lose_disk(&deployment)?;
    prove(&deployment, &mut processor, &mut rows)
}

#[test]
fn logs_that_end_in_a_marker_without_its_records_or_lost_the_marker_too_are_restored() -> Result<()>
{
    let broker = broker()?;
    let deployment = deployment(&broker, "markers")?;
    let (mut processor, mut rows) = publish(&deployment)?;
    let topics = ["engagement-events.pending", "engagement-events.seen"];
    for commit in [true, false] {
        append_foreign(&deployment, &topics, commit)?;
        for topic in topics {
            for partition in 0..PARTITIONS {
                let (_, end) = bounds(&deployment, topic, partition)?;
                delete_records(&deployment, topic, partition, Offset::Offset(end - 1))?;
                let left = bounds(&deployment, topic, partition)?;
                ensure!(left == (end - 1, end), "{topic} {partition}: {left:?}");
            }
        }
        lose_disk(&deployment)?;
        prove(&deployment, &mut processor, &mut rows)?;
        for topic in topics {
            for partition in 0..PARTITIONS {
                // The marker alone is deleted, too; the stored position is the end or before it.
                append_foreign(&deployment, &[topic], commit)?;
                delete_records(&deployment, topic, partition, Offset::End)?;
            }
        }
        prove(&deployment, &mut processor, &mut rows)?;
    }
    Ok(())
}

#[test]
fn a_reader_whose_position_was_deleted_is_told_so() -> Result<()> {
    let broker = broker()?;
    let deployment = deployment(&broker, "out-of-range")?;
    let topic = "engagement-events.pending";
    append_foreign(&deployment, &[topic], true)?;
    delete_records(&deployment, topic, 0, Offset::Offset(FOREIGN / 2))?;
    let starts = BTreeMap::from([(0, 0)]);
    let reader = ChangelogReader::open(&broker.client(), &deployment.topic(topic), starts)?;
    await_until(LIMIT, "the reader's error", || {
        match reader.next(Duration::from_millis(50)) {
            Ok(None) => Ok(None),
            Ok(Some(record)) => Err(anyhow!("a record at {}", record.offset())),
            Err(ChangelogError::OutOfRange(_)) => Ok(Some(())),
            Err(error) => Err(error.into()),
        }
    })
}
