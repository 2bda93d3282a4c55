//! Every hostile record of both input topics gives exactly one dead letter with its own bytes, and stops nothing else.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use thmanyah_dev::{Broker, BrokerOptions, Processor};
use thmanyah_proptests::checker::{check, check_dead_letters};
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::{
    HOSTILE, content_id, content_json, content_key, content_value, envelope, event_json, event_key,
    play,
};
use thmanyah_proptests::oracle::EventRow;

const LIMIT: Duration = Duration::from_mins(1);
const EVENTS: &str = "engagement-events.raw";
const CONTENT: &str = "content.raw";

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker"));

/// A record that must be refused, and the reason that must be told.
struct Hostile {
    reason: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

fn hostile(reason: &'static str, value: impl Into<Vec<u8>>) -> Hostile {
    Hostile {
        reason,
        key: Some(b"\x00any \xff key".to_vec()),
        value: Some(value.into()),
    }
}

/// The row with one column replaced.
fn with(mut row: Value, column: &str, value: Value) -> Vec<u8> {
    if let Some(columns) = row.as_object_mut() {
        columns.insert(column.to_owned(), value);
    }
    envelope("c", &Value::Null, &row)
}

/// What is wrong in the same way for both topics.
fn hostile_bytes() -> Vec<Hostile> {
    let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let large = format!(
        "{{\"op\":\"c\",\"after\":{{\"x\":\"{}\"}}}}",
        "y".repeat(5 << 20)
    );
    let mut all = vec![
        hostile("empty", ""),
        hostile(
            "not-utf8",
            b"{\"op\":\"c\",\"after\":{\"id\":\"\xff\"}}".to_vec(),
        ),
        hostile("not-json", "{\"op\":\"c\""),
        hostile("not-json", "{} {}"),
        hostile("not-json", "{\"op\":\"c\",\"after\":{\"id\":NaN}}"),
        hostile("too-deep", format!("{{\"op\":\"c\",\"after\":{nested}}}")),
        hostile("too-large", large),
        hostile("unknown-shape", "[1]"),
        hostile("unknown-shape", "{\"a\":1}"),
        hostile("op-unsupported", "{\"op\":\"t\",\"after\":null}"),
        hostile("op-unsupported", "{\"op\":null,\"after\":{\"id\":1}}"),
        hostile(
            "duplicate-key",
            "{\"op\":\"c\",\"after\":{\"id\":1,\"id\":2}}",
        ),
        hostile("field-missing", "{\"op\":\"c\",\"after\":null}"),
        hostile("field-type", "{\"op\":\"c\",\"after\":[]}"),
    ];
    // Keys of every kind travel on as they are.
    all.push(Hostile {
        reason: "empty",
        key: None,
        value: Some(Vec::new()),
    });
    all.push(Hostile {
        reason: "empty",
        key: Some(Vec::new()),
        value: Some(Vec::new()),
    });
    all
}

fn hostile_events() -> Vec<Hostile> {
    let row = || event_json(&play(1, Some(&content_id(1))));
    let mut all = hostile_bytes();
    all.extend([
        hostile("op-update", envelope("u", &row(), &row())),
        hostile("op-delete", envelope("d", &row(), &Value::Null)),
        hostile(
            "id-range",
            b"{\"op\":\"c\",\"after\":{\"id\":9223372036854775808}}".to_vec(),
        ),
        hostile("field-missing", with(row(), "id", Value::Null)),
        hostile("field-type", with(row(), "id", json!("1"))),
        hostile("field-type", with(row(), "duration_ms", json!(1.5))),
        hostile("field-type", with(row(), "duration_ms", json!("7"))),
        hostile("negative", with(row(), "duration_ms", json!(-1))),
        hostile("bad-uuid", with(row(), "content_id", json!("c0000000"))),
        hostile("bad-uuid", with(row(), "user_id", json!(""))),
        hostile(
            "unknown-event-type",
            with(row(), "event_type", json!("Play")),
        ),
        hostile(
            "bad-time",
            with(row(), "event_ts", json!("2025-02-30T00:00:00Z")),
        ),
        hostile("bad-time", with(row(), "event_ts", json!("infinity"))),
        hostile(
            "field-type",
            with(row(), "event_ts", json!(1_735_734_600_000_i64)),
        ),
    ]);
    // Each copy of a poison record is one of its own.
    all.push(hostile("negative", with(row(), "duration_ms", json!(-1))));
    all
}

fn hostile_content(id: &str) -> Vec<Hostile> {
    let row = || content_json(id, "video", Some(9));
    let mut all = hostile_bytes();
    all.extend([
        hostile("field-missing", with(row(), "id", Value::Null)),
        hostile("bad-uuid", with(row(), "id", json!("x"))),
        hostile(
            "unknown-content-type",
            with(row(), "content_type", json!("Video")),
        ),
        hostile("negative", with(row(), "length_seconds", json!(-1))),
        hostile("field-type", with(row(), "length_seconds", json!("9"))),
        hostile(
            "field-type",
            with(row(), "length_seconds", json!(2_147_483_648_i64)),
        ),
        hostile("bad-time", with(row(), "publish_ts", json!("yesterday"))),
        hostile("field-type", with(row(), "title", json!({"ar": "x"}))),
    ]);
    // A null value is a delete, and this one says of nothing.
    all.push(Hostile {
        reason: "any",
        key: None,
        value: None,
    });
    all.push(Hostile {
        reason: "any",
        key: Some(b"{\"id\":7}".to_vec()),
        value: None,
    });
    all
}

fn send_hostile(deployment: &Deployment<'_>, topic: &str, hostile: &[Hostile]) -> Result<()> {
    let topic = deployment.topic(topic);
    for (number, hostile) in hostile.iter().enumerate() {
        let partition = Some((number % deployment.partitions() as usize) as i32);
        let headers = [(HOSTILE, hostile.reason.as_bytes())];
        let (key, value) = (hostile.key.as_deref(), hostile.value.as_deref());
        deployment
            .feed()
            .send(&topic, partition, key, value, &headers)?;
    }
    deployment.feed().flush()
}

fn content(processor: &Processor, id: &str) -> Result<Option<Value>> {
    let answer = processor.get(&format!("/v1/content/{id}"))?;
    Ok(match answer.status {
        200 => Some(serde_json::from_str(&answer.body)?),
        _ => None,
    })
}

fn await_length(processor: &Processor, id: &str, length: Option<i32>) -> Result<Value> {
    await_until(LIMIT, "the content row", || {
        let row = content(processor, id)?;
        Ok(row.filter(|row| row.get("length_seconds") == Some(&json!(length))))
    })
}

fn by_id(rows: &[EventRow]) -> BTreeMap<i64, EventRow> {
    rows.iter().map(|row| (row.id, row.clone())).collect()
}

#[test]
fn every_hostile_event_is_one_dead_letter_and_good_events_around_it_pass() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "events", 2)?;
    let mut processor = deployment.start("0")?;
    let id = content_id(1);
    deployment.send_content(&id, "podcast", Some(1200))?;
    await_length(&processor, &id, Some(1200))?;
    let before: Vec<EventRow> = (1..21).map(|id_| play(id_, Some(&id))).collect();
    deployment.send_events(&before)?;
    let hostile = hostile_events();
    send_hostile(&deployment, EVENTS, &hostile)?;
    let after: Vec<EventRow> = (21..41).map(|id_| play(id_, Some(&id))).collect();
    deployment.send_events(&after)?;
    let count = hostile.len() as u64;
    deployment.await_total("all records", |ledger| ledger.consumed == 40 + count)?;
    // A restart reads nothing twice.
    ensure!(processor.terminate(Duration::from_secs(20))?.code() == Some(0));
    processor.restart()?;
    let findings = check(&deployment, &by_id(&[before, after].concat()))?;
    ensure!(findings.dead_events == hostile.len() && findings.status("joined") == 40);
    Ok(())
}

#[test]
fn every_hostile_content_row_is_one_dead_letter_and_leaves_the_table_as_it_was() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "content", 2)?;
    let processor = deployment.start("0")?;
    let id = content_id(1);
    deployment.send_content(&id, "podcast", Some(1200))?;
    let before = await_length(&processor, &id, Some(1200))?;
    let hostile = hostile_content(&id);
    send_hostile(&deployment, CONTENT, &hostile)?;
    let name = "thmanyah_content_records_total";
    await_until(LIMIT, "the dead letters", || {
        let dead = processor.metric(name, &[("outcome", "dead_letter")])?;
        Ok((dead.map(|dead| dead as usize) == Some(hostile.len())).then_some(()))
    })?;
    // What comes behind is applied, so all before it was.
    let marker = content_id(2);
    for partition in 0..deployment.partitions() {
        let value = content_value(&marker, "video", Some(partition));
        let topic = deployment.topic(CONTENT);
        deployment
            .feed()
            .send(&topic, Some(partition), None, Some(&value), &[])?;
        deployment.feed().flush()?;
        await_length(&processor, &marker, Some(partition))?;
    }
    ensure!(content(&processor, &id)? == Some(before));
    let topic = deployment.topic(CONTENT);
    let raw = deployment.read(CONTENT)?;
    let dlq = deployment.read("engagement-events.dlq")?;
    let dead = check_dead_letters("materializer", &topic, &raw, &dlq)?;
    ensure!(dead == hostile.len() && dead == dlq.len());
    Ok(())
}

#[test]
fn a_column_that_came_without_its_value_keeps_the_one_it_had() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "toast", 2)?;
    let mut processor = deployment.start("0")?;
    let id = content_id(1);
    let mut row = content_json(&id, "podcast", Some(1));
    let mut send = |title: &str, length: i32| {
        if let Some(columns) = row.as_object_mut() {
            columns.insert("title".into(), json!(title));
            columns.insert("length_seconds".into(), json!(length));
        }
        let value = envelope("u", &Value::Null, &row);
        let topic = deployment.topic(CONTENT);
        deployment
            .feed()
            .send(&topic, None, Some(&content_key(&id)), Some(&value), &[])
    };
    // In one transaction: the prior row is one that the materializer wrote itself just now.
    send("a long title", 1)?;
    send("__debezium_unavailable_value", 2)?;
    deployment.feed().flush()?;
    let found = await_length(&processor, &id, Some(2))?;
    ensure!(
        found.get("title") == Some(&json!("a long title")),
        "{found}"
    );
    // And after a restart without its disk: the prior row is in the changelog.
    processor.kill9();
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;
    send("__debezium_unavailable_value", 3)?;
    deployment.feed().flush()?;
    let found = await_length(&processor, &id, Some(3))?;
    ensure!(
        found.get("title") == Some(&json!("a long title")),
        "{found}"
    );
    let kept = processor.metric("thmanyah_unavailable_total", &[("outcome", "kept")])?;
    ensure!(kept == Some(1.0), "{kept:?}");
    Ok(())
}

#[test]
fn deletes_and_tombstones_delete_in_any_order_and_an_unknown_row_is_no_error() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "deletes", 1)?;
    let processor = deployment.start("0")?;
    let topic = deployment.topic(CONTENT);
    let ids: Vec<String> = (1..5).map(content_id).collect();
    for id in &ids {
        deployment.send_content(id, "video", Some(5))?;
    }
    let delete = |id: &str| envelope("d", &json!({"id": id, "length_seconds": 0}), &Value::Null);
    let send = |id: &str, value: Option<&[u8]>| {
        deployment
            .feed()
            .send(&topic, Some(0), Some(&content_key(id)), value, &[])
    };
    if let [first, second, third, _] = ids.as_slice() {
        send(first, Some(&delete(first)))?;
        send(first, None)?;
        send(second, None)?;
        send(second, Some(&delete(second)))?;
        send(third, None)?;
    }
    let unknown = content_id(99);
    send(&unknown, Some(&delete(&unknown)))?;
    send(&unknown, None)?;
    let last = content_id(50);
    deployment.send_content(&last, "video", Some(5))?;
    await_length(&processor, &last, Some(5))?;
    let left: Vec<bool> = ids
        .iter()
        .map(|id| Ok(content(&processor, id)?.is_some()))
        .collect::<Result<_>>()?;
    ensure!(left == [false, false, false, true], "{left:?}");
    // A tombstone among the events is ignored, and counted.
    let events = deployment.topic(EVENTS);
    deployment
        .feed()
        .send(&events, Some(0), Some(&event_key(1)), None, &[])?;
    deployment.feed().flush()?;
    let ledger = deployment.await_total("the tombstone", |ledger| ledger.consumed == 1)?;
    ensure!(ledger.ignored == 1, "{ledger:?}");
    ensure!(deployment.read("engagement-events.dlq")?.is_empty());
    Ok(())
}

#[test]
fn a_backfill_header_travels_on_through_parking_too() -> Result<()> {
    let deployment = Deployment::new(&BROKER, "backfill", 2)?;
    let mut processor = deployment.start("0")?;
    let (known, late) = (content_id(1), content_id(2));
    deployment.send_content(&known, "podcast", Some(1200))?;
    await_length(&processor, &known, Some(1200))?;
    let rows = [play(1, Some(&known)), play(2, Some(&late)), play(3, None)];
    let topic = deployment.topic(EVENTS);
    for row in &rows {
        let value = envelope("r", &Value::Null, &event_json(row));
        let headers = [("other", &b"x"[..]), ("backfill", &b"run-7 \xd8\xb4"[..])];
        deployment.feed().send(
            &topic,
            None,
            Some(&event_key(row.id)),
            Some(&value),
            &headers,
        )?;
    }
    deployment.feed().flush()?;
    deployment.await_total("the events", |l| l.enriched == 2 && l.pending == 1)?;
    processor.kill9();
    std::fs::remove_dir_all(deployment.state_dir("0"))?;
    processor.restart()?;
    deployment.send_content(&late, "video", None)?;
    deployment.await_total("the released event", |ledger| ledger.enriched == 3)?;
    check(&deployment, &by_id(&rows))?;
    for record in deployment.read("engagement-events.enriched")? {
        ensure!(
            record.header("backfill") == Some(&b"run-7 \xd8\xb4"[..]),
            "{record:?}"
        );
        ensure!(record.header("other").is_none(), "{record:?}");
    }
    let status = |id: i64| {
        let records = deployment.read("engagement-events.enriched")?;
        let record = records
            .into_iter()
            .find(|record| record.event_id().ok() == Some(id));
        record
            .context("no record")
            .map(|r| r.text("join-status").map(str::to_owned))
    };
    ensure!(status(2)?.as_deref() == Some("late"));
    Ok(())
}
