//! What runs beside the data's flow: the watch over the groups, the watchdog, the removal of orphaned rows.

use super::census::Census;
use super::error::RunError;
use super::group_watch::{GroupWatch, Watched};
use super::lease::Leases;
use super::orphans::Orphans;
use super::settings::{enricher_group, materializer_group};
use super::watchdog::Watchdog;
use super::{Process, now_ms};
use crate::kafka::GroupViewer;
use crate::shutdown;
use crossbeam_channel::Receiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tells this process's members that their group has to rebalance. The first of a group's members here does it.
#[derive(Clone, Default)]
pub(super) struct Unsettle {
    pub(super) enricher: Arc<AtomicBool>,
    pub(super) materializer: Arc<AtomicBool>,
}

impl Process {
    /// Starts the watch over the groups of which this process is a member.
    pub(super) fn start_group_watch(&mut self, rebalanced: Receiver<()>) -> Result<(), RunError> {
        let config = Arc::clone(&self.config);
        let client = config.kafka.client();
        let prefix = format!("{}-", config.app);
        let mut groups = Vec::new();
        if config.roles.enricher {
            let workers = 0..config.enricher.workers;
            let ours = workers.map(|number| self.worker_instance(number)).collect();
            let (topic, partitions) = (
                &config.topics.engagement_events_raw,
                self.topics.raw_partitions,
            );
            groups.push(Watched {
                viewer: GroupViewer::new(&client, &enricher_group(&config))?,
                census: Census::new(topic.as_str(), partitions, ours, &prefix),
                unsettle: Arc::clone(&self.unsettle.enricher),
            });
        }
        if config.roles.materializer {
            let ours = BTreeSet::from([self.materializer_instance()]);
            let (topic, partitions) = (
                &config.topics.content_raw,
                self.topics.content_raw_partitions,
            );
            groups.push(Watched {
                viewer: GroupViewer::new(&client, &materializer_group(&config))?,
                census: Census::new(topic.as_str(), partitions, ours, &prefix),
                unsettle: Arc::clone(&self.unsettle.materializer),
            });
        }
        let metrics = self.metrics.clone();
        let watch = GroupWatch {
            groups,
            rebalanced,
            metrics,
        };
        self.spawn("group watch".to_owned(), move |stop| {
            watch.run(stop);
            Ok(())
        });
        Ok(())
    }

    /// Starts the watchdog over the workers.
    pub(super) fn start_watchdog(&mut self) -> Result<(), RunError> {
        let group = if self.config.roles.enricher {
            enricher_group(&self.config)
        } else {
            materializer_group(&self.config)
        };
        let watchdog = Watchdog {
            health: Arc::clone(&self.health),
            viewer: GroupViewer::new(&self.config.kafka.client(), &group)?,
            limit: self.config.kafka.stuck_after,
            now_ms,
        };
        self.spawn("watchdog".to_owned(), move |stop| {
            watchdog.run(stop, shutdown::at_once);
            Ok(())
        });
        Ok(())
    }

    /// Starts the removal of orphaned rows.
    pub(super) fn start_orphans(&mut self, leases: Leases) {
        let orphans = Orphans {
            store: self.store.clone(),
            leases,
            retention: self.config.store.orphan_retention,
            now_ms,
            used_ms: BTreeMap::new(),
        };
        self.spawn("orphans".to_owned(), move |stop| Ok(orphans.run(stop)?));
    }

    /// The transactional id and group instance id of a worker.
    pub(super) fn worker_instance(&self, number: usize) -> String {
        format!("{}-{}-{number}", self.config.app, self.config.instance)
    }

    /// Those of the materializer.
    pub(super) fn materializer_instance(&self) -> String {
        format!("{}-materializer-{}", self.config.app, self.config.instance)
    }
}

/// Where the member of this name runs now, in the words of the brokers.
pub(super) fn host_of(
    client: &rdkafka::ClientConfig,
    groups: &[String],
    instance: &str,
) -> Option<String> {
    groups.iter().find_map(|group| {
        let group = GroupViewer::new(client, group).ok()?.describe().ok()?;
        let mut members = group.members.into_iter();
        let member = members.find(|member| member.instance == instance)?;
        Some(member.host.trim_start_matches('/').to_owned())
    })
}
