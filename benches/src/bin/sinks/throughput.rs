//! How fast a sink empties a topic that is full, and what that takes.

use crate::ENRICHED;
use anyhow::{Result, bail};
use rdkafka::Message;
use std::time::{Duration, Instant};
use thmanyah_benches::cpu::cpu_seconds;
use thmanyah_dev::{Broker, Processor, ProcessorOptions, ScratchDir, sum_of};

const LIMIT: Duration = Duration::from_mins(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What was measured between the first event that arrived and the last.
pub(crate) struct Measured {
    events: u64,
    seconds: f64,
    cpu: f64,
}

impl Measured {
    fn per_million(&self) -> f64 {
        self.cpu * 1e6 / self.events.max(1) as f64
    }

    /// A line for people, with the ratio to what is compared with.
    pub(crate) fn line(&self, name: &str, bare: Option<&Self>) -> String {
        let ratio = bare.map_or_else(String::new, |bare| {
            format!(
                ", {:.1} × the bare reader",
                self.per_million() / bare.per_million()
            )
        });
        format!(
            "{name:<20} {:>9.0} events/s, {:>6.2} CPU-seconds per million{ratio}",
            self.events as f64 / self.seconds,
            self.per_million()
        )
    }
}

/// Reads the topic and does nothing with it.
pub(crate) fn bare_reader(broker: &Broker, events: u64) -> Result<Measured> {
    let pid = std::process::id();
    let (began, cpu) = (Instant::now(), cpu_seconds(pid)?);
    let mut bytes = 0;
    broker.read_topic(ENRICHED, |record| {
        bytes += record.payload().map_or(0, <[u8]>::len);
    })?;
    std::hint::black_box(bytes);
    Ok(Measured {
        events,
        seconds: began.elapsed().as_secs_f64(),
        cpu: cpu_seconds(pid)? - cpu,
    })
}

/// Runs a process with this sink alone until everything has arrived.
pub(crate) fn sink(
    broker: &Broker,
    name: &str,
    settings: &[(String, String)],
    events: u64,
) -> Result<Measured> {
    let state = ScratchDir::new("sink")?;
    let role = format!("sink-{name}");
    let mut options = ProcessorOptions::new(broker.bootstrap(), "0", &state.path().join("state"))
        .args(["--roles", &role]);
    options.env.extend_from_slice(settings);
    let mut processor = Processor::spawn(options)?;
    let began = Instant::now();
    let mut first = None;
    loop {
        let page = processor
            .get("/metrics")
            .map(|answer| answer.body)
            .unwrap_or_default();
        let arrived = sum_of(&page, "thmanyah_sink_events_total", &[("sink", name)]);
        let arrived = arrived.unwrap_or_default() as u64;
        let now = (Instant::now(), cpu_seconds(processor.pid())?, arrived);
        if arrived > 0 && first.is_none() {
            first = Some(now);
        }
        if let Some((since, cpu, before)) = first.filter(|_| arrived >= events) {
            return Ok(Measured {
                events: arrived.saturating_sub(before).max(1),
                seconds: now.0.duration_since(since).as_secs_f64(),
                cpu: now.1 - cpu,
            });
        }
        if began.elapsed() > LIMIT || processor.ended().is_some() {
            bail!(
                "{arrived} of {events} events arrived by {role}:\n{}",
                processor.log()
            );
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
