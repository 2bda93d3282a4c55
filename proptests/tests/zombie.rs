//! An instance that is stopped for longer than its session, while a successor takes its name or another its partitions, and
//! that then wakes up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use thmanyah::kafka::{Isolation, OffsetReader, Offsets};
use thmanyah_dev::{Broker, BrokerOptions, Processor, ProcessorOptions};
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::play;
use thmanyah_proptests::flow::{Flow, Group, now_ms};
use thmanyah_proptests::sizes::is_full;

const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_mins(1);

/// How long the instance is stopped beyond what ends its session.
fn stopped_for() -> Duration {
    if is_full() {
        Duration::from_mins(1)
    } else {
        Duration::from_secs(1)
    }
}

fn options(deployment: &Deployment<'_>, instance: &str) -> ProcessorOptions {
    let mut options = deployment.options(instance);
    options.env.extend([
        ("THMANYAH_ENRICHER__WORKERS".into(), "1".into()),
        ("THMANYAH_KAFKA__SESSION_TIMEOUT".into(), "3s".into()),
        ("THMANYAH_KAFKA__HEARTBEAT".into(), "500ms".into()),
    ]);
    options
}

fn broker() -> Result<Broker> {
    let short = BrokerOptions::default().with("group.min.session.timeout.ms", "1000");
    Ok(Broker::start(short)?)
}

/// Its transactions so far. A stopped one answers nothing.
fn committed(processor: &Processor) -> Result<f64> {
    let labels = [("outcome", "committed")];
    let count = processor.metric("thmanyah_transactions_total", &labels)?;
    count.context("no such metric")
}

/// Deletes the input up to the committed positions.
fn delete_what_is_processed(deployment: &Deployment<'_>) -> Result<()> {
    let (client, raw) = (
        deployment.broker.client(),
        deployment.topic("engagement-events.raw"),
    );
    let reader = OffsetReader::new(&client, &deployment.group(), Isolation::Committed)?;
    let mut processed = TopicPartitionList::new();
    for (partition, committed) in reader.committed(&raw, 0..PARTITIONS)? {
        let offset = committed.offset.context("nothing was committed")?;
        processed.add_partition_offset(&raw, partition, Offset::Offset(offset))?;
    }
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let deleted = runtime.block_on(admin.delete_records(&processed, &AdminOptions::new()))?;
    for partition in deleted.elements() {
        partition.error()?;
    }
    Ok(())
}

#[test]
fn a_zombie_with_a_successor_writes_nothing_and_tells_who_has_its_name() -> Result<()> {
    let broker = broker()?;
    let deployment = Deployment::new(&broker, "undead", PARTITIONS)?;
    let mut zombie = deployment.start_with(options(&deployment, "z"))?;
    let group = Group::of(&deployment)?;
    let mut successor = options(&deployment, "z");
    successor.state_dir = deployment.state_dir("z-2");
    let mut taken_over = None;
    Flow::new(&deployment).during(|flow| {
        zombie.pause();
        let stopped_ms = now_ms();
        // No reply to its heartbeats is waited for: the successor takes the name while the old member is still listed, or
        // after its session.
        taken_over = Some(deployment.start_with(successor)?);
        flow.await_motion(stopped_ms)?;
        // Stopped for as long as the promise says, however soon the successor works.
        std::thread::sleep(stopped_for() + Duration::from_secs(3));
        zombie.resume();
        let status = zombie.wait(LIMIT)?;
        ensure!(status.code() == Some(3), "{status}");
        let log = zombie.log();
        let last = log.lines().last().unwrap_or_default();
        ensure!(
            last.contains("undead-") && last.contains("127.0.0.1"),
            "{last}"
        );
        group.await_owners()?;
        flow.await_motion(now_ms())
    })
}

#[test]
fn a_zombie_without_a_successor_rejoins_and_goes_on() -> Result<()> {
    let broker = broker()?;
    let deployment = Deployment::new(&broker, "asleep", PARTITIONS)?;
    let mut sleeper = deployment.start_with(options(&deployment, "s"))?;
    let _other = deployment.start_with(options(&deployment, "t"))?;
    let group = Group::of(&deployment)?;
    group.await_owners()?;
    Flow::new(&deployment).during(|flow| {
        let before = committed(&sleeper)?;
        sleeper.pause();
        group.await_member("asleep-s-0", false)?;
        flow.await_motion(now_ms())?;
        std::thread::sleep(stopped_for());
        sleeper.resume();
        group.await_member("asleep-s-0", true)?;
        group.await_owners()?;
        await_until(LIMIT, "the sleeper's own transactions", || {
            ensure!(sleeper.ended().is_none(), "it ended: {:?}", sleeper.ended());
            // One that was open, and the first of the new membership, and more.
            Ok((committed(&sleeper)? > before + 3.0).then_some(()))
        })?;
        flow.await_motion(now_ms())
    })
}

/// Retention follows what was committed: where the sleeper would read on there is nothing any more, and nothing is lost.
#[test]
fn a_zombie_whose_input_was_processed_and_deleted_meanwhile_goes_on() -> Result<()> {
    let broker = broker()?;
    let deployment = Deployment::new(&broker, "passed", PARTITIONS)?;
    let mut sleeper = deployment.start_with(options(&deployment, "s"))?;
    let group = Group::of(&deployment)?;
    group.await_owners()?;
    let send = |ids: std::ops::RangeInclusive<i64>| {
        let rows: Vec<_> = ids.map(|id| play(id, None)).collect();
        deployment.send_events(&rows)
    };
    send(1..=200)?;
    deployment.await_total("what was sent first", |ledger| ledger.enriched == 200)?;
    sleeper.pause();
    group.await_member("passed-s-0", false)?;
    let _other = deployment.start_with(options(&deployment, "t"))?;
    send(201..=400)?;
    deployment.await_total("what was sent meanwhile", |ledger| ledger.enriched == 400)?;
    delete_what_is_processed(&deployment)?;
    sleeper.resume();
    group.await_member("passed-s-0", true)?;
    group.await_owners()?;
    send(401..=600)?;
    deployment.await_total("what was sent after it", |ledger| ledger.enriched == 600)?;
    let before = committed(&sleeper)?;
    send(601..=800)?;
    await_until(LIMIT, "the sleeper's own transactions", || {
        ensure!(sleeper.ended().is_none(), "it ended: {:?}", sleeper.ended());
        Ok((committed(&sleeper)? > before).then_some(()))
    })?;
    deployment.await_total("everything", |ledger| ledger.enriched == 800)?;
    Ok(())
}
