//! The handle: starts the follower, tells it what to follow, asks how far it is, ends it.

use super::follower::Follower;
use super::log::{Log, LogError};
use super::status::{RecentStatus, RecentView};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thmanyah_state::Store;

/// Why recent events cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecentError {
    /// The consumer or a question to the brokers failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed.
    #[error(transparent)]
    State(#[from] thmanyah_state::Error),
    /// The thread could not be started or has panicked.
    #[error("the thread that follows recent events {0}")]
    Thread(String),
}

/// What to follow, and for how long rows stay.
#[derive(Clone, Debug)]
pub struct RecentSettings {
    /// Bootstrap servers and the user's properties.
    pub client: ClientConfig,
    /// The enriched topic.
    pub topic: String,
    /// How long after publication rows are kept.
    pub retention: Duration,
}

/// The follower of the enriched topic. Clones are handles of the same one.
#[derive(Clone)]
pub struct Recent {
    shared: Arc<Shared>,
}

/// What the handle and the thread share.
pub(super) struct Shared {
    pub(super) wanted: Mutex<Wanted>,
    pub(super) status: Mutex<RecentStatus>,
    pub(super) stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is to be followed.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    /// Rises with each change.
    pub(super) version: u64,
    /// Partitions, and the topic's id as each was told with.
    pub(super) partitions: BTreeMap<i32, [u8; 16]>,
}

impl Recent {
    /// Starts the thread, which follows nothing until [`Recent::own`] tells it to.
    pub fn start(settings: RecentSettings, store: Store) -> Result<Self, RecentError> {
        let RecentSettings {
            client,
            topic,
            retention,
        } = settings;
        let log = Log::open(&client, &topic)?;
        let shared = Arc::new(Shared {
            wanted: Mutex::default(),
            status: Mutex::default(),
            stop: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let mut follower = Follower::new(log, store, retention, Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("recent".to_owned())
            .spawn(move || follower.run())
            .map_err(|e| RecentError::Thread(format!("could not be started: {e}")))?;
        *shared.thread.lock() = Some(thread);
        Ok(Self { shared })
    }

    /// Follows exactly these partitions from now on; beside each the topic's id. Rows of others stay, but get no newer.
    pub fn own(&self, partitions: BTreeMap<i32, [u8; 16]>) {
        let mut wanted = self.shared.wanted.lock();
        if wanted.partitions != partitions {
            wanted.version += 1;
            wanted.partitions = partitions;
            // Queries must not count on a partition that has just been lost or is not followed yet.
            let mut status = self.shared.status.lock();
            status.owned = wanted.partitions.keys().copied().collect();
            status.ready.retain(|of| wanted.partitions.contains_key(of));
            status.caught_up = status.ready.len() == status.owned.len();
        }
    }

    /// How far it is.
    pub fn status(&self) -> RecentStatus {
        self.shared.status.lock().clone()
    }

    /// The same, for queries.
    pub fn view(&self) -> RecentView {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || shared.status.lock().clone())
    }

    /// Writes what was read, flushes it to disk, and ends the thread.
    pub fn stop(self) -> Result<(), RecentError> {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.shared.thread.lock().take() else {
            return Ok(());
        };
        thread
            .join()
            .map_err(|_| RecentError::Thread("has panicked".to_owned()))?;
        let failed = self.shared.status.lock().failed.clone();
        failed.map_or(Ok(()), |reason| {
            Err(RecentError::Thread(format!("has ended: {reason}")))
        })
    }
}
