//! The running process: its parts are started in the order of the data's flow, watched, and stopped together.

mod apply;
mod barrier;
mod census;
mod checkpoint;
mod error;
mod group_watch;
mod hand_over;
mod lease;
mod orphans;
mod ownership;
mod parts;
mod records;
mod restorer;
pub(crate) mod seen_rows;
mod serving;
mod settings;
mod sinks;
mod view;
mod watchdog;
mod watches;
mod worker;

pub use barrier::{BarrierError, BarrierSettings, Surroundings};
pub(crate) use barrier::{CHECKPOINT_KEY, parked_key};
pub use error::{FencedBy, RunError, WorkerError};
pub use lease::Leases;
pub use ownership::Ownership;
pub use parts::{WorkerParts, WorkerSettings};
pub use restorer::{Restorer, Restoring};
pub use view::StoreView;
pub use worker::Worker;

use crate::config::{Budget, Bytes, Config, memory_limit};
use crate::content::{
    ContentTable, ContentWatermark, Materializer, MaterializerSettings, Replica, ReplicaPositions,
    ReplicaSettings, WAKEUPS, WatermarkSettings,
};
use crate::health::Health;
use crate::kafka::topics::Topics;
use crate::kafka::{Edge, Isolation, Kafka, LimitReader, TopicId, Transactor, topic_ids};
use crate::metrics::Metrics;
use crate::recent::{Recent, RecentSettings};
use crate::sinks::Switches;
use crossbeam_channel::Sender;
use settings::{enricher_group, materializer_group};
use sinks::sink_group;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thmanyah_state::{Options, Store};
use tokio_util::sync::CancellationToken;
use watches::{Unsettle, host_of};
use worker::worker_name;

/// How long the brokers may take to describe the topics.
const DESCRIBE: Duration = Duration::from_secs(30);

/// The wall clock, in milliseconds since the epoch.
#[allow(clippy::disallowed_methods)]
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// What the parts of the process share.
struct Process {
    edge: Kafka,
    config: Arc<Config>,
    budget: Budget,
    topics: Topics,
    ids: BTreeMap<String, TopicId>,
    cluster: String,
    store: Store,
    table: ContentTable,
    watermark: ContentWatermark,
    metrics: Metrics,
    health: Arc<Health>,
    unsettle: Unsettle,
    /// Where the deliveries of each sink run.
    sinks: Vec<tokio::runtime::Runtime>,
    stop: Arc<AtomicBool>,
    asked: CancellationToken,
    threads: Vec<(String, JoinHandle<Result<(), RunError>>)>,
}

/// Runs until `asked` is cancelled or a part fails.
pub fn run(config: Config, topics: Topics, asked: CancellationToken) -> Result<(), RunError> {
    let listener =
        std::net::TcpListener::bind(config.listen).map_err(|reason| RunError::Listen {
            listen: config.listen,
            reason,
        })?;
    let limit = config
        .memory
        .limit
        .map_or_else(memory_limit, |bytes| bytes.0);
    let budget = Budget::of(limit, config.enricher.workers, topics.raw_partitions);
    tracing::info!(limit, ?budget, "memory");
    let or = |bytes: Option<Bytes>, share: u64| bytes.map_or(share, |bytes| bytes.0) as usize;
    let options = Options {
        block_cache_bytes: or(config.store.memory, budget.block_cache),
        memtable_bytes: or(config.store.memtable_bytes, budget.memtables),
        wal_bytes: config.store.wal_bytes.0,
        ..Options::default()
    };
    let store = Store::open(&config.state_dir, &options)?;
    let rows = config.content.cache_rows.min(budget.content_rows);
    let table = ContentTable::new(store.clone(), rows);
    let largest = settings::largest_record(&topics);
    let (kafka, names) = (config.kafka.clone(), config.topics.clone());
    let limits = LimitReader::new(kafka, names, largest, asked.clone());
    let (client, shares) = (config.kafka.client(), (budget.fetched, budget.sent));
    let edge = Kafka::new(client, shares, limits, &topics.limits.within(largest));
    let reader = edge.offsets(&enricher_group(&config), Isolation::Committed)?;
    let names = &config.topics;
    let owned = [
        &names.content_changelog,
        &names.pending,
        &names.seen,
        &names.enriched,
    ];
    let owned: Vec<&str> = owned.iter().map(|name| name.as_str()).collect();
    let ids = topic_ids(reader.client(), &owned, DESCRIBE)?;
    let cluster = reader
        .client()
        .fetch_cluster_id(DESCRIBE)
        .unwrap_or_default();
    drop(reader);
    let health = Health::with_limit(config.kafka.stuck_after);
    let watermark = ContentWatermark::new(config.enricher.deadline, edge.instant());
    let process = Process {
        edge,
        config: Arc::new(config),
        budget,
        topics,
        ids,
        cluster,
        store,
        table,
        watermark,
        metrics: Metrics::new(),
        health: Arc::new(health),
        unsettle: Unsettle::default(),
        sinks: Vec::new(),
        stop: Arc::new(AtomicBool::new(false)),
        asked,
        threads: Vec::new(),
    };
    if process.asked.is_cancelled() {
        // A signal came before there was anything to finish.
        return Ok(());
    }
    process.start_and_watch(listener)
}

impl Process {
    fn start_and_watch(mut self, listener: std::net::TcpListener) -> Result<(), RunError> {
        let settings = ReplicaSettings {
            topic: self.config.topics.content_changelog.to_string(),
            topic_id: self.id(&self.config.topics.content_changelog),
            partitions: self.topics.content_changelog_partitions,
            wakeups: WAKEUPS,
        };
        let (store, table) = (self.store.clone(), self.table.clone());
        let mut replica = Replica::new(self.edge.clone(), settings, store, table);
        let positions = replica.positions();
        let recent = self.recent()?;
        let (moved, rebalanced) = crossbeam_channel::bounded(1);
        let mut outcome = self.start_watchdog();
        if self.config.roles.enricher {
            let started = self.start_workers(&mut replica, &positions, recent.as_ref(), moved);
            outcome = outcome.and(started);
        }
        self.start_replica(replica);
        if self.config.roles.materializer {
            self.start_materializer(&positions);
        }
        self.start_watermark(&positions);
        let switches = Switches::open(&self.config.state_dir, &self.sink_names())?;
        let outcome = outcome
            .and_then(|()| self.start_group_watch(rebalanced))
            .and_then(|()| self.start_sinks(&switches));
        let served = self.serve(listener, recent.as_ref(), switches);
        let watched = outcome.and(served).inspect(|_| self.watch());
        self.stop_all(watched, recent)
    }

    fn id(&self, topic: &str) -> TopicId {
        self.ids.get(topic).copied().unwrap_or_default()
    }

    fn recent(&self) -> Result<Option<Recent>, RunError> {
        let config = &self.config;
        if !config.recent.enabled {
            return Ok(None);
        }
        let settings = RecentSettings {
            client: self.edge.consumer(),
            topic: config.topics.enriched.to_string(),
            retention: config.recent.retention,
        };
        Ok(Some(Recent::start(settings, self.store.clone())?))
    }

    fn start_workers(
        &mut self,
        replica: &mut Replica<Kafka>,
        positions: &ReplicaPositions,
        recent: Option<&Recent>,
        moved: Sender<()>,
    ) -> Result<(), RunError> {
        let config = Arc::clone(&self.config);
        let topics = &config.topics;
        let owned = {
            let (recent, id) = (recent.cloned(), self.id(&topics.enriched));
            Ownership::new(move |partitions| {
                // A full queue means that the watch is about to look.
                let _ = moved.try_send(());
                if let Some(recent) = &recent {
                    recent.own(partitions.into_iter().map(|p| (p, id)).collect());
                }
            })
        };
        let settings = Arc::new(self.worker_settings());
        let barrier = Arc::new(self.barrier_settings());
        let leases = Leases::default();
        self.start_orphans(leases.clone());
        for number in 0..self.config.enricher.workers {
            let name = worker_name(number);
            let beat = self.health.worker(&name, self.edge.now_ms());
            // Not ready before it is in the group and knows its partitions.
            self.health.set_restoring(&name, 0, 0);
            let around = Surroundings {
                edge: self.edge.clone(),
                store: self.store.clone(),
                leases: leases.clone(),
                replica: positions.clone(),
                watermark: self.watermark.clone(),
                metrics: self.metrics.clone(),
                health: Arc::clone(&self.health),
                stop: Arc::clone(&self.stop),
            };
            let restorer =
                Restorer::start(format!("restore {number}"), Arc::clone(&barrier), around)
                    .map_err(WorkerError::from)?;
            let instance = self.worker_instance(number);
            let raw = &topics.engagement_events_raw;
            let producer = self.producer_settings(&instance);
            let mut member = self.member_settings(enricher_group(&self.config), instance, raw);
            if number == 0 {
                member.unsettle = Arc::clone(&self.unsettle.enricher);
            }
            let parts = WorkerParts {
                edge: self.edge.clone(),
                number,
                settings: Arc::clone(&settings),
                restorer,
                view: StoreView {
                    content: self.table.clone(),
                    store: self.store.clone(),
                },
                store: self.store.clone(),
                wakeups: replica.wakeups(),
                watermark: self.watermark.clone(),
                metrics: self.metrics.clone(),
                beat,
                health: Arc::clone(&self.health),
                owned: owned.clone(),
            };
            self.spawn(name, move |stop| {
                let (edge, metrics) = (parts.edge.clone(), parts.metrics.clone());
                let transactor = Transactor::start(edge, producer, member, metrics)
                    .map_err(WorkerError::from)?;
                Ok(Worker::new(parts, transactor).run(stop)?)
            });
        }
        Ok(())
    }

    fn start_replica(&mut self, replica: Replica<Kafka>) {
        let (metrics, health) = (self.metrics.clone(), Arc::clone(&self.health));
        health.set_restoring("content", 0, 0);
        self.spawn("content replica".to_owned(), move |stop| {
            Ok(replica.run(stop, &metrics, &health)?)
        });
    }

    fn start_materializer(&mut self, positions: &ReplicaPositions) {
        let config = Arc::clone(&self.config);
        let instance = self.materializer_instance();
        let group = materializer_group(&config);
        let producer = self.producer_settings(&instance);
        let mut member = self.member_settings(group, instance, &config.topics.content_raw);
        member.unsettle = Arc::clone(&self.unsettle.materializer);
        let settings = MaterializerSettings {
            producer,
            member,
            changelog_topic: config.topics.content_changelog.to_string(),
            changelog_partitions: self.topics.content_changelog_partitions,
            dlq_topic: config.topics.dlq.to_string(),
            limits: self.topics.limits.within(self.largest_record()),
            time: config.content.time,
            commit_interval: config.content.commit_interval,
        };
        let (table, positions) = (self.table.clone(), positions.clone());
        let (edge, metrics) = (self.edge.clone(), self.metrics.clone());
        let name = "materializer".to_owned();
        let beat = self.health.worker(&name, self.edge.now_ms());
        let health = Arc::clone(&self.health);
        health.set_restoring(&name, 0, 0);
        self.spawn(name.clone(), move |stop| {
            let clock = edge.clone();
            let materializer = Materializer::start(edge, settings, table, positions, metrics)?;
            let ready = || health.set_ready(&name);
            Ok(materializer.run(stop, || beat.beat(clock.now_ms()), ready)?)
        });
    }

    fn start_watermark(&mut self, positions: &ReplicaPositions) {
        let config = Arc::clone(&self.config);
        let settings = WatermarkSettings {
            group: materializer_group(&config),
            raw_topic: config.topics.content_raw.to_string(),
            raw_partitions: self.topics.content_raw_partitions,
            changelog_topic: config.topics.content_changelog.to_string(),
            changelog_partitions: self.topics.content_changelog_partitions,
        };
        let (watermark, positions) = (self.watermark.clone(), positions.clone());
        let (edge, metrics) = (self.edge.clone(), self.metrics.clone());
        self.spawn("content watermark".to_owned(), move |stop| {
            Ok(watermark.run(edge, settings, positions, stop, &metrics)?)
        });
    }

    /// Starts a thread; when it ends, for whatever reason, the process stops.
    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce(&AtomicBool) -> Result<(), RunError> + Send + 'static,
    ) {
        let (stop, asked) = (Arc::clone(&self.stop), self.asked.clone());
        let spawned = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                // Also when the body panics.
                let _ended = asked.drop_guard();
                let outcome = body(&stop);
                // Told here, too: should another part be stuck, the process ends without another word.
                if let Err(error) = &outcome
                    && !error.is_stop()
                {
                    tracing::error!(%error, "a part has failed: stopping");
                }
                outcome
            });
        match spawned {
            Ok(thread) => self.threads.push((name, thread)),
            Err(error) => {
                tracing::error!(%error, name, "cannot start a thread");
                self.asked.cancel();
            }
        }
    }

    /// Waits until a signal came or a part ended.
    fn watch(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(self.asked.cancelled());
        }
    }

    /// Stops every part; the first failure is told.
    fn stop_all(
        self,
        watched: Result<tokio::runtime::Runtime, RunError>,
        recent: Option<Recent>,
    ) -> Result<(), RunError> {
        self.asked.cancel();
        self.stop.store(true, Ordering::Relaxed);
        let (mut outcome, mut fenced) = (Ok(()), None);
        for (name, thread) in self.threads {
            let ended = thread.join().unwrap_or(Err(RunError::Panicked(name)));
            match ended {
                Err(error) if error.is_stop() => {}
                // That there is a successor explains all else.
                Err(error) if error.is_fenced() => {
                    fenced = error.fenced_member().map(str::to_owned).or(fenced);
                }
                Err(error) if outcome.is_ok() => outcome = Err(error),
                Err(error) => tracing::error!(%error, "another part failed"),
                Ok(()) => {}
            }
        }
        let stopped = recent.map_or(Ok(()), Recent::stop);
        // A drop would wait for calls that block, however long they take.
        for sink in self.sinks {
            sink.shutdown_timeout(Duration::from_secs(1));
        }
        if let Some(instance) = fenced {
            let sinks = ["bigquery", "redis", "http"].map(|name| sink_group(&self.config, name));
            let ours = [
                enricher_group(&self.config),
                materializer_group(&self.config),
            ];
            let groups: Vec<String> = ours.into_iter().chain(sinks).collect();
            let host = host_of(&self.config.kafka.client(), &groups, &instance);
            return Err(RunError::Fenced(FencedBy { instance, host }));
        }
        stopped?;
        let runtime = watched?;
        runtime.shutdown_timeout(Duration::from_secs(2));
        tracing::info!("stopped");
        outcome
    }
}
