//! Everything is bounded: memory follows its limit under a feed that fills every cache and queue, a flood of bad records is
//! processed like any other, and neither fills the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thmanyah::domain::Ledger;
use thmanyah_dev::{Broker, BrokerOptions};
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::{
    content_id, content_key, content_value, event_key, event_value, play,
};

const PARTITIONS: i32 = 8;
const CONTENTS: u32 = 60_000;
/// Events of each kind.
const EVENTS: u64 = 60_000;
/// What the process is told to take, and what it may take at its peak.
const LIMIT_MIB: u64 = 256;
/// Records sent before the log is waited for.
const BATCH: usize = 20_000;
const PATIENCE: Duration = Duration::from_mins(4);
const LOG_LINES: usize = 250;

/// The most memory that a process has held so far, in MiB.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024)
}

/// Sends records in batches that the producer's queue takes.
fn send<'r>(
    deployment: &Deployment<'_>,
    topic: &str,
    records: impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'r,
) -> Result<()> {
    let topic = deployment.topic(topic);
    for (number, (key, value)) in records.enumerate() {
        if number % BATCH == BATCH - 1 {
            deployment.feed().flush()?;
        }
        deployment
            .feed()
            .send(&topic, None, Some(&key), Some(&value), &[])?;
    }
    deployment.feed().flush()
}

/// An event as upstream writes it, larger than what is published of it.
fn event(id: i64, content: u32) -> (Vec<u8>, Vec<u8>) {
    let value = event_value(&play(id, Some(&content_id(content))));
    (event_key(id), value)
}

/// A record of the same size that is no event, each in its own way.
fn poison(id: i64) -> (Vec<u8>, Vec<u8>) {
    let (key, mut value) = event(id, 1);
    match id % 3 {
        0 => value.truncate(value.len() - 1),
        1 => {
            value = value
                .strip_prefix(b"{")
                .map_or_else(Vec::new, <[u8]>::to_vec);
        }
        _ => {
            let text = String::from_utf8_lossy(&value).replace("\"play\"", "\"dance\"");
            value = text.into_bytes();
        }
    }
    (key, value)
}

#[test]
#[allow(clippy::print_stderr, reason = "libtest shows it when the test fails")]
fn memory_and_log_stay_small_whatever_is_fed() -> Result<()> {
    let broker = Broker::start(BrokerOptions::default())?;
    // However slow the machine is, events that wait are not given up on meanwhile.
    let deployment = Deployment::new(&broker, "bounded", PARTITIONS)?.args(&["--deadline", "30m"]);
    let contents = (1..=CONTENTS).map(|number| {
        let id = content_id(number);
        (content_key(&id), content_value(&id, "podcast", Some(1200)))
    });
    send(&deployment, "content.raw", contents)?;
    let mut options = deployment.options("0");
    let limit = format!("{LIMIT_MIB} MiB");
    options.env.push(("THMANYAH_MEMORY__LIMIT".into(), limit));
    let processor = deployment.start_with(options)?;
    await_until(PATIENCE, "the content", || {
        let last = format!("/v1/content/{}", content_id(CONTENTS));
        Ok((processor.get(&last)?.status == 200).then_some(()))
    })?;
    let told = |what: &str| -> Result<u64> {
        let peak = peak_mib(processor.pid())?;
        eprintln!("{what}: at most {peak} MiB so far");
        Ok(peak)
    };
    told("content")?;

    let n = EVENTS as i64;
    let topic = "engagement-events.raw";
    let mut wanted = Ledger::default();
    let await_all = |what: &str, wanted: Ledger| {
        let mut last = Ledger::default();
        await_until(PATIENCE, what, || {
            last = deployment.total()?;
            Ok((last == wanted).then_some(()))
        })
        .with_context(|| format!("the ledger is {last:?}"))
    };
    // Dense ids; ids so sparse that each has a container of its own; events that have to wait; nothing but bad records.
    let content = |id: i64| 1 + (id.unsigned_abs() % u64::from(CONTENTS)) as u32;
    send(&deployment, topic, (1..=n).map(|id| event(id, content(id))))?;
    (wanted.consumed, wanted.enriched) = (EVENTS, EVENTS);
    await_all("dense ids", wanted)?;
    told("dense ids")?;
    let sparse = (1..=n).map(|id| event(id * 1_000_003 + 1_000_000, content(id)));
    send(&deployment, topic, sparse)?;
    (wanted.consumed, wanted.enriched) = (2 * EVENTS, 2 * EVENTS);
    await_all("sparse ids", wanted)?;
    told("sparse ids")?;
    send(&deployment, topic, (1..=n).map(|id| poison(-id)))?;
    (wanted.consumed, wanted.dead) = (3 * EVENTS, EVENTS);
    await_all("a flood of bad records", wanted)?;
    told("a flood of bad records")?;
    let late = (1..=n).map(|id| event(-id, CONTENTS + 1));
    send(&deployment, topic, late)?;
    (wanted.consumed, wanted.pending) = (4 * EVENTS, EVENTS);
    await_all("events that wait", wanted)?;
    let id = content_id(CONTENTS + 1);
    deployment.send_content(&id, "video", None)?;
    (wanted.enriched, wanted.pending) = (3 * EVENTS, 0);
    await_all("their release", wanted)?;
    let peak = told("their release")?;

    ensure!(peak <= LIMIT_MIB, "{peak} MiB of {LIMIT_MIB}");
    let lines = processor.log().lines().count();
    ensure!(lines < LOG_LINES, "{lines} lines in the log");
    let dead = processor.metric("thmanyah_events_total", &[("outcome", "dead_letter")])?;
    ensure!(dead.map(|dead| dead as u64) == Some(EVENTS), "{dead:?}");
    Ok(())
}
