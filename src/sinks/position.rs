//! What a sink's group commits of a partition: how far it came, and, in the metadata beside it, where the last record before
//! that ended.
//!
//! Between the two stand only the marks of transactions, which no destination hears of. Retention deletes marks, too. Then
//! this alone tells that no event went with them.

use crate::kafka::Committed;

/// What stands before the number in the metadata.
const AFTER_RECORD: &str = "after-record=";

/// How far a partition came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// All before this offset was delivered.
    pub(super) next: i64,
    /// No record stands between this offset and `next`.
    pub(super) after_record: i64,
}

impl Position {
    /// The text to commit beside `next`.
    pub(super) fn metadata(self) -> String {
        format!("{AFTER_RECORD}{}", self.after_record)
    }
}

/// The first offset whose deletion could have cost an event: the log's start, or one before it if no record ever stood between
/// the two. Who resets the group's offsets leaves no metadata, and then it is the log's start.
pub(super) fn intact_from(log_start: i64, committed: Option<&Committed>) -> i64 {
    let marks_alone = committed.and_then(|committed| {
        let after_record: i64 = committed
            .metadata
            .strip_prefix(AFTER_RECORD)?
            .parse()
            .ok()?;
        (after_record..=committed.offset?)
            .contains(&log_start)
            .then_some(after_record)
    });
    marks_alone.unwrap_or(log_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(next: i64, after_record: i64) -> Committed {
        let position = Position { next, after_record };
        Committed {
            offset: Some(next),
            metadata: position.metadata(),
        }
    }

    #[test]
    fn marks_that_were_deleted_cost_nothing() {
        assert_eq!(intact_from(7, Some(&committed(9, 5))), 5);
        assert_eq!(intact_from(9, Some(&committed(9, 5))), 5);
        assert_eq!(intact_from(5, Some(&committed(9, 5))), 5);
    }

    #[test]
    fn what_may_have_been_events_is_not_taken_for_marks() {
        let past = intact_from(10, Some(&committed(9, 5)));
        assert_eq!(past, 10, "more was deleted than the group knows of");
        let before = intact_from(4, Some(&committed(9, 5)));
        assert_eq!(before, 4, "the last record is still there");
        assert_eq!(intact_from(7, None), 7);
        for metadata in ["", "after-record=", "after-record=x", "something else"] {
            let foreign = Committed {
                offset: Some(9),
                metadata: metadata.to_owned(),
            };
            assert_eq!(intact_from(7, Some(&foreign)), 7, "{metadata}");
        }
        let nothing = Committed {
            offset: None,
            ..committed(9, 5)
        };
        assert_eq!(intact_from(7, Some(&nothing)), 7);
    }
}
