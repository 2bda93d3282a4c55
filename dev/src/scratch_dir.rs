//! A temporary directory that goes away with its owner, even when the owner is killed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Error;

/// A temporary directory, removed on drop.
///
/// A guardian (a shell of its own process group, out of reach of Ctrl-C) waits for the end of the pipe that this process
/// holds; the system closes that pipe however the process ends, and then the guardian removes the directory. The services
/// inside die by a tie of their own to this process.
#[derive(Debug)]
pub struct ScratchDir {
    dir: Option<TempDir>,
    guardian: Child,
}

// The files may be written until the last process in it is gone: try again for a while.
const GUARDIAN: &str = r#"cat >/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$1" 2>/dev/null && exit
    sleep 0.3
done"#;

impl ScratchDir {
    /// A new, empty directory; `purpose` becomes part of its name.
    pub fn new(purpose: &str) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("thmanyah-{purpose}-"))
            .tempdir()
            .map_err(Error::io("make a temporary directory"))?;
        // Open to other users: PostgreSQL does not run as root, and must be able to reach its directory inside.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .map_err(Error::io("open the temporary directory to PostgreSQL"))?;
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: "sh".into(),
                source,
            })?;
        Ok(Self {
            dir: Some(dir),
            guardian,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir
            .as_ref()
            .map_or(Path::new("/nonexistent"), TempDir::path)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        drop(self.dir.take());
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}
