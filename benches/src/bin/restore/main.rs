//! A cold restore beside a bare reader of the same logs, on one real broker in one run.
//!
//! The processor first takes in the content and publishes the events. Then its disk is lost, again and again: from the start
//! of the process to `/readyz` it has to read the content changelog, and the published ids. These come from the enriched
//! topic, which is the worst case (killed before its first checkpoint), or from a checkpoint. Speed is compared only
//! within a run: machines and their other work differ.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^52"
)]

mod bare;
mod cold;
mod report;

use anyhow::Result;
use clap::Parser;
use cold::Deployment;
use report::Report;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use thmanyah_benches::fill;
use thmanyah_benches::records::{Order, Records};
use thmanyah_dev::{Broker, BrokerOptions, Topic, target_dir};

const CONTENT: &str = "content.raw";
const EVENTS: &str = "engagement-events.raw";
const HEAP_MIB: u32 = 1024;

/// Measures how long a process with an empty disk takes until it is ready, beside a bare librdkafka reader of the same logs
#[derive(Debug, Parser)]
struct Arguments {
    /// Content rows to restore
    #[arg(long, env = "BENCH_RESTORE_CONTENTS", default_value_t = 1_000_000)]
    contents: usize,
    /// Published ids to restore
    #[arg(long, env = "BENCH_RESTORE_EVENTS", default_value_t = 1_000_000)]
    events: u64,
    /// Partitions of the events
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Workers of the processor
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Restores of each kind
    #[arg(long, env = "BENCH_RESTORE_ROUNDS", default_value_t = 2)]
    rounds: usize,
    /// Where the JSON goes [default: bench/restore.json in cargo's target directory]
    #[arg(long)]
    json: Option<PathBuf>,
}

fn say(text: &str) {
    // Nobody is left to tell when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let broker = Broker::start(BrokerOptions {
        heap_mib: Some(HEAP_MIB),
        ..BrokerOptions::default()
    })?;
    let began = Instant::now();
    broker.create_topics(&[
        Topic::new(CONTENT, arguments.partitions),
        Topic::new(EVENTS, arguments.partitions),
    ])?;
    let mut records = Records::new(arguments.contents, arguments.events);
    fill::contents(broker.bootstrap(), CONTENT, &mut records)?;
    fill::events(
        broker.bootstrap(),
        EVENTS,
        &mut records,
        arguments.events,
        Order::Rising,
    )?;
    let deployment = Deployment::new(&broker, arguments.threads)?;
    deployment.publish_and_kill(arguments.contents, arguments.events)?;
    say(&format!(
        "the topics were filled in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let mut report = Report::new(arguments.contents, arguments.events);
    for _ in 0..arguments.rounds {
        let bare = bare::read(
            broker.bootstrap(),
            &["content.changelog", "engagement-events.enriched"],
        )?;
        say(&format!("bare reader: {bare:.2?}"));
        report.bare.push(bare);
        let cold = deployment.cold_start(false)?;
        say(&format!("no checkpoint, recent off: {cold:.2?}"));
        report.tail.push(cold);
        let cold = deployment.cold_start(true)?;
        say(&format!("no checkpoint, recent on: {cold:.2?}"));
        report.with_recent.push(cold);
    }
    deployment.checkpoint()?;
    for _ in 0..arguments.rounds {
        let cold = deployment.cold_start(false)?;
        say(&format!("from a checkpoint: {cold:.2?}"));
        report.checkpointed.push(cold);
    }
    say(&report.table());
    let file = match &arguments.json {
        Some(file) => file.clone(),
        None => target_dir()?.join("../bench/restore.json"),
    };
    report.save(&file)
}
