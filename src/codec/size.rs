//! How large a record is to Kafka: what a topic's `max.message.bytes` is compared with, before anything is sent.

/// What a record takes beside its key, value and headers when it is alone in its batch: the batch's header (61 bytes), the
/// record's length, attributes and deltas (21 at most), the lengths of its parts (15 at most).
const FRAME: usize = 61 + 21 + 15;
/// What the headers of an enriched record take at most, all but `backfill`.
const ENRICHED_HEADERS: usize = 160;
/// What one header takes beside its name and value.
const HEADER_FRAME: usize = 7;
/// What the headers of a dead letter take at most, all but the detail: the name of a topic has up to 249 characters.
const DEAD_LETTER_HEADERS: usize = 640;

/// The size of a record, exact or too large by a few bytes.
pub fn record_bytes(key: usize, value: usize, headers: usize) -> usize {
    FRAME + key + value + headers
}

/// The headers of an enriched record whose `backfill` header has that many bytes.
pub fn enriched_headers_bytes(backfill: Option<usize>) -> usize {
    let backfill = backfill.map_or(0, |value| "backfill".len() + value + HEADER_FRAME);
    ENRICHED_HEADERS + backfill
}

/// How much of a dead letter's key and value its topic takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the key.
    pub key: usize,
    /// Of the value.
    pub value: usize,
}

impl Kept {
    /// All of a key and a value of these sizes where the topic takes records of `limit` bytes; else the first bytes: of the
    /// value where the key fits, of both where it does not.
    pub fn within(limit: usize, key: usize, value: usize, detail: usize) -> Self {
        let room = limit.saturating_sub(record_bytes(0, 0, DEAD_LETTER_HEADERS + detail));
        let key = if key <= room {
            key
        } else {
            room - value.min(room / 2)
        };
        Self {
            key,
            value: value.min(room - key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_what_its_topic_takes_the_key_before_the_value() {
        let limit = record_bytes(0, 0, DEAD_LETTER_HEADERS + 5) + 100;
        for ((key, value), (kept_key, kept_value)) in [
            ((10, 90), (10, 90)),
            ((10, 91), (10, 90)),
            ((0, 1000), (0, 100)),
            ((100, 7), (100, 0)),
            ((101, 7), (93, 7)),
            ((101, 200), (50, 50)),
        ] {
            let kept = Kept::within(limit, key, value, 5);
            assert_eq!((kept.key, kept.value), (kept_key, kept_value));
        }
        let kept = Kept::within(0, 3, 4, 5);
        assert_eq!((kept.key, kept.value), (0, 0));
        let kept = Kept::within(usize::MAX, 3, 4, 5);
        assert_eq!((kept.key, kept.value), (3, 4));
    }
}
