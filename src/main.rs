//! The binary: reads the command line, runs the command, and turns its failure into one message and an exit code.

use clap::Parser;
use std::process::ExitCode;
use thmanyah::commands::{Arguments, dispatch};

/// Also serves librdkafka and RocksDB, which call `malloc`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[allow(clippy::print_stderr, reason = "the one message of a failure")]
fn main() -> ExitCode {
    // Every client that speaks TLS takes the provider of the process. Only the first call counts, and this is it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match dispatch(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
