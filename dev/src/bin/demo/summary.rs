//! The end of the demo: the figures, read from the running parts, and whether they add up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::accounts::{Accounts, Ledger, count};
use crate::destinations::TABLE;
use crate::latency::{Percentiles, ReadBack, read_back};
use crate::pipeline::Pipeline;
use crate::screen::{Screen, grouped};

/// How long the query side may be behind what was published.
const QUERY_LIMIT: Duration = Duration::from_secs(20);
const QUERY_ROWS: usize = 3;

/// Shows everything; `false` if something does not add up.
pub(crate) fn show(pipeline: &mut Pipeline, screen: &Screen) -> Result<bool> {
    let seen = pipeline.destinations.seen()?;
    let read = read_back(&pipeline.broker, &seen)?;
    let metrics = pipeline.processor.get("/metrics")?.body;
    let accounts = Accounts {
        rows: pipeline.rows()?,
        ledger: Ledger::read(&metrics).context("/metrics has no thmanyah_ledger")?,
        published: read.published,
        distinct: read.distinct,
    };
    let contents = count(&pipeline.postgres.query("SELECT count(*) FROM content")?)?;
    screen.section("What became of every row");
    show_accounts(&accounts, contents, &read, screen);
    screen.section("Where it went");
    let problems = show_destinations(pipeline, &read, screen)?;
    screen.section("How fast");
    show_speed(
        pipeline.processor.pid(),
        &read,
        accounts.ledger.consumed,
        screen,
    );
    screen.section("Ask for a range of time");
    show_query(pipeline, screen)?;
    screen.section("Where it runs");
    show_addresses(pipeline, screen);
    let mut problems = problems;
    problems.splice(0..0, accounts.problems());
    screen.verdict(&problems);
    Ok(problems.is_empty())
}

fn show_accounts(accounts: &Accounts, contents: u64, read: &ReadBack, screen: &Screen) {
    let ledger = &accounts.ledger;
    let rows = format!(
        "{:>8} events over {} contents",
        grouped(accounts.rows),
        grouped(contents)
    );
    screen.figure("rows in PostgreSQL", &rows);
    let consumed = format!("{:>8}", grouped(ledger.consumed));
    screen.checked("consumed", &consumed, ledger.consumed == accounts.rows);
    let statuses: Vec<String> = [
        ("joined", "joined"),
        ("late", "late"),
        ("timeout", "timed out"),
        ("none", "without content"),
    ]
    .iter()
    .filter_map(|(status, words)| {
        Some(format!(
            "{} {words}",
            grouped(*read.by_status.get(*status)?)
        ))
    })
    .collect();
    for (name, value, more) in [
        ("  enriched", ledger.enriched, statuses.join(" · ")),
        ("  dead letters", ledger.dead, String::new()),
        ("  duplicates", ledger.duplicate, String::new()),
        ("  ignored", ledger.ignored, String::new()),
        ("  pending", ledger.pending, String::new()),
    ] {
        screen.figure(name, format!("{:>8}  {more}", grouped(value)).trim_end());
    }
    let law = format!(
        "{} = {} + {} + {} + {} + {}",
        ledger.consumed,
        ledger.enriched,
        ledger.dead,
        ledger.duplicate,
        ledger.ignored,
        ledger.pending
    );
    screen.checked("conservation law", &law, ledger.balances());
    let back = format!(
        "{} records, {} different events",
        grouped(read.published),
        grouped(read.distinct)
    );
    let once = read.published == read.distinct && read.published == ledger.enriched;
    screen.checked("read back from Kafka", &back, once);
}

/// What the mock of the external system tells.
#[derive(Deserialize)]
struct Totals {
    distinct: u64,
    duplicates: u64,
}

/// Shows what each destination holds; tells what is not as it was published.
fn show_destinations(pipeline: &Pipeline, read: &ReadBack, screen: &Screen) -> Result<Vec<String>> {
    let destinations = &pipeline.destinations;
    let mut problems = Vec::new();
    let mut check = |name: &str, text: &str, sound: bool| {
        screen.checked(name, text, sound);
        if !sound {
            problems.push(format!(
                "{name}: {text}, but {} events were published",
                grouped(read.published)
            ));
        }
    };
    let sql = format!("SELECT COUNT(*), COUNT(DISTINCT event_id) FROM {TABLE}");
    let rows = destinations.bigquery.query(&sql, &[])?;
    let cell = |index: usize| -> Option<u64> { rows.first()?.get(index)?.as_ref()?.parse().ok() };
    let (rows, different) = (cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
    let told = format!(
        "{:>8}  {} different events",
        grouped(rows),
        grouped(different)
    );
    check(
        "rows in BigQuery",
        &told,
        rows == read.published && different == read.published,
    );
    let answer = destinations.external.get("/seen")?.body;
    let external: Totals = serde_json::from_str(&answer).context("what the mock tells")?;
    let told = format!(
        "{:>8}  {} duplicates",
        grouped(external.distinct),
        grouped(external.duplicates)
    );
    check(
        "POSTs to the external",
        &told,
        external.distinct == read.published,
    );
    let top_ten = ["FCALL_RO", "thmanyah_top", "1", "{thm}", "10"];
    screen.figure("Redis", &top_ten.join(" "));
    let board = destinations.redis.command(&top_ten)?;
    let lines: Vec<&str> = board.lines().collect();
    for (place, pair) in (1..).zip(lines.chunks_exact(2)) {
        let [content, millis] = pair else { continue };
        let sql =
            format!("SELECT coalesce(title, slug, id::text) FROM content WHERE id = '{content}'");
        let title = pipeline.postgres.query(&sql)?;
        let minutes = millis.parse::<f64>().unwrap_or_default() / 60_000.0;
        screen.quote(&format!("{place:>2}. {minutes:>8.1} min  {}", title.trim()));
    }
    Ok(problems)
}

fn show_speed(pid: u32, read: &ReadBack, consumed: u64, screen: &Screen) {
    let rate = format!(
        "{:.0} events/s, as fast as the rows were written",
        read.per_second
    );
    screen.figure("throughput", &rate);
    if let Some(cpu) = cpu_seconds(pid) {
        let used = format!("{cpu:.1} s for {} events", grouped(consumed));
        screen.figure("CPU of thmanyah", &used);
    }
    screen.figure("row commit → enriched", &percentiles(&read.from_commit));
    screen.figure("  of it in thmanyah", &percentiles(&read.from_raw));
    screen.figure("row commit → Redis", &percentiles(&read.to_redis));
    screen.figure("row commit → external", &percentiles(&read.to_external));
    screen.figure("row commit → BigQuery", &percentiles(&read.to_bigquery));
}

fn percentiles(values: &Percentiles) -> String {
    match (values.at(50), values.at(99)) {
        (Some(p50), Some(p99)) => format!("p50 {p50} ms · p99 {p99} ms"),
        _ => "not known".into(),
    }
}

/// The unit of the times in `/proc`, the same on all Linux of our architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far, from the system's own books.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th fields after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn show_query(pipeline: &mut Pipeline, screen: &Screen) -> Result<()> {
    let range = pipeline.postgres.query(
        "SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         FROM unnest(ARRAY[now() - interval '10 minutes', now() + interval '1 minute']) t",
    )?;
    let (from, to) = range.split_once('\n').context("PostgreSQL gave no range")?;
    let path = format!("/v1/enriched-events?from={from}&to={to}&limit={QUERY_ROWS}");
    let start = Instant::now();
    let items = loop {
        let answer = pipeline.processor.get(&path)?;
        let items = items_of(&answer.body);
        if answer.status == 200 && !items.is_empty() {
            break items;
        }
        if start.elapsed() > QUERY_LIMIT {
            bail!("GET {path} answered {}: {}", answer.status, answer.body);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    screen.figure("GET", &path);
    for item in items {
        screen.quote(&item);
    }
    screen.quote("…");
    Ok(())
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The objects of a page, as they were sent.
fn items_of(body: &str) -> Vec<String> {
    serde_json::from_str::<Page<'_>>(body)
        .map(|page| {
            page.items
                .iter()
                .map(|item| item.get().to_owned())
                .collect()
        })
        .unwrap_or_default()
}

fn show_addresses(pipeline: &Pipeline, screen: &Screen) {
    let url = pipeline.processor.url();
    screen.figure(
        "queries",
        &format!("{url}/v1/enriched-events  {url}/v1/content"),
    );
    screen.figure("metrics, health", &format!("{url}/metrics  {url}/readyz"));
    screen.figure("Kafka", pipeline.broker.bootstrap());
    screen.figure("Redis", &pipeline.destinations.redis.url());
    screen.figure(
        "BigQuery emulator",
        &pipeline.destinations.bigquery.rest_url(),
    );
    screen.figure(
        "external system",
        &pipeline.destinations.external.events_url(),
    );
    screen.figure("Connect", pipeline.connect.url());
    screen.figure("PostgreSQL", &pipeline.postgres.url());
}
