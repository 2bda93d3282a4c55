//! A worker that is stuck ends its process, but not while the brokers are what is away.

use std::time::Duration;

use anyhow::{Result, ensure};
use thmanyah_dev::{ApiKey, Broker, BrokerOptions, ProcessorOptions, Proxy, Requests};
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::play;

const LIMIT: Duration = Duration::from_mins(1);
/// So short that a test can wait for it.
const STUCK_AFTER: Duration = Duration::from_secs(4);

fn impatient(deployment: &Deployment<'_>) -> ProcessorOptions {
    let mut options = deployment.options("a");
    let limit = format!("{}s", STUCK_AFTER.as_secs());
    options.env.extend([
        ("THMANYAH_ENRICHER__WORKERS".into(), "1".into()),
        ("THMANYAH_KAFKA__STUCK_AFTER".into(), limit),
    ]);
    options
}

#[test]
fn a_worker_stuck_in_a_commit_ends_the_process_with_one_message_that_names_it() -> Result<()> {
    let proxy = Proxy::start()?;
    let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
    let deployment = Deployment::new(&broker, "stuck", 2)?;
    let mut options = impatient(&deployment);
    options.bootstrap = proxy.bootstrap();
    let mut processor = deployment.start_with(options)?;
    let trap = proxy.hold(Requests::of(ApiKey::EndTxn).naming("stuck-a-0"));
    deployment.send_events(&[play(1, None)])?;
    trap.await_caught(1, LIMIT)?;
    let status = processor.wait(LIMIT)?;
    ensure!(status.code() == Some(1), "{status}");
    let log = processor.log();
    let last = log.lines().last().unwrap_or_default();
    ensure!(
        last.starts_with("error: worker 0") && last.contains("committing a transaction"),
        "{last}"
    );
    trap.discard();
    processor.restart()?;
    deployment.await_total("the event", |l| l.enriched == 1)?;
    Ok(())
}

#[test]
fn brokers_that_are_away_are_waited_for_however_long() -> Result<()> {
    let proxy = Proxy::start()?;
    let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
    let deployment = Deployment::new(&broker, "patient", 2)?;
    let mut options = impatient(&deployment);
    options.bootstrap = proxy.bootstrap();
    let mut processor = deployment.start_with(options)?;
    let trap = proxy.hold(Requests::of(ApiKey::EndTxn).naming("patient-a-0"));
    deployment.send_events(&[play(1, None)])?;
    trap.await_caught(1, LIMIT)?;
    proxy.stall();
    await_until(LIMIT, "the notice that it waits", || {
        Ok(processor.log().contains("waiting for them").then_some(()))
    })?;
    // Nothing happens here, for three times the limit; that is what is to be seen.
    std::thread::sleep(3 * STUCK_AFTER);
    ensure!(
        processor.ended().is_none(),
        "it ended: {:?}",
        processor.ended()
    );
    ensure!(processor.get("/livez")?.status == 200);
    trap.release();
    proxy.go_on();
    deployment.await_total("the event", |l| l.enriched == 1)?;
    ensure!(
        processor.ended().is_none(),
        "it ended: {:?}",
        processor.ended()
    );
    Ok(())
}
