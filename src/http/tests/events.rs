//! Pages of events, their cursors, and one event by its id.

use super::*;

const ALL: &str = "/v1/enriched-events?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z";

/// 50 events over two partitions, many at the same moment, in the order that pages must have.
fn sample() -> (Vec<(i32, i64, String)>, Vec<i64>) {
    let mut keys: Vec<(i64, i64)> = (0..50i64).map(|i| (i * i % 7, i * 37 % 101 - 20)).collect();
    let events = keys
        .iter()
        .map(|(second, id)| {
            let kind = if id % 5 == 0 { "click" } else { "play" };
            let at = format!("2025-01-01T12:30:0{second}Z");
            ((id & 1) as i32, 100, event(*id, &at, kind))
        })
        .collect();
    keys.sort_unstable();
    (events, keys.into_iter().map(|(_, id)| id).collect())
}

async fn walk(server: &Server, query: &str, limit: usize) -> Vec<i64> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = server.get(&format!("{query}&limit={limit}{cursor}")).await;
        assert_eq!(
            reply.status,
            200,
            "{}",
            String::from_utf8_lossy(&reply.body)
        );
        let page = reply.json();
        found.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(ids(&page).len(), limit);
                cursor = format!("&cursor={next}");
            }
            None => return found,
        }
    }
}

#[tokio::test]
async fn pages_merge_partitions_in_order_of_time_and_number_and_end_with_a_null_cursor() {
    let server = Server::start().await;
    let (events, order) = sample();
    server.publish(&events);
    for limit in [1, 7, 10, 50, 51, 1000] {
        assert_eq!(walk(&server, ALL, limit).await, order, "limit {limit}");
    }
    let page = server.get(ALL).await.json();
    assert_eq!(page["as_of"], "2025-01-01T12:30:00Z");
    assert!(page["staleness_ms"].as_i64().unwrap() > 0);
    assert_eq!(page["next_cursor"], Value::Null);
    assert!(page.get("missing_partitions").is_none());
}

#[tokio::test]
async fn items_are_the_published_bytes() {
    let server = Server::start().await;
    let published = [
        event(1, "2025-01-01T12:30:00Z", "play"),
        event(2, "2025-01-01T12:30:00.5Z", "pause"),
    ];
    server.publish(&published.clone().map(|json| (0, 0, json)));
    let reply = server.get(ALL).await;
    let items = format!("{{\"items\":[{}],", published.join(","));
    assert!(reply.body.starts_with(items.as_bytes()));
    for json in &published {
        let target = format!("/v1/enriched-events/{}", id_of(json));
        let reply = server.get(&target).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.body, json.as_bytes());
    }
}

#[tokio::test]
async fn filters_and_ranges_select() {
    let server = Server::start().await;
    let (events, order) = sample();
    server.publish(&events);
    let clicks: Vec<i64> = order.iter().copied().filter(|id| id % 5 == 0).collect();
    assert_eq!(
        walk(&server, &format!("{ALL}&event_type=click"), 3).await,
        clicks
    );
    let upper = CONTENT.to_uppercase();
    assert_eq!(
        walk(&server, &format!("{ALL}&content_id={upper}"), 9).await,
        order
    );
    let other = format!("{ALL}&content_id=00000000-0000-0000-0000-000000000000");
    assert!(walk(&server, &other, 9).await.is_empty());
    let empty = "/v1/enriched-events?from=2025-01-01T12:30:00Z&to=2025-01-01T12:30:00Z";
    let page = server.get(empty).await.json();
    assert_eq!((ids(&page).len(), &page["next_cursor"]), (0, &Value::Null));
    let half = "/v1/enriched-events?from=2025-01-01T14:30:01%2B02:00&to=2025-01-01T12:30:03.000Z";
    let found = walk(&server, half, 100).await;
    // Seconds 1 and 2; 3 is out.
    let expected = (0..50).filter(|i| matches!(i * i % 7, 1 | 2)).count();
    assert_eq!(found.len(), expected);
}

#[tokio::test]
async fn parameters_are_refused_rather_than_guessed() {
    let server = Server::start().await;
    let good = "from=2025-01-01T00:00:00Z&to=2025-01-02T00:00:00Z";
    for (query, told) in [
        ("", "`from` is required"),
        ("from=2025-01-01T00:00:00Z", "`to` is required"),
        ("from=2025-01-01T00:00:00Z&to=", "`to` is empty"),
        (
            "from=2025-01-01&to=2025-01-02T00:00:00Z",
            "`from` is no time",
        ),
        ("from=2025-01-01T00:00:00Z&to=infinity", "`to` is no time"),
        (
            "from=2025-01-01T00:00:00+02:00&to=2025-01-02T00:00:00Z",
            "%2B",
        ),
        (
            "from=2025-01-02T00:00:00Z&to=2025-01-01T00:00:00Z",
            "`from` is after `to`",
        ),
        ("{}&from=2025-01-01T00:00:00Z", "given twice"),
        ("{}&nonsense=1", "no parameter `nonsense`"),
        ("{}&FROM=1", "no parameter `FROM`"),
        ("{}&", "no parameter ``"),
        ("{}&limit=0", "from 1 to 1000"),
        ("{}&limit=1001", "from 1 to 1000"),
        ("{}&limit=-1", "from 1 to 1000"),
        ("{}&limit=%2B5", "from 1 to 1000"),
        ("{}&limit=1e2", "from 1 to 1000"),
        ("{}&limit=99999999999999999999999", "from 1 to 1000"),
        ("{}&limit", "`limit` is empty"),
        ("{}&event_type=PLAY", "play, pause, finish, click"),
        (
            "{}&content_id=25f6ae984cbb41cc8fc98111e899a363",
            "UUID with hyphens",
        ),
        ("{}&allow_partial=1", "true or false"),
        ("{}&cursor=abc", "`cursor` is not one of this query"),
        ("{}&event_type=%zz", "percent-encoded"),
        ("{}&event_type=%ff", "percent-encoded"),
        ("{}&event_type=%", "percent-encoded"),
    ] {
        let query = query.replace("{}", good);
        let reply = server.get(&format!("/v1/enriched-events?{query}")).await;
        let problem = reply.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{query}: {detail}");
    }
    let reply = server.get(&format!("/v1/enriched-events?{good}")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_cursor_serves_its_query_only_and_unaltered() {
    let server = Server::start().await;
    server.publish(&sample().0);
    let page = server.get(&format!("{ALL}&limit=5")).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let with = |query: &str, cursor: &str| format!("{query}&cursor={cursor}");
    let other_limit = server.get(&with(&format!("{ALL}&limit=9"), cursor)).await;
    assert_eq!(other_limit.status, 200);
    // The same range in other words is the same query.
    let reworded = ALL.replace("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z");
    assert_eq!(server.get(&with(&reworded, cursor)).await.status, 200);
    for other in [
        format!("{ALL}&event_type=play"),
        format!("{ALL}&content_id={CONTENT}"),
        format!("{ALL}&allow_partial=true"),
        ALL.replace("0001", "0002"),
        ALL.replace("9999", "9998"),
    ] {
        server.get(&with(&other, cursor)).await.problem(400);
    }
    server
        .get(&with("/v1/content?limit=5", cursor))
        .await
        .problem(400);
    let mut altered = cursor.to_owned().into_bytes();
    altered[3] = if altered[3] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    server.get(&with(ALL, &altered)).await.problem(400);
    // Another instance with the same key takes it; one with another key does not.
    let peer = Server::start().await;
    assert_eq!(peer.get(&with(ALL, cursor)).await.status, 200);
    let foreign = Server::start_with(|api| api.cursor_key = [8; 32]).await;
    foreign.get(&with(ALL, cursor)).await.problem(400);
}

#[tokio::test]
async fn a_missing_partition_is_named_and_left_out_only_when_allowed() {
    let server = Server::start().await;
    let (events, order) = sample();
    server.publish(&events);
    server.status.lock().ready = vec![1];
    let reply = server.get(ALL).await;
    let problem = reply.problem(503);
    assert_eq!(problem["missing_partitions"], serde_json::json!([0]));
    assert_eq!(reply.header("retry-after"), Some("1"));
    let page = server
        .get(&format!("{ALL}&allow_partial=true"))
        .await
        .json();
    assert_eq!(page["missing_partitions"], serde_json::json!([0]));
    let odd: Vec<i64> = order.into_iter().filter(|id| id & 1 == 1).collect();
    assert_eq!(ids(&page), odd);
    // An event that is here is found; one that is not may be in the other partition.
    let found = server.get(&format!("/v1/enriched-events/{}", odd[0])).await;
    assert_eq!(found.status, 200);
    server.get("/v1/enriched-events/777777").await.problem(503);
    let partial = "/v1/enriched-events/777777?allow_partial=true";
    server.get(partial).await.problem(404);
    server.partitions.send_replace(0);
    server.get(ALL).await.problem(503);
}

#[tokio::test]
async fn one_event_is_found_by_its_id_or_said_not_to_be_there() {
    let server = Server::start().await;
    server.publish(&[(1, 0, event(-5, "2025-01-01T12:30:00Z", "play"))]);
    for target in ["-5", "%2D5"] {
        let reply = server.get(&format!("/v1/enriched-events/{target}")).await;
        assert_eq!(reply.status, 200);
    }
    for unknown in ["5", "0", "9223372036854775807"] {
        server
            .get(&format!("/v1/enriched-events/{unknown}"))
            .await
            .problem(404);
    }
    for bad in [
        "x",
        "+5",
        "05",
        "-0",
        "5%20",
        "9223372036854775808",
        "5.0",
        "%00",
        "%ff",
    ] {
        server
            .get(&format!("/v1/enriched-events/{bad}"))
            .await
            .problem(400);
    }
    server.get("/v1/enriched-events/5?x=1").await.problem(400);
}

#[tokio::test]
async fn recent_events_that_are_switched_off_or_have_failed_are_said_to_be() {
    let server = Server::start_with(|api| api.recent = None).await;
    for target in [ALL, "/v1/enriched-events/5"] {
        let problem = server.get(target).await.problem(503);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("switched off"), "{detail}");
    }
    let server = Server::start().await;
    server.status.lock().failed = Some("disk full".to_owned());
    let problem = server.get(ALL).await.problem(503);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("no longer followed")
    );
}

#[tokio::test]
async fn a_range_that_may_have_lost_rows_is_refused_with_the_time_from_which_it_is_whole() {
    let server = Server::start().await;
    server.publish(&[
        (0, 100, event(1, "2025-01-01T00:00:01.5Z", "play")),
        (1, 100, event(2, "2025-01-01T00:00:03Z", "play")),
    ]);
    let mut writes = WriteSet::new();
    crate::recent::sweep(&server.store.snapshot(), 0, 200, &mut writes).unwrap();
    server.store.apply_unlogged(&mut writes).unwrap();
    let problem = server.get(ALL).await.problem(422);
    let available = problem["available_from"].as_str().unwrap();
    assert_eq!(available, "2025-01-01T00:00:01.500001Z");
    let later = ALL.replace("0001-01-01T00:00:00Z", available);
    assert_eq!(ids(&server.get(&later).await.json()), [2]);
    // An empty range has lost nothing.
    let empty = "/v1/enriched-events?from=2025-01-01T00:00:00Z&to=2025-01-01T00:00:00Z";
    assert_eq!(server.get(empty).await.status, 200);
}

#[tokio::test]
async fn lines_end_with_a_trailer_that_counts_them() {
    let server = Server::start().await;
    let (events, order) = sample();
    server.publish(&events);
    let accept = "Accept: text/html, application/x-ndjson;q=0.9\r\n";
    for (query, expected) in [(ALL.to_owned(), 50), (format!("{ALL}&limit=7"), 7)] {
        let reply = server.ask("GET", &query, accept).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
        let text = String::from_utf8(reply.body).unwrap();
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let trailer = lines.pop().unwrap()["trailer"].take();
        assert_eq!(lines.len(), expected);
        assert_eq!(trailer["complete"], true);
        assert_eq!(trailer["items"], expected);
        assert_eq!(trailer["next_cursor"].is_null(), expected == 50);
        let found = ids(&serde_json::json!({"items": lines}));
        assert_eq!(found, order[..expected]);
        if let Some(cursor) = trailer["next_cursor"].as_str() {
            let rest = walk(&server, &format!("{ALL}&cursor={cursor}"), 1000).await;
            assert_eq!(rest, order[expected..]);
        }
    }
}
