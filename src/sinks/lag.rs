//! How far a sink is behind the last stable offset, and since when, asked for on a thread of its own: brokers that do not
//! answer hold up nothing but the figures.

use super::delivery::Shared;
use super::held::{Partitions, Progress};
use crate::kafka::{ChangelogError, ChangelogReader, LogReader, Offsets, OffsetsError};
use crate::metrics::SinkMetrics;
use rdkafka::config::ClientConfig;
use rdkafka::message::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between two questions.
const ASK: Duration = Duration::from_secs(1);
/// For how long the records that wait are looked for. There may be none: transactions leave marks.
const FIND: Duration = Duration::from_secs(2);
/// One wait for a record.
const POLL: Duration = Duration::from_millis(50);
/// Bytes that are fetched of a partition to find its first record.
const FETCHED: &str = "65536";

/// Asks until it is stopped by its drop.
pub(super) struct LagWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LagWatch {
    pub(super) fn start<D: Send + Sync + 'static>(
        shared: Arc<Shared<D>>,
        partitions: Arc<Partitions>,
        metrics: SinkMetrics,
        client: &ClientConfig,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = client.clone();
        client
            .set("fetch.message.max.bytes", FETCHED)
            .set("queued.min.messages", "1");
        let mut look = Look {
            shared,
            partitions,
            metrics,
            client,
            stop: Arc::clone(&stop),
            before: BTreeMap::new(),
        };
        let thread = thread::Builder::new()
            .name("sink lag".to_owned())
            .spawn(move || {
                while !look.stop.load(Ordering::Relaxed) {
                    thread::park_timeout(ASK);
                    if let Err(error) = look.once() {
                        tracing::debug!(%error, "the lag is not known");
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// Where a partition was, and where its log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    position: i64,
    end: i64,
    /// Whether it was looked for the first record from there on.
    sought: bool,
}

impl Place {
    /// Records and marks between the position and the end. A position past an older answer is not behind.
    fn lag(&self) -> i64 {
        (self.end - self.position).max(0)
    }

    /// Whether it stands still before records whose first one was not looked for. Marks that nothing follows are looked at
    /// once, too.
    fn stands_since(&self, before: &Self) -> bool {
        let same = self.position == before.position && before.lag() > 0;
        self.lag() > 0 && same && !(before.sought && self.end == before.end)
    }
}

struct Look<D> {
    shared: Arc<Shared<D>>,
    partitions: Arc<Partitions>,
    metrics: SinkMetrics,
    client: ClientConfig,
    stop: Arc<AtomicBool>,
    before: BTreeMap<i32, Place>,
}

impl<D> Look<D> {
    fn once(&mut self) -> Result<(), OffsetsError> {
        let mut held: BTreeMap<i32, Arc<Progress>> = BTreeMap::new();
        self.partitions.each(|partition, each| {
            held.insert(partition, Arc::clone(&each.progress));
        });
        let mut now = self.places(&held)?;
        self.metrics.lag.set(now.values().map(Place::lag).sum());
        let mut standing = BTreeMap::new();
        for (partition, place) in &mut now {
            let (Some(before), Some(progress)) = (self.before.get(partition), held.get(partition))
            else {
                continue;
            };
            if progress.oldest_ms().is_none() && place.stands_since(before) {
                standing.insert(*partition, place.position);
            }
            place.sought =
                before.sought && place.position == before.position && place.end == before.end;
        }
        if !standing.is_empty() {
            match self.first_records(&standing, &held) {
                Ok(()) => {
                    let sought = now.iter_mut().filter(|(p, _)| standing.contains_key(p));
                    sought.for_each(|(_, place)| place.sought = true);
                }
                Err(error) => tracing::debug!(%error, "it is not known since when events wait"),
            }
        }
        self.before = now;
        Ok(())
    }

    /// A partition that was not opened yet goes on from what was committed, or else from the log's start.
    fn places(
        &self,
        held: &BTreeMap<i32, Arc<Progress>>,
    ) -> Result<BTreeMap<i32, Place>, OffsetsError> {
        let (topic, offsets) = (&self.shared.topic, &self.shared.offsets);
        let owned: Vec<i32> = held.keys().copied().collect();
        let unopened = held.iter().filter(|(_, each)| each.delivered() == 0);
        let unopened: Vec<i32> = unopened.map(|(partition, _)| *partition).collect();
        let bounds = offsets.bounds(topic, unopened.iter().copied())?;
        let committed = offsets.committed(topic, unopened)?;
        let ends = offsets.ends(topic, &owned)?;
        let places = held.iter().filter_map(|(partition, progress)| {
            let mut position = progress.delivered();
            if position == 0 {
                let (start, _) = bounds.get(partition)?;
                let known = committed.get(partition).and_then(|found| found.offset);
                position = known.map_or(*start, |known| known.max(*start));
            }
            let place = Place {
                position,
                end: *ends.get(partition)?,
                sought: false,
            };
            Some((*partition, place))
        });
        Ok(places.collect())
    }

    /// Tells when the first record from each position on was published, where there is one.
    #[allow(clippy::disallowed_methods, reason = "a limit of real time")]
    fn first_records(
        &self,
        positions: &BTreeMap<i32, i64>,
        held: &BTreeMap<i32, Arc<Progress>>,
    ) -> Result<(), ChangelogError> {
        let (topic, wanted) = (&self.shared.topic, positions.len());
        let reader = ChangelogReader::open(&self.client, topic, positions.clone())?;
        let until = Instant::now() + FIND;
        let mut found = BTreeSet::new();
        while found.len() < wanted && Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            let Some(record) = reader.next(POLL)? else {
                continue;
            };
            let partition = record.partition();
            if found.insert(partition)
                && let (Some(position), Some(progress)) =
                    (positions.get(&partition), held.get(&partition))
                && let Some(published_ms) = record.timestamp().to_millis()
            {
                progress.waits_since(*position, published_ms);
            }
        }
        Ok(())
    }
}

impl Drop for LagWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Not waited for: it may be in a question, and ends after it.
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_position_past_an_older_answer_is_not_behind() {
        let at = |position, end, sought| Place {
            position,
            end,
            sought,
        };
        assert_eq!((at(5, 7, false).lag(), at(9, 8, false).lag()), (2, 0));
        assert!(at(5, 7, false).stands_since(&at(5, 6, false)));
        assert!(
            at(5, 7, false).stands_since(&at(5, 6, true)),
            "something came"
        );
        assert!(!at(5, 7, false).stands_since(&at(5, 7, true)));
        assert!(!at(5, 7, false).stands_since(&at(4, 7, false)));
        assert!(!at(7, 7, false).stands_since(&at(7, 7, false)));
        assert!(
            !at(5, 7, false).stands_since(&at(5, 5, false)),
            "it came just now"
        );
    }
}
