//! `thmanyah state checkpoint`: an instant copy of a state directory.

use crate::commands::Failure;
use crate::commands::args::SettingFlags;
use crate::config::{Config, Layers};
use std::io::Write;
use std::path::Path;
use thmanyah_state::{Options, Store};

/// Makes the copy.
pub(super) fn checkpoint(flags: &SettingFlags, to: &Path) -> Result<(), Failure> {
    let dir = Config::state_dir(&Layers::gather(&flags.layer())?)?;
    // Opened to be read first: this way nothing is made where nothing is.
    drop(Store::open_read_only(&dir, &Options::default())?);
    Store::open(&dir, &Options::default())?.checkpoint(to)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} holds what {} held; the files of both are the same until they are replaced",
        to.display(),
        dir.display()
    )?;
    Ok(())
}
