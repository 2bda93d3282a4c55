//! What a killed starter leaves behind: nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thmanyah_dev::{Broker, BrokerOptions, Postgres};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Set in the process that the test starts in order to kill it.
const VICTIM: &str = "THMANYAH_DEV_VICTIM";

#[test]
fn services_and_directories_go_away_when_their_starter_is_killed() -> Outcome {
    if std::env::var_os(VICTIM).is_some() {
        return start_services_and_hang();
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "--nocapture"])
        .arg("services_and_directories_go_away_when_their_starter_is_killed")
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut left = Vec::new();
    for line in BufReader::new(victim.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        if line == "started" {
            break;
        }
        // The test harness may have printed the test's name before it.
        if let Some((_, path)) = line.split_once("left: ") {
            left.push(path.to_owned());
        }
    }
    assert_eq!(left.len(), 4, "the victim did not start its services");
    victim.kill()?;
    victim.wait()?;

    let start = Instant::now();
    while let Some(path) = left.iter().find(|path| Path::new(path).exists()) {
        assert!(start.elapsed() < Duration::from_secs(30), "{path} is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn start_services_and_hang() -> Outcome {
    // Started on a thread that ends: the services must outlive it.
    let (broker, postgres) = std::thread::spawn(|| {
        let broker = Broker::start(BrokerOptions::default())?;
        Ok::<_, thmanyah_dev::Error>((broker, Postgres::start()?))
    })
    .join()
    .map_err(|_| "the starting thread panicked")??;
    println!("left: {}", broker.dir().display());
    println!("left: {}", postgres.dir().display());
    println!("left: /proc/{}", broker.pid().ok_or("no pid")?);
    println!("left: /proc/{}", postgres.pid());
    assert_eq!(postgres.query("SELECT 1")?, "1");
    println!("started");
    loop {
        std::thread::park();
    }
}
