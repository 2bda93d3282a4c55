//! The events of a batch in lanes: those of one content share a lane and go one after the other, lanes go side by side.

use super::request::{Outcome, Requests};
use crate::codec::Published;
use crate::domain::{DeadLetter, Reason};
use crate::logging::Seldom;
use crate::sinks::{Batch, FailedAttempt, Frame, Lane, Record, SinkError, pause_before};
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

/// An event that failed so often is told of, once, though others arrive: those of its content wait for it, and so does the
/// position of its partition.
const STUBBORN: u32 = 10;

/// Who asks to be left alone for so long is told of: nothing else says why nothing moves.
const LONG_REST: Duration = Duration::from_secs(10);

/// The way of one partition's events. Within a batch it tries for as long as it takes: to give up would mean to deliver anew
/// what the other lanes have delivered.
pub struct ExternalLane {
    courier: Arc<Courier>,
    lanes: usize,
}

impl ExternalLane {
    pub(super) fn new(partition: i32, lanes: usize, requests: Arc<Requests>, frame: Frame) -> Self {
        Self {
            courier: Arc::new(Courier {
                partition,
                requests,
                frame,
                unwell: AtomicBool::new(true),
                rests: Mutex::default(),
            }),
            lanes,
        }
    }
}

impl Lane for ExternalLane {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut lanes: Vec<Vec<Outgoing>> = Vec::new();
        lanes.resize_with(self.lanes, Vec::new);
        for record in &batch.records {
            match Outgoing::of(record) {
                Ok((event, place)) => {
                    if let Some(lane) = lanes.get_mut(lane_of(place, self.lanes)) {
                        lane.push(event);
                    }
                }
                Err(why) => self.courier.bury(record, &why).await,
            }
        }
        // Dropped, it ends them all.
        let mut running = JoinSet::new();
        for lane in lanes.into_iter().filter(|lane| !lane.is_empty()) {
            running.spawn(Arc::clone(&self.courier).deliver_in_order(lane));
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(|error| SinkError::Unavailable(format!("a lane broke off: {error}")))?;
        }
        Ok(())
    }
}

/// An event on its way.
struct Outgoing {
    offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    event_id: String,
    body: Bytes,
}

/// What decides on an event's lane: its content, or itself where it has none.
#[derive(Clone, Copy, Hash)]
enum Place {
    Content([u8; 16]),
    Event(i64),
}

impl Outgoing {
    fn of(record: &Record) -> Result<(Self, Place), DeadLetter> {
        let event = Published::read(&record.value)?;
        let place = match event.content_id {
            Some(content) => Place::Content(content.0),
            None => Place::Event(event.event_id.0),
        };
        let outgoing = Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            event_id: event.event_id.to_string(),
            body: record.value.clone().into(),
        };
        Ok((outgoing, place))
    }

    fn record(&self) -> Record {
        Record {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.clone(),
            value: self.body.to_vec(),
        }
    }
}

/// The same for a place as long as the process runs; a batch ends before the next begins, so that is long enough.
fn lane_of(place: Place, lanes: usize) -> usize {
    let hash = FixedState::default().hash_one(place);
    (hash % lanes.max(1) as u64) as usize
}

/// Brings events of one partition to the destination.
struct Courier {
    partition: i32,
    requests: Arc<Requests>,
    frame: Frame,
    /// What was told last. It begins with what may have been told before there was this lane.
    unwell: AtomicBool,
    rests: Mutex<Seldom>,
}

impl Courier {
    async fn deliver_in_order(self: Arc<Self>, events: Vec<Outgoing>) {
        for event in events {
            self.deliver(&event).await;
        }
    }

    /// Comes back once the event has arrived, or is a dead letter.
    async fn deliver(&self, event: &Outgoing) {
        let metrics = &self.frame.metrics;
        let mut failures: u32 = 0;
        loop {
            self.frame.admit().await;
            let (told, failure) = match self.requests.post(&event.event_id, &event.body).await {
                Outcome::Delivered => {
                    self.arrived();
                    metrics.delivered.inc();
                    break;
                }
                Outcome::Held => {
                    self.arrived();
                    metrics.duplicate.inc();
                    break;
                }
                Outcome::Rejected { told } => {
                    // It answers: that one event is the trouble.
                    self.answered();
                    let why = DeadLetter::new(Reason::Rejected, told);
                    self.bury(&event.record(), &why).await;
                    break;
                }
                Outcome::Again { told, rest } => (
                    told,
                    FailedAttempt {
                        is_lasting: false,
                        rest,
                    },
                ),
                Outcome::Misconfigured { told } => (
                    told,
                    FailedAttempt {
                        is_lasting: true,
                        rest: Duration::ZERO,
                    },
                ),
            };
            failures = failures.saturating_add(1);
            self.failed(event, failures, &told, failure);
            self.rests(event, &told, failure.rest);
            // Not before it wishes, and not all at once.
            tokio::time::sleep(failure.rest + pause_before(failures)).await;
        }
        if failures >= STUBBORN {
            tracing::info!(
                event_id = event.event_id,
                failures,
                "the event is done with"
            );
        }
    }

    fn arrived(&self) {
        self.frame.metrics.attempts_succeeded.inc();
        self.answered();
    }

    fn answered(&self) {
        let closed = self.frame.breaker.succeeded();
        if self.unwell.swap(false, Ordering::Relaxed) || closed {
            self.frame.condition.well();
        }
    }

    #[allow(clippy::disallowed_methods, reason = "only the log is held back by it")]
    fn rests(&self, event: &Outgoing, told: &str, rest: Duration) {
        if rest >= LONG_REST && self.rests.lock().told(Instant::now(), 1).is_some() {
            tracing::warn!(
                event_id = event.event_id,
                partition = self.partition,
                offset = event.offset,
                "{told} and asks for {} s of rest: the partition waits for this event",
                rest.as_secs()
            );
        }
    }

    fn failed(&self, event: &Outgoing, failures: u32, told: &str, failure: FailedAttempt) {
        let Frame {
            metrics, breaker, ..
        } = &self.frame;
        metrics.attempts_failed.inc();
        breaker.failed(failure);
        if breaker.is_open() {
            self.unwell(told, failure.is_lasting);
        } else if failures == STUBBORN {
            tracing::warn!(
                event_id = event.event_id,
                partition = self.partition,
                offset = event.offset,
                failures,
                "others arrive, but this event does not, and its partition waits for it: {told}"
            );
        }
    }

    fn unwell(&self, told: &str, misconfigured: bool) {
        self.unwell.store(true, Ordering::Relaxed);
        self.frame.condition.unwell(told, misconfigured);
    }

    /// Comes back once the letter is durable.
    async fn bury(&self, record: &Record, why: &DeadLetter) {
        let mut failures: u32 = 0;
        while let Err(error) = self.frame.letters.bury(self.partition, record, why).await {
            failures = failures.saturating_add(1);
            let told = format!("no dead letter can be written: {error}");
            self.unwell(&told, false);
            tokio::time::sleep(pause_before(failures)).await;
        }
        if failures > 0 && self.unwell.swap(false, Ordering::Relaxed) {
            self.frame.condition.well();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        Record {
            offset: 7,
            timestamp_ms: 5,
            key: Some(b"42".to_vec()),
            value: value.into(),
        }
    }

    const EVENT: &str = r#"{"event_id":"42","content_id":null,"user_id":null,"event_type":"play","event_ts":"2025-01-01T12:30:00Z","duration_ms":null,"device":null,"content_type":null,"length_seconds":null,"engagement_seconds":null,"engagement_pct":null}"#;

    #[test]
    fn the_body_is_the_record_as_it_stands() {
        let spaced = format!(" {EVENT}\n");
        let Ok((event, _)) = Outgoing::of(&record(&spaced)) else {
            panic!("no event");
        };
        assert_eq!(event.event_id, "42");
        assert_eq!(&event.body[..], spaced.as_bytes());
        assert_eq!(event.record(), record(&spaced));
    }

    #[test]
    fn what_is_no_event_is_a_dead_letter_with_its_reason() {
        let why = Outgoing::of(&record("{")).err();
        assert_eq!(why.map(|why| why.reason), Some(Reason::NotJson));
    }

    #[test]
    fn events_of_a_content_share_a_lane_and_the_rest_spreads() {
        let of = |number: u8| lane_of(Place::Content([number; 16]), 16);
        assert!((0..=255).all(|number| of(number) == of(number) && of(number) < 16));
        let mut used: Vec<usize> = (0..=255).map(of).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 16);
        let mut used: Vec<usize> = (0..256).map(|id| lane_of(Place::Event(id), 16)).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 16);
        assert_eq!(lane_of(Place::Event(3), 1), 0);
    }
}
