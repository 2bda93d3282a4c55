//! The mock of an external system does what its script says, and tells what it saw.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::blocking::{Client, Response};
use serde_json::Value;
use thmanyah_tools::external::{
    Decision, ExternalOptions, ExternalSystem, Fault, Kind, Play, Script, Step, Totals,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A mock on a runtime of its own, so that tests may block.
struct Mock {
    system: ExternalSystem,
    client: Client,
    _runtime: tokio::runtime::Runtime,
}

impl Mock {
    fn start(script: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let options = ExternalOptions {
            room: 100,
            partitions: 2,
            script: Script::from_json(script)?,
        };
        let system = runtime.block_on(ExternalSystem::start("127.0.0.1:0", options))?;
        let client = Client::builder().no_proxy().build()?;
        Ok(Self {
            system,
            client,
            _runtime: runtime,
        })
    }

    fn post(&self, id: i64, content: Option<&str>) -> reqwest::Result<Response> {
        let event = serde_json::json!({"event_id": id.to_string(), "content_id": content});
        self.client
            .post(self.system.url())
            .header("Idempotency-Key", id.to_string())
            .body(event.to_string())
            .send()
    }

    fn status(&self, id: i64) -> Result<u16, reqwest::Error> {
        self.post(id, Some("c"))
            .map(|answer| answer.status().as_u16())
    }

    fn totals(&self) -> Totals {
        self.system.totals()
    }
}

#[test]
fn it_counts_events_duplicates_and_what_came_out_of_order() -> Outcome {
    let mock = Mock::start("{}")?;
    // 2 and 3 are of different partitions; 1 follows 3 in the same one; the other content has its own order.
    for (id, content) in [
        (2, Some("a")),
        (3, Some("a")),
        (1, Some("a")),
        (3, Some("a")),
    ] {
        assert_eq!(mock.post(id, content)?.status(), 200);
    }
    mock.post(1_000, Some("b"))?;
    mock.post(998, None)?;
    let totals = mock.totals();
    assert_eq!((totals.requests, totals.accepted), (6, 6));
    assert_eq!((totals.distinct, totals.duplicates), (5, 1));
    assert_eq!((totals.out_of_order, totals.malformed), (1, 0));
    let journal = mock.system.journal();
    let keys: Vec<&str> = journal.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(keys, ["2", "3", "1", "3", "1000", "998"]);
    let seen = mock.system.key("3").ok_or("the key is forgotten")?;
    assert_eq!((seen.attempts, seen.accepted), (2, 2));

    let other = format!("{}/seen", mock.system.url().trim_end_matches("/events"));
    let told: Value = mock.client.get(other).send()?.json()?;
    assert_eq!(told.get("distinct"), Some(&5.into()));
    Ok(())
}

#[test]
fn a_duplicate_is_a_conflict_where_the_script_says_so() -> Outcome {
    let mock = Mock::start(r#"{"duplicates": "conflict"}"#)?;
    assert_eq!((mock.status(1)?, mock.status(1)?), (200, 409));
    assert_eq!(mock.totals().duplicates, 1);
    Ok(())
}

#[test]
fn what_is_no_event_with_its_key_is_refused_and_counted() -> Outcome {
    let mock = Mock::start("{}")?;
    for (key, body) in [
        ("1", "{"),
        ("1", r#"{"event_id":"2"}"#),
        ("1", r#"{"event_id":1}"#),
    ] {
        let request = mock
            .client
            .post(mock.system.url())
            .header("Idempotency-Key", key);
        assert_eq!(request.body(body).send()?.status(), 400);
    }
    let request = mock.client.post(mock.system.url());
    assert_eq!(request.body(r#"{"event_id":"2"}"#).send()?.status(), 400);
    assert_eq!((mock.totals().malformed, mock.totals().accepted), (4, 0));
    Ok(())
}

#[test]
fn steps_follow_each_other_and_after_the_last_there_are_no_faults() -> Outcome {
    let mock = Mock::start(
        r#"{"steps": [
            {"requests": 2, "faults": [{"fault": "status", "status": 429, "retry_after": "7", "body": "slow down"}]},
            {"requests": 1, "faults": [{"fault": "status", "status": 307, "location": "/there"}]}]}"#,
    )?;
    let answer = mock.post(1, None)?;
    assert_eq!(answer.status(), 429);
    let header = answer.headers().get("retry-after").cloned();
    assert_eq!(
        header.as_ref().and_then(|value| value.to_str().ok()),
        Some("7")
    );
    assert_eq!(answer.text()?, "slow down");
    assert_eq!(mock.status(1)?, 429);
    assert_eq!(mock.system.step(), Some(0));
    // The client follows the redirect to a place that is not there.
    assert_eq!(mock.status(1)?, 404);
    assert_eq!(mock.status(1)?, 200);
    assert_eq!(mock.system.step(), None);
    let faults = mock.totals().faults;
    assert_eq!(faults.get("status-429"), Some(&2));
    assert_eq!(faults.get("status-307"), Some(&1));
    Ok(())
}

#[test]
fn a_reset_forgets_the_event_and_a_lost_answer_keeps_it() -> Outcome {
    let mock = Mock::start(
        r#"{"steps": [{"requests": 1, "faults": [{"fault": "reset"}]},
                      {"requests": 1, "faults": [{"fault": "lost-answer"}]}]}"#,
    )?;
    assert!(mock.post(1, None).is_err());
    assert_eq!(mock.totals().accepted, 0);
    assert!(mock.post(1, None).is_err());
    assert_eq!(mock.totals().accepted, 1);
    assert_eq!(mock.status(1)?, 200);
    assert_eq!(mock.totals().duplicates, 1);
    Ok(())
}

#[test]
fn a_late_answer_and_a_slow_body_are_taken_in_time() -> Outcome {
    let mock = Mock::start(
        r#"{"steps": [{"requests": 1, "faults": [{"fault": "late-answer", "milliseconds": 60000}]},
                      {"requests": 1, "faults": [{"fault": "slow-body", "milliseconds": 100}]},
                      {"requests": 1, "faults": [{"fault": "latency", "milliseconds": 1}]}]}"#,
    )?;
    let impatient = Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_millis(300));
    let request = impatient.build()?.post(mock.system.url());
    let request = request
        .header("Idempotency-Key", "1")
        .body(r#"{"event_id":"1"}"#);
    assert!(request.send().is_err_and(|error| error.is_timeout()));
    assert_eq!(mock.totals().accepted, 1);
    let slow = mock.post(2, None)?;
    assert_eq!(slow.status(), 200);
    assert_eq!(mock.totals().accepted, 2);
    assert_eq!(slow.text()?.len(), 20);
    assert_eq!(mock.status(3)?, 200);
    assert_eq!(mock.totals().faults.len(), 3);
    Ok(())
}

#[test]
fn credentials_are_checked() -> Outcome {
    let mock = Mock::start(r#"{"credentials": {"basic": "user:pass", "hmac_key": "Jefe"}}"#)?;
    assert_eq!(mock.status(1)?, 401);
    let body = r#"{"event_id":"1"}"#;
    let post = || {
        let request = mock
            .client
            .post(mock.system.url())
            .header("Idempotency-Key", "1");
        request.basic_auth("user", Some("pass")).body(body)
    };
    assert_eq!(post().send()?.status(), 401);
    // Of `openssl dgst -sha256 -hmac Jefe`.
    let signature = "sha256=6100bf9be98528c1cfa4ae3caffe2649c592ffc88118e4c66509b0cbeb564888";
    let signed = post().header("X-Signature-256", signature).send()?;
    assert_eq!(signed.status(), 200);
    assert_eq!(mock.totals().unauthorized, 2);
    Ok(())
}

#[test]
fn a_share_of_keys_hits_the_same_keys_with_each_request() {
    let fault = |share, by_key| Fault {
        share,
        by_key,
        kind: Kind::Reset,
    };
    let script = |faults| Script {
        seed: 5,
        steps: vec![Step {
            faults,
            ..Step::default()
        }],
        ..Script::default()
    };
    let mut play = Play::new(script(vec![fault(0.25, true)]), 0);
    let mut hit = |key: usize| play.decide(&key.to_string(), 0) != Decision::default();
    let first: Vec<bool> = (0..1_000).map(&mut hit).collect();
    let again: Vec<bool> = (0..1_000).map(&mut hit).collect();
    assert_eq!(first, again);
    let hits = first.iter().filter(|hit| **hit).count();
    assert!((200..300).contains(&hits), "{hits} of 1000");

    let all = |seed| {
        let mut script = script(vec![fault(0.5, false)]);
        script.seed = seed;
        let mut play = Play::new(script, 0);
        let hits = (0..64).map(|_| play.decide("k", 0).fault.is_some());
        hits.collect::<Vec<_>>()
    };
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
}

#[test]
fn a_step_ends_by_its_time_and_a_script_repeats() {
    let script = r#"{"repeat": true, "steps": [{"milliseconds": 10, "faults": [{"fault": "reset"}]},
                                               {"milliseconds": 5}]}"#;
    let mut play = Play::new(Script::from_json(script).unwrap_or_default(), 100);
    let mut hit = |now| play.decide("k", now).fault.is_some();
    let hits: Vec<bool> = [100, 109, 110, 114, 115, 124, 125]
        .into_iter()
        .map(&mut hit)
        .collect();
    assert_eq!(hits, [true, true, false, false, true, true, false]);
}

#[test]
fn a_script_that_makes_no_sense_is_refused() {
    for script in [
        "{",
        r#"{"sed": 1}"#,
        r#"{"steps": [{"faults": [{"fault": "status", "status": 99}]}]}"#,
        r#"{"steps": [{"faults": [{"share": 1.5, "fault": "reset"}]}]}"#,
        r#"{"steps": [{"faults": [{"fault": "explode"}]}]}"#,
        r#"{"steps": [{"milliseconds": 0}], "repeat": true}"#,
    ] {
        assert!(Script::from_json(script).is_err(), "{script}");
    }
}

#[test]
fn what_the_memory_has_no_room_for_is_counted() -> Outcome {
    let mock = Mock::start("{}")?;
    for id in 0..101 {
        mock.post(id, None)?;
    }
    let totals = mock.totals();
    assert_eq!(
        (totals.accepted, totals.distinct, totals.forgotten),
        (101, 100, 1)
    );
    Ok(())
}

/// The process, killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_serves_and_takes_scripts() -> Outcome {
    let program = env!("CARGO_BIN_EXE_external-system-mock");
    let help = Command::new(program).arg("--help").output()?;
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--listen"));
    let child = Command::new(program)
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()?;
    let mut running = Running(child);
    let mut line = String::new();
    let stderr = running.0.stderr.take().ok_or("no stderr")?;
    BufReader::new(stderr).read_line(&mut line)?;
    let address = line.trim().rsplit(' ').next().ok_or("no address")?;
    let client = Client::builder().no_proxy().build()?;
    let at = |path: &str| format!("http://{address}{path}");
    assert_eq!(client.get(at("/healthz")).send()?.status(), 200);
    let script = r#"{"steps": [{"faults": [{"fault": "status", "status": 503}]}]}"#;
    let post = |path: &str, body: &'static str| client.post(at(path)).body(body).send();
    assert_eq!(post("/control/script", "{")?.status(), 400);
    assert_eq!(
        client
            .post(at("/control/script"))
            .body(script)
            .send()?
            .status(),
        200
    );
    assert_eq!(post("/events", r#"{"event_id":"1"}"#)?.status(), 503);
    assert_eq!(client.delete(at("/control/script")).send()?.status(), 200);
    let event = client.post(at("/events")).header("Idempotency-Key", "1");
    assert_eq!(event.body(r#"{"event_id":"1"}"#).send()?.status(), 200);
    let page: Value = client.get(at("/events?from=0&limit=5")).send()?.json()?;
    assert_eq!(page.pointer("/events/0/key"), Some(&"1".into()));
    let key: Value = client.get(at("/seen/1")).send()?.json()?;
    assert_eq!(key.get("accepted"), Some(&1.into()));
    assert_eq!(post("/control/forget", "")?.status(), 200);
    assert_eq!(client.get(at("/seen/1")).send()?.status(), 404);
    Ok(())
}
