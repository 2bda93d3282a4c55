//! Where the events go in the end: Redis, the emulator of BigQuery, the mock of an external system; and how far each is,
//! looked at from outside all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use thmanyah_dev::{BigQuery, ExternalSystem, Redis, RedisOptions};

/// Between two looks at a destination: what is measured is this too late, at most.
const LOOK: Duration = Duration::from_millis(50);
/// Events of one page of the mock.
const PAGE: usize = 10_000;
/// The table with its default name.
pub(crate) const TABLE: &str = "`engagement.engagement_events`";

/// Next offset of each partition.
type Positions = BTreeMap<i32, i64>;

/// What one destination held at a moment, in milliseconds since the epoch.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) at_ms: i64,
    pub(crate) positions: Positions,
}

/// The three destinations, and who looks at them.
pub(crate) struct Destinations {
    pub(crate) redis: Arc<Redis>,
    pub(crate) bigquery: Arc<BigQuery>,
    pub(crate) external: ExternalSystem,
    stop: Arc<AtomicBool>,
    watches: Vec<JoinHandle<Vec<Sample>>>,
}

/// What the destinations showed, and when.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) redis: Vec<Sample>,
    pub(crate) bigquery: Vec<Sample>,
    /// By event id, in milliseconds since the epoch.
    pub(crate) external: BTreeMap<i64, i64>,
}

#[derive(Deserialize)]
struct Journal {
    events: Vec<Taken>,
}

#[derive(Deserialize)]
struct Taken {
    key: String,
    at_ms: i64,
}

impl Destinations {
    pub(crate) fn start(partitions: i32) -> Result<Self> {
        let redis = Arc::new(Redis::start(RedisOptions::default())?);
        let bigquery = Arc::new(BigQuery::start()?);
        let stop = Arc::new(AtomicBool::new(false));
        let (board, table) = (Arc::clone(&redis), Arc::clone(&bigquery));
        let watches = vec![
            watch(Arc::clone(&stop), move || fences(&board)),
            watch(Arc::clone(&stop), move || rows(&table)),
        ];
        Ok(Self {
            redis,
            bigquery,
            external: ExternalSystem::start(partitions)?,
            stop,
            watches,
        })
    }

    /// The variables that set the three sinks up.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let settings = [
            ("REDIS__URL", self.redis.url()),
            ("BIGQUERY__PROJECT", self.bigquery.project().to_owned()),
            ("BIGQUERY__REST_URL", self.bigquery.rest_url()),
            ("BIGQUERY__GRPC_URL", self.bigquery.grpc_url()),
            ("HTTP__URL", self.external.events_url()),
        ];
        let named = settings.map(|(name, value)| (format!("THMANYAH_SINKS__{name}"), value));
        named.into()
    }

    /// Ends the looking, and tells what was seen.
    pub(crate) fn seen(&mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for watch in self.watches.drain(..) {
            samples.push(
                watch
                    .join()
                    .map_err(|_| anyhow!("a watching thread panicked"))?,
            );
        }
        let mut samples = samples.into_iter();
        let mut seen = Seen {
            redis: samples.next().unwrap_or_default(),
            bigquery: samples.next().unwrap_or_default(),
            external: BTreeMap::new(),
        };
        let mut from = 0;
        loop {
            let page = self
                .external
                .get(&format!("/events?from={from}&limit={PAGE}"))?;
            let page: Journal = serde_json::from_str(&page.body).context("the mock's events")?;
            if page.events.is_empty() {
                return Ok(seen);
            }
            from += page.events.len();
            for event in page.events {
                seen.external
                    .entry(event.key.parse()?)
                    .or_insert(event.at_ms);
            }
        }
    }
}

fn watch(
    stop: Arc<AtomicBool>,
    look: impl Fn() -> Option<Positions> + Send + 'static,
) -> JoinHandle<Vec<Sample>> {
    std::thread::spawn(move || {
        let mut samples: Vec<Sample> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let news = look().filter(|now| samples.last().is_none_or(|s| s.positions != *now));
            if let Some(positions) = news {
                let at_ms = now_ms();
                samples.push(Sample { at_ms, positions });
            }
            std::thread::sleep(LOOK);
        }
        samples
    })
}

/// Where the fences in Redis stand. Fields and values come by turns, one a line.
fn fences(redis: &Redis) -> Option<Positions> {
    let answer = redis.command(&["HGETALL", "{thm}:fences"]).ok()?;
    let lines: Vec<&str> = answer.lines().collect();
    let fences = lines.chunks_exact(2).filter_map(|pair| {
        let [field, value] = pair else { return None };
        let partition = field.strip_suffix(":next")?;
        Some((partition.parse().ok()?, value.parse().ok()?))
    });
    Some(fences.collect())
}

/// Up to where the rows in BigQuery go.
fn rows(bigquery: &BigQuery) -> Option<Positions> {
    let sql = format!("SELECT _kafka_partition, MAX(_kafka_offset) + 1 FROM {TABLE} GROUP BY 1");
    let rows = bigquery.query(&sql, &[]).ok()?;
    let number = |cell: Option<&Option<String>>| cell?.as_ref()?.parse::<i64>().ok();
    let rows = rows.iter().filter_map(|row| {
        let partition = i32::try_from(number(row.first())?).ok()?;
        Some((partition, number(row.get(1))?))
    });
    Some(rows.collect())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
