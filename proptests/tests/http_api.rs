//! The HTTP API of a running process: what it answers is what was published.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use thmanyah_dev::{Broker, BrokerOptions, Processor};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::{Deployment, Logged};
use thmanyah_proptests::feed::{content_id, play};
use thmanyah_proptests::oracle::{EventRow, utc};
use thmanyah_proptests::pages::{ALL_TIMES, all_items, await_events};

const STOP_LIMIT: Duration = Duration::from_secs(20);
const EVENTS: &str = "/v1/enriched-events";
const CONTENTS: u32 = 9;

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker"));

/// Events whose times do not rise with their ids, and often are the same.
fn rows(count: i64) -> BTreeMap<i64, EventRow> {
    let kinds = ["play", "pause", "finish", "click"];
    (0..count)
        .map(|number| {
            // Ids that sort otherwise as text than as numbers, some of them negative.
            let id = number * 7 - 20;
            let content =
                (number % 10 != 0).then(|| content_id((number % i64::from(CONTENTS)) as u32));
            let mut row = play(id, content.as_deref());
            row.event_ts_micros = 1_735_734_600_000_000 + (number * 37 % 101) * 500_000;
            row.event_type = kinds
                .get((number % 4) as usize)
                .copied()
                .unwrap_or_default()
                .into();
            row.duration_ms = row.duration_ms.map(i32::abs);
            row.user_id = None;
            (id, row)
        })
        .collect()
}

/// A process that is through with the rows.
fn served<'b>(app: &str, rows: &BTreeMap<i64, EventRow>) -> Result<(Deployment<'b>, Logged)> {
    let deployment = Deployment::new(&BROKER, app, 4)?;
    let processor = deployment.start("0")?;
    for number in 0..CONTENTS {
        deployment.send_content(&content_id(number), "podcast", Some(100))?;
    }
    deployment.send_events(rows.values())?;
    let count = rows.len() as u64;
    deployment.await_total("all events", |ledger| ledger.enriched == count)?;
    Ok((deployment, processor))
}

/// The published values, in the order of the API.
fn published(deployment: &Deployment<'_>, rows: &BTreeMap<i64, EventRow>) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for record in deployment.read("engagement-events.enriched")? {
        let id = record.event_id()?;
        let row = rows.get(&id).context("no such row")?;
        let value = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        found.push(((row.event_ts_micros, id), value));
    }
    found.sort_by_key(|(key, _)| *key);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

fn status(processor: &Processor, path: &str) -> Result<u16> {
    Ok(processor.get(path)?.status)
}

#[test]
fn paging_gives_every_published_event_once_in_order_with_the_published_values() -> Result<()> {
    let rows = rows(600);
    let (deployment, mut processor) = served("pages", &rows)?;
    check(&deployment, &rows)?;
    let expected = published(&deployment, &rows)?;
    let found = await_events(&processor, rows.len())?;
    ensure!(
        found == expected,
        "the pages differ from what was published"
    );
    for limit in [1, 7, 1000] {
        let found = all_items(&processor, EVENTS, &format!("{ALL_TIMES}&limit={limit}"))?;
        ensure!(
            found == expected,
            "pages of {limit} differ from what was published"
        );
    }
    // `from` is in, `to` is not.
    let (from, to) = (1_735_734_610_000_000, 1_735_734_620_000_000);
    let range = format!("from={}&to={}", utc(from), utc(to));
    let in_range: Vec<Value> = expected
        .iter()
        .filter(|item| {
            let id = item.get("event_id").and_then(Value::as_str);
            let row = id.and_then(|id| rows.get(&id.parse().ok()?));
            row.is_some_and(|row| (from..to).contains(&row.event_ts_micros))
        })
        .cloned()
        .collect();
    ensure!(!in_range.is_empty() && in_range.len() < expected.len());
    ensure!(all_items(&processor, EVENTS, &format!("{range}&limit=3"))? == in_range);

    // A restart in good order, a kill, and a lost disk: the same answers.
    for end in 0..3 {
        match end {
            0 => ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0)),
            1 => drop(processor.kill9()),
            _ => {
                processor.kill9();
                std::fs::remove_dir_all(deployment.state_dir("0"))?;
            }
        }
        processor.restart()?;
        let found = await_events(&processor, rows.len())?;
        ensure!(found == expected, "other answers after restart {end}");
    }
    Ok(())
}

#[test]
fn filters_give_the_events_of_a_content_and_of_a_type() -> Result<()> {
    let rows = rows(200);
    let (deployment, processor) = served("filters", &rows)?;
    let expected = published(&deployment, &rows)?;
    await_events(&processor, rows.len())?;
    let content = content_id(3);
    let by_content = |item: &Value| item.get("content_id") == Some(&json!(content));
    let by_type = |item: &Value| item.get("event_type") == Some(&json!("finish"));
    for (filter, fits) in [
        (
            format!("content_id={content}"),
            &by_content as &dyn Fn(&Value) -> bool,
        ),
        ("event_type=finish".to_owned(), &by_type),
        (
            format!("content_id={content}&event_type=finish"),
            &|item: &Value| by_content(item) && by_type(item),
        ),
    ] {
        let wanted: Vec<Value> = expected.iter().filter(|item| fits(item)).cloned().collect();
        ensure!(!wanted.is_empty(), "{filter} shows nothing");
        let found = all_items(&processor, EVENTS, &format!("{ALL_TIMES}&{filter}&limit=2"))?;
        ensure!(found == wanted, "{filter}: {found:?}, wanted {wanted:?}");
    }
    Ok(())
}

#[test]
fn one_event_and_one_content_row_are_found_by_their_ids() -> Result<()> {
    let rows = rows(60);
    let (deployment, processor) = served("ids", &rows)?;
    await_events(&processor, rows.len())?;
    for record in deployment.read("engagement-events.enriched")? {
        let answer = processor.get(&format!("{EVENTS}/{}", record.event_id()?))?;
        ensure!(answer.status == 200, "{}", answer.body);
        ensure!(
            Some(answer.body.as_bytes()) == record.value.as_deref(),
            "{}",
            answer.body
        );
    }
    ensure!(status(&processor, &format!("{EVENTS}/123456789"))? == 404);
    ensure!(status(&processor, &format!("{EVENTS}/x"))? >= 400);

    let answer = processor.get(&format!("/v1/content/{}", content_id(1)))?;
    let row: Value = serde_json::from_str(&answer.body)?;
    ensure!(row.get("content_type") == Some(&json!("podcast")), "{row}");
    ensure!(row.get("title") == Some(&json!("عنوان")), "{row}");
    ensure!(status(&processor, &format!("/v1/content/{}", content_id(77)))? == 404);
    let contents = all_items(&processor, "/v1/content", "limit=2")?;
    let ids: Vec<&str> = contents
        .iter()
        .filter_map(|row| row.get("id")?.as_str())
        .collect();
    let expected: Vec<String> = (0..CONTENTS).map(content_id).collect();
    ensure!(ids == expected, "{ids:?}");
    Ok(())
}

#[test]
fn wrong_queries_are_problems_and_never_a_failure_of_the_server() -> Result<()> {
    let rows = rows(20);
    let (_deployment, processor) = served("wrong", &rows)?;
    await_events(&processor, rows.len())?;
    let (from, to) = ("from=2025-01-01T00:00:00Z", "to=2026-01-01T00:00:00Z");
    for query in [
        String::new(),
        from.to_owned(),
        format!("{to}&from=2027-01-01T00:00:00Z"),
        format!("{from}&{to}&limit=0"),
        format!("{from}&{to}&limit=1001"),
        format!("{from}&{to}&limit=5&limit=5"),
        format!("{from}&{to}&event_type=watch"),
        format!("{from}&{to}&content_id=7"),
        format!("{from}&{to}&cursor=AAAA"),
        format!("{from}&{to}&colour=red"),
        format!("{from}&to=2026-02-30T00:00:00Z"),
    ] {
        let answer = processor.get(&format!("{EVENTS}?{query}"))?;
        ensure!(
            answer.status == 400,
            "{query}: {} {}",
            answer.status,
            answer.body
        );
        let problem: Value = serde_json::from_str(&answer.body)?;
        ensure!(problem.get("status") == Some(&json!(400)), "{problem}");
        ensure!(
            problem.get("title").is_some_and(Value::is_string),
            "{problem}"
        );
    }
    ensure!(status(&processor, "/v1/nothing")? == 404);
    Ok(())
}

#[test]
fn health_and_metrics_carry_the_names_of_the_contract() -> Result<()> {
    let rows = rows(100);
    let (deployment, processor) = served("metrics", &rows)?;
    ensure!(status(&processor, "/livez")? == 200);
    ensure!(status(&processor, "/readyz")? == 200);
    let metric = |name: &str, labels: &[(&str, &str)]| -> Result<f64> {
        processor
            .metric(name, labels)?
            .with_context(|| format!("no {name} {labels:?}"))
    };
    for outcome in [
        "enriched",
        "dead_letter",
        "duplicate",
        "ignored",
        "parked",
        "released",
        "timed_out",
    ] {
        metric("thmanyah_events_total", &[("outcome", outcome)])?;
    }
    let ledger = deployment.total()?;
    for (kind, told) in [
        ("consumed", ledger.consumed),
        ("enriched", ledger.enriched),
        ("dead", ledger.dead),
        ("duplicate", ledger.duplicate),
        ("ignored", ledger.ignored),
        ("pending", ledger.pending),
    ] {
        let shown = metric("thmanyah_ledger", &[("kind", kind)])?;
        ensure!(shown as u64 == told, "{kind}: {shown}, committed is {told}");
        metric("thmanyah_ledger", &[("kind", kind), ("partition", "3")])?;
    }
    ensure!(metric("thmanyah_records_consumed_total", &[])? as u64 == 100);
    ensure!(metric("thmanyah_pending_events", &[])? as u64 == 0);
    ensure!(metric("thmanyah_content_watermark_seconds", &[])? > 1.7e9);
    ensure!(metric("thmanyah_commit_seconds_count", &[])? > 0.0);
    for table in ["content", "pending"] {
        metric("thmanyah_restore_records_total", &[("table", table)])?;
    }
    // Everything is read, so the lag falls to nothing.
    thmanyah_proptests::deployment::await_until(Duration::from_mins(1), "no lag", || {
        let lag = processor.metric("thmanyah_consumer_lag", &[])?;
        Ok((lag == Some(0.0)).then_some(()))
    })?;
    Ok(())
}
