//! Partitions that move between processes while events flow: nothing is lost, doubled or overtaken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use thmanyah_dev::{Broker, BrokerOptions, ProcessorOptions};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::{content_id, event_key, event_value, play};
use thmanyah_proptests::oracle::EventRow;

const PARTITIONS: i32 = 6;
const CONTENTS: u32 = 40;
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Events sent at a time, and the pause after them.
const BATCH: i64 = 5;
const PACE: Duration = Duration::from_millis(3);
/// How often a second process comes and goes.
const ROUNDS: usize = 3;

/// The event with this id; every seventh is about a content that comes last.
fn row(id: i64) -> EventRow {
    let content = if id % 7 == 0 {
        CONTENTS
    } else {
        (id % i64::from(CONTENTS)) as u32
    };
    play(id, Some(&content_id(content)))
}

/// With transactions so short that most rebalances meet one that is due when they have aborted it.
fn hasty(deployment: &Deployment<'_>, instance: &str) -> ProcessorOptions {
    let mut options = deployment.options(instance);
    let interval = ("THMANYAH_ENRICHER__COMMIT_INTERVAL".into(), "5ms".into());
    options.env.push(interval);
    options
}

/// Sends a steady trickle of events until told to stop, and says how many there are.
fn send_until(deployment: &Deployment<'_>, done: &AtomicBool) -> Result<i64> {
    let topic = deployment.topic("engagement-events.raw");
    let mut next = 1;
    while !done.load(Ordering::Relaxed) {
        for id in next..next + BATCH {
            let (key, value) = (event_key(id), event_value(&row(id)));
            deployment
                .feed()
                .send(&topic, None, Some(&key), Some(&value), &[])?;
        }
        next += BATCH;
        std::thread::sleep(PACE);
    }
    deployment.feed().flush()?;
    Ok(next - 1)
}

#[test]
fn partitions_that_move_between_processes_lose_and_double_nothing() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    let deployment = Deployment::new(&broker, "moving", PARTITIONS)?;
    let first = deployment.start_with(hasty(&deployment, "a"))?;
    for number in 0..CONTENTS {
        deployment.send_content(&content_id(number), "podcast", Some(600))?;
    }
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&deployment, &done));
        let moved = (|| {
            for _ in 0..ROUNDS {
                let mut second = deployment.start_with(hasty(&deployment, "b"))?;
                // It has partitions of its own, and works on them.
                await_until(STOP_LIMIT, "events at the second process", || {
                    let consumed = second.metric("thmanyah_records_consumed_total", &[])?;
                    Ok(consumed.filter(|count| *count > 0.0).map(|_| ()))
                })?;
                ensure!(second.terminate(STOP_LIMIT)?.code() == Some(0));
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        let count = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        moved.and(count)
    })?;
    // The partitions of the second process come back when its session has ended.
    deployment.send_content(&content_id(CONTENTS), "video", Some(60))?;
    deployment.await_total("all events", |l| l.enriched == count as u64)?;
    let rows: BTreeMap<i64, EventRow> = (1..=count).map(|id| (id, row(id))).collect();
    let findings = check(&deployment, &rows)?;
    ensure!(
        findings.status("late") > 0 && findings.status("joined") > 0,
        "{findings:?}"
    );
    drop(first);
    Ok(())
}
