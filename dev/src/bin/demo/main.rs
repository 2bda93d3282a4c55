//! `make demo`: the whole pipeline on this machine. Rows go into PostgreSQL, through Debezium and Kafka into `thmanyah run`,
//! come out enriched exactly once, go on to BigQuery, Redis and an external system, and are asked for over HTTP. What it tells
//! at the end is read from the running parts.

// What the demo shows is its purpose.
#![allow(clippy::print_stdout)]
// Counts become rates.
#![allow(clippy::cast_precision_loss)]

mod accounts;
mod destinations;
mod latency;
mod pipeline;
mod screen;
mod summary;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::pipeline::Pipeline;
use crate::screen::Screen;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; `false` if something did not add up.
fn run() -> Result<bool> {
    let start = Instant::now();
    let screen = Screen::new();
    screen.title("thmanyah: rows of PostgreSQL, enriched exactly once");
    let mut pipeline = Pipeline::start(&screen)?;
    pipeline.generate(&screen)?;
    pipeline.await_the_end(&screen)?;
    let sound = summary::show(&mut pipeline, &screen)?;
    screen.note(&format!(
        "the demo took {:.0} s",
        start.elapsed().as_secs_f64()
    ));
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        screen.note("everything stays up; Ctrl-C stops it and leaves nothing behind");
        await_interrupt()?;
        println!();
    }
    pipeline.stop(&screen)?;
    Ok(sound)
}

fn await_interrupt() -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async {
                let mut terminated =
                    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                tokio::select! {
                    interrupted = tokio::signal::ctrl_c() => interrupted,
                    _ = terminated.recv() => Ok(()),
                }
            })
        })
        .context("cannot wait for Ctrl-C")
}
