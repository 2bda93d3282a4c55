//! thmanyah: an exactly-once engagement processor. Modules in reading order.

pub mod domain;
// Bytes to facts and back.
pub mod codec;
// The step of the enricher: pure.
pub mod enricher;
// The edges.
pub mod config;
pub mod content;
pub mod health;
pub mod http;
pub mod kafka;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod recent;
pub mod shutdown;
pub mod sinks;
// The loop, and the process around it.
pub mod run;
// What a person types.
pub mod commands;
