//! thmanyah: an exactly-once engagement processor. Modules in reading order.

pub mod codec;
pub mod domain;
pub mod http;
pub mod recent;
