//! Sinks: independent readers of the enriched topic, so that a slow destination never holds up another.
//!
//! Reading order: `destination` says what a destination must be able to do; `breaker` when it is left alone; `letters` where
//! goes what it refuses; then the destinations.

mod bigquery;
mod breaker;
mod destination;
mod letters;

pub use bigquery::{BigQueryLane, BigQuerySink, StateTopic};
pub use breaker::{Breaker, pause_before};
pub use destination::{Batch, Destination, Frame, Lane, Record, SinkError, Taken};
pub use letters::{LetterSettings, Letters};
