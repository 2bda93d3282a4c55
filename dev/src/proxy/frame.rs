//! One request or reply as it stands on the wire, and what the head of a request says.

use std::io::{self, Read, Write};

/// Longer than any request of the tests; a length beyond it is no length.
const LONGEST: usize = 256 << 20;
/// Bytes of the length in front.
const LENGTH: usize = 4;

/// A length and the bytes it counts.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// The next frame, or none where the connection ends.
    pub(super) fn read(mut from: impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; LENGTH];
        match from.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        let bytes = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if bytes > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; LENGTH + bytes];
        let (head, rest) = frame.split_at_mut(LENGTH);
        head.copy_from_slice(&length);
        from.read_exact(rest)?;
        Ok(Some(Self(frame)))
    }

    /// Sends it on.
    pub(super) fn write(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.0)
    }

    /// A request's number of its kind.
    pub(super) fn api_key(&self) -> Option<i16> {
        self.i16_at(LENGTH)
    }

    /// The number that ties a reply to this request.
    pub(super) fn request_id(&self) -> Option<i32> {
        self.i32_at(LENGTH + 4)
    }

    /// The number of the request that this reply answers.
    pub(super) fn reply_id(&self) -> Option<i32> {
        self.i32_at(LENGTH)
    }

    /// What the client of this request calls itself.
    pub(super) fn client_id(&self) -> Option<&[u8]> {
        let length = usize::try_from(self.i16_at(LENGTH + 8)?).ok()?;
        self.0.get(LENGTH + 10..)?.get(..length)
    }

    /// Whether the bytes occur in it. Texts of the protocol stand in it as they are.
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        text.is_empty() || self.0.windows(text.len()).any(|window| window == text)
    }

    fn i16_at(&self, at: usize) -> Option<i16> {
        let bytes = self.0.get(at..at + 2)?;
        Some(i16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn i32_at(&self, at: usize) -> Option<i32> {
        let bytes = self.0.get(at..at + 4)?;
        Some(i32::from_be_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::Frame;
    use std::io::Read;

    /// An EndTxn request of version 1 by client `app`, number 7, for the transactional id `t-0`.
    fn end_txn() -> Vec<u8> {
        let mut body = vec![0, 26, 0, 1, 0, 0, 0, 7, 0, 3];
        body.extend(b"app\0\x03t-0");
        let mut frame = (body.len() as i32).to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    #[test]
    fn the_head_of_a_request_is_understood() -> std::io::Result<()> {
        let bytes = end_txn();
        let frame = Frame::read(bytes.as_slice())?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        assert_eq!(frame.api_key(), Some(26));
        assert_eq!(frame.request_id(), Some(7));
        assert_eq!(frame.client_id(), Some(&b"app"[..]));
        assert!(frame.holds(b"t-0") && !frame.holds(b"t-1"));
        let mut copy = Vec::new();
        frame.write(&mut copy)?;
        assert_eq!(copy, bytes);
        Ok(())
    }

    #[test]
    fn an_end_between_frames_is_an_end_and_one_inside_an_error() {
        let bytes = end_txn();
        assert!(matches!(Frame::read(&[][..]), Ok(None)));
        assert!(Frame::read(bytes.as_slice().take(9)).is_err());
        assert!(Frame::read(&b"HTTP/1.1"[..]).is_err());
    }
}
