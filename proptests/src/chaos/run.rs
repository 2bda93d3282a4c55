//! The run: start, rounds of faults under load, the end, the verdict.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use thmanyah_dev::SmallDisk;

use super::exits::Occasion;
use super::field::{Field, INSTANCES};
use super::journal::Journal;
use super::kept_logs::keep;
use super::kind::Kind;
use super::load;
use super::report::Report;
use super::rounds::inflict;
use super::schedule::Schedule;
use super::verdict::{ENRICHER, EVENTS, judge, read, settle};
use super::watch::Watch;
use crate::feed::Feed;

/// Longer than this no round may take until every partition moves again.
const RECOVERY_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Faults at least.
    pub faults: usize,
    /// Chooses them.
    pub seed: u64,
    /// What may happen.
    pub kinds: Vec<Kind>,
    /// Events a second.
    pub rate: u32,
}

/// Runs a plan. `tell` gets a line for everything that happens.
pub fn run(plan: &Plan, tell: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    let mut kinds = plan.kinds.clone();
    if kinds.contains(&Kind::DiskFull)
        && let Err(error) = SmallDisk::mount(1 << 20)
    {
        kinds.retain(|kind| *kind != Kind::DiskFull);
        let why = format!("a disk of a fixed size cannot be mounted: {error}");
        report.left_out.push((Kind::DiskFull, why));
    }
    let mut field = Field::new(Journal::new(tell))?;
    let feed = load::feed(field.cluster.client())?;
    load::send_base(&feed)?;
    field.start_instances(kinds.contains(&Kind::DiskFull))?;
    let mut evidence = None;
    let outcome = fight(&field, &feed, plan, &kinds, &mut report).and_then(|last_id| {
        let read = read(&field.cluster)?;
        report.inputs = (read.raw.len(), read.content_raw.len());
        field.journal.note("everything is read back");
        judge(evidence.insert(read), last_id)
    });
    report.took = field.journal.elapsed();
    report.exits = field.exits.counts();
    report.verdict = Some(outcome.map_err(|error| format!("{error:#}")));
    if !report.is_success() {
        let logs = keep(&field, plan.seed, &report.to_string(), evidence.as_ref())?;
        report.logs = Some(logs);
    }
    Ok(report)
}

/// Everything from the first event to the last, and the end of the instances. Gives the last id.
fn fight(
    field: &Field<'_>,
    feed: &Feed,
    plan: &Plan,
    kinds: &[Kind],
    report: &mut Report,
) -> Result<i64> {
    let watch = Watch::default();
    let enough = AtomicBool::new(false);
    scope(|threads| {
        let loading = threads.spawn(|| load::run(feed, plan.rate, &enough));
        let client = field.cluster.client();
        let watching = threads.spawn(|| watch.run(client, ENRICHER, EVENTS, &field.over));
        let supervising = threads.spawn(|| field.supervise());
        let outcome = attack(field, &watch, plan, kinds, report);
        enough.store(true, Ordering::Relaxed);
        let last_id = joined(loading, "the load");
        let outcome = outcome.and(last_id).and_then(|last_id| {
            field.journal.note("the load has ended");
            settle(&field.cluster)?;
            field.journal.note("everything is processed");
            Ok(last_id)
        });
        field.over.store(true, Ordering::Relaxed);
        let ended = joined(supervising, "the supervisor").and(joined(watching, "the watch"));
        let stopped = stop(field);
        outcome.and_then(|last_id| ended.and(stopped).map(|()| last_id))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>, who: &str) -> Result<T> {
    let outcome = thread.join();
    outcome
        .unwrap_or_else(|_| Err(anyhow!("panicked")))
        .with_context(|| who.to_owned())
}

/// Rounds of faults until there were enough.
fn attack(
    field: &Field<'_>,
    watch: &Watch,
    plan: &Plan,
    kinds: &[Kind],
    report: &mut Report,
) -> Result<()> {
    let mut schedule = Schedule::new(plan.seed, kinds, INSTANCES);
    await_moved(field, watch)?;
    while report.total() < plan.faults {
        let round = schedule.next_round(plan.faults - report.total());
        let (done, not_done) = inflict(field, &round)?;
        for kind in not_done {
            schedule.put_back(kind);
        }
        for kind in &done {
            *report.faults.entry(*kind).or_default() += 1;
        }
        if round.awaited {
            let took = await_moved(field, watch)?;
            report.recoveries.push((done, took));
        }
    }
    await_moved(field, watch).map(|_| ())
}

/// Waits until every partition has moved since now.
fn await_moved(field: &Field<'_>, watch: &Watch) -> Result<Duration> {
    match watch.await_moved(RECOVERY_LIMIT) {
        Ok(took) => {
            field
                .journal
                .note(format!("everything moves after {took:.2?}"));
            Ok(took)
        }
        Err(stuck) => {
            for number in 0..INSTANCES {
                let answer = field.instance(number)?.processor.get("/readyz");
                field
                    .journal
                    .note(format!("instance {number} says {answer:?}"));
            }
            bail!("partitions {stuck:?} have not moved for {RECOVERY_LIMIT:?}")
        }
    }
}

/// Ends the instances in good order.
fn stop(field: &Field<'_>) -> Result<()> {
    for number in 0..INSTANCES {
        let mut instance = field.instance(number)?;
        let status = instance.processor.terminate(STOP_LIMIT)?;
        let told = field.exits.note(Occasion::Asked, status, &instance.log());
        if !status.success() {
            bail!("instance {number} ended with {told} though nothing was wrong any more");
        }
    }
    Ok(())
}
