//! The enriched JSON, byte for byte.

use super::*;
use crate::codec::{write_enriched, write_row};
use crate::domain::{
    ContentType, ContentVersion, Enriched, JoinContent, JoinStatus, Offset, Partition,
};

fn written(event: &Event<'_>, content: Option<(Option<ContentType>, Option<i32>)>) -> String {
    let content = content.map(|(content_type, length_seconds)| JoinContent {
        content_type,
        length_seconds,
        version: ContentVersion {
            partition: Partition(0),
            offset: Offset(0),
        },
    });
    let mut out = b"before".to_vec();
    write_enriched(
        &Enriched::join(event, content, JoinStatus::Joined),
        &mut out,
    );
    let text = String::from_utf8(out).expect("UTF-8");
    text.strip_prefix("before").expect("appended").to_owned()
}

fn with_device(json: &str) -> String {
    let record = envelope(&with(EVENT_ROW, "device", json), "c");
    let text = written(&event(&record), None);
    let start = text.find("\"device\":").expect("a device") + 9;
    let end = text.find(",\"content_type\"").expect("a content type");
    text[start..end].to_owned()
}

#[test]
fn the_contracts_example_is_written_byte_for_byte() {
    let record = envelope(EVENT_ROW, "c");
    assert_eq!(
        written(
            &event(&record),
            Some((Some(ContentType::Podcast), Some(1200)))
        ),
        concat!(
            r#"{"event_id":"42","content_id":"25f6ae98-4cbb-41cc-8fc9-8111e899a363","#,
            r#""user_id":"3090bda9-2832-4541-a33e-e92cc80a7c92","event_type":"play","#,
            r#""event_ts":"2025-01-01T12:30:00Z","duration_ms":12340,"device":"ios","#,
            r#""content_type":"podcast","length_seconds":1200,"#,
            r#""engagement_seconds":12.34,"engagement_pct":0.01}"#
        )
    );
}

#[test]
fn every_absent_value_is_an_explicit_null() {
    let record =
        r#"{"id":-9223372036854775808,"event_type":"finish","event_ts":"0001-01-01T00:00:00Z"}"#;
    let nulls = concat!(
        r#"{"event_id":"-9223372036854775808","content_id":null,"user_id":null,"event_type":"finish","#,
        r#""event_ts":"0001-01-01T00:00:00Z","duration_ms":null,"device":null,"content_type":null,"#,
        r#""length_seconds":null,"engagement_seconds":null,"engagement_pct":null}"#
    );
    assert_eq!(written(&event(record), None), nulls);
    assert_eq!(written(&event(record), Some((None, None))), nulls);
}

#[test]
fn numbers_are_the_shortest_decimal() {
    for (duration, length, seconds, pct) in [
        (0, 1, "0", "0"),
        (1, 1, "0.001", "0"),
        (5, 1, "0.005", "0.01"),
        (100, 1, "0.1", "0.1"),
        (1000, 1, "1", "1"),
        (1010, 1, "1.01", "1.01"),
        (12_340, 1, "12.34", "12.34"),
        (10_000, 1, "10", "10"),
        (600_000, 1200, "600", "0.5"),
        (i32::MAX, 1, "2147483.647", "2147483.65"),
        (i32::MAX, i32::MAX, "2147483.647", "0"),
        (1, 0, "0.001", "null"),
    ] {
        let record = envelope(&with(EVENT_ROW, "duration_ms", &duration.to_string()), "c");
        let text = written(&event(&record), Some((None, Some(length))));
        let end = format!(
            r#""length_seconds":{length},"engagement_seconds":{seconds},"engagement_pct":{pct}}}"#
        );
        assert!(text.ends_with(&end), "{text} should end with {end}");
    }
}

#[test]
fn times_are_utc_with_a_fraction_only_where_there_is_one() {
    for (given, expected) in [
        ("2025-01-01T12:30:00.000000Z", "2025-01-01T12:30:00Z"),
        ("2025-01-01T12:30:00.120000Z", "2025-01-01T12:30:00.12Z"),
        (
            "2025-06-01T03:00:00.1234569+03:00",
            "2025-06-01T00:00:00.123456Z",
        ),
        ("2025-01-01T00:00:00-00:01", "2025-01-01T00:01:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        let record = envelope(&with(EVENT_ROW, "event_ts", &format!("\"{given}\"")), "c");
        let text = written(&event(&record), None);
        assert!(
            text.contains(&format!(r#""event_ts":"{expected}","#)),
            "{text}"
        );
    }
}

#[test]
fn text_is_raw_but_for_the_escapes_that_json_requires() {
    for (given, expected) in [
        (r#""بودكاست فنجان \"٣\"""#, r#""بودكاست فنجان \"٣\"""#),
        (
            r#""\u0628\ud83d\ude00\u007f\u2028\/""#,
            "\"ب😀\u{7f}\u{2028}/\"",
        ),
        (
            r#""\u0000\u0001\b\t\n\u000b\f\r\u001f\\""#,
            r#""\u0000\u0001\b\t\n\u000b\f\r\u001f\\""#,
        ),
        (r#""""#, r#""""#),
        (r#""\"""#, r#""\"""#),
        (r#""</script>""#, r#""</script>""#),
    ] {
        assert_eq!(with_device(given), expected);
    }
}

#[test]
fn every_character_below_the_surrogates_survives() {
    let device: String = (0..0xd800).filter_map(char::from_u32).collect();
    let json = serde_json::to_string(&device).expect("JSON");
    assert_eq!(with_device(&json), json);
}

#[test]
fn an_event_written_as_a_row_reads_back_as_itself() {
    for device in [r#""ب \"x\"""#, "null"] {
        let record = envelope(&with(EVENT_ROW, "device", device), "c");
        let first = event(&record);
        for time in [TimeMode::Iso, TimeMode::EpochMillis, TimeMode::EpochMicros] {
            let mut row = Vec::new();
            write_row(&first, time, &mut row);
            let rules = EventRules {
                time,
                ..EventRules::default()
            };
            let again = decode_event(Some(&row), &rules);
            assert_eq!(again, Ok(EventRecord::Event(first.clone())));
        }
    }
}
