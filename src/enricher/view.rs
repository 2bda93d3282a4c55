//! What the step may look up.

use crate::domain::{Container, ContentId, EventId, JoinContent, Partition};

/// The tables as the step sees them. The loop looks into RocksDB; a test looks into maps.
pub trait View {
    /// Why a look-up failed.
    type Error;

    /// The content row as of now, possibly from a cache that is kept coherent with the table.
    fn content(&self, id: ContentId) -> Result<Option<JoinContent>, Self::Error>;

    /// The content row, read from the table itself.
    fn content_fresh(&self, id: ContentId) -> Result<Option<JoinContent>, Self::Error>;

    /// A stored container of published ids: a serialised roaring bitmap.
    fn seen<R>(
        &self,
        partition: Partition,
        container: Container,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Self::Error>;

    /// The stored value of a parked event.
    fn parked<R>(
        &self,
        partition: Partition,
        id: EventId,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Self::Error>;
}
