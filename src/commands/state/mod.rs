//! `thmanyah state`: what an operator asks a state directory that no process is using.

mod checkpoint;
mod compare;
mod inspect;
mod log;
mod seen;
mod verify;

use super::Failure;
use super::args::StateCommand;

/// Runs one of the commands.
pub(super) fn state(command: &StateCommand) -> Result<(), Failure> {
    match command {
        StateCommand::Inspect { settings, json } => inspect::inspect(settings, *json),
        StateCommand::Verify { settings, json } => verify::verify(settings, *json),
        StateCommand::Checkpoint { settings, to } => checkpoint::checkpoint(settings, to),
    }
}
