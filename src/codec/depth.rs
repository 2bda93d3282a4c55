//! How deep a JSON text nests, found before any parser recurses or skips.
//!
//! `serde_json` skips a value without looking at its depth, so the limit has to be kept here.

/// The deepest nesting that is accepted; an object that holds only scalars has depth 1.
pub const DEPTH_LIMIT: usize = 128;

/// Whether the text nests deeper than [`DEPTH_LIMIT`].
pub(super) fn too_deep(text: &[u8]) -> bool {
    openings(text) > DEPTH_LIMIT && exceeds(text)
}

/// Counts `{` and `[` anywhere, in strings too: an upper bound of the depth, at the speed of memory.
fn openings(text: &[u8]) -> usize {
    // 255 bytes at a time, so that the count of a chunk fits the byte-wide lanes of a vector register.
    text.chunks(255)
        .map(|chunk| {
            let count = chunk
                .iter()
                // The two brackets differ in one bit only.
                .fold(0u8, |count, byte| count + u8::from(byte | 0x20 == b'{'));
            usize::from(count)
        })
        .sum()
}

/// The exact answer: brackets inside strings do not count.
fn exceeds(text: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_LIMIT {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
