//! The key of an event's record: whether it is that of its id, and which partition follows from it.

use crate::domain::{EventId, Partition};

/// A longer key tells no shape.
const LONGEST: usize = 4096;

/// What stands around the id in the keys of a topic: `{"id":` and `}` as Debezium writes it plain, more with a schema. Bytes
/// count, not meaning: a key that means the same and is written otherwise belongs to another partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyShape {
    before: Box<[u8]>,
    after: Box<[u8]>,
}

impl KeyShape {
    /// The shape of a key that holds its event's id; `None` when it does not.
    pub fn of(key: &[u8], id: EventId) -> Option<Self> {
        if key.len() > LONGEST {
            return None;
        }
        let mut buffer = itoa::Buffer::new();
        let id = buffer.format(id.0).as_bytes();
        // The payload comes after the schema, so the last place is the id's. Digits of a longer number are none.
        let digit = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_digit() || *b == b'-');
        (0..=key.len().checked_sub(id.len())?).rev().find_map(|at| {
            let (before, rest) = key.split_at_checked(at)?;
            let after = rest.strip_prefix(id)?;
            let whole = !digit(before.last()) && !digit(after.first());
            whole.then(|| Self {
                before: before.into(),
                after: after.into(),
            })
        })
    }

    /// Whether the key is the one that this shape gives the id.
    pub fn fits(&self, key: &[u8], id: EventId) -> bool {
        let inside = key
            .strip_prefix(&*self.before)
            .and_then(|rest| rest.strip_suffix(&*self.after));
        inside == Some(itoa::Buffer::new().format(id.0).as_bytes())
    }
}

/// The partition of a key, as Java's producer and Debezium choose it.
pub fn partition_of(key: &[u8], partitions: i32) -> Partition {
    let positive = (murmur2(key) & 0x7fff_ffff) as i32;
    Partition(positive.checked_rem(partitions).unwrap_or_default())
}

/// Kafka's murmur2.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_javas() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_key_is_that_of_its_id_in_the_shape_of_the_first() {
        let plain = KeyShape::of(br#"{"id":42}"#, EventId(42)).expect("it holds the id");
        assert!(plain.fits(br#"{"id":7}"#, EventId(7)));
        assert!(plain.fits(br#"{"id":-7}"#, EventId(-7)));
        for other in [
            &br#"{"id":8}"#[..],
            br#"{"id": 7}"#,
            br#"{"schema":{"version":1},"payload":{"id":7}}"#,
            b"7",
            b"",
        ] {
            assert!(!plain.fits(other, EventId(7)), "{other:?}");
        }
        let wrapped = br#"{"schema":{"version":1},"payload":{"id":1}}"#;
        let wrapped = KeyShape::of(wrapped, EventId(1)).expect("it holds the id");
        assert!(
            wrapped.fits(
                br#"{"schema":{"version":1},"payload":{"id":23}}"#,
                EventId(23)
            ),
            "the schema's numbers are not the id"
        );
        assert!(!wrapped.fits(br#"{"id":23}"#, EventId(23)));
    }

    #[test]
    fn a_key_without_its_id_has_no_shape() {
        for key in [&b""[..], b"{}", br#"{"id":421}"#, br#"{"id":-42}"#, b"4"] {
            assert_eq!(KeyShape::of(key, EventId(42)), None, "{key:?}");
        }
        let long = [b'4', b'2'].repeat(LONGEST);
        assert_eq!(KeyShape::of(&long, EventId(42)), None);
    }
}
