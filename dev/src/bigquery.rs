//! An emulator of BigQuery: the REST interface, and Storage Write over gRPC.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::child::Service;
use crate::http::{Answer, request};
use crate::scratch_dir::ScratchDir;
use crate::{Error, cache, free_port};

/// The project that the emulator has.
const PROJECT: &str = "thmanyah";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const LAUNCHER: &str = include_str!("../bigquery_emulator.py");

/// A running emulator, whose tables are on disk and whose streams are not: after a restart BigQuery would call them expired.
/// Dropped, it is killed and its directory removed.
///
/// Each client that is killed leaves a connection behind, of which the emulator has 256: a long test restarts it now and then.
#[derive(Debug)]
pub struct BigQuery {
    service: Service,
    dir: ScratchDir,
    rest: u16,
    grpc: u16,
}

impl BigQuery {
    /// Starts one without any dataset, and returns when it answers.
    pub fn start() -> Result<Self, Error> {
        let dir = ScratchDir::new("bigquery")?;
        let (rest, grpc) = (free_port()?, free_port()?);
        let launcher = dir.path().join("bigquery_emulator.py");
        std::fs::write(&launcher, LAUNCHER)
            .map_err(Error::io(format!("write {}", launcher.display())))?;
        let service = launch(&dir, rest, grpc)?;
        let mut emulator = Self {
            service,
            dir,
            rest,
            grpc,
        };
        emulator.await_ready()?;
        Ok(emulator)
    }

    fn await_ready(&mut self) -> Result<(), Error> {
        let (datasets, grpc) = (self.url("datasets"), self.grpc);
        self.service
            .await_ready("both interfaces", START_LIMIT, || {
                let rest = request(Method::GET, &datasets, None);
                rest.is_ok_and(|answer| answer.status == 200)
                    && TcpStream::connect(("127.0.0.1", grpc)).is_ok()
            })
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) {
        self.service.kill9();
    }

    /// Starts it again with the same ports and tables, and returns when it answers.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.service.stop(Signal::TERM, STOP_LIMIT);
        self.service = launch(&self.dir, self.rest, self.grpc)?;
        self.await_ready()
    }

    /// Starts it again with the same ports and without any table, and returns when it answers.
    pub fn restart_empty(&mut self) -> Result<(), Error> {
        self.service.kill9();
        let tables = self.dir.path().join("tables");
        std::fs::remove_dir_all(&tables)
            .map_err(Error::io(format!("remove {}", tables.display())))?;
        self.restart()
    }

    /// Freezes it: connections stay open and nothing is answered.
    pub fn pause(&mut self) {
        self.service.signal(Signal::STOP);
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&mut self) {
        self.service.signal(Signal::CONT);
    }

    /// The project that it has.
    pub fn project(&self) -> &'static str {
        PROJECT
    }

    /// The value of `sinks.bigquery.rest_url`.
    pub fn rest_url(&self) -> String {
        format!("http://127.0.0.1:{}/bigquery/v2", self.rest)
    }

    /// The value of `sinks.bigquery.grpc_url`.
    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.service.log()).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("{}/projects/{PROJECT}/{path}", self.rest_url())
    }

    /// A resource below the project, such as `datasets/d/tables/t`.
    pub fn get(&self, path: &str) -> Result<Answer, Error> {
        request(Method::GET, &self.url(path), None)
    }

    /// Makes a resource below `path`, such as `datasets`.
    pub fn create(&self, path: &str, resource: &Value) -> Result<(), Error> {
        self.post(path, resource).map(drop)
    }

    /// The rows that a query gives, with named parameters of type TIMESTAMP; NULL is none.
    pub fn query(
        &self,
        sql: &str,
        timestamps: &[(&str, &str)],
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        let parameter = |(name, value): &(&str, &str)| json!({"name": name, "parameterType": {"type": "TIMESTAMP"}, "parameterValue": {"value": value}});
        let parameters: Vec<Value> = timestamps.iter().map(parameter).collect();
        let body = json!({"query": sql, "useLegacySql": false, "useQueryCache": false, "maxResults": 1_000_000,
            "parameterMode": "NAMED", "queryParameters": parameters});
        let mut page = self.post("queries", &body)?;
        if let Some(problem) = page.pointer("/errors/0/message") {
            return Err(Error::Http {
                url: self.url("queries"),
                reason: problem.to_string(),
            });
        }
        let mut rows = rows_of(&page);
        while let Some(token) = page.get("pageToken").and_then(Value::as_str) {
            let job = page.pointer("/jobReference/jobId").and_then(Value::as_str);
            let url = self.url(&format!(
                "queries/{}?pageToken={token}",
                job.unwrap_or_default()
            ));
            page = answered(&url, &request(Method::GET, &url, None)?)?;
            rows.extend(rows_of(&page));
        }
        Ok(rows)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let url = self.url(path);
        let answer = request(Method::POST, &url, Some(body))?;
        answered(&url, &answer)
    }
}

fn answered(url: &str, answer: &Answer) -> Result<Value, Error> {
    let wrong = |reason: String| Error::Http {
        url: url.into(),
        reason,
    };
    if answer.status != 200 {
        return Err(wrong(format!("{}: {}", answer.status, answer.body)));
    }
    serde_json::from_str(&answer.body).map_err(|error| wrong(error.to_string()))
}

fn rows_of(page: &Value) -> Vec<Vec<Option<String>>> {
    let list = |value: &Value, key: &str| {
        let list = value.get(key).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let cell = |cell: &Value| Some(cell.get("v")?.as_str()?.to_owned());
    let row = |row: &Value| list(row, "f").iter().map(cell).collect();
    list(page, "rows").iter().map(row).collect()
}

fn launch(dir: &ScratchDir, rest: u16, grpc: u16) -> Result<Service, Error> {
    let python: PathBuf = cache::cached("bqemulator/venv/bin/python")?;
    let home = cache::cached("bqemulator/home")?;
    let tables = dir.path().join("tables");
    Service::start(
        "the BigQuery emulator",
        &python,
        &dir.path().join("bigquery.out"),
        None,
        Signal::KILL,
        |command| {
            command
                .arg(dir.path().join("bigquery_emulator.py"))
                .arg("start")
                .args(["--rest-host", "127.0.0.1", "--grpc-host", "127.0.0.1"])
                .args(["--rest-port", &rest.to_string()])
                .args(["--grpc-port", &grpc.to_string()])
                .args(["--project", PROJECT, "--log-level", "warning"])
                .arg("--data-dir")
                .arg(&tables)
                // Where it finds an extension that it would fetch otherwise.
                .env("HOME", &home)
                .env("OTEL_SDK_DISABLED", "true")
                .env("BQEMU_ENABLE_FORMAT_EXTENSIONS", "false");
        },
    )
}
