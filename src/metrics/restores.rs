//! Gauges of restores under way, by table. Several may go on at once, each for partitions of its own: gauges are their sums.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type ByTable = Family<[(&'static str, &'static str); 1], Gauge>;

/// The tables that a start waits for.
const TABLES: [&str; 3] = ["content", "pending", "seen"];

/// Restores under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Restores {
    left: ByTable,
    rate: ByTable,
}

/// What one restore adds to the gauges of its table; taken off when dropped.
#[derive(Debug)]
pub struct RestoreShare {
    left: Gauge,
    rate: Gauge,
    told: (i64, i64),
}

impl Restores {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let restores = Self::default();
        for (name, help, family) in [
            (
                "restore_records_left",
                "Records left of the restores under way",
                &restores.left,
            ),
            (
                "restore_records_per_second",
                "Records that the restores under way replay in a second",
                &restores.rate,
            ),
        ] {
            registry.register(name, help, family.clone());
            for table in TABLES {
                drop(family.get_or_create(&[("table", table)]));
            }
        }
        restores
    }

    pub(super) fn share(&self, table: &'static str) -> RestoreShare {
        RestoreShare {
            left: self.left.get_or_create_owned(&[("table", table)]),
            rate: self.rate.get_or_create_owned(&[("table", table)]),
            told: (0, 0),
        }
    }
}

impl RestoreShare {
    /// Replaces what this restore told last.
    pub fn set(&mut self, left: u64, rate: u64) {
        let now = (left as i64, rate as i64);
        self.left.inc_by(now.0 - self.told.0);
        self.rate.inc_by(now.1 - self.told.1);
        self.told = now;
    }
}

impl Drop for RestoreShare {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}
