//! What must be remembered of each partition, in a compacted topic: which stream it is written through, and since where.
//!
//! The topic decides between two processes that take a partition over at the same time. Each writes by a transactional id that
//! belongs to the partition, so the later one fences the earlier, whose record is then refused. Ids of different apps do not
//! fence each other: a table has one app, whose name is recorded, too.

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
    /// Prefix of transactional ids; a table is written by one app.
    pub app: String,
}

/// How a partition is written to a table.
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
    /// The app that writes it.
    app: String,
}

/// A topic's id as the state tells it.
pub(super) fn hexadecimal(id: &TopicId) -> String {
    uuid::Uuid::from_bytes(*id).simple().to_string()
}

/// A partition that was taken: whoever of the same app had it before can record nothing any more.
pub(super) struct Claim {
    producer: Option<TransactionalProducer<Kafka>>,
    states: StateTopic,
    place: i32,
    key: String,
    /// Up to where the topic was read.
    end: i64,
    /// What was recorded last.
    pub(super) state: Option<State>,
}

/// What is recorded under a key, oldest first, and where that was read to.
struct Records {
    values: Vec<Vec<u8>>,
    end: i64,
}

impl StateTopic {
    /// Takes a partition, then reads what is recorded of it.
    ///
    /// IMPORTANT: in this order, and up to the read-uncommitted end. `init_transactions` decides every earlier transaction of
    /// the id; a reader that went first could miss a record that was committed meanwhile, and both would append.
    pub(super) async fn claim(&self, table: &str, partition: i32) -> Result<Claim, SinkError> {
        let (this, key) = (self.clone(), format!("bigquery/{table}/{partition}"));
        blocking(move |stop| this.claim_now(partition, key, &stop)).await
    }

    fn claim_now(
        self,
        partition: i32,
        key: String,
        stop: &Arc<AtomicBool>,
    ) -> Result<Claim, SinkError> {
        let settings = ProducerSettings {
            transactional_id: format!("{}-sink-bigquery-{partition}", self.app),
            transaction_timeout: TRANSACTION,
            max_record_bytes: RECORD_BYTES,
            stop: Arc::clone(stop),
        };
        // Each partition's state by itself, so that no open transaction of another holds its reader back.
        let place = partition % self.partitions.max(1);
        let producer = TransactionalProducer::start(self.kafka.clone(), settings)
            .map_err(|error| self.unreadable(&key, &error))?;
        let records = self.read(place, &key, 0, stop)?;
        let state = records.values.last().map(|text| parse(text)).transpose()?;
        if let Some(state) = &state {
            self.ensure_ours(&key, state)?;
        }
        Ok(Claim {
            producer: Some(producer),
            states: self,
            place,
            key,
            end: records.end,
            state,
        })
    }

    fn ensure_ours(&self, key: &str, state: &State) -> Result<(), SinkError> {
        if state.app == self.app {
            return Ok(());
        }
        let (theirs, ours) = (&state.app, &self.app);
        Err(SinkError::Misconfigured(format!(
            "the app `{theirs}` writes {key}, and this is the app `{ours}`: each needs a table of its own, by \
             `sinks.bigquery.dataset` or `sinks.bigquery.table`"
        )))
    }

    /// What is recorded under a key, from an offset on.
    fn read(
        &self,
        place: i32,
        key: &str,
        from: i64,
        stop: &AtomicBool,
    ) -> Result<Records, SinkError> {
        let failed = |problem: &dyn std::fmt::Display| self.unreadable(key, problem);
        let group = format!("{}-sink-bigquery", self.app);
        let offsets = self
            .kafka
            .offsets(&group, Isolation::Uncommitted)
            .map_err(|error| failed(&error))?;
        let bounds = offsets
            .bounds(&self.topic, [place])
            .map_err(|error| failed(&error))?;
        let (start, end) = bounds.get(&place).copied().unwrap_or_default();
        let start = start.max(from);
        let mut values = Vec::new();
        if start >= end {
            return Ok(Records { values, end });
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
                return Err(failed(&format!("its end {end} is not reached")));
            }
            if let Some(record) = reader.next(POLL).map_err(|error| failed(&error))?
                && record.key() == Some(key.as_bytes())
            {
                values.extend(record.payload().map(<[u8]>::to_vec));
            }
        }
        Ok(Records { values, end })
    }

    fn unreadable(&self, key: &str, problem: &dyn std::fmt::Display) -> SinkError {
        let topic = &self.topic;
        SinkError::Unavailable(format!(
            "cannot read the state of {key} in {topic}: {problem}"
        ))
    }
}

impl Claim {
    /// Records a stream that goes on behind `base`, durably and exclusively, and gives the claim up.
    pub(super) async fn record(
        mut self,
        stream: String,
        base: Option<i64>,
        topic: &TopicId,
    ) -> Result<(), SinkError> {
        let state = State {
            v: VERSION,
            stream,
            base,
            topic: hexadecimal(topic),
            app: self.states.app.clone(),
        };
        blocking(move |stop| self.record_now(&state, &stop)).await
    }

    fn record_now(&mut self, state: &State, stop: &AtomicBool) -> Result<(), SinkError> {
        let value = serde_json::to_vec(state).map_err(|error| self.refused(&error))?;
        self.write(&value)?;
        // Another app may have recorded a stream since this one read. Whose record is first has the table: theirs is put back.
        let records = self.states.read(self.place, &self.key, self.end, stop)?;
        let Some(first) = records.values.first() else {
            return Err(self.refused(&"it is not in the topic"));
        };
        if let Err(theirs) = self.states.ensure_ours(&self.key, &parse(first)?) {
            self.write(first)?;
            return Err(theirs);
        }
        Ok(())
    }

    fn write(&mut self, value: &[u8]) -> Result<(), SinkError> {
        let Some(mut producer) = self.producer.take() else {
            return Err(self.refused(&"the claim was given up"));
        };
        producer.begin().map_err(|error| self.refused(&error))?;
        let sent = producer.send(Outgoing {
            topic: &self.states.topic,
            partition: Some(self.place),
            key: Some(self.key.as_bytes()),
            value: Some(value),
            headers: None,
            track: None,
        });
        sent.map_err(|error| self.refused(&error))?;
        // An unknown outcome is an error, too: the next one to take the partition reads what became of it.
        let committed = producer.commit_records();
        let _receipt = committed.map_err(|error| self.refused(&error))?;
        self.producer = Some(producer);
        Ok(())
    }

    fn refused(&self, problem: &dyn std::fmt::Display) -> SinkError {
        SinkError::Fenced(format!(
            "cannot record the stream of {}, which another process may have taken over: {problem}",
            self.key
        ))
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
        let golden = r#"{"v":1,"stream":"projects/p/datasets/d/tables/t/streams/s","base":41,"topic":"000102030405060708090a0b0c0d0e0f","app":"thmanyah"}"#;
        let state = State {
            v: VERSION,
            stream: "projects/p/datasets/d/tables/t/streams/s".into(),
            base: Some(41),
            topic: hexadecimal(&std::array::from_fn(|i| i as u8)),
            app: "thmanyah".into(),
        };
        assert_eq!(serde_json::to_string(&state).unwrap(), golden);
        assert_eq!(parse(golden.as_bytes()).unwrap(), state);
        assert!(parse(golden.replace("\"v\":1", "\"v\":2").as_bytes()).is_err());
    }
}
