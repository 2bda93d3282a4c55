//! The facts and the rules: events, content, engagement, the join, the ledger. Pure; std and serde only.

mod content;
mod dead_letter;
mod engagement;
mod enriched;
mod event;
mod ids;
mod ledger;
mod parked;
mod seen;
mod time;

pub use content::{ContentRow, ContentType, ContentVersion, JoinContent};
pub use dead_letter::{DeadLetter, Reason};
pub use engagement::{Engagement, Hundredths};
pub use enriched::{Enriched, JoinStatus};
pub use event::{Event, EventType};
pub use ids::{ContentId, EventId, Offset, Partition, UserId};
pub use ledger::{Ledger, LedgerError};
pub use parked::ParkedEvent;
pub use seen::{Checkpoint, Container};
pub use time::{TimeError, Timestamp};
