//! Three instances, restarted one after another under load, then one fewer: nothing is lost or doubled, and no partition
//! stands still for long.

use std::time::Duration;

use anyhow::{Result, ensure};
use thmanyah_dev::{Broker, BrokerOptions};
use thmanyah_proptests::deployment::Deployment;
use thmanyah_proptests::flow::{Flow, Group, Times, now_ms};
use thmanyah_proptests::sizes::{is_full, rounds};

const PARTITIONS: i32 = 6;
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The promises.
const RESTART_PAUSE: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(6);
const BEYOND_SESSION: Duration = Duration::from_secs(3);

#[test]
fn a_rolling_restart_and_one_instance_fewer_lose_and_double_nothing() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    let deployment = Deployment::new(&broker, "rolling", PARTITIONS)?;
    let mut instances = Vec::new();
    for name in ["a", "b", "c"] {
        let mut options = deployment.options(name);
        let workers = ("THMANYAH_ENRICHER__WORKERS".into(), "1".into());
        options.env.push(workers);
        instances.push(deployment.start_with(options)?);
    }
    let group = Group::of(&deployment)?;
    let (mut restarts, mut fewer) = (Times::default(), Times::default());
    Flow::new(&deployment).during(|flow| {
        group.await_owners()?;
        flow.await_motion(now_ms())?;
        for _ in 0..rounds(1, 7) {
            for instance in &mut instances {
                let began_ms = now_ms();
                let status = instance.terminate(STOP_LIMIT)?;
                ensure!(status.code() == Some(0), "{status}");
                instance.restart()?;
                flow.await_motion(now_ms())?;
                restarts.add(flow.pauses(began_ms));
            }
        }
        let began_ms = now_ms();
        let last = instances.last_mut();
        let status = last
            .map(|instance| instance.terminate(STOP_LIMIT))
            .transpose()?;
        ensure!(status.and_then(|status| status.code()) == Some(0));
        group.await_member("rolling-c-0", false)?;
        group.await_owners()?;
        flow.await_motion(now_ms())?;
        fewer.add(flow.pauses(began_ms));
        Ok(())
    })?;
    restarts.print("pauses of partitions in a rolling restart");
    fewer.print("pauses of partitions when one instance of three goes for good");
    if is_full() {
        ensure!(restarts.percentile(99) <= RESTART_PAUSE);
        ensure!(fewer.percentile(99) <= SESSION + BEYOND_SESSION);
    }
    Ok(())
}
