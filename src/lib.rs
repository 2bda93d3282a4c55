//! thmanyah: an exactly-once engagement processor. Modules in reading order.

pub mod commands;
pub mod config;
pub mod domain;
pub mod kafka;
pub mod logging;
pub mod metrics;
pub mod shutdown;
