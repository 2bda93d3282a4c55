//! Reads of the store: on blocking threads, so many at a time, the others waiting for so long.

use super::problem::Problem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thmanyah_state::Store;
use tokio::sync::Semaphore;

/// Reads that wait for one of those to end.
const WAITING: usize = 256;
/// How long one waits.
const WAIT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Reads {
    store: Store,
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// Counts a waiting read until dropped.
struct Waiting<'w>(&'w AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reads {
    pub(super) fn new(store: Store, max_queries: usize) -> Self {
        Self {
            store,
            running: Arc::new(Semaphore::new(max_queries)),
            waiting: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Runs a read. What it costs must be bounded by itself: it goes on when the client leaves.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let busy = || Problem::unavailable("too many queries are running; try again", 1);
        let permit = {
            let before = self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.waiting);
            if before >= WAITING {
                return Err(busy());
            }
            let acquired = Arc::clone(&self.running).acquire_owned();
            match tokio::time::timeout(WAIT, acquired).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(busy()),
            }
        };
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&store)
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a read has panicked");
            Err(Problem::internal())
        })
    }
}

/// A failure of the store is ours, not the client's.
pub(super) fn failed(error: &thmanyah_state::Error) -> Problem {
    tracing::error!(%error, "a query could not read the store");
    Problem::internal()
}
