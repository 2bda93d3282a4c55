//! Bytes to facts and back: Debezium records in, enriched JSON out, and the values of our own changelogs.

mod changelog;
mod content;
mod depth;
mod document;
mod enriched;
mod event;
mod scalar;
mod scan;
mod text;

pub use changelog::{
    VALUE_LIMIT, ValueError, decode_checkpoint, decode_content_row, decode_parked, decode_seen,
    encode_checkpoint, encode_content, encode_parked, encode_seen,
};
pub use content::{Column, ContentChange, ContentPatch, Resolution, decode_content};
pub use depth::DEPTH_LIMIT;
pub use enriched::write_enriched;
pub use event::{EventRecord, EventRules, IgnoredWhy, OperationRule, decode_event};
pub use scalar::TimeMode;
pub use text::RECORD_LIMIT;

#[cfg(test)]
mod tests;
