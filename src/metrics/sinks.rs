//! What sinks tell of themselves; every name begins with `thmanyah_sink_`, and each has the label `sink`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Sink = [(&'static str, &'static str); 1];
type SinkAnd = [(&'static str, &'static str); 2];

/// Batches from 1 record to 65,536.
#[derive(Clone, Debug)]
struct Records;

impl MetricConstructor<Histogram> for Records {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(1.0, 4.0, 9))
    }
}

/// 1 ms to 32 s.
#[derive(Clone, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.001, 2.0, 16))
    }
}

/// The families, from which a sink takes its handles.
#[derive(Clone, Debug)]
pub(super) struct Sinks {
    events: Family<SinkAnd, Counter>,
    attempts: Family<SinkAnd, Counter>,
    lost: Family<Sink, Counter>,
    batch_records: Family<Sink, Histogram, Records>,
    delivery_seconds: Family<Sink, Histogram, Seconds>,
    lag: Family<Sink, Gauge>,
    oldest: Family<Sink, Gauge<f64, AtomicU64>>,
    up: Family<Sink, Gauge>,
    breaker_open: Family<Sink, Gauge>,
    paused: Family<Sink, Gauge>,
    rebuilding: Family<Sink, Gauge>,
}

/// One sink's handles. A clone is another handle to the same metrics.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// Events that arrived.
    pub delivered: Counter,
    /// Events that the destination had already, as far as it tells.
    pub duplicate: Counter,
    /// Events that became dead letters.
    pub rejected: Counter,
    /// Attempts to deliver that succeeded: requests, or calls with a batch.
    pub attempts_succeeded: Counter,
    /// Attempts that failed, and are made again.
    pub attempts_failed: Counter,
    /// Events that were deleted from their topic before they were delivered.
    pub lost: Counter,
    /// Records in a batch.
    pub batch_records: Histogram,
    /// From the first attempt at a batch to its end, in seconds.
    pub delivery_seconds: Histogram,
    /// Records between the position and the last stable offset.
    pub lag: Gauge,
    /// For how long the oldest event that was not delivered has been published, in seconds.
    pub oldest_undelivered_seconds: Gauge<f64, AtomicU64>,
    /// 1 while the destination takes what it gets.
    pub up: Gauge,
    /// 1 while the destination is left alone.
    pub breaker_open: Gauge,
    /// 1 while an operator has paused it.
    pub paused: Gauge,
    /// Partitions whose part of the destination is being built from the log, and is not complete yet.
    pub rebuilding: Gauge,
}

impl Sinks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let sinks = Self {
            events: Family::default(),
            attempts: Family::default(),
            lost: Family::default(),
            batch_records: Family::new_with_constructor(Records),
            delivery_seconds: Family::new_with_constructor(Seconds),
            lag: Family::default(),
            oldest: Family::default(),
            up: Family::default(),
            breaker_open: Family::default(),
            paused: Family::default(),
            rebuilding: Family::default(),
        };
        let of = sinks.clone();
        registry.register("sink_events", "Events by what became of them", of.events);
        registry.register(
            "sink_attempts",
            "Attempts to deliver by how they ended",
            of.attempts,
        );
        registry.register(
            "sink_lost_events",
            "Events that were deleted from their topic before they were delivered",
            of.lost,
        );
        registry.register("sink_batch_records", "Records in a batch", of.batch_records);
        registry.register(
            "sink_delivery_seconds",
            "From the first attempt at a batch to its end",
            of.delivery_seconds,
        );
        registry.register(
            "sink_lag",
            "Records between the position and the last stable offset",
            of.lag,
        );
        registry.register(
            "sink_oldest_undelivered_seconds",
            "For how long the oldest event that was not delivered has been published",
            of.oldest,
        );
        registry.register(
            "sink_up",
            "1 while the destination takes what it gets",
            of.up,
        );
        registry.register(
            "sink_breaker_open",
            "1 while the destination is left alone",
            of.breaker_open,
        );
        registry.register(
            "sink_paused",
            "1 while an operator has paused it",
            of.paused,
        );
        registry.register(
            "sink_rebuilding_partitions",
            "Partitions whose part of the destination is being built from the log",
            of.rebuilding,
        );
        sinks
    }

    pub(super) fn of(&self, name: &'static str) -> SinkMetrics {
        let sink = [("sink", name)];
        let event = |outcome| {
            self.events
                .get_or_create_owned(&[("sink", name), ("outcome", outcome)])
        };
        let attempt = |outcome| {
            self.attempts
                .get_or_create_owned(&[("sink", name), ("outcome", outcome)])
        };
        SinkMetrics {
            delivered: event("delivered"),
            duplicate: event("duplicate"),
            rejected: event("rejected"),
            attempts_succeeded: attempt("succeeded"),
            attempts_failed: attempt("failed"),
            lost: self.lost.get_or_create_owned(&sink),
            batch_records: self.batch_records.get_or_create_owned(&sink),
            delivery_seconds: self.delivery_seconds.get_or_create_owned(&sink),
            lag: self.lag.get_or_create_owned(&sink),
            oldest_undelivered_seconds: self.oldest.get_or_create_owned(&sink),
            up: self.up.get_or_create_owned(&sink),
            breaker_open: self.breaker_open.get_or_create_owned(&sink),
            paused: self.paused.get_or_create_owned(&sink),
            rebuilding: self.rebuilding.get_or_create_owned(&sink),
        }
    }
}
