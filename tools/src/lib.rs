//! The data generator: which rows exist is a pure function of a seed ([`Plan`]); writing them into PostgreSQL, resumably,
//! is [`Writer`]'s part.

mod plan;
mod rows;
mod titles;
mod writer;

pub use plan::{Plan, WINDOW_EVENTS};
pub use rows::{ContentRow, EventRow, LengthChange};
pub use writer::{Progress, Writer, WriterError};
