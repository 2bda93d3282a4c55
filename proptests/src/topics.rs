//! Topics read back as a consumer of the outputs sees them, and the ledgers beside the committed offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use thmanyah::domain::Ledger;
use thmanyah_dev::read_topic;

const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A committed record, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub partition: i32,
    /// Where it is.
    pub offset: i64,
    /// When it was written, by its own timestamp.
    pub timestamp_ms: Option<i64>,
    /// Its key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is null.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn of(record: &BorrowedMessage<'_>) -> Self {
        let headers = record.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Self {
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    /// Its place.
    pub fn place(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }

    /// The bytes of the only header of that name.
    ///
    /// # Panics
    /// When there are two.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "two headers {name}: {self:?}");
        value.as_deref()
    }

    /// The header as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// The header as a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// The key as a number, as the enriched topic and the pending topic have it.
    pub fn event_id(&self) -> Result<i64> {
        let key = std::str::from_utf8(self.key.as_deref().unwrap_or_default())?;
        key.parse()
            .with_context(|| format!("the key {key:?} is no event id"))
    }
}

/// Every committed record of a topic, in the order of each partition.
pub fn read_back(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    read_topic(bootstrap, topic, |record| records.push(Record::of(record)))?;
    Ok(records)
}

/// What a compacted topic stands for: the last value of each key.
pub fn fold(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for record in records {
        let key = record.key.clone().unwrap_or_default();
        match &record.value {
            Some(value) => rows.insert(key, value.clone()),
            None => rows.remove(&key),
        };
    }
    rows
}

/// What a group committed for each partition of a topic: the position and the ledger. Partitions without a commit are left
/// out.
pub fn ledgers(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, (i64, Ledger)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let mut ledgers = BTreeMap::new();
    for element in consumer.committed_offsets(list, ASK_LIMIT)?.elements() {
        element.error()?;
        if let Offset::Offset(position) = element.offset() {
            let ledger = Ledger::parse(element.metadata()).with_context(|| {
                format!(
                    "partition {}: {:?}",
                    element.partition(),
                    element.metadata()
                )
            })?;
            ledgers.insert(element.partition(), (position, ledger));
        }
    }
    Ok(ledgers)
}

/// The sum of ledgers.
pub fn total<'l>(ledgers: impl IntoIterator<Item = &'l Ledger>) -> Ledger {
    let mut total = Ledger::default();
    for ledger in ledgers {
        total.consumed += ledger.consumed;
        total.enriched += ledger.enriched;
        total.dead += ledger.dead;
        total.duplicate += ledger.duplicate;
        total.ignored += ledger.ignored;
        total.pending += ledger.pending;
    }
    total
}
