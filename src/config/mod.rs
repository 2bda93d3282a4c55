//! Settings: each defined once, read from a TOML file, then the environment, then flags, and validated before anything
//! starts. `thmanyah config` prints what this module knows.
//!
//! Reading order: [`sections`] is the list of all settings; `definition` is how one is declared; `layers` gathers what
//! the file, the environment and the flags say; `values` and `choices` are the types that a setting can have;
//! `properties` guards `[kafka.properties]`; `show` prints the effective settings.

mod choices;
mod definition;
mod error;
mod layers;
mod memory;
mod names;
mod properties;
mod quantities;
mod sections;
mod show;
mod sinks;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests;
mod toml_file;
mod values;

pub use choices::{LogFormat, Roles};
pub use error::ConfigError;
pub use layers::{Flags, Layers, Origin};
pub use memory::{Budget, memory_limit};
pub use names::{BrokerList, InstanceName, PeerUrl, TopicName};
pub use properties::Properties;
pub use quantities::{Bytes, parse_duration, show_duration};
pub use sections::{
    Config, ContentConfig, EnricherConfig, HttpConfig, KafkaConfig, LogConfig, MemoryConfig,
    RecentConfig, SeenConfig, StoreConfig, TopicNames,
};
pub use show::effective;
pub use sinks::{
    BigQueryConfig, ExternalConfig, REDIS, RedisConfig, SinksConfig, WEB, check_url, secret,
};
pub use values::Credential;
