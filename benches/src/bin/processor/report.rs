//! What was measured, as a table for people and as JSON for comparisons.

use crate::throughput::Pass;
use anyhow::{Context, Result};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// At most this many times the CPU time of the bare copy,
const CPU_TARGET: f64 = 4.0;
/// and this many times its time to the first output after a kill.
const RESTART_TARGET: f64 = 2.0;

/// All figures of a run. The bare copy comes first in each list.
pub(crate) struct Report {
    pub(crate) contents: usize,
    pub(crate) events: u64,
    pub(crate) passes: Vec<(String, Vec<Pass>)>,
    pub(crate) restarts: Vec<(String, Vec<Duration>)>,
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(upper), 0) => {
            f64::midpoint(*upper, values.get(middle - 1).copied().unwrap_or(*upper))
        }
        (Some(value), _) => *value,
        (None, _) => f64::NAN,
    }
}

fn seconds(restarts: &[Duration]) -> impl Iterator<Item = f64> {
    restarts.iter().map(Duration::as_secs_f64)
}

impl Report {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "\n{} contents, {} events; medians\n\n",
            self.contents, self.events
        );
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<36} {:>11} {:>6} {:>9} {:>10} {:>9}",
            "", "CPU-s per M", "ratio", "start-up", "events/s", "idle CPU"
        );
        let base = self.cpu_of_copy();
        for (name, passes) in &self.passes {
            let cpu = median(passes.iter().map(|p| p.cpu_per_million));
            let _ = writeln!(
                out,
                "{name:<36} {cpu:>11.2} {:>5.2}× {:>7.2} s {:>10.0} {:>7.1} %",
                cpu / base,
                median(passes.iter().map(|p| p.cpu_before)),
                median(passes.iter().map(|p| p.events_per_second)),
                100.0 * median(passes.iter().map(|p| p.idle)),
            );
        }
        let base = self.restart_of_copy();
        let _ = writeln!(
            out,
            "\n{:<36} {:>11} {:>6}",
            "SIGKILL to first output", "median", "ratio"
        );
        for (name, restarts) in &self.restarts {
            let took = median(seconds(restarts));
            let all: Vec<String> = seconds(restarts).map(|s| format!("{s:.2}")).collect();
            let ratio = took / base;
            let _ = writeln!(
                out,
                "{name:<36} {took:>9.2} s {ratio:>5.2}×   {}",
                all.join(" ")
            );
        }
        let _ = writeln!(
            out,
            "\ntargets: CPU of the processor ≤ {CPU_TARGET} × the bare copy; restart ≤ {RESTART_TARGET} ×"
        );
        out
    }

    fn cpu_of_copy(&self) -> f64 {
        let passes = self.passes.first().map(|(_, passes)| passes.as_slice());
        median(passes.unwrap_or_default().iter().map(|p| p.cpu_per_million))
    }

    fn restart_of_copy(&self) -> f64 {
        let restarts = self
            .restarts
            .first()
            .map(|(_, restarts)| restarts.as_slice());
        median(seconds(restarts.unwrap_or_default()))
    }

    /// Writes everything, single runs included.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let (cpu_base, restart_base) = (self.cpu_of_copy(), self.restart_of_copy());
        let passes: Vec<_> = self
            .passes
            .iter()
            .map(|(name, passes)| {
                let runs: Vec<_> = passes
                    .iter()
                    .map(|p| {
                        json!({
                            "cpu_seconds_per_million": p.cpu_per_million,
                            "cpu_seconds_before_first_commit": p.cpu_before,
                            "events_per_second": p.events_per_second,
                            "idle_cpu_share": p.idle,
                        })
                    })
                    .collect();
                let ratio = median(passes.iter().map(|p| p.cpu_per_million)) / cpu_base;
                json!({"name": name, "cpu_ratio": ratio, "runs": runs})
            })
            .collect();
        let restarts: Vec<_> = self
            .restarts
            .iter()
            .map(|(name, restarts)| {
                let all: Vec<f64> = seconds(restarts).collect();
                json!({"name": name, "ratio": median(all.iter().copied()) / restart_base, "seconds": all})
            })
            .collect();
        let report = json!({
            "contents": self.contents, "events": self.events, "throughput": passes, "restart": restarts,
        });
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(file, format!("{report:#}\n"))
            .with_context(|| format!("write {}", file.display()))
    }
}
