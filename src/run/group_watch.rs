//! Looks at the groups from outside: ends what a lost host left open, and has a group rebalance that left a partition without
//! an owner.

use super::census::Census;
use crate::kafka::GroupViewer;
use crate::metrics::Metrics;
use crossbeam_channel::Receiver;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often it looks when nothing happens.
const REGULAR: Duration = Duration::from_secs(5);
/// How often it looks after a rebalance, for so long: the members of a lost host expire one after another.
const ALERT: Duration = Duration::from_secs(1);
const ALERT_LASTS: Duration = Duration::from_secs(5);
/// One wait, between looks at the stop flag.
const STEP: Duration = Duration::from_millis(100);

/// One group that is watched.
pub(super) struct Watched {
    pub(super) viewer: GroupViewer,
    pub(super) census: Census,
    /// Has a member of this process change its subscription.
    pub(super) unsettle: Arc<AtomicBool>,
}

/// Watches groups until the process stops.
pub(super) struct GroupWatch {
    pub(super) groups: Vec<Watched>,
    /// Told of rebalances.
    pub(super) rebalanced: Receiver<()>,
    pub(super) metrics: Metrics,
}

impl GroupWatch {
    #[allow(clippy::disallowed_methods)]
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut looked = Instant::now();
        let mut regular = looked;
        let mut alert = None;
        while !stop.load(Ordering::Relaxed) {
            let woken = self.rebalanced.recv_timeout(STEP).is_ok();
            if woken {
                alert = Some(Instant::now());
            }
            let is_alert = alert.is_some_and(|since: Instant| since.elapsed() < ALERT_LASTS);
            let is_regular = regular.elapsed() >= REGULAR;
            if woken || is_regular || (is_alert && looked.elapsed() >= ALERT) {
                self.look(is_regular);
                looked = Instant::now();
                if is_regular {
                    regular = looked;
                }
            }
        }
    }

    fn look(&mut self, regular: bool) {
        let mut unowned = 0;
        for watched in &mut self.groups {
            let group = match watched.viewer.describe() {
                Ok(group) => group,
                Err(error) => {
                    tracing::debug!(%error, "the group is looked at again later");
                    continue;
                }
            };
            let findings = watched.census.take(&group, regular);
            unowned += findings.unowned;
            if findings.force {
                let (group, unowned) = (watched.viewer.group(), findings.unowned);
                tracing::warn!(
                    group,
                    unowned,
                    "partitions have no owner: the group has to rebalance"
                );
                self.metrics.rebalances_forced.inc();
                watched.unsettle.store(true, Ordering::Relaxed);
            }
            if !findings.gone.is_empty() {
                let (group, gone) = (watched.viewer.group(), &findings.gone);
                tracing::info!(
                    group,
                    ?gone,
                    "members are gone: ending their open transactions"
                );
                for id in watched.viewer.end_transactions(gone) {
                    self.metrics.transactions_ended.inc();
                    watched.census.forget(&id);
                }
            }
        }
        self.metrics.unowned_partitions.set(unowned as i64);
    }
}
