//! `thmanyah run`: the processor itself.

use super::Failure;
use super::args::SettingFlags;
use crate::config::{Config, Layers};
use crate::kafka::topics::Plan;
use crate::{logging, run, shutdown};

/// Runs until a signal or a failure.
pub(super) fn run(flags: &SettingFlags) -> Result<(), Failure> {
    let layers = Layers::gather(&flags.layer())?;
    let config = Config::load(&layers)?;
    logging::start(&config.log);
    if !layers.ignored().is_empty() {
        let names = layers.ignored().join(", ");
        tracing::info!("variables that are no settings, ignored: {names}");
    }
    let stop = shutdown::on_signals()?;
    let plan = Plan {
        kafka: &config.kafka,
        names: &config.topics,
        content: &config.content,
        recent: &config.recent,
        sinks: &config.sinks,
    };
    let Some(topics) = plan.ensure(&stop)? else {
        return Ok(());
    };
    tracing::info!(?topics, "topics are ready");
    Ok(run::run(config, topics, stop)?)
}
