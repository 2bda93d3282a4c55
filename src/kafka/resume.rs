//! Whether a fold of a log, kept locally, can be gone on with, or has to be rebuilt from the log's start.

use super::ffi::TopicId;
use std::fmt;
use thmanyah_state::Position;

/// Tombstones live this long in a compacted changelog (`delete.retention.ms`): a fold that is older may have missed some.
pub const TOMBSTONE_RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;
/// Kept between the age of a fold and the retention of tombstones.
const AGE_MARGIN_MS: i64 = 3600 * 1000;

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The rows are a fold of the log up to here.
    From(i64),
    /// The rows have to be dropped; reading begins at the log's start.
    Rebuild(Rebuild),
}

/// Why a fold cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// Nothing was folded yet.
    Nothing,
    /// The topic was deleted and created again.
    OtherTopic,
    /// The position lies before the log's start or behind its end.
    OutsideLog,
    /// Tombstones behind the position may be gone.
    TooOld,
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing is stored yet",
            Self::OtherTopic => "the topic was deleted and created again",
            Self::OutsideLog => "the stored position lies outside the log",
            Self::TooOld => "the stored rows are older than the log's tombstones",
        })
    }
}

/// Judges a stored position against the log as it stands, `(log start, end)`. `compacted` logs lose tombstones with age.
pub fn resume(
    stored: Option<Position>,
    topic: TopicId,
    (start, end): (i64, i64),
    compacted: bool,
    now_ms: i64,
) -> Resume {
    let Some(position) = stored else {
        return Resume::Rebuild(Rebuild::Nothing);
    };
    if position.topic_id != topic {
        return Resume::Rebuild(Rebuild::OtherTopic);
    }
    // A compacted log's start moves only by deletion of records, never by compaction: a start past the position means
    // that records are gone.
    if position.offset < start || position.offset > end {
        return Resume::Rebuild(Rebuild::OutsideLog);
    }
    let too_old = now_ms - position.fresh_at_ms > TOMBSTONE_RETENTION_MS - AGE_MARGIN_MS;
    if compacted && too_old && position.offset < end {
        return Resume::Rebuild(Rebuild::TooOld);
    }
    Resume::From(position.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = [7; 16];
    const DAY: i64 = 24 * 3600 * 1000;

    fn at(offset: i64) -> Position {
        Position {
            offset,
            topic_id: TOPIC,
            fresh_at_ms: 0,
        }
    }

    #[test]
    fn a_position_inside_the_log_is_gone_on_with() {
        for offset in [3, 5, 9] {
            assert_eq!(
                resume(Some(at(offset)), TOPIC, (3, 9), true, DAY),
                Resume::From(offset)
            );
        }
    }

    #[test]
    fn a_position_outside_the_log_is_rebuilt() {
        for offset in [2, 10] {
            assert_eq!(
                resume(Some(at(offset)), TOPIC, (3, 9), true, DAY),
                Resume::Rebuild(Rebuild::OutsideLog)
            );
        }
    }

    #[test]
    fn a_topic_that_was_created_again_is_rebuilt() {
        assert_eq!(
            resume(Some(at(5)), [8; 16], (3, 9), true, DAY),
            Resume::Rebuild(Rebuild::OtherTopic)
        );
    }

    #[test]
    fn a_fold_older_than_the_tombstones_is_rebuilt_unless_it_stands_at_the_end() {
        assert_eq!(
            resume(Some(at(5)), TOPIC, (3, 9), true, 7 * DAY),
            Resume::Rebuild(Rebuild::TooOld)
        );
        assert_eq!(
            resume(Some(at(9)), TOPIC, (3, 9), true, 7 * DAY),
            Resume::From(9)
        );
        assert_eq!(
            resume(Some(at(5)), TOPIC, (3, 9), false, 7 * DAY),
            Resume::From(5)
        );
    }
}
