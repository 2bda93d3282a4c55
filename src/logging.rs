//! Logs: to standard error, as text or JSON, filtered by module. Standard output belongs to the commands.

use crate::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// The filter of `log.filter` is no filter.
#[derive(Debug, thiserror::Error)]
#[error("`log.filter` = {filter:?}: {problem}; an example is info,librdkafka=warn")]
pub struct FilterError {
    filter: String,
    problem: String,
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(config: &LogConfig) -> Result<(), FilterError> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|problem| FilterError {
            filter: config.filter.clone(),
            problem: problem.to_string(),
        })?;
    let to_stderr = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let _ = match config.format {
        LogFormat::Text => to_stderr.try_init(),
        LogFormat::Json => to_stderr.json().flatten_event(true).try_init(),
    };
    Ok(())
}
