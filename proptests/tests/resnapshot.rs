//! The connector loses everything it remembers and takes a snapshot of the whole table again: nothing is published again, also
//! when every state directory is gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thmanyah::domain::Ledger;
use thmanyah_dev::{Broker, BrokerOptions, Connect, Postgres};
use thmanyah_proptests::deployment::{Deployment, await_until};

const PARTITIONS: i32 = 4;
const CONTENTS: u64 = 200;
const STOP_LIMIT: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_mins(5);

/// Events in the table; `THMANYAH_RESNAPSHOT_EVENTS` makes it larger or smaller.
fn events() -> Result<u64> {
    match std::env::var("THMANYAH_RESNAPSHOT_EVENTS") {
        Ok(events) => events.parse().context("THMANYAH_RESNAPSHOT_EVENTS"),
        Err(_) => Ok(100_000),
    }
}

/// Rows in plain SQL: their making is not what is tested.
fn insert(postgres: &Postgres, events: u64) -> Result<()> {
    postgres.query(&format!(
        "INSERT INTO content SELECT ('c0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'slug-' || n, 'title', \
         'podcast', 60 + n, now() FROM generate_series(1, {CONTENTS}) n; \
         INSERT INTO engagement_events (content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload) \
         SELECT ('c0000000-0000-4000-8000-' || lpad((1 + n % {CONTENTS})::text, 12, '0'))::uuid, gen_random_uuid(), 'play', \
         now() - n * interval '1 second', n % 100000, 'ios', '{{\"k\": 1}}' FROM generate_series(1, {events}) n"
    ))?;
    Ok(())
}

/// Waits for a sum of the ledgers, at a table of this size.
fn await_total(
    deployment: &Deployment<'_>,
    what: &str,
    wanted: impl Fn(&Ledger) -> bool,
) -> Result<()> {
    let mut last = Ledger::default();
    await_until(LIMIT, what, || {
        last = deployment.total()?;
        Ok(wanted(&last).then_some(()))
    })
    .with_context(|| format!("the ledger is {last:?}"))
}

#[test]
#[allow(clippy::print_stderr, reason = "libtest shows it when the test fails")]
fn a_snapshot_of_the_whole_table_taken_again_publishes_nothing_again() -> Result<()> {
    let events = events()?;
    let broker = Broker::start(BrokerOptions::default())?;
    let postgres = Postgres::start()?;
    insert(&postgres, events)?;
    let began = Instant::now();
    let mut connect = Connect::start(&broker, &postgres, PARTITIONS)?;
    let deployment = Deployment::with_prefix(&broker, "thmanyah", "", PARTITIONS)?;
    let mut processor = deployment.start("0")?;
    await_total(&deployment, "the table", |ledger| ledger.enriched == events)?;
    eprintln!("{events} events published after {:?}", began.elapsed());

    let mut duplicates = 0;
    let mut again = |what: &str| -> Result<()> {
        let began = Instant::now();
        connect.recreate(&postgres)?;
        duplicates += events;
        let (consumed, wanted) = (events + duplicates, duplicates);
        await_total(&deployment, what, |ledger| ledger.consumed == consumed)?;
        let ledger = deployment.total()?;
        ensure!(ledger.duplicate == wanted, "{what}: {ledger:?}");
        eprintln!("{what}: {ledger:?} after {:?}", began.elapsed());
        Ok(())
    };
    again("the second snapshot")?;
    ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0));
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;
    again("the third snapshot, after every state directory was deleted")?;
    processor.kill9();
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;

    // What comes after it is published as ever, and its place is where its id belongs.
    postgres
        .query("INSERT INTO engagement_events (event_type, event_ts) VALUES ('click', now())")?;
    await_total(&deployment, "a new event", |l| l.enriched == events + 1)?;
    let misplaced = processor.metric("thmanyah_misplaced_records_total", &[])?;
    ensure!(misplaced == Some(0.0), "{misplaced:?}");
    let mut published = BTreeSet::new();
    let mut records = 0;
    broker.read_topic(&deployment.topic("engagement-events.enriched"), |record| {
        records += 1;
        published.extend(rdkafka::Message::key(record).map(<[u8]>::to_vec));
    })?;
    ensure!(records == events + 1 && published.len() as u64 == records);
    connect.stop();
    Ok(())
}
