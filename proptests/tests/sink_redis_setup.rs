//! What the Redis sink makes of the Redis that it finds: its version, its users, its library, a cluster, or none at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thmanyah::sinks::{Destination, Lane, RedisSink, SinkError};
use thmanyah_dev::{Redis, RedisOptions, free_port};
use thmanyah_proptests::deployment::await_until;
use thmanyah_proptests::flow::now_ms;
use thmanyah_proptests::redis_lane::{Log, PREFIX, config, deliver_all, frame, logs, open, sink};
use thmanyah_proptests::redis_view::{compare, moments};

const LIMIT: Duration = Duration::from_secs(30);
/// The library as it is in the source tree.
const LIBRARY: &str = include_str!("../../src/sinks/redis/library.lua");

#[tokio::test]
async fn the_library_is_replaced_by_a_newer_one_never_by_an_older_one() {
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let sink = sink(&redis);
    let version = || {
        redis
            .command(&["FCALL_RO", "thmanyah_version", "1", "{thm}"])
            .unwrap()
    };
    let load = |version: &str, digest: &str| {
        let source = LIBRARY.replace(
            "local VERSION = 1\n",
            &format!("local VERSION = {version}\n"),
        );
        redis
            .command(&[
                "FUNCTION",
                "LOAD",
                "REPLACE",
                &source.replace("@DIGEST@", digest),
            ])
            .unwrap();
    };
    sink.prepare().await.unwrap();
    let ours = version();
    for (loaded, digest) in [("0", "x"), ("1", "another build")] {
        load(loaded, digest);
        sink.prepare().await.unwrap();
        assert_eq!(version(), ours);
    }
    load("2", "x");
    sink.prepare().await.unwrap();
    assert_eq!(version(), "2\nx");
}

#[tokio::test]
async fn a_user_with_the_rights_that_are_told_delivers_and_one_who_only_reads_cannot_write() {
    let options = RedisOptions::default()
        .user("sink on >s ~{thm}* +@read +@write +@scripting +@connection +time +info")
        .user("reader on >r ~{thm}* +fcall_ro +time +hgetall +zunion");
    let redis = Redis::start(options).unwrap();
    let rights = [
        ("THMANYAH_SINKS__REDIS__USERNAME", "sink"),
        ("THMANYAH_SINKS__REDIS__PASSWORD", "s"),
    ];
    let sink = RedisSink::new(&config(&redis.url(), &rights));
    let logs = logs(&mut ChaCha8Rng::seed_from_u64(10), 1, 500);
    deliver_all(&sink, &logs).await;
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
    let ask = |words: &[&str]| redis.command_as(("reader", "r"), words);
    assert!(
        !ask(&["FCALL_RO", "thmanyah_top", "1", "{thm}", "3"])
            .unwrap()
            .is_empty()
    );
    assert!(
        !ask(&[
            "FCALL_RO",
            "thmanyah_content",
            "1",
            "{thm}",
            "c",
            "2026-01-01"
        ])
        .unwrap()
        .is_empty()
    );
    assert!(ask(&["FCALL", "thmanyah_caught_up", "1", "{thm}", "0", "x", "0"]).is_err());
    assert!(ask(&["HDEL", "{thm}:fences", "0:next"]).is_err());
}

/// What preparing says when it fails.
async fn why(sink: &RedisSink) -> String {
    match sink.prepare().await.unwrap_err() {
        SinkError::Misconfigured(why) => format!("misconfigured: {why}"),
        SinkError::Unavailable(why) => format!("unavailable: {why}"),
        SinkError::Stopped(why) => format!("stopped: {why}"),
        SinkError::Fenced(why) => format!("fenced: {why}"),
    }
}

#[tokio::test]
async fn a_redis_that_does_not_do_is_named_with_what_is_to_be_done() {
    let options = RedisOptions::default()
        .user("reader on >r ~{thm}* +@read +@connection +info")
        .user("loader on >l ~{thm}* +@read +@connection +info +fcall +fcall_ro +function +time")
        .user("other on >o ~{other}* +@all");
    let redis = Redis::start(options).unwrap();
    let with = |user: &str, password: &str| {
        let settings = [
            ("THMANYAH_SINKS__REDIS__USERNAME", user),
            ("THMANYAH_SINKS__REDIS__PASSWORD", password),
        ];
        RedisSink::new(&config(&redis.url(), &settings))
    };
    for (user, password, parts) in [
        (
            "reader",
            "r",
            [
                "misconfigured",
                "`reader`",
                "ACL SETUSER reader ~{thm}* +@read +@write",
            ],
        ),
        (
            "loader",
            "l",
            [
                "misconfigured",
                "`loader`",
                "ACL SETUSER loader ~{thm}* +@read +@write",
            ],
        ),
        (
            "other",
            "o",
            ["misconfigured", "`other`", "ACL SETUSER other ~{thm}*"],
        ),
        (
            "reader",
            "wrong",
            ["misconfigured", "`reader`", "sinks.redis.password"],
        ),
        (
            "nobody",
            "r",
            ["misconfigured", "`nobody`", "sinks.redis.username"],
        ),
    ] {
        let why = why(&with(user, password)).await;
        assert!(parts.iter().all(|part| why.contains(part)), "{user}: {why}");
    }
    let gone = RedisSink::new(&config(
        &format!("redis://127.0.0.1:{}", free_port().unwrap()),
        &[],
    ));
    let gone = why(&gone).await;
    assert!(
        gone.starts_with("unavailable: Redis at 127.0.0.1:") && gone.contains("does not answer"),
        "{gone}"
    );
    let wrong = [
        format!("{}/999", redis.url()),
        "redis://127.0.0.1:99999".to_owned(),
        "redis://127.0.0.1:1/abc".to_owned(),
        "http://127.0.0.1:1".to_owned(),
    ];
    for url in wrong {
        let why = why(&RedisSink::new(&config(&url, &[]))).await;
        assert!(
            why.starts_with("misconfigured") && why.contains("sinks.redis.url"),
            "{url}: {why}"
        );
    }
}

#[tokio::test]
async fn a_redis_that_knows_no_functions_is_too_old() {
    let redis =
        Redis::start(RedisOptions::default().with("rename-command", "FCALL_RO gone")).unwrap();
    let why = why(&sink(&redis)).await;
    assert!(
        why.starts_with("misconfigured") && why.contains("too old") && why.contains("7.0"),
        "{why}"
    );
}

#[tokio::test]
async fn a_redis_that_stands_still_is_unavailable_and_then_delivered_to() {
    let mut redis = Redis::start(RedisOptions::default()).unwrap();
    let settings = [("THMANYAH_SINKS__REDIS__TIMEOUT", "200ms")];
    let sink = RedisSink::new(&config(&redis.url(), &settings));
    let logs = logs(&mut ChaCha8Rng::seed_from_u64(11), 1, 500);
    let (mut lane, _) = open(&sink, &logs[0]).await;
    redis.pause();
    let given_up = lane.deliver(&logs[0].batch(0, 100)).await;
    assert!(
        matches!(given_up, Err(SinkError::Unavailable(_))),
        "{given_up:?}"
    );
    redis.resume();
    // The call that was given up may still be made, before or after this.
    while let Err(error) = deliver_what_is_left(&sink, &logs[0]).await {
        assert!(
            matches!(error, SinkError::Fenced(_) | SinkError::Unavailable(_)),
            "{error}"
        );
    }
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}

async fn deliver_what_is_left(sink: &RedisSink, log: &Log) -> Result<(), SinkError> {
    sink.prepare().await?;
    let (mut lane, start) = sink.open(log.taken(), frame()).await?;
    lane.deliver(&log.batch(start, usize::MAX)).await
}

/// Two nodes of one cluster; the second has all slots.
fn cluster() -> [Redis; 2] {
    // By default the nodes would talk on a port 10,000 above, which may be somebody else's.
    let start = || {
        let bus = free_port().unwrap().to_string();
        let options = RedisOptions::default().with("cluster-enabled", "yes");
        (
            Redis::start(options.with("cluster-port", &bus)).unwrap(),
            bus,
        )
    };
    let [(empty, _), (full, bus)] = [start(), start()];
    full.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"])
        .unwrap();
    empty
        .command(&[
            "CLUSTER",
            "MEET",
            "127.0.0.1",
            &full.port().to_string(),
            &bus,
        ])
        .unwrap();
    for node in [&empty, &full] {
        await_until(LIMIT, "the nodes to know each other", || {
            let info = node.command(&["CLUSTER", "INFO"])?;
            Ok(
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2"))
                    .then_some(()),
            )
        })
        .unwrap();
    }
    [empty, full]
}

#[tokio::test]
async fn a_cluster_takes_what_is_sent_to_the_node_of_the_slot_and_the_other_is_named() {
    let [empty, full] = cluster();
    let logs = logs(&mut ChaCha8Rng::seed_from_u64(12), 2, 300);
    let why = why(&sink(&empty)).await;
    assert!(
        why.starts_with("misconfigured") && why.contains(&full.port().to_string()),
        "{why}"
    );
    deliver_all(&sink(&full), &logs).await;
    compare(&full, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}
