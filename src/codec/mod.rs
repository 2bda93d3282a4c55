//! Bytes to facts and back: Debezium records in, enriched JSON out, and the values of our own changelogs.

mod changelog;
mod content;
mod depth;
mod document;
mod enriched;
mod event;
mod key;
mod published;
mod scalar;
mod scan;
mod size;
mod text;

pub use changelog::{
    VALUE_LIMIT, ValueError, decode_checkpoint, decode_content_row, decode_parked, decode_seen,
    encode_checkpoint, encode_content, encode_parked, encode_seen,
};
pub use content::{Column, ContentChange, ContentPatch, Resolution, decode_content};
pub use depth::DEPTH_LIMIT;
pub use enriched::{write_enriched, write_row};
pub use event::{EventRecord, EventRules, IgnoredWhy, OperationRule, decode_event};
pub use key::{KeyShape, partition_of};
pub use published::Published;
pub use scalar::TimeMode;
pub use size::{Kept, enriched_headers_bytes, record_bytes};
pub use text::RECORD_LIMIT;

#[cfg(test)]
mod tests;
