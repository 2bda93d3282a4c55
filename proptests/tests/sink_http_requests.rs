//! What the sink to an external system makes of its answers: one partition, without a broker, as nothing here becomes a dead
//! letter.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use thmanyah::config::ExternalConfig;
use thmanyah::domain::{ContentId, Event, EventId, EventType, Timestamp};
use thmanyah::health::Health;
use thmanyah::metrics::Metrics;
use thmanyah::sinks::{
    Batch, Breaker, Condition, Destination, ExternalSink, Frame, Lane, LetterSettings, Letters,
    Record, SinkError, Taken,
};
use thmanyah_dev::ScratchDir;
use thmanyah_proptests::published::{content_id, json};
use thmanyah_tools::external::{ExternalOptions, ExternalSystem, Script};

const LIMIT: Duration = Duration::from_secs(30);

fn settings(url: &str) -> ExternalConfig {
    ExternalConfig {
        url: Some(url.to_owned()),
        lanes: 4,
        timeout: Duration::from_secs(5),
        bearer_token: None,
        bearer_token_file: None,
        username: None,
        password: None,
        password_file: None,
        hmac_key: None,
        hmac_key_file: None,
        ca_file: None,
        batch_records: 100,
        linger: Duration::ZERO,
    }
}

/// A frame, and who is told of the condition.
fn frame() -> (Frame, Arc<Health>) {
    // A test may be the second one here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (metrics, health) = (Metrics::new().sink("http"), Arc::new(Health::default()));
    let breaker = Arc::new(Breaker::new());
    let letters = LetterSettings {
        client: ClientConfig::new(),
        topic: "dlq".to_owned(),
        limit: 1 << 20,
        stage: "sink-http".to_owned(),
        source: "enriched".to_owned(),
    };
    let condition = Condition::new(
        "http",
        Arc::clone(&health),
        metrics.clone(),
        Arc::clone(&breaker),
    );
    let frame = Frame {
        letters: Letters::new(letters, metrics.clone()).unwrap(),
        condition: condition.of(3),
        metrics,
        breaker,
    };
    (frame, health)
}

async fn open(config: &ExternalConfig, frame: &Frame) -> Result<impl Lane + use<>, SinkError> {
    let sink = ExternalSink::new(config)?;
    sink.prepare().await?;
    let taken = Taken {
        partition: 3,
        topic_id: [7; 16],
        log_start: 5,
        log_end: 100,
        committed: None,
    };
    let (lane, start) = sink.open(taken.clone(), frame.clone()).await?;
    assert_eq!(start, 5, "nothing is committed: the log's start");
    let committed = Some(42);
    let (_, start) = sink
        .open(Taken { committed, ..taken }, frame.clone())
        .await?;
    assert_eq!(start, 42);
    Ok(lane)
}

async fn system(script: &str) -> ExternalSystem {
    let options = ExternalOptions {
        script: Script::from_json(script).unwrap(),
        ..ExternalOptions::default()
    };
    ExternalSystem::start("127.0.0.1:0", options).await.unwrap()
}

fn record(id: i64, content: Option<ContentId>) -> Record {
    let event = Event {
        id: EventId(id),
        content_id: content,
        user_id: None,
        event_type: EventType::Play,
        event_ts: Timestamp::MIN,
        duration_ms: Some(1),
        device: Some("آيفون".into()),
    };
    Record {
        offset: id,
        timestamp_ms: 0,
        key: Some(id.to_string().into_bytes()),
        value: json(&event, None),
    }
}

/// So many events about three contents.
fn batch(events: i64) -> Batch {
    let of = |id| record(id, Some(content_id(u32::try_from(id % 3).unwrap())));
    Batch {
        records: (1..=events).map(of).collect(),
    }
}

/// Waits until the sink has a reason for being unwell.
async fn reason(health: &Health) -> String {
    let begun = Instant::now();
    loop {
        if let Some(reason) = health.unwell().get("sink-http") {
            return reason.clone();
        }
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
            r#", "location": "http://there/""#,
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

/// A file of a scratch directory.
fn file(dir: &ScratchDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn requests_are_proved_and_secrets_that_were_rotated_are_read_again() {
    let dir = ScratchDir::new("secrets").unwrap();
    let script = |credentials: &str| format!(r#"{{"credentials": {{{credentials}}}}}"#);
    let old = script(r#""bearer": "old", "hmac_key": "key""#);
    let system = system(&old).await;
    let mut config = settings(&system.url());
    config.bearer_token_file = Some(file(&dir, "token", "old\n"));
    config.hmac_key_file = Some(file(&dir, "key", "key"));
    let (frame, health) = frame();
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(5)).await.unwrap();
    assert_eq!(
        (system.totals().accepted, system.totals().unauthorized),
        (5, 0)
    );

    // Rotated at both ends: no more than the first request of each lane is refused, and nobody is unwell.
    let new = script(r#""bearer": "new", "hmac_key": "key""#);
    system.play(Script::from_json(&new).unwrap());
    file(&dir, "token", "new");
    lane.deliver(&batch(9)).await.unwrap();
    assert_eq!(system.totals().accepted, 14);
    assert!((1..=4).contains(&system.totals().unauthorized));
    assert!(health.unwell().is_empty());

    // Rotated there first: unwell until the file has it.
    let newest = script(r#""bearer": "newest", "hmac_key": "other""#);
    system.play(Script::from_json(&newest).unwrap());
    let delivery = tokio::spawn(async move { lane.deliver(&batch(11)).await });
    assert!(
        reason(&health)
            .await
            .contains("does not take the credentials")
    );
    file(&dir, "key", "other");
    file(&dir, "token", "newest");
    delivery.await.unwrap().unwrap();
    assert_eq!(system.totals().accepted, 25);
    assert!(health.unwell().is_empty());

    let basic = script(r#""basic": "someone:a:secret""#);
    system.play(Script::from_json(&basic).unwrap());
    let mut config = settings(&system.url());
    config.username = Some("someone".to_owned());
    config.password_file = Some(file(&dir, "password", "a:secret"));
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(5)).await.unwrap();
    assert_eq!(system.totals().accepted, 30);
}

#[tokio::test]
async fn what_cannot_be_set_up_says_why() {
    let (frame, _) = frame();
    let dir = ScratchDir::new("set-up").unwrap();
    let url = "http://127.0.0.1:1/";
    let mut wrong = Vec::new();
    wrong.push((settings("http://[::1"), "sinks.http.url"));
    let mut config = settings(url);
    config.bearer_token_file = Some("/nowhere/token".into());
    wrong.push((config, "/nowhere/token"));
    let mut config = settings(url);
    config.hmac_key_file = Some(file(&dir, "empty", "\n"));
    wrong.push((config, "is empty"));
    let mut config = settings(url);
    config.ca_file = Some(file(&dir, "ca", "no certificate"));
    wrong.push((config, "sinks.http.ca_file"));
    for (config, told) in wrong {
        let error = open(&config, &frame).await.err().unwrap();
        assert!(
            error.is_misconfigured() && error.to_string().contains(told),
            "{error}"
        );
    }
}

/// A certificate for 127.0.0.1 that nobody signed but itself, and its key.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

/// Answers 200 over TLS to whoever trusts it, one connection after the other.
fn serve_tls(listener: &TcpListener, certificate: &Path, key: &Path) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    for stream in listener.incoming() {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
        let mut request = [0; 4096];
        // The request is smaller than that and comes whole, or not at all.
        if stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_only_when_it_is_named() {
    let dir = ScratchDir::new("tls").unwrap();
    let (certificate, key) = certificate(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/events", listener.local_addr().unwrap());
    let (frame, health) = frame();
    {
        let certificate = certificate.clone();
        std::thread::spawn(move || serve_tls(&listener, &certificate, &key));
    }
    let mut lane = open(&settings(&url), &frame).await.unwrap();
    let delivery = tokio::spawn(async move { lane.deliver(&batch(1)).await });
    let reason = reason(&health).await;
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(frame.metrics.delivered.get(), 0);
    delivery.abort();

    let mut config = settings(&url);
    config.ca_file = Some(certificate);
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(2)).await.unwrap();
    assert_eq!(frame.metrics.delivered.get(), 2);
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
