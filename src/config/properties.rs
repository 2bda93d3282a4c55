//! `[kafka.properties]`: what librdkafka is told beside our own settings, and what it must not be told.

use super::error::ConfigError;
use super::layers::{Layers, Raw};
use super::sections::KafkaConfig;
use super::values::{Value, quoted};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::fmt;

/// Librdkafka properties of the user. `Debug` does not show their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

/// Properties that a setting of ours sets.
const OWN: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.bootstrap_servers"),
    ("metadata.broker.list", "kafka.bootstrap_servers"),
    ("group.id", "app"),
    ("group.instance.id", "instance"),
    ("transactional.id", "instance"),
    ("transaction.timeout.ms", "kafka.transaction_timeout"),
    ("session.timeout.ms", "kafka.session_timeout"),
    ("heartbeat.interval.ms", "kafka.heartbeat"),
    ("max.poll.interval.ms", "kafka.max_poll_interval"),
    ("log_level", "log.filter"),
];

/// Properties that stay as they are, and why.
const FIXED: &[(&str, &str)] = &[
    (
        "enable.idempotence",
        "exactly-once needs idempotent producers",
    ),
    (
        "enable.gapless.guarantee",
        "exactly-once recovers gaps by aborting the transaction",
    ),
    (
        "acks",
        "exactly-once needs the acknowledgement of all replicas",
    ),
    (
        "request.required.acks",
        "exactly-once needs the acknowledgement of all replicas",
    ),
    ("max.in.flight", "order within a partition rests on it"),
    (
        "max.in.flight.requests.per.connection",
        "order within a partition rests on it",
    ),
    (
        "retries",
        "a transaction decides when to give up, not a record",
    ),
    (
        "message.send.max.retries",
        "a transaction decides when to give up, not a record",
    ),
    (
        "message.timeout.ms",
        "a transaction decides when to give up, not a record",
    ),
    (
        "delivery.timeout.ms",
        "a transaction decides when to give up, not a record",
    ),
    (
        "retry.backoff.ms",
        "a hidden retry of a commit is told by how long it takes",
    ),
    (
        "retry.backoff.max.ms",
        "a hidden retry of a commit is told by how long it takes",
    ),
    (
        "statistics.interval.ms",
        "a hidden retry of a commit shows in the statistics",
    ),
    (
        "message.max.bytes",
        "every record that the input topics accept must fit",
    ),
    (
        "partitioner",
        "the partition is the input record's, or murmur2 of the key",
    ),
    ("isolation.level", "only committed records may be read"),
    (
        "auto.offset.reset",
        "a lost position must stop the process, not skip records",
    ),
    (
        "enable.auto.commit",
        "offsets are committed inside transactions",
    ),
    (
        "auto.commit.enable",
        "offsets are committed inside transactions",
    ),
    (
        "auto.commit.interval.ms",
        "offsets are committed inside transactions",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed inside transactions",
    ),
    (
        "offset.store.method",
        "offsets are committed inside transactions",
    ),
    (
        "group.protocol",
        "fencing rests on static members of the classic protocol",
    ),
    (
        "group.protocol.type",
        "fencing rests on static members of the classic protocol",
    ),
    (
        "group.remote.assignor",
        "fencing rests on static members of the classic protocol",
    ),
    (
        "partition.assignment.strategy",
        "rebalances are cooperative-sticky",
    ),
    (
        "allow.auto.create.topics",
        "topics are created with the right partitions or not at all",
    ),
    ("enable.partition.eof", "ends are found by position"),
    ("log.queue", "logs are read inside poll"),
    (
        "test.mock.num.brokers",
        "it replaces Kafka by a mock that keeps nothing",
    ),
];

/// Properties below `sasl.` and `ssl.` that hold nothing secret; the rest there is never printed.
const PRINTABLE: &[&str] = &[
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.kerberos.service.name",
    "sasl.kerberos.principal",
    "sasl.kerberos.keytab",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "ssl.providers",
    "ssl.endpoint.identification.algorithm",
];

/// Whether a property's value must not be printed. What is not known to be harmless counts as secret.
fn is_secret(name: &str) -> bool {
    let guarded = name.starts_with("sasl.") || name.starts_with("ssl.");
    let telling = ["password", "secret", "token", "private"];
    guarded && !PRINTABLE.contains(&name)
        || telling.iter().any(|word| name.contains(word)) && !PRINTABLE.contains(&name)
}

impl Properties {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Each name with its value as TOML, none when that is secret.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        self.iter()
            .map(|(name, value)| (name, (!is_secret(name)).then(|| quoted(value))))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Value for Properties {
    const EXPECTS: &'static str = "a table of librdkafka properties";
    const OPEN: bool = true;

    fn parse(_: &Raw) -> Result<Self, String> {
        Err("must be a table".to_owned())
    }

    fn find(layers: &Layers, key: &str) -> Result<Option<Self>, ConfigError> {
        let mut properties = Self::default();
        for (name, given) in layers.below(key) {
            let outcome = match &given.raw {
                Raw::Scalar(value) => {
                    properties.0.insert(name.to_owned(), value.clone());
                    check(name, value)
                }
                Raw::List(_) => Err("must be a text, a number or a truth value".to_owned()),
            };
            outcome.map_err(|problem| ConfigError::Invalid {
                key: format!("{key}.{name}"),
                origin: given.origin.clone(),
                value: None,
                problem,
            })?;
        }
        Ok(Some(properties))
    }

    fn to_toml(&self) -> Option<String> {
        None
    }
}

/// Whether this property may be set, and to this.
fn check(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, own)) = OWN.iter().find(|(property, _)| *property == name) {
        return Err(format!(
            "cannot be set here: it follows from the setting `{own}`"
        ));
    }
    if let Some((_, why)) = FIXED.iter().find(|(property, _)| *property == name) {
        return Err(format!("cannot be set: {why}; remove it"));
    }
    if name.ends_with("_cb") || matches!(name, "opaque" | "default_topic_conf" | "enabled_events") {
        return Err("cannot be set from outside: remove it".to_owned());
    }
    let mut probe = ClientConfig::new();
    probe.set(name, value);
    match probe.create_native_config() {
        Ok(_) => Ok(()),
        // The reason repeats the value.
        Err(KafkaError::ClientConfig(_, reason, ..)) if !is_secret(name) => {
            Err(format!("librdkafka refuses it: {reason}"))
        }
        Err(_) => Err("librdkafka refuses it".to_owned()),
    }
}

impl KafkaConfig {
    /// What every client begins with: the brokers, the user's properties, our name. Never print it whole.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("client.id", "thmanyah");
        // Brokers that were away are missed no longer than they are away; the default goes up to ten seconds.
        client.set("reconnect.backoff.ms", "50");
        client.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in self.properties.iter() {
            client.set(name, value);
        }
        client.set("bootstrap.servers", self.bootstrap_servers.as_str());
        // Explicit, as time-outs and disconnects are told in the log, and a filter of ours must not hide them from the
        // code that listens.
        client.set_log_level(match self.properties.get("debug") {
            Some(_) => RDKafkaLogLevel::Debug,
            None => RDKafkaLogLevel::Info,
        });
        client
    }
}
