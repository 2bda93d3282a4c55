//! Faults of the brokers: never of two at a time, as two of three must go on.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::field::Field;
use super::kind::Kind;
use super::rounds::Inflicted;
use super::schedule::Fault;

/// How long the replicas may take to be in sync again. Where they are not the fault is inflicted all the same: partitions then
/// wait for the broker that comes back.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn inflict(field: &Field<'_>, fault: &Fault) -> Result<Inflicted> {
    let await_sync = || -> Result<()> {
        if !field.cluster.await_in_sync(SYNC_LIMIT)? {
            field.journal.note("the replicas are not in sync");
        }
        Ok(())
    };
    await_sync()?;
    let broker = |node: usize| field.cluster.broker(node).context("no such broker");
    match fault.kind {
        Kind::BrokersRolled => {
            for node in 0..field.cluster.brokers() {
                {
                    let mut broker = broker(node)?;
                    broker.shut_down();
                    broker.restart()?;
                }
                await_sync()?;
            }
        }
        Kind::BrokerFrozen => {
            let mut broker = broker(fault.target)?;
            broker.pause();
            sleep(fault.lasts);
            broker.resume();
        }
        _ => {
            let mut broker = broker(fault.target)?;
            broker.kill9();
            sleep(fault.lasts);
            broker.restart()?;
        }
    }
    Ok(Inflicted::Yes)
}
