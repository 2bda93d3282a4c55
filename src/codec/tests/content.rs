//! Rules about content: upserts, deletes, and columns that a record does not carry.

use super::*;
use crate::codec::{Column, ContentPatch, Resolution};
use crate::domain::{ContentRow, ContentType, Reason, Timestamp};

const KEPT: &str = r#""__debezium_unavailable_value""#;

fn patch(value: &str) -> ContentPatch {
    match change(value) {
        Ok(ContentChange::Upsert(patch)) => patch,
        other => panic!("no upsert: {other:?}\n{value}"),
    }
}

fn row_patch(column: &str, json: &str) -> ContentPatch {
    patch(&envelope(&with(CONTENT_ROW, column, json), "u"))
}

fn row_dead(column: &str, json: &str) -> Reason {
    let row = with(CONTENT_ROW, column, json);
    let reason = content_dead(&envelope(&row, "c"));
    assert_eq!(reason, content_dead(&flattened(&row, "u")), "{row}");
    assert_eq!(
        reason,
        content_dead(&wrapped(&envelope(&row, "r"))),
        "{row}"
    );
    reason
}

fn delete_of(key: Option<&str>, value: Option<&str>) -> Result<ContentChange, Reason> {
    decode_content(
        key.map(str::as_bytes),
        value.map(str::as_bytes),
        TimeMode::Iso,
    )
    .map_err(|dead| dead.reason)
}

fn prior() -> ContentRow {
    ContentRow {
        id: content_id(),
        slug: Some("prior".into()),
        title: None,
        content_type: Some(ContentType::Video),
        length_seconds: Some(7),
        publish_ts: Some(Timestamp::MIN),
    }
}

#[test]
fn create_read_update_and_a_flattened_row_without_operation_upsert() {
    let expected = ContentPatch {
        id: content_id(),
        slug: Column::Value(Some("a".into())),
        title: Column::Value(Some("A".into())),
        content_type: Column::Value(Some(ContentType::Podcast)),
        length_seconds: Column::Value(Some(1200)),
        publish_ts: Column::Value(Timestamp::parse("2024-01-01T00:00:00Z").ok()),
        infinite_publish_ts: false,
    };
    for op in ["c", "r", "u"] {
        for record in [envelope(CONTENT_ROW, op), flattened(CONTENT_ROW, op)] {
            assert_eq!(patch(&record), expected);
            assert_eq!(patch(&wrapped(&record)), expected);
        }
    }
    assert_eq!(patch(&format!("{{{CONTENT_ROW}}}")), expected);
}

#[test]
fn other_operations_on_content_are_unsupported() {
    for op in ["t", "", "x"] {
        assert_eq!(
            content_dead(&envelope(CONTENT_ROW, op)),
            Reason::OpUnsupported
        );
        assert_eq!(
            content_dead(&flattened(CONTENT_ROW, op)),
            Reason::OpUnsupported
        );
    }
    let null = format!(r#"{{{CONTENT_ROW},"__op":null}}"#);
    assert_eq!(content_dead(&null), Reason::OpUnsupported);
    let missing = format!(r#"{{"after":{{{CONTENT_ROW}}}}}"#);
    assert_eq!(content_dead(&missing), Reason::OpUnsupported);
}

#[test]
fn a_delete_takes_its_id_from_the_flattened_row_or_the_key() {
    let deleted = Ok(ContentChange::Delete(content_id()));
    let key = format!(r#"{{"id":"{CONTENT}"}}"#);
    let key_with_schema = wrapped(&key);
    for key in [&key, &key_with_schema] {
        assert_eq!(delete_of(Some(key), None), deleted);
        for value in [
            r#"{"op":"d","after":null,"before":{"id":"00000000-0000-0000-0000-000000000000"}}"#,
            r#"{"op":"d"}"#,
            r#"{"__deleted":"true"}"#,
            r#"{"__op":"d","id":null}"#,
        ] {
            assert_eq!(delete_of(Some(key), Some(value)), deleted, "{value}");
            assert_eq!(delete_of(Some(key), Some(&wrapped(value))), deleted);
        }
    }
    for value in [
        format!(r#"{{"id":"{CONTENT}","__deleted":"true"}}"#),
        format!(r#"{{"id":"{CONTENT}","__op":"d"}}"#),
        format!(r#"{{"id":"{CONTENT}","__deleted":"true","__op":"c","title":7}}"#),
        format!(r#"{{"id":"{CONTENT}","__deleted":"true","__op":"t"}}"#),
    ] {
        assert_eq!(delete_of(None, Some(&value)), deleted, "{value}");
        assert_eq!(delete_of(Some("broken"), Some(&value)), deleted, "{value}");
    }
}

#[test]
fn a_delete_never_takes_its_id_from_before() {
    let value = format!(r#"{{"op":"d","after":null,"before":{{"id":"{CONTENT}"}}}}"#);
    assert_eq!(delete_of(None, Some(&value)), Err(Reason::FieldMissing));
}

#[test]
fn a_delete_without_an_id_or_with_a_bad_one_is_a_dead_letter() {
    for (key, reason) in [
        (None, Reason::FieldMissing),
        (Some("{}"), Reason::FieldMissing),
        (Some(r#"{"id":null}"#), Reason::FieldMissing),
        (Some(r#"{"ID":1}"#), Reason::FieldMissing),
        (Some(r#"{"id":1}"#), Reason::FieldType),
        (Some(r#"{"id":"x"}"#), Reason::BadUuid),
        (Some(r#"{"id":"x","id":"y"}"#), Reason::DuplicateKey),
        (Some(""), Reason::Empty),
        (Some(CONTENT), Reason::NotJson),
        (Some("7"), Reason::UnknownShape),
    ] {
        assert_eq!(delete_of(key, None), Err(reason), "{key:?}");
    }
    let value = r#"{"id":"x","__deleted":"true"}"#;
    assert_eq!(delete_of(None, Some(value)), Err(Reason::BadUuid));
}

#[test]
fn an_upsert_does_not_look_at_the_key() {
    let value = envelope(CONTENT_ROW, "c");
    for key in [None, Some(""), Some("\u{0}"), Some(r#"{"id":7}"#)] {
        assert!(matches!(
            delete_of(key, Some(&value)),
            Ok(ContentChange::Upsert(_))
        ));
    }
}

#[test]
fn every_column_but_the_id_may_be_null_or_absent() {
    let patch = patch(&format!(r#"{{"id":"{CONTENT}"}}"#));
    let (row, resolution) = patch.resolve(Some(&prior()));
    let empty = ContentRow {
        id: content_id(),
        slug: None,
        title: None,
        content_type: None,
        length_seconds: None,
        publish_ts: None,
    };
    assert_eq!((row, resolution), (empty, Resolution::default()));
    for column in [
        "slug",
        "title",
        "content_type",
        "length_seconds",
        "publish_ts",
    ] {
        row_patch(column, "null");
    }
    assert_eq!(row_dead("id", "null"), Reason::FieldMissing);
    assert_eq!(
        content_dead(&envelope(r#""title":"x""#, "c")),
        Reason::FieldMissing
    );
}

#[test]
fn bad_content_columns_are_dead_letters() {
    for (column, json, reason) in [
        ("id", "7", Reason::FieldType),
        ("id", r#""x""#, Reason::BadUuid),
        ("id", KEPT, Reason::BadUuid),
        ("slug", "7", Reason::FieldType),
        ("title", "{}", Reason::FieldType),
        ("content_type", r#""Podcast""#, Reason::UnknownContentType),
        ("content_type", r#""""#, Reason::UnknownContentType),
        ("content_type", "1", Reason::FieldType),
        ("length_seconds", "-1", Reason::Negative),
        ("length_seconds", "2147483648", Reason::FieldType),
        ("length_seconds", "1.0", Reason::FieldType),
        ("length_seconds", r#""1200""#, Reason::FieldType),
        ("length_seconds", KEPT, Reason::FieldType),
        ("publish_ts", r#""2024-13-01T00:00:00Z""#, Reason::BadTime),
        (
            "publish_ts",
            r#""0044-03-15T00:00:00Z BC""#,
            Reason::BadTime,
        ),
        ("publish_ts", r#""Infinity""#, Reason::BadTime),
        ("publish_ts", "1", Reason::FieldType),
    ] {
        assert_eq!(row_dead(column, json), reason, "{column} {json}");
    }
}

#[test]
fn a_repeated_content_column_is_a_dead_letter_and_an_unknown_one_is_not() {
    let twice = format!(r#"{CONTENT_ROW},"title":null"#);
    assert_eq!(content_dead(&envelope(&twice, "c")), Reason::DuplicateKey);
    assert_eq!(content_dead(&flattened(&twice, "c")), Reason::DuplicateKey);
    patch(&envelope(&format!(r#"{CONTENT_ROW},"x":1,"x":2"#), "c"));
}

#[test]
fn an_infinite_publish_time_is_null_and_told() {
    for time in [r#""infinity""#, r#""-infinity""#] {
        let patch = row_patch("publish_ts", time);
        assert_eq!(patch.publish_ts, Column::Value(None));
        assert!(patch.infinite_publish_ts);
    }
    assert!(!row_patch("publish_ts", "null").infinite_publish_ts);
}

#[test]
fn a_publish_time_follows_the_declared_mode() {
    let row = with(CONTENT_ROW, "publish_ts", "1704067200000");
    let value = envelope(&row, "c");
    let read = |mode| decode_content(None, Some(value.as_bytes()), mode);
    assert!(read(TimeMode::Iso).is_err());
    match read(TimeMode::EpochMillis) {
        Ok(ContentChange::Upsert(patch)) => assert_eq!(
            patch.publish_ts,
            Column::Value(Timestamp::parse("2024-01-01T00:00:00Z").ok())
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unavailable_column_keeps_its_prior_value() {
    for column in ["slug", "title", "content_type", "publish_ts"] {
        let patch = row_patch(column, KEPT);
        assert!(patch.needs_prior());
        let (row, resolution) = patch.resolve(Some(&prior()));
        assert_eq!(resolution, Resolution { kept: 1, lost: 0 });
        match column {
            "slug" => assert_eq!(row.slug, prior().slug),
            "title" => assert_eq!(row.title, prior().title),
            "content_type" => assert_eq!(row.content_type, prior().content_type),
            _ => assert_eq!(row.publish_ts, prior().publish_ts),
        }
        assert_eq!(row.length_seconds, Some(1200));
    }
    assert!(!row_patch("title", "null").needs_prior());
}

#[test]
fn an_unavailable_column_without_a_prior_row_is_null_and_counted() {
    let row = with(&with(CONTENT_ROW, "slug", KEPT), "title", KEPT);
    let (row, resolution) = patch(&envelope(&row, "u")).resolve(None);
    assert_eq!((row.slug, row.title), (None, None));
    assert_eq!(row.content_type, Some(ContentType::Podcast));
    assert_eq!(resolution, Resolution { kept: 0, lost: 2 });
}
