//! The sinks of the process: those that are set up, and are among its roles.

use super::{Process, RunError, now_ms};
use crate::config::Config;
use crate::sinks::{
    self, BatchLimits, BigQuerySink, Destination, ExternalSink, LetterSettings, RedisSink, SinkEnd,
    SinkSettings, SinkSurroundings, StateTopic, Switches,
};
use std::sync::Arc;

impl Process {
    /// Starts each sink that is set up. None can hold up another, nor anything else.
    pub(super) fn start_sinks(&mut self, switches: &Switches) -> Result<(), RunError> {
        let config = Arc::clone(&self.config);
        let sinks = &config.sinks;
        self.tell_sinks();
        for name in self.sink_names() {
            match name {
                "bigquery" => {
                    let states = StateTopic {
                        kafka: self.edge.clone(),
                        topic: config.topics.sinks_state.to_string(),
                        partitions: self.topics.sinks_state_partitions,
                        app: config.app.to_string(),
                    };
                    let (records, linger) = (sinks.bigquery.batch_records, sinks.bigquery.linger);
                    let sink = BigQuerySink::new(&sinks.bigquery, states).map_err(SinkEnd::from)?;
                    self.start_sink(sink, BatchLimits { records, linger }, switches)?;
                }
                "redis" => {
                    let (records, linger) = (sinks.redis.batch_records, sinks.redis.linger);
                    let sink = RedisSink::new(&sinks.redis);
                    self.start_sink(sink, BatchLimits { records, linger }, switches)?;
                }
                _ => {
                    let (records, linger) = (sinks.http.batch_records, sinks.http.linger);
                    let sink = ExternalSink::new(&sinks.http).map_err(SinkEnd::from)?;
                    self.start_sink(sink, BatchLimits { records, linger }, switches)?;
                }
            }
        }
        Ok(())
    }

    /// Says which sinks run here, and what the others lack.
    fn tell_sinks(&self) {
        let (roles, sinks) = (&self.config.roles, &self.config.sinks);
        let named = [
            (
                roles.sink_bigquery,
                sinks.bigquery.project.is_some(),
                "bigquery.project",
            ),
            (roles.sink_redis, sinks.redis.url.is_some(), "redis.url"),
            (roles.sink_http, sinks.http.url.is_some(), "http.url"),
        ];
        let lacking = named.iter().filter(|(role, set, _)| *role && !set);
        let unset: Vec<String> = lacking.map(|(.., key)| format!("sinks.{key}")).collect();
        tracing::info!(runs = ?self.sink_names(), ?unset, "sinks");
    }

    /// The names of the sinks that run here.
    pub(super) fn sink_names(&self) -> Vec<&'static str> {
        let (roles, sinks) = (&self.config.roles, &self.config.sinks);
        let runs = [
            (
                "bigquery",
                roles.sink_bigquery && sinks.bigquery.project.is_some(),
            ),
            ("redis", roles.sink_redis && sinks.redis.url.is_some()),
            ("http", roles.sink_http && sinks.http.url.is_some()),
        ];
        runs.into_iter()
            .filter_map(|(name, runs)| runs.then_some(name))
            .collect()
    }

    /// Starts one: its reading thread, and its deliveries on a runtime of their own, so that none waits for another's.
    fn start_sink<D: Destination>(
        &mut self,
        destination: D,
        limits: BatchLimits,
        switches: &Switches,
    ) -> Result<(), RunError> {
        let Some(switch) = switches.of(D::NAME) else {
            return Ok(());
        };
        let config = Arc::clone(&self.config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("sink {}", D::NAME))
            .enable_all()
            .build()?;
        let topics = &config.topics;
        let instance = format!("{}-sink-{}-{}", config.app, D::NAME, config.instance);
        let group = sink_group(&config, D::NAME);
        let settings = SinkSettings {
            client: self.edge.consumer(),
            member: self.member_settings(group, instance, &topics.enriched),
            topic_id: self.id(&topics.enriched),
            partitions: self.topics.raw_partitions,
            limits,
            letters: LetterSettings {
                client: config.kafka.client(),
                topic: topics.dlq.to_string(),
                limit: self
                    .topics
                    .limits
                    .within(self.largest_record())
                    .dead_letters,
                stage: format!("sink-{}", D::NAME),
                source: topics.enriched.to_string(),
            },
        };
        let around = SinkSurroundings {
            metrics: self.metrics.clone(),
            health: Arc::clone(&self.health),
            switch,
            runtime: runtime.handle().clone(),
            now_ms,
        };
        self.sinks.push(runtime);
        self.spawn(format!("sink {}", D::NAME), move |stop| {
            Ok(sinks::run(destination, settings, around, stop)?)
        });
        Ok(())
    }
}

/// The consumer group of a sink.
pub(super) fn sink_group(config: &Config, name: &str) -> String {
    format!("{}-sink-{name}", config.app)
}
