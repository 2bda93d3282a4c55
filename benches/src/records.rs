//! The raw records: Debezium envelopes as the real connector writes them, made from a seed.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;
use uuid::Builder;

const SEED: u64 = 7;
const DAY_MICROS: u64 = 86_400_000_000;
/// The exponent that makes a few contents popular: half of the events are about 6 % of them.
const SKEW: i32 = 4;

/// How the times of events follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they happen.
    Rising,
    /// Anywhere within a month.
    Random,
}

/// Makes records into reused buffers.
pub struct Records {
    contents: Vec<String>,
    random: ChaCha8Rng,
    /// Events that share a day when times rise.
    per_day: u64,
    /// Key of the record that was made last.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Records {
    /// Records about so many contents and events.
    pub fn new(contents: usize, events: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let contents = (0..contents).map(|_| uuid(&mut random)).collect();
        Self {
            contents,
            random,
            per_day: events.max(1),
            key: String::new(),
            value: String::new(),
        }
    }

    /// How many contents there are.
    pub fn contents(&self) -> usize {
        self.contents.len()
    }

    /// The insert of a content.
    pub fn content(&mut self, index: usize) {
        let id = self.contents.get(index).map_or("", String::as_str);
        let kind = one(&["podcast", "newsletter", "video"], index as u64);
        let length = 60 + index % 7200;
        self.key.clear();
        self.value.clear();
        // Writing into a String cannot fail.
        let _ = write!(self.key, "{{\"id\":\"{id}\"}}");
        let _ = write!(
            self.value,
            "{{\"before\":null,\"after\":{{\"id\":\"{id}\",\"slug\":\"content-{index}\",\"title\":\"حلقة رقم {index}: a talk\",\
             \"content_type\":\"{kind}\",\"length_seconds\":{length},\"publish_ts\":\"2026-11-01T07:54:48.457283Z\"}},"
        );
        tail(&mut self.value, "content", index as u64);
    }

    /// The insert of event number `id`.
    #[allow(
        clippy::cast_precision_loss,
        reason = "there are fewer contents than 2^52"
    )]
    pub fn event(&mut self, id: u64, order: Order) {
        let share = self.random.random::<f64>().powi(SKEW);
        let content = (share * self.contents.len() as f64) as usize;
        let (day, micros) = match order {
            Order::Rising => (
                1 + id / self.per_day % 28,
                id % self.per_day * (DAY_MICROS / self.per_day),
            ),
            Order::Random => (
                self.random.random_range(1..29),
                self.random.random_range(0..DAY_MICROS),
            ),
        };
        let seconds = micros / 1_000_000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let kind = one(&["play", "pause", "finish", "click"], id);
        let device = one(&["ios", "android", "web"], id);
        let user = uuid(&mut self.random);
        let content = self.contents.get(content).map_or("", String::as_str);
        let duration = self.random.random_range(0..3_600_000);
        self.key.clear();
        self.value.clear();
        let _ = write!(self.key, "{{\"id\":{id}}}");
        let _ = write!(
            self.value,
            "{{\"before\":null,\"after\":{{\"id\":{id},\"content_id\":\"{content}\",\"user_id\":\"{user}\",\
             \"event_type\":\"{kind}\",\"event_ts\":\"2026-10-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z\",\
             \"duration_ms\":{duration},\"device\":\"{device}\",\
             \"raw_payload\":\"{{\\\"app\\\": \\\"5.2.1\\\", \\\"position_ms\\\": {duration}}}\"}},",
            micros % 1_000_000
        );
        tail(&mut self.value, "engagement_events", id);
    }
}

impl Records {
    /// Makes the event that was made last one that must be refused, at the last of its checks.
    pub fn spoil(&mut self) {
        self.value = self
            .value
            .replacen("\"duration_ms\":", "\"duration_ms\":-1", 1);
    }
}

/// One of the words, in turn.
fn one(words: &[&'static str], number: u64) -> &'static str {
    let at = number as usize % words.len().max(1);
    words.get(at).copied().unwrap_or_default()
}

fn uuid(random: &mut ChaCha8Rng) -> String {
    Builder::from_random_bytes(random.random())
        .into_uuid()
        .to_string()
}

/// What an envelope tells of its source.
fn tail(out: &mut String, table: &str, number: u64) {
    let lsn = 26_738_432 + number * 312;
    let ms = 1_795_507_409_301 + number / 8;
    let _ = write!(
        out,
        "\"source\":{{\"version\":\"3.6.3.Final\",\"connector\":\"postgresql\",\"name\":\"thm\",\"ts_ms\":{ms},\
         \"snapshot\":\"false\",\"db\":\"thm\",\"sequence\":\"[\\\"{lsn}\\\",\\\"{lsn}\\\"]\",\"ts_us\":{ms}054,\
         \"ts_ns\":{ms}054000,\"schema\":\"public\",\"table\":\"{table}\",\"txId\":{},\"lsn\":{lsn},\"xmin\":null,\
         \"origin\":null,\"origin_lsn\":null}},\"transaction\":null,\"op\":\"c\",\"ts_ms\":{ms},\"ts_us\":{ms}694,\
         \"ts_ns\":{ms}694236}}",
        755 + number / 64
    );
}
