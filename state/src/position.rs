//! Up to where a log has been folded into a table, and its 32 bytes on disk.

/// Length of an encoded position.
const ENCODED: usize = 32;

/// Up to where a partition of a log has been folded into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next offset to read.
    pub offset: i64,
    /// The id of the topic, which a topic of the same name made later does not share.
    pub topic_id: [u8; 16],
    /// Milliseconds since the epoch: the later of the last record's timestamp and the last time the reader stood at the end.
    pub fresh_at_ms: i64,
}

impl Position {
    /// Offset, topic id, freshness; integers big-endian.
    pub fn encode(&self) -> [u8; ENCODED] {
        let mut bytes = [0; ENCODED];
        let (offset, rest) = bytes.split_at_mut(8);
        let (topic_id, fresh_at_ms) = rest.split_at_mut(16);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        topic_id.copy_from_slice(&self.topic_id);
        fresh_at_ms.copy_from_slice(&self.fresh_at_ms.to_be_bytes());
        bytes
    }

    /// `None` when the bytes are no position.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk::<8>()?;
        let (topic_id, rest) = rest.split_first_chunk::<16>()?;
        let fresh_at_ms = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self {
            offset: i64::from_be_bytes(*offset),
            topic_id: *topic_id,
            fresh_at_ms: i64::from_be_bytes(fresh_at_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position {
        offset: 0x0102_0304_0506_0708,
        topic_id: *b"a topic's 16 id!",
        fresh_at_ms: -2,
    };

    #[test]
    fn the_encoding_is_the_one_of_format_1() {
        let golden =
            b"\x01\x02\x03\x04\x05\x06\x07\x08a topic's 16 id!\xff\xff\xff\xff\xff\xff\xff\xfe";
        assert_eq!(&POSITION.encode(), golden);
        assert_eq!(Position::decode(golden), Some(POSITION));
    }

    #[test]
    fn bytes_of_another_length_are_no_position() {
        let encoded = POSITION.encode();
        assert_eq!(
            Position::decode(encoded.get(..31).unwrap_or_default()),
            None
        );
        assert_eq!(Position::decode(&[encoded.as_slice(), &[0]].concat()), None);
        assert_eq!(Position::decode(&[]), None);
    }
}
