//! What was measured, as a table for people and as JSON for comparisons.

use anyhow::{Context, Result};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

/// Seen elsewhere, rows a second: Kafka Streams 4.4 and Flink with the same job.
const ELSEWHERE: &str =
    "seen elsewhere: Kafka Streams 46,000 to 85,000 rows/s, Flink 258,000 rows/s";

/// One read or restore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Records that were read.
    pub(crate) records: u64,
    /// From the start of the process, or of the reader.
    pub(crate) seconds: f64,
    /// CPU seconds of the process.
    pub(crate) cpu: f64,
    /// From the first record that was told of to the end.
    pub(crate) restoring: f64,
}

/// All figures of a run.
pub(crate) struct Report {
    contents: usize,
    events: u64,
    pub(crate) bare: Vec<Measured>,
    pub(crate) tail: Vec<Measured>,
    pub(crate) with_recent: Vec<Measured>,
    pub(crate) checkpointed: Vec<Measured>,
}

impl Report {
    pub(crate) fn new(contents: usize, events: u64) -> Self {
        Self {
            contents,
            events,
            bare: Vec::new(),
            tail: Vec::new(),
            with_recent: Vec::new(),
            checkpointed: Vec::new(),
        }
    }

    fn kinds(&self) -> [(&'static str, &[Measured], f64); 4] {
        let rows = self.contents as f64 + self.events as f64;
        [
            ("bare reader of the same logs", &self.bare, rows),
            ("ids from the enriched topic", &self.tail, rows),
            ("the same, recent events on", &self.with_recent, rows),
            ("ids from a checkpoint", &self.checkpointed, rows),
        ]
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "\ncold restore of {} content rows and {} published ids; each run by itself\n\n",
            self.contents, self.events
        );
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<30} {:>9} {:>10} {:>8} {:>10} {:>7}",
            "", "seconds", "rows/s", "CPU-s", "records", "ratio"
        );
        let bare = self.bare.iter().map(|m| m.seconds).sum::<f64>() / self.bare.len() as f64;
        for (name, all, rows) in self.kinds() {
            for m in all {
                let _ = writeln!(
                    out,
                    "{name:<30} {:>9.2} {:>10.0} {:>8.2} {:>10} {:>6.2}×",
                    m.seconds,
                    rows / m.seconds,
                    m.cpu,
                    m.records,
                    m.seconds / bare
                );
            }
        }
        let _ = writeln!(
            out,
            "\nseconds: from the start of the process with an empty disk to /readyz; {ELSEWHERE}"
        );
        out
    }

    /// Writes everything, single runs included.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let kinds = self.kinds().map(|(name, all, rows)| {
            let runs: Vec<_> = all
                .iter()
                .map(|m| {
                    json!({
                        "seconds": m.seconds, "rows_per_second": rows / m.seconds, "cpu_seconds": m.cpu,
                        "records": m.records, "seconds_from_first_record": m.restoring,
                    })
                })
                .collect();
            json!({"name": name, "runs": runs})
        });
        let report = json!({
            "contents": self.contents, "events": self.events, "restores": kinds,
        });
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(file, format!("{report:#}\n"))
            .with_context(|| format!("write {}", file.display()))
    }
}
