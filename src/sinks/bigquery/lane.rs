//! One partition's way into the table: requests of fixed rows at explicit offsets of one stream.

use super::super::{Batch, FailedAttempt, Frame, Lane, Record, SinkError, pause_before};
use super::rows::Row;
use super::write::{Answer, Appending, Failure, REQUEST_BYTES, Writer};
use crate::domain::{DeadLetter, Reason};
use prost::Message;
use std::time::Duration;
use tokio::time::Instant;

/// How often a request is sent before the partition is taken over anew.
const ATTEMPTS: u32 = 4;
/// BigQuery ends a call that was not used for ten minutes, which says nothing against the stream: before that another is
/// opened.
const IDLE: Duration = Duration::from_mins(5);
/// What a row adds to its request beside its bytes.
const ROW_FRAME: usize = 8;

/// The stream of a partition.
pub struct BigQueryLane {
    partition: i32,
    stream: String,
    writer: Writer,
    frame: Frame,
    /// The open call; none before the first request and after a failure.
    appending: Option<Appending>,
    /// When it was used last.
    used: Instant,
    /// Rows that the stream holds: the offset of the next one. It counts rows alone, so that gaps in Kafka's offsets do not
    /// matter.
    next: i64,
}

/// A row as it is sent, and the record that it came from.
struct Encoded<'a> {
    bytes: Vec<u8>,
    record: &'a Record,
}

impl BigQueryLane {
    /// The stream must be recorded already, and empty.
    pub(super) fn new(partition: i32, stream: String, writer: Writer, frame: Frame) -> Self {
        Self {
            partition,
            stream,
            writer,
            frame,
            appending: None,
            used: Instant::now(),
            next: 0,
        }
    }

    /// The rows of a batch. What cannot be one is a dead letter.
    async fn encode<'a>(&self, batch: &'a Batch) -> Result<Vec<Encoded<'a>>, SinkError> {
        let mut rows = Vec::with_capacity(batch.records.len());
        for record in &batch.records {
            match encode(self.partition, record) {
                Ok(bytes) => rows.push(Encoded { bytes, record }),
                Err(why) => self.bury(record, &why).await?,
            }
        }
        Ok(rows)
    }

    /// IMPORTANT: a letter is durable before any row behind it is appended: the highest offset in the table is the position,
    /// and nothing before it is read again.
    async fn bury(&self, record: &Record, why: &DeadLetter) -> Result<(), SinkError> {
        let buried = self.frame.letters.bury(self.partition, record, why).await;
        buried
            .map_err(|error| SinkError::Unavailable(format!("cannot write a dead letter: {error}")))
    }

    /// Sees rows into the table; those that are refused become dead letters.
    async fn append(&mut self, mut rows: Vec<Encoded<'_>>) -> Result<(), SinkError> {
        while !rows.is_empty() {
            match self.send(&rows).await? {
                Answer::Appended | Answer::AlreadyThere => {
                    self.next += rows.len() as i64;
                    self.frame.metrics.delivered.inc_by(rows.len() as u64);
                    return Ok(());
                }
                Answer::Refused(refused) => {
                    // A call whose first request is refused may not know the form of the rows: the next one tells it again.
                    self.appending = None;
                    rows = self.bury_refused(rows, &refused).await?;
                }
            }
        }
        Ok(())
    }

    /// Nothing of a request with a row that is refused is appended, so that its other rows make a new one. Gives those.
    async fn bury_refused<'a>(
        &self,
        rows: Vec<Encoded<'a>>,
        refused: &[(usize, String)],
    ) -> Result<Vec<Encoded<'a>>, SinkError> {
        let sent = rows.len();
        let mut left = Vec::with_capacity(sent);
        for (index, row) in rows.into_iter().enumerate() {
            match refused.iter().find(|(bad, _)| *bad == index) {
                Some((_, reason)) => {
                    let why = DeadLetter::new(Reason::Rejected, format!("BigQuery: {reason}"));
                    self.bury(row.record, &why).await?;
                }
                None => left.push(row),
            }
        }
        if left.len() == sent {
            let problem = "BigQuery refuses rows that it was not sent";
            return Err(SinkError::Unavailable(problem.to_owned()));
        }
        Ok(left)
    }

    /// Sends a request until there is an answer. IMPORTANT: always the same rows at the same offset: the answer that they are
    /// there is then about all of them.
    async fn send(&mut self, rows: &[Encoded<'_>]) -> Result<Answer, SinkError> {
        for attempt in 1.. {
            let bytes: Vec<Vec<u8>> = rows.iter().map(|row| row.bytes.clone()).collect();
            let failure = match self.send_once(bytes).await {
                Ok(answer) => {
                    self.frame.breaker.succeeded();
                    self.frame.metrics.attempts_succeeded.inc();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.appending = None;
            let reason = match failure {
                Failure::Stream(error) => return Err(error),
                Failure::Transport(reason) => format!("BigQuery takes no rows: {reason}"),
            };
            if attempt >= ATTEMPTS {
                return Err(SinkError::Unavailable(reason));
            }
            self.frame.metrics.attempts_failed.inc();
            self.frame.breaker.failed(FailedAttempt::default());
            self.frame.condition.unwell(&reason, false);
            tokio::time::sleep(pause_before(attempt)).await;
            self.frame.admit().await;
        }
        Err(SinkError::Unavailable("BigQuery takes no rows".to_owned()))
    }

    async fn send_once(&mut self, rows: Vec<Vec<u8>>) -> Result<Answer, Failure> {
        if self.used.elapsed() > IDLE {
            self.appending = None;
        }
        self.used = Instant::now();
        if let Some(appending) = &mut self.appending {
            return appending.append(&self.stream, self.next, rows).await;
        }
        let (appending, answer) = self.writer.open(&self.stream, self.next, rows).await?;
        self.appending = Some(appending);
        Ok(answer)
    }
}

impl Lane for BigQueryLane {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let rows = self.encode(batch).await?;
        for request in requests(rows) {
            self.append(request).await?;
        }
        Ok(())
    }
}

fn encode(partition: i32, record: &Record) -> Result<Vec<u8>, DeadLetter> {
    let bytes = Row::of(partition, record)?.encode_to_vec();
    if bytes.len() + ROW_FRAME > REQUEST_BYTES {
        let detail = format!(
            "a row of {} bytes, where BigQuery takes {REQUEST_BYTES}",
            bytes.len()
        );
        return Err(DeadLetter::new(Reason::Rejected, detail));
    }
    Ok(bytes)
}

/// Cuts rows into requests that BigQuery takes.
fn requests(rows: Vec<Encoded<'_>>) -> Vec<Vec<Encoded<'_>>> {
    let mut requests: Vec<Vec<Encoded<'_>>> = Vec::new();
    let mut size = usize::MAX;
    for row in rows {
        let bytes = row.bytes.len() + ROW_FRAME;
        let open = requests.last_mut();
        if let Some(request) = open.filter(|_| size.saturating_add(bytes) <= REQUEST_BYTES) {
            size += bytes;
            request.push(row);
        } else {
            size = bytes;
            requests.push(vec![row]);
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_requests_in_their_order_and_below_the_limit() {
        let records: Vec<Record> = (0..7)
            .map(|offset| Record {
                offset,
                timestamp_ms: 0,
                key: None,
                value: Vec::new(),
            })
            .collect();
        let rows = records.iter().map(|record| Encoded {
            bytes: vec![0; REQUEST_BYTES / 3],
            record,
        });
        let cut = requests(rows.collect());
        let sizes: Vec<usize> = cut.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 2, 1]);
        let offsets: Vec<i64> = cut.iter().flatten().map(|row| row.record.offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4, 5, 6]);
        assert!(requests(Vec::new()).is_empty());
    }
}
