//! Recently published events: a follower of the enriched topic that feeds queries, outside the exactly-once loop.
//!
//! It is a fold of that topic, which is its own changelog: rows leave the store after `retention` from publication. What a
//! crash loses, rows and position together, is read again.

mod batch;
mod follower;
mod handle;
mod keys;
mod log;
mod query;
mod record;
mod status;
mod sweep;

pub use batch::{Batch, Known, Record};
pub use handle::{Recent, RecentError, RecentSettings};
pub use log::LogError;
pub use query::{EventKey, Filter, Limits, Page, PageRequest, dropped_up_to, find, page};
pub use record::Head;
pub use status::{RecentStatus, RecentView};
pub use sweep::{Swept, sweep};

#[cfg(test)]
mod tests;
