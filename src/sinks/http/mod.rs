//! The external HTTP system: each event is posted by itself, at least once, under a key by which the system can tell one that
//! it has. It is not ours, so anything may happen there; what it answers decides what becomes of an event.
//!
//! Reading order: `verdict` says what a status means; `credentials` how a request is proved; `request` makes one attempt;
//! `lanes` brings a batch there, in order where order counts, and tries again.

mod credentials;
mod lanes;
mod request;
mod verdict;

pub use lanes::ExternalLane;

use super::destination::{Destination, Frame, SinkError, Taken};
use crate::config::ExternalConfig;
use parking_lot::Mutex;
use request::Requests;
use std::sync::Arc;
use std::time::Duration;

/// The sink to the external system.
pub struct ExternalSink {
    config: ExternalConfig,
    url: String,
    /// One client for all partitions, with its pool of connections. There once it could be made.
    requests: Mutex<Option<Arc<Requests>>>,
}

impl ExternalSink {
    /// The sink of these settings. Reads and connects nothing.
    pub fn new(config: &ExternalConfig) -> Result<Self, SinkError> {
        let Some(url) = &config.url else {
            let told = "sinks.http.url is not set".to_owned();
            return Err(SinkError::Misconfigured(told));
        };
        Ok(Self {
            config: config.clone(),
            url: url.clone(),
            requests: Mutex::new(None),
        })
    }

    fn connect(&self) -> Result<Arc<Requests>, SinkError> {
        let requests = Arc::new(Requests::new(&self.config, &self.url)?);
        *self.requests.lock() = Some(Arc::clone(&requests));
        Ok(requests)
    }
}

impl Destination for ExternalSink {
    type Lane = ExternalLane;

    const NAME: &'static str = "http";

    /// There is no request that the system would be sure to know but that with an event.
    const OPENING_ASKS: bool = false;

    /// The committed position is all there is.
    const COMMIT_EVERY: Duration = Duration::from_millis(100);

    /// Reads secrets and certificates.
    async fn prepare(&self) -> Result<(), SinkError> {
        self.connect().map(drop)
    }

    /// Nobody can be fenced there, and nobody knows there how far this system came: what the group committed counts.
    async fn open(&self, taken: Taken, frame: Frame) -> Result<(ExternalLane, i64), SinkError> {
        let ready = self.requests.lock().clone();
        let requests = match ready {
            Some(requests) => requests,
            None => self.connect()?,
        };
        let start = taken.committed.unwrap_or(taken.log_start);
        let lane = ExternalLane::new(taken.partition, self.config.lanes, requests, frame);
        Ok((lane, start))
    }
}
