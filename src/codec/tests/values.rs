//! The changelogs' values: golden bytes, and everything that is no value.

use crate::codec::{ValueError, decode_content_row, decode_parked, encode_content, encode_parked};
use crate::domain::{
    ContentId, ContentRow, ContentType, Event, EventId, EventType, Offset, ParkedEvent, Timestamp,
    UserId,
};

/// Written by version 1. A build that cannot read these bytes, or writes others, breaks what is in the topics.
const CONTENT_FULL: &str = concat!(
    "01",                               // version
    "000102030405060708090a0b0c0d0e0f", // id
    "010161",                           // slug
    "0106d8a8d8a8d8a8",                 // title
    "0101",                             // content type
    "01fb6009",                         // length
    "01fd00404220ae1b0c00",             // publish time
);
const CONTENT_EMPTY: &str = "01000102030405060708090a0b0c0d0e0f0000000000";
const PARKED_FULL: &str = concat!(
    "01",                                 // version
    "fdfeffffffffffffff",                 // id
    "01000102030405060708090a0b0c0d0e0f", // content id
    "010f0e0d0c0b0a09080706050403020100", // user id
    "02",                                 // event type
    "fdff7f57fefd7fb901",                 // event time
    "01fb6860",                           // duration
    "0103696f73",                         // device
    "0e",                                 // raw offset
    "01fd8263291944030000",               // raw timestamp
    "fde063291944030000",                 // parked at
    "010200ff",                           // backfill
);
const PARKED_EMPTY: &str = concat!(
    "01",                 // version
    "00",                 // id
    "0000",               // content id, user id
    "04",                 // event type
    "fdfebfe69819880807", // event time
    "0000",               // duration, device
    "0000",               // raw offset, raw timestamp
    "0000",               // parked at, backfill
);

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn ascending() -> [u8; 16] {
    std::array::from_fn(|i| i as u8)
}

fn descending() -> [u8; 16] {
    std::array::from_fn(|i| 15 - i as u8)
}

fn full_content() -> ContentRow {
    ContentRow {
        id: ContentId(ascending()),
        slug: Some("a".into()),
        title: Some("ببب".into()),
        content_type: Some(ContentType::Podcast),
        length_seconds: Some(1200),
        publish_ts: Timestamp::parse("2024-01-01T00:00:00Z").ok(),
    }
}

fn empty_content() -> ContentRow {
    ContentRow {
        id: ContentId(ascending()),
        slug: None,
        title: None,
        content_type: None,
        length_seconds: None,
        publish_ts: None,
    }
}

fn full_parked() -> ParkedEvent<'static> {
    ParkedEvent {
        event: Event {
            id: EventId(i64::MAX),
            content_id: Some(ContentId(ascending())),
            user_id: Some(UserId(descending())),
            event_type: EventType::Pause,
            event_ts: Timestamp::MIN,
            duration_ms: Some(12_340),
            device: Some("ios".into()),
        },
        raw_offset: Offset(7),
        raw_timestamp_ms: Some(1_795_507_401_153),
        parked_at_ms: 1_795_507_401_200,
        backfill: Some(b"\x00\xff".as_slice().into()),
    }
}

fn empty_parked() -> ParkedEvent<'static> {
    ParkedEvent {
        event: Event {
            id: EventId(0),
            content_id: None,
            user_id: None,
            event_type: EventType::Click,
            event_ts: Timestamp::MAX,
            duration_ms: None,
            device: None,
        },
        raw_offset: Offset(0),
        raw_timestamp_ms: None,
        parked_at_ms: 0,
        backfill: None,
    }
}

#[test]
fn content_rows_have_their_golden_bytes() {
    for (row, golden) in [
        (full_content(), CONTENT_FULL),
        (empty_content(), CONTENT_EMPTY),
    ] {
        let mut value = Vec::new();
        encode_content(&row, &mut value);
        assert_eq!(hex(&value), golden);
        assert_eq!(decode_content_row(&value), Ok(row));
    }
}

#[test]
fn parked_events_have_their_golden_bytes() {
    for (parked, golden) in [(full_parked(), PARKED_FULL), (empty_parked(), PARKED_EMPTY)] {
        let mut value = Vec::new();
        encode_parked(&parked, &mut value);
        assert_eq!(hex(&value), golden);
        assert_eq!(decode_parked(&value), Ok(parked));
    }
}

#[test]
fn a_value_of_another_version_or_of_no_bytes_is_refused() {
    assert_eq!(decode_content_row(b""), Err(ValueError::Empty));
    assert_eq!(decode_parked(b""), Err(ValueError::Empty));
    for version in [0, 2, 255] {
        let mut value = Vec::new();
        encode_content(&full_content(), &mut value);
        value[0] = version;
        assert_eq!(
            decode_content_row(&value),
            Err(ValueError::Version(version))
        );
        assert_eq!(decode_parked(&value), Err(ValueError::Version(version)));
    }
}

#[test]
fn a_value_that_is_cut_short_or_goes_on_is_refused() {
    let mut content = Vec::new();
    encode_content(&full_content(), &mut content);
    let mut parked = Vec::new();
    encode_parked(&full_parked(), &mut parked);
    for cut in 1..content.len() {
        assert!(matches!(
            decode_content_row(&content[..cut]),
            Err(ValueError::Layout(_))
        ));
    }
    for cut in 1..parked.len() {
        assert!(matches!(
            decode_parked(&parked[..cut]),
            Err(ValueError::Layout(_))
        ));
    }
    content.push(0);
    parked.extend([0, 0]);
    assert_eq!(decode_content_row(&content), Err(ValueError::Trailing(1)));
    assert_eq!(decode_parked(&parked), Err(ValueError::Trailing(2)));
}

#[test]
fn a_length_that_the_value_only_claims_is_refused() {
    // A text of 2^63 bytes at `slug`.
    let mut value = vec![1];
    value.extend(ascending());
    value.extend([1, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert!(matches!(
        decode_content_row(&value),
        Err(ValueError::Layout(_))
    ));
}

#[test]
fn fields_beyond_the_domain_are_refused() {
    let mut value = Vec::new();
    encode_content(
        &ContentRow {
            length_seconds: Some(-1),
            ..full_content()
        },
        &mut value,
    );
    let negative = ValueError::Range {
        field: "length_seconds",
        found: -1,
    };
    assert_eq!(decode_content_row(&value), Err(negative));

    value.clear();
    encode_content(&full_content(), &mut value);
    let code = value
        .iter()
        .rposition(|byte| *byte == 0xfb)
        .expect("a length")
        - 2;
    value[code] = 4;
    let unknown = ValueError::Range {
        field: "content_type",
        found: 4,
    };
    assert_eq!(decode_content_row(&value), Err(unknown));
}

#[test]
fn text_of_a_parked_event_is_borrowed_from_its_value() {
    let mut value = Vec::new();
    encode_parked(&full_parked(), &mut value);
    let parked = decode_parked(&value).expect("a parked event");
    assert!(matches!(
        parked.event.device,
        Some(std::borrow::Cow::Borrowed("ios"))
    ));
}
