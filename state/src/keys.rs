//! Keys inside a column family: positions under tag 0, rows under tag 1.

/// Tag of a position; the partition follows, big-endian.
pub(crate) const POSITION: u8 = 0;
/// Tag of a row; its key follows.
pub(crate) const ROW: u8 = 1;

/// Row keys up to this length are tagged on the stack.
const INLINE: usize = 64;

/// The key of a partition's position.
pub(crate) fn position(partition: i32) -> [u8; 5] {
    let [a, b, c, d] = partition.to_be_bytes();
    [POSITION, a, b, c, d]
}

/// The partition of a position's key; `None` when the key is none.
pub(crate) fn partition_of(key: &[u8]) -> Option<i32> {
    match key {
        [POSITION, rest @ ..] => Some(i32::from_be_bytes(rest.try_into().ok()?)),
        _ => None,
    }
}

/// A row's key with its tag in front.
pub(crate) enum RowKey {
    Inline([u8; INLINE + 1], usize),
    Long(Vec<u8>),
}

impl RowKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut inline = [ROW; INLINE + 1];
        if let Some(slot) = inline.get_mut(1..=key.len()) {
            slot.copy_from_slice(key);
            return Self::Inline(inline, key.len() + 1);
        }
        let mut long = Vec::with_capacity(key.len() + 1);
        long.push(ROW);
        long.extend_from_slice(key);
        Self::Long(long)
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// The smallest key above every key that begins with `prefix`; `None` when there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_key_of_any_length_is_tagged() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let key = vec![7; len];
            assert_eq!(
                RowKey::new(&key).as_ref(),
                [&[ROW], key.as_slice()].concat()
            );
        }
    }

    #[test]
    fn the_end_of_a_prefix_excludes_its_successor_only() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255, 255]), None);
        assert_eq!(after_prefix(&[]), None);
    }

    #[test]
    fn a_position_key_gives_its_partition_back() {
        assert_eq!(partition_of(&position(7)), Some(7));
        assert_eq!(partition_of(&[ROW, 0, 0, 0, 7]), None);
        assert_eq!(partition_of(&[POSITION, 7]), None);
    }
}
