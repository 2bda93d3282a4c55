//! The mock of an external system: takes events by POST, remembers them, and fails as a script says.
//!
//! Reading order: `script` says which faults are played when; `seen` is what it remembers; `connection` can be reset;
//! `requests` answers.

mod connection;
mod requests;
mod script;
mod seen;

pub use script::{Credentials, Decision, Duplicates, Fault, Kind, Play, Script, Step};
pub use seen::{Accepted, Arrival, KeySeen, Seen, Totals};

use connection::{Door, Switch};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a mock is set up.
#[derive(Clone, Debug)]
pub struct ExternalOptions {
    /// Events that it remembers.
    pub room: usize,
    /// Partitions of the topic that its events come from, to judge their order by.
    pub partitions: u32,
    /// What it plays first.
    pub script: Script,
}

impl Default for ExternalOptions {
    fn default() -> Self {
        Self {
            room: 100_000,
            partitions: 1,
            script: Script::default(),
        }
    }
}

/// What the handlers share.
struct Shared {
    begun: Instant,
    play: Mutex<Play>,
    seen: Mutex<Seen>,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn play(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn play_from_now(&self, script: Script) {
        *self.play() = Play::new(script, self.now_ms());
    }
}

/// A running mock. Dropped, it takes no more connections.
pub struct ExternalSystem {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<io::Result<()>>,
}

impl ExternalSystem {
    /// Listens, and serves on the present runtime.
    pub async fn start(listen: &str, options: ExternalOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            play: Mutex::new(Play::new(options.script, 0)),
            seen: Mutex::new(Seen::new(options.room, options.partitions)),
        });
        let service =
            requests::router(Arc::clone(&shared)).into_make_service_with_connect_info::<Switch>();
        let server = tokio::spawn(async move { axum::serve(Door(listener), service).await });
        Ok(Self {
            shared,
            address,
            server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where events are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Plays another script from now on.
    pub fn play(&self, script: Script) {
        self.shared.play_from_now(script);
    }

    /// Which step of the script is being played; none after the last.
    pub fn step(&self) -> Option<usize> {
        self.shared.play().step()
    }

    /// The sums of what it has seen.
    pub fn totals(&self) -> Totals {
        self.shared.seen().totals().clone()
    }

    /// What it has seen of a key.
    pub fn key(&self, key: &str) -> Option<KeySeen> {
        self.shared.seen().key(key).cloned()
    }

    /// The events that it has taken, in the order of their coming.
    pub fn journal(&self) -> Vec<Accepted> {
        self.shared.seen().journal().to_vec()
    }

    /// Serves until it fails.
    pub async fn serve(mut self) -> io::Result<()> {
        (&mut self.server).await.map_err(io::Error::other)?
    }
}

impl Drop for ExternalSystem {
    fn drop(&mut self) {
        self.server.abort();
    }
}
