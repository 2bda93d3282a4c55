//! The enriched event as JSON, byte for byte as the contract has it; and an event as the row it came from.

use super::scalar::TimeMode;
use crate::domain::{ContentType, Enriched, Event, Hundredths};

/// Appends the JSON object: eleven fields in their fixed order, an absent value as `null`. Allocates only where `out` grows.
pub fn write_enriched(enriched: &Enriched<'_, '_>, out: &mut Vec<u8>) {
    let event = enriched.event;
    out.extend_from_slice(b"{\"event_id\":\"");
    integer(event.id.0, out);
    out.extend_from_slice(b"\",\"content_id\":");
    quoted(event.content_id.map(|id| id.text()).as_ref(), out);
    out.extend_from_slice(b",\"user_id\":");
    quoted(event.user_id.map(|id| id.text()).as_ref(), out);
    out.extend_from_slice(b",\"event_type\":\"");
    out.extend_from_slice(event.event_type.name().as_bytes());
    out.extend_from_slice(b"\",\"event_ts\":\"");
    event.event_ts.write_to(out);
    out.extend_from_slice(b"\",\"duration_ms\":");
    or_null(event.duration_ms, out, |millis, out| {
        integer(i64::from(millis), out);
    });
    out.extend_from_slice(b",\"device\":");
    or_null(event.device.as_deref(), out, text);
    out.extend_from_slice(b",\"content_type\":");
    quoted(enriched.content_type.map(ContentType::name), out);
    out.extend_from_slice(b",\"length_seconds\":");
    or_null(enriched.length_seconds, out, |seconds, out| {
        integer(i64::from(seconds), out);
    });
    out.extend_from_slice(b",\"engagement_seconds\":");
    or_null(enriched.engagement.millis, out, |millis, out| {
        decimal(i64::from(millis), 1000, out);
    });
    out.extend_from_slice(b",\"engagement_pct\":");
    or_null(enriched.engagement.pct, out, |Hundredths(pct), out| {
        decimal(pct, 100, out);
    });
    out.push(b'}');
}

/// Appends the event as a flattened row that reads back as the same event, for one whose record is no longer at hand.
pub fn write_row(event: &Event<'_>, time: TimeMode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    integer(event.id.0, out);
    out.extend_from_slice(b",\"content_id\":");
    quoted(event.content_id.map(|id| id.text()).as_ref(), out);
    out.extend_from_slice(b",\"user_id\":");
    quoted(event.user_id.map(|id| id.text()).as_ref(), out);
    out.extend_from_slice(b",\"event_type\":\"");
    out.extend_from_slice(event.event_type.name().as_bytes());
    out.extend_from_slice(b"\",\"event_ts\":");
    match time {
        TimeMode::Iso => {
            out.push(b'"');
            event.event_ts.write_to(out);
            out.push(b'"');
        }
        TimeMode::EpochMillis => integer(event.event_ts.micros().div_euclid(1000), out),
        TimeMode::EpochMicros => integer(event.event_ts.micros(), out),
    }
    out.extend_from_slice(b",\"duration_ms\":");
    or_null(event.duration_ms, out, |millis, out| {
        integer(i64::from(millis), out);
    });
    out.extend_from_slice(b",\"device\":");
    or_null(event.device.as_deref(), out, text);
    out.push(b'}');
}

fn or_null<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// A text that needs no escapes, or null.
fn quoted(value: Option<impl AsRef<[u8]>>, out: &mut Vec<u8>) {
    or_null(value, out, |value, out| {
        out.push(b'"');
        out.extend_from_slice(value.as_ref());
        out.push(b'"');
    });
}

fn integer(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The shortest decimal of `parts / whole`, where `whole` is a power of ten and `parts` is not negative.
fn decimal(parts: i64, whole: i64, out: &mut Vec<u8>) {
    integer(parts / whole, out);
    let mut rest = parts % whole;
    if rest == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = whole / 10;
    while rest > 0 {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        unit /= 10;
    }
}

/// A JSON string with only the escapes that JSON requires; all else is written raw.
fn text(text: &str, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(plain) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (before, from) = rest.split_at(plain);
        out.extend_from_slice(before);
        let Some((byte, after)) = from.split_first() else {
            break;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                out.extend_from_slice(b"\\u00");
                for nibble in [control >> 4, control & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}
