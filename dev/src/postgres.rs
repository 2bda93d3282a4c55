//! A real PostgreSQL with logical decoding and the two tables of the platform.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{Service, User, run};
use crate::scratch_dir::ScratchDir;
use crate::{Error, free_port};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Where Debian keeps the server's programs, one directory per major version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// The database that holds the tables.
const DATABASE: &str = "thmanyah";

const SCHEMA: &str = include_str!("../schema.sql");

/// A running PostgreSQL. Dropped, it is stopped and its directory removed.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    dir: ScratchDir,
    port: u16,
}

impl Postgres {
    /// Starts a server with the two tables, empty, and returns when it answers.
    pub fn start() -> Result<Self, Error> {
        let programs = programs()?;
        let user = unprivileged_user();
        let port = free_port()?;
        let dir = ScratchDir::new("postgres")?;
        let home = dir.path().join("home");
        std::fs::create_dir_all(&home).map_err(Error::io(format!("make {}", home.display())))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid))
                .map_err(Error::io(format!("give {} to PostgreSQL", home.display())))?;
        }
        let cluster = home.join("cluster");
        run(as_user(&programs.join("initdb"), user)
            .current_dir(&home)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions", "-D"])
            .arg(&cluster))?;
        let mut service = Service::start(
            "PostgreSQL",
            &programs.join("postgres"),
            &dir.path().join("postgres.out"),
            user,
            // Unlike a kill, this lets it give its shared memory back.
            Signal::QUIT,
            |command| {
                command.current_dir(&home).arg("-D").arg(&cluster);
                for setting in [
                    format!("port={port}"),
                    "listen_addresses=127.0.0.1".into(),
                    format!("unix_socket_directories={}", home.display()),
                    "wal_level=logical".into(),
                    "dynamic_shared_memory_type=mmap".into(),
                    // The cluster does not outlive its process, so it need not survive a power cut.
                    "fsync=off".into(),
                    "full_page_writes=off".into(),
                ] {
                    command.arg("-c").arg(setting);
                }
            },
        )?;
        let ready = || psql(port, "postgres", "SELECT 1").is_ok();
        service.await_ready("an answer to a query", START_LIMIT, ready)?;
        psql(port, "postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        psql(port, DATABASE, SCHEMA)?;
        Ok(Self { service, dir, port })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the database with the two tables.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres:postgres@127.0.0.1:{}/{DATABASE}",
            self.port
        )
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Where the server's log is.
    pub fn log_file(&self) -> &Path {
        self.service.log()
    }

    /// The server's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs SQL (several statements may be given) and returns the result unaligned: a line per row, `|` between columns.
    pub fn query(&self, sql: &str) -> Result<String, Error> {
        psql(self.port, DATABASE, sql)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate stop: a replication client that is gone must not be waited for.
        self.service.stop(Signal::QUIT, STOP_LIMIT);
    }
}

/// The programs of the newest server installed.
fn programs() -> Result<PathBuf, Error> {
    let versions = std::fs::read_dir(INSTALLED).map_err(|_| Error::NotSetUp(INSTALLED.into()))?;
    versions
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let major: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs
                .join("initdb")
                .exists()
                .then_some((major, programs))
        })
        .max()
        .map(|(_, programs)| programs)
        .ok_or_else(|| Error::NotSetUp(Path::new(INSTALLED).join("15/bin/initdb")))
}

/// PostgreSQL refuses to run as root. Its package brings a user; any other unprivileged one does as well.
fn unprivileged_user() -> Option<User> {
    const NOBODY: User = User {
        uid: 65_534,
        gid: 65_534,
    };
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let postgres = accounts.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some(User {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    });
    Some(postgres.unwrap_or(NOBODY))
}

fn as_user(program: &Path, user: Option<User>) -> Command {
    match user {
        None => Command::new(program),
        Some(User { uid, gid }) => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .args(["--clear-groups", "--"])
                .arg(program);
            command
        }
    }
}

fn psql(port: u16, database: &str, sql: &str) -> Result<String, Error> {
    let printed = run(Command::new("psql")
        // No settings of the caller's own.
        .env_remove("PGOPTIONS")
        .env_remove("PGSERVICE")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
        .args(["-d", database, "-c", sql]))?;
    Ok(printed.trim_end().to_owned())
}
