//! Cursors: where a page ended, signed together with the query it belongs to. Stateless, good on any instance with the key.

use super::problem::Problem;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: u8 = 1;
/// Bytes of the signature that are kept.
const SIGNATURE: usize = 16;
/// Bytes of where a page ended.
pub(super) const PLACE: usize = 16;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Signs and checks the cursors of one kind of query.
pub(super) struct Cursors<'k> {
    key: &'k [u8; 32],
    /// What kind of query, and every parameter of it but the limit, in one fixed form.
    query: Vec<u8>,
}

impl<'k> Cursors<'k> {
    /// Cursors of a query.
    pub(super) fn new(key: &'k [u8; 32], query: Vec<u8>) -> Self {
        Self { key, query }
    }

    /// The cursor for a place.
    pub(super) fn seal(&self, place: &[u8; PLACE]) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(place);
        let signature = self.signer(place).finalize().into_bytes();
        bytes.extend(signature.iter().take(SIGNATURE));
        to_base64url(&bytes)
    }

    /// The place of a cursor; a cursor that was altered, or given for another query, is refused.
    pub(super) fn open(&self, cursor: &str) -> Result<[u8; PLACE], Problem> {
        let refused = || {
            Problem::bad_request(
                "`cursor` is not one of this query: give it back as it came, with the same parameters (only `limit` may change)",
            )
        };
        let bytes = from_base64url(cursor).ok_or_else(refused)?;
        let (version, rest) = bytes.split_first().ok_or_else(refused)?;
        let (place, signature) = rest.split_first_chunk::<PLACE>().ok_or_else(refused)?;
        if *version != VERSION || signature.len() != SIGNATURE {
            return Err(refused());
        }
        self.signer(place)
            .verify_truncated_left(signature)
            .map_err(|_| refused())?;
        Ok(*place)
    }

    fn signer(&self, place: &[u8; PLACE]) -> Hmac<Sha256> {
        // HMAC fills a key up to its block with zeros anyway.
        let mut block = [0; 64];
        let (head, _) = block.split_at_mut(self.key.len());
        head.copy_from_slice(self.key);
        let mut signer = <Hmac<Sha256> as KeyInit>::new(&block.into());
        signer.update(&[VERSION]);
        signer.update(place);
        signer.update(&self.query);
        signer
    }
}

fn to_base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| (group << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            let six = (group >> (18 - 6 * i)) & 63;
            text.extend(ALPHABET.get(six as usize).map(|byte| char::from(*byte)));
        }
    }
    text
}

/// `None` for any text that [`to_base64url`] does not write: each cursor has one form only.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for byte in chunk {
            let six = ALPHABET.iter().position(|known| known == byte)?;
            group = (group << 6) | six as u32;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, first, second, third] = group.to_be_bytes();
        bytes.extend(
            [first, second, third]
                .iter()
                .take(chunk.len().checked_sub(1)?),
        );
    }
    (to_base64url(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn cursors(query: &[u8]) -> Cursors<'static> {
        Cursors::new(&KEY, query.to_vec())
    }

    #[test]
    fn base64url_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in [
            (b"".as_slice(), ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xfb\xff", "-_8"),
        ] {
            assert_eq!(to_base64url(bytes), text);
            assert_eq!(from_base64url(text).as_deref(), Some(bytes));
        }
        for bad in ["Z", "Zh", "Zg==", "Z+8", "Zm9vZ", "ü"] {
            assert_eq!(from_base64url(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_cursor_opens_for_its_query_only() {
        let place = *b"0123456789abcdef";
        let cursor = cursors(b"query").seal(&place);
        assert_eq!(cursors(b"query").open(&cursor).ok(), Some(place));
        assert!(cursors(b"other").open(&cursor).is_err());
        assert!(
            Cursors::new(&[8; 32], b"query".to_vec())
                .open(&cursor)
                .is_err()
        );
    }

    #[test]
    fn a_cursor_with_any_character_changed_or_cut_is_refused() {
        let cursors = cursors(b"query");
        let cursor = cursors.seal(b"0123456789abcdef");
        for at in 0..cursor.len() {
            let mut bytes = cursor.clone().into_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            let altered = String::from_utf8(bytes).unwrap_or_default();
            assert!(cursors.open(&altered).is_err(), "{at}");
            assert!(cursors.open(cursor.get(..at).unwrap_or_default()).is_err());
        }
    }
}
