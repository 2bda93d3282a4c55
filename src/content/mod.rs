//! The content table: written by the materializer, followed by the replica, read through a cache, and vouched for by the
//! content watermark.
//!
//! ```text
//! content.raw ─► materializer ─txn─► content.changelog ─► replica ─► RocksDB ─► ContentTable (cache) ─► joins, queries
//! ```

mod batch;
mod error;
mod letter;
mod materializer;
mod pace;
mod positions;
mod replica;
mod restore;
mod rows;
mod table;
mod unreplicated;
mod wakeups;
mod watermark;

pub use error::MaterializerError;
pub use materializer::{Materializer, MaterializerSettings};
pub use positions::ReplicaPositions;
pub use replica::{Following, Replica, ReplicaError, ReplicaSettings};
pub use rows::{StoredContent, StoredError, read_stored};
pub(crate) use rows::{split, version_bytes};
pub use table::{ContentTable, ContentTableError};
pub use wakeups::{WAKEUPS, Wakeups};
pub use watermark::{ContentWatermark, Vouching, WatermarkSettings};
