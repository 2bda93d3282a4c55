//! A long-running process that cannot outlive the one that started it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// How often a condition that has no event of its own is looked at.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How much of a log an error quotes.
const QUOTED_LINES: usize = 25;
const QUOTED_BYTES: u64 = 8 * 1024;

/// Which user a service runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One running service, its log, and the promise that it ends with us.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Service {
    /// Starts `program` with everything it prints appended to `log`. Should this process die, it gets `on_our_death`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        log: &Path,
        user: Option<User>,
        on_our_death: Signal,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, Error> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let stdout = open().map_err(Error::io(format!("open {}", log.display())))?;
        let stderr = open().map_err(Error::io(format!("open {}", log.display())))?;
        // `setpriv` asks the kernel to kill the service when the thread that started it is gone, then becomes the service.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal_name(on_our_death)]);
        if let Some(user) = user {
            command.arg(format!("--reuid={}", user.uid));
            command.arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups");
        }
        command.arg("--").arg(program);
        // A group of its own: Ctrl-C reaches the one who started the services, who then stops them in order.
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        prepare(&mut command);
        let child = spawn(command).map_err(|source| Error::Spawn {
            program: program.display().to_string(),
            source,
        })?;
        Ok(Self {
            name: name.into(),
            log: log.into(),
            child,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `ready` says so, and fails as soon as the service ends or the time is up.
    pub(crate) fn await_ready(
        &mut self,
        awaited: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                return Err(Error::Died {
                    service: self.name.clone(),
                    status,
                    log: tail(&self.log),
                });
            }
            if start.elapsed() > limit {
                return Err(self.late(awaited, start.elapsed()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends a signal; a service that is gone already is no error.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill9(&mut self) -> Option<ExitStatus> {
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(self.late("its end", start.elapsed()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Asks it to end by `signal`, and kills it when it does not within the limit.
    pub(crate) fn stop(&mut self, signal: Signal, limit: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        self.wait(limit).ok().or_else(|| self.kill9())
    }

    pub(crate) fn late(&self, awaited: &str, waited: Duration) -> Error {
        Error::Late {
            service: self.name.clone(),
            awaited: awaited.into(),
            waited,
            log: tail(&self.log),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn signal_name(signal: Signal) -> &'static str {
    if signal == Signal::QUIT {
        "QUIT"
    } else {
        "KILL"
    }
}

type Request = (Command, Sender<std::io::Result<Child>>);

/// Starts a process from a thread that lives as long as this process does: the kernel's tie is to the *thread* that forked,
/// and a test's thread ends before a service that several tests share.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox): (Sender<Request>, Receiver<Request>) = channel();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });
    let (answer, result) = channel();
    let gone = |_| std::io::Error::other("the spawning thread is gone");
    spawner
        .send((command, answer))
        .map_err(|_| std::io::Error::other("the spawning thread is gone"))?;
    result.recv().map_err(gone)?
}

/// Runs a short program to its end and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Spawn {
            program: program.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed {
        program,
        status: output.status,
        output: last_lines(&printed),
    })
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes)),
        Err(error) => format!("(no log at {}: {error})", log.display()),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(QUOTED_LINES);
    lines.get(first..).unwrap_or_default().join("\n")
}
