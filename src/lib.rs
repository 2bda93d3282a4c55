//! thmanyah: an exactly-once engagement processor. Modules in reading order.

pub mod domain;
