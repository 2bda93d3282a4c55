//! Reads a field from its raw JSON text. JSON types are exact: nothing is converted, nothing is guessed.

use super::text::excerpt;
use crate::domain::{DeadLetter, Reason, TimeError, Timestamp};
use serde::Deserialize;
use std::borrow::Cow;

/// How a topic writes its times. Declared, never guessed from magnitude.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeMode {
    /// Text, as Debezium writes a `timestamptz`.
    #[default]
    Iso,
    /// A JSON integer of milliseconds since the epoch.
    EpochMillis,
    /// A JSON integer of microseconds since the epoch.
    EpochMicros,
}

/// The text of one valid JSON value, without space around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a>(pub(super) &'a str);

/// A field of a row: its name, and its raw text unless it is absent or null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    name: &'static str,
    raw: Option<&'a str>,
}

impl<'a> Field<'a> {
    /// Absent and `null` are the same: no value.
    pub(super) fn new(name: &'static str, raw: Option<Raw<'a>>) -> Self {
        let raw = raw.map(|raw| raw.0).filter(|raw| *raw != "null");
        Self { name, raw }
    }

    /// A dead letter about this field.
    pub(super) fn dead(&self, reason: Reason, found: &str) -> DeadLetter {
        DeadLetter::new(reason, format!("{}: {found}", self.name))
    }

    /// A dead letter that quotes the beginning of the raw text.
    fn dead_quoting(&self, reason: Reason, raw: &str) -> DeadLetter {
        self.dead(reason, &excerpt(raw))
    }

    /// Refuses an absent value.
    pub(super) fn required<T>(&self, value: Option<T>) -> Result<T, DeadLetter> {
        value.ok_or_else(|| self.dead(Reason::FieldMissing, "absent or null"))
    }

    /// A text; borrowed from the record unless it has escapes.
    pub(super) fn text(&self) -> Result<Option<Cow<'a, str>>, DeadLetter> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        let Some(inside) = raw
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        else {
            return Err(self.dead(
                Reason::FieldType,
                &format!("{} where a string belongs", kind(raw)),
            ));
        };
        if !inside.as_bytes().contains(&b'\\') {
            return Ok(Some(Cow::Borrowed(inside)));
        }
        // Skipping a value does not look at its surrogates, so an escape can still turn out to be no character.
        serde_json::from_str::<String>(raw)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|error| self.dead(Reason::NotJson, &error.to_string()))
    }

    /// An integer; a fraction or an exponent is none, whatever its value. `beyond` is the reason for one outside of 64 bits.
    pub(super) fn integer(&self, beyond: Reason) -> Result<Option<i64>, DeadLetter> {
        let Some(raw) = self.integer_text()? else {
            return Ok(None);
        };
        raw.parse()
            .map(Some)
            .map_err(|_| self.dead_quoting(beyond, raw))
    }

    /// An `int4` column that is never negative.
    pub(super) fn count(&self) -> Result<Option<i32>, DeadLetter> {
        let Some(raw) = self.integer_text()? else {
            return Ok(None);
        };
        match raw.parse::<i64>() {
            Ok(number) if (0..=i64::from(i32::MAX)).contains(&number) => Ok(Some(number as i32)),
            Ok(number) if number < 0 => Err(self.dead_quoting(Reason::Negative, raw)),
            Err(_) if raw.starts_with('-') => Err(self.dead_quoting(Reason::Negative, raw)),
            _ => Err(self.dead_quoting(Reason::FieldType, raw)),
        }
    }

    fn integer_text(&self) -> Result<Option<&'a str>, DeadLetter> {
        let Some(raw) = self.raw else {
            return Ok(None);
        };
        if is_integer(raw) {
            return Ok(Some(raw));
        }
        Err(self.dead(
            Reason::FieldType,
            &format!("{} where an integer belongs", kind(raw)),
        ))
    }

    /// A UUID in its hyphenated text form, by the parser of its newtype.
    pub(super) fn uuid<T>(&self, parse: fn(&str) -> Option<T>) -> Result<Option<T>, DeadLetter> {
        let Some(text) = self.text()? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(id) => Ok(Some(id)),
            None => Err(self.dead_quoting(Reason::BadUuid, &text)),
        }
    }

    /// A time in the declared form.
    pub(super) fn time(&self, mode: TimeMode) -> Result<Option<Timestamp>, DeadLetter> {
        let from_integer = match mode {
            TimeMode::Iso => {
                return match self.text()? {
                    Some(text) => self.iso(&text).map(Some),
                    None => Ok(None),
                };
            }
            TimeMode::EpochMillis => Timestamp::from_millis,
            TimeMode::EpochMicros => Timestamp::from_micros,
        };
        let Some(number) = self.integer(Reason::BadTime)? else {
            return Ok(None);
        };
        from_integer(number)
            .map(Some)
            .ok_or_else(|| self.bad_time(&number.to_string(), TimeError::OutOfRange))
    }

    /// A time as text.
    pub(super) fn iso(&self, text: &str) -> Result<Timestamp, DeadLetter> {
        Timestamp::parse(text).map_err(|why| self.bad_time(text, why))
    }

    fn bad_time(&self, found: &str, why: TimeError) -> DeadLetter {
        self.dead(Reason::BadTime, &format!("{}: {why}", excerpt(found)))
    }
}

/// Whether a valid value is a number of digits alone; `1.0` and `1e3` are not.
fn is_integer(raw: &str) -> bool {
    raw.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// The JSON type of a valid value, for people.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ if is_integer(raw) => "an integer",
        _ => "a fraction or exponent",
    }
}
