//! The whole processor beside a bare copy loop, on one real broker in one run.
//!
//! CPU seconds are those of the whole process, from its start to the commit of the last event (and, with `recent`, until
//! queries see it too); the content is in the store already. So start-up, which the bare copy has less of, counts against
//! the processor. Speed is compared only within a run: machines and their other work differ.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^52"
)]

mod copy_loop;
mod report;
mod restart;
mod subject;
mod throughput;

use anyhow::Result;
use clap::{Parser, Subcommand};
use report::Report;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use subject::Subject;
use thmanyah_benches::fill;
use thmanyah_benches::records::{Order, Records};
use thmanyah_dev::{Broker, BrokerOptions, ScratchDir, Topic, target_dir};

const CONTENT: &str = "content.raw";
const RISING: &str = "engagement-events.raw";
const RANDOM: &str = "engagement-events-in-any-order.raw";
const BAD: &str = "engagement-events-all-bad.raw";
const HEAP_MIB: u32 = 1024;

/// Measures the processor beside a bare librdkafka copy loop: CPU seconds per million events, and the time from a SIGKILL
/// to the next output
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Events in each input topic; 100000 is a quick run
    #[arg(long, env = "BENCH_EVENTS", default_value_t = 1_000_000)]
    events: u64,
    /// Contents in the table
    #[arg(long, env = "BENCH_CONTENTS", default_value_t = 100_000)]
    contents: usize,
    /// Partitions of the events
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Threads of the copy, and workers of the processor
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs of each over the whole input
    #[arg(long, env = "BENCH_PASSES", default_value_t = 1)]
    passes: usize,
    /// Kills of each
    #[arg(long, env = "BENCH_RESTARTS", default_value_t = 5)]
    restarts: usize,
    /// Leave out random times, bad records and `recent` off
    #[arg(long)]
    brief: bool,
    /// Where the JSON goes [default: bench/processor.json in cargo's target directory]
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The bare copy itself, as a process of its own
    #[command(hide = true)]
    Copy(copy_loop::CopyArgs),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Copy(copy)) => copy_loop::run(copy),
        None => measure(&arguments),
    }
}

fn say(text: &str) {
    // Nobody is left to tell when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn measure(arguments: &Arguments) -> Result<()> {
    let broker = Broker::start(BrokerOptions {
        heap_mib: Some(HEAP_MIB),
        ..BrokerOptions::default()
    })?;
    let state = ScratchDir::new("bench")?;
    fill_topics(&broker, arguments)?;
    let mut report = Report {
        contents: arguments.contents,
        events: arguments.events,
        passes: Vec::new(),
        restarts: Vec::new(),
    };
    let mut kept = Vec::new();
    for number in 0..arguments.passes {
        let subjects = subjects(&broker, arguments, &state, number);
        for (at, subject) in subjects.iter().enumerate() {
            subject.materialize(arguments.contents)?;
            let pass = throughput::pass(
                broker.bootstrap(),
                subject,
                arguments.partitions,
                arguments.events,
            )?;
            say(&format!("{}: {pass:.2?}", subject.name));
            if number == 0 {
                report.passes.push((subject.name.clone(), Vec::new()));
            }
            if let Some((_, passes)) = report.passes.get_mut(at) {
                passes.push(pass);
            }
        }
        kept = subjects;
    }
    // The bare copy and the processor with its defaults.
    kept.truncate(2);
    restarts(&broker, arguments, &kept, &mut report)?;
    say(&report.table());
    let file = match &arguments.json {
        Some(file) => file.clone(),
        None => target_dir()?.join("../bench/processor.json"),
    };
    report.save(&file)
}

fn fill_topics(broker: &Broker, arguments: &Arguments) -> Result<()> {
    let (bootstrap, events) = (broker.bootstrap(), arguments.events);
    let began = Instant::now();
    let partitions = arguments.partitions;
    broker.create_topics(&[
        Topic::new(CONTENT, partitions),
        Topic::new(RISING, partitions),
        Topic::new(RANDOM, partitions),
        Topic::new(BAD, partitions),
    ])?;
    let mut records = Records::new(arguments.contents, events);
    fill::contents(bootstrap, CONTENT, &mut records)?;
    fill::events(bootstrap, RISING, &mut records, events, Order::Rising)?;
    if !arguments.brief {
        fill::events(bootstrap, RANDOM, &mut records, events, Order::Random)?;
        fill::bad_events(bootstrap, BAD, &mut records, events)?;
    }
    say(&format!(
        "filled the input topics in {:.1} s; a raw event has {} bytes",
        began.elapsed().as_secs_f64(),
        records.value.len()
    ));
    Ok(())
}

/// What is measured in pass `number`, the bare copy first.
fn subjects(
    broker: &Broker,
    arguments: &Arguments,
    state: &ScratchDir,
    number: usize,
) -> Vec<Subject> {
    let (bootstrap, threads) = (broker.bootstrap(), arguments.threads);
    let processor = |name: &str, title: &str, input: &str, recent: bool| {
        let name = format!("{name}{number}");
        Subject::processor(bootstrap, input, &name, title, recent, state, threads)
    };
    let copy = Subject::copy(bootstrap, RISING, &format!("copy{number}"), threads);
    let mut subjects = vec![copy, processor("rising", "processor", RISING, true)];
    if !arguments.brief {
        subjects.push(processor(
            "random",
            "processor, random event_ts",
            RANDOM,
            true,
        ));
        let title = "processor, every record bad";
        subjects.push(processor("bad", title, BAD, true));
        subjects.push(processor(
            "bare",
            "processor, recent.enabled=false",
            RISING,
            false,
        ));
    }
    for subject in &subjects {
        if let subject::Launch::Copy(copy) = &subject.launch {
            // A topic that is missing shows at once: the copy stands still.
            let _ = broker.create_topics(&[Topic::new(&copy.to, arguments.partitions)]);
        }
    }
    subjects
}

/// Kills and restarts in turn, so that what else the machine does falls on both alike.
fn restarts(
    broker: &Broker,
    arguments: &Arguments,
    subjects: &[Subject],
    report: &mut Report,
) -> Result<()> {
    let records = Records::new(arguments.contents, arguments.events);
    let first = arguments.events + 1;
    let _flow = fill::Flow::start(broker.bootstrap(), RISING, records, first)?;
    report.restarts = subjects
        .iter()
        .map(|s| (s.name.clone(), Vec::new()))
        .collect();
    for _ in 0..arguments.restarts {
        for (subject, (_, times)) in subjects.iter().zip(&mut report.restarts) {
            times.push(restart::round(
                broker.bootstrap(),
                subject,
                arguments.partitions,
            )?);
        }
    }
    Ok(())
}
