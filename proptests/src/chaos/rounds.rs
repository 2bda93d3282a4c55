//! One round: faults that begin together, each on a thread of its own.

use std::thread::{ScopedJoinHandle, scope};

use anyhow::{Context, Result, anyhow};

use super::field::Field;
use super::kind::{Kind, Victim};
use super::schedule::{Fault, Round};
use super::{broker_faults, content_flood, network_faults, process_faults};

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflicted {
    Yes,
    /// It could not be, for this reason; it does not count.
    No(&'static str),
}

/// Inflicts the faults of a round and waits until all are over. Gives the kinds that were inflicted, and those that were not.
pub(super) fn inflict(field: &Field<'_>, round: &Round) -> Result<(Vec<Kind>, Vec<Kind>)> {
    let (mut done, mut not_done) = (Vec::new(), Vec::new());
    let outcomes: Vec<(Kind, Result<Inflicted>)> = scope(|threads| {
        let begun: Vec<(Kind, ScopedJoinHandle<'_, _>)> = round
            .faults
            .iter()
            .map(|fault| (fault.kind, threads.spawn(|| inflict_one(field, fault))))
            .collect();
        let joined = begun.into_iter().map(|(kind, thread)| {
            let outcome = thread.join();
            (
                kind,
                outcome.unwrap_or_else(|_| Err(anyhow!("it panicked"))),
            )
        });
        joined.collect()
    });
    for (kind, outcome) in outcomes {
        match outcome.with_context(|| kind.name())? {
            Inflicted::Yes => done.push(kind),
            Inflicted::No(why) => {
                field.journal.note(format!("not: {}: {why}", kind.name()));
                not_done.push(kind);
            }
        }
    }
    Ok((done, not_done))
}

fn inflict_one(field: &Field<'_>, fault: &Fault) -> Result<Inflicted> {
    field.journal.note(fault.describe());
    let outcome = match fault.kind.victim() {
        Victim::Process => process_faults::inflict(field, fault),
        Victim::Broker => broker_faults::inflict(field, fault),
        Victim::Network => Ok(network_faults::inflict(field, fault)),
        Victim::Input => content_flood::inflict(field),
    };
    field.journal.note(format!("over: {}", fault.kind.name()));
    outcome
}
