//! The mock of the external system, as a process of its own.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Service;
use crate::http::{Answer, get};
use crate::scratch_dir::ScratchDir;
use crate::{Error, free_port, target_dir};

const START_LIMIT: Duration = Duration::from_secs(20);
const PROGRAM: &str = "external-system-mock";

/// A running `external-system-mock`. Dropped, it is killed.
#[derive(Debug)]
pub struct ExternalSystem {
    service: Service,
    _dir: ScratchDir,
    url: String,
}

impl ExternalSystem {
    /// Starts one for a topic of so many partitions, and returns when it answers.
    pub fn start(partitions: i32) -> Result<Self, Error> {
        let program = target_dir()?.join(PROGRAM);
        if !program.exists() {
            return Err(Error::NotBuilt(program));
        }
        let dir = ScratchDir::new("external")?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let service = launch(&program, &listen, partitions, dir.path())?;
        let mut system = Self {
            service,
            _dir: dir,
            url: format!("http://{listen}"),
        };
        let health = format!("{}/healthz", system.url);
        system.service.await_ready("/healthz", START_LIMIT, || {
            get(&health).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(system)
    }

    /// Where events are posted to, as the setting `sinks.http.url` takes it.
    pub fn events_url(&self) -> String {
        format!("{}/events", self.url)
    }

    /// Asks a path of it, such as `/seen`.
    pub fn get(&self, path: &str) -> Result<Answer, Error> {
        get(&format!("{}{path}", self.url))
    }
}

fn launch(program: &Path, listen: &str, partitions: i32, dir: &Path) -> Result<Service, Error> {
    let log = dir.join("external.out");
    Service::start(PROGRAM, program, &log, None, Signal::KILL, |command| {
        command
            .args(["--listen", listen])
            .args(["--partitions", &partitions.to_string()])
            .args(["--remember", "1000000"]);
    })
}
