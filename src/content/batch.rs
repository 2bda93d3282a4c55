//! Changes of content rows, collected from the changelog to be folded in one write.

use super::rows::version_bytes;
use crate::codec::decode_content_row;
use crate::domain::{ContentId, ContentVersion, JoinContent, Offset, Partition};
use crate::kafka::{ChangelogError, LogReader};
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use thmanyah_state::{Table, WriteSet};

/// Records folded into one write of the store.
pub(super) const BATCH_RECORDS: usize = 4096;
/// Bytes folded into one write of the store.
const BATCH_BYTES: usize = 4 << 20;
/// The same while the table is being restored: rows are sorted into files, and fewer, larger ones cost less.
const LOAD_RECORDS: usize = 200_000;
/// Bytes, likewise.
const LOAD_BYTES: usize = 32 << 20;
/// How long a restore waits for a batch to fill.
const LOAD_WAIT: Duration = Duration::from_millis(20);
/// How long an idle tail waits for a record.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Changes read but not folded yet.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) writes: WriteSet,
    pub(super) changes: Vec<(ContentId, Option<JoinContent>)>,
    pub(super) latest_ms: BTreeMap<i32, i64>,
    pub(super) moved: Vec<(i32, i64)>,
    pub(super) bytes: usize,
}

impl Batch {
    /// Reads until the batch is full or nothing comes. A restore waits a little for more.
    pub(super) fn read(
        &mut self,
        reader: &impl LogReader,
        restoring: bool,
    ) -> Result<(), ChangelogError> {
        let (records, bytes, patience) = if restoring {
            (LOAD_RECORDS, LOAD_BYTES, LOAD_WAIT)
        } else {
            (BATCH_RECORDS, BATCH_BYTES, IDLE_WAIT)
        };
        let mut wait = patience;
        while self.changes.len() < records && self.bytes < bytes {
            match reader.next(wait)? {
                Some(record) => {
                    wait = Duration::ZERO;
                    self.add(&record);
                }
                None if restoring && wait.is_zero() => wait = patience,
                None => break,
            }
        }
        Ok(())
    }

    fn add(&mut self, record: &impl Message) {
        let partition = record.partition();
        if let Some(ms) = record.timestamp().to_millis() {
            let latest = self.latest_ms.entry(partition).or_insert(ms);
            *latest = ms.max(*latest);
        }
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(ContentId::parse) else {
            tracing::warn!(
                topic = record.topic(),
                partition,
                offset = record.offset(),
                "skipping a record whose key is no content id"
            );
            return;
        };
        let Some(value) = record.payload() else {
            self.writes.delete(Table::Content, &id.0);
            self.changes.push((id, None));
            self.bytes += 16;
            return;
        };
        let row = match decode_content_row(value) {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(topic = record.topic(), partition, offset = record.offset(), %error, "skipping a record that is no content row");
                return;
            }
        };
        let version = ContentVersion {
            partition: Partition(partition),
            offset: Offset(record.offset()),
        };
        self.writes
            .put_parts(Table::Content, &id.0, &[&version_bytes(version), value]);
        let join = JoinContent {
            content_type: row.content_type,
            length_seconds: row.length_seconds,
            version,
        };
        self.changes.push((id, Some(join)));
        self.bytes += value.len();
    }

    pub(super) fn clear(&mut self) {
        self.writes.clear();
        self.changes.clear();
        self.latest_ms.clear();
        self.moved.clear();
        self.bytes = 0;
    }
}
