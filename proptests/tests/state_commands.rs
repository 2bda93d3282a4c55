//! `thmanyah state` on what a real run left: inspect tells it, verify agrees with the log, and finds whatever was changed.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a report reads as null"
)]

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use thmanyah_dev::{Broker, BrokerOptions, target_dir};
use thmanyah_proptests::deployment::Deployment;
use thmanyah_proptests::feed::{content_id, play};
use thmanyah_proptests::oracle::EventRow;
use thmanyah_state::{Direction, Options, Store, Table, WriteSet};

const STOP_LIMIT: Duration = Duration::from_secs(20);
const EVENTS: i64 = 400;

fn state(deployment: &Deployment<'_>, command: &[&str], dir: &str) -> Result<Output> {
    Command::new(target_dir()?.join("thmanyah"))
        .arg("state")
        .args(command)
        .args(["--state-dir", dir])
        .args(["--bootstrap-servers", deployment.broker.bootstrap()])
        .env("THMANYAH_TOPICS__PREFIX", deployment.topic(""))
        .output()
        .context("run the binary")
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

/// The sum of a number over the partitions of a table.
fn sum(report: &Value, table: &str, name: &str) -> i64 {
    let partitions = report["tables"][table]["partitions"].as_object();
    let partitions = partitions.into_iter().flatten();
    partitions.filter_map(|(_, p)| p[name].as_i64()).sum()
}

/// The first key of a table behind a prefix.
fn first_key(store: &Store, table: Table, prefix: &[u8]) -> Result<Vec<u8>> {
    let snapshot = store.snapshot();
    let mut rows = snapshot.scan(table, prefix, &[0xff; 32], Direction::Forward)?;
    let (key, _) = rows.next()?.context("the table is empty")?;
    Ok(key.to_vec())
}

#[test]
fn what_a_run_left_is_told_agrees_with_the_log_and_every_change_is_found() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    let deployment = Deployment::new(&broker, "state", 3)?.args(&["--deadline", "1h"]);
    let mut processor = deployment.start("0")?;
    let (known, unknown) = (content_id(1), content_id(2));
    deployment.send_content(&known, "podcast", Some(1200))?;
    deployment.send_content(&content_id(3), "video", None)?;
    let rows: Vec<EventRow> = (1..=EVENTS)
        .map(|id| play(id, Some(if id % 10 == 0 { &unknown } else { &known })))
        .collect();
    deployment.send_events(&rows)?;
    deployment.await_total("events", |l| l.enriched == 360 && l.pending == 40)?;
    let dir = deployment.state_dir("0");
    let dir_text = dir.display().to_string();
    let refused = state(&deployment, &["verify"], &dir_text)?;
    let told = String::from_utf8_lossy(&refused.stderr);
    let pid = format!("pid {}", processor.pid());
    ensure!(
        refused.status.code() == Some(1) && told.contains(&pid),
        "{told}"
    );

    // After a kill the store may be behind the log, after a clean stop it is not; it agrees in both cases.
    processor.kill9();
    let verified = state(&deployment, &["verify", "--json"], &dir_text)?;
    ensure!(json(&verified)?["agrees"] == true, "{verified:?}");
    processor.restart()?;
    ensure!(processor.terminate(STOP_LIMIT)?.success());
    let report = json(&state(&deployment, &["inspect", "--json"], &dir_text)?)?;
    ensure!(report["tables"]["content"]["rows"] == 2, "{report}");
    ensure!(report["tables"]["pending"]["rows"] == 40, "{report}");
    ensure!(sum(&report, "seen", "ids") == 360, "{report}");
    ensure!(
        sum(&report, "seen", "marked") == 0,
        "the stop checkpointed: {report}"
    );
    let text = String::from_utf8(state(&deployment, &["inspect"], &dir_text)?.stdout)?;
    ensure!(text.contains("pending: 40 rows"), "{text}");
    let report = json(&state(&deployment, &["verify", "--json"], &dir_text)?)?;
    for (table, compared) in [("content", 2), ("pending", 40), ("seen", 360)] {
        let findings = &report["tables"][table];
        ensure!(
            findings["compared"] == compared && findings["changed_since"] == 0,
            "{report}"
        );
    }

    // A copy agrees, and lives on by itself.
    let copy = dir.with_extension("copy").display().to_string();
    ensure!(
        state(&deployment, &["checkpoint", &copy], &dir_text)?
            .status
            .success()
    );
    ensure!(state(&deployment, &["verify"], &copy)?.status.success());

    let store = Store::open(&dir, &Options::default())?;
    let mut writes = WriteSet::new();
    writes.delete(Table::Content, &first_key(&store, Table::Content, &[])?);
    writes.put(
        Table::Pending,
        &first_key(&store, Table::Pending, &[])?,
        b"x",
    );
    // A parked event of partition 1 that the log knows nothing of.
    writes.put(
        Table::Pending,
        &[0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 7],
        b"y",
    );
    store.apply(&mut writes)?;
    store.drop_partition(Table::Seen, &2i32.to_be_bytes(), -1)?;
    drop(store);
    let verified = state(&deployment, &["verify", "--json"], &dir_text)?;
    let report = json(&verified)?;
    ensure!(verified.status.code() == Some(1), "{verified:?}");
    ensure!(report["agrees"] == false, "{report}");
    ensure!(report["tables"]["content"]["differences"] == 1, "{report}");
    ensure!(report["tables"]["pending"]["differences"] == 2, "{report}");
    ensure!(
        report["tables"]["pending"]["told"][1]["key"] == "7"
            || report["tables"]["pending"]["told"][0]["key"] == "7",
        "{report}"
    );
    ensure!(
        state(&deployment, &["verify"], &copy)?.status.success(),
        "the copy is untouched"
    );
    Ok(())
}
