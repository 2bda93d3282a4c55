//! The engagement share is what a real PostgreSQL answers for the formula with numeric types.

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thmanyah::domain::{Engagement, Hundredths};
use thmanyah_dev::Postgres;

/// Cases in one query: a command line holds some 128 kB.
const BATCH: usize = 1_000;
const RANDOM: usize = 3_000;

/// Durations and lengths at which rounding or the range may go wrong.
const DURATIONS: [i32; 14] = [
    0,
    1,
    4,
    5,
    6,
    14,
    15,
    994,
    995,
    1_000,
    12_340,
    1_073_741_824,
    i32::MAX - 1,
    i32::MAX,
];
const LENGTHS: [i32; 12] = [
    0,
    1,
    2,
    3,
    7,
    60,
    1_200,
    65_536,
    214_748_364,
    1_073_741_824,
    i32::MAX - 1,
    i32::MAX,
];

fn cases() -> Vec<(Option<i32>, Option<i32>)> {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut cases = vec![(None, None), (Some(5), None), (None, Some(5))];
    for duration in DURATIONS {
        cases.extend(LENGTHS.map(|length| (Some(duration), Some(length))));
    }
    for _ in 0..RANDOM {
        // Of all sizes, not just huge ones; and every third on or beside a half.
        let length = random.random_range(0..=i32::MAX) >> random.random_range(0..31);
        let duration = match random.random_range(0..3) {
            0 => {
                let half =
                    i64::from(length) * 10 * random.random_range(0..500) + 5 * i64::from(length);
                i32::try_from(half + random.random_range(-1..=1))
                    .unwrap_or(i32::MAX)
                    .max(0)
            }
            _ => random.random_range(0..=i32::MAX) >> random.random_range(0..31),
        };
        cases.push((Some(duration), Some(length)));
    }
    cases
}

fn sql(number: Option<i32>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// `12.34` for 1234 hundredths, as PostgreSQL prints a numeric of scale 2.
fn printed(pct: Option<Hundredths>) -> String {
    pct.map_or_else(String::new, |Hundredths(pct)| {
        format!("{}.{:02}", pct / 100, pct % 100)
    })
}

#[test]
fn the_share_is_what_postgresql_rounds_it_to() -> Result<()> {
    let postgres = Postgres::start()?;
    let cases = cases();
    for batch in cases.chunks(BATCH) {
        let list = |numbers: Vec<String>| numbers.join(",");
        let durations = list(batch.iter().map(|(duration, _)| sql(*duration)).collect());
        let lengths = list(batch.iter().map(|(_, length)| sql(*length)).collect());
        // A length of zero is where we answer null instead of an error.
        let answer = postgres.query(&format!(
            "SELECT round((d / 1000.0) / nullif(l, 0), 2) \
             FROM unnest(ARRAY[{durations}]::int[], ARRAY[{lengths}]::int[]) WITH ORDINALITY AS t(d, l, n) \
             ORDER BY n"
        ))?;
        let ours: Vec<String> = batch
            .iter()
            .map(|(duration, length)| printed(Engagement::of(*duration, *length).pct))
            .collect();
        let mut theirs: Vec<&str> = answer.split('\n').collect();
        // Nulls are empty lines, and those at the end are trimmed away.
        theirs.resize(batch.len(), "");
        for ((case, ours), theirs) in batch.iter().zip(&ours).zip(theirs) {
            ensure!(
                ours == theirs,
                "{case:?}: {ours:?}, but PostgreSQL has {theirs:?}"
            );
        }
    }
    Ok(())
}
