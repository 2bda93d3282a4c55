//! The load: events and content as Debezium writes them, with late content, content that never comes, duplicates and poison.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;

use crate::feed::{Feed, HOSTILE, POISON, content_id, content_key, content_value};
use crate::feed::{event_key, event_value, play};
use crate::oracle::EventRow;

const EVENTS: &str = "engagement-events.raw";
const CONTENT: &str = "content.raw";

/// Rows that are there before the first event.
pub(super) const BASE_CONTENTS: u32 = 200;
/// Numbers from here on are rows that come late; each belongs to a group of successive events.
const LATE_FROM: u32 = 1_000_000;
const LATE_GROUP: i64 = 256;
/// Rows from here on never come.
const NEVER_FROM: u32 = 500_000_000;

/// Attempts to flush, each of which takes its time.
const FLUSHES: usize = 6;
/// Between two batches of events.
const TICK: Duration = Duration::from_millis(10);
/// Records in the producer's queue at most: while brokers are away the load pauses.
const IN_FLIGHT: usize = 20_000;
/// Events of one tick at most, after a pause.
const MOST_PER_TICK: u32 = 200;

/// A producer that gives up on no record, whatever the brokers do. It may send one twice; the input topics tell.
pub(super) fn feed(mut client: ClientConfig) -> Result<Feed> {
    client
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        // A broker answers the requests of a connection one after the other, each when it is replicated: few and large ones.
        .set("linger.ms", "20")
        .set("max.in.flight.requests.per.connection", "2")
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("reconnect.backoff.max.ms", "500");
    Feed::with(client)
}

/// A number that looks random, made of another.
fn mix(number: i64) -> u64 {
    let mut mixed = number.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The row of an event: a function of its id.
fn row(id: i64) -> EventRow {
    let mixed = mix(id);
    let any = (mixed >> 32) as u32;
    let content = match mixed % 100 {
        0..10 => None,
        10..80 => Some(any % BASE_CONTENTS),
        80..95 => Some(LATE_FROM + late_group(id)),
        _ => Some(NEVER_FROM + any % 1_000),
    };
    play(id, content.map(content_id).as_deref())
}

fn late_group(id: i64) -> u32 {
    u32::try_from(id / LATE_GROUP).unwrap_or_default()
}

/// Every row up to an id.
pub(super) fn rows(last: i64) -> BTreeMap<i64, EventRow> {
    (1..=last).map(|id| (id, row(id))).collect()
}

/// Sends a version of a content row.
pub(super) fn send_content(feed: &Feed, number: u32, version: u32) -> Result<()> {
    let id = content_id(number);
    let kind = ["podcast", "newsletter", "video"]
        .get(version as usize % 3)
        .copied()
        .unwrap_or("video");
    let length = i32::try_from(version % 5_000).ok();
    let value = content_value(&id, kind, length);
    feed.send(CONTENT, None, Some(&content_key(&id)), Some(&value), &[])
}

/// Sends the rows that are there before the first event.
pub(super) fn send_base(feed: &Feed) -> Result<()> {
    for number in 0..BASE_CONTENTS {
        send_content(feed, number, number)?;
    }
    flush(feed)
}

/// Waits until everything is in the log, also when a broker is away.
pub(super) fn flush(feed: &Feed) -> Result<()> {
    let mut outcome = Ok(());
    for _ in 0..FLUSHES {
        outcome = feed.flush();
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Sends `rate` events a second, and content, until `stop` is set. Gives the last id.
pub(super) fn run(feed: &Feed, rate: u32, stop: &AtomicBool) -> Result<i64> {
    let mut sent = 0;
    let mut due = 0.0;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        due += last.elapsed().as_secs_f64() * f64::from(rate);
        last = Instant::now();
        let batch = (due as u32).min(MOST_PER_TICK);
        if feed.in_flight() < IN_FLIGHT {
            for _ in 0..batch {
                sent += 1;
                send(feed, sent)?;
            }
            due -= f64::from(batch);
        }
        // What a long pause kept back is not made up for.
        due = due.min(f64::from(rate));
        feed.poll();
        sleep(TICK);
    }
    flush(feed)?;
    Ok(sent)
}

/// Sends an event, and what comes with it.
fn send(feed: &Feed, id: i64) -> Result<()> {
    let event = |id: i64| {
        let (key, value) = (event_key(id), event_value(&row(id)));
        feed.send(EVENTS, None, Some(&key), Some(&value), &[])
    };
    event(id)?;
    // Deliveries of the source that come again, soon and much later.
    if id % 31 == 0 {
        event((id - 400).max(1))?;
    }
    if id % 101 == 0 {
        event(id / 2)?;
    }
    for (every, topic) in [(97, EVENTS), (307, CONTENT)] {
        if id % every == 0 {
            poison(feed, topic, id)?;
        }
    }
    if id % 50 == 0 {
        let version = (mix(id) >> 20) as u32;
        send_content(feed, version % BASE_CONTENTS, version)?;
    }
    // The content of a group comes when the group is over, at once or up to seven groups later.
    if id % LATE_GROUP == 0 {
        let before = late_group(id);
        for group in before.saturating_sub(8)..before {
            if group + 1 + group % 8 == before {
                send_content(feed, LATE_FROM + group, group)?;
            }
        }
    }
    Ok(())
}

fn poison(feed: &Feed, topic: &str, id: i64) -> Result<()> {
    let mixed = mix(id) as usize;
    let Some((reason, value)) = POISON.get(mixed % POISON.len()) else {
        return Ok(());
    };
    let partition = Some((mixed >> 8) as i32 & 3);
    let headers = [(HOSTILE, reason.as_bytes())];
    let key = (mixed & 64 == 0).then_some(&b"\xff\x00"[..]);
    feed.send(topic, partition, key, Some(value.as_bytes()), &headers)
}
