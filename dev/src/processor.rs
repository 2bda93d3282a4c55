//! `thmanyah run` as a process of its own, to be asked, killed and started again.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Service;
use crate::scratch_dir::ScratchDir;
use crate::{Error, free_port, http};

/// Includes the wait for the content of a first boot, up to 30 s.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How to run the processor.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// The binary; the one beside the running test or demo if none is given.
    pub binary: Option<PathBuf>,
    /// `HOST:PORT` of the broker.
    pub bootstrap: String,
    /// The name of the instance.
    pub instance: String,
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// `HOST:PORT` to listen on; a free loopback port if none is given.
    pub listen: Option<String>,
    /// Further arguments of `thmanyah run`.
    pub args: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
}

impl ProcessorOptions {
    /// The usual set-up, with everything else at its default.
    pub fn new(bootstrap: &str, instance: &str, state_dir: &Path) -> Self {
        Self {
            binary: None,
            bootstrap: bootstrap.into(),
            instance: instance.into(),
            state_dir: state_dir.into(),
            listen: None,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The same with further arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// A running `thmanyah run`. Dropped, it is killed; its state directory stays, for the next one.
#[derive(Debug)]
pub struct Processor {
    service: Service,
    dir: ScratchDir,
    options: ProcessorOptions,
    listen: String,
    url: String,
}

impl Processor {
    /// Starts it and returns when `/readyz` says yes.
    pub fn start(options: ProcessorOptions) -> Result<Self, Error> {
        let mut processor = Self::spawn(options)?;
        processor.await_ready(START_LIMIT)?;
        Ok(processor)
    }

    /// Starts it and waits for nothing.
    pub fn spawn(options: ProcessorOptions) -> Result<Self, Error> {
        let dir = ScratchDir::new("run")?;
        let listen = match &options.listen {
            Some(listen) => listen.clone(),
            None => format!("127.0.0.1:{}", free_port()?),
        };
        let service = launch(&options, &listen, dir.path())?;
        Ok(Self {
            service,
            dir,
            options,
            url: format!("http://{listen}"),
            listen,
        })
    }

    /// Starts it again with the same options (killing it if it still runs), and waits for nothing.
    pub fn respawn(&mut self) -> Result<(), Error> {
        self.service.kill9();
        self.service = launch(&self.options, &self.listen, self.dir.path())?;
        Ok(())
    }

    /// Starts it again and returns when it is ready.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.respawn()?;
        self.await_ready(START_LIMIT)
    }

    /// Waits until `/readyz` says yes; fails as soon as the process ends.
    pub fn await_ready(&mut self, limit: Duration) -> Result<(), Error> {
        let ready = format!("{}/readyz", self.url);
        self.service.await_ready("/readyz", limit, || {
            http::get(&ready).is_ok_and(|answer| answer.status == 200)
        })
    }

    /// The base address of its HTTP interface, such as `http://127.0.0.1:21345`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The options it runs with.
    pub fn options(&self) -> &ProcessorOptions {
        &self.options
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Everything that it printed, of each start since [`Self::spawn`].
    pub fn log(&self) -> String {
        std::fs::read(self.service.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Asks a path of its HTTP interface.
    pub fn get(&self, path: &str) -> Result<http::Answer, Error> {
        http::get(&format!("{}{path}", self.url))
    }

    /// The sum of a metric over all its series that carry the given labels; `None` if there is no such series.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>, Error> {
        Ok(sum_of(&self.get("/metrics")?.body, name, labels))
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) -> Option<ExitStatus> {
        self.service.kill9()
    }

    /// Freezes it: connections stay open and nothing goes on.
    pub fn pause(&mut self) {
        self.service.signal(Signal::STOP);
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&mut self) {
        self.service.signal(Signal::CONT);
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.service.signal(Signal::TERM);
        self.service.wait(limit)
    }

    /// Waits for the end, for a process that should end by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.service.wait(limit)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.service.ended()
    }
}

/// The sum of the series `name` with `labels` in a page of metrics.
pub fn sum_of(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (series, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once('}')?,
                None => ("", rest.strip_prefix(' ').map(|_| rest)?),
            };
            let carries = |label: &String| series.split(',').any(|pair| pair == label);
            labels.iter().all(carries).then_some(())?;
            value.split_ascii_whitespace().next()?.parse::<f64>().ok()
        })
        .fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Where cargo put the binaries of the profile that the running program was built with.
pub fn target_dir() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::io("find the running program"))?;
    let mut dir = program.parent().unwrap_or(Path::new("/"));
    // Tests and benches are one level deeper, in `deps`.
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir = dir.parent().unwrap_or(dir);
    }
    Ok(dir.to_owned())
}

fn launch(options: &ProcessorOptions, listen: &str, dir: &Path) -> Result<Service, Error> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => target_dir()?.join("thmanyah"),
    };
    if !binary.exists() {
        return Err(Error::NotBuilt(binary));
    }
    Service::start(
        &format!("thmanyah run (instance {})", options.instance),
        &binary,
        &dir.join("thmanyah.out"),
        None,
        Signal::KILL,
        |command| {
            command
                .args(["run", "--bootstrap-servers", &options.bootstrap])
                .args(["--instance", &options.instance, "--state-dir"])
                .arg(&options.state_dir)
                .args(["--listen", listen])
                .args(&options.args)
                .envs(options.env.iter().map(|(key, value)| (key, value)));
        },
    )
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    const PAGE: &str = "# TYPE thmanyah_ledger gauge\n\
        thmanyah_ledger{partition=\"0\",kind=\"consumed\"} 7\n\
        thmanyah_ledger{partition=\"1\",kind=\"consumed\"} 5.0\n\
        thmanyah_ledger{partition=\"1\",kind=\"dead\"} 1\n\
        thmanyah_ledger_other 9\n\
        plain 3\n";

    #[test]
    fn series_with_the_labels_are_summed() {
        assert_eq!(
            sum_of(PAGE, "thmanyah_ledger", &[("kind", "consumed")]),
            Some(12.0)
        );
        assert_eq!(
            sum_of(
                PAGE,
                "thmanyah_ledger",
                &[("kind", "consumed"), ("partition", "1")]
            ),
            Some(5.0)
        );
        assert_eq!(sum_of(PAGE, "thmanyah_ledger", &[]), Some(13.0));
        assert_eq!(sum_of(PAGE, "plain", &[]), Some(3.0));
    }

    #[test]
    fn a_series_that_is_not_there_is_none() {
        assert_eq!(
            sum_of(PAGE, "thmanyah_ledger", &[("kind", "pending")]),
            None
        );
        assert_eq!(sum_of(PAGE, "thmanyah", &[]), None);
    }
}
