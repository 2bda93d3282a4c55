//! Taking a partition over: who wrote it before is fenced and counted before anything new is written.

use super::super::SinkError;
use super::lane::BigQueryLane;
use super::rest::Rest;
use super::state::{State, StateTopic, hexadecimal};
use super::table::TableName;
use super::write::{Finalized, Writer};
use crate::sinks::{Frame, Taken};
use std::time::Duration;

/// How often rows are counted before a count that does not fit is believed, and the longest pause between.
const COUNTS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a recovery works with.
pub(super) struct Recovery<'a> {
    pub(super) rest: &'a Rest,
    pub(super) writer: Writer,
    pub(super) table: &'a TableName,
    pub(super) states: &'a StateTopic,
    /// Whether an operator takes the table as it is.
    pub(super) accept: bool,
}

/// What the table holds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// The highest offset.
    max: Option<i64>,
    /// Rows behind the base.
    rows: i64,
}

/// What is known of the stream before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before<'a> {
    /// Nothing: this is the first one.
    Nothing,
    /// It wrote behind its base, from the topic that is read now.
    Counted { base: Option<i64>, rows: i64 },
    /// As above, but it is gone, and nobody knows how many rows it had.
    Uncounted { base: Option<i64> },
    /// Its offsets are those of a topic that was deleted.
    OtherTopic(&'a str),
}

/// What is to be done with what was found.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Go on behind this offset.
    GoOn(Option<i64>),
    /// The same, though something is wrong: an operator takes it as it is.
    Accepted(Option<i64>, String),
    /// Rows may still appear: count again.
    CountAgain(String),
    /// Stop, whatever is counted.
    Stop(String),
}

impl Recovery<'_> {
    /// IMPORTANT: the order is the protocol.
    /// 0. Take the partition in the state topic, then read what is recorded: of two who recover only the later can record.
    /// 1. Finalize the stream that is recorded: who wrote it can append nothing any more, and its row count is final.
    /// 2. Count its rows in the table until they are all there. Going on before would append again what is not seen yet.
    /// 3. Make a new stream and record it *before* the first append, or a successor could not fence it.
    /// 4. Read on behind the highest offset that the table holds.
    pub(super) async fn open(
        self,
        taken: &Taken,
        frame: Frame,
    ) -> Result<(BigQueryLane, i64), SinkError> {
        let partition = taken.partition;
        let claim = self.states.claim(&self.table.path(), partition).await?;
        let topic = hexadecimal(&taken.topic_id);
        let before = self.end(claim.state.as_ref(), &topic).await?;
        let base = self.count(partition, before, taken).await?;
        let stream = self.writer.create(&self.table.path()).await?;
        claim.record(stream.clone(), base, &taken.topic_id).await?;
        let start = base.map_or(taken.log_start, |base| base + 1);
        tracing::info!(partition, start, stream, "opened a stream");
        Ok((
            BigQueryLane::new(partition, stream, self.writer, frame),
            start,
        ))
    }

    /// Step 1.
    async fn end<'s>(
        &self,
        state: Option<&'s State>,
        topic: &str,
    ) -> Result<Before<'s>, SinkError> {
        let Some(state) = state else {
            return Ok(Before::Nothing);
        };
        let finalized = self.writer.finalize(&state.stream).await?;
        if state.topic != topic {
            return Ok(Before::OtherTopic(&state.topic));
        }
        let base = state.base;
        Ok(match finalized {
            Finalized::Rows(rows) => Before::Counted { base, rows },
            Finalized::Gone => Before::Uncounted { base },
        })
    }

    /// Step 2: the last offset that was written, once all that was written is seen.
    async fn count(
        &self,
        partition: i32,
        before: Before<'_>,
        taken: &Taken,
    ) -> Result<Option<i64>, SinkError> {
        let mut pause = FIRST_PAUSE;
        let mut number = 1;
        let last = loop {
            let held = self.held(partition, before.base()).await?;
            let last_look = number >= COUNTS;
            match decide(before, held, taken.committed, self.accept, last_look) {
                Decision::GoOn(last) => break last,
                Decision::Accepted(last, problem) => {
                    tracing::warn!(
                        partition,
                        behind = last,
                        "going on, as `sinks.bigquery.accept_missing_rows` is set: {problem}"
                    );
                    break last;
                }
                Decision::CountAgain(problem) if !last_look => {
                    tracing::debug!(partition, number, "{problem}");
                }
                Decision::CountAgain(problem) | Decision::Stop(problem) => {
                    return Err(self.stopped(partition, &problem));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            number += 1;
        };
        if last.is_none_or(|last| last < taken.log_end) {
            return Ok(last);
        }
        // Who had the partition may have gone on after the end was asked for: the next attempt asks again.
        Err(SinkError::Unavailable(format!(
            "partition {partition} is written up to offset {}, beyond the end {} of the enriched topic",
            last.unwrap_or_default(),
            taken.log_end
        )))
    }

    async fn held(&self, partition: i32, base: Option<i64>) -> Result<Held, SinkError> {
        let row = self
            .rest
            .row(&question(self.table, partition, base))
            .await?;
        let number = |index: usize| {
            let cell: Option<&String> = row.get(index).and_then(Option::as_ref);
            cell.and_then(|cell| cell.parse::<i64>().ok())
        };
        match number(1) {
            Some(rows) => Ok(Held {
                max: number(0),
                rows,
            }),
            None => Err(SinkError::Unavailable(
                "a query of the table gave no count".to_owned(),
            )),
        }
    }

    fn stopped(&self, partition: i32, problem: &str) -> SinkError {
        let table = self.table.quoted();
        SinkError::Stopped(format!(
            "partition {partition} of {table} is not written any more: {problem}"
        ))
    }
}

impl Before<'_> {
    fn base(self) -> Option<i64> {
        match self {
            Self::Counted { base, .. } | Self::Uncounted { base } => base,
            Self::Nothing | Self::OtherTopic(_) => None,
        }
    }
}

/// The predicate on `event_ts` is true of every row: a table may refuse queries without one.
fn question(table: &TableName, partition: i32, base: Option<i64>) -> String {
    let table = table.quoted();
    let base = base.unwrap_or(-1);
    format!(
        "SELECT MAX(_kafka_offset), COUNTIF(_kafka_offset > {base}) FROM {table} \
         WHERE _kafka_partition = {partition} AND event_ts >= TIMESTAMP '0001-01-01 00:00:00+00'"
    )
}

/// `committed` is the group's position: a hint, which counts only where the table is to be taken as it is. Missing rows are
/// accepted by the last look alone: until then they may just not be seen yet.
fn decide(
    before: Before<'_>,
    held: Held,
    committed: Option<i64>,
    accept: bool,
    last_look: bool,
) -> Decision {
    let hint = committed
        .and_then(|next| next.checked_sub(1))
        .filter(|last| *last >= 0);
    let accepting = "when that is right, set `sinks.bigquery.accept_missing_rows`";
    let accepted = |last: Option<i64>, problem: String| {
        if accept {
            Decision::Accepted(last, problem)
        } else {
            Decision::Stop(format!("{problem}; {accepting}"))
        }
    };
    match before {
        Before::Counted { base, rows } if held.rows < rows => {
            let since = base.map_or_else(
                || "the beginning".to_owned(),
                |base| format!("offset {base}"),
            );
            let problem = format!(
                "{rows} rows were written since {since} and {} are there: some were deleted, or have expired",
                held.rows
            );
            if last_look {
                return accepted(held.max.max(base).max(hint), problem);
            }
            Decision::CountAgain(problem)
        }
        Before::Counted { base, rows } if held.rows > rows => {
            let since = base.map_or_else(
                || "the beginning".to_owned(),
                |base| format!("offset {base}"),
            );
            Decision::CountAgain(format!(
                "{rows} rows were written since {since} and {} are there: another system writes the same table, or rows were \
                 copied into it; delete those, or set their `_kafka_partition` to NULL",
                held.rows
            ))
        }
        // A table that was made anew has lost its streams as well as its rows.
        Before::Uncounted { base: Some(base) } if held.max < Some(base) => accepted(
            Some(base),
            format!(
                "rows up to offset {base} were written, the last that is there is {}, and the stream that wrote them is gone: \
                 the table was made anew, or its rows have expired. To have the table filled again from the enriched topic, \
                 name another one by `sinks.bigquery.table`, or go on behind offset {base} without what is missing",
                held.max.map_or_else(|| "none".to_owned(), |max| max.to_string())
            ),
        ),
        // Rows up to the base were counted by those before, and may have expired since.
        Before::Counted { base, .. } | Before::Uncounted { base } => {
            Decision::GoOn(held.max.max(base))
        }
        Before::Nothing | Before::OtherTopic(_) if held.max.is_none() => Decision::GoOn(None),
        Before::Nothing => accepted(
            held.max.max(hint),
            "it holds rows, and nothing is recorded of who wrote them: was the topic `topics.sinks_state` deleted, or is \
             there another app"
                .to_owned(),
        ),
        Before::OtherTopic(id) => Decision::Stop(format!(
            "it holds rows of an enriched topic that was deleted (id {id}), whose offsets the new one uses again: set their \
             `_kafka_partition` to NULL, or name another table by `sinks.bigquery.table`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(max: Option<i64>, rows: i64) -> Held {
        Held { max, rows }
    }

    #[test]
    fn it_goes_on_behind_the_highest_offset_once_the_count_fits() {
        let counted = |rows| Before::Counted {
            base: Some(9),
            rows,
        };
        assert_eq!(
            decide(counted(3), held(Some(20), 3), None, false, true),
            Decision::GoOn(Some(20))
        );
        assert_eq!(
            decide(counted(0), held(Some(9), 0), Some(77), false, true),
            Decision::GoOn(Some(9))
        );
        let expired = decide(counted(0), held(None, 0), None, false, true);
        assert_eq!(
            expired,
            Decision::GoOn(Some(9)),
            "what was counted once is not written again"
        );
        assert_eq!(
            decide(Before::Nothing, held(None, 0), Some(77), false, true),
            Decision::GoOn(None)
        );
    }

    #[test]
    fn a_count_that_does_not_fit_is_taken_again_and_never_believed_by_itself() {
        let counted = Before::Counted {
            base: None,
            rows: 3,
        };
        for rows in [0, 2, 4] {
            let decision = decide(counted, held(Some(1), rows), None, false, true);
            let stays = matches!(decision, Decision::CountAgain(_) | Decision::Stop(_));
            assert!(stays, "{rows}: {decision:?}");
        }
        let more = decide(counted, held(Some(5), 4), None, true, true);
        assert!(
            matches!(more, Decision::CountAgain(_)),
            "only missing rows can be accepted: {more:?}"
        );
    }

    #[test]
    fn missing_rows_that_are_accepted_are_not_written_again() {
        let counted = Before::Counted {
            base: Some(4),
            rows: 3,
        };
        for (found, committed, last) in [(held(Some(6), 2), Some(9), 8), (held(None, 0), None, 4)] {
            let decision = decide(counted, found, committed, true, true);
            assert!(
                matches!(decision, Decision::Accepted(Some(behind), _) if behind == last),
                "{last}: {decision:?}"
            );
        }
        let first = decide(counted, held(Some(6), 2), Some(9), true, false);
        assert!(
            matches!(first, Decision::CountAgain(_)),
            "they may not be seen yet: {first:?}"
        );
    }

    #[test]
    fn rows_of_unknown_origin_stop_it() {
        for before in [Before::Nothing, Before::OtherTopic("00")] {
            let decision = decide(before, held(Some(3), 4), None, false, true);
            assert!(matches!(decision, Decision::Stop(_)), "{decision:?}");
        }
        let taken = decide(Before::Nothing, held(Some(3), 4), None, true, true);
        assert!(matches!(taken, Decision::Accepted(Some(3), _)), "{taken:?}");
        let other = decide(Before::OtherTopic("00"), held(Some(3), 4), None, true, true);
        assert!(
            matches!(other, Decision::Stop(_)),
            "offsets of another topic say nothing: {other:?}"
        );
        assert_eq!(
            decide(
                Before::OtherTopic("00"),
                held(None, 0),
                Some(5),
                false,
                true
            ),
            Decision::GoOn(None)
        );
    }

    #[test]
    fn a_stream_that_is_gone_is_fenced_and_not_counted() {
        let gone = Before::Uncounted { base: Some(4) };
        assert_eq!(
            decide(gone, held(Some(6), 1), None, false, true),
            Decision::GoOn(Some(6))
        );
        assert_eq!(
            decide(gone, held(Some(4), 0), None, false, true),
            Decision::GoOn(Some(4))
        );
    }

    #[test]
    fn a_table_that_was_made_anew_stops_it_until_that_is_accepted() {
        let gone = Before::Uncounted { base: Some(4) };
        for found in [held(None, 0), held(Some(3), 0)] {
            let stopped = decide(gone, found, Some(9), false, false);
            assert!(matches!(stopped, Decision::Stop(_)), "{stopped:?}");
            let accepted = decide(gone, found, Some(9), true, false);
            assert!(
                matches!(accepted, Decision::Accepted(Some(4), _)),
                "{accepted:?}"
            );
        }
        let first = Before::Uncounted { base: None };
        assert_eq!(
            decide(first, held(None, 0), Some(9), false, false),
            Decision::GoOn(None),
            "the log fills it again"
        );
    }
}
