//! thmanyah: an exactly-once engagement processor. Modules in reading order.

pub mod config;
pub mod domain;
