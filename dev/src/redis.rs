//! A real Redis server, to be asked, killed, emptied and started again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::{Service, run};
use crate::scratch_dir::ScratchDir;
use crate::{Error, free_port};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take while it is looked whether the server is up.
const ANSWER: Duration = Duration::from_secs(1);
const SERVER: &str = "redis-server";
/// The file that lists the ACL users.
const USERS: &str = "users.acl";

/// How to run a server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
    users: Vec<String>,
    tls: bool,
}

impl RedisOptions {
    /// The same with a setting of `redis.conf`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// The same with an ACL user, as `ACL SETUSER` takes it: `sink on >secret ~{thm}* +@all`. The default user stays, and may
    /// do everything.
    #[must_use]
    pub fn user(mut self, rules: &str) -> Self {
        self.users.push(rules.into());
        self
    }

    /// The same with TLS on the port, under a certificate for `localhost` that is made for this server alone.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// A running server. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Redis {
    service: Service,
    dir: ScratchDir,
    options: RedisOptions,
    port: u16,
}

impl Redis {
    /// Starts a server that is empty and writes each change to its log before it answers.
    pub fn start(options: RedisOptions) -> Result<Self, Error> {
        let dir = ScratchDir::new("redis")?;
        let port = free_port()?;
        std::fs::create_dir_all(dir.path().join("kept"))
            .map_err(Error::io("make Redis its directory"))?;
        let mut users = vec!["user default on nopass ~* &* +@all\n".to_owned()];
        users.extend(options.users.iter().map(|rules| format!("user {rules}\n")));
        let file = dir.path().join(USERS);
        std::fs::write(&file, users.concat())
            .map_err(Error::io(format!("write {}", file.display())))?;
        if options.tls {
            make_certificate(dir.path())?;
        }
        let service = launch(&options, port, dir.path())?;
        let mut redis = Self {
            service,
            dir,
            options,
            port,
        };
        redis.await_up()?;
        Ok(redis)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, as the setting `sinks.redis.url` takes it.
    pub fn url(&self) -> String {
        let port = self.port;
        if self.options.tls {
            format!("rediss://localhost:{port}")
        } else {
            format!("redis://127.0.0.1:{port}")
        }
    }

    /// The certificate under which a server with TLS is trusted.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Runs a command as the default user; a line of the result per element of the answer. An error of the server is one.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Error> {
        self.ask(None, words)
    }

    /// The same as another user, by name and password.
    pub fn command_as<S: AsRef<str>>(
        &self,
        user: (&str, &str),
        words: &[S],
    ) -> Result<String, Error> {
        self.ask(Some(user), words)
    }

    fn ask<S: AsRef<str>>(&self, user: Option<(&str, &str)>, words: &[S]) -> Result<String, Error> {
        let mut client = Command::new("redis-cli");
        if let Some((name, password)) = user {
            client.args(["--no-auth-warning", "--user", name, "--pass", password]);
        }
        client
            .args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .env_remove("REDISCLI_AUTH");
        if self.options.tls {
            client
                .args(["--tls", "--sni", "localhost", "--cacert"])
                .arg(self.certificate());
        }
        let printed = run(client.args(words.iter().map(AsRef::as_ref)))?;
        Ok(printed.trim_end().to_owned())
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) {
        self.service.kill9();
    }

    /// Freezes it: connections stay open, and nothing is answered.
    pub fn pause(&mut self) {
        self.service.signal(Signal::STOP);
    }

    /// Undoes [`Self::pause`].
    pub fn resume(&mut self) {
        self.service.signal(Signal::CONT);
    }

    /// Starts it again with what it has kept (killing it if it still runs), and returns when it answers.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.service.kill9();
        self.service = launch(&self.options, self.port, self.dir.path())?;
        self.await_up()
    }

    /// The same, with nothing kept.
    pub fn restart_empty(&mut self) -> Result<(), Error> {
        self.service.kill9();
        let kept = self.dir.path().join("kept");
        std::fs::remove_dir_all(&kept)
            .and_then(|()| std::fs::create_dir_all(&kept))
            .map_err(Error::io(format!("empty {}", kept.display())))?;
        self.restart()
    }

    /// Keeps a copy of what it holds now, as a replica has it that falls behind from here on.
    pub fn keep_copy(&self) -> Result<(), Error> {
        self.copy("kept", "copy")
    }

    /// Starts it again with what [`Self::keep_copy`] kept.
    pub fn restart_from_copy(&mut self) -> Result<(), Error> {
        self.service.kill9();
        self.copy("copy", "kept")?;
        self.restart()
    }

    fn copy(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (self.dir.path().join(from), self.dir.path().join(to));
        let _ = std::fs::remove_dir_all(&to);
        run(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
    }

    fn await_up(&mut self) -> Result<(), Error> {
        let (port, tls) = (self.port, self.options.tls);
        self.service
            .await_ready("an answer", START_LIMIT, || answers(port, tls))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.service.signal(Signal::CONT);
        self.service.stop(Signal::KILL, STOP_LIMIT);
    }
}

/// Whether it answers, which is not before it has loaded what it kept. One with TLS is looked at from outside only.
fn answers(port: u16, tls: bool) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        if tls {
            return Ok(true);
        }
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ask().unwrap_or(false)
}

fn launch(options: &RedisOptions, port: u16, dir: &Path) -> Result<Service, Error> {
    let log = dir.join("redis.out");
    Service::start(
        "Redis",
        Path::new(SERVER),
        &log,
        None,
        Signal::KILL,
        |command| {
            command.current_dir(dir);
            let number = port.to_string();
            let (plain, encrypted) = if options.tls {
                ("0", number.as_str())
            } else {
                (number.as_str(), "0")
            };
            let settings = [
                ("bind", "127.0.0.1"),
                ("port", plain),
                ("tls-port", encrypted),
                ("dir", "kept"),
                ("aclfile", "../users.acl"),
                // A change is on disk before it is answered, and no snapshot takes the machine's time.
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("save", ""),
            ];
            for (key, value) in settings {
                command.arg(format!("--{key}")).arg(value);
            }
            if options.tls {
                for (key, file) in [
                    ("tls-cert-file", "certificate.pem"),
                    ("tls-key-file", "key.pem"),
                    ("tls-ca-cert-file", "certificate.pem"),
                ] {
                    command.arg(format!("--{key}")).arg(dir.join(file));
                }
                command.args(["--tls-auth-clients", "no"]);
            }
            for (key, value) in &options.settings {
                command.arg(format!("--{key}")).args(value.split(' '));
            }
        },
    )
}

fn make_certificate(dir: &Path) -> Result<(), Error> {
    run(Command::new("openssl")
        .current_dir(dir)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"]))?;
    Ok(())
}
