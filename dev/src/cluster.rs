//! Three brokers, each a controller too, that replicate everything: what one broker cannot show.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataTopic;

use crate::broker::Node;
use crate::child::LOOK_AGAIN;
use crate::kafka_format::kafka_uuid;
use crate::{Broker, BrokerOptions, Error, Proxy, Topic, free_port, topic};

/// Nodes of a cluster.
const NODES: usize = 3;
/// How long one question about the replicas may take.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Everything is there three times, and twice is enough to go on.
const PROPERTIES: [(&str, &str); 9] = [
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
    ("share.coordinator.state.topic.replication.factor", "3"),
    ("share.coordinator.state.topic.min.isr", "2"),
    // These threads are made for each listener.
    ("num.network.threads", "1"),
    ("num.io.threads", "4"),
];

/// A cluster of three brokers. Dropped, all are killed and their directories removed.
///
/// [`Self::client`] reaches the brokers directly. Clients of a *route* reach the same brokers through proxies that no other
/// route uses, one in front of each broker.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Mutex<Broker>>,
    routes: Vec<Vec<Proxy>>,
    bootstrap: String,
}

impl Cluster {
    /// Starts the brokers with `routes` routes, and returns when all answer.
    pub fn start(routes: usize) -> Result<Self, Error> {
        let routes = (0..routes)
            .map(|_| (0..NODES).map(|_| Proxy::start()).collect())
            .collect::<Result<Vec<Vec<Proxy>>, Error>>()?;
        let ports = (0..NODES)
            .map(|_| Ok((free_port()?, free_port()?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let joined = |parts: Vec<String>| parts.join(",");
        let bootstrap = ports.iter().map(|(port, _)| format!("127.0.0.1:{port}"));
        let bootstrap = joined(bootstrap.collect());
        let voters = (1..).zip(&ports);
        let voters = joined(
            voters
                .map(|(id, (_, port))| format!("{id}@127.0.0.1:{port}"))
                .collect(),
        );
        let cluster = kafka_uuid();
        let mut nodes = Vec::new();
        for (id, (port, controller_port)) in (1..).zip(ports) {
            let mut options = BrokerOptions::default()
                .with("node.id", &id.to_string())
                .with("controller.quorum.voters", &voters);
            for (key, value) in PROPERTIES {
                options = options.with(key, value);
            }
            for proxy in routes.iter().filter_map(|proxies| proxies.get(nodes.len())) {
                options = options.behind(proxy);
            }
            let node = Node {
                id,
                cluster: cluster.clone(),
                port,
                controller_port,
                bootstrap: bootstrap.clone(),
            };
            nodes.push(Broker::prepare(node, options)?);
        }
        // None answers before most of them run.
        for node in &mut nodes {
            node.spawn()?;
        }
        for node in &mut nodes {
            node.await_ready()?;
        }
        Ok(Self {
            nodes: nodes.into_iter().map(Mutex::new).collect(),
            routes,
            bootstrap,
        })
    }

    /// How many brokers there are.
    pub fn brokers(&self) -> usize {
        self.nodes.len()
    }

    /// One of the brokers, from 0, to be killed, frozen or started again by one thread at a time.
    pub fn broker(&self, node: usize) -> Option<MutexGuard<'_, Broker>> {
        let broker = self.nodes.get(node)?;
        Some(broker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The proxies of a route, one for each broker.
    pub fn proxies(&self, route: usize) -> &[Proxy] {
        self.routes.get(route).map_or(&[], Vec::as_slice)
    }

    /// The addresses of the brokers for clients of a route.
    pub fn route(&self, route: usize) -> String {
        let addresses: Vec<String> = self.proxies(route).iter().map(Proxy::bootstrap).collect();
        addresses.join(",")
    }

    /// The addresses of the brokers for clients that go directly.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client configuration with the direct addresses filled in.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Creates topics, replicated; one that exists already is left as it is.
    pub fn create_topics(&self, topics: &[Topic]) -> Result<(), Error> {
        topic::create(&self.bootstrap, topics)
    }

    /// Waits until every replica of every partition is in sync again. Returns whether that came about in time.
    pub fn await_in_sync(&self, limit: Duration) -> Result<bool, Error> {
        let consumer: BaseConsumer = self.client().create().map_err(|error| Error::Kafka {
            doing: "ask for the replicas".into(),
            reason: error.to_string(),
        })?;
        let start = Instant::now();
        loop {
            if let Ok(metadata) = consumer.fetch_metadata(None, ASK_LIMIT) {
                let topics = metadata.topics().iter();
                let mut partitions = topics.flat_map(MetadataTopic::partitions);
                if partitions.all(|partition| {
                    partition.leader() >= 0 && partition.isr().len() == partition.replicas().len()
                }) {
                    return Ok(true);
                }
            }
            if start.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
