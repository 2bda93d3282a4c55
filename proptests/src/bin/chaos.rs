//! `make chaos`: faults by the hundred against three brokers and three instances, and the table of what they did.

use std::process::ExitCode;

use anyhow::{Context, Result};
use thmanyah_proptests::chaos::{Kind, Plan, run};

/// A number from the environment.
fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text}")),
        _ => Ok(default),
    }
}

/// All kinds of faults, or those in whose names one of the words of `CHAOS_ONLY` occurs; words are separated by commas.
fn kinds() -> Vec<Kind> {
    let only = std::env::var("CHAOS_ONLY").unwrap_or_default();
    let words: Vec<&str> = only.split(',').filter(|word| !word.is_empty()).collect();
    let wanted = |kind: &Kind| words.is_empty() || words.iter().any(|w| kind.name().contains(w));
    Kind::ALL.into_iter().filter(wanted).collect()
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn main() -> Result<ExitCode> {
    let plan = Plan {
        faults: number("CHAOS_FAULTS", 200)?,
        seed: number("CHAOS_SEED", u64::from(rand::random::<u32>()))?,
        kinds: kinds(),
        rate: number("CHAOS_RATE", 600)?,
    };
    println!(
        "{} faults, seed {} (CHAOS_FAULTS, CHAOS_SEED)",
        plan.faults, plan.seed
    );
    let report = run(&plan, &|line| println!("{line}"))?;
    println!("\n{report}");
    Ok(if report.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
