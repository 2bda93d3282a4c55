//! `make simulate`: schedules by the million on all cores, taken up again where they were left; or one seed again.
#![allow(clippy::print_stdout)]

mod progress;

use anyhow::{Context, Result, bail};
use progress::Progress;
use std::time::Instant;
use thmanyah_proptests::sim::{explain, explore};

/// Schedules between two notes of how far it is.
const CHUNK: u64 = 10_000;
/// Failures that are enough to stop.
const FAILURES: usize = 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<u64> {
        let text = arguments.get(at).context("a number is missing")?;
        text.replace('_', "")
            .parse()
            .with_context(|| format!("`{text}` is no number"))
    };
    match arguments.first().map(String::as_str) {
        Some("seed") => replay(number(1)?, arguments.iter().any(|a| a == "--real-stores")),
        Some("until") => until(number(1)?),
        Some(_) => all(number(0)?),
        None => all(1_000_000),
    }
}

/// One seed, with what happened if it fails.
fn replay(seed: u64, real_stores: bool) -> Result<()> {
    let Some(text) = explain(seed, real_stores) else {
        println!("seed {seed}: no violation");
        return Ok(());
    };
    println!("{text}");
    bail!("seed {seed} fails");
}

/// Until the first failure: what mutants are measured by.
fn until(count: u64) -> Result<()> {
    let explored = explore(0..count, false, true);
    let Some((seed, violation)) = explored.failures.first() else {
        bail!("{} schedules without a violation", explored.schedules);
    };
    let schedules = explored.schedules;
    println!("caught after {schedules} schedules, by seed {seed}: {violation}");
    Ok(())
}

fn all(count: u64) -> Result<()> {
    let began = Instant::now();
    let mut progress = Progress::load(count)?;
    let before = progress.explored.schedules;
    while progress.explored.schedules < count && progress.explored.failures.len() < FAILURES {
        let from = progress.explored.schedules;
        let to = (from + CHUNK).min(count);
        progress.explored.add(explore(from..to, false, false));
        progress.save()?;
        let failed = progress.explored.failures.len();
        println!("{to:>9} schedules, {failed} violations");
    }
    let explored = &progress.explored;
    println!();
    for (name, count) in &explored.counts.0 {
        println!("{count:>9}  {name}");
    }
    let run = explored.schedules - before;
    println!(
        "\n{} schedules, {run} of them now in {:.1} s; {} violations",
        explored.schedules,
        began.elapsed().as_secs_f64(),
        explored.failures.len()
    );
    if let Some((first, _)) = explored.failures.first() {
        for (seed, violation) in &explored.failures {
            println!("seed {seed}: {violation}");
        }
        println!("\n{}", explain(*first, false).unwrap_or_default());
        bail!("{} schedules fail", explored.failures.len());
    }
    let missing = explored.counts.missing();
    if !missing.is_empty() {
        bail!("never reached: {missing:?}");
    }
    Ok(())
}
