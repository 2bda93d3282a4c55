//! The outcome of a run, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::exits::Occasion;
use super::kind::Kind;
use crate::checker::Findings;

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Replays the schedule.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
    /// How often each kind of fault was inflicted.
    pub faults: BTreeMap<Kind, usize>,
    /// Kinds that were left out, and why.
    pub left_out: Vec<(Kind, String)>,
    /// Rounds whose recovery was measured: the kinds of their faults, and how long it took.
    pub recoveries: Vec<(Vec<Kind>, Duration)>,
    /// How processes ended: why, how, with which words, how often.
    pub exits: Vec<(Occasion, String, String, usize)>,
    /// Records of the two input topics.
    pub inputs: (usize, usize),
    /// What the checker found, or what is wrong.
    pub verdict: Option<Result<Findings, String>>,
    /// Where the logs of a failed run are.
    pub logs: Option<PathBuf>,
}

impl Report {
    /// Whether all went well.
    pub fn is_success(&self) -> bool {
        matches!(self.verdict, Some(Ok(_)))
    }

    /// How many faults there were.
    pub fn total(&self) -> usize {
        self.faults.values().sum()
    }

    /// Recovery times of the rounds that had a fault of a kind, or of all; in order.
    fn recoveries(&self, kind: Option<Kind>) -> Vec<Duration> {
        let mut times: Vec<Duration> = self
            .recoveries
            .iter()
            .filter(|(kinds, _)| kind.is_none_or(|kind| kinds.contains(&kind)))
            .map(|(_, took)| *took)
            .collect();
        times.sort();
        times
    }
}

/// The value that so many percent do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} faults in {:.0} s, {} events and {} content records in",
            self.seed,
            self.total(),
            self.took.as_secs_f64(),
            self.inputs.0,
            self.inputs.1
        )?;
        writeln!(
            f,
            "\n{:<34} {:>6}  recovery of its rounds: {:>6} {:>7} {:>7}",
            "fault", "count", "p50", "p99", "rounds"
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, count: usize, times: &[Duration]| {
            let seconds = |time: Option<Duration>| {
                time.map_or_else(
                    || "-".to_owned(),
                    |time| format!("{:.1} s", time.as_secs_f64()),
                )
            };
            let (p50, p99) = (percentile(times, 50), percentile(times, 99));
            writeln!(
                f,
                "{name:<34} {count:>6}  {:>30} {:>7} {:>7}",
                seconds(p50),
                seconds(p99),
                times.len()
            )
        };
        for (kind, count) in &self.faults {
            line(f, kind.name(), *count, &self.recoveries(Some(*kind)))?;
        }
        line(f, "all", self.total(), &self.recoveries(None))?;
        for (kind, why) in &self.left_out {
            writeln!(f, "left out: {}: {why}", kind.name())?;
        }
        writeln!(f, "\nprocesses that ended, except by SIGKILL:")?;
        for (occasion, how, words, count) in &self.exits {
            let why = match occasion {
                Occasion::ByItself => "by itself",
                Occasion::Asked => "after SIGTERM",
                Occasion::DiskFull => "disk full",
            };
            writeln!(f, "{count:>6} × {why}, {how} {words}")?;
        }
        writeln!(f)?;
        match &self.verdict {
            Some(Ok(found)) => {
                let enriched: usize = found.by_status.values().sum();
                writeln!(
                    f,
                    "{enriched} events published ({}), {} and {} dead letters",
                    statuses(found),
                    found.dead_events,
                    found.dead_content
                )?;
                writeln!(
                    f,
                    "verdict: 0 lost, 0 doubled, 0 wrong, 0 out of order, 0 given up on too early"
                )
            }
            Some(Err(wrong)) => writeln!(f, "verdict: FAILED: {wrong}"),
            None => writeln!(f, "verdict: none"),
        }?;
        match &self.logs {
            Some(dir) => writeln!(f, "the logs are in {}", dir.display()),
            None => Ok(()),
        }
    }
}

fn statuses(found: &Findings) -> String {
    let statuses: Vec<String> = found
        .by_status
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    statuses.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_secs).collect();
        assert_eq!(percentile(&times, 50), Some(Duration::from_secs(100)));
        assert_eq!(percentile(&times, 99), Some(Duration::from_secs(198)));
        let one = [Duration::from_secs(7)];
        assert_eq!(percentile(&one, 99), Some(Duration::from_secs(7)));
        assert_eq!(percentile(&[], 99), None);
    }
}
