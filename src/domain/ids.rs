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

/// Where each byte's two digits stand in the text form.
const DIGITS_AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// What is no hexadecimal digit, in [`NIBBLES`].
const NO_DIGIT: u8 = 0xff;

/// The value of each character as a hexadecimal digit. Two UUIDs are read per event, and a table has no branch to guess.
#[allow(clippy::indexing_slicing, reason = "evaluated while compiling")]
const NIBBLES: [u8; 256] = {
    let mut nibbles = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value] as usize] = value as u8;
        nibbles[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    nibbles
};

/// Writes the 36 lower-case characters of a UUID.
fn uuid_text(bytes: &[u8; 16]) -> [u8; UUID_TEXT] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; UUID_TEXT];
    for (byte, at) in bytes.iter().zip(DIGITS_AT) {
        for (at, nibble) in [(at, byte >> 4), (at + 1, byte & 15)] {
            if let (Some(slot), Some(digit)) = (text.get_mut(at), HEX.get(usize::from(nibble))) {
                *slot = *digit;
            }
        }
    }
    text
}

/// Reads the hyphenated text form of a UUID, in either case. Braces, URNs and the 32-digit form are refused: PostgreSQL
/// never writes them.
fn uuid_from_text(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; UUID_TEXT] = text.as_bytes().try_into().ok()?;
    if [8, 13, 18, 23]
        .iter()
        .any(|at| text.get(*at) != Some(&b'-'))
    {
        return None;
    }
    let nibble = |at: usize| {
        text.get(at)
            .and_then(|character| NIBBLES.get(usize::from(*character)))
            .copied()
            .unwrap_or(NO_DIGIT)
    };
    let mut bytes = [0u8; 16];
    let mut seen = 0;
    for (byte, at) in bytes.iter_mut().zip(DIGITS_AT) {
        let (high, low) = (nibble(at), nibble(at + 1));
        seen |= high | low;
        *byte = (high << 4) | low;
    }
    // A digit has four bits; anything else set some of the others.
    (seen < 16).then_some(bytes)
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

    #[test]
    fn every_byte_of_a_uuid_reads_back_and_every_wrong_character_is_refused() {
        for byte in 0..=u8::MAX {
            let id = ContentId(std::array::from_fn(|i| byte.wrapping_add(i as u8)));
            let text = id.to_string();
            assert_eq!(ContentId::parse(&text), Some(id));
            assert_eq!(ContentId::parse(&text.to_uppercase()), Some(id));
        }
        let good = "25f6ae98-4cbb-41cc-8fc9-8111e899a363";
        for at in 0..good.len() {
            for character in (0..128u8).map(char::from) {
                let mut text = good.to_owned();
                text.replace_range(at..=at, &character.to_string());
                let fits = match good.as_bytes().get(at) {
                    Some(b'-') => character == '-',
                    _ => character.is_ascii_hexdigit(),
                };
                assert_eq!(ContentId::parse(&text).is_some(), fits, "{text}");
            }
        }
    }
}
