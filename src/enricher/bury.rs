//! Dead letters: the record's own key and value, as much of them as the topic takes.

use super::rules::Rules;
use super::staged::{Headers, Loss, Output, Staged, Stream};
use super::task::RawRecord;
use crate::codec::{Kept, write_row};
use crate::domain::{DeadLetter, ParkedEvent, Partition};

/// Stages the dead letter of a record.
pub(super) fn bury(
    partition: Partition,
    record: &RawRecord<'_>,
    why: DeadLetter,
    rules: &Rules,
    staged: &mut Staged,
) {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let (whole_key, whole_value) = (length(record.key), length(record.value));
    let limit = rules.limits.dead_letters;
    let kept = Kept::within(limit, whole_key, whole_value, why.detail.len());
    let loss = Loss {
        key: (kept.key < whole_key).then_some(whole_key),
        value: (kept.value < whole_value).then_some(whole_value),
        rebuilt: false,
    };
    let mut first = |bytes: Option<&[u8]>, kept| {
        bytes.map(|bytes| staged.copy(bytes.get(..kept).unwrap_or(bytes)))
    };
    let key = first(record.key, kept.key);
    let value = first(record.value, kept.value);
    staged.output(Output {
        stream: Stream::DeadLetters,
        partition,
        key,
        value,
        headers: Headers::DeadLetter {
            why,
            raw_offset: record.offset,
            raw_timestamp_ms: record.timestamp_ms,
            loss,
        },
    });
    count(loss, staged);
}

/// Stages the dead letter of a parked event. Its record is far behind by now; what was kept of it is written as a row that
/// reads back as the same event.
pub(super) fn bury_parked(
    partition: Partition,
    parked: &ParkedEvent<'_>,
    why: DeadLetter,
    rules: &Rules,
    staged: &mut Staged,
) {
    let key = staged.write(|out| {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(itoa::Buffer::new().format(parked.event.id.0).as_bytes());
        out.push(b'}');
    });
    let mut value = staged.write(|out| write_row(&parked.event, rules.events.time, out));
    let limit = rules.limits.dead_letters;
    let kept = Kept::within(limit, key.len(), value.len(), why.detail.len());
    let loss = Loss {
        key: None,
        value: (kept.value < value.len()).then_some(value.len()),
        rebuilt: true,
    };
    value.end = value.start + kept.value;
    staged.output(Output {
        stream: Stream::DeadLetters,
        partition,
        key: Some(key),
        value: Some(value),
        headers: Headers::DeadLetter {
            why,
            raw_offset: parked.raw_offset,
            raw_timestamp_ms: parked.raw_timestamp_ms,
            loss,
        },
    });
    count(loss, staged);
}

fn count(loss: Loss, staged: &mut Staged) {
    staged.count(|counts| {
        counts.dead_letter += 1;
        counts.truncated += u64::from(loss.key.is_some() || loss.value.is_some());
    });
}
