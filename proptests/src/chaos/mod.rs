//! Three brokers and three instances under load, and faults that a seed chooses: whatever happens, every event comes out
//! exactly once, and every partition moves on.
//!
//! [`run`] starts everything, inflicts rounds of faults that overlap, measures how long each round takes until the committed
//! position of every partition moves again, lets the deployment finish, and hands what is in the topics to the checker.

mod broker_faults;
mod content_flood;
mod exits;
mod field;
mod journal;
mod kept_logs;
mod kind;
mod load;
mod network_faults;
mod process_faults;
mod report;
mod rounds;
mod run;
mod schedule;
mod verdict;
mod watch;

pub use kind::Kind;
pub use report::Report;
pub use run::{Plan, run};
