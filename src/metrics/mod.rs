//! Every metric of the process, in one value: handles are taken once and are cheap to bump.

mod ledgers;
mod process;
mod restores;
mod sinks;

pub use restores::RestoreShare;
pub use sinks::SinkMetrics;

use crate::domain::{Ledger, Partition};
use ledgers::Ledgers;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use restores::Restores;
use sinks::Sinks;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What [`Metrics::encode`] must be served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, &'static str); 1];
type PerPartition = [(&'static str, String); 2];

/// Declares a set of counters that differ by one label: a struct of handles, all there from the start.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident by $label:literal {
        $($(#[$field_doc:meta])* $field:ident = $value:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Counter,)+
        }

        impl $name {
            fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
                let family = Family::<Label, Counter>::default();
                registry.register(name, help, family.clone());
                Self { $($field: family.get_or_create_owned(&[($label, $value)]),)+ }
            }
        }
    };
}

counters!(
    /// What became of engagement events.
    EventOutcomes by "outcome" {
        /// Published at once.
        enriched = "enriched",
        /// Dead letters.
        dead_letter = "dead_letter",
        /// Published or parked before.
        duplicate = "duplicate",
        /// Tombstones, and operations configured to be ignored.
        ignored = "ignored",
        /// Parked, to wait for their content.
        parked = "parked",
        /// Parked, and published with their content.
        released = "released",
        /// Parked, and published without.
        timed_out = "timed_out",
    }
);
counters!(
    /// What became of content records.
    ContentOutcomes by "outcome" {
        /// Rows written.
        upserted = "upserted",
        /// Rows deleted.
        deleted = "deleted",
        /// Dead letters.
        dead_letter = "dead_letter",
    }
);
counters!(
    /// Records replayed from Kafka into a table of the local store.
    Restored by "table" {
        /// The content table.
        content = "content",
        /// Parked events.
        pending = "pending",
        /// Published ids.
        seen = "seen",
        /// Events kept for queries.
        recent = "recent",
    }
);
counters!(
    /// How transactions ended.
    Transactions by "outcome" {
        /// Committed.
        committed = "committed",
        /// Aborted.
        aborted = "aborted",
        /// Not known: recovery found out.
        unknown = "unknown",
    }
);
counters!(
    /// Why producers were replaced.
    ProducersReplaced by "why" {
        /// A request of the last transaction may have been retried unseen.
        hidden_retry = "hidden_retry",
        /// Whether the transaction was committed is not known.
        unknown_outcome = "unknown_outcome",
        /// Fenced, or its transaction timed out.
        fenced = "fenced",
        /// Any other fatal error.
        fatal = "fatal",
    }
);
counters!(
    /// Columns of content that came without their value (TOAST).
    Unavailable by "outcome" {
        /// The prior value was kept.
        kept = "kept",
        /// There was none: null.
        null = "null",
    }
);

/// All metrics. A clone is another handle to the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records read from the engagement events' topic.
    pub records_consumed: Counter,
    /// What became of engagement events.
    pub events: EventOutcomes,
    /// What became of content records.
    pub content: ContentOutcomes,
    /// Time up to which the content topic is applied, in Unix seconds.
    content_watermark: Gauge<f64, AtomicU64>,
    /// From the first request of a commit to its end, in seconds.
    pub commit_seconds: Histogram,
    /// Records replayed into the local store.
    pub restored: Restored,
    /// How transactions ended.
    pub transactions: Transactions,
    /// Why producers were replaced.
    pub producers_replaced: ProducersReplaced,
    /// Events joined with content of length zero.
    pub zero_length: Counter,
    /// Columns of content that came without their value (TOAST).
    pub unavailable: Unavailable,
    /// Content rows whose `publish_ts` is infinite: null.
    pub infinite_publish_ts: Counter,
    /// Events whose partition is not a function of their id.
    pub misplaced_records: Counter,
    /// Dead letters that lost a part of their record.
    pub truncated: Counter,
    /// Partitions that a stable group left without an owner.
    pub unowned_partitions: Gauge,
    /// Rebalances forced because of them.
    pub rebalances_forced: Counter,
    /// Transactions of lost hosts that were ended here.
    pub transactions_ended: Counter,
    lag: Family<PerPartition, Gauge>,
    ledgers: Arc<Ledgers>,
    restores: Restores,
    sinks: Sinks,
    registry: Arc<Registry>,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(process::Process));
        let ours = root.sub_registry_with_prefix("thmanyah");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "This build", build);
        let ledgers = Arc::new(Ledgers::default());
        ours.register_collector(Box::new(Arc::clone(&ledgers)));
        let metrics = Self {
            records_consumed: plain(
                ours,
                "records_consumed",
                "Records read from the engagement events' topic",
            ),
            events: EventOutcomes::register(
                ours,
                "events",
                "Engagement events by what became of them",
            ),
            content: ContentOutcomes::register(
                ours,
                "content_records",
                "Content records by what became of them",
            ),
            content_watermark: plain(
                ours,
                "content_watermark_seconds",
                "Unix time up to which the content topic is applied; 0 before it is known",
            ),
            commit_seconds: histogram(ours, "commit_seconds", "Time to commit a transaction"),
            restored: Restored::register(
                ours,
                "restore_records",
                "Records replayed from Kafka into the local store",
            ),
            transactions: Transactions::register(
                ours,
                "transactions",
                "Transactions by how they ended",
            ),
            producers_replaced: ProducersReplaced::register(
                ours,
                "producer_replaced",
                "Producers replaced by a new one",
            ),
            zero_length: plain(
                ours,
                "zero_length",
                "Events joined with content of length zero: null share",
            ),
            unavailable: Unavailable::register(
                ours,
                "unavailable",
                "Columns of content that came without their value (TOAST)",
            ),
            infinite_publish_ts: plain(
                ours,
                "infinite_publish_ts",
                "Content rows with an infinite publish_ts: null",
            ),
            misplaced_records: plain(
                ours,
                "misplaced_records",
                "Events whose partition is not a function of their id",
            ),
            truncated: plain(
                ours,
                "truncated_dead_letters",
                "Dead letters too large for their topic, which kept their first bytes",
            ),
            unowned_partitions: plain(
                ours,
                "unowned_partitions",
                "Partitions that a stable group left without an owner",
            ),
            rebalances_forced: plain(
                ours,
                "rebalances_forced",
                "Rebalances forced because partitions had no owner",
            ),
            transactions_ended: plain(
                ours,
                "lost_transactions_ended",
                "Open transactions of lost hosts that were ended here",
            ),
            lag: plain(
                ours,
                "consumer_lag",
                "Records between the position and the last stable offset",
            ),
            ledgers,
            restores: Restores::register(ours),
            sinks: Sinks::register(ours),
            registry: Arc::default(),
        };
        Self {
            registry: Arc::new(root),
            ..metrics
        }
    }

    /// The content watermark, in milliseconds since the epoch.
    #[allow(clippy::cast_precision_loss)] // Milliseconds until the year 9999 fit 53 bits.
    pub fn set_content_watermark(&self, ms: i64) {
        self.content_watermark.set(ms as f64 / 1000.0);
    }

    /// The text of a scrape, to be served as [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// The part of a restore in the gauges of its table.
    pub fn restore_share(&self, table: &'static str) -> RestoreShare {
        self.restores.share(table)
    }

    /// The metrics of a sink.
    pub fn sink(&self, name: &'static str) -> SinkMetrics {
        self.sinks.of(name)
    }

    /// Takes over the ledger of a partition that was just committed or restored.
    pub fn set_ledger(&self, partition: Partition, ledger: &Ledger) {
        self.ledgers.set(partition, *ledger);
    }

    /// The ledgers of the partitions owned here.
    pub fn ledgers(&self) -> Vec<(Partition, Ledger)> {
        self.ledgers.all()
    }

    /// The lag of a partition: take the handle at assignment.
    pub fn lag(&self, topic: &str, partition: Partition) -> Gauge {
        self.lag.get_or_create_owned(&lag_labels(topic, partition))
    }

    /// Forgets a partition of the engagement events' topic that is owned here no longer.
    pub fn forget_partition(&self, topic: &str, partition: Partition) {
        self.ledgers.remove(partition);
        self.forget_lag(topic, partition);
    }

    /// Forgets the lag of a partition of any topic.
    pub fn forget_lag(&self, topic: &str, partition: Partition) {
        self.lag.remove(&lag_labels(topic, partition));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn lag_labels(topic: &str, partition: Partition) -> PerPartition {
    [
        ("topic", topic.to_owned()),
        ("partition", partition.to_string()),
    ]
}

fn plain<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// 1 ms to 32 s: a healthy commit takes some 5 ms, a hidden retry half a second, a lost coordinator seconds.
fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(exponential_buckets(0.001, 2.0, 16));
    registry.register(name, help, histogram.clone());
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_the_names_of_the_contract_and_an_end() {
        let metrics = Metrics::new();
        metrics.events.timed_out.inc();
        metrics.lag("engagement-events.raw", Partition(3)).set(7);
        metrics.restored.pending.inc_by(5);
        let text = metrics.encode();
        for line in [
            "thmanyah_records_consumed_total 0",
            "thmanyah_events_total{outcome=\"timed_out\"} 1",
            "thmanyah_events_total{outcome=\"enriched\"} 0",
            "thmanyah_pending_events 0",
            "thmanyah_consumer_lag{topic=\"engagement-events.raw\",partition=\"3\"} 7",
            "thmanyah_content_watermark_seconds 0.0",
            "thmanyah_commit_seconds_count 0",
            "thmanyah_restore_records_total{table=\"pending\"} 5",
            "thmanyah_transactions_total{outcome=\"unknown\"} 0",
            "thmanyah_producer_replaced_total{why=\"hidden_retry\"} 0",
            "thmanyah_misplaced_records_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("thmanyah_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn restores_of_one_table_are_summed_and_taken_off_when_they_end() {
        let metrics = Metrics::new();
        let (mut one, mut two) = (metrics.restore_share("seen"), metrics.restore_share("seen"));
        one.set(10, 4);
        two.set(5, 3);
        one.set(6, 5);
        let text = metrics.encode();
        assert!(
            text.contains("thmanyah_restore_records_left{table=\"seen\"} 11\n"),
            "{text}"
        );
        assert!(text.contains("thmanyah_restore_records_per_second{table=\"seen\"} 8\n"));
        drop((one, two));
        let text = metrics.encode();
        assert!(
            text.contains("thmanyah_restore_records_left{table=\"seen\"} 0\n"),
            "{text}"
        );
        assert!(text.contains("thmanyah_restore_records_left{table=\"content\"} 0\n"));
    }

    #[test]
    fn a_partition_that_left_is_no_longer_told() {
        let metrics = Metrics::new();
        let ledger = Ledger {
            consumed: 3,
            enriched: 1,
            pending: 2,
            ..Ledger::default()
        };
        metrics.set_ledger(Partition(0), &ledger);
        metrics.set_ledger(Partition(1), &ledger);
        metrics.lag("raw", Partition(1)).set(1);
        assert!(metrics.encode().contains("thmanyah_pending_events 4\n"));
        metrics.forget_partition("raw", Partition(1));
        let text = metrics.encode();
        assert!(
            text.contains("thmanyah_ledger{partition=\"0\",kind=\"pending\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("thmanyah_pending_events 2\n"), "{text}");
        assert!(!text.contains("partition=\"1\""), "{text}");
    }
}
