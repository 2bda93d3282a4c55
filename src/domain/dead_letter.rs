//! Why a record cannot be processed. Codes are part of the contract: never renamed, never reused.

use std::borrow::Cow;
use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The code in the header `dlq-reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, for tables and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it stands in the header.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

reasons! {
    /// A value of zero bytes.
    Empty = "empty",
    /// Bytes that are not UTF-8.
    NotUtf8 = "not-utf8",
    /// Text that is not one JSON document.
    NotJson = "not-json",
    /// Nested deeper than the limit.
    TooDeep = "too-deep",
    /// Larger than the limit.
    TooLarge = "too-large",
    /// A key that is read stands twice in one object.
    DuplicateKey = "duplicate-key",
    /// JSON, but none of Debezium's three shapes.
    UnknownShape = "unknown-shape",
    /// An update of an engagement event, which is a fact.
    OpUpdate = "op-update",
    /// A delete of an engagement event, which is a fact.
    OpDelete = "op-delete",
    /// A missing, null, truncating or unknown operation.
    OpUnsupported = "op-unsupported",
    /// A required field is absent or null.
    FieldMissing = "field-missing",
    /// A field has another JSON type than its column, or a number beyond its column's range.
    FieldType = "field-type",
    /// An event id that is no signed 64-bit integer.
    IdRange = "id-range",
    /// A malformed UUID.
    BadUuid = "bad-uuid",
    /// An event type that is none of the four.
    UnknownEventType = "unknown-event-type",
    /// A content type that is none of the three.
    UnknownContentType = "unknown-content-type",
    /// A time that is malformed, does not exist, or is out of range.
    BadTime = "bad-time",
    /// A negative duration or length.
    Negative = "negative",
    /// The enriched record would be larger than its topic allows.
    OutputTooLarge = "output-too-large",
    /// A sink's destination refused the event.
    Rejected = "rejected",
}

/// Why a record becomes a dead letter: the code, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The code.
    pub reason: Reason,
    /// What was found where, for the header `dlq-detail`.
    pub detail: Cow<'static, str>,
}

impl DeadLetter {
    /// A dead letter with its explanation.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.code(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_the_contracts_in_their_order() {
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(
            codes,
            [
                "empty",
                "not-utf8",
                "not-json",
                "too-deep",
                "too-large",
                "duplicate-key",
                "unknown-shape",
                "op-update",
                "op-delete",
                "op-unsupported",
                "field-missing",
                "field-type",
                "id-range",
                "bad-uuid",
                "unknown-event-type",
                "unknown-content-type",
                "bad-time",
                "negative",
                "output-too-large",
                "rejected",
            ]
        );
    }

    #[test]
    fn a_dead_letter_tells_code_and_detail() {
        let dead = DeadLetter::new(Reason::BadUuid, "user_id: \"x\"");
        assert_eq!(dead.to_string(), "bad-uuid: user_id: \"x\"");
    }
}
