//! What Redis holds, as any client reads it, and the comparison with what the enriched topic says that it must hold; with
//! events that are meant to make the two differ.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rand::Rng;
use thmanyah_dev::Redis;

use crate::board::{Counted, Engaged, board, counters};
use crate::oracle::EventRow;

const TYPES: [&str; 4] = ["play", "pause", "finish", "click"];
const MINUTE_MS: i64 = 60_000;

/// A board of that moment, or of now.
pub fn read_board(
    redis: &Redis,
    prefix: &str,
    limit: usize,
    at_ms: Option<i64>,
) -> Result<Vec<(String, i64)>> {
    let (key, limit) = (format!("{{{prefix}}}"), limit.to_string());
    let at = at_ms.map(|at| at.to_string());
    let mut words = vec!["FCALL_RO", "thmanyah_top", "1", &key, &limit];
    words.extend(at.as_deref());
    let printed = redis.command(&words)?;
    let lines: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
    let pairs = lines.chunks(2).map(|pair| match pair {
        [content, sum] => Ok(((*content).to_owned(), sum.parse()?)),
        _ => anyhow::bail!("half a pair: {printed}"),
    });
    pairs.collect()
}

/// Names and numbers that a function answers with.
pub fn read_numbers(
    redis: &Redis,
    function: &str,
    prefix: &str,
    arguments: &[&str],
) -> Result<BTreeMap<String, i64>> {
    let key = format!("{{{prefix}}}");
    let words = [&["FCALL_RO", function, "1", &key], arguments].concat();
    let printed = redis.command(&words)?;
    let lines: Vec<&str> = printed.lines().collect();
    let pairs = lines.chunks(2).map(|pair| match pair {
        [name, value] => Ok(((*name).to_owned(), value.parse()?)),
        _ => anyhow::bail!("half a pair: {printed}"),
    });
    pairs.collect()
}

/// The fences: partition and field -> value.
pub fn read_fences(redis: &Redis, prefix: &str) -> Result<BTreeMap<(i32, String), String>> {
    let printed = redis.command(&["HGETALL", &format!("{{{prefix}}}:fences")])?;
    let lines: Vec<&str> = printed.lines().collect();
    let mut fences = BTreeMap::new();
    for pair in lines.chunks(2) {
        if let [name, value] = pair
            && let Some((partition, field)) = name.split_once(':')
        {
            fences.insert((partition.parse()?, field.to_owned()), (*value).to_owned());
        }
    }
    Ok(fences)
}

/// The next offset of each partition's fence.
pub fn positions(redis: &Redis, prefix: &str) -> Result<BTreeMap<i32, i64>> {
    let fences = read_fences(redis, prefix)?;
    let next = fences.into_iter().filter(|((_, field), _)| field == "next");
    next.map(|((partition, _), next)| Ok((partition, next.parse()?)))
        .collect()
}

/// Checks boards of these moments and all counters against the events.
pub fn compare(redis: &Redis, prefix: &str, events: &[Engaged], moments: &[i64]) -> Result<()> {
    for at in moments {
        let expected = board(events, *at);
        let found = read_board(redis, prefix, expected.len() + 10, Some(*at))?;
        ensure!(
            found == expected,
            "the board at {at}: {found:?}\nbut must be {expected:?}"
        );
        let few = read_board(redis, prefix, 3, Some(*at))?;
        ensure!(
            expected.starts_with(&few) && few.len() == expected.len().min(3),
            "{few:?}"
        );
    }
    for ((content, date), counted) in counters(events) {
        let found = read_numbers(redis, "thmanyah_content", prefix, &[&content, &date])?;
        let told = |name: &str| found.get(name).copied();
        for kind in TYPES {
            let expected = counted.events.get(kind).copied().unwrap_or(0);
            ensure!(
                told(kind) == Some(expected),
                "{content} {date} {kind}: {found:?}, but must be {expected}"
            );
        }
        ensure!(
            told("engagement_ms") == Some(counted.engagement_ms),
            "{content} {date}: {found:?} {counted:?}"
        );
        let users = estimate(redis, &counted)?;
        ensure!(
            told("unique_users") == Some(users),
            "{content} {date}: {found:?}, but users are {users}"
        );
    }
    Ok(())
}

/// What a `HyperLogLog` of exactly these users says.
fn estimate(redis: &Redis, counted: &Counted) -> Result<i64> {
    if counted.users.is_empty() {
        return Ok(0);
    }
    let mut add = vec!["PFADD", "estimate"];
    add.extend(counted.users.iter().map(String::as_str));
    redis.command(&add)?;
    let estimated = redis.command(&["PFCOUNT", "estimate"])?.parse()?;
    redis.command(&["DEL", "estimate"])?;
    Ok(estimated)
}

/// Events around `now_ms` that lie on every edge of the window, now and then far outside, and now and then without content,
/// user or duration.
pub fn hostile_events(rng: &mut impl Rng, ids: std::ops::Range<i64>, now_ms: i64) -> Vec<EventRow> {
    let event = |id: i64| {
        let at_ms = match rng.random_range(0..100) {
            0 => 1_546_300_800_000,
            1 => now_ms + 59 * MINUTE_MS,
            2 => now_ms + 3 * 60 * MINUTE_MS,
            3 => 253_402_300_799_999,
            4..10 => now_ms.div_euclid(10_000) * 10_000 - rng.random_range(-60..120) * 10_000,
            _ => now_ms - rng.random_range(-2 * MINUTE_MS..25 * MINUTE_MS),
        };
        // Skewed, as engagement is.
        let content = rng.random_range(0..40) * rng.random_range(0..40) / 40;
        EventRow {
            id,
            content_id: rng
                .random_bool(0.95)
                .then(|| crate::feed::content_id(content)),
            user_id: rng
                .random_bool(0.95)
                .then(|| format!("00000000-0000-4000-9000-{:012}", rng.random_range(0..300))),
            event_type: TYPES
                .get(rng.random_range(0..4))
                .copied()
                .unwrap_or("play")
                .to_owned(),
            event_ts_micros: at_ms * 1000,
            duration_ms: rng
                .random_bool(0.9)
                .then(|| rng.random_range(0..4) * rng.random_range(0..900_000)),
            device: None,
        }
    };
    let mut event = event;
    ids.map(&mut event).collect()
}

/// Moments at which a board is worth a look.
pub fn moments(now_ms: i64) -> Vec<i64> {
    let minutes = [0, 1, 5, 10, 15, -1, -11, -59];
    minutes
        .iter()
        .map(|minutes| now_ms - minutes * MINUTE_MS)
        .collect()
}
