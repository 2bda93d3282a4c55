//! Rules about events: operations and fields.

use super::*;
use crate::codec::{IgnoredWhy, OperationRule};
use crate::domain::{EventType, Reason, Timestamp, UserId};

fn row_dead(column: &str, json: &str) -> Reason {
    let row = with(EVENT_ROW, column, json);
    let reason = event_dead(&envelope(&row, "c"));
    assert_eq!(reason, event_dead(&flattened(&row, "c")), "{row}");
    assert_eq!(reason, event_dead(&wrapped(&envelope(&row, "r"))), "{row}");
    reason
}

fn row_event(column: &str, json: &str) -> Event<'static> {
    event(&envelope(&with(EVENT_ROW, column, json), "c")).into_owned()
}

#[test]
fn create_and_read_are_processed_in_every_shape() {
    let expected = Event {
        id: crate::domain::EventId(42),
        content_id: Some(content_id()),
        user_id: UserId::parse(USER),
        event_type: EventType::Play,
        event_ts: Timestamp::parse("2025-01-01T12:30:00Z").expect("a time"),
        duration_ms: Some(12_340),
        device: Some("ios".into()),
    };
    for op in ["c", "r"] {
        for record in [envelope(EVENT_ROW, op), flattened(EVENT_ROW, op)] {
            assert_eq!(event(&record), expected);
            assert_eq!(event(&wrapped(&record)), expected);
        }
    }
    assert_eq!(event(&format!("{{{EVENT_ROW}}}")), expected);
}

#[test]
fn updates_and_deletes_are_dead_letters_by_default() {
    for (op, reason) in [("u", Reason::OpUpdate), ("d", Reason::OpDelete)] {
        assert_eq!(event_dead(&envelope(EVENT_ROW, op)), reason);
        assert_eq!(event_dead(&flattened(EVENT_ROW, op)), reason);
    }
}

#[test]
fn updates_and_deletes_are_ignored_where_configured_each_by_its_own_rule() {
    let ignored = Ok(EventRecord::Ignored(IgnoredWhy::Operation));
    let updates = EventRules {
        updates: OperationRule::Ignore,
        ..EventRules::default()
    };
    let deletes = EventRules {
        deletes: OperationRule::Ignore,
        ..EventRules::default()
    };
    let (update, delete) = (envelope(EVENT_ROW, "u"), flattened(EVENT_ROW, "d"));
    assert_eq!(decode_event(Some(update.as_bytes()), &updates), ignored);
    assert_eq!(decode_event(Some(delete.as_bytes()), &deletes), ignored);
    assert!(decode_event(Some(update.as_bytes()), &deletes).is_err());
    assert!(decode_event(Some(delete.as_bytes()), &updates).is_err());
}

#[test]
fn a_truncate_and_a_missing_null_unknown_or_mistyped_operation_are_unsupported() {
    for op in ["t", "m", "", "C", "cc"] {
        assert_eq!(event_dead(&envelope(EVENT_ROW, op)), Reason::OpUnsupported);
        assert_eq!(event_dead(&flattened(EVENT_ROW, op)), Reason::OpUnsupported);
    }
    for op in ["null", "1", "true", "[]", "{}", "1.5"] {
        let envelope = format!(r#"{{"after":{{{EVENT_ROW}}},"op":{op}}}"#);
        assert_eq!(event_dead(&envelope), Reason::OpUnsupported, "{op}");
        let flattened = format!(r#"{{{EVENT_ROW},"__op":{op}}}"#);
        assert_eq!(event_dead(&flattened), Reason::OpUnsupported, "{op}");
    }
    let missing = format!(r#"{{"after":{{{EVENT_ROW}}}}}"#);
    assert_eq!(event_dead(&missing), Reason::OpUnsupported);
    assert_eq!(event_dead(r#"{"before":null}"#), Reason::OpUnsupported);
}

#[test]
fn a_null_value_is_ignored_and_an_empty_one_is_a_dead_letter() {
    let rules = EventRules::default();
    assert_eq!(
        decode_event(None, &rules),
        Ok(EventRecord::Ignored(IgnoredWhy::Tombstone))
    );
    assert_eq!(event_dead(""), Reason::Empty);
}

#[test]
fn deleted_true_is_a_delete_before_operation_and_columns_are_looked_at() {
    for record in [
        r#"{"__deleted":"true"}"#,
        r#"{"__deleted":"true","__op":"c","id":"nonsense"}"#,
        r#"{"id":1,"event_type":null,"__op":null,"__deleted":"true"}"#,
    ] {
        assert_eq!(event_dead(record), Reason::OpDelete, "{record}");
    }
    for deleted in [r#""false""#, "null", r#""TRUE""#] {
        event(&format!(r#"{{{EVENT_ROW},"__deleted":{deleted}}}"#));
    }
    for deleted in ["true", "false", "1", "{}"] {
        let record = format!(r#"{{{EVENT_ROW},"__deleted":{deleted}}}"#);
        assert_eq!(event_dead(&record), Reason::FieldType, "{deleted}");
    }
}

#[test]
fn an_envelope_without_its_row_is_refused() {
    assert_eq!(event_dead(r#"{"op":"c"}"#), Reason::FieldMissing);
    assert_eq!(
        event_dead(r#"{"op":"r","after":null}"#),
        Reason::FieldMissing
    );
    for after in ["1", "1.5", "-1", "true", r#""x""#, "[{}]"] {
        let record = format!(r#"{{"op":"c","after":{after}}}"#);
        assert_eq!(event_dead(&record), Reason::FieldType, "{after}");
    }
    assert_eq!(event_dead(r#"{"op":"d","after":null}"#), Reason::OpDelete);
    assert_eq!(event_dead(r#"{"op":"u","after":7}"#), Reason::OpUpdate);
}

#[test]
fn before_is_never_read_for_values() {
    let before = with(EVENT_ROW, "id", r#""poison""#);
    let record = format!(r#"{{"before":{{{before}}},"after":{{{EVENT_ROW}}},"op":"c"}}"#);
    assert_eq!(event(&record).id.0, 42);
    let record = format!(r#"{{"before":{{{EVENT_ROW}}},"after":null,"op":"c"}}"#);
    assert_eq!(event_dead(&record), Reason::FieldMissing);
}

#[test]
fn id_event_type_and_event_ts_are_required() {
    for column in ["id", "event_type", "event_ts"] {
        assert_eq!(row_dead(column, "null"), Reason::FieldMissing);
        let absent = envelope(&without(EVENT_ROW, column), "c");
        assert_eq!(event_dead(&absent), Reason::FieldMissing);
    }
}

#[test]
fn the_other_columns_may_be_null_or_absent() {
    let row = r#""id":1,"event_type":"click","event_ts":"2025-01-01T00:00:00Z""#;
    let absent = event(&format!("{{{row}}}")).into_owned();
    assert_eq!((absent.content_id, absent.user_id), (None, None));
    assert_eq!((absent.duration_ms, &absent.device), (None, &None));
    let nulls = format!(
        r#"{{{row},"content_id":null,"user_id":null,"duration_ms":null,"device":null,"raw_payload":null}}"#
    );
    assert_eq!(event(&nulls), absent);
}

#[test]
fn an_id_is_any_signed_64_bit_integer_and_nothing_else() {
    for id in [i64::MIN, -1, 0, 1, 9_007_199_254_740_993, i64::MAX] {
        assert_eq!(row_event("id", &id.to_string()).id.0, id);
    }
    for id in [
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "100000000000000000000000000000000000000000000",
    ] {
        assert_eq!(row_dead("id", id), Reason::IdRange, "{id}");
    }
    for id in ["1.0", "1e3", "1E400", "-0.5", r#""1""#, "true", "{}", "[1]"] {
        assert_eq!(row_dead("id", id), Reason::FieldType, "{id}");
    }
}

#[test]
fn json_types_are_exact() {
    for (column, wrong) in [
        ("content_id", ["1", "true", "{}"]),
        ("user_id", ["1", "true", "[]"]),
        ("event_type", ["1", "false", "{}"]),
        ("event_ts", ["1735734600000", "true", "{}"]),
        ("duration_ms", [r#""12""#, "true", "{}"]),
        ("duration_ms", ["12.0", "1e3", "[12]"]),
        ("device", ["1", "true", "{}"]),
    ] {
        for json in wrong {
            assert_eq!(row_dead(column, json), Reason::FieldType, "{column} {json}");
        }
    }
}

#[test]
fn a_malformed_uuid_is_a_dead_letter() {
    for column in ["content_id", "user_id"] {
        for uuid in [
            r#""""#,
            r#""25f6ae984cbb41cc8fc98111e899a363""#,
            r#""25f6ae98-4cbb-41cc-8fc9-8111e899a36g""#,
            r#""25f6ae98-4cbb-41cc-8fc9-8111e899a363 ""#,
        ] {
            assert_eq!(row_dead(column, uuid), Reason::BadUuid, "{uuid}");
        }
    }
}

#[test]
fn an_event_type_is_one_of_four_in_lower_case() {
    for name in ["play", "pause", "finish", "click"] {
        let event = row_event("event_type", &format!("\"{name}\""));
        assert_eq!(event.event_type.name(), name);
    }
    for name in ["", "Play", "stop", "play "] {
        let json = format!("\"{name}\"");
        assert_eq!(row_dead("event_type", &json), Reason::UnknownEventType);
    }
}

#[test]
fn a_duration_is_an_int4_that_is_not_negative() {
    assert_eq!(row_event("duration_ms", "0").duration_ms, Some(0));
    assert_eq!(row_event("duration_ms", "-0").duration_ms, Some(0));
    assert_eq!(
        row_event("duration_ms", "2147483647").duration_ms,
        Some(i32::MAX)
    );
    for duration in ["-1", "-2147483649", "-99999999999999999999"] {
        assert_eq!(row_dead("duration_ms", duration), Reason::Negative);
    }
    for duration in ["2147483648", "99999999999999999999"] {
        assert_eq!(row_dead("duration_ms", duration), Reason::FieldType);
    }
}

#[test]
fn a_bad_infinite_or_bc_event_time_is_a_dead_letter() {
    for time in [
        "",
        "infinity",
        "-infinity",
        "0044-03-15T00:00:00Z BC",
        "-0044-03-15T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2025-01-01T00:00:00",
        "2025-01-01 00:00:00Z",
    ] {
        let json = format!("\"{time}\"");
        assert_eq!(row_dead("event_ts", &json), Reason::BadTime, "{time}");
    }
}

#[test]
fn epoch_times_are_read_only_in_the_declared_mode() {
    let read = |json: &str, time: TimeMode| {
        let record = envelope(&with(EVENT_ROW, "event_ts", json), "c");
        let rules = EventRules {
            time,
            ..EventRules::default()
        };
        match decode_event(Some(record.as_bytes()), &rules) {
            Ok(EventRecord::Event(event)) => Ok(event.event_ts.micros()),
            Ok(other) => panic!("{other:?}"),
            Err(dead) => Err(dead.reason),
        }
    };
    let (millis, micros) = (TimeMode::EpochMillis, TimeMode::EpochMicros);
    assert_eq!(read("1735734600123", millis), Ok(1_735_734_600_123_000));
    assert_eq!(read("1735734600123", micros), Ok(1_735_734_600_123));
    assert_eq!(read("-1", micros), Ok(-1));
    for mode in [millis, micros] {
        let text = r#""2025-01-01T12:30:00Z""#;
        assert_eq!(read(text, mode), Err(Reason::FieldType));
        assert_eq!(read("1.5", mode), Err(Reason::FieldType));
        assert_eq!(read("null", mode), Err(Reason::FieldMissing));
        for beyond in ["9223372036854775807", "-9223372036854775809"] {
            assert_eq!(read(beyond, mode), Err(Reason::BadTime));
        }
    }
    assert_eq!(read("1735734600123", TimeMode::Iso), Err(Reason::FieldType));
}

#[test]
fn fields_are_judged_in_the_order_of_the_columns() {
    let row = r#""device":1,"duration_ms":-1,"event_ts":"x","event_type":"x","user_id":"x","content_id":"x","id":1.5"#;
    let mut row = row.to_owned();
    for (column, good, reason) in [
        ("id", "1", Reason::FieldType),
        ("content_id", "null", Reason::BadUuid),
        ("user_id", "null", Reason::BadUuid),
        ("event_type", r#""play""#, Reason::UnknownEventType),
        ("event_ts", r#""2025-01-01T00:00:00Z""#, Reason::BadTime),
        ("duration_ms", "1", Reason::Negative),
        ("device", "null", Reason::FieldType),
    ] {
        assert_eq!(event_dead(&envelope(&row, "c")), reason, "{row}");
        row = with(&row, column, good);
    }
    event(&envelope(&row, "c"));
}

#[test]
fn text_without_escapes_is_borrowed_and_text_with_escapes_is_read() {
    use std::borrow::Cow;
    let plain = envelope(&with(EVENT_ROW, "device", "\"بودكاست فنجان\""), "c");
    assert!(matches!(
        event(&plain).device,
        Some(Cow::Borrowed("بودكاست فنجان"))
    ));
    let escaped = r#""\u0628\"\\\/\n\u0000\ud83d\ude00""#;
    assert_eq!(
        row_event("device", escaped).device.as_deref(),
        Some("ب\"\\/\n\0😀")
    );
    assert_eq!(
        row_event("event_type", r#""pl\u0061y""#).event_type,
        EventType::Play
    );
}
