//! A deterministic simulator of a whole deployment: the product's own loop, barrier, materializer, replica and watermark, over
//! a simulated log, simulated coordinators, simulated disks and simulated clocks.
//!
//! One seed determines everything: a [`Schedule`] is an explicit list of inputs, faults and turns; the parts of all processes
//! take turns on one thread, and a turn may be nested in another where a thread of its own could overtake. The oracle looks at
//! the log when everything has healed.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes are the simulator's own, and one that is wrong must end the run"
)]
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

mod actor;
mod actors;
mod author;
mod consumer;
mod counts;
mod edge;
mod explore;
mod folds;
mod group;
mod input;
mod log;
mod offsets;
mod oracle;
mod parts;
mod producer;
mod rng;
mod rocks;
mod runner;
mod schedule;
mod shrink;
mod store;
mod txn;
mod world;

pub use counts::{Counts, REQUIRED, counted};
pub use explore::{Explored, explain, explore};
pub use runner::{Outcome, run};
pub use schedule::{Fault, Held, Loss, Point, Schedule, Shape, Step};
pub use shrink::shrink;
