//! Health, metrics, panics, load and the end of serving.

use super::*;
use crate::health::STUCK_AFTER_MS;
use crate::http::reads::Reads;

#[tokio::test]
async fn livez_fails_once_a_worker_has_not_progressed_for_a_minute() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await.status, 200);
    let beat = server.health.worker("enricher-0", now_ms());
    assert_eq!(server.get("/livez").await.status, 200);
    beat.beat(now_ms() - STUCK_AFTER_MS - 1);
    let reply = server.get("/livez").await;
    assert_eq!(reply.status, 503);
    assert!(reply.json()["milliseconds_without_progress"]["enricher-0"].is_number());
    beat.beat(now_ms());
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn readyz_tells_what_is_left_to_restore() {
    let server = Server::start().await;
    assert_eq!(server.get("/readyz").await.status, 503);
    server.health.set_ready("content");
    server.health.set_restoring("partition 3", 12_000, 4_000);
    let reply = server.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.json(),
        serde_json::json!({"ready": false, "restoring": {"partition 3": {"ready": false, "left": 12_000, "rate": 4_000}}})
    );
    server.health.set_ready("partition 3");
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let server = Server::start().await;
    let reply = server.get("/metrics").await;
    assert_eq!(reply.body, b"# EOF\n");
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
}

#[tokio::test]
async fn a_panic_is_a_problem_and_serving_goes_on() {
    let server =
        Server::start_with(|api| api.metrics = Arc::new(|| panic!("a test's panic"))).await;
    server.get("/metrics").await.problem(500);
    let recent: RecentView = Arc::new(|| panic!("another one"));
    let second = Server::start_with(|api| api.recent = Some(recent)).await;
    second.get("/v1/enriched-events/1").await.problem(500);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_reads_than_may_run_wait_and_are_then_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let reads = Reads::new(Store::open(dir.path(), &Options::default()).unwrap(), 8);
    let (release, held) = crossbeam_channel::bounded::<()>(0);
    let (begun, running) = crossbeam_channel::unbounded::<()>();
    let blocked: Vec<_> = (0..8)
        .map(|_| {
            let (reads, held, begun) = (reads.clone(), held.clone(), begun.clone());
            tokio::spawn(async move {
                let read = move |_: &Store| {
                    let _ = begun.send(());
                    let _ = held.recv();
                    Ok(())
                };
                reads.run(read).await
            })
        })
        .collect();
    for _ in 0..8 {
        running.recv().unwrap();
    }
    let refused = reads.run(|_| Ok(())).await.unwrap_err();
    let response = refused.into_response();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    drop(release);
    for read in blocked {
        assert!(read.await.unwrap().is_ok());
    }
    assert!(reads.run(|_| Ok(())).await.is_ok());
}

#[tokio::test]
async fn serving_ends_at_shutdown_even_beside_a_client_that_sends_half_a_request() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHos")
        .await
        .unwrap();
    assert_eq!(server.get("/livez").await.status, 200);
    server.shutdown.cancel();
    server.running.await.unwrap().unwrap();
}
