//! The Redis sink: the board of the most engaging content of the last ten minutes, and counters per content and day.
//!
//! Everything that writes is one function inside Redis (`library.lua`), which compares the partition's fence (topic id and next
//! offset), applies the sums of a run of events and moves the fence. So a run that was sent twice, or by a process that has
//! lost its partition, changes nothing.
//!
//! Reading order: `library.lua` is the layout and the functions; `deltas` sums events up; `lane` delivers one partition;
//! `library` loads the functions; `server` looks at the server; `connection` and `failure` are the way there.

mod connection;
mod deltas;
mod failure;
mod lane;
mod library;
mod server;

use super::destination::{Destination, Frame, SinkError, Taken};
use crate::config::RedisConfig;
use connection::Connection;
use lane::{Ahead, Place};
use parking_lot::Mutex;
use std::sync::Arc;

pub use lane::RedisLane;

/// Delivers to Redis.
pub struct RedisSink {
    connection: Arc<Connection>,
    key: String,
    /// The policy that was warned of last.
    warned_of: Mutex<Option<String>>,
    ahead: Ahead,
}

impl RedisSink {
    /// Connects when it is prepared.
    pub fn new(config: &RedisConfig) -> Self {
        Self {
            connection: Arc::new(Connection::new(config)),
            key: format!("{{{}}}", config.prefix),
            warned_of: Mutex::default(),
            ahead: Ahead::default(),
        }
    }

    /// Says once for each change that Redis may throw away what is counted.
    fn warn_of_eviction(&self, policy: Option<String>) {
        let mut warned_of = self.warned_of.lock();
        if let Some(policy) = &policy
            && warned_of.as_ref() != Some(policy)
        {
            tracing::warn!(
                policy,
                redis = self.connection.peer().address,
                "Redis throws keys away when its memory is full, and the board and the counters are then wrong without a sign: \
                 set maxmemory-policy to noeviction"
            );
        }
        *warned_of = policy;
    }
}

impl Destination for RedisSink {
    type Lane = RedisLane;

    const NAME: &'static str = "redis";

    async fn prepare(&self) -> Result<(), SinkError> {
        let policy = server::check(&self.connection).await?;
        self.warn_of_eviction(policy);
        library::ensure(&self.connection, &self.key).await
    }

    async fn open(&self, taken: Taken, frame: Frame) -> Result<(RedisLane, i64), SinkError> {
        let place = Place::new(&self.key, taken.partition, taken.topic_id);
        let connection = Arc::clone(&self.connection);
        RedisLane::open(connection, place, &taken, &self.ahead, frame).await
    }
}
