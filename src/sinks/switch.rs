//! Pause and resume by an operator: kept in the state directory, so that a restart does not resume what was paused.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Where it is kept: one name of a sink that is paused in each line.
const FILE: &str = "paused-sinks";

/// The switches of all sinks of this process. A clone is another handle to the same ones.
#[derive(Clone)]
pub struct Switches {
    file: Arc<PathBuf>,
    sinks: Arc<Mutex<BTreeMap<&'static str, watch::Sender<bool>>>>,
}

/// Tells one sink whether it may deliver.
#[derive(Clone)]
pub struct Switch(watch::Receiver<bool>);

impl Switches {
    /// As they were left, for the sinks of these names.
    pub fn open(state_dir: &Path, names: &[&'static str]) -> io::Result<Self> {
        let file = state_dir.join(FILE);
        let paused = match std::fs::read_to_string(&file) {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let sinks = names
            .iter()
            .map(|name| (*name, watch::Sender::new(paused.contains(*name))));
        Ok(Self {
            sinks: Arc::new(Mutex::new(sinks.collect())),
            file: Arc::new(file),
        })
    }

    /// Which sinks there are, and which of them are paused.
    pub fn all(&self) -> BTreeMap<&'static str, bool> {
        let sinks = self.sinks.lock();
        sinks
            .iter()
            .map(|(name, paused)| (*name, *paused.borrow()))
            .collect()
    }

    /// The one of a sink.
    pub fn of(&self, name: &str) -> Option<Switch> {
        let sinks = self.sinks.lock();
        sinks.get(name).map(|paused| Switch(paused.subscribe()))
    }

    /// Pauses or resumes a sink, once that is on the disk. `false` when there is no such sink.
    pub fn set(&self, name: &str, paused: bool) -> io::Result<bool> {
        let sinks = self.sinks.lock();
        let Some(switch) = sinks.get(name) else {
            return Ok(false);
        };
        let names = sinks
            .iter()
            .filter(|(other, state)| {
                if **other == name {
                    paused
                } else {
                    *state.borrow()
                }
            })
            .map(|(other, _)| *other);
        let lines: Vec<&str> = names.collect();
        let new = self.file.with_extension("new");
        std::fs::write(&new, lines.join("\n"))?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, self.file.as_path())?;
        switch.send_replace(paused);
        Ok(true)
    }
}

impl Default for Switch {
    /// One that nobody can turn off.
    fn default() -> Self {
        Self(watch::channel(false).1)
    }
}

impl Switch {
    /// Comes back once the sink may deliver.
    pub async fn on(&mut self) {
        if self.0.wait_for(|paused| !paused).await.is_err() {
            // Nobody can resume it any more: the process is ending.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the sink is paused.
    pub fn is_paused(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn what_was_paused_is_paused_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["bigquery", "redis"];
        let switches = Switches::open(dir.path(), &names).unwrap();
        assert!(!switches.of("redis").unwrap().is_paused());
        assert!(switches.set("redis", true).unwrap());
        assert!(!switches.set("kafka", true).unwrap());
        let again = Switches::open(dir.path(), &names).unwrap();
        assert_eq!(
            again.all(),
            BTreeMap::from([("bigquery", false), ("redis", true)])
        );
        assert!(again.set("redis", false).unwrap());
        assert!(
            !Switches::open(dir.path(), &names)
                .unwrap()
                .of("redis")
                .unwrap()
                .is_paused()
        );
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_it_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let switches = Switches::open(dir.path(), &["redis"]).unwrap();
        switches.set("redis", true).unwrap();
        let mut switch = switches.of("redis").unwrap();
        let waiting = tokio::spawn(async move { switch.on().await });
        switches.set("redis", false).unwrap();
        waiting.await.unwrap();
    }
}
