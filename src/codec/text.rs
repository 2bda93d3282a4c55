//! From bytes to a text that is safe to parse: the checks that come before JSON.

use super::depth::{DEPTH_LIMIT, too_deep};
use crate::domain::{DeadLetter, Reason};

/// The largest value that is accepted, in bytes.
pub const RECORD_LIMIT: usize = 4 * 1024 * 1024;

/// How many characters of what was found go into a dead letter's detail.
const EXCERPT: usize = 60;

/// Checks size, encoding and depth, in this order.
pub(super) fn checked_text(bytes: &[u8]) -> Result<&str, DeadLetter> {
    if bytes.is_empty() {
        return Err(DeadLetter::new(Reason::Empty, "zero bytes"));
    }
    if bytes.len() > RECORD_LIMIT {
        return Err(DeadLetter::new(
            Reason::TooLarge,
            format!("{} bytes, the limit is {RECORD_LIMIT}", bytes.len()),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        DeadLetter::new(
            Reason::NotUtf8,
            format!("no UTF-8 from byte {} on", error.valid_up_to()),
        )
    })?;
    if too_deep(bytes) {
        return Err(DeadLetter::new(
            Reason::TooDeep,
            format!("nested deeper than {DEPTH_LIMIT}"),
        ));
    }
    Ok(text)
}

/// The first characters of a text, quoted and escaped, so that a detail stays short and printable.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
