//! The committed ledgers as gauges. They are written at scrape time from one map, so that the six numbers of a partition
//! are always of one commit.

use crate::domain::{Ledger, Partition};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;

/// The last committed ledger of each partition owned here.
#[derive(Debug, Default)]
pub(super) struct Ledgers(Mutex<BTreeMap<Partition, Ledger>>);

impl Ledgers {
    pub(super) fn set(&self, partition: Partition, ledger: Ledger) {
        self.0.lock().insert(partition, ledger);
    }

    pub(super) fn remove(&self, partition: Partition) {
        self.0.lock().remove(&partition);
    }

    pub(super) fn all(&self) -> Vec<(Partition, Ledger)> {
        self.0
            .lock()
            .iter()
            .map(|(p, ledger)| (*p, *ledger))
            .collect()
    }
}

impl Collector for Ledgers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let ledgers = self.all();
        let mut family = encoder.encode_descriptor(
            "ledger",
            "What became of every record of a partition since its first, as committed",
            None,
            MetricType::Gauge,
        )?;
        let mut pending = 0i64;
        for (partition, ledger) in ledgers {
            pending += ledger.pending as i64;
            let partition = partition.to_string();
            for (kind, total) in [
                ("consumed", ledger.consumed),
                ("enriched", ledger.enriched),
                ("dead", ledger.dead),
                ("duplicate", ledger.duplicate),
                ("ignored", ledger.ignored),
                ("pending", ledger.pending),
            ] {
                let labels = [("partition", partition.as_str()), ("kind", kind)];
                ConstGauge::new(total as i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let pending = ConstGauge::new(pending);
        let help = "Events that wait for their content, as committed";
        let metric =
            encoder.encode_descriptor("pending_events", help, None, pending.metric_type())?;
        pending.encode(metric)
    }
}
