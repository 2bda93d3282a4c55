//! What must be remembered of each partition, in a compacted topic: which stream it is written through, and since where.
//!
//! The topic decides between two processes that take a partition over at the same time. Each writes by a transactional id that
//! belongs to the partition, so the later one fences the earlier, whose record is then refused.

use super::super::SinkError;
use crate::kafka::{
    Edge, Isolation, Kafka, LogReader, Offsets, Outgoing, ProducerSettings, TopicId,
    TransactionalProducer,
};
use rdkafka::message::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The form of the value.
const VERSION: u8 = 1;
/// A state that was begun and not committed holds back readers for so long.
const TRANSACTION: Duration = Duration::from_secs(10);
/// The largest record, in bytes.
const RECORD_BYTES: u64 = 64 << 10;
/// One wait for a record.
const POLL: Duration = Duration::from_millis(100);
/// For how long the topic is read: much longer than an open transaction can hold a reader back.
const READ: Duration = Duration::from_mins(1);

/// Where the state is kept.
#[derive(Clone)]
pub struct StateTopic {
    /// The brokers.
    pub kafka: Kafka,
    /// The topic's name.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Prefix of transactional ids.
    pub app: String,
}

/// How a partition is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The form.
    v: u8,
    /// The stream.
    pub(super) stream: String,
    /// The last offset that was written before this stream began; none when there was none.
    pub(super) base: Option<i64>,
    /// Id of the enriched topic, in hexadecimal: the offsets are this topic's.
    pub(super) topic: String,
}

impl State {
    /// A stream that goes on behind `base`.
    pub(super) fn new(stream: String, base: Option<i64>, topic: &TopicId) -> Self {
        Self {
            v: VERSION,
            stream,
            base,
            topic: hexadecimal(topic),
        }
    }
}

/// A topic's id as the state tells it.
pub(super) fn hexadecimal(id: &TopicId) -> String {
    uuid::Uuid::from_bytes(*id).simple().to_string()
}

/// A partition that was taken: whoever had it before can record nothing any more.
pub(super) struct Claim {
    producer: Option<TransactionalProducer<Kafka>>,
    topic: String,
    place: i32,
    key: String,
    /// What was recorded last.
    pub(super) state: Option<State>,
}

impl StateTopic {
    /// Takes a partition, then reads what is recorded of it.
    ///
    /// IMPORTANT: in this order, and up to the read-uncommitted end. `init_transactions` decides every earlier transaction of
    /// the id; a reader that went first could miss a record that was committed meanwhile, and both would append.
    pub(super) async fn claim(&self, partition: i32) -> Result<Claim, SinkError> {
        let this = self.clone();
        blocking(move |stop| this.claim_now(partition, &stop)).await
    }

    fn claim_now(&self, partition: i32, stop: &Arc<AtomicBool>) -> Result<Claim, SinkError> {
        let settings = ProducerSettings {
            transactional_id: format!("{}-sink-bigquery-{partition}", self.app),
            transaction_timeout: TRANSACTION,
            max_record_bytes: RECORD_BYTES,
            stop: Arc::clone(stop),
        };
        let key = format!("bigquery/{partition}");
        // Each partition's state by itself, so that no open transaction of another holds its reader back.
        let place = partition % self.partitions.max(1);
        let producer = TransactionalProducer::start(self.kafka.clone(), settings)
            .map_err(|error| self.unreadable(partition, &error))?;
        let state = match self.read(place, &key, stop) {
            Ok(Some(text)) => Some(parse(&text)?),
            Ok(None) => None,
            Err(problem) => return Err(self.unreadable(partition, &problem)),
        };
        Ok(Claim {
            producer: Some(producer),
            topic: self.topic.clone(),
            place,
            key,
            state,
        })
    }

    /// The last value of a key.
    fn read(&self, place: i32, key: &str, stop: &AtomicBool) -> Result<Option<Vec<u8>>, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let group = format!("{}-sink-bigquery", self.app);
        let offsets = self
            .kafka
            .offsets(&group, Isolation::Uncommitted)
            .map_err(|error| failed(&error))?;
        let bounds = offsets
            .bounds(&self.topic, [place])
            .map_err(|error| failed(&error))?;
        let (start, end) = bounds.get(&place).copied().unwrap_or_default();
        let mut last = None;
        if start == end {
            return Ok(last);
        }
        let reader = self
            .kafka
            .reader(&self.topic, BTreeMap::from([(place, start)]))
            .map_err(|error| failed(&error))?;
        let began = self.kafka.instant();
        while reader
            .positions()
            .get(&place)
            .is_none_or(|position| *position < end)
        {
            if stop.load(Ordering::Relaxed) || self.kafka.since(began) > READ {
                return Err(format!("its end {end} is not reached"));
            }
            if let Some(record) = reader.next(POLL).map_err(|error| failed(&error))?
                && record.key() == Some(key.as_bytes())
            {
                last = record.payload().map(<[u8]>::to_vec);
            }
        }
        Ok(last)
    }

    fn unreadable(&self, partition: i32, problem: &dyn std::fmt::Display) -> SinkError {
        let topic = &self.topic;
        SinkError::Unavailable(format!(
            "cannot read the state of partition {partition} in {topic}: {problem}"
        ))
    }
}

impl Claim {
    /// Records a state, durably and exclusively, and gives the claim up.
    pub(super) async fn record(mut self, state: State) -> Result<(), SinkError> {
        blocking(move |_| self.record_now(&state)).await
    }

    fn record_now(&mut self, state: &State) -> Result<(), SinkError> {
        let failed = |error: &dyn std::fmt::Display| {
            SinkError::Fenced(format!(
                "cannot record the stream of {}, which another process may have taken over: {error}",
                self.key
            ))
        };
        let Some(mut producer) = self.producer.take() else {
            return Err(failed(&"the claim was given up"));
        };
        let value = serde_json::to_vec(state).map_err(|error| failed(&error))?;
        producer.begin().map_err(|error| failed(&error))?;
        let sent = producer.send(Outgoing {
            topic: &self.topic,
            partition: Some(self.place),
            key: Some(self.key.as_bytes()),
            value: Some(&value),
            headers: None,
            track: None,
        });
        sent.map_err(|error| failed(&error))?;
        // An unknown outcome is an error, too: the next one to take the partition reads what became of it.
        let _receipt = producer.commit_records().map_err(|error| failed(&error))?;
        Ok(())
    }
}

impl Drop for Claim {
    /// A client of Kafka must not be dropped where it would hold up a runtime.
    fn drop(&mut self) {
        if let (Some(producer), Ok(runtime)) =
            (self.producer.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(producer));
        }
    }
}

/// Ends what it guards when it is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs calls that block on a thread of their own. When this is dropped they are told to stop.
async fn blocking<T: Send + 'static>(
    calls: impl FnOnce(Arc<AtomicBool>) -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    let stop = Stop(Arc::default());
    let told = Arc::clone(&stop.0);
    match tokio::task::spawn_blocking(move || calls(told)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(SinkError::Unavailable(format!(
            "the state of a partition: {error}"
        ))),
    }
}

fn parse(text: &[u8]) -> Result<State, SinkError> {
    let unknown = |problem: &dyn std::fmt::Display| {
        SinkError::Misconfigured(format!(
            "the recorded state was written by another version: {problem}"
        ))
    };
    let state: State = serde_json::from_slice(text).map_err(|error| unknown(&error))?;
    if state.v != VERSION {
        return Err(unknown(&format!("form {}", state.v)));
    }
    Ok(state)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn the_form_on_the_wire_is_kept() {
        let golden = r#"{"v":1,"stream":"projects/p/datasets/d/tables/t/streams/s","base":41,"topic":"000102030405060708090a0b0c0d0e0f"}"#;
        let topic = std::array::from_fn(|i| i as u8);
        let state = State::new(
            "projects/p/datasets/d/tables/t/streams/s".into(),
            Some(41),
            &topic,
        );
        assert_eq!(serde_json::to_string(&state).unwrap(), golden);
        assert_eq!(parse(golden.as_bytes()).unwrap(), state);
        assert!(parse(golden.replace("\"v\":1", "\"v\":2").as_bytes()).is_err());
    }
}
