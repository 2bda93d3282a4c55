//! The commands of the binary: one module each.

mod args;
mod config;
mod failure;
mod run;
mod state;
mod topics;

pub use args::{Arguments, Command, StateCommand};
pub use failure::Failure;

/// Runs a command to its end.
pub fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Run(settings) => run::run(&settings),
        Command::Topics { settings, json } => topics::topics(&settings, json),
        Command::Config(settings) => config::config(&settings),
        Command::State(command) => state::state(&command),
    }
}
