//! Identities: what an event, a content row, a user, a partition and an offset are called.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Id of an engagement event: a `bigserial`, so any signed 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub i64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a topic partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Offset of a record in its partition. As a position it names the *next* record to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub i64);

impl Offset {
    /// The position after this record.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Length of a UUID's text form, `8-4-4-4-12` with hyphens.
pub(crate) const UUID_TEXT: usize = 36;

/// Writes the 36 lower-case characters of a UUID.
fn uuid_text(bytes: &[u8; 16]) -> [u8; UUID_TEXT] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; UUID_TEXT];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        for nibble in [byte >> 4, byte & 15] {
            if let (Some(slot), Some(digit)) = (text.get_mut(at), HEX.get(usize::from(nibble))) {
                *slot = *digit;
            }
            at += 1;
        }
    }
    text
}

/// Reads the hyphenated text form of a UUID, in either case. Braces, URNs and the 32-digit form are refused: PostgreSQL
/// never writes them.
fn uuid_from_text(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != UUID_TEXT {
        return None;
    }
    let mut bytes = [0u8; 16];
    let mut nibbles = 0usize;
    for (i, c) in text.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if *c != b'-' {
                return None;
            }
            continue;
        }
        let value = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return None,
        };
        let byte = bytes.get_mut(nibbles / 2)?;
        *byte = (*byte << 4) | value;
        nibbles += 1;
    }
    Some(bytes)
}

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the hyphenated text form, in either case; `None` when it is anything else.
            pub fn parse(text: &str) -> Option<Self> {
                uuid_from_text(text).map(Self)
            }

            /// The hyphenated lower-case text form, without allocating.
            pub fn text(&self) -> [u8; UUID_TEXT] {
                uuid_text(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_newtype!(
    /// Id of a content row.
    ContentId
);
uuid_newtype!(
    /// Id of the user who engaged.
    UserId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_survives_text_and_back_in_lower_case() {
        let id = ContentId::parse("25F6AE98-4cbb-41cc-8fc9-8111e899a363");
        assert_eq!(
            id.map(|id| id.to_string()).as_deref(),
            Some("25f6ae98-4cbb-41cc-8fc9-8111e899a363")
        );
    }

    #[test]
    fn other_forms_of_a_uuid_are_refused() {
        for text in [
            "",
            "25f6ae984cbb41cc8fc98111e899a363",
            "{25f6ae98-4cbb-41cc-8fc9-8111e899a363}",
            "25f6ae98-4cbb-41cc-8fc9-8111e899a36",
            "25f6ae98-4cbb-41cc-8fc9-8111e899a36g",
            "25f6ae98x4cbb-41cc-8fc9-8111e899a363",
            "urn:uuid:25f6ae98-4cbb-41cc-8fc9-8111e899a363",
        ] {
            assert_eq!(ContentId::parse(text), None, "{text}");
        }
    }
}
