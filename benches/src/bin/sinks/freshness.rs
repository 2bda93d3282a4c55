//! How long after the commit of its transaction an event shows in Redis and at the external system: one event of each transaction
//! is looked for, which is about a content that no other is about.

use crate::ENRICHED;
use anyhow::{Context, Result, anyhow, bail};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thmanyah::domain::{ContentId, Event, EventId, EventType, Timestamp};
use thmanyah_dev::{
    Broker, ExternalSystem, Processor, ProcessorOptions, Redis, RedisOptions, ScratchDir,
};
use thmanyah_proptests::published::{content_id, json};

/// Between two transactions.
const TICK: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Ids far from those that the topic was filled with.
const FIRST_ID: i64 = 1 << 40;
const PARTITIONS: i64 = 4;

/// The times of all marks at one destination.
pub(crate) struct Fresh {
    pub(crate) marks: usize,
    pub(crate) p50_ms: u128,
    pub(crate) p99_ms: u128,
}

/// An event to be looked for, and when its transaction was committed.
#[derive(Clone)]
struct Mark {
    id: i64,
    content: ContentId,
    date: String,
    committed: Instant,
}

/// One measurement.
pub(crate) struct Steady<'a> {
    /// The name of its app; each has its own.
    pub(crate) app: &'a str,
    /// Its number: each looks for events of its own.
    pub(crate) number: u32,
    /// Settings of a sink beside those of Redis and HTTP.
    pub(crate) beside: &'a [(String, String)],
    /// Events a second.
    pub(crate) rate: u64,
    pub(crate) time: Duration,
}

/// Publishes at a steady rate for some time while the sinks run. Gives the times of Redis and of the external system.
pub(crate) fn measure(broker: &Broker, steady: &Steady<'_>) -> Result<[Fresh; 2]> {
    let redis = Redis::start(RedisOptions::default())?;
    let external = ExternalSystem::start(PARTITIONS as i32)?;
    let state = ScratchDir::new("fresh")?;
    let mut options = ProcessorOptions::new(broker.bootstrap(), "0", &state.path().join("state"))
        .args(["--roles", "sink-redis,sink-bigquery,sink-http"])
        .args(["--app", steady.app]);
    let sinks = [("REDIS", redis.url()), ("HTTP", external.events_url())];
    let sinks = sinks.map(|(name, url)| (format!("THMANYAH_SINKS__{name}__URL"), url));
    options.env.extend(sinks);
    options.env.extend_from_slice(steady.beside);
    let processor = Processor::start(options)?;
    let mut published = 0;
    broker.read_topic(ENRICHED, |_| published += 1)?;
    for sink in ["redis", "http"] {
        await_delivered(&processor, sink, published)?;
    }
    let (to_redis, in_redis) = channel();
    let (to_external, at_external) = channel();
    let mut connection = redis::Client::open(redis.url())?.get_connection()?;
    let in_redis = std::thread::spawn(move || find(&in_redis, |mark| shows(&mut connection, mark)));
    let at_external = std::thread::spawn(move || {
        let looked = |mark: &Mark| Ok(external.get(&format!("/seen/{}", mark.id))?.status == 200);
        find(&at_external, looked)
    });
    publish(broker, steady, &[to_redis, to_external])?;
    let mut found = Vec::with_capacity(2);
    for finder in [in_redis, at_external] {
        let times = finder.join();
        found.push(fresh(times.map_err(|_| anyhow!("a finder panicked"))??));
    }
    found
        .try_into()
        .map_err(|_| anyhow!("there are two destinations"))
}

/// Publishes what is due, and tells of each mark, until the time is over.
fn publish(broker: &Broker, steady: &Steady<'_>, finders: &[Sender<Mark>]) -> Result<()> {
    let client = broker
        .client()
        .set("transactional.id", "freshness")
        .set("linger.ms", "1")
        .create::<BaseProducer>()?;
    client.init_transactions(LIMIT)?;
    let (began, mut sent) = (Instant::now(), 0);
    let mut next = began;
    while began.elapsed() < steady.time {
        next += TICK;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let due = began.elapsed().as_millis() as u64 * steady.rate / 1_000;
        let mark = transaction(&client, steady.number, &mut sent, due)?;
        for finder in finders {
            let told = finder.send(mark.clone());
            told.map_err(|_| anyhow!("a finder has ended"))?;
        }
    }
    Ok(())
}

fn fresh(mut times: Vec<Duration>) -> Fresh {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).map_or(0, Duration::as_millis)
    };
    Fresh {
        marks: times.len(),
        p50_ms: at(50),
        p99_ms: at(99),
    }
}

/// Not a lag of zero, which partitions that are yet to be opened have, too.
fn await_delivered(processor: &Processor, sink: &str, events: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let delivered = processor.metric("thmanyah_sink_events_total", &[("sink", sink)])?;
        if delivered.unwrap_or_default() as u64 >= events {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!("{sink} does not catch up: {}", processor.log());
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
    let mut mark = None;
    while *sent <= due {
        let id = FIRST_ID * i64::from(number) + *sent as i64;
        let is_mark = *sent == due;
        let content = content_id(if is_mark {
            number * 1_000_000 + due as u32
        } else {
            *sent as u32 % 1_000
        });
        let event = event(id, content)?;
        let date = event.event_ts.to_string().chars().take(10).collect();
        mark = Some((id, content, date));
        let (key, value) = (id.to_string(), json(&event, None));
        let record = BaseRecord::to(ENRICHED)
            .partition((id % PARTITIONS) as i32)
            .key(&key)
            .payload(&value);
        client.send(record).map_err(|(error, _)| error)?;
        *sent += 1;
    }
    client.commit_transaction(LIMIT)?;
    let (id, content, date) = mark.context("nothing is due")?;
    Ok(Mark {
        id,
        content,
        date,
        committed: Instant::now(),
    })
}

/// Whether the counters of the mark's content are there.
fn shows(redis: &mut redis::Connection, mark: &Mark) -> Result<bool> {
    let counters: Vec<redis::Value> = redis::cmd("FCALL_RO")
        .arg("thmanyah_content")
        .arg(1)
        .arg("{thm}")
        .arg(mark.content.to_string())
        .arg(&mark.date)
        .query(redis)?;
    // Name and value by turns; the first is the number of plays.
    Ok(matches!(counters.get(1), Some(redis::Value::Int(count)) if *count > 0))
}

/// Looks for each mark until it shows.
fn find(
    to_find: &Receiver<Mark>,
    mut shows: impl FnMut(&Mark) -> Result<bool>,
) -> Result<Vec<Duration>> {
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
        let mut left = Vec::new();
        for mark in waiting {
            if shows(&mark)? {
                times.push(mark.committed.elapsed());
            } else if mark.committed.elapsed() > LIMIT {
                bail!("an event did not show within {LIMIT:?}");
            } else {
                left.push(mark);
            }
        }
        waiting = left;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(times)
}
