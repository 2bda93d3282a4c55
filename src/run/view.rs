//! The tables as the step sees them, on the real store.

use super::barrier::parked_key;
use super::seen_rows::container_key;
use crate::content::{ContentTable, ContentTableError};
use crate::domain::{Container, ContentId, EventId, JoinContent, Partition};
use crate::enricher::View;
use thmanyah_state::{Table, Tables};

/// Why a look-up failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The store.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// The content table.
    #[error(transparent)]
    Content(#[from] ContentTableError),
}

/// Look-ups in the content table and in the pending table.
pub struct StoreView<S> {
    /// The content table.
    pub content: ContentTable<S>,
    /// The store.
    pub store: S,
}

impl<S: Tables> View for StoreView<S> {
    type Error = ViewError;

    fn content(&self, id: ContentId) -> Result<Option<JoinContent>, ViewError> {
        Ok(self.content.get(id)?)
    }

    fn content_fresh(&self, id: ContentId) -> Result<Option<JoinContent>, ViewError> {
        Ok(self.content.get_fresh(id)?)
    }

    fn seen<R>(
        &self,
        partition: Partition,
        container: Container,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ViewError> {
        let key = container_key(partition, container);
        Ok(self.store.get(Table::Seen, &key, read)?)
    }

    fn parked<R>(
        &self,
        partition: Partition,
        id: EventId,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ViewError> {
        let key = parked_key(partition, id);
        Ok(self.store.get(Table::Pending, &key, read)?)
    }
}
