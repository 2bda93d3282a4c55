//! How a content row lies in the store: key = the id's 16 bytes, value = changelog partition (i32), offset (i64), both
//! big-endian, then the changelog value as it came.

use crate::codec::{ValueError, decode_content_row};
use crate::domain::{ContentRow, ContentVersion, JoinContent, Offset, Partition};

/// A row with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    /// The row.
    pub row: ContentRow,
    /// Which write of it this is.
    pub version: ContentVersion,
}

/// Why a stored value is no content row.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Shorter than its version.
    #[error("a stored content row is cut short")]
    Short,
    /// The changelog value inside.
    #[error("a stored content row is unreadable: {0}")]
    Value(#[from] ValueError),
}

/// The version's bytes, which go before the changelog value.
pub(crate) fn version_bytes(version: ContentVersion) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (partition, offset) = bytes.split_at_mut(4);
    partition.copy_from_slice(&version.partition.0.to_be_bytes());
    offset.copy_from_slice(&version.offset.0.to_be_bytes());
    bytes
}

/// The version of a stored value, and the changelog value inside.
pub(crate) fn split(value: &[u8]) -> Result<(ContentVersion, &[u8]), StoredError> {
    let (partition, rest) = value.split_first_chunk::<4>().ok_or(StoredError::Short)?;
    let (offset, row) = rest.split_first_chunk::<8>().ok_or(StoredError::Short)?;
    let version = ContentVersion {
        partition: Partition(i32::from_be_bytes(*partition)),
        offset: Offset(i64::from_be_bytes(*offset)),
    };
    Ok((version, row))
}

/// Reads a stored value whole.
pub fn read_stored(value: &[u8]) -> Result<StoredContent, StoredError> {
    let (version, row) = split(value)?;
    let row = decode_content_row(row)?;
    Ok(StoredContent { row, version })
}

impl StoredContent {
    /// What a join takes.
    pub fn join(&self) -> JoinContent {
        JoinContent {
            content_type: self.row.content_type,
            length_seconds: self.row.length_seconds,
            version: self.version,
        }
    }
}
