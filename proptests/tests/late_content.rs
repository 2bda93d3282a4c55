//! Events whose content is not there yet wait for it, leave in order, once, and are given up on only when the content log
//! proves that it is absent.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thmanyah_dev::{Broker, BrokerOptions, Processor};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::feed::{content_id, play};
use thmanyah_proptests::oracle::EventRow;

const LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker"));

/// Events with these ids, which play the content.
fn plays(ids: std::ops::Range<i64>, content: Option<&str>) -> Vec<EventRow> {
    ids.map(|id| play(id, content)).collect()
}

fn by_id<'e>(rows: impl IntoIterator<Item = &'e EventRow>) -> BTreeMap<i64, EventRow> {
    rows.into_iter().map(|row| (row.id, row.clone())).collect()
}

fn outcome(processor: &Processor, outcome: &str) -> Result<u64> {
    let count = processor.metric("thmanyah_events_total", &[("outcome", outcome)])?;
    Ok(count.context("no such metric")? as u64)
}

/// Waits until the instance has applied a content row.
fn await_content(processor: &Processor, id: &str) -> Result<()> {
    await_until(LIMIT, "the content row", || {
        Ok((processor.get(&format!("/v1/content/{id}"))?.status == 200).then_some(()))
    })
}

/// Waits until W has passed this moment: what is absent then was not in the content topic before.
fn await_watermark_now(processor: &Processor) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    await_until(LIMIT, "the content watermark", || {
        let w = processor.metric("thmanyah_content_watermark_seconds", &[])?;
        Ok(w.filter(|w| *w > now.as_secs_f64()).map(|_| ()))
    })
}

#[test]
fn events_before_their_content_are_parked_and_leave_in_order_once() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "late", 2)?;
    let processor = deployment.start("0")?;
    let (known, unknown) = (content_id(1), content_id(2));
    deployment.send_content(&known, "podcast", Some(1200))?;
    await_content(&processor, &known)?;

    let early = plays(1..61, Some(&unknown));
    deployment.send_events(&early)?;
    deployment.await_total("parked events", |ledger| ledger.pending == 60)?;
    // What is parked holds up nothing else.
    let others = [plays(61..91, Some(&known)), plays(91..96, None)].concat();
    deployment.send_events(&others)?;
    deployment.await_total("the others", |ledger| ledger.enriched == 35)?;
    ensure!(deployment.total()?.pending == 60);

    deployment.send_content(&unknown, "video", Some(60))?;
    deployment.await_total("released events", |ledger| ledger.pending == 0)?;
    let after = plays(96..101, Some(&unknown));
    deployment.send_events(&after)?;
    deployment.await_total("the last events", |ledger| ledger.enriched == 100)?;

    let findings = check(
        &deployment,
        &by_id(early.iter().chain(&others).chain(&after)),
    )?;
    ensure!(findings.status("late") == 60, "{findings:?}");
    ensure!(
        findings.status("joined") == 35 && findings.status("none") == 5,
        "{findings:?}"
    );
    ensure!(outcome(&processor, "parked")? == 60);
    ensure!(outcome(&processor, "released")? == 60);
    ensure!(outcome(&processor, "timed_out")? == 0);
    Ok(())
}

#[test]
fn a_deleted_content_counts_as_unknown_until_it_is_back() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "deleted", 2)?;
    let processor = deployment.start("0")?;
    let content = content_id(1);
    deployment.send_content(&content, "podcast", Some(1200))?;
    await_content(&processor, &content)?;
    let before = plays(1..11, Some(&content));
    deployment.send_events(&before)?;
    deployment.await_total("joined events", |ledger| ledger.enriched == 10)?;

    let topic = deployment.topic("content.raw");
    let key = thmanyah_proptests::feed::content_key(&content);
    deployment
        .feed()
        .send(&topic, None, Some(&key), None, &[])?;
    deployment.feed().flush()?;
    await_until(LIMIT, "the delete", || {
        let answer = processor.get(&format!("/v1/content/{content}"))?;
        Ok((answer.status == 404).then_some(()))
    })?;
    let during = plays(11..21, Some(&content));
    deployment.send_events(&during)?;
    deployment.await_total("parked events", |ledger| ledger.pending == 10)?;

    deployment.send_content(&content, "podcast", Some(600))?;
    deployment.await_total("released events", |ledger| ledger.enriched == 20)?;
    let findings = check(&deployment, &by_id(before.iter().chain(&during)))?;
    ensure!(
        findings.status("joined") == 10 && findings.status("late") == 10,
        "{findings:?}"
    );
    Ok(())
}

#[test]
fn content_that_never_arrives_is_given_up_on_once() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "never", 2)?.args(&["--deadline", "2s"]);
    let mut processor = deployment.start("0")?;
    let missing = content_id(1);
    let first = plays(1..31, Some(&missing));
    deployment.send_events(&first)?;
    // No further input comes: the time-out is driven by the clock.
    deployment.await_total("given up events", |ledger| ledger.enriched == 30)?;
    ensure!(outcome(&processor, "timed_out")? == 30);

    // It comes after all: what was given up on stays so, also after a restart.
    deployment.send_content(&missing, "newsletter", None)?;
    await_content(&processor, &missing)?;
    processor.kill9();
    processor.restart()?;
    let second = plays(31..41, Some(&missing));
    deployment.send_events(&second)?;
    deployment.await_total("the last events", |ledger| ledger.enriched == 40)?;
    let findings = check(&deployment, &by_id(first.iter().chain(&second)))?;
    ensure!(
        findings.status("timeout") == 30 && findings.status("joined") == 10,
        "{findings:?}"
    );
    Ok(())
}

/// How the materializer's process ends.
#[derive(Clone, Copy)]
enum End {
    Terminated,
    Killed,
}

/// Stops the materializer for longer than the deadline while content and its events come in.
fn a_stopped_materializer(app: &str, end: End) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let deployment = Deployment::new(&BROKER, app, 2)?.args(&["--deadline", "2s"]);
    let mut materializer =
        Logged::spawn(deployment.options("m").args(["--roles", "materializer"]))?;
    let enricher =
        deployment.start_with(deployment.options("e").args(["--roles", "enricher,api"]))?;
    materializer.await_ready(LIMIT)?;
    // Both work, the watermark moves, and each partition has its first boot, which waits for content, behind it.
    await_watermark_now(&enricher)?;
    let first = plays(101..141, None);
    deployment.send_events(&first)?;
    deployment.await_total("the first events", |ledger| ledger.enriched == 40)?;
    ensure!(
        deployment.ledgers()?.len() == 2,
        "a partition has no commit yet"
    );
    match end {
        End::Terminated => ensure!(materializer.terminate(STOP_LIMIT)?.code() == Some(0)),
        End::Killed => drop(materializer.kill9()),
    }

    let content = content_id(1);
    deployment.send_content(&content, "podcast", Some(100))?;
    let rows = plays(1..41, Some(&content));
    deployment.send_events(&rows)?;
    deployment.await_total("parked events", |ledger| ledger.pending == 40)?;
    // Nothing may happen, so there is nothing to await but the clock: well past the deadline.
    let parked = Instant::now();
    await_until(LIMIT, "twice the deadline", || {
        let ledger = deployment.total()?;
        ensure!(
            ledger.pending == 40,
            "{ledger:?}: given up on while the materializer is away"
        );
        Ok((parked.elapsed() > 2 * DEADLINE).then_some(()))
    })?;
    ensure!(outcome(&enricher, "timed_out")? == 0);

    materializer.respawn()?;
    deployment.await_total("released events", |ledger| ledger.enriched == 80)?;
    // The deadline works again, now that the materializer does.
    let missing = plays(41..51, Some(&content_id(2)));
    deployment.send_events(&missing)?;
    deployment.await_total("given up events", |ledger| ledger.enriched == 90)?;
    let all = rows.iter().chain(&missing).chain(&first);
    let findings = check(&deployment, &by_id(all))?;
    ensure!(
        findings.status("late") == 40 && findings.status("timeout") == 10,
        "{findings:?}"
    );
    Ok(())
}

#[test]
fn a_materializer_that_is_stopped_for_longer_than_the_deadline_causes_no_false_time_out()
-> Result<()> {
    a_stopped_materializer("stopped", End::Terminated)
}

#[test]
fn a_materializer_that_is_killed_for_longer_than_the_deadline_causes_no_false_time_out()
-> Result<()> {
    a_stopped_materializer("killed", End::Killed)
}

#[test]
fn parked_events_survive_a_kill_and_the_loss_of_the_disk() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "parked", 2)?;
    let mut processor = deployment.start("0")?;
    let content = content_id(1);
    let mut rows = Vec::new();
    for (round, lose_disk) in [false, true, true].into_iter().enumerate() {
        let first = 1 + 100 * round as i64;
        let more = plays(first..first + 100, Some(&content));
        deployment.send_events(&more)?;
        rows.extend(more);
        let parked = rows.len() as u64;
        deployment.await_total("parked events", |ledger| ledger.pending == parked)?;
        processor.kill9();
        if lose_disk {
            std::fs::remove_dir_all(deployment.state_dir("0"))?;
        }
        processor.restart()?;
    }
    deployment.send_content(&content, "video", Some(1))?;
    deployment.await_total("released events", |ledger| ledger.enriched == 300)?;
    let findings = check(&deployment, &by_id(&rows))?;
    ensure!(findings.status("late") == 300, "{findings:?}");
    Ok(())
}

#[test]
fn a_crowd_of_parked_events_leaves_in_chunks() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "crowd", 1)?;
    let mut options = deployment.options("0");
    options
        .env
        .push(("THMANYAH_ENRICHER__COMMIT_RECORDS".into(), "50".into()));
    let processor = deployment.start_with(options)?;
    let content = content_id(1);
    let rows = plays(1..2001, Some(&content));
    deployment.send_events(&rows)?;
    deployment.await_total("parked events", |ledger| ledger.pending == 2000)?;
    deployment.send_content(&content, "video", Some(1))?;
    // These arrive while the crowd leaves, and queue behind it or are joined after it.
    let more = plays(2001..2501, Some(&content));
    deployment.send_events(&more)?;
    deployment.await_total("all events", |ledger| ledger.enriched == 2500)?;
    check(&deployment, &by_id(rows.iter().chain(&more)))?;
    let commits = processor.metric("thmanyah_commit_seconds_count", &[])?;
    ensure!(commits >= Some(40.0 + 40.0), "{commits:?} transactions");
    Ok(())
}
