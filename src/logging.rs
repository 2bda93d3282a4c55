//! Logs: to standard error, as text or JSON, filtered by module. Standard output belongs to the commands.

use crate::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(config: &LogConfig) {
    // The filter was checked when the settings were read.
    let to_stderr = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(&config.filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let _ = match config.format {
        LogFormat::Text => to_stderr.try_init(),
        LogFormat::Json => to_stderr.json().flatten_event(true).try_init(),
    };
}
