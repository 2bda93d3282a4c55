//! The enricher's step, sans-IO: a state machine that is fed records, content arrivals and the passing of the content
//! watermark, and stages what they cause. It knows no Kafka, no store and no clock; `run` executes what it stages.
//!
//! Reading order: [`Task`] is one partition's processing; [`Rules`] is what it is told; [`Staged`] is what one transaction
//! will hold; `pending` is the order in which parked events leave; `fit` and `bury` turn away what is too large or bad;
//! [`View`] is what the step may look up.

mod bury;
mod error;
mod fit;
mod pending;
mod rules;
mod seen;
mod staged;
mod task;
mod view;

pub use error::TaskError;
pub use rules::{KeyRules, Misplaced, Rules, SizeLimits};
pub use staged::{Counts, Headers, Loss, Output, Span, Staged, Stream};
pub use task::{RawRecord, Task};
pub use view::View;

#[cfg(test)]
mod tests;
