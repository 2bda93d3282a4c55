//! How a command fails, and the exit code of that.

use crate::config::ConfigError;
use crate::kafka::topics::TopicsError;
use crate::run::RunError;
use std::fmt;

/// Why a command ends without success.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: it failed.
    Failed(anyhow::Error),
    /// Exit code 2: wrong usage or configuration.
    Usage(anyhow::Error),
    /// Exit code 3: a successor took this instance's place.
    Fenced(anyhow::Error),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Fenced(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(error) | Self::Usage(error) | Self::Fenced(error)) = self;
        write!(f, "{error:#}")
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<TopicsError> for Failure {
    fn from(error: TopicsError) -> Self {
        if error.is_configuration() {
            Self::Usage(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        if error.is_fenced() {
            Self::Fenced(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}

impl From<thmanyah_state::Error> for Failure {
    fn from(error: thmanyah_state::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}
