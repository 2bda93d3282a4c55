//! What is measured: a process that reads one topic and writes another, the bare copy or the processor.

use crate::copy_loop::CopyArgs;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use thmanyah_benches::cpu::cpu_seconds;
use thmanyah_dev::{Processor, ProcessorOptions, ScratchDir};

const STOP_LIMIT: Duration = Duration::from_secs(25);

/// How a process is started.
pub(crate) enum Launch {
    Copy(CopyArgs),
    Processor(Box<ProcessorOptions>),
}

/// A process to measure, and where its work shows.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) launch: Launch,
    /// The topic it reads.
    pub(crate) input: String,
    /// The group that commits what was read.
    pub(crate) group: String,
    /// The topic it writes.
    pub(crate) output: String,
    /// Whether what it publishes is also kept for queries.
    pub(crate) recent: bool,
}

/// A process that runs.
pub(crate) enum Running {
    Copy(Child),
    Processor(Box<Processor>),
}

impl Subject {
    /// The bare copy, under a group of its own.
    pub(crate) fn copy(bootstrap: &str, input: &str, name: &str, threads: usize) -> Self {
        let args = CopyArgs {
            bootstrap: bootstrap.to_owned(),
            from: input.to_owned(),
            to: format!("{name}.out"),
            group: name.to_owned(),
            threads,
        };
        Self {
            name: "bare copy".to_owned(),
            input: input.to_owned(),
            group: args.group.clone(),
            output: args.to.clone(),
            launch: Launch::Copy(args),
            recent: false,
        }
    }

    /// The processor, as an application of its own with topics of its own.
    pub(crate) fn processor(
        bootstrap: &str,
        input: &str,
        name: &str,
        title: &str,
        recent: bool,
        state: &ScratchDir,
        threads: usize,
    ) -> Self {
        let dir: PathBuf = state.path().join(name);
        let mut options = ProcessorOptions::new(bootstrap, "0", &dir).args(["--app", name]);
        options.env = [
            ("THMANYAH_TOPICS__PREFIX", format!("{name}.")),
            ("THMANYAH_TOPICS__ENGAGEMENT_EVENTS_RAW", input.to_owned()),
            ("THMANYAH_TOPICS__CONTENT_RAW", "content.raw".to_owned()),
            ("THMANYAH_ENRICHER__WORKERS", threads.to_string()),
            ("THMANYAH_RECENT__ENABLED", recent.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec();
        Self {
            name: title.to_owned(),
            launch: Launch::Processor(Box::new(options)),
            input: input.to_owned(),
            group: format!("{name}-enricher"),
            output: format!("{name}.engagement-events.enriched"),
            recent,
        }
    }

    /// Starts it and waits for nothing.
    pub(crate) fn start(&self) -> Result<Running> {
        match &self.launch {
            Launch::Copy(args) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.stdin(Stdio::piped());
                command.args(["copy", "--bootstrap", &args.bootstrap]);
                command.args([
                    "--from",
                    &args.from,
                    "--to",
                    &args.to,
                    "--group",
                    &args.group,
                ]);
                command.args(["--threads", &args.threads.to_string()]);
                Ok(Running::Copy(command.spawn().context("start the copy")?))
            }
            Launch::Processor(options) => Ok(Running::Processor(Box::new(Processor::spawn(
                (**options).clone(),
            )?))),
        }
    }

    /// Brings the content into the processor's store before events are measured.
    pub(crate) fn materialize(&self, contents: usize) -> Result<()> {
        let Launch::Processor(options) = &self.launch else {
            return Ok(());
        };
        let options = (**options).clone().args(["--roles", "materializer"]);
        let mut processor = Processor::spawn(options)?;
        let mut replayed = 0.0;
        while replayed < contents as f64 {
            if let Some(status) = processor.ended() {
                anyhow::bail!(
                    "it ended with {status} while it took in the content: {}",
                    processor.log()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
            let name = "thmanyah_restore_records_total";
            // Not served yet counts as nothing done.
            let answer = processor.metric(name, &[("table", "content")]);
            replayed = answer.ok().flatten().unwrap_or_default();
        }
        let status = processor.terminate(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            processor.log()
        );
        Ok(())
    }
}

impl Running {
    fn pid(&self) -> u32 {
        match self {
            Self::Copy(child) => child.id(),
            Self::Processor(processor) => processor.pid(),
        }
    }

    /// User and system time used so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu_seconds(self.pid())
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self {
            Self::Copy(child) => {
                let ended = child.try_wait()?;
                ensure!(ended.is_none(), "the copy ended: {ended:?}");
            }
            Self::Processor(processor) => {
                let ended = processor.ended();
                ensure!(
                    ended.is_none(),
                    "the processor ended: {ended:?}: {}",
                    processor.log()
                );
            }
        }
        Ok(())
    }

    /// The age of the moment up to which queries see everything.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let Self::Processor(processor) = self else {
            return None;
        };
        let path = "/v1/enriched-events?from=2000-01-01T00:00:00Z&to=2000-01-01T00:00:00Z";
        let answer = processor
            .get(path)
            .ok()
            .filter(|answer| answer.status == 200)?;
        let page: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        page.get("staleness_ms")?
            .as_u64()
            .map(Duration::from_millis)
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Copy(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Processor(processor) => {
                processor.kill9();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
