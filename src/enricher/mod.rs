//! The enricher's step, sans-IO: a state machine that is fed records, content arrivals and the passing of the content
//! watermark, and stages what they cause. It knows no Kafka, no store and no clock; `run` executes what it stages.
//!
//! Reading order: [`Task`] is one partition's processing; [`Staged`] is what one transaction will hold; `pending` is the
//! order in which parked events leave; [`View`] is what the step may look up.

mod error;
mod pending;
mod seen;
mod staged;
mod task;
mod view;

pub use error::TaskError;
pub use staged::{Counts, Headers, Output, Span, Staged, Stream};
pub use task::{RawRecord, Rules, Task};
pub use view::View;

#[cfg(test)]
mod tests;
