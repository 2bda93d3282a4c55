//! `external-system-mock`: an HTTP service that takes events, remembers them, and fails as it is told to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use thmanyah_tools::external::{ExternalOptions, ExternalSystem, Script};
use tokio::signal::unix::{SignalKind, signal};

/// How a script looks, for the long help.
const SCRIPT: &str = r#"A script is JSON such as

  {"seed": 1, "duplicates": "conflict", "credentials": {"bearer": "t"}, "repeat": false, "steps": [
    {"requests": 500, "faults": [{"share": 0.1, "fault": "status", "status": 503, "retry_after": "1"}]},
    {"milliseconds": 2000, "faults": [{"fault": "reset"}]},
    {"faults": [{"share": 0.01, "by_key": true, "fault": "status", "status": 422, "body": "no"}]}]}

Faults: latency (milliseconds), status (status, retry_after, location, body), reset, lost-answer, late-answer
(milliseconds), slow-body (milliseconds)."#;

/// Takes events by POST to /events, remembers them, and fails as a script says.
///
/// GET /seen tells sums: requests, events, different keys, duplicates, events out of order, faults. GET /seen/KEY tells of one
/// key, GET /events?from=N&limit=N the events in the order of their coming. POST /control/script plays another script,
/// DELETE ends it, POST /control/forget empties the memory. GET /healthz answers 200.
#[derive(Debug, Parser)]
#[command(name = "external-system-mock", version, after_long_help = SCRIPT)]
struct Arguments {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:9090")]
    listen: String,
    /// A file with the script that is played first
    #[arg(long)]
    script: Option<PathBuf>,
    /// Events that are remembered; more are counted, and duplicates among them are not seen
    #[arg(long, default_value_t = 100_000)]
    remember: usize,
    /// Partitions of the topic that the events come from, to judge their order by: that of an event is its id modulo these
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("external-system-mock: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let script = match &arguments.script {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", file.display()))?;
            Script::from_json(&text)
                .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?
        }
        None => Script::default(),
    };
    let options = ExternalOptions {
        room: arguments.remember,
        partitions: arguments.partitions,
        script,
    };
    let system = ExternalSystem::start(&arguments.listen, options)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", arguments.listen))?;
    eprintln!("external-system-mock: listening on {}", system.address());
    // The first process of a container has to see to its signals itself.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = system.serve() => Ok(ended?),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}
