//! An event id is published at most once, ever: re-deliveries of the source, a snapshot taken again, and lost disks publish
//! nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use thmanyah_dev::{Broker, BrokerOptions};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::Deployment;
use thmanyah_proptests::feed::{content_id, play};
use thmanyah_proptests::oracle::EventRow;

const STOP_LIMIT: Duration = Duration::from_secs(20);
const EVENTS: u64 = 3_000;

/// Ids that are dense, sparse, negative, and at both ends.
fn rows(content: &str) -> Vec<EventRow> {
    let dense = 1..=2_000;
    let sparse = (1..=996).map(|n| n * 1_000_003);
    let edges = [-1, -70_000, i64::MIN, i64::MAX];
    dense
        .chain(sparse)
        .chain(edges)
        .map(|id| play(id, Some(content)))
        .collect()
}

#[test]
fn a_source_that_sends_everything_again_publishes_nothing_again() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    // Checkpoints come at the shortest interval, so that restores meet containers and a tail behind them.
    let deployment = Deployment::new(&broker, "again", 4)?;
    let options = || {
        let mut options = deployment.options("0");
        options
            .env
            .push(("THMANYAH_SEEN__INTERVAL".into(), "1s".into()));
        options
    };
    let content = content_id(1);
    let rows = rows(&content);
    let expected: BTreeMap<i64, EventRow> = rows.iter().map(|r| (r.id, r.clone())).collect();
    ensure!(expected.len() as u64 == EVENTS);

    let mut processor = deployment.start_with(options())?;
    deployment.send_content(&content, "podcast", Some(1200))?;
    deployment.send_events(&rows)?;
    deployment.await_total("the first delivery", |ledger| ledger.enriched == EVENTS)?;
    let mut duplicates = 0;
    let mut again = |what: &str| -> Result<()> {
        deployment.send_events(&rows)?;
        duplicates += EVENTS;
        let wanted = duplicates;
        deployment.await_total(what, |ledger| ledger.duplicate == wanted)?;
        Ok(())
    };

    // To the same process, to one that comes back with its disk, and to one that lost it: after a clean stop, whose
    // checkpoint covers everything, and after a kill, where the enriched topic has to be read behind the last one.
    again("the second delivery")?;
    processor.kill9();
    processor.restart()?;
    again("the delivery after a kill")?;
    processor.terminate(STOP_LIMIT)?;
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;
    let restored = processor.metric("thmanyah_restore_records_total", &[("table", "seen")])?;
    ensure!(
        restored.is_some_and(|records| records > 0.0 && records < 1_500.0),
        "a checkpoint spares the enriched topic: {restored:?}"
    );
    again("the delivery after a lost disk")?;
    let more: Vec<EventRow> = (10_000..10_200)
        .map(|id| play(id, Some(&content)))
        .collect();
    deployment.send_events(&more)?;
    deployment.await_total("new events", |ledger| ledger.enriched == EVENTS + 200)?;
    processor.kill9();
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;
    again("the delivery after a kill and a lost disk")?;
    deployment.send_events(&more)?;
    let wanted = 4 * EVENTS + 200;
    deployment.await_total("the new events again", |ledger| ledger.duplicate == wanted)?;

    let all = expected
        .into_iter()
        .chain(more.iter().map(|r| (r.id, r.clone())))
        .collect();
    let findings = check(&deployment, &all)?;
    let published = findings.status("joined") + findings.status("late");
    ensure!(published as u64 == EVENTS + 200, "{findings:?}");
    Ok(())
}
