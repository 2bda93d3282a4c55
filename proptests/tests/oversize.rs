//! Records that are too large for something: an input, an output's topic, the dead letters' topic. Each is one dead letter, and
//! nothing stands still.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use thmanyah::codec::{EventRecord, EventRules, decode_event};
use thmanyah_dev::{Broker, BrokerOptions, Topic};
use thmanyah_proptests::deployment::{Deployment, await_until};
use thmanyah_proptests::feed::{
    content_id, content_json, content_key, envelope, event_json, event_key, play,
};
use thmanyah_proptests::oracle::EventRow;
use thmanyah_proptests::topics::Record;

const LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const EVENTS: &str = "engagement-events.raw";
const CONTENT: &str = "content.raw";
const ENRICHED: &str = "engagement-events.enriched";
const PENDING: &str = "engagement-events.pending";
const DLQ: &str = "engagement-events.dlq";
const CHANGELOG: &str = "content.changelog";

static BROKER: LazyLock<Broker> =
    LazyLock::new(|| Broker::start(BrokerOptions::default()).expect("a broker"));

/// A deployment whose topics take records of these sizes at most; the input topics take 16 MiB.
fn deployment(app: &str, limits: &[(&str, &str)]) -> Result<Deployment<'static>> {
    let deployment = Deployment::with_prefix(&BROKER, app, &format!("{app}."), 2)?;
    let mut topics: Vec<Topic> = [EVENTS, CONTENT]
        .map(|name| Topic::new(&deployment.topic(name), 2).with("max.message.bytes", "16777216"))
        .to_vec();
    for (name, bytes) in limits {
        let compacted = *name == PENDING || *name == CHANGELOG;
        let cleanup = if compacted { "compact" } else { "delete" };
        let topic = Topic::new(&deployment.topic(name), 2).with("max.message.bytes", bytes);
        topics.push(topic.with("cleanup.policy", cleanup));
    }
    BROKER.create_topics(&topics)?;
    Ok(deployment)
}

/// An event whose device has that many characters.
fn large(id: i64, content: Option<&str>, device: usize) -> EventRow {
    EventRow {
        device: Some("d".repeat(device)),
        ..play(id, content)
    }
}

/// An insert of the event with a payload of that many characters, which is not read.
fn with_payload(id: i64, payload: usize) -> Vec<u8> {
    let mut row = event_json(&play(id, None));
    if let Some(columns) = row.as_object_mut() {
        columns.insert("raw_payload".into(), json!("p".repeat(payload)));
    }
    envelope("c", &Value::Null, &row)
}

fn send(deployment: &Deployment<'_>, topic: &str, key: &[u8], value: &[u8]) -> Result<()> {
    let topic = deployment.topic(topic);
    deployment
        .feed()
        .send(&topic, None, Some(key), Some(value), &[])
}

fn known_content(
    deployment: &Deployment<'_>,
    processor: &thmanyah_dev::Processor,
) -> Result<String> {
    let id = content_id(1);
    deployment.send_content(&id, "podcast", Some(1200))?;
    let path = format!("/v1/content/{id}");
    await_until(LIMIT, "the content", || {
        Ok((processor.get(&path)?.status == 200).then_some(()))
    })?;
    Ok(id)
}

/// The dead letters by the id in their key.
fn letters(deployment: &Deployment<'_>) -> Result<BTreeMap<Vec<u8>, Record>> {
    let mut found = BTreeMap::new();
    for record in deployment.read(DLQ)? {
        let key = record.key.clone().unwrap_or_default();
        ensure!(
            found.insert(key, record).is_none(),
            "two dead letters of one record"
        );
    }
    Ok(found)
}

/// What a failed test wants to know of the process.
fn told(processor: &thmanyah_dev::Processor) -> String {
    let page = processor
        .get("/metrics")
        .map_or_else(|error| error.to_string(), |answer| answer.body);
    let lines = page.lines().filter(|line| line.starts_with("thmanyah_"));
    lines.collect::<Vec<_>>().join("; ")
}

fn published(deployment: &Deployment<'_>) -> Result<Vec<i64>> {
    let mut ids: Vec<i64> = deployment
        .read(ENRICHED)?
        .iter()
        .map(Record::event_id)
        .collect::<Result<_>>()?;
    ids.sort_unstable();
    Ok(ids)
}

#[test]
fn a_record_of_ten_megabytes_is_one_whole_dead_letter_and_stops_nothing() -> Result<()> {
    let deployment = deployment("huge", &[])?;
    let mut processor = deployment.start("0")?;
    let huge = with_payload(2, 10_000_000);
    let legal = with_payload(4, 4_000_000);
    send(&deployment, EVENTS, &event_key(1), &with_payload(1, 10))?;
    send(&deployment, EVENTS, &event_key(2), &huge)?;
    send(&deployment, EVENTS, &event_key(3), &with_payload(3, 10))?;
    send(&deployment, EVENTS, &event_key(4), &legal)?;
    send(&deployment, CONTENT, &event_key(7), &huge)?;
    deployment.feed().flush()?;
    deployment.await_total("all records", |ledger| ledger.consumed == 4)?;
    await_until(LIMIT, "the content's dead letter", || {
        let letters = letters(&deployment)?;
        Ok((letters.len() == 2).then_some(()))
    })?;
    ensure!(published(&deployment)? == [1, 3, 4]);
    for (key, letter) in letters(&deployment)? {
        ensure!(letter.text("dlq-reason") == Some("too-large"), "{key:?}");
        ensure!(letter.value.as_deref() == Some(&huge[..]), "{key:?}");
        ensure!(letter.header("dlq-truncated").is_none(), "{key:?}");
    }
    ensure!(processor.terminate(STOP_LIMIT)?.code() == Some(0));
    Ok(())
}

#[test]
fn an_event_too_large_for_its_output_is_a_dead_letter_and_its_neighbours_pass() -> Result<()> {
    let limits = [(ENRICHED, "20000"), (PENDING, "10000")];
    let deployment = deployment("output", &limits)?;
    let processor = deployment.start("0")?;
    let known = known_content(&deployment, &processor)?;
    let unknown = content_id(2);
    // Many small ones, which must not be refused as one large batch.
    let small: Vec<EventRow> = (100..1_100).map(|id| play(id, Some(&known))).collect();
    deployment.send_events(&small)?;
    let rows = [
        large(1, Some(&known), 30_000),
        large(2, Some(&known), 15_000),
        large(3, Some(&unknown), 15_000),
        large(4, Some(&unknown), 5_000),
        large(5, Some(&unknown), 30_000),
    ];
    deployment.send_events(&rows)?;
    let total = deployment.await_total("all records", |l| l.consumed == 1_005)?;
    ensure!((total.dead, total.pending) == (3, 1), "{total:?}");
    deployment.send_content(&unknown, "video", Some(60))?;
    let total = deployment.await_total("the release", |ledger| ledger.pending == 0)?;
    ensure!((total.dead, total.enriched) == (3, 1_002), "{total:?}");
    let mut expected = vec![2, 4];
    expected.extend(100..1_100);
    ensure!(published(&deployment)? == expected);
    let letters = letters(&deployment)?;
    for id in [1, 3, 5] {
        let letter = letters.get(&event_key(id)).context("no dead letter")?;
        ensure!(
            letter.text("dlq-reason") == Some("output-too-large"),
            "{id}"
        );
        let row = rows.iter().find(|row| row.id == id).context("a row")?;
        let value = envelope("c", &Value::Null, &event_json(row));
        ensure!(letter.value.as_deref() == Some(&value[..]), "{id}");
    }
    Ok(())
}

#[test]
fn a_topic_that_takes_less_from_now_on_is_noticed_and_parked_events_become_dead_letters()
-> Result<()> {
    let deployment = deployment("less", &[])?;
    let processor = deployment.start("0")?;
    let known = known_content(&deployment, &processor)?;
    let unknown = content_id(2);
    deployment.send_events(&[
        large(1, Some(&known), 30_000),
        large(2, Some(&unknown), 30_000),
    ])?;
    deployment.await_total("the first", |l| l.enriched == 1 && l.pending == 1)?;
    BROKER.alter_topic(&deployment.topic(ENRICHED), "max.message.bytes", "20000")?;
    deployment.send_events(&[large(3, Some(&known), 30_000), play(4, Some(&known))])?;
    let total = deployment.await_total("all records", |ledger| ledger.consumed == 4)?;
    ensure!((total.dead, total.enriched) == (1, 2), "{total:?}");
    deployment.send_content(&unknown, "video", Some(60))?;
    let total = deployment.await_total("the parked one", |ledger| ledger.pending == 0)?;
    ensure!((total.dead, total.enriched) == (2, 2), "{total:?}");
    let letters = letters(&deployment)?;
    // The record of the parked one is far behind: what was kept of it reads back as the same event.
    let letter = letters.get(&event_key(2)).context("no dead letter")?;
    ensure!(letter.text("dlq-reason") == Some("output-too-large"));
    ensure!(letter.text("dlq-rebuilt") == Some("true"));
    let value = letter.value.as_deref();
    let Ok(EventRecord::Event(event)) = decode_event(value, &EventRules::default()) else {
        anyhow::bail!("it does not read back: {letter:?}");
    };
    ensure!(event.id.0 == 2 && event.device.map(|device| device.len()) == Some(30_000));
    let raw = deployment.read(EVENTS)?;
    let source = raw
        .iter()
        .find(|record| record.key.as_deref() == Some(&event_key(2)[..]))
        .context("its record")?;
    ensure!(letter.number("dlq-source-offset") == Some(source.offset));
    Ok(())
}

#[test]
fn a_dead_letter_too_large_for_its_topic_keeps_its_reason_its_place_and_its_first_bytes()
-> Result<()> {
    let deployment = deployment("letter", &[(DLQ, "50000")])?;
    let processor = deployment.start("0")?;
    let huge = b"x".repeat(300_000);
    // As large a key as fits no topic of dead letters.
    let key = b"k".repeat(60_000);
    send(&deployment, EVENTS, &event_key(1), &huge)?;
    send(&deployment, EVENTS, &key, b"{")?;
    send(&deployment, EVENTS, &event_key(3), b"{")?;
    send(&deployment, CONTENT, &event_key(4), &huge)?;
    deployment.feed().flush()?;
    deployment.await_total("all records", |ledger| ledger.dead == 3)?;
    let mut found = 0;
    await_until(LIMIT, "the content's dead letter", || {
        found = deployment.read(DLQ)?.len();
        Ok((found == 4).then_some(()))
    })
    .with_context(|| format!("{found} dead letters; {}", told(&processor)))?;
    for letter in deployment.read(DLQ)? {
        let told = format!("{:?} {:?}", letter.place(), letter.headers);
        ensure!(letter.text("dlq-reason") == Some("not-json"), "{told}");
        ensure!(letter.number("dlq-source-offset").is_some(), "{told}");
        let (kept_key, value) = (
            letter.key.as_deref().unwrap_or_default(),
            letter.value.as_deref().unwrap_or_default(),
        );
        if let Some(length) = letter.number("dlq-truncated") {
            ensure!(length == 300_000, "{told}");
            ensure!(value.len() > 40_000 && huge.starts_with(value), "{told}");
        } else {
            ensure!(value == b"{", "{told}");
        }
        if let Some(length) = letter.number("dlq-truncated-key") {
            ensure!(length == 60_000 && key.starts_with(kept_key), "{told}");
        } else {
            ensure!(kept_key.len() < 20, "{told}");
        }
    }
    Ok(())
}

#[test]
fn a_content_row_too_large_for_the_changelog_is_a_dead_letter_and_leaves_the_table_as_it_was()
-> Result<()> {
    let deployment = deployment("row", &[(CHANGELOG, "20000")])?;
    let processor = deployment.start("0")?;
    let id = known_content(&deployment, &processor)?;
    let mut row = content_json(&id, "video", Some(9));
    if let Some(columns) = row.as_object_mut() {
        columns.insert("title".into(), json!("t".repeat(30_000)));
    }
    let value = envelope("u", &Value::Null, &row);
    send(&deployment, CONTENT, &content_key(&id), &value)?;
    deployment.feed().flush()?;
    // What comes behind it is applied.
    for number in 2..500 {
        deployment.feed().send(
            &deployment.topic(CONTENT),
            None,
            Some(&content_key(&content_id(number))),
            Some(&envelope(
                "c",
                &Value::Null,
                &content_json(&content_id(number), "video", Some(9)),
            )),
            &[],
        )?;
    }
    deployment.feed().flush()?;
    await_until(LIMIT, "the rows", || {
        let upserted =
            processor.metric("thmanyah_content_records_total", &[("outcome", "upserted")])?;
        Ok((upserted == Some(499.0)).then_some(()))
    })?;
    let letters = letters(&deployment)?;
    let letter = letters.get(&content_key(&id)).context("no dead letter")?;
    ensure!(letter.text("dlq-reason") == Some("output-too-large"));
    ensure!(letter.text("dlq-stage") == Some("materializer"));
    ensure!(letter.value.as_deref() == Some(&value[..]));
    let found: Value = serde_json::from_str(&processor.get(&format!("/v1/content/{id}"))?.body)?;
    ensure!(found.get("length_seconds") == Some(&json!(1200)), "{found}");
    Ok(())
}
