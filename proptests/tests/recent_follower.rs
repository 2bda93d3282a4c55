//! The follower of recent events on a real broker: what it reads, when it says that it is whole, and what it does when its
//! position does not fit the log.
#![allow(clippy::unwrap_used)]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use thmanyah::domain::Timestamp;
use thmanyah::recent::{Filter, Limits, PageRequest, Recent, RecentSettings, RecentStatus, page};
use thmanyah_dev::{Broker, BrokerOptions, Topic};
use thmanyah_state::{Options, Store, Table};

const LIMIT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_hours(24);

/// One broker serves all tests here, and ends with the process.
fn broker() -> MutexGuard<'static, Broker> {
    static BROKER: OnceLock<Mutex<Broker>> = OnceLock::new();
    let start = || Mutex::new(Broker::start(BrokerOptions::default()).unwrap());
    BROKER.get_or_init(start).lock().unwrap()
}

fn topic(name: &str, partitions: i32) -> ClientConfig {
    let broker = broker();
    broker
        .create_topics(&[Topic::new(name, partitions)])
        .unwrap();
    broker.client()
}

fn event(id: i64) -> String {
    let second = id.rem_euclid(60);
    format!(
        "{{\"event_id\":\"{id}\",\"content_id\":null,\"user_id\":null,\"event_type\":\"play\",\"event_ts\":\"2025-01-01T00:00:{second:02}Z\",\"duration_ms\":null,\"device\":null,\"content_type\":null,\"length_seconds\":null,\"engagement_seconds\":null,\"engagement_pct\":null}}"
    )
}

/// A transactional producer; partition = id modulo `partitions`.
struct Publisher(BaseProducer, String, i64);

impl Publisher {
    fn new(client: &ClientConfig, topic: &str, partitions: i64) -> Self {
        let mut config = client.clone();
        config.set("transactional.id", topic);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        Self(producer, topic.to_owned(), partitions)
    }

    fn begin(&self, ids: impl IntoIterator<Item = i64>) {
        self.0.begin_transaction().unwrap();
        for id in ids {
            let (key, value) = (id.to_string(), event(id));
            let partition = i32::try_from(id % self.2).unwrap();
            let record = BaseRecord::to(&self.1).partition(partition);
            self.0
                .send(record.key(&key).payload(&value))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        self.0.flush(LIMIT).unwrap();
    }

    fn publish(&self, ids: impl IntoIterator<Item = i64>) {
        self.begin(ids);
        self.0.commit_transaction(LIMIT).unwrap();
    }

    fn abort(&self, ids: impl IntoIterator<Item = i64>) {
        self.begin(ids);
        self.0.abort_transaction(LIMIT).unwrap();
    }
}

fn follow(client: &ClientConfig, topic: &str, store: &Store, retention: Duration) -> Recent {
    let settings = RecentSettings {
        client: client.clone(),
        topic: topic.to_owned(),
        retention,
    };
    Recent::start(settings, store.clone()).unwrap()
}

fn own(recent: &Recent, partitions: impl IntoIterator<Item = i32>, id: u8) {
    let partitions: BTreeMap<i32, [u8; 16]> =
        partitions.into_iter().map(|of| (of, [id; 16])).collect();
    recent.own(partitions);
}

/// Waits until the status is as wanted.
fn wait(recent: &Recent, wanted: impl Fn(&RecentStatus) -> bool) -> RecentStatus {
    let begun = Instant::now();
    loop {
        let status = recent.status();
        if wanted(&status) {
            return status;
        }
        assert_eq!(status.failed, None);
        assert!(begun.elapsed() < LIMIT, "{status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until everything that is committed by now has been followed.
fn whole(recent: &Recent) -> RecentStatus {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    wait(recent, |status| {
        status.caught_up && status.as_of_ms.is_some_and(|as_of| as_of >= now)
    })
}

fn ids(store: &Store, partitions: &[i32]) -> Vec<i64> {
    let request = PageRequest {
        partitions,
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        after: None,
        filter: Filter::default(),
        limits: Limits {
            items: usize::MAX,
            bytes: usize::MAX,
            rows: usize::MAX,
        },
    };
    let mut ids = Vec::new();
    page(&store.snapshot(), &request, |json| {
        let text = std::str::from_utf8(json).unwrap();
        ids.push(text.split('"').nth(3).unwrap().parse().unwrap());
    })
    .unwrap();
    ids.sort_unstable();
    ids
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    (dir, store)
}

#[test]
fn committed_events_of_owned_partitions_are_followed_and_as_of_moves_on_when_idle() {
    let client = topic("recent-follow", 3);
    let publisher = Publisher::new(&client, "recent-follow", 3);
    let (_dir, store) = store();
    let recent = follow(&client, "recent-follow", &store, DAY);
    own(&recent, [0, 1], 1);
    publisher.publish(0..3_000);
    publisher.abort(3_000..3_300);
    let status = whole(&recent);
    assert_eq!(
        (status.owned.as_slice(), status.lag),
        ([0, 1].as_slice(), 0)
    );
    let expected: Vec<i64> = (0..3_000).filter(|id| id % 3 != 2).collect();
    assert_eq!(ids(&store, &[0, 1, 2]), expected);
    // An open transaction holds the end back; what is before it is whole all the same.
    publisher.begin(3_300..3_310);
    whole(&recent);
    assert_eq!(ids(&store, &[0, 1]), expected);
    publisher.0.commit_transaction(LIMIT).unwrap();
    whole(&recent);
    // A partition that comes, comes whole; one that goes stays on disk but is not counted on.
    own(&recent, [2], 1);
    assert_eq!(recent.status().ready, Vec::<i32>::new());
    whole(&recent);
    let last: Vec<i64> = (0..3_310)
        .filter(|id| id % 3 == 2 && !(3_000..3_300).contains(id))
        .collect();
    assert_eq!(ids(&store, &[2]), last);
    recent.stop().unwrap();
}

#[test]
fn a_restart_goes_on_from_the_stored_position() {
    let client = topic("recent-restart", 1);
    let publisher = Publisher::new(&client, "recent-restart", 1);
    let (dir, store) = store();
    publisher.publish(0..100);
    let recent = follow(&client, "recent-restart", &store, DAY);
    own(&recent, [0], 1);
    whole(&recent);
    recent.stop().unwrap();
    let before = store.position(Table::Recent, 0).unwrap().unwrap();
    assert_eq!(before.offset, 100);
    drop(store);
    publisher.publish(100..120);
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    let recent = follow(&client, "recent-restart", &store, DAY);
    own(&recent, [0], 1);
    whole(&recent);
    assert_eq!(ids(&store, &[0]), (0..120).collect::<Vec<i64>>());
    recent.stop().unwrap();
}

#[test]
fn rows_of_another_topic_or_of_a_log_that_was_cut_are_rebuilt() {
    let client = topic("recent-rebuild", 1);
    let publisher = Publisher::new(&client, "recent-rebuild", 1);
    let (_dir, store) = store();
    publisher.publish(0..100);
    let recent = follow(&client, "recent-rebuild", &store, DAY);
    own(&recent, [0], 1);
    whole(&recent);
    // The same name under another id: everything is read anew.
    own(&recent, [0], 2);
    whole(&recent);
    assert_eq!(ids(&store, &[0]), (0..100).collect::<Vec<i64>>());
    let position = store.position(Table::Recent, 0).unwrap().unwrap();
    assert_eq!(position.topic_id, [2; 16]);
    // The log loses what the follower has not read while it was away.
    own(&recent, [], 2);
    publisher.publish(100..200);
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("recent-rebuild", 0, Offset::Offset(150))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(admin.delete_records(&cut, &AdminOptions::new()))
        .unwrap();
    own(&recent, [0], 2);
    let status = whole(&recent);
    // One offset is the marker of the first transaction.
    assert_eq!(ids(&store, &[0]), (149..200).collect::<Vec<i64>>());
    assert!(status.dropped_up_to.is_some());
    recent.stop().unwrap();
}

#[test]
fn what_is_older_than_the_retention_leaves_and_is_known_to_have_left() {
    let client = topic("recent-sweep", 1);
    let publisher = Publisher::new(&client, "recent-sweep", 1);
    let (_dir, store) = store();
    let recent = follow(&client, "recent-sweep", &store, Duration::from_secs(3));
    own(&recent, [0], 1);
    publisher.publish(0..50);
    let status = wait(&recent, |status| status.dropped_up_to.is_some());
    let latest = Timestamp::parse("2025-01-01T00:00:49Z").unwrap();
    assert_eq!(status.dropped_up_to, Some(latest));
    assert_eq!(ids(&store, &[0]), Vec::<i64>::new());
    recent.stop().unwrap();
}
