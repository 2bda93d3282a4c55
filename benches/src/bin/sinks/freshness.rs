//! How long after the commit of its transaction an event shows in Redis: one event of each transaction is about a content that
//! no other is about, and its counters are looked for.

use crate::ENRICHED;
use anyhow::{Context, Result, anyhow, bail};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thmanyah::domain::{ContentId, Event, EventId, EventType, Timestamp};
use thmanyah_dev::{Broker, Processor, ProcessorOptions, Redis, ScratchDir};
use thmanyah_proptests::published::{content_id, json};

/// Between two transactions.
const TICK: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Ids far from those that the topic was filled with.
const FIRST_ID: i64 = 1 << 40;
const PARTITIONS: i64 = 4;

/// The times of all marks.
pub(crate) struct Fresh {
    pub(crate) marks: usize,
    pub(crate) p50_ms: u128,
    pub(crate) p99_ms: u128,
}

/// An event to be looked for, and when its transaction was committed.
struct Mark {
    content: ContentId,
    date: String,
    committed: Instant,
}

/// One measurement.
pub(crate) struct Steady<'a> {
    /// The name of its app; each has its own.
    pub(crate) app: &'a str,
    /// Its number: each looks for contents of its own.
    pub(crate) number: u32,
    /// Settings of a sink beside that of Redis.
    pub(crate) beside: &'a [(String, String)],
    /// Events a second.
    pub(crate) rate: u64,
    pub(crate) time: Duration,
}

/// Publishes at a steady rate for some time while the sink runs.
pub(crate) fn measure(broker: &Broker, redis: &Redis, steady: &Steady<'_>) -> Result<Fresh> {
    let (rate, time) = (steady.rate, steady.time);
    let state = ScratchDir::new("fresh")?;
    let mut options = ProcessorOptions::new(broker.bootstrap(), "0", &state.path().join("state"))
        .args(["--roles", "sink-redis,sink-bigquery", "--app", steady.app]);
    options
        .env
        .push(("THMANYAH_SINKS__REDIS__URL".to_owned(), redis.url()));
    options.env.extend_from_slice(steady.beside);
    let processor = Processor::start(options)?;
    await_caught_up(&processor)?;
    let (marks, to_find) = channel();
    let url = redis.url();
    let finder = std::thread::spawn(move || find(&url, &to_find));
    let client = broker
        .client()
        .set("transactional.id", "freshness")
        .set("linger.ms", "1")
        .create::<BaseProducer>()?;
    client.init_transactions(LIMIT)?;
    let (began, mut sent) = (Instant::now(), 0);
    let mut next = began;
    while began.elapsed() < time {
        next += TICK;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let due = began.elapsed().as_millis() as u64 * rate / 1_000;
        let mark = transaction(&client, steady.number, &mut sent, due)?;
        marks
            .send(mark)
            .map_err(|_| anyhow!("the finder has ended"))?;
    }
    drop(marks);
    let mut times = finder
        .join()
        .map_err(|_| anyhow!("the finder panicked"))??;
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).map_or(0, Duration::as_millis)
    };
    Ok(Fresh {
        marks: times.len(),
        p50_ms: at(50),
        p99_ms: at(99),
    })
}

fn await_caught_up(processor: &Processor) -> Result<()> {
    let began = Instant::now();
    loop {
        let delivered = processor.metric("thmanyah_sink_events_total", &[("sink", "redis")])?;
        let lag = processor.metric("thmanyah_sink_lag", &[("sink", "redis")])?;
        if delivered > Some(0.0) && lag == Some(0.0) {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!("the sink does not catch up: {}", processor.log());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn event(id: i64, content: ContentId) -> Result<Event<'static>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Event {
        id: EventId(id),
        content_id: Some(content),
        user_id: None,
        event_type: EventType::Play,
        event_ts: Timestamp::from_micros(now.as_micros() as i64).context("no such time")?,
        duration_ms: Some(1_000),
        device: None,
    })
}

/// Publishes what is due, the mark last.
fn transaction(client: &BaseProducer, number: u32, sent: &mut u64, due: u64) -> Result<Mark> {
    client.begin_transaction()?;
    let mut content = content_id(0);
    let mut date = String::new();
    while *sent <= due {
        let id = FIRST_ID * i64::from(number) + *sent as i64;
        let is_mark = *sent == due;
        content = content_id(if is_mark {
            number * 1_000_000 + due as u32
        } else {
            *sent as u32 % 1_000
        });
        let event = event(id, content)?;
        date = event.event_ts.to_string().chars().take(10).collect();
        let (key, value) = (id.to_string(), json(&event, None));
        let record = BaseRecord::to(ENRICHED)
            .partition((id % PARTITIONS) as i32)
            .key(&key)
            .payload(&value);
        client.send(record).map_err(|(error, _)| error)?;
        *sent += 1;
    }
    client.commit_transaction(LIMIT)?;
    Ok(Mark {
        content,
        date,
        committed: Instant::now(),
    })
}

/// Looks for each mark until it shows.
fn find(url: &str, to_find: &Receiver<Mark>) -> Result<Vec<Duration>> {
    let mut redis = redis::Client::open(url)?.get_connection()?;
    let (mut waiting, mut times) = (Vec::new(), Vec::new());
    let mut more = true;
    while more || !waiting.is_empty() {
        loop {
            match to_find.try_recv() {
                Ok(mark) => waiting.push(mark),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    more = false;
                    break;
                }
            }
        }
        let mut late = false;
        let mut left = Vec::new();
        for mark in waiting {
            let counters: Vec<redis::Value> = redis::cmd("FCALL_RO")
                .arg("thmanyah_content")
                .arg(1)
                .arg("{thm}")
                .arg(mark.content.to_string())
                .arg(&mark.date)
                .query(&mut redis)?;
            // Name and value by turns; the first is the number of plays.
            if matches!(counters.get(1), Some(redis::Value::Int(count)) if *count > 0) {
                times.push(mark.committed.elapsed());
            } else {
                late |= mark.committed.elapsed() > LIMIT;
                left.push(mark);
            }
        }
        waiting = left;
        if late {
            bail!("an event did not show within {LIMIT:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(times)
}
