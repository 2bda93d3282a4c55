//! How far a sink is behind the last stable offset, asked for on a thread of its own: brokers that do not answer hold up
//! nothing but the figure.

use super::delivery::Shared;
use super::held::Partitions;
use crate::kafka::Offsets;
use crate::metrics::SinkMetrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two questions.
const ASK: Duration = Duration::from_secs(1);

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
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("sink lag".to_owned())
            .spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    thread::park_timeout(ASK);
                    let mut delivered = BTreeMap::new();
                    partitions.each(|partition, held| {
                        delivered.insert(partition, held.progress.delivered());
                    });
                    let owned: Vec<i32> = delivered.keys().copied().collect();
                    match shared.offsets.ends(&shared.topic, &owned) {
                        Ok(ends) => {
                            metrics.lag.set(behind(&delivered, &ends));
                        }
                        Err(error) => tracing::debug!(%error, "the lag is not known"),
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// Records between the positions and the ends. A partition that was not opened yet is behind by all that it may hold.
fn behind(delivered: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> i64 {
    let each = delivered
        .iter()
        .filter_map(|(partition, position)| Some((ends.get(partition)? - position).max(0)));
    each.sum()
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
    use super::behind;
    use std::collections::BTreeMap;

    #[test]
    fn a_position_past_an_older_answer_is_not_behind() {
        let delivered = BTreeMap::from([(0, 5), (1, 9), (2, 1)]);
        let ends = BTreeMap::from([(0, 7), (1, 8)]);
        assert_eq!(behind(&delivered, &ends), 2);
    }
}
