//! A deployment whose disk is lost again and again.

use crate::report::Measured;
use crate::say;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use thmanyah_benches::cpu::cpu_seconds;
use thmanyah_dev::{Broker, Processor, ProcessorOptions, ScratchDir};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const STOP_LIMIT: Duration = Duration::from_secs(25);
const LIMIT: Duration = Duration::from_mins(10);
const RESTORED: &str = "thmanyah_restore_records_total";

/// How a process is run.
#[derive(Clone, Copy)]
struct Run {
    recent: bool,
    /// How often published ids are checkpointed.
    checkpoints: &'static str,
}

/// One instance and its disk.
pub(crate) struct Deployment {
    bootstrap: String,
    threads: usize,
    state: ScratchDir,
}

impl Deployment {
    pub(crate) fn new(broker: &Broker, threads: usize) -> Result<Self> {
        Ok(Self {
            bootstrap: broker.bootstrap().to_owned(),
            threads,
            state: ScratchDir::new("restore-bench")?,
        })
    }

    fn dir(&self) -> PathBuf {
        self.state.path().join("state")
    }

    fn options(&self, run: Run) -> ProcessorOptions {
        let mut options = ProcessorOptions::new(&self.bootstrap, "0", &self.dir());
        options.env = [
            ("THMANYAH_ENRICHER__WORKERS", self.threads.to_string()),
            ("THMANYAH_RECENT__ENABLED", run.recent.to_string()),
            ("THMANYAH_SEEN__INTERVAL", run.checkpoints.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec();
        options
    }

    /// Takes in the content, publishes the events, and is killed before the first checkpoint.
    pub(crate) fn publish_and_kill(&self, contents: usize, events: u64) -> Result<()> {
        let run = Run {
            recent: false,
            checkpoints: "3600s",
        };
        let options = self.options(run).args(["--roles", "materializer"]);
        let mut materializer = Processor::spawn(options)?;
        await_metric(&mut materializer, RESTORED, "content", contents as f64)?;
        let status = materializer.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "it ended with {status}");
        let mut processor = Processor::spawn(self.options(run))?;
        await_metric(&mut processor, "thmanyah_ledger", "enriched", events as f64)?;
        processor.kill9();
        Ok(())
    }

    /// Stops in good order, which checkpoints the published ids.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let run = Run {
            recent: false,
            checkpoints: "3600s",
        };
        let mut processor = Processor::start(self.options(run))?;
        let status = processor.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// Loses the disk, starts, and is killed as soon as it is ready.
    pub(crate) fn cold_start(&self, recent: bool) -> Result<Measured> {
        fs::remove_dir_all(self.dir()).context("lose the disk")?;
        let run = Run {
            recent,
            checkpoints: "3600s",
        };
        let began = Instant::now();
        let mut processor = Processor::spawn(self.options(run))?;
        let mut first = None;
        while !ready(&processor) {
            if first.is_none() && restored(&processor) > 0.0 {
                first = Some(Instant::now());
            }
            if let Some(status) = processor.ended() {
                bail!("it ended with {status}: {}", processor.log());
            }
            ensure!(began.elapsed() < LIMIT, "{}", processor.log());
            thread::sleep(LOOK_AGAIN);
        }
        let measured = Measured {
            records: restored(&processor) as u64,
            seconds: began.elapsed().as_secs_f64(),
            cpu: cpu_seconds(processor.pid())?,
            restoring: first.map_or(0.0, |at| at.elapsed().as_secs_f64()),
        };
        processor.kill9();
        for line in processor.log().lines() {
            if line.contains("restored a table") {
                say(line);
            }
        }
        Ok(measured)
    }
}

fn ready(processor: &Processor) -> bool {
    processor
        .get("/readyz")
        .is_ok_and(|answer| answer.status == 200)
}

/// Records of content, pending and seen replayed so far.
fn restored(processor: &Processor) -> f64 {
    let of = |table: &str| {
        let value = processor.metric(RESTORED, &[("table", table)]);
        value.ok().flatten().unwrap_or_default()
    };
    of("content") + of("pending") + of("seen")
}

/// Waits until a metric with that table or kind has reached a value.
fn await_metric(processor: &mut Processor, name: &str, of: &str, wanted: f64) -> Result<()> {
    let began = Instant::now();
    loop {
        let value: f64 = ["table", "kind"]
            .iter()
            .filter_map(|label| processor.metric(name, &[(label, of)]).ok().flatten())
            .sum();
        if value >= wanted {
            return Ok(());
        }
        if let Some(status) = processor.ended() {
            bail!("it ended with {status}: {}", processor.log());
        }
        ensure!(began.elapsed() < LIMIT, "{name} stands at {value}");
        thread::sleep(LOOK_AGAIN);
    }
}
