//! Each sink by itself against its real destination, beside a bare reader of the same topic: events a second, and CPU-seconds
//! per million. Then how soon Redis and the external system have what was committed, at a steady rate, by themselves and beside
//! a BigQuery that is dead. One broker, one run.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^52"
)]

mod freshness;
mod throughput;

use anyhow::Result;
use clap::Parser;
use std::io::Write;
use std::time::Duration;
use thmanyah_dev::{BigQuery, Broker, BrokerOptions, ExternalSystem, Redis, RedisOptions, Topic};
use thmanyah_proptests::published::{Filling, fill};

pub(crate) const ENRICHED: &str = "engagement-events.enriched";
const PARTITIONS: i32 = 4;
const CONTENTS: u32 = 5_000;
const HEAP_MIB: u32 = 1024;

/// Measures what each sink takes, and how fresh the board in Redis is
#[derive(Debug, Parser)]
struct Arguments {
    /// Events that each sink delivers
    #[arg(long, env = "BENCH_SINK_EVENTS", default_value_t = 200_000)]
    events: usize,
    /// Events a second while the freshness is measured
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    /// For so many seconds
    #[arg(long, env = "BENCH_FRESHNESS_SECONDS", default_value_t = 20)]
    seconds: u64,
}

pub(crate) fn say(text: &str) {
    // Nobody is left to tell when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let broker = Broker::start(BrokerOptions {
        heap_mib: Some(HEAP_MIB),
        ..BrokerOptions::default()
    })?;
    broker.create_topics(&[
        Topic::new("engagement-events.raw", PARTITIONS),
        Topic::new("content.raw", PARTITIONS),
    ])?;
    let filling = Filling::new(PARTITIONS, arguments.events, CONTENTS, 1);
    let written = fill(&broker, ENRICHED, &filling)?;
    let events = written.iter().map(Vec::len).sum::<usize>() as u64;
    let bytes: usize = written
        .iter()
        .flatten()
        .map(|event| event.value.len())
        .sum();
    say(&format!(
        "{events} events of {} bytes each",
        bytes as u64 / events.max(1)
    ));
    drop(written);

    let bare = throughput::bare_reader(&broker, events)?;
    say(&bare.line("bare reader", None));
    let redis = Redis::start(RedisOptions::default())?;
    let at_redis = [("THMANYAH_SINKS__REDIS__URL".to_owned(), redis.url())];
    let of_redis = throughput::sink(&broker, "redis", &at_redis, events)?;
    say(&of_redis.line("redis", Some(&bare)));

    let bigquery = BigQuery::start()?;
    let at_bigquery = [
        ("PROJECT", bigquery.project().to_owned()),
        ("REST_URL", bigquery.rest_url()),
        ("GRPC_URL", bigquery.grpc_url()),
    ]
    .map(|(name, value)| (format!("THMANYAH_SINKS__BIGQUERY__{name}"), value));
    let of_bigquery = throughput::sink(&broker, "bigquery", &at_bigquery, events)?;
    say(&of_bigquery.line("bigquery (emulator)", Some(&bare)));

    let external = ExternalSystem::start(PARTITIONS)?;
    let at_external = [(
        "THMANYAH_SINKS__HTTP__URL".to_owned(),
        external.events_url(),
    )];
    let of_http = throughput::sink(&broker, "http", &at_external, events)?;
    drop(external);
    say(&of_http.line("http (mock)", Some(&bare)));

    let time = Duration::from_secs(arguments.seconds);
    let mut bigquery = bigquery;
    bigquery.kill9();
    let runs = [
        ("fresh", "without BigQuery", &at_bigquery[..0]),
        ("fresh-beside", "beside a dead BigQuery", &at_bigquery[..]),
    ];
    for (number, (app, how, beside)) in (1..).zip(runs) {
        let steady = freshness::Steady {
            app,
            number,
            beside,
            rate: arguments.rate,
            time,
        };
        let found = freshness::measure(&broker, &steady)?;
        for (place, fresh) in ["Redis", "HTTP"].iter().zip(found) {
            say(&format!(
                "commit → {place} at {} events/s, {how}: p50 {} ms, p99 {} ms, of {} marks",
                arguments.rate, fresh.p50_ms, fresh.p99_ms, fresh.marks
            ));
        }
    }
    Ok(())
}
