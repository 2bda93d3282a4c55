//! Tools around the processor: the data generator, and the mock of an external system ([`external`]).
//!
//! The data generator: which rows exist is a pure function of a seed ([`Plan`]); writing them into PostgreSQL, resumably,
//! is [`Writer`]'s part.

pub mod external;
mod plan;
mod rows;
mod titles;
mod writer;

pub use plan::{Plan, WINDOW_EVENTS};
pub use rows::{ContentRow, EventRow, LengthChange};
pub use writer::{Progress, Writer, WriterError};
