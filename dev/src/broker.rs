//! A real Kafka broker: KRaft, plaintext on loopback; the only node of its cluster, or one of several.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rustix::process::Signal;

use crate::child::Service;
use crate::kafka_format::{format_log_dir, kafka_uuid};
use crate::scratch_dir::ScratchDir;
use crate::{Error, Proxy, Topic, cache, free_port, topic};

/// A start takes one to three seconds on an idle machine; a loaded one gets its time.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(15);

pub(crate) const PROPERTIES: &str = include_str!("../server.properties");

/// How a broker differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Further lines of `server.properties`; they override what is there.
    pub properties: Vec<(String, String)>,
    /// Heap in MiB and the full compiler, for a broker under load; small and quick to start if none is given.
    pub heap_mib: Option<u32>,
    /// Proxies in front of it, each by a listener of its own: the port here and the one that clients are told.
    pub proxied: Vec<(u16, u16)>,
}

impl BrokerOptions {
    /// The same with a listener whose clients come through a proxy. Clients of the usual listener do not. Brokers of one
    /// cluster need the same number of proxies in the same order: a client stays with the listener it came by.
    #[must_use]
    pub fn behind(mut self, proxy: &Proxy) -> Self {
        self.proxied.push((proxy.upstream(), proxy.port()));
        self
    }

    /// The same with one more property.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// Which node of which cluster a broker is, and where.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) cluster: String,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
    /// Where clients begin: the addresses of all nodes.
    pub(crate) bootstrap: String,
}

/// A running broker. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Broker {
    // The order of the fields is the order of the end: first the process, then its directory.
    service: Option<Service>,
    dir: ScratchDir,
    node: i32,
    address: String,
    bootstrap: String,
    heap_mib: Option<u32>,
}

impl Broker {
    /// Starts a broker with an empty log, and returns when it answers.
    pub fn start(options: BrokerOptions) -> Result<Self, Error> {
        let port = free_port()?;
        let node = Node {
            id: 1,
            cluster: kafka_uuid(),
            port,
            controller_port: free_port()?,
            bootstrap: format!("127.0.0.1:{port}"),
        };
        let mut broker = Self::prepare(node, options)?;
        broker.restart()?;
        Ok(broker)
    }

    /// A broker with an empty log that does not run yet.
    pub(crate) fn prepare(node: Node, options: BrokerOptions) -> Result<Self, Error> {
        let dir = ScratchDir::new("kafka")?;
        let log_dir = dir.path().join("log");
        format_log_dir(&log_dir, &node.cluster, node.id)?;
        let mut properties = PROPERTIES
            .replace("${DIR}", &log_dir.display().to_string())
            .replace("${PORT}", &node.port.to_string())
            .replace("${CONTROLLER_PORT}", &node.controller_port.to_string());
        properties.push_str(&listeners(
            node.port,
            node.controller_port,
            &options.proxied,
        ));
        for (key, value) in options.properties {
            properties.extend([&key, "=", &value, "\n"]);
        }
        let file = dir.path().join("server.properties");
        std::fs::write(&file, properties)
            .map_err(Error::io(format!("write {}", file.display())))?;
        Ok(Self {
            service: None,
            dir,
            node: node.id,
            address: format!("127.0.0.1:{}", node.port),
            bootstrap: node.bootstrap,
            heap_mib: options.heap_mib,
        })
    }

    /// `HOST:PORT` for clients, of each node of its cluster.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client configuration with the address filled in.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.service.as_ref().map(Service::pid)
    }

    /// Where the broker's log output is.
    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("kafka.out")
    }

    /// The broker's own directory; its partitions are in `log/` of it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Creates topics; one that exists already is left as it is.
    pub fn create_topics(&self, topics: &[Topic]) -> Result<(), Error> {
        topic::create(&self.bootstrap, topics)
    }

    /// Leaves a topic with this one setting of its own; all others are the broker's.
    pub fn alter_topic(&self, topic: &str, key: &str, value: &str) -> Result<(), Error> {
        topic::alter(&self.bootstrap, topic, key, value)
    }

    /// Gives `visit` every committed record that a topic holds now.
    pub fn read_topic(
        &self,
        topic: &str,
        visit: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Error> {
        topic::read(&self.bootstrap, topic, visit)
    }

    /// Ends the broker as a power cut would. [`Self::restart`] brings it back.
    pub fn kill9(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.kill9();
        }
    }

    /// Freezes the broker: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        if let Some(service) = &mut self.service {
            service.signal(Signal::STOP);
        }
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&mut self) {
        if let Some(service) = &mut self.service {
            service.signal(Signal::CONT);
        }
    }

    /// Shuts the broker down in good order. [`Self::restart`] brings it back; dropping it removes its directory.
    pub fn shut_down(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.stop(Signal::TERM, STOP_LIMIT);
        }
    }

    /// Stops the broker in good order and removes its directory.
    pub fn stop(mut self) {
        self.shut_down();
    }

    /// Starts it again (killing it if it still runs) on the same port with the same data.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.spawn()?;
        self.await_ready()
    }

    /// The same, and waits for nothing.
    pub(crate) fn spawn(&mut self) -> Result<(), Error> {
        self.kill9();
        let class_path = cache::class_path("jars/kafka")?;
        let service = Service::start(
            "the Kafka broker",
            Path::new("java"),
            &self.log_file(),
            None,
            Signal::KILL,
            |command| {
                command
                    .args(cache::java_flags("jars/kafka.jsa"))
                    // The later flag wins.
                    .args(self.heap_mib.map(|mib| format!("-Xmx{mib}m")))
                    .args(self.heap_mib.map(|_| "-XX:TieredStopAtLevel=4"))
                    .args(["-cp", &class_path, "kafka.Kafka"])
                    .arg(self.dir.path().join("server.properties"));
            },
        )?;
        self.service = Some(service);
        Ok(())
    }

    /// Waits until a broker that was spawned answers.
    pub(crate) fn await_ready(&mut self) -> Result<(), Error> {
        let Some(mut service) = self.service.take() else {
            return Ok(());
        };
        service.await_ready("an answer to a metadata request", START_LIMIT, || {
            self.answers()
        })?;
        self.service = Some(service);
        Ok(())
    }

    /// Whether it accepts connections and names itself as a live broker.
    fn answers(&self) -> bool {
        if std::net::TcpStream::connect(&self.address).is_err() {
            return false;
        }
        let consumer: Result<BaseConsumer, _> = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .create();
        consumer.is_ok_and(|consumer| {
            consumer
                .fetch_metadata(None, Duration::from_secs(2))
                .is_ok_and(|metadata| {
                    let mut brokers = metadata.brokers().iter();
                    brokers.any(|broker| broker.id() == self.node)
                })
        })
    }
}

/// The properties that name every listener; they override those for a broker without a proxy.
fn listeners(port: u16, controller: u16, proxied: &[(u16, u16)]) -> String {
    // The name of a listener, where it is bound, and what clients are told.
    let mut all = vec![("PLAINTEXT".to_owned(), port, Some(port))];
    all.push(("CONTROLLER".to_owned(), controller, None));
    for (number, (here, told)) in proxied.iter().enumerate() {
        all.push((format!("PROXY{number}"), *here, Some(*told)));
    }
    let joined = |parts: Vec<String>| parts.join(",");
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let bound = joined(all.iter().map(|(name, here, _)| at(name, *here)).collect());
    let told = all
        .iter()
        .filter_map(|(name, _, told)| Some(at(name, (*told)?)));
    let advertised = joined(told.collect());
    let protocols = joined(
        all.iter()
            .map(|(name, ..)| format!("{name}:PLAINTEXT"))
            .collect(),
    );
    format!(
        "listeners={bound}\nadvertised.listeners={advertised}\nlistener.security.protocol.map={protocols}\n"
    )
}
