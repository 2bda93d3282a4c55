//! `thmanyah config`: every effective setting, where it came from, and how to change it.

use super::Failure;
use super::args::SettingFlags;
use crate::config::{Layers, effective};
use std::io::Write;

/// Prints the effective settings as a configuration file.
pub(super) fn config(flags: &SettingFlags) -> Result<(), Failure> {
    let layers = Layers::gather(&flags.layer())?;
    let text = effective(&layers)?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
