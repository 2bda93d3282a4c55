//! The logs of a run that failed, where a person finds them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use thmanyah_dev::target_dir;

use super::field::{Field, INSTANCES};
use crate::evidence::Evidence;
use crate::topics::Record;

/// Leaves everything that explains a failure in a directory that is named after the seed, and tells which.
pub(super) fn keep(
    field: &Field<'_>,
    seed: u64,
    report: &str,
    evidence: Option<&Evidence>,
) -> Result<PathBuf> {
    // Beside the directory of the binaries.
    let dir = target_dir()?
        .with_file_name("chaos")
        .join(format!("seed-{seed}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("report.txt"), report)?;
    fs::write(dir.join("journal.txt"), field.journal.text())?;
    for number in 0..INSTANCES {
        let instance = field.instance(number)?;
        let file = dir.join(format!("instance-{number}.log"));
        fs::write(file, instance.processor.log())?;
    }
    for node in 0..field.cluster.brokers() {
        if let Some(broker) = field.cluster.broker(node) {
            // A broker that never ran has no log.
            let _ = fs::copy(
                broker.log_file(),
                dir.join(format!("broker-{}.log", node + 1)),
            );
        }
    }
    if let Some(evidence) = evidence {
        for (name, records) in [
            ("events", &evidence.raw),
            ("content", &evidence.content_raw),
            ("enriched", &evidence.enriched),
            ("changelog", &evidence.changelog),
            ("pending", &evidence.pending),
            ("dlq", &evidence.dlq),
        ] {
            dump(&dir.join(format!("{name}.txt")), records)?;
        }
    }
    Ok(dir)
}

/// One line for each record: place, time, key, headers, and whether there is a value.
fn dump(file: &Path, records: &[Record]) -> Result<()> {
    let mut text = String::new();
    for record in records {
        let time = record.timestamp_ms.unwrap_or_default();
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        let size = record
            .value
            .as_ref()
            .map_or(-1, |value| value.len().cast_signed());
        let (partition, offset) = record.place();
        write!(text, "{partition}:{offset} {time} {key} {size}")?;
        for (name, value) in &record.headers {
            let value = String::from_utf8_lossy(value.as_deref().unwrap_or_default());
            write!(text, " {name}={value}")?;
        }
        text.push('\n');
    }
    Ok(fs::write(file, text)?)
}
