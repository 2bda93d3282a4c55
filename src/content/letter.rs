//! What of a content record goes to the dead letters, and which rows go there because the changelog would refuse them.

use super::materializer::MaterializerSettings;
use crate::codec::{Kept, encode_content, record_bytes};
use crate::domain::{ContentRow, DeadLetter, Reason};
use crate::enricher::Loss;
use crate::kafka::{DeadLetterSource, Outgoing, dead_letter_headers};
use rdkafka::message::Message;

/// Writes the row's changelog value, which must fit a record of `limit` bytes: one that the broker refuses would fail its
/// whole transaction, again and again.
pub(super) fn encode_within(
    row: &ContentRow,
    limit: u64,
    buffer: &mut Vec<u8>,
) -> Result<(), DeadLetter> {
    buffer.clear();
    encode_content(row, buffer);
    let size = record_bytes(row.id.text().len(), buffer.len(), 0);
    if size as u64 > limit {
        return Err(DeadLetter::new(
            Reason::OutputTooLarge,
            format!("the row takes {size} bytes, its topic's max.message.bytes is {limit}"),
        ));
    }
    Ok(())
}

/// The dead letter of a record, and whether it carries the record whole.
pub(super) fn bury<'a>(
    settings: &'a MaterializerSettings,
    record: &'a impl Message,
    why: &DeadLetter,
) -> (Outgoing<'a>, bool) {
    let source = DeadLetterSource {
        stage: "materializer",
        topic: &settings.member.topic,
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis(),
    };
    let (key, value) = (record.key(), record.payload());
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let (key_length, value_length) = (length(key), length(value));
    let limit = usize::try_from(settings.limits.dead_letters).unwrap_or(usize::MAX);
    let kept = Kept::within(limit, key_length, value_length, why.detail.len());
    let loss = Loss {
        key: (kept.key < key_length).then_some(key_length),
        value: (kept.value < value_length).then_some(value_length),
        rebuilt: false,
    };
    let letter = Outgoing {
        topic: &settings.dlq_topic,
        partition: None,
        key: key.map(|key| key.get(..kept.key).unwrap_or(key)),
        value: value.map(|value| value.get(..kept.value).unwrap_or(value)),
        headers: Some(dead_letter_headers(why, &source, loss)),
        track: None,
    };
    (letter, loss == Loss::default())
}
