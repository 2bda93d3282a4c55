//! The API over a socket, against a real store that is filled by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod content;
mod events;
mod hostile;
mod ops;
mod sinks;

use super::*;
use crate::domain::EventId;
use crate::recent::{Batch, Head, Known, RecentStatus, Record};
use parking_lot::Mutex;
use serde_json::Value;
use std::net::SocketAddr;
use tempfile::TempDir;
use thmanyah_state::{Options, WriteSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running server and all that it answers from.
struct Server {
    address: SocketAddr,
    store: Store,
    health: Arc<Health>,
    status: Arc<Mutex<RecentStatus>>,
    partitions: watch::Sender<i32>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<io::Result<()>>,
    _dir: TempDir,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is a problem document of its status.
    fn problem(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        problem
    }
}

impl Server {
    /// Two partitions, both ready.
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Api)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        let status = Arc::new(Mutex::new(RecentStatus {
            owned: vec![0, 1],
            ready: vec![0, 1],
            caught_up: true,
            as_of_ms: Some(1_735_734_600_000),
            ..RecentStatus::default()
        }));
        let seen = Arc::clone(&status);
        let (partitions, count) = watch::channel(2);
        let health = Arc::new(Health::new());
        let mut api = Api {
            store: store.clone(),
            recent: Some(Arc::new(move || seen.lock().clone())),
            health: Arc::clone(&health),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            partitions: count,
            cursor_key: [7; 32],
            max_queries: 8,
            switches: Some(Switches::open(dir.path(), &["redis"]).unwrap()),
            operate_token: Some("operate!".into()),
        };
        change(&mut api);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(serve(listener, api, shutdown.clone()));
        Self {
            address,
            store,
            health,
            status,
            partitions,
            shutdown,
            running,
            _dir: dir,
        }
    }

    async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "").await
    }

    async fn ask(&self, method: &str, target: &str, headers: &str) -> Reply {
        // HTTP/1.0 ends a body with the connection, so there are no chunks to undo.
        let request = format!("{method} {target} HTTP/1.0\r\nHost: here\r\n{headers}\r\n");
        let raw = self.raw(request.as_bytes()).await;
        Self::parse(&raw)
    }

    /// Sends bytes, and reads until the server closes the connection.
    async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        reply
    }

    fn parse(raw: &[u8]) -> Reply {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no reply: {}", String::from_utf8_lossy(raw)));
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: raw[end + 4..].to_vec(),
        }
    }

    /// Publishes events: partition, time of publication, JSON.
    fn publish(&self, events: &[(i32, i64, String)]) {
        let mut batch = Batch::default();
        for (offset, (partition, published_ms, json)) in (0..).zip(events) {
            let record = Record {
                partition: *partition,
                offset,
                published_ms: *published_ms,
                json: json.as_bytes(),
            };
            batch.add(record, 0);
        }
        let mut writes = WriteSet::new();
        batch.stage(|_| Known::default(), |_, _| {}, &mut writes);
        self.store.apply_unlogged(&mut writes).unwrap();
    }
}

const CONTENT: &str = "25f6ae98-4cbb-41cc-8fc9-8111e899a363";

/// An enriched event as the topic has it; spaces nowhere, numbers as they are.
fn event(id: i64, event_ts: &str, event_type: &str) -> String {
    format!(
        "{{\"event_id\":\"{id}\",\"content_id\":\"{CONTENT}\",\"user_id\":null,\"event_type\":\"{event_type}\",\"event_ts\":\"{event_ts}\",\"duration_ms\":12340,\"device\":\"جهاز\",\"content_type\":\"podcast\",\"length_seconds\":1200,\"engagement_seconds\":12.34,\"engagement_pct\":0.01}}"
    )
}

fn ids(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().unwrap();
    let id = |item: &Value| item["event_id"].as_str().unwrap().parse().unwrap();
    items.iter().map(id).collect()
}

fn id_of(json: &str) -> EventId {
    Head::read(json.as_bytes()).unwrap().event_id
}
