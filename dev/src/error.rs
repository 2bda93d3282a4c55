//! What can go wrong while starting or stopping a service, with what a reader needs to act on it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a service could not be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that the set-up step fetches is not in the cache.
    #[error("{} is missing: run `make setup` first", .0.display())]
    NotSetUp(PathBuf),
    /// A binary of this workspace was not built.
    #[error("{} is not built: run `make build` first", .0.display())]
    NotBuilt(PathBuf),
    /// A program that a service needs could not be started.
    #[error("cannot start {program}: {source}; run `make setup`, which installs it")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A short-lived program (such as `initdb`) failed.
    #[error("{program} failed with {status}: {output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it printed.
        output: String,
    },
    /// A service ended before it was ready.
    #[error("{service} ended with {status} before it was ready; its last lines:\n{log}")]
    Died {
        /// The service.
        service: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A service did not become ready, or did not end, in time.
    #[error("{service}: still waiting for {awaited} after {waited:?}; its last lines:\n{log}")]
    Late {
        /// The service.
        service: String,
        /// What was waited for.
        awaited: String,
        /// For how long.
        waited: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// A file or a socket could not be used.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, such as `write /tmp/x/server.properties`.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Kafka refused a request.
    #[error("Kafka: cannot {doing}: {reason}")]
    Kafka {
        /// What was being done.
        doing: String,
        /// What the client or the broker said.
        reason: String,
    },
    /// A service answered an HTTP request with something else than was expected, or not at all.
    #[error("{url}: {reason}")]
    Http {
        /// The address asked.
        url: String,
        /// What came back.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
