//! The one way to start the real services: a Kafka broker, PostgreSQL, Kafka Connect with Debezium, Redis, an emulator of
//! BigQuery, and `thmanyah run` itself. The demo, the tests and the benches all use it.
//!
//! Every service runs on free loopback ports and in a temporary directory, is awaited by asking it, and is gone (the
//! process and the directory) when its handle is dropped, or when the process that started it dies in whatever way.
//! Nothing here needs an async runtime, and everything may be called from inside one.
//!
//! ```no_run
//! use thmanyah_dev::{Broker, BrokerOptions, Topic};
//!
//! # fn main() -> Result<(), thmanyah_dev::Error> {
//! let mut broker = Broker::start(BrokerOptions::default())?;
//! broker.create_topics(&[Topic::new("engagement-events.raw", 4)])?;
//! broker.kill9();
//! broker.restart()?; // the same port, the same data
//! # Ok(())
//! # }
//! ```

mod bigquery;
mod broker;
mod cache;
mod child;
mod cluster;
mod connect;
mod error;
mod external;
mod http;
mod kafka_format;
mod ports;
mod postgres;
mod processor;
mod proxy;
mod redis;
mod scratch_dir;
mod small_disk;
mod topic;

pub use bigquery::BigQuery;
pub use broker::{Broker, BrokerOptions};
pub use cache::cache_dir;
pub use cluster::Cluster;
pub use connect::{Connect, INPUT_TOPICS};
pub use error::Error;
pub use external::ExternalSystem;
pub use http::{Answer, get};
pub use ports::free_port;
pub use postgres::Postgres;
pub use processor::{Processor, ProcessorOptions, sum_of, target_dir};
pub use proxy::{ApiKey, Proxy, Requests, Trap};
pub use redis::{Redis, RedisOptions};
pub use scratch_dir::ScratchDir;
pub use small_disk::SmallDisk;
pub use topic::{Topic, read as read_topic};
