//! A small disk of its own, made of memory, that can be filled and emptied at will.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Error;
use crate::child::run;
use crate::scratch_dir::ScratchDir;

/// Room that is left on a full disk: less than anything that writes asks for.
const CRUMBS: u64 = 64 * 1024;

/// A tmpfs. Dropped, it is unmounted; so it is when the process that made it dies.
#[derive(Debug)]
pub struct SmallDisk {
    guardian: Child,
    mount: PathBuf,
    size: u64,
    /// Where it is mounted; removed last.
    _dir: ScratchDir,
}

const GUARDIAN: &str = r#"cat >/dev/null; umount -l -- "$1""#;

impl SmallDisk {
    /// A new, empty disk. Fails where mounting is not permitted.
    pub fn mount(size: u64) -> Result<Self, Error> {
        let dir = ScratchDir::new("disk")?;
        let mount = dir.path().join("disk");
        std::fs::create_dir(&mount).map_err(Error::io(format!("make {}", mount.display())))?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size}"))
            .arg("thmanyah")
            .arg(&mount))?;
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&mount)
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
            guardian,
            mount,
            size,
            _dir: dir,
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<(), Error> {
        let doing = || format!("look at {}", self.mount.display());
        let disk = rustix::fs::statvfs(&self.mount).map_err(|e| Error::io(doing())(e.into()))?;
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
        self.resize(used + CRUMBS)
    }

    /// Gives the room back.
    pub fn empty(&self) -> Result<(), Error> {
        self.resize(self.size)
    }

    fn resize(&self, size: u64) -> Result<(), Error> {
        run(Command::new("mount")
            .arg("-o")
            .arg(format!("remount,size={size}"))
            .arg(&self.mount))?;
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}
