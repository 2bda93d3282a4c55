//! Reading logs from their start to their end, as a fresh fold does.

use crate::kafka::{ChangelogReader, LogReader};
use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_millis(50);
/// How long the brokers may say nothing: longer than the longest transaction stays open by default.
const STALLED: Duration = Duration::from_mins(1);

/// Log start and end of each partition.
pub(super) type Bounds = BTreeMap<i32, (i64, i64)>;

/// Gives `visit` every committed record of the partitions before their ends.
pub(super) fn read(
    client: &ClientConfig,
    topic: &str,
    bounds: &Bounds,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let end = |partition: &i32| bounds.get(partition).map_or(0, |(_, end)| *end);
    let starts: BTreeMap<i32, i64> = bounds
        .iter()
        .filter(|(_, (start, end))| start < end)
        .map(|(partition, (start, _))| (*partition, *start))
        .collect();
    if starts.is_empty() {
        return Ok(());
    }
    let mut last = starts.clone();
    let reader = ChangelogReader::open(client, topic, starts)?;
    let mut moved = Instant::now();
    loop {
        match reader.next(WAIT)? {
            Some(record) => {
                if record.offset() < end(&record.partition()) {
                    visit(&record);
                }
                moved = Instant::now();
                continue;
            }
            None if moved.elapsed() > STALLED => {
                bail!(
                    "`{topic}` gave nothing for {STALLED:?} before its end; is a transaction stuck open, or a broker down?"
                );
            }
            None => {}
        }
        // Looked at only when nothing comes: markers end most logs.
        let positions = reader.positions();
        if positions.iter().all(|(p, position)| *position >= end(p)) {
            return Ok(());
        }
        if positions != last {
            (last, moved) = (positions, Instant::now());
        }
    }
}
