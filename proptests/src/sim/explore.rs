//! Runs many seeds on all cores.

use super::counts::Counts;
use super::runner::run;
use super::schedule::Schedule;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What came of many schedules.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// How many were run.
    pub schedules: u64,
    /// What they reached.
    pub counts: Counts,
    /// The seeds that failed, and how.
    pub failures: Vec<(u64, String)>,
}

impl Explored {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.counts.add(&other.counts);
        self.failures.extend(other.failures);
        self.failures.sort_unstable();
    }
}

/// Runs each seed; stops after the first failure if that is `enough`.
pub fn explore(seeds: Range<u64>, real_stores: bool, enough: bool) -> Explored {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let all = Mutex::new(Explored::default());
    let work = || {
        let mut own = Explored::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = run(&Schedule::of(seed, real_stores), false);
            own.schedules += 1;
            own.counts.add(&outcome.counts);
            if let Some(violation) = outcome.violations.into_iter().next() {
                own.failures.push((seed, violation));
                stop.fetch_or(enough, Ordering::Relaxed);
            }
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).add(own);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A failing seed for a person: its schedule made smaller, what happened, and how to see it again.
pub fn explain(seed: u64, real_stores: bool) -> Option<String> {
    let schedule = Schedule::of(seed, real_stores);
    if run(&schedule, false).violations.is_empty() {
        return None;
    }
    let smaller = super::shrink(&schedule);
    let outcome = run(&smaller, true);
    let steps = smaller.steps.iter().map(|step| format!("  {step:?},"));
    let steps: Vec<String> = steps.collect();
    let rocks = if real_stores { " --real-stores" } else { "" };
    Some(format!(
        "{:?}\n{}\n\n{}\n\nseed {seed} fails: {}\nagain: target/release/simulate seed {seed}{rocks}",
        smaller.shape,
        steps.join("\n"),
        outcome.trace.join("\n"),
        outcome.violations.join("; ")
    ))
}
