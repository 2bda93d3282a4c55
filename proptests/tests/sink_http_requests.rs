//! What the sink to an external system makes of its answers: one partition, without a broker, as nothing here becomes a dead
//! letter.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use thmanyah::sinks::{Lane, Switches};
use thmanyah_proptests::http_lane::{LIMIT, batch, frame, open, reason, settings};
use thmanyah_tools::external::{ExternalOptions, ExternalSystem, Script};

async fn system(script: &str) -> ExternalSystem {
    let options = ExternalOptions {
        script: Script::from_json(script).unwrap(),
        ..ExternalOptions::default()
    };
    ExternalSystem::start("127.0.0.1:0", options).await.unwrap()
}

#[tokio::test]
async fn each_event_is_one_post_with_its_key_and_its_bytes_and_contents_keep_their_order() {
    let system = system("{}").await;
    let (frame, health) = frame();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    let batch = batch(60);
    lane.deliver(&batch).await.unwrap();
    let totals = system.totals();
    assert_eq!(
        (totals.requests, totals.distinct, totals.out_of_order),
        (60, 60, 0)
    );
    for record in &batch.records {
        let seen = system.key(&record.offset.to_string()).unwrap();
        assert_eq!(seen.body.as_bytes(), record.value);
        let header = |name: &str| seen.headers.get(name).map(String::as_str);
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("x-signature-256"), None);
        assert!(header("user-agent").unwrap().starts_with("thmanyah/"));
    }
    assert_eq!(
        (frame.metrics.delivered.get(), frame.metrics.duplicate.get()),
        (60, 0)
    );
    assert_eq!(frame.metrics.attempts_succeeded.get(), 60);
    assert!(health.unwell().is_empty());
}

#[tokio::test]
async fn a_conflict_says_that_the_event_is_there_also_when_this_process_did_not_send_it() {
    let system = system(r#"{"duplicates": "conflict"}"#).await;
    let (frame, _) = frame();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    lane.deliver(&batch(5)).await.unwrap();
    // As after a crash, before the offset was committed.
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    lane.deliver(&batch(9)).await.unwrap();
    assert_eq!(
        (frame.metrics.delivered.get(), frame.metrics.duplicate.get()),
        (9, 5)
    );
    assert_eq!(system.totals().distinct, 9);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_an_answer_that_was_lost_is_a_duplicate_there() {
    let system = system(
        r#"{"seed": 3, "duplicates": "conflict", "steps": [{"requests": 120, "faults": [
            {"share": 0.1, "fault": "status", "status": 503},
            {"share": 0.1, "fault": "status", "status": 429},
            {"share": 0.05, "fault": "status", "status": 408},
            {"share": 0.05, "fault": "status", "status": 425},
            {"share": 0.1, "fault": "reset"},
            {"share": 0.1, "fault": "lost-answer"},
            {"share": 0.03, "fault": "late-answer", "milliseconds": 60000}]}]}"#,
    )
    .await;
    let (frame, _) = frame();
    let mut config = settings(&system.url());
    config.timeout = Duration::from_secs(1);
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(100)).await.unwrap();
    let totals = system.totals();
    assert_eq!(
        (totals.distinct, totals.out_of_order, totals.changed_bodies),
        (100, 0, 0)
    );
    // Whose answer was lost came again, and whoever came again was told so.
    let again = (1..=100).filter(|id| system.key(&i64::to_string(id)).unwrap().accepted > 1);
    let again = again.count() as u64;
    assert!(again > 0, "{totals:?}");
    let metrics = &frame.metrics;
    assert_eq!(
        (metrics.delivered.get(), metrics.duplicate.get()),
        (100 - again, again)
    );
    assert_eq!(metrics.attempts_failed.get(), totals.requests - 100);
    assert!(!frame.breaker.is_open());
}

#[tokio::test]
async fn it_waits_for_as_long_as_it_is_asked_to() {
    let system = system(
        r#"{"steps": [{"requests": 1, "faults": [{"fault": "status", "status": 429, "retry_after": "1"}]}]}"#,
    )
    .await;
    let (frame, _) = frame();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    let begun = Instant::now();
    lane.deliver(&batch(1)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(system.totals().requests, 2);
}

#[tokio::test]
async fn a_body_that_drips_holds_nothing_up() {
    let system =
        system(r#"{"steps": [{"faults": [{"fault": "slow-body", "milliseconds": 3600000}]}]}"#)
            .await;
    let (frame, _) = frame();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    lane.deliver(&batch(6)).await.unwrap();
    assert_eq!(
        (system.totals().requests, frame.metrics.delivered.get()),
        (6, 6)
    );
}

#[tokio::test]
async fn a_wrong_set_up_opens_the_breaker_at_once_tells_why_and_is_got_over() {
    for (status, more, wanted) in [
        (401, "", "does not take the credentials"),
        (403, "", "does not take the credentials"),
        (404, "", "is `sinks.http.url` right?"),
        (405, "", "is `sinks.http.url` right?"),
        (407, "", "a proxy wants credentials"),
        (
            301,
            r#", "location": "http://there/?token=secret""#,
            "is `sinks.http.url` to be http://there/?",
        ),
    ] {
        let system = system(&format!(
            r#"{{"steps": [{{"faults": [{{"fault": "status", "status": {status}{more}, "body": "so there"}}]}}]}}"#
        ))
        .await;
        let (frame, health) = frame();
        let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
        let delivery = tokio::spawn(async move { lane.deliver(&batch(5)).await });
        let reason = reason(&health).await;
        assert!(
            reason.contains(wanted) && reason.contains("so there"),
            "{status}: {reason}"
        );
        assert!(
            reason.contains(&format!("{} answers {status}", system.url())),
            "{reason}"
        );
        // One attempt of each lane at the most, and then one at a time.
        assert!(frame.breaker.is_open());
        system.play(Script::default());
        delivery.await.unwrap().unwrap();
        assert!(health.unwell().is_empty());
        assert!(!frame.breaker.is_open());
        assert_eq!(frame.metrics.breaker_open.get(), 0);
        assert_eq!(system.totals().distinct, 5);
    }
}

#[tokio::test]
async fn a_system_that_is_not_there_is_told_of_and_waited_for() {
    let port = thmanyah_dev::free_port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let (frame, health) = frame();
    let url = format!("http://{listen}/events?token=hidden");
    let mut lane = open(&settings(&url), &frame).await.unwrap();
    let delivery = tokio::spawn(async move { lane.deliver(&batch(5)).await });
    let reason = reason(&health).await;
    assert!(
        reason.contains("does not answer") && reason.contains("refused"),
        "{reason}"
    );
    assert!(!reason.contains("hidden"), "{reason}");
    let options = ExternalOptions::default();
    let system = ExternalSystem::start(&listen, options).await.unwrap();
    delivery.await.unwrap().unwrap();
    assert!(health.unwell().is_empty());
    assert_eq!(system.totals().distinct, 5);
}

#[tokio::test]
async fn a_lane_that_is_dropped_sends_no_more() {
    let system = system(r#"{"steps": [{"faults": [{"fault": "status", "status": 503}]}]}"#).await;
    let (frame, health) = frame();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    let delivery = tokio::spawn(async move { lane.deliver(&batch(20)).await });
    reason(&health).await;
    delivery.abort();
    assert!(delivery.await.unwrap_err().is_cancelled());
    // The lanes end with their batch: when none is left, nobody holds the frame but this test.
    let begun = Instant::now();
    while Arc::strong_count(&frame.breaker) > 2 {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    system.play(Script::default());
    assert_eq!(system.totals().accepted, 0);
}

#[tokio::test]
async fn a_pause_holds_up_each_attempt_of_a_batch_that_is_under_way() {
    let system = system("{}").await;
    let dir = tempfile::tempdir().unwrap();
    let switches = Switches::open(dir.path(), &["http"]).unwrap();
    let (mut frame, _) = frame();
    frame.switch = switches.of("http").unwrap();
    let mut lane = open(&settings(&system.url()), &frame).await.unwrap();
    switches.set("http", true).unwrap();
    let delivering = tokio::spawn(async move { lane.deliver(&batch(30)).await });
    // Others get through meanwhile.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for record in batch(80).records.split_off(30) {
        let request = client.post(system.url()).body(record.value);
        let request = request.header("idempotency-key", record.offset.to_string());
        assert!(request.send().await.unwrap().status().is_success());
    }
    assert_eq!(system.totals().requests, 50);
    switches.set("http", false).unwrap();
    delivering.await.unwrap().unwrap();
    assert_eq!(system.totals().distinct, 80);
}
