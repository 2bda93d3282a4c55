//! Faults of an instance: its process and its disk.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::content_flood::overflow;
use super::exits::Occasion;
use super::field::{Field, Instance};
use super::kind::Kind;
use super::rounds::Inflicted;
use super::schedule::Fault;

/// After SIGTERM the process is gone within 20 s, whatever Kafka does, and a crowded machine gets its time.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a process may take to notice that its disk is full, once it has to write more than there was room for, and how
/// often it gets more to write.
const FULL_LIMIT: Duration = Duration::from_secs(15);
const OVERFLOWS: usize = 6;

pub(super) fn inflict(field: &Field<'_>, fault: &Fault) -> Result<Inflicted> {
    let mut instance = field.instance(fault.target)?;
    match fault.kind {
        Kind::ProcessTerminated => {
            let asked = Instant::now();
            let status = instance.processor.terminate(STOP_LIMIT)?;
            let took = asked.elapsed();
            let log = instance.log();
            let told = field.exits.note(Occasion::Asked, status, &log);
            if !status.success() {
                field.journal.note(format!(
                    "instance {} {took:.2?} after SIGTERM: {told}",
                    fault.target
                ));
            }
            sleep(fault.lasts);
            instance.respawn()?;
        }
        Kind::ProcessFrozen => {
            instance.processor.pause();
            sleep(fault.lasts);
            instance.processor.resume();
        }
        Kind::DiskFull => return fill_disk(field, fault, &mut instance),
        _ => {
            instance.processor.kill9();
            if fault.kind == Kind::StateDeleted && instance.state().exists() {
                std::fs::remove_dir_all(instance.state())?;
            }
            sleep(fault.lasts);
            instance.respawn()?;
        }
    }
    Ok(Inflicted::Yes)
}

/// The process must end with code 1 and say why, and leave all files where they are; with room again it goes on.
fn fill_disk(field: &Field<'_>, fault: &Fault, instance: &mut Instance) -> Result<Inflicted> {
    let database = instance.state().join("db").join("CURRENT");
    if instance.processor.ended().is_some() || !database.exists() {
        return Ok(Inflicted::No("no database to fill the disk of"));
    }
    let disk = instance.disk.as_ref().context("no disk to fill")?;
    disk.fill()?;
    let mut ended = Ok(None);
    for _ in 0..OVERFLOWS {
        ended = overflow(field).map(|()| instance.processor.wait(FULL_LIMIT).ok());
        if !matches!(ended, Ok(None)) {
            break;
        }
    }
    if matches!(ended, Ok(None)) {
        let log = std::fs::read_to_string(instance.state().join("db").join("LOG"));
        field.journal.note(format!("the database says {log:?}"));
    }
    let disk = instance.disk.as_ref().context("no disk to fill")?;
    disk.empty()?;
    let status = ended?.context("the disk was full, and the process went on")?;
    let log = instance.log();
    let told = field.exits.note(Occasion::DiskFull, status, &log);
    field
        .journal
        .note(format!("instance {} on a full disk: {told}", fault.target));
    ensure!(
        status.code() == Some(1),
        "instance {} on a full disk ended with {status}: {told}",
        fault.target
    );
    ensure!(
        database.exists(),
        "{} is gone after the disk was full",
        database.display()
    );
    instance.respawn()?;
    Ok(Inflicted::Yes)
}
