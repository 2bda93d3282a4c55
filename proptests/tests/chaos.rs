//! A short run of the chaos suite: the quick kinds of faults, against three brokers and three instances. `make chaos` inflicts
//! them all, by the hundred.

use anyhow::{Context, Result, ensure};
use thmanyah_proptests::chaos::{Kind, Plan, run};

#[test]
#[allow(clippy::print_stderr, reason = "libtest shows it when the test fails")]
fn nothing_is_lost_or_doubled_when_instances_brokers_and_connections_fail() -> Result<()> {
    let seed = match std::env::var("CHAOS_SEED") {
        Ok(seed) => seed.parse().context("CHAOS_SEED")?,
        Err(_) => u64::from(rand::random::<u32>()),
    };
    let plan = Plan {
        faults: 9,
        seed,
        kinds: vec![
            Kind::ProcessKilled,
            Kind::ProcessTerminated,
            Kind::StateDeleted,
            Kind::BrokerKilled,
            Kind::TrafficStalled,
            Kind::TrafficCut,
            Kind::ConnectionsReset,
            Kind::CommitReplyLost,
            Kind::CommitDelayed,
        ],
        rate: 300,
    };
    let report = run(&plan, &|line| eprintln!("{line}"))?;
    eprintln!("{report}");
    ensure!(report.is_success(), "CHAOS_SEED={seed} replays the faults");
    Ok(())
}
