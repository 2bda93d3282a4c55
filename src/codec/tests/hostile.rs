//! Bytes that someone could send, and what becomes of them as an event.

use super::*;
use crate::domain::Reason as R;

#[rustfmt::skip]
const CORPUS: &[(&[u8], Reason)] = &[
    // Not a text.
    (b"", R::Empty),
    (b"\xff", R::NotUtf8),
    (b"{\"id\":\xc3\x28}", R::NotUtf8),
    (b"{\"device\":\"\xed\xa0\x80\"}", R::NotUtf8),
    (b"{\"device\":\"\xc0\xaf\"}", R::NotUtf8),
    (b"\xfe\xff\x00{\x00}", R::NotUtf8),
    // A text, not JSON.
    (b" ", R::NotJson),
    (b"\0", R::NotJson),
    (b"\xef\xbb\xbf{\"id\":1}", R::NotJson),
    (b"{\"id\":1", R::NotJson),
    (b"{\"id\":1}}", R::NotJson),
    (b"{\"id\":1} x", R::NotJson),
    (b"{\"id\":1}{\"id\":2}", R::NotJson),
    (b"{\"id\":1}\0", R::NotJson),
    (b"{\"id\":1,}", R::NotJson),
    (b"{,\"id\":1}", R::NotJson),
    (b"{\"id\" 1}", R::NotJson),
    (b"{\"id\":}", R::NotJson),
    (b"{id:1}", R::NotJson),
    (b"{'id':1}", R::NotJson),
    (b"{1:1}", R::NotJson),
    (b"{\"id\":NaN}", R::NotJson),
    (b"{\"x\":NaN}", R::NotJson),
    (b"{\"x\":Infinity}", R::NotJson),
    (b"{\"x\":-}", R::NotJson),
    (b"{\"id\":01}", R::NotJson),
    (b"{\"id\":+1}", R::NotJson),
    (b"{\"id\":1.}", R::NotJson),
    (b"{\"id\":.5}", R::NotJson),
    (b"{\"id\":1e}", R::NotJson),
    (b"{\"id\":0x1}", R::NotJson),
    (b"{\"id\":True}", R::NotJson),
    (b"{\"id\":nul}", R::NotJson),
    (b"{\"id\":1}//", R::NotJson),
    (b"{\"x\":\"a\nb\"}", R::NotJson),
    (b"{\"device\":\"a\tb\",\"id\":1}", R::NotJson),
    (b"{\"device\":\"\\x\"}", R::NotJson),
    (b"{\"device\":\"\\u12\"}", R::NotJson),
    (b"{\"device\":\"open", R::NotJson),
    (b"{\"device\":\"\\", R::NotJson),
    (b"{\"after\":{\"id\":1},\"op\":\"c\"", R::NotJson),
    (b"{\"op\":\"c\",\"after\":{\"id\":1", R::NotJson),
    (b"{\"op\":\"c\",\"after\":\"\\ud800\"}", R::NotJson),
    (b"{\"op\":\"c\",\"after\":1e999}", R::NotJson),
    (b"{\"schema\":{,\"payload\":{}}", R::NotJson),
    (b"[1,2", R::NotJson),
    (b"]", R::NotJson),
    // JSON, no record.
    (b"null", R::UnknownShape),
    (b"  {}  ", R::UnknownShape),
    (b"[{\"id\":1}]", R::UnknownShape),
    (b"{\"ID\":1,\"OP\":\"c\"}", R::UnknownShape),
    (b"{\"id \":1}", R::UnknownShape),
    (b"{\"\":{\"id\":1}}", R::UnknownShape),
    (b"{\"payload\":null}", R::UnknownShape),
    (b"{\"schema\":{},\"payload\":[{\"id\":1}]}", R::UnknownShape),
    // A record with a fault of its own.
    (b"{\"id\":1,\"id\":1}", R::DuplicateKey),
    (b"{\"id\":1,\"\\u0069\\u0064\":1}", R::DuplicateKey),
    (b"{\"op\":\"c\",\"op\":\"d\"}", R::DuplicateKey),
    (b"{\"op\":\"c\"}", R::FieldMissing),
    (b"{\"op\":\"\\u0063\"}", R::FieldMissing),
    (b"{\"op\":\"\\ud800\"}", R::OpUnsupported),
    (b"{\"op\":[[[[\"c\"]]]]}", R::OpUnsupported),
    (b"{\"id\":{\"id\":1}}", R::FieldType),
    (b"{\"id\":1e400}", R::FieldType),
    (b"{\"id\":1e-400}", R::FieldType),
    (b"{\"id\":1}", R::FieldMissing),
    (b"{\"id\":340282366920938463463374607431768211456}", R::IdRange),
    (b"{\"id\":1,\"event_type\":\"\\ud800\"}", R::NotJson),
    (b"{\"id\":1,\"event_type\":\"\\udc00\\ud800\"}", R::NotJson),
    (b"{\"id\":1,\"event_type\":\"play\\u0000\"}", R::UnknownEventType),
    (b"{\"id\":1,\"content_id\":\"25f6ae98-4cbb-41cc-8fc9-8111e899a36\xd9\xa3\"}", R::BadUuid),
    (b"{\"id\":1,\"content_id\":\"25f6ae98-4cbb-41cc-8fc9-8111e899a\xd9\xa3\"}", R::BadUuid),
    (b"{\"id\":1,\"event_type\":\"play\",\"event_ts\":\"\xd9\xa2\xd9\xa0\xd9\xa2\xd9\xa5-01-01T00:00:00Z\"}", R::BadTime),
    (b"{\"id\":1,\"event_type\":\"play\",\"event_ts\":\"2025-01-01T00:00:00Z\\n\"}", R::BadTime),
    (b"{\"id\":1,\"event_type\":\"play\",\"event_ts\":\"2025-01-01T00:00:00Z\",\"duration_ms\":-0.0}", R::FieldType),
    (b"{\"id\":1,\"event_type\":\"play\",\"event_ts\":\"2025-01-01T00:00:00Z\",\"device\":\"\\ud83d\"}", R::NotJson),
];

#[test]
fn hostile_bytes_become_the_dead_letter_that_the_corpus_names() {
    for (bytes, expected) in CORPUS {
        match decode_event(Some(bytes), &EventRules::default()) {
            Err(dead) => assert_eq!(
                dead.reason,
                *expected,
                "{}: {dead}",
                String::from_utf8_lossy(bytes)
            ),
            Ok(record) => panic!("{}: {record:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

#[test]
fn a_detail_is_short_whatever_was_sent() {
    let long = "ض".repeat(100_000);
    for (column, json) in [
        ("id", "9".repeat(100_000)),
        ("content_id", format!("\"{long}\"")),
        ("event_type", format!("\"{long}\"")),
        ("event_ts", format!("\"{}\"", "\\u0001".repeat(10_000))),
        ("duration_ms", format!("-{}", "9".repeat(100_000))),
        ("device", format!("[\"{long}\"]")),
    ] {
        // Looks at the detail's length.
        event_dead(&envelope(&with(EVENT_ROW, column, &json), "c"));
    }
    event_dead(&envelope(EVENT_ROW, &long));
}
