//! What is fought over: the brokers, the instances and their disks, and the one who starts an instance again that ended.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anyhow::{Context, Result};
use thmanyah_dev::{Cluster, Processor, ProcessorOptions, ScratchDir, SmallDisk, Topic};

use super::exits::{Exits, Occasion};
use super::journal::Journal;

/// Instances, each with a route to the brokers of its own; as many as brokers.
pub(super) const INSTANCES: usize = 3;
/// Partitions of every topic: one for each worker.
pub(super) const PARTITIONS: i32 = 6;
/// Room of an instance's disk.
const DISK_BYTES: u64 = 2 << 30;
/// How often ended processes are looked for, and how long one stays away.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const BACK_OFF: Duration = Duration::from_millis(300);

/// How long an event waits for its content: short, so that events are given up on while faults last.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Small buffers, so that the store writes to its disk all the time; the other settings are the usual ones.
const SETTINGS: [(&str, &str); 4] = [
    ("THMANYAH_ENRICHER__WORKERS", "2"),
    ("THMANYAH_SEEN__INTERVAL", "2s"),
    ("THMANYAH_STORE__WAL_BYTES", "4 MiB"),
    ("THMANYAH_STORE__MEMTABLE_BYTES", "8 MiB"),
];

/// One instance. It is locked by the fault that is done to it.
pub(super) struct Instance {
    pub(super) processor: Processor,
    pub(super) disk: Option<SmallDisk>,
    state: PathBuf,
    /// How much of the log an earlier process wrote.
    log_before: usize,
    _dir: ScratchDir,
}

impl Instance {
    /// What the present process has logged.
    pub(super) fn log(&self) -> String {
        let log = self.processor.log();
        log.get(self.log_before..).unwrap_or_default().to_owned()
    }

    /// Where it keeps its state.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Starts it again.
    pub(super) fn respawn(&mut self) -> Result<()> {
        self.log_before = self.processor.log().len();
        Ok(self.processor.respawn()?)
    }
}

/// The deployment under attack.
pub(super) struct Field<'t> {
    pub(super) cluster: Cluster,
    instances: Vec<Mutex<Instance>>,
    pub(super) exits: Exits,
    pub(super) journal: Journal<'t>,
    /// The end of the run: nothing is started again.
    pub(super) over: AtomicBool,
}

impl<'t> Field<'t> {
    /// Starts the brokers and makes the input topics; no instance runs yet.
    pub(super) fn new(journal: Journal<'t>) -> Result<Self> {
        let cluster = Cluster::start(INSTANCES)?;
        journal.note("three brokers run");
        let inputs = ["engagement-events.raw", "content.raw"].map(|name| {
            Topic::new(name, PARTITIONS)
                .with("max.message.bytes", "8388608")
                .with("message.timestamp.type", "LogAppendTime")
        });
        cluster.create_topics(&inputs)?;
        Ok(Self {
            cluster,
            instances: Vec::new(),
            exits: Exits::default(),
            journal,
            over: AtomicBool::new(false),
        })
    }

    /// Starts the instances and waits until all are ready. `disks` asks for disks that can be filled.
    pub(super) fn start_instances(&mut self, disks: bool) -> Result<()> {
        let deadline = format!("{}s", DEADLINE.as_secs());
        for number in 0..INSTANCES {
            let dir = ScratchDir::new("chaos")?;
            let disk = if disks {
                Some(SmallDisk::mount(DISK_BYTES)?)
            } else {
                None
            };
            let root = disk.as_ref().map_or(dir.path(), SmallDisk::path);
            let state = root.join("state");
            let bootstrap = self.cluster.route(number);
            let mut options = ProcessorOptions::new(&bootstrap, &number.to_string(), &state)
                .args(["--deadline", &deadline]);
            let settings = SETTINGS.iter();
            options.env = settings
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            self.instances.push(Mutex::new(Instance {
                processor: Processor::spawn(options)?,
                disk,
                state,
                log_before: 0,
                _dir: dir,
            }));
        }
        for number in 0..INSTANCES {
            let limit = Duration::from_secs(90);
            self.instance(number)?.processor.await_ready(limit)?;
        }
        self.journal.note("three instances are ready");
        Ok(())
    }

    /// An instance, for one fault at a time.
    pub(super) fn instance(&self, number: usize) -> Result<MutexGuard<'_, Instance>> {
        let instance = self.instances.get(number).context("no such instance")?;
        Ok(instance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts instances again that end, as an orchestrator does, until the field is over. Those in the hands of a fault are
    /// left alone.
    pub(super) fn supervise(&self) -> Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            for (number, instance) in self.instances.iter().enumerate() {
                let mut instance = match instance.try_lock() {
                    Ok(instance) => instance,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => continue,
                };
                let Some(status) = instance.processor.ended() else {
                    continue;
                };
                let told = self.exits.note(Occasion::ByItself, status, &instance.log());
                self.journal
                    .note(format!("instance {number} ended by itself: {told}"));
                std::thread::sleep(BACK_OFF);
                instance.respawn()?;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}
