//! PostgreSQL → Debezium → Kafka → `thmanyah run`, which is killed again and again: every event comes out exactly once.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use thmanyah_dev::{Broker, BrokerOptions, Connect, Postgres};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::feed::{HOSTILE, POISON};
use thmanyah_proptests::pages::{all_items, await_events};
use thmanyah_proptests::rows::event_rows;
use thmanyah_tools::{Plan, WINDOW_EVENTS, Writer};

const PARTITIONS: i32 = 4;
const EVENTS: u64 = 5_000;
const CONTENTS: u32 = 400;
const KILLS: u64 = 20;
/// Short, so that some events are given up on while the process is killed.
const DEADLINE: &str = "3s";
/// Between two of the generator's transactions.
const PACE: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_mins(1);

/// The random choices of a run; `THMANYAH_SEED` replays them.
#[allow(clippy::print_stderr, reason = "libtest shows it when the test fails")]
fn seed() -> Result<u64> {
    let seed = match std::env::var("THMANYAH_SEED") {
        Ok(seed) => seed.parse().context("THMANYAH_SEED")?,
        Err(_) => u64::from(rand::random::<u32>()),
    };
    eprintln!("THMANYAH_SEED={seed}");
    Ok(seed)
}

/// Writes rows from a thread of its own, up to the numbers that it is told.
struct Rows {
    targets: Sender<u64>,
    thread: JoinHandle<Result<()>>,
}

impl Rows {
    fn start(url: String, seed: u64) -> Self {
        let (targets, wanted) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(write(&url, seed, &wanted))
        });
        Self { targets, thread }
    }

    fn up_to(&self, events: u64) -> Result<()> {
        self.targets
            .send(events)
            .map_err(|_| anyhow!("the writer of rows has failed"))
    }

    fn finish(self) -> Result<()> {
        drop(self.targets);
        self.thread
            .join()
            .map_err(|_| anyhow!("the writer of rows panicked"))?
    }
}

async fn write(url: &str, seed: u64, wanted: &Receiver<u64>) -> Result<()> {
    let plan = Plan::new(seed, CONTENTS, 0.02);
    let mut writer = Writer::connect(url, seed, plan).await?;
    while writer.write_contents_at_start().await? {}
    for target in wanted {
        while writer.progress().events < target {
            let end = (writer.progress().events + WINDOW_EVENTS).min(target);
            writer.write_events(end).await?;
            tokio::time::sleep(PACE).await;
        }
    }
    while writer.write_contents_left().await? {}
    Ok(())
}

/// Puts a record that no Debezium writes into each of the input topics.
fn poison(deployment: &Deployment<'_>, random: &mut ChaCha8Rng) -> Result<()> {
    for topic in ["engagement-events.raw", "content.raw"] {
        let (reason, value) = POISON.choose(random).context("no poison")?;
        let value = Some(value.as_bytes());
        let partition = Some(random.random_range(0..PARTITIONS));
        let headers = [(HOSTILE, reason.as_bytes())];
        let key = random.random_bool(0.5).then_some(&b"\xff\x00"[..]);
        deployment
            .feed()
            .send(&deployment.topic(topic), partition, key, value, &headers)?;
    }
    deployment.feed().flush()
}

/// Lets the process run up to a random moment: of its start, of its restore, or of its work.
fn until_a_random_moment(
    processor: &mut Logged,
    deployment: &Deployment<'_>,
    random: &mut ChaCha8Rng,
) -> Result<&'static str> {
    // Bounded delays put the kill at a random place; nothing is awaited by them.
    match random.random_range(0..4) {
        0 => {
            std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
            Ok("after a while")
        }
        1 => {
            processor.await_ready(LIMIT)?;
            std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
            Ok("after it was ready")
        }
        _ => {
            let enough = deployment.total()?.enriched + random.random_range(1..150);
            await_until(LIMIT, "newly enriched events", || {
                ensure!(processor.ended().is_none(), "the process ended by itself");
                Ok((deployment.total()?.enriched >= enough).then_some(()))
            })?;
            Ok("at work")
        }
    }
}

/// What the HTTP API says about everything.
fn answers(processor: &Logged) -> Result<(Vec<Value>, Vec<Value>)> {
    let events = await_events(processor, EVENTS as usize)?;
    let content = all_items(processor, "/v1/content", "limit=1000")?;
    Ok((events, content))
}

/// Records replayed into a table by the present process.
fn restored(processor: &Logged, table: &str) -> Result<u64> {
    let name = "thmanyah_restore_records_total";
    let count = processor.metric(name, &[("table", table)])?;
    Ok(count.context("no such metric")? as u64)
}

#[test]
#[allow(clippy::print_stderr, reason = "libtest shows it when the test fails")]
fn every_event_comes_out_once_whenever_the_process_is_killed_and_whatever_it_loses() -> Result<()> {
    let seed = seed()?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let broker = Broker::start(BrokerOptions::default())?;
    let postgres = Postgres::start()?;
    let connect = Connect::start(&broker, &postgres, PARTITIONS)?;
    let deployment = Deployment::with_prefix(&broker, "thmanyah", "", PARTITIONS)?
        .args(&["--deadline", DEADLINE]);
    let rows = Rows::start(postgres.url(), seed);
    let mut processor = Logged::spawn(deployment.options("0"))?;

    // Its disk is lost at two of the kills, at some distance.
    let lost = [random.random_range(2..10), random.random_range(11..KILLS)];
    for kill in 0..KILLS {
        rows.up_to(EVENTS * (kill + 1) / KILLS)?;
        poison(&deployment, &mut random)?;
        let when = until_a_random_moment(&mut processor, &deployment, &mut random)?;
        // Nobody asks for offsets here: those of a transaction that was being committed are not stable before a successor
        // has ended it.
        processor.kill9();
        eprintln!("kill {kill} {when}; disk lost: {}", lost.contains(&kill));
        if lost.contains(&kill) {
            let state = deployment.state_dir("0");
            if state.exists() {
                std::fs::remove_dir_all(state)?;
            }
        }
        processor.respawn()?;
    }
    rows.finish()?;
    processor.await_ready(LIMIT)?;
    let records = EVENTS + KILLS;
    let what = "all records to be consumed and no event to be parked";
    deployment.await_total(what, |ledger| {
        ledger.consumed == records && ledger.pending == 0
    })?;

    let findings = check(&deployment, &event_rows(&postgres)?)?;
    eprintln!("{findings:?}");
    ensure!(findings.by_status.values().sum::<usize>() == EVENTS as usize);
    ensure!(findings.dead_events == KILLS as usize && findings.dead_content == KILLS as usize);
    for status in ["joined", "none", "late", "timeout"] {
        ensure!(
            findings.status(status) > 0,
            "no event is {status}: the run shows too little"
        );
    }

    let before = answers(&processor)?;
    let changelogs = [
        (
            "content",
            deployment.read("content.changelog")?.len() as u64,
        ),
        (
            "pending",
            deployment.read("engagement-events.pending")?.len() as u64,
        ),
    ];
    for in_good_order in [true, false] {
        if in_good_order {
            ensure!(processor.terminate(Duration::from_secs(20))?.code() == Some(0));
        } else {
            processor.kill9();
        }
        processor.restart()?;
        for (table, records) in changelogs {
            let replayed = restored(&processor, table)?;
            eprintln!("{table}: {replayed} of {records} records replayed");
            ensure!(
                records > 100 && replayed * 20 < records,
                "{table}: {replayed} of {records}"
            );
        }
        ensure!(
            answers(&processor)? == before,
            "the API answers otherwise after a restart"
        );
    }
    drop(processor);
    connect.stop();
    Ok(())
}
