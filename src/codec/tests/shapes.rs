//! Rules about structure: shapes, unknown and repeated keys, limits.

use super::*;
use crate::codec::{DEPTH_LIMIT, RECORD_LIMIT};
use crate::domain::Reason;
use std::fmt::Write;

#[test]
fn source_and_schema_may_be_absent() {
    event(&format!(r#"{{"after":{{{EVENT_ROW}}},"op":"c"}}"#));
    event(&format!(
        r#"{{"payload":{{"after":{{{EVENT_ROW}}},"op":"c"}}}}"#
    ));
    event(&format!(r#"{{"payload":{{{EVENT_ROW}}}}}"#));
}

#[test]
fn other_documents_have_an_unknown_shape() {
    for record in [
        "null",
        "1",
        "-1",
        "1.5",
        "true",
        r#""text""#,
        "[]",
        r#"[{"id":1}]"#,
        "{}",
        r#"{"a":1}"#,
        r#"{"source":{},"ts_ms":1}"#,
        r#"{"schema":null,"payload":null}"#,
        r#"{"schema":{},"payload":[]}"#,
        r#"{"schema":{},"payload":"x"}"#,
        r#"{"schema":{},"payload":{}}"#,
        r#"{"schema":{},"payload":{"payload":{"id":1}}}"#,
        r#"{"schema":{}}"#,
    ] {
        assert_eq!(event_dead(record), Reason::UnknownShape, "{record}");
    }
}

#[test]
fn a_row_field_beside_after_is_an_unknown_extra_field() {
    let record = format!(
        r#"{{"id":"poison","id":"twice","__deleted":"true","__op":7,"after":{{{EVENT_ROW}}},"op":"c"}}"#
    );
    assert_eq!(event(&record).id.0, 42);
}

#[test]
fn a_column_called_schema_or_payload_wraps_nothing() {
    event(&format!(r#"{{"schema":"public",{EVENT_ROW}}}"#));
    event(&format!(r#"{{"payload":{{"id":"poison"}},{EVENT_ROW}}}"#));
    event(&format!(r#"{{"schema":"s","payload":"p",{EVENT_ROW}}}"#));
    event(&format!(
        r#"{{"payload":{{"op":"d"}},"after":{{{EVENT_ROW}}},"op":"c"}}"#
    ));
}

#[test]
fn fields_beside_schema_and_payload_are_unknown_extra_fields() {
    event(&format!(
        r#"{{"schema":{{}},"payload":{{{EVENT_ROW}}},"id":"poison","op":"d"}}"#
    ));
}

#[test]
fn unknown_extra_fields_are_skipped() {
    let extra = r#""x":{"id":1,"id":[[{}]]},"y":1e999,"z":"\ud800","#;
    assert_eq!(event(&format!("{{{extra}{EVENT_ROW}}}")).id.0, 42);
    let record = format!(r#"{{{extra}"after":{{{extra}{EVENT_ROW}}},"op":"c"}}"#);
    assert_eq!(event(&record).id.0, 42);
}

#[test]
fn a_key_that_is_read_must_not_stand_twice() {
    for column in [
        r#""id":42"#,
        r#""content_id":null"#,
        r#""user_id":null"#,
        r#""event_type":"play""#,
        r#""event_ts":"x""#,
        r#""duration_ms":1"#,
        r#""device":null"#,
        // The same name, written as an escape.
        r#""\u0069d":42"#,
    ] {
        let row = format!("{EVENT_ROW},{column}");
        for record in [envelope(&row, "c"), flattened(&row, "c")] {
            assert_eq!(event_dead(&record), Reason::DuplicateKey, "{column}");
            assert_eq!(event_dead(&wrapped(&record)), Reason::DuplicateKey);
        }
    }
    for extra in [r#""__op":"c""#, r#""__deleted":"false""#] {
        let row = format!("{extra},{EVENT_ROW}");
        assert_eq!(event_dead(&flattened(&row, "c")), Reason::DuplicateKey);
    }
    for record in [
        format!(r#"{{"op":"c","after":{{{EVENT_ROW}}},"op":"c"}}"#),
        format!(r#"{{"op":"c","after":null,"after":{{{EVENT_ROW}}}}}"#),
        format!(r#"{{"op":"c","after":{{{EVENT_ROW}}},"after":null}}"#),
        format!(r#"{{"schema":1,"payload":{{}},"payload":{{{EVENT_ROW}}}}}"#),
        format!(r#"{{"schema":1,"payload":{{{EVENT_ROW}}},"payload":null}}"#),
    ] {
        assert_eq!(event_dead(&record), Reason::DuplicateKey, "{record}");
    }
}

#[test]
fn a_key_that_is_not_read_may_stand_twice() {
    event(&format!(
        r#"{{"raw_payload":1,"raw_payload":2,{EVENT_ROW}}}"#
    ));
    event(&format!(
        r#"{{"source":1,"source":2,"before":1,"before":2,"x":1,"x":1,"after":{{{EVENT_ROW}}},"op":"c"}}"#
    ));
    event(&format!(
        r#"{{"schema":1,"schema":2,"payload":{{{EVENT_ROW}}}}}"#
    ));
}

#[test]
fn a_repeated_key_is_found_before_operation_and_fields() {
    let row = format!(r#"{EVENT_ROW},"id":"x""#);
    assert_eq!(event_dead(&envelope(&row, "t")), Reason::DuplicateKey);
}

/// An event whose unknown column nests so that the whole record has that depth.
fn nested(depth: usize) -> String {
    let inner = depth - 1;
    let (open, close) = ("[".repeat(inner), "]".repeat(inner));
    format!(r#"{{"x":{open}{close},{EVENT_ROW}}}"#)
}

#[test]
fn depth_128_is_legal_and_129_is_too_deep() {
    assert_eq!(event(&nested(DEPTH_LIMIT)).id.0, 42);
    assert_eq!(event_dead(&nested(DEPTH_LIMIT + 1)), Reason::TooDeep);
    assert_eq!(event_dead(&nested(1_000_000)), Reason::TooDeep);
    let open = "{\"a\":".repeat(2_000_000 / 5);
    assert_eq!(event_dead(&open), Reason::TooDeep);
}

#[test]
fn a_field_that_is_read_may_nest_as_deep_as_any() {
    let deep = format!("{}{}", "[".repeat(126), "]".repeat(126));
    let row = with(EVENT_ROW, "device", &deep);
    assert_eq!(event_dead(&envelope(&row, "c")), Reason::FieldType);
    assert_eq!(event_dead(&deep), Reason::UnknownShape);
    let after = format!(r#"{{"op":"c","after":{deep}}}"#);
    assert_eq!(event_dead(&after), Reason::FieldType);
}

#[test]
fn brackets_in_strings_are_not_depth() {
    let text = format!("\"\\\"\\\\{}\"", "[{".repeat(500));
    assert!(
        event(&envelope(&with(EVENT_ROW, "device", &text), "c"))
            .device
            .is_some()
    );
    let payload = with(EVENT_ROW, "raw_payload", &text);
    event(&envelope(&payload, "c"));
}

#[test]
fn a_value_of_4_mib_is_legal_and_one_byte_more_is_too_large() {
    let record = flattened(EVENT_ROW, "c");
    let padded = |size: usize| format!("{record}{}", " ".repeat(size - record.len()));
    event(&padded(RECORD_LIMIT));
    assert_eq!(event_dead(&padded(RECORD_LIMIT + 1)), Reason::TooLarge);
}

#[test]
fn a_large_device_a_large_payload_and_many_unknown_keys_are_legal() {
    let device = "د".repeat(90_000);
    let row = with(EVENT_ROW, "device", &format!("\"{device}\""));
    assert_eq!(
        event(&envelope(&row, "c")).device.as_deref(),
        Some(&*device)
    );
    let row = with(
        EVENT_ROW,
        "raw_payload",
        &format!("\"{}\"", "\\\"x".repeat(333_334)),
    );
    event(&envelope(&row, "c"));
    let mut row = EVENT_ROW.to_owned();
    for key in 0..50_000 {
        write!(row, r#","k{key}":{{"a":[{key}]}}"#).expect("a string takes all");
    }
    assert_eq!(event(&envelope(&row, "c")).id.0, 42);
}

#[test]
fn the_checks_come_in_their_order() {
    let mut bytes = b"\xff".repeat(RECORD_LIMIT + 1);
    let reason = |bytes: &[u8]| {
        let dead = decode_event(Some(bytes), &EventRules::default());
        dead.expect_err("a dead letter").reason
    };
    assert_eq!(reason(&bytes), Reason::TooLarge);
    bytes.truncate(RECORD_LIMIT);
    assert_eq!(reason(&bytes), Reason::NotUtf8);
    let mut bytes = "[".repeat(200).into_bytes();
    assert_eq!(reason(&bytes), Reason::TooDeep);
    bytes.push(0xff);
    assert_eq!(reason(&bytes), Reason::NotUtf8);
    assert_eq!(reason(b"[["), Reason::NotJson);
    assert_eq!(reason(br#"{"id":1,"id":1"#), Reason::NotJson);
    assert_eq!(reason(br#"{"x":1,"x":1}"#), Reason::UnknownShape);
}
