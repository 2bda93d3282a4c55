//! An enriched topic filled without the processor: events as it publishes them, in plain and transactional batches, so that
//! offsets have gaps, with transactions between them that were aborted. For those who deliver what was published.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thmanyah::codec::write_enriched;
use thmanyah::domain::{
    ContentId, ContentType, ContentVersion, Enriched, Event, EventId, EventType, JoinContent,
    JoinStatus, Offset, Partition, Timestamp, UserId,
};
use thmanyah_dev::{Broker, Topic};

use crate::topics::read_back;

const FLUSH_LIMIT: Duration = Duration::from_secs(30);
/// A batch, a transaction or not, has up to so many events.
const LARGEST_BATCH: usize = 400;
/// Of so many batches one is a transaction that is aborted.
const ABORTED_OF: u32 = 8;
const DEVICES: [Option<&str>; 5] = [
    Some("ios"),
    Some("آيفون \"ios\""),
    Some("web\n\\"),
    Some(""),
    None,
];
const MINUTE: i64 = 60_000;
/// 2019-01-01, long before any window.
const LONG_AGO_MS: i64 = 1_546_300_800_000;

/// What a topic is filled with: a function of these.
#[derive(Clone, Debug)]
pub struct Filling {
    /// Partitions of the topic. That of an event is its id modulo these.
    pub partitions: i32,
    /// How many events there will be, with ids that ascend.
    pub events: usize,
    /// The id of the first.
    pub first_id: i64,
    /// How many contents they are about; the first of them are much more popular than the last.
    pub contents: u32,
    /// Which events.
    pub seed: u64,
    /// Most were done in the 15 minutes before, a few long ago or a little later. In milliseconds since the epoch.
    pub now_ms: i64,
}

impl Filling {
    /// Events from id 1 on, done about now.
    pub fn new(partitions: i32, events: usize, contents: u32, seed: u64) -> Self {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH);
        Self {
            partitions,
            events,
            first_id: 1,
            contents,
            seed,
            now_ms: now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or_default()),
        }
    }
}

/// One event that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The event.
    pub event: Event<'static>,
    /// What its content added.
    pub content: Option<JoinContent>,
    /// The record's value: the enriched JSON.
    pub value: Vec<u8>,
}

/// Fills a topic, which is made where it is missing; gives what was written to each partition, in the order of its offsets.
/// Records that were aborted are not among them.
pub fn fill(broker: &Broker, topic: &str, filling: &Filling) -> Result<Vec<Vec<Written>>> {
    broker.create_topics(&[Topic::new(topic, filling.partitions)
        .with("message.timestamp.type", "LogAppendTime")
        .with("max.message.bytes", "8388608")])?;
    let mut client = broker.client();
    client
        .set("linger.ms", "1")
        .set("message.max.bytes", "8000000");
    let plain: BaseProducer = client.create()?;
    let id = format!("fill-{topic}-{}", filling.first_id);
    let transactional: BaseProducer = client.set("transactional.id", &id).create()?;
    transactional.init_transactions(FLUSH_LIMIT)?;

    let mut rng = ChaCha8Rng::seed_from_u64(filling.seed);
    let mut facts = BTreeMap::new();
    let mut next = filling.first_id;
    let end = next + i64::try_from(filling.events)?;
    while next < end {
        let size = i64::try_from(rng.random_range(1..=LARGEST_BATCH))?.min(end - next);
        let batch: Vec<_> = (next..next + size)
            .map(|id| fact(id, filling, &mut rng))
            .collect();
        if rng.random_ratio(1, ABORTED_OF) {
            // The same ids come again: an aborted transaction is repeated by who ran it.
            transactional.begin_transaction()?;
            send(&transactional, topic, filling.partitions, &batch)?;
            transactional.abort_transaction(FLUSH_LIMIT)?;
            continue;
        }
        if rng.random() {
            transactional.begin_transaction()?;
            send(&transactional, topic, filling.partitions, &batch)?;
            transactional.commit_transaction(FLUSH_LIMIT)?;
        } else {
            send(&plain, topic, filling.partitions, &batch)?;
        }
        facts.extend(batch.into_iter().map(|fact| (fact.0.id.0, fact)));
        next += size;
    }
    read_what_was_written(broker, topic, filling, facts)
}

/// An event, and what its content adds.
type Fact = (Event<'static>, Option<JoinContent>);

fn read_what_was_written(
    broker: &Broker,
    topic: &str,
    filling: &Filling,
    mut facts: BTreeMap<i64, Fact>,
) -> Result<Vec<Vec<Written>>> {
    let partitions = usize::try_from(filling.partitions)?;
    let mut written: Vec<Vec<Written>> = vec![Vec::new(); partitions];
    for record in read_back(broker.bootstrap(), topic)? {
        // What an earlier filling wrote is none of ours.
        let Some((event, content)) = facts.remove(&record.event_id()?) else {
            continue;
        };
        let value = record.value.context("an enriched record without a value")?;
        ensure!(
            value == json(&event, content),
            "{event:?} was not read back as it was written"
        );
        let of = written.get_mut(usize::try_from(record.partition)?);
        of.context("another partition than there are")?
            .push(Written {
                partition: record.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms.unwrap_or_default(),
                event,
                content,
                value,
            });
    }
    ensure!(
        facts.is_empty(),
        "{} events are not in {topic}",
        facts.len()
    );
    Ok(written)
}

fn send(producer: &BaseProducer, topic: &str, partitions: i32, batch: &[Fact]) -> Result<()> {
    for (event, content) in batch {
        let (key, value) = (event.id.to_string(), json(event, *content));
        let partition = i32::try_from(event.id.0.rem_euclid(i64::from(partitions)))?;
        let record = BaseRecord::to(topic)
            .partition(partition)
            .key(&key)
            .payload(&value);
        producer
            .send(record)
            .map_err(|(error, _)| anyhow!("{topic}: {error}"))?;
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(FLUSH_LIMIT)?)
}

/// The enriched JSON of an event.
pub fn json(event: &Event<'_>, content: Option<JoinContent>) -> Vec<u8> {
    let status = match (event.content_id, content) {
        (None, _) => JoinStatus::None,
        (Some(_), Some(_)) => JoinStatus::Joined,
        (Some(_), None) => JoinStatus::Timeout,
    };
    let mut value = Vec::new();
    write_enriched(&Enriched::join(event, content, status), &mut value);
    value
}

/// The id of content number `number`.
pub fn content_id(number: u32) -> ContentId {
    ContentId((0xc0 << 120 | u128::from(number)).to_be_bytes())
}

fn fact(id: i64, filling: &Filling, rng: &mut ChaCha8Rng) -> Fact {
    let number = (f64::from(filling.contents) * rng.random::<f64>().powi(3)) as u32;
    let about = (!rng.random_ratio(1, 20)).then_some(number);
    let now = filling.now_ms;
    let done = match rng.random_range(0..40) {
        0 => LONG_AGO_MS + rng.random_range(0..1_000 * MINUTE),
        1 => now + rng.random_range(0..2 * MINUTE),
        _ => now - rng.random_range(0..15 * MINUTE),
    };
    let micros = done * 1_000 + rng.random_range(0..1_000);
    let user = rng.random_ratio(19, 20).then(|| UserId(rng.random()));
    let event = Event {
        id: EventId(id),
        content_id: about.map(content_id),
        user_id: user,
        event_type: EventType::ALL
            .choose(rng)
            .copied()
            .unwrap_or(EventType::Play),
        event_ts: Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN),
        duration_ms: rng
            .random_ratio(4, 5)
            .then(|| rng.random_range(0..3_000_000)),
        device: DEVICES.choose(rng).copied().flatten().map(Cow::Borrowed),
    };
    // One content of 16 never came.
    let known = about.filter(|number| number % 16 != 15);
    let content = known.map(|number| JoinContent {
        content_type: match number % 4 {
            0 => Some(ContentType::Podcast),
            1 => Some(ContentType::Newsletter),
            2 => Some(ContentType::Video),
            _ => None,
        },
        length_seconds: match number % 5 {
            0 => None,
            _ => i32::try_from(number % 5 * 600).ok(),
        },
        version: ContentVersion {
            partition: Partition(0),
            offset: Offset(number.into()),
        },
    });
    (event, content)
}
