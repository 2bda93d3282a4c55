//! Which requests are caught, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use super::frame::Frame;
use super::shared::Shared;
use crate::Error;

/// Kafka's number of a kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
#[allow(missing_docs, reason = "the names are Kafka's own")]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    SyncGroup = 14,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

/// Which requests are meant.
#[derive(Clone, Debug)]
pub struct Requests {
    key: ApiKey,
    client: Option<String>,
    text: String,
    most: usize,
}

impl Requests {
    /// Every request of a kind.
    pub fn of(key: ApiKey) -> Self {
        Self {
            key,
            client: None,
            text: String::new(),
            most: usize::MAX,
        }
    }

    /// Only those of clients whose `client.id` contains this.
    #[must_use]
    pub fn from_client(mut self, part: &str) -> Self {
        self.client = Some(part.into());
        self
    }

    /// Only those in whose bytes this text occurs: a transactional id, a group's or an instance's name. A copy of the whole
    /// id is safer than its beginning: `a-1` occurs in `a-10`, too.
    #[must_use]
    pub fn naming(mut self, text: &str) -> Self {
        self.text = text.into();
        self
    }

    /// Only the first so many.
    #[must_use]
    pub fn first(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn matches(&self, frame: &Frame) -> bool {
        let client = |part: &String| {
            let id = frame.client_id().unwrap_or_default();
            String::from_utf8_lossy(id).contains(part)
        };
        frame.api_key() == Some(self.key as i16)
            && self.client.as_ref().is_none_or(client)
            && frame.holds(self.text.as_bytes())
    }
}

/// What becomes of a caught request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes, and is counted.
    Pass,
    /// It waits until it is released, and what its client sent after it on the same connection waits with it.
    Hold,
    /// The same, and its client loses the connection at once.
    Detach,
    /// It passes; when its reply comes, the client loses the connection instead of getting it.
    LoseReply,
}

/// Catches requests for as long as it lives. Dropped, it lets everything go that it holds.
#[derive(Debug)]
pub struct Trap {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
}

impl Trap {
    /// How many were caught.
    pub fn caught(&self) -> usize {
        self.shared.counts(self.id).0
    }

    /// To how many of them the broker has replied, whoever got the reply.
    pub fn answered(&self) -> usize {
        self.shared.counts(self.id).1
    }

    /// Waits until so many were caught.
    pub fn await_caught(&self, count: usize, limit: Duration) -> Result<(), Error> {
        let awaited = format!("{count} requests to be caught");
        self.shared
            .await_counts(self.id, &awaited, limit, |(caught, _)| caught >= count)
    }

    /// Waits until the broker has replied to so many of the caught ones.
    pub fn await_answered(&self, count: usize, limit: Duration) -> Result<(), Error> {
        let awaited = format!("{count} caught requests to be answered");
        self.shared
            .await_counts(self.id, &awaited, limit, |(_, answered)| answered >= count)
    }

    /// Lets those go that are held, in whatever order; those that come later pass.
    pub fn release(&self) {
        self.shared.release(self.id);
    }

    /// Loses those that are held, with their connections; those that come later pass.
    pub fn discard(&self) {
        self.shared.discard(self.id);
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.release();
    }
}
