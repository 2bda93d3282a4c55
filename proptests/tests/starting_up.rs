//! How the process starts and stops: what is wrong is told in one message with the right exit code, and SIGTERM loses nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use thmanyah_dev::{Broker, BrokerOptions, ProcessorOptions, ScratchDir, free_port};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::feed::play;
use thmanyah_proptests::oracle::EventRow;

/// The contract: a start that fails does so within this time.
const SESSIONS: Duration = Duration::from_secs(45);
const FAIL_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_mins(1);

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker"));

fn plays(ids: std::ops::Range<i64>) -> Vec<EventRow> {
    ids.map(|id| play(id, None)).collect()
}

fn by_id(rows: &[EventRow]) -> BTreeMap<i64, EventRow> {
    rows.iter().map(|row| (row.id, row.clone())).collect()
}

/// Starts a process that must end by itself with that exit code and one message that holds each part.
fn assert_fails(options: ProcessorOptions, code: i32, parts: &[&str]) -> Result<()> {
    assert_fails_within(FAIL_LIMIT, options, code, parts)
}

fn assert_fails_within(
    limit: Duration,
    options: ProcessorOptions,
    code: i32,
    parts: &[&str],
) -> Result<()> {
    let mut processor = Logged::spawn(options)?;
    let status = processor.wait(limit)?;
    let log = processor.log();
    ensure!(status.code() == Some(code), "exit code {status}: {log}");
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    ensure!(errors.len() == 1, "{} messages: {log}", errors.len());
    for part in parts {
        ensure!(
            errors.iter().all(|error| error.contains(part)),
            "without {part:?}: {log}"
        );
    }
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[test]
fn a_wrong_broker_address_is_one_message_and_exit_code_1() -> Result<()> {
    let state = ScratchDir::new("state")?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let options = ProcessorOptions::new(&address, "0", state.path());
    assert_fails(
        options,
        1,
        &["cannot reach Kafka", &address, "kafka.bootstrap_servers"],
    )
}

#[test]
fn a_missing_input_topic_is_one_message_and_exit_code_2() -> Result<()> {
    let deployment = Deployment::with_prefix(&BROKER, "missing", "missing.", 1)?;
    let topics = ["missing.engagement-events.raw", "missing.content.raw"];
    assert_fails(deployment.options("0"), 2, &topics)
}

#[test]
fn bad_toml_and_an_unknown_key_are_one_message_and_exit_code_2() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "toml", 1)?;
    let dir = ScratchDir::new("toml")?;
    let file = dir.path().join("thmanyah.toml");
    for (text, parts) in [
        ("[enricher\n", &["thmanyah.toml:1", "not valid TOML"][..]),
        (
            "[enricher]\ndedline = '1s'\n",
            &["`enricher.dedline`", "`enricher.deadline`"],
        ),
    ] {
        std::fs::write(&file, text)?;
        let options = deployment
            .options("0")
            .args(["--config", &file.display().to_string()]);
        assert_fails(options, 2, parts)?;
    }
    Ok(())
}

#[test]
fn a_state_directory_in_use_is_one_message_and_exit_code_1() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "locked", 1)?;
    let processor = deployment.start("0")?;
    let mut second = deployment.options("1");
    second.state_dir = deployment.state_dir("0");
    assert_fails(
        second,
        1,
        &[&deployment.state_dir("0").display().to_string(), "in use"],
    )?;
    // The first goes on.
    deployment.send_events(&plays(1..3))?;
    deployment.await_total("the events", |ledger| ledger.enriched == 2)?;
    drop(processor);
    Ok(())
}

#[test]
fn a_port_in_use_is_one_message_and_exit_code_1() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "port", 1)?;
    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port()?))?;
    let mut options = deployment.options("0");
    options.listen = Some(taken.local_addr()?.to_string());
    assert_fails(options, 1, &[&taken.local_addr()?.to_string(), "--listen"])
}

#[test]
fn a_successor_under_the_same_name_ends_the_first_with_exit_code_3() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "fenced", 2)?;
    let mut first = deployment.start("0")?;
    deployment.send_events(&plays(1..21))?;
    deployment.await_total("the events", |ledger| ledger.enriched == 20)?;
    let mut options = deployment.options("0");
    options.state_dir = deployment.state_dir("elsewhere");
    let second = deployment.start_with(options)?;
    let status = first.wait(STOP_LIMIT)?;
    ensure!(status.code() == Some(3), "{status}");
    deployment.send_events(&plays(21..41))?;
    deployment.await_total("all events", |ledger| ledger.enriched == 40)?;
    check(&deployment, &by_id(&plays(1..41)))?;
    drop(second);
    Ok(())
}

#[test]
fn a_termination_drains_commits_and_exits_0_and_the_next_run_goes_on_there() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "drain", 4)?;
    let mut processor = deployment.start("0")?;
    let rows = plays(1..20_001);
    deployment.send_events(&rows)?;
    deployment.await_total("the first events", |ledger| ledger.consumed > 0)?;
    ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0));
    let stopped_at = deployment.total()?;
    let published = deployment.read("engagement-events.enriched")?.len() as u64;
    ensure!(
        published == stopped_at.enriched,
        "{published} published, {stopped_at:?}"
    );
    processor.restart()?;
    deployment.await_total("all events", |ledger| ledger.consumed == 20_000)?;
    check(&deployment, &by_id(&rows))?;

    // Two runs more, with nothing to do, publish nothing.
    for _ in 0..2 {
        ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0));
        processor.restart()?;
    }
    // Had anything been read again, it would lie before this one.
    deployment.send_events(&plays(20_001..20_002))?;
    deployment.await_total("one more event", |ledger| ledger.consumed == 20_001)?;
    check(&deployment, &by_id(&plays(1..20_002)))?;
    Ok(())
}

#[test]
fn a_termination_during_the_start_is_an_orderly_end() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "early", 2)?;
    deployment.send_events(&plays(1..101))?;
    let mut processor = Logged::spawn(deployment.options("0"))?;
    // It handles signals from the first line that it logs.
    await_until(LIMIT, "the first line of the log", || {
        Ok((!processor.log().is_empty()).then_some(()))
    })?;
    let asked = Instant::now();
    let status = processor.terminate(STOP_LIMIT)?;
    ensure!(
        status.code() == Some(0),
        "{status} after {:?}",
        asked.elapsed()
    );
    processor.restart()?;
    deployment.await_total("the events", |ledger| ledger.enriched == 100)?;
    check(&deployment, &by_id(&plays(1..101)))?;
    Ok(())
}

#[test]
fn a_lost_commit_beside_outputs_is_refused() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "lost", 2)?;
    let mut processor = deployment.start("0")?;
    deployment.send_events(&plays(1..21))?;
    deployment.await_total("the events", |ledger| ledger.enriched == 20)?;
    ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0));
    delete_group(&deployment)?;
    let group = deployment.group();
    assert_fails(
        deployment.options("0"),
        1,
        &[&group, "no committed offset", "publish events twice"],
    )?;
    // Nor does another disk and another name change that. The members that just ended are static: the group waits for their
    // sessions, twice where one of them had not finished joining.
    assert_fails_within(
        SESSIONS,
        deployment.options("1"),
        1,
        &[&group, "no committed offset"],
    )
}

/// Deletes the enricher's group; static members stay in it until their session ends.
fn delete_group(deployment: &Deployment<'_>) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = deployment.broker.client().create()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let group = deployment.group();
    await_until(LIMIT, "the group to be empty", || {
        let options = AdminOptions::new();
        let answers = runtime.block_on(admin.delete_groups(&[&group], &options))?;
        Ok(answers.iter().all(Result::is_ok).then_some(()))
    })
}
