//! The content table: written by the materializer, followed by the replica, read through a cache, and vouched for by the
//! content watermark.
//!
//! ```text
//! content.raw ─► materializer ─txn─► content.changelog ─► replica ─► RocksDB ─► ContentTable (cache) ─► joins, queries
//! ```

mod materializer;
mod replica;
mod rows;
mod table;
mod watermark;

pub use materializer::{Materializer, MaterializerSettings};
pub use replica::{Replica, ReplicaPositions, ReplicaSettings, Wakeups};
pub use rows::{StoredContent, StoredError, read_stored};
pub use table::{ContentTable, ContentTableError};
pub use watermark::{ContentWatermark, WatermarkSettings};
