//! Content rows: pages and single rows with their entity tags.

use super::*;
use crate::codec::encode_content;
use crate::domain::{ContentId, ContentRow, ContentType, Timestamp};
use thmanyah_state::Table;

fn put(server: &Server, row: &ContentRow, offset: i64) {
    let mut value = 3i32.to_be_bytes().to_vec();
    value.extend_from_slice(&offset.to_be_bytes());
    encode_content(row, &mut value);
    let mut writes = WriteSet::new();
    writes.put(Table::Content, &row.id.0, &value);
    server.store.apply(&mut writes).unwrap();
}

fn row(id: u8) -> ContentRow {
    ContentRow {
        id: ContentId([id; 16]),
        slug: Some(format!("slug-{id}")),
        title: Some("حلقة \"الأولى\"".to_owned()),
        content_type: Some(ContentType::Podcast),
        length_seconds: Some(1200),
        publish_ts: Some(Timestamp::parse("2025-01-01T12:30:00.25Z").unwrap()),
    }
}

#[tokio::test]
async fn rows_are_paged_by_id() {
    let server = Server::start().await;
    for id in [9, 0, 255, 4, 17] {
        put(&server, &row(id), 1);
    }
    for limit in [1, 2, 5, 1000] {
        let mut slugs = Vec::new();
        let mut cursor = String::new();
        loop {
            let target = format!("/v1/content?limit={limit}{cursor}");
            let page = server.get(&target).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            slugs.extend(
                items
                    .iter()
                    .map(|item| item["slug"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(slugs, ["slug-0", "slug-4", "slug-9", "slug-17", "slug-255"]);
    }
    for bad in [
        "limit=0",
        "limit=1001",
        "cursor=x",
        "from=1",
        "limit=1&limit=1",
    ] {
        server.get(&format!("/v1/content?{bad}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_row_has_the_tag_of_its_version_and_is_not_sent_again_under_it() {
    let server = Server::start().await;
    put(&server, &row(7), 41);
    let target = format!("/v1/content/{}", ContentId([7; 16]));
    let reply = server.get(&target).await;
    assert_eq!(reply.header("etag"), Some("\"3:41\""));
    assert_eq!(
        String::from_utf8(reply.body).unwrap(),
        "{\"id\":\"07070707-0707-0707-0707-070707070707\",\"slug\":\"slug-7\",\"title\":\"حلقة \\\"الأولى\\\"\",\"content_type\":\"podcast\",\"length_seconds\":1200,\"publish_ts\":\"2025-01-01T12:30:00.25Z\"}"
    );
    for known in ["\"3:41\"", "\"a\", W/\"3:41\"", "*"] {
        let header = format!("If-None-Match: {known}\r\n");
        let reply = server.ask("GET", &target, &header).await;
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
        assert_eq!(reply.header("etag"), Some("\"3:41\""));
    }
    put(&server, &row(7), 42);
    let header = "If-None-Match: \"3:41\"\r\n";
    let reply = server.ask("GET", &target, header).await;
    assert_eq!(
        (reply.status, reply.header("etag")),
        (200, Some("\"3:42\""))
    );
}

#[tokio::test]
async fn an_unknown_row_a_bad_id_and_a_table_that_is_being_restored_are_told_apart() {
    let server = Server::start().await;
    let target = format!("/v1/content/{}", ContentId([7; 16]));
    server.get(&target).await.problem(404);
    server.get("/v1/content/seven").await.problem(400);
    server.get(&format!("{target}?x=1")).await.problem(400);
    server.health.set_restoring("content", 12, 3);
    for target in [target.as_str(), "/v1/content"] {
        let reply = server.get(target).await;
        reply.problem(503);
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    server.health.set_ready("content");
    assert_eq!(server.get("/v1/content").await.status, 200);
}
