//! Makes a failing schedule smaller: steps are left out as long as it still fails.

use super::runner::run;
use super::schedule::{Schedule, Step};

/// Runs at most, so that shrinking ends.
const RUNS: usize = 3_000;

/// A schedule that fails like this one, with as few steps as can be found.
pub fn shrink(schedule: &Schedule) -> Schedule {
    let mut best = schedule.clone();
    let mut left = RUNS;
    let mut chunk = best.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < best.steps.len() && left > 0 {
            let mut smaller = best.clone();
            let end = (at + chunk).min(smaller.steps.len());
            smaller.steps.drain(at..end);
            if fails(&smaller, &mut left) {
                best = smaller;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    for at in 0..best.steps.len() {
        while let Some(Step::Run { seed, turns }) = best.steps.get(at).copied()
            && turns > 1
        {
            let mut smaller = best.clone();
            smaller.steps[at] = Step::Run {
                seed,
                turns: turns / 2,
            };
            if left == 0 || !fails(&smaller, &mut left) {
                break;
            }
            best = smaller;
        }
    }
    best
}

fn fails(schedule: &Schedule, left: &mut usize) -> bool {
    *left = left.saturating_sub(1);
    !run(schedule, false).violations.is_empty()
}
