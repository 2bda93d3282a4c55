//! Logs: to standard error, as text or JSON, filtered by module. Standard output belongs to the commands.

use crate::config::{LogConfig, LogFormat};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// Between two lines about the same.
const SELDOM: Duration = Duration::from_secs(10);

/// Keeps a line that could come with every record from filling the log: it is told at once, then now and then with how
/// often it was due.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// It is due `count` times more; how often it was due since it was told last, when it is time to tell it.
    pub fn told(&mut self, now: Instant, count: u64) -> Option<u64> {
        self.held_back += count;
        let recent = |told: Instant| now.saturating_duration_since(told) < SELDOM;
        if self.told.is_some_and(recent) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(config: &LogConfig) {
    // It tells of each handshake that fails what the error of that handshake tells, too.
    let quiet = if config.filter.contains("rustls_platform_verifier") {
        ""
    } else {
        ",rustls_platform_verifier=off"
    };
    // The filter was checked when the settings were read.
    let to_stderr = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(format!("{}{quiet}", config.filter)))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let _ = match config.format {
        LogFormat::Text => to_stderr.try_init(),
        LogFormat::Json => to_stderr.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_every_record_is_told_now_and_then_with_its_number() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        let told: Vec<u64> = (0..25_000)
            .filter_map(|ms| seldom.told(start + Duration::from_millis(ms), 1))
            .collect();
        assert_eq!(told, [1, 10_000, 10_000]);
    }
}
