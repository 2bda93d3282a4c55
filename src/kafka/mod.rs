//! The edge to Kafka.

mod cluster;
mod topic_spec;
pub mod topics;
