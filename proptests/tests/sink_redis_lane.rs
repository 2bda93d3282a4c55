//! The Redis sink against a real Redis, without Kafka: runs that are cut off anywhere, two who hold one partition, and a Redis
//! that lost what it held, or went back in time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thmanyah::sinks::{Destination, Lane, SinkError, Taken};
use thmanyah_dev::{Redis, RedisOptions};
use thmanyah_proptests::board::board;
use thmanyah_proptests::flow::now_ms;
use thmanyah_proptests::redis_lane::{
    Log, PREFIX, deliver_all, deliver_rest, frame, logs, open, sink,
};
use thmanyah_proptests::redis_view::{
    compare, moments, positions, read_board, read_fences, read_numbers,
};

/// Lets a future run for so many turns, and drops it where it then stands.
async fn cut_off<T>(future: impl Future<Output = T>, turns: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut turn = 0;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if turn == turns => Poll::Ready(None),
        Poll::Pending => {
            turn += 1;
            Poll::Pending
        }
    })
    .await
}

fn rebuilding(redis: &Redis) -> i64 {
    read_numbers(redis, "thmanyah_status", PREFIX, &[]).unwrap()["rebuilding"]
}

#[tokio::test]
async fn twenty_thousand_events_count_once_however_their_deliveries_are_cut_off() {
    let seed = rand::random();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 4, 5_000);
    let mut here = sink(&redis);
    let (mut cuts, mut restarts) = (0, 0);
    let mut open_logs: Vec<&Log> = logs.iter().collect();
    while !open_logs.is_empty() {
        let chosen = rng.random_range(0..open_logs.len());
        let log = open_logs[chosen];
        let (mut lane, mut position) = open(&here, log).await;
        loop {
            let batch = log.batch(position, rng.random_range(1..200));
            if batch.records.is_empty() {
                lane.caught_up().await.unwrap();
                open_logs.swap_remove(chosen);
                break;
            }
            let turns = if rng.random_bool(0.5) {
                usize::MAX
            } else {
                rng.random_range(0..3)
            };
            let Some(delivered) = cut_off(lane.deliver(&batch), turns).await else {
                cuts += 1;
                if cuts % 5 == 0 {
                    restarts += 1;
                    here = sink(&redis);
                }
                break;
            };
            // What was cut off before may have arrived meanwhile; then this one must not.
            if let Err(error) = delivered {
                assert!(
                    matches!(error, SinkError::Fenced(_)),
                    "seed {seed}: {error}"
                );
                break;
            }
            position = batch.next_offset();
        }
    }
    assert!(
        cuts >= 20 && restarts >= 4,
        "seed {seed}: {cuts} cuts, {restarts} restarts"
    );
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms()))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(rebuilding(&redis), 0);
}

#[tokio::test]
async fn who_has_lost_a_partition_is_refused_and_changes_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 1, 600);
    let (zombies, successors) = (sink(&redis), sink(&redis));
    let (mut zombie, start) = open(&zombies, &logs[0]).await;
    let batch = logs[0].batch(start, 100);
    zombie.deliver(&batch).await.unwrap();
    let (mut successor, position) = open(&successors, &logs[0]).await;
    assert_eq!(position, batch.next_offset());
    successor
        .deliver(&logs[0].batch(position, 100))
        .await
        .unwrap();
    for most in [100, 37, 500] {
        let stale = zombie.deliver(&logs[0].batch(position, most)).await;
        assert!(matches!(stale, Err(SinkError::Fenced(_))), "{stale:?}");
    }
    deliver_rest(&successors, &logs[0]).await;
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}

#[tokio::test]
async fn a_redis_that_came_back_empty_is_built_from_the_log_and_says_so_until_it_is() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 2, 2_500);
    let sink = sink(&redis);
    let (mut lane, start) = open(&sink, &logs[0]).await;
    assert_eq!((start, rebuilding(&redis)), (0, 2));
    lane.deliver(&logs[0].batch(0, 1_500)).await.unwrap();
    deliver_rest(&sink, &logs[1]).await;

    lane.idle().await.unwrap();
    redis.restart_empty().unwrap();
    // The connection is found to be broken first, then the function to be gone; once another partition has loaded it, the fence.
    for _ in 0..2 {
        let lost = lane.idle().await;
        assert!(matches!(lost, Err(SinkError::Unavailable(_))), "{lost:?}");
    }
    sink.prepare().await.unwrap();
    assert!(rebuilding(&redis) > 0, "before any partition has looked");
    let lost = lane.idle().await.unwrap_err();
    assert!(
        lost.to_string()
            .contains("has lost what it held of partition 0"),
        "{lost}"
    );
    let lost = lane.deliver(&logs[0].batch(1_529, 10)).await;
    assert!(matches!(lost, Err(SinkError::Unavailable(_))), "{lost:?}");
    let (mut lane, start) = open(&sink, &logs[0]).await;
    assert_eq!(start, 0);
    lane.deliver(&logs[0].batch(0, 2_499)).await.unwrap();
    assert_eq!(rebuilding(&redis), 2, "an event is missing");
    lane.deliver(&logs[0].batch(2_548, 1)).await.unwrap();
    assert_eq!(
        rebuilding(&redis),
        2,
        "the log goes on behind the last event"
    );
    lane.caught_up().await.unwrap();
    assert_eq!(rebuilding(&redis), 1, "nobody has looked at the other one");
    deliver_rest(&sink, &logs[1]).await;
    assert_eq!(rebuilding(&redis), 0);
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
    let since = logs.iter().map(|log| log.records[0].timestamp_ms).max();
    let status = read_numbers(&redis, "thmanyah_status", PREFIX, &[]).unwrap();
    assert_eq!(status.get("since_ms").copied(), since);
}

#[tokio::test]
async fn a_redis_that_kept_what_it_held_or_went_back_in_time_is_resumed_from_its_fence() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 1, 3_000);
    let sink = sink(&redis);
    let (mut lane, _) = open(&sink, &logs[0]).await;
    let first = logs[0].batch(0, 1_000);
    lane.deliver(&first).await.unwrap();
    redis.keep_copy().unwrap();
    let second = logs[0].batch(first.next_offset(), 1_000);
    lane.deliver(&second).await.unwrap();

    redis.kill9();
    let away = lane.deliver(&logs[0].batch(second.next_offset(), 10)).await;
    assert!(matches!(away, Err(SinkError::Unavailable(_))), "{away:?}");
    redis.restart().unwrap();
    let (_, start) = open(&sink, &logs[0]).await;
    assert_eq!(start, second.next_offset(), "killed and started again");

    redis.restart_from_copy().unwrap();
    let (_, start) = open(&sink, &logs[0]).await;
    assert_eq!(start, first.next_offset(), "a replica that was behind");
    deliver_rest(&sink, &logs[0]).await;
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}

#[tokio::test]
async fn a_part_that_cannot_be_gone_on_from_is_cleared_and_the_others_stay() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 3, 1_000);
    let sink = sink(&redis);
    deliver_all(&sink, &logs).await;
    let events = Log::events(&logs);
    let spoil: [&[&str]; 4] = [
        &["HDEL", "{thm}:fences", "1:next"],
        &[
            "HDEL",
            "{thm}:fences",
            "1:topic",
            "1:next",
            "1:generation",
            "1:since",
        ],
        &["HSET", "{thm}:fences", "1:torn", "1"],
        &["HSET", "{thm}:fences", "1:next", "99999"],
    ];
    for words in spoil {
        redis.command(words).unwrap();
        let before = positions(&redis, PREFIX).unwrap();
        let (_, start) = open(&sink, &logs[1]).await;
        assert_eq!((start, rebuilding(&redis)), (0, 1), "{words:?}");
        let rest = Log::events([&logs[0], &logs[2]]);
        let now = now_ms();
        let expected = board(&rest, now);
        assert_eq!(
            read_board(&redis, PREFIX, 1_000, Some(now)).unwrap(),
            expected,
            "{words:?}"
        );
        let after = positions(&redis, PREFIX).unwrap();
        assert_eq!((after[&0], after[&2]), (before[&0], before[&2]));
        deliver_rest(&sink, &logs[1]).await;
        compare(&redis, PREFIX, &events, &moments(now_ms())).unwrap();
    }
}

#[tokio::test]
async fn a_fence_that_moved_on_while_the_end_was_asked_for_is_no_reason_to_clear_anything() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 1, 1_000);
    let (zombies, successors) = (sink(&redis), sink(&redis));
    let (mut zombie, start) = open(&zombies, &logs[0]).await;
    let first = logs[0].batch(start, 100);
    let early = Taken {
        log_end: first.next_offset(),
        ..logs[0].taken()
    };
    zombie.deliver(&first).await.unwrap();
    let mut position = first.next_offset();
    successors.prepare().await.unwrap();
    // It moves on before each look: the end that was asked for is always an old one.
    for _ in 0..3 {
        let batch = logs[0].batch(position, 200);
        zombie.deliver(&batch).await.unwrap();
        position = batch.next_offset();
        let behind = successors.open(early.clone(), frame()).await;
        assert!(matches!(behind, Err(SinkError::Unavailable(_))));
    }
    let (_, start) = successors.open(logs[0].taken(), frame()).await.unwrap();
    assert_eq!(start, position);
    deliver_rest(&successors, &logs[0]).await;
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}

#[tokio::test]
async fn a_topic_that_was_made_anew_begins_with_an_empty_board() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let old = logs(&mut rng, 3, 500);
    let new = logs(&mut rng, 1, 500);
    let sink = sink(&redis);
    deliver_all(&sink, &old).await;
    let taken = Taken {
        topic_id: [8; 16],
        ..new[0].taken()
    };
    let (mut lane, start) = sink.open(taken, frame()).await.unwrap();
    assert_eq!(start, 0);
    assert_eq!(read_board(&redis, PREFIX, 10, None).unwrap(), []);
    lane.deliver(&new[0].batch(0, usize::MAX)).await.unwrap();
    compare(&redis, PREFIX, &Log::events(&new), &moments(now_ms())).unwrap();
}

#[tokio::test]
async fn events_that_were_deleted_unread_are_told_and_counted_from_there_on() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 1, 200);
    let sink = sink(&redis);
    let (mut lane, _) = open(&sink, &logs[0]).await;
    lane.deliver(&logs[0].batch(0, 50)).await.unwrap();
    let kept = logs[0].batch(100, usize::MAX);
    let frame = frame();
    let taken = Taken {
        log_start: kept.records[0].offset,
        ..logs[0].taken()
    };
    let (mut lane, start) = sink.open(taken.clone(), frame.clone()).await.unwrap();
    assert_eq!(start, taken.log_start);
    assert_eq!(
        frame.metrics.lost.get(),
        (taken.log_start - 50).unsigned_abs()
    );
    lane.deliver(&kept).await.unwrap();
    let status = read_numbers(&redis, "thmanyah_status", PREFIX, &[]).unwrap();
    assert_eq!(status["since_ms"], kept.records[0].timestamp_ms);
}

#[tokio::test]
async fn a_board_of_more_partitions_than_one_call_can_name_is_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 130, 30);
    deliver_all(&sink(&redis), &logs).await;
    compare(&redis, PREFIX, &Log::events(&logs), &moments(now_ms())).unwrap();
}

#[tokio::test]
async fn every_key_has_the_tag_and_all_but_the_fences_expire() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 2, 1_000);
    deliver_all(&sink(&redis), &logs).await;
    let keys = redis.command(&["KEYS", "*"]).unwrap();
    assert!(keys.lines().count() > 100);
    let script = "local lasting = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
                  local ttl = redis.call('TTL', key) \
                  if ttl < 0 or ttl > 8 * 86400 + 3600 then lasting[#lasting + 1] = key end end return lasting";
    assert_eq!(
        redis.command(&["EVAL", script, "0"]).unwrap(),
        "{thm}:fences"
    );
    assert!(keys.lines().all(|key| key.starts_with("{thm}:")), "{keys}");
    let far = keys
        .lines()
        .filter(|key| key.starts_with("{thm}:board:"))
        .count();
    // From 25 minutes ago to ten minutes ahead, and one an hour ahead, of two partitions: not one for each wild event.
    assert!(far <= 2 * (6 * 36 + 2), "{far} buckets");
}

#[tokio::test]
async fn a_fence_holds_what_a_person_needs_to_know() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let logs = logs(&mut rng, 1, 10);
    let sink = sink(&redis);
    let (mut lane, _) = open(&sink, &logs[0]).await;
    lane.deliver(&logs[0].batch(0, 5)).await.unwrap();
    let fences = read_fences(&redis, PREFIX).unwrap();
    let told = |field: &str| fences.get(&(0, field.to_owned())).map(String::as_str);
    assert_eq!(told("topic"), Some("07070707070707070707070707070707"));
    assert_eq!((told("next"), told("rebuild_to")), (Some("5"), Some("11")));
    assert_eq!(told("torn"), None);
}
