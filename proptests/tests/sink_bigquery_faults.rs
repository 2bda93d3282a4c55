//! The BigQuery sink when something is wrong: one clear message, the process stays up, and goes on by itself once it is right.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use thmanyah::domain::Timestamp;
use thmanyah_dev::{Processor, ScratchDir};
use thmanyah_proptests::bigquery_site::{Site, Stage, await_line, stage};
use thmanyah_proptests::published::Written;
use thmanyah_proptests::table::{await_count, must_equal};
use thmanyah_proptests::topics::read_back;

const LIMIT: Duration = Duration::from_mins(1);

fn create_dataset(stage: &Stage, name: &str) -> Result<()> {
    let reference = json!({"projectId": stage.bigquery.project(), "datasetId": name});
    let dataset = json!({"datasetReference": reference});
    Ok(stage.bigquery.create("datasets", &dataset)?)
}

/// A table with all columns, but for what is changed in this one.
fn create_table(stage: &Stage, dataset: &str, column: &str, change: &[(&str, &str)]) -> Result<()> {
    let columns = [
        ("event_id", "STRING"),
        ("content_id", "STRING"),
        ("user_id", "STRING"),
        ("event_type", "STRING"),
        ("event_ts", "TIMESTAMP"),
        ("duration_ms", "INTEGER"),
        ("device", "STRING"),
        ("content_type", "STRING"),
        ("length_seconds", "INTEGER"),
        ("engagement_seconds", "NUMERIC"),
        ("engagement_pct", "NUMERIC"),
        ("_kafka_partition", "INTEGER"),
        ("_kafka_offset", "INTEGER"),
    ];
    let field = |(name, kind): (&str, &str)| {
        let mut field = json!({"name": name, "type": kind, "mode": "NULLABLE"});
        if name == column {
            for (key, value) in change {
                field[*key] = json!(value);
            }
        }
        field
    };
    let fields: Vec<Value> = columns.into_iter().map(field).collect();
    let reference = json!({"projectId": stage.bigquery.project(), "datasetId": dataset, "tableId": "engagement_events"});
    let table = json!({"tableReference": reference, "schema": {"fields": fields}});
    let path = format!("datasets/{dataset}/tables");
    Ok(stage.bigquery.create(&path, &table)?)
}

/// A message stands in the log once, and the process goes on.
fn told_once(sink: &mut Processor, message: &str) -> Result<()> {
    await_line(sink, message, 1, LIMIT)?;
    assert!(sink.ended().is_none());
    assert_eq!(sink.log().matches(message).count(), 1, "{}", sink.log());
    Ok(())
}

#[test]
fn credentials_that_cannot_be_used_are_told_of_and_read_again() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "credentials", 1)?;
    let written = site.fill(&stage, 1, 100)?;
    let dir = ScratchDir::new("credentials")?;
    let file = dir.path().join("key.json");
    std::fs::write(&file, r#"{"type": "service_account"}"#)?;
    let file = file.to_str().unwrap();
    let mut sink = Processor::spawn(site.options(&stage, &[("CREDENTIALS_FILE", file)]))?;
    told_once(
        &mut sink,
        &format!("cannot use the credentials in {file}: missing field"),
    )?;
    sink.kill9();
    let mut sink = Processor::spawn(site.options(&stage, &[]))?;
    await_count(&stage.bigquery, &site.table(), 100, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &written)?;
    assert!(sink.ended().is_none());
    Ok(())
}

#[test]
fn a_dataset_that_is_missing_is_told_of_until_it_is_there() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "missing", 2)?;
    let written = site.fill(&stage, 1, 200)?;
    let mut sink = Processor::spawn(site.options(&stage, &[("CREATE", "false")]))?;
    told_once(&mut sink, "the dataset `missing` does not exist")?;
    create_dataset(&stage, "missing")?;
    create_table(&stage, "missing", "", &[])?;
    await_count(&stage.bigquery, &site.table(), 200, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &written)
}

#[test]
fn a_table_of_another_form_is_told_of_exactly_until_it_fits() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "drift", 2)?;
    let written = site.fill(&stage, 1, 200)?;
    create_dataset(&stage, "drift")?;
    create_table(&stage, "drift", "device", &[("type", "INTEGER")])?;
    let mut sink = Processor::spawn(site.options(&stage, &[]))?;
    told_once(&mut sink, "column device is INTEGER but must be STRING")?;
    stage
        .bigquery
        .query(&format!("DROP TABLE {}", site.table()), &[])?;
    await_count(&stage.bigquery, &site.table(), 200, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &written)
}

#[test]
fn a_table_that_loses_a_column_takes_nothing_more_for_delivered_than_it_holds() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "altered", 1)?;
    site.fill(&stage, 1, 100)?;
    let mut sink = Processor::spawn(site.options(&stage, &[]))?;
    await_count(&stage.bigquery, &site.table(), 100, LIMIT)?;
    let hiccups = sink.log().matches("delivering again").count();
    let alter = format!("ALTER TABLE {} DROP COLUMN device", site.table());
    stage.bigquery.query(&alter, &[])?;
    site.fill(&stage, 101, 100)?;
    await_line(&mut sink, "BigQuery refuses rows", 1, LIMIT)?;
    // This BigQuery counts rows that it refused, as the real one does not.
    await_line(&mut sink, "is not written any more", 1, LIMIT)?;
    let delivered = sink.metric(
        "thmanyah_sink_events_total",
        &[("sink", "bigquery"), ("outcome", "delivered")],
    )?;
    assert_eq!(delivered, Some(100.0));
    assert!(sink.get("/readyz")?.body.contains("sink-bigquery"));
    assert_eq!(sink.log().matches("delivering again").count(), hiccups);
    Ok(())
}

#[test]
fn a_bigquery_that_is_away_is_caught_up_with_and_its_rows_come_by_time() -> Result<()> {
    let mut stage = stage();
    let site = Site::new(&stage, "engagement", 3)?;
    let mut written = site.fill(&stage, 1, 3_000)?;
    let mut sink = Processor::spawn(site.options(&stage, &[("BATCH_RECORDS", "50")]))?;
    await_count(&stage.bigquery, &site.table(), 500, LIMIT)?;
    stage.bigquery.kill9();
    await_line(&mut sink, "BigQuery", 1, LIMIT)?;
    let more = site.fill(&stage, 3_001, 1_000)?;
    for (partition, more) in written.iter_mut().zip(more) {
        partition.extend(more);
    }
    stage.bigquery.restart()?;
    await_count(&stage.bigquery, &site.table(), 4_000, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &written)?;
    assert!(sink.ended().is_none());
    by_time(&stage, &written)
}

/// The query that is shipped gives what was done in its range, in order.
fn by_time(stage: &Stage, written: &[Vec<Written>]) -> Result<()> {
    let sql = include_str!("../../sql/enriched_events_by_time.sql");
    let mut all: Vec<&Written> = written.iter().flatten().collect();
    all.sort_by_key(|written| (written.event.event_ts, written.event.id));
    let (from, to) = (
        all[all.len() / 4].event.event_ts,
        all[all.len() / 2].event.event_ts,
    );
    let text = |time: Timestamp| {
        let mut text = Vec::new();
        time.write_to(&mut text);
        String::from_utf8(text).unwrap()
    };
    let range = [("from_ts", &*text(from)), ("to_ts", &*text(to))];
    let found = stage.bigquery.query(sql, &range)?;
    let found: Vec<String> = found
        .iter()
        .map(|row| row[0].clone().unwrap_or_default())
        .collect();
    let wanted = all.iter().map(|written| &written.event);
    let wanted = wanted.filter(|event| event.event_ts >= from && event.event_ts < to);
    let wanted: Vec<String> = wanted.map(|event| event.id.to_string()).collect();
    assert!(wanted.len() > 100);
    assert_eq!(found, wanted);
    Ok(())
}

#[test]
fn what_cannot_be_a_row_is_a_dead_letter_and_the_rest_arrives() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "rejected", 1)?;
    create_dataset(&stage, "rejected")?;
    create_table(&stage, "rejected", "device", &[("maxLength", "3")])?;
    let written = site.fill(&stage, 1, 1_000)?;
    let enriched = site.topic("engagement-events.enriched");
    let producer: BaseProducer = stage.broker.client().create()?;
    let huge = r#"{"event_id":"1","event_type":"play","event_ts":"2026-01-01T00:00:00Z","engagement_seconds":1e99}"#;
    for (key, value) in [("-1", "no JSON"), ("-2", huge)] {
        let record = BaseRecord::to(&enriched).partition(0).key(key);
        producer
            .send(record.payload(value))
            .map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    let (long, short): (Vec<_>, Vec<_>) = written.into_iter().flatten().partition(|written| {
        let device = written.event.device.as_deref();
        device.is_some_and(|device| device.chars().count() > 3)
    });
    assert!(long.len() > 100 && short.len() > 100);
    let mut expected = vec![(-2, "rejected".to_owned()), (-1, "not-json".to_owned())];
    let refused = long.iter().map(|written| written.event.id.0);
    expected.extend(refused.map(|id| (id, "rejected".to_owned())));

    let _sink = Processor::spawn(site.options(&stage, &[]))?;
    await_count(&stage.bigquery, &site.table(), short.len(), LIMIT)?;
    let start = Instant::now();
    let letters = loop {
        let letters = letters(&stage, &site)?;
        if letters.len() >= expected.len() || start.elapsed() > LIMIT {
            break letters;
        }
    };
    assert_eq!(letters, expected);
    must_equal(&stage.bigquery, &site.table(), &[short])
}

/// Ids and reasons of the dead letters, in order.
fn letters(stage: &Stage, site: &Site) -> Result<Vec<(i64, String)>> {
    let topic = site.topic("engagement-events.dlq");
    let mut letters = Vec::new();
    for letter in read_back(stage.broker.bootstrap(), &topic)? {
        assert_eq!(letter.text("dlq-stage"), Some("sink-bigquery"));
        let reason = letter.text("dlq-reason").unwrap();
        letters.push((letter.event_id()?, reason.to_owned()));
    }
    letters.sort();
    Ok(letters)
}

#[test]
fn rows_that_are_missing_stop_a_partition_until_an_operator_accepts_it() -> Result<()> {
    let stage = stage();
    let site = Site::new(&stage, "deleted", 1)?;
    let mut written = site.fill(&stage, 1, 300)?;
    let mut sink = Processor::spawn(site.options(&stage, &[]))?;
    await_count(&stage.bigquery, &site.table(), 300, LIMIT)?;
    // It commits how far it is, so that what is deleted now is not written again.
    sink.terminate(LIMIT)?;
    let gone = written[0].split_off(290);
    let delete = format!(
        "DELETE FROM {} WHERE _kafka_offset >= {}",
        site.table(),
        gone[0].offset
    );
    stage.bigquery.query(&delete, &[])?;
    let more = site.fill(&stage, 301, 50)?;
    written[0].extend(more.into_iter().flatten());
    sink.respawn()?;
    let problem = "300 rows were written since the beginning and 290 are there: some were deleted";
    told_once(&mut sink, problem)?;
    sink.kill9();
    let _sink = Processor::spawn(site.options(&stage, &[("ACCEPT_MISSING_ROWS", "true")]))?;
    await_count(&stage.bigquery, &site.table(), 340, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &written)
}

#[test]
fn a_table_that_was_made_anew_is_told_of_and_not_taken_for_the_old_one() -> Result<()> {
    let mut stage = stage();
    let site = Site::new(&stage, "anew", 1)?;
    let written = site.fill(&stage, 1, 300)?;
    let mut sink = Processor::spawn(site.options(&stage, &[]))?;
    await_count(&stage.bigquery, &site.table(), 300, LIMIT)?;
    sink.terminate(LIMIT)?;
    // The next stream begins behind these rows, and nothing comes for it.
    sink.respawn()?;
    let behind = written[0].last().map_or(0, |last| last.offset) + 1;
    let opened = format!("opened a stream partition=0 start={behind}");
    await_line(&mut sink, &opened, 1, LIMIT)?;
    sink.terminate(LIMIT)?;
    stage.bigquery.restart_empty()?;
    let after = site.fill(&stage, 301, 50)?;
    sink.respawn()?;
    await_line(&mut sink, "the stream that wrote them is gone", 1, LIMIT)?;
    assert!(sink.ended().is_none());
    sink.kill9();
    let mut sink = Processor::spawn(site.options(&stage, &[("ACCEPT_MISSING_ROWS", "true")]))?;
    await_count(&stage.bigquery, &site.table(), 50, LIMIT)?;
    must_equal(&stage.bigquery, &site.table(), &after)?;
    let told = "going on, as `sinks.bigquery.accept_missing_rows` is set";
    await_line(&mut sink, told, 1, LIMIT)
}
