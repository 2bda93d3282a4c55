//! Rebalances that go wrong: a join held back past its session, a member killed inside a rebalance, a host lost for good with
//! an open transaction. Nothing is lost or doubled, and every partition moves again.

use std::time::Duration;

use anyhow::{Result, ensure};
use thmanyah_dev::{ApiKey, Broker, BrokerOptions, ProcessorOptions, Proxy, Requests};
use thmanyah_proptests::deployment::{Deployment, Logged};
use thmanyah_proptests::flow::{Flow, Group, Times, now_ms};
use thmanyah_proptests::sizes::{is_full, rounds};

const PARTITIONS: i32 = 6;
const LIMIT: Duration = Duration::from_mins(1);

/// The promise: moving again so long after a session has ended.
const BEYOND_SESSION: Duration = Duration::from_secs(5);

fn session() -> Duration {
    Duration::from_secs(if is_full() { 6 } else { 3 })
}

/// A broker whose clients of one listener come through a proxy.
struct Ground {
    proxy: Proxy,
    broker: Broker,
}

impl Ground {
    fn start() -> Result<Self> {
        let proxy = Proxy::start()?;
        let options = BrokerOptions::default()
            .with("group.min.session.timeout.ms", "1000")
            .behind(&proxy);
        let broker = Broker::start(options)?;
        Ok(Self { proxy, broker })
    }

    /// How an instance runs, behind the proxy or not.
    fn options(
        &self,
        deployment: &Deployment<'_>,
        instance: &str,
        behind: bool,
    ) -> ProcessorOptions {
        let mut options = deployment.options(instance);
        if behind {
            options.bootstrap = self.proxy.bootstrap();
        }
        let session = format!("{}s", session().as_secs());
        options.env.extend([
            ("THMANYAH_ENRICHER__WORKERS".into(), "1".into()),
            ("THMANYAH_KAFKA__SESSION_TIMEOUT".into(), session),
            ("THMANYAH_KAFKA__HEARTBEAT".into(), "1s".into()),
        ]);
        options
    }
}

/// Prints how long partitions stood still; at full size the promise is asserted.
fn judge(times: &Times, what: &str) -> Result<()> {
    times.print(what);
    if is_full() {
        let limit = session() + BEYOND_SESSION;
        let p99 = times.percentile(99);
        ensure!(p99 <= limit, "{what}: p99 is {p99:?}, over {limit:?}");
    }
    Ok(())
}

/// An instance that comes and goes, so that the others rebalance.
struct Visitor {
    options: ProcessorOptions,
    here: Option<Logged>,
}

impl Visitor {
    /// Comes or goes; the rebalance is under way, or begins when its session has ended.
    fn turn(&mut self) -> Result<()> {
        match self.here.take() {
            Some(visitor) => drop(visitor),
            None => self.here = Some(Logged::spawn(self.options.clone())?),
        }
        Ok(())
    }

    /// Waits until it is ready, if it is here.
    fn settle(&mut self) -> Result<()> {
        match &mut self.here {
            Some(visitor) => Ok(visitor.await_ready(LIMIT)?),
            None => Ok(()),
        }
    }
}

#[test]
fn an_instance_whose_join_is_held_past_its_session_harms_nothing() -> Result<()> {
    let ground = Ground::start()?;
    let deployment = Deployment::new(&ground.broker, "held", PARTITIONS)?;
    let _first = deployment.start_with(ground.options(&deployment, "a", false))?;
    let mut held = deployment.start_with(ground.options(&deployment, "b", true))?;
    let group = Group::of(&deployment)?;
    let mut visitor = Visitor {
        options: ground.options(&deployment, "c", false),
        here: None,
    };
    let mut times = Times::default();
    Flow::new(&deployment).during(|flow| {
        for _ in 0..rounds(2, 20) {
            group.await_owners()?;
            let join = Requests::of(ApiKey::JoinGroup).naming("held-b-0").first(1);
            let trap = ground.proxy.hold(join);
            visitor.turn()?;
            trap.await_caught(1, LIMIT)?;
            let began_ms = now_ms();
            group.await_member("held-b-0", false)?;
            flow.await_motion(now_ms())?;
            trap.release();
            group.await_member("held-b-0", true)?;
            visitor.settle()?;
            group.await_owners()?;
            flow.await_motion(now_ms())?;
            ensure!(held.ended().is_none(), "it ended: {:?}", held.ended());
            times.add(flow.pauses(began_ms));
        }
        Ok(())
    })?;
    judge(
        &times,
        "pauses around a join that was held past its session",
    )
}

#[test]
fn a_static_member_killed_inside_a_rebalance_leaves_no_partition_behind() -> Result<()> {
    let ground = Ground::start()?;
    let deployment = Deployment::new(&ground.broker, "inside", PARTITIONS)?;
    let _first = deployment.start_with(ground.options(&deployment, "a", false))?;
    let mut killed = deployment.start_with(ground.options(&deployment, "b", true))?;
    let group = Group::of(&deployment)?;
    let mut visitor = Visitor {
        options: ground.options(&deployment, "c", false),
        here: None,
    };
    let mut times = Times::default();
    Flow::new(&deployment).during(|flow| {
        for round in 0..rounds(2, 20) {
            group.await_owners()?;
            // Killed before it has joined, or before it knows what became of that.
            let key = if round % 2 == 0 {
                ApiKey::JoinGroup
            } else {
                ApiKey::SyncGroup
            };
            let trap = ground
                .proxy
                .hold(Requests::of(key).naming("inside-b-0").first(1));
            visitor.turn()?;
            trap.await_caught(1, LIMIT)?;
            let began_ms = now_ms();
            killed.kill9();
            trap.discard();
            group.await_member("inside-b-0", false)?;
            group.await_owners()?;
            flow.await_motion(now_ms())?;
            times.add(flow.pauses(began_ms));
            killed.restart()?;
            visitor.settle()?;
        }
        Ok(())
    })?;
    judge(&times, "pauses around a member killed inside a rebalance")
}

#[test]
fn a_host_lost_for_good_with_an_open_transaction_holds_nothing_back() -> Result<()> {
    let ground = Ground::start()?;
    let deployment = Deployment::new(&ground.broker, "lost", PARTITIONS)?;
    let _first = deployment.start_with(ground.options(&deployment, "a", false))?;
    let _second = deployment.start_with(ground.options(&deployment, "b", false))?;
    let mut lost = deployment.start_with(ground.options(&deployment, "c", true))?;
    let group = Group::of(&deployment)?;
    let mut times = Times::default();
    Flow::new(&deployment).during(|flow| {
        for _ in 0..rounds(2, 20) {
            group.await_owners()?;
            // Its offsets are in the transaction, which is never ended by itself.
            let end = Requests::of(ApiKey::EndTxn).naming("lost-c-0").first(1);
            let trap = ground.proxy.hold(end);
            trap.await_caught(1, LIMIT)?;
            let began_ms = now_ms();
            lost.kill9();
            trap.discard();
            group.await_member("lost-c-0", false)?;
            group.await_owners()?;
            flow.await_motion(now_ms())?;
            times.add(flow.pauses(began_ms));
            lost.restart()?;
        }
        Ok(())
    })?;
    judge(&times, "pauses around a host lost with an open transaction")
}
