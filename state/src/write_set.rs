//! Writes collected to be applied at once. Reusable: the buffers stay.

use crate::keys;
use crate::position::Position;
use crate::table::Table;

/// One collected write; its bytes follow one another in the set's buffer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    table: Table,
    key: u32,
    /// `None` deletes.
    value: Option<u32>,
    merge: bool,
}

/// Writes that become visible and durable together. Later writes of the same key win.
#[derive(Debug, Default)]
pub struct WriteSet {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// A write as it goes into the database: key with its tag, and a value, or `None` to delete.
pub struct Write<'a> {
    /// Where.
    pub table: Table,
    /// The key, with its tag.
    pub key: &'a [u8],
    /// The value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Whether the value is united with the row's instead of replacing it.
    pub merge: bool,
}

impl WriteSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row.
    ///
    /// # Panics
    /// When the key or the value is 4 GiB or longer, which the database could not hold either.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.put_parts(table, key, &[value]);
    }

    /// Writes a row whose value is these parts one after another, which saves building it first.
    ///
    /// # Panics
    /// When the key or the value is 4 GiB or longer, which the database could not hold either.
    pub fn put_parts(&mut self, table: Table, key: &[u8], value: &[&[u8]]) {
        self.bytes.push(keys::ROW);
        self.bytes.extend_from_slice(key);
        let start = self.bytes.len();
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        let len = self.bytes.len() - start;
        self.push(table, key.len() + 1, Some(len));
    }

    /// Unites a serialised roaring bitmap with the row's; [`Table::Seen`] alone takes it.
    ///
    /// # Panics
    /// When the key or the value is 4 GiB or longer.
    pub fn unite(&mut self, table: Table, key: &[u8], bitmap: &[u8]) {
        self.put(table, key, bitmap);
        if let Some(entry) = self.entries.last_mut() {
            entry.merge = true;
        }
    }

    /// Deletes a row, if it is there.
    ///
    /// # Panics
    /// When the key is 4 GiB or longer.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.bytes.push(keys::ROW);
        self.bytes.extend_from_slice(key);
        self.push(table, key.len() + 1, None);
    }

    /// Sets the position that the rows of a partition stand for.
    pub fn set_position(&mut self, table: Table, partition: i32, position: Position) {
        let key = keys::position(partition);
        let value = position.encode();
        self.bytes.extend_from_slice(&key);
        self.bytes.extend_from_slice(&value);
        self.push(table, key.len(), Some(value.len()));
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all writes and keeps the buffers.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
    }

    /// The writes in the order they were made.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        let mut rest = self.bytes.as_slice();
        let mut take = move |len: u32| {
            let (taken, left) = rest.split_at_checked(len as usize).unwrap_or_default();
            rest = left;
            taken
        };
        self.entries.iter().map(move |entry| Write {
            table: entry.table,
            key: take(entry.key),
            value: entry.value.map(&mut take),
            merge: entry.merge,
        })
    }

    /// The last write of each key, by rising keys.
    pub(crate) fn sorted(&self) -> Vec<Write<'_>> {
        let mut writes: Vec<Write<'_>> = self.writes().collect();
        // Stable: writes of one key stay in their order, and the last one wins.
        writes.sort_by(|a, b| a.key.cmp(b.key));
        let mut kept: Vec<Write<'_>> = Vec::with_capacity(writes.len());
        for write in writes {
            match kept.last_mut() {
                Some(last) if last.key == write.key => *last = write,
                _ => kept.push(write),
            }
        }
        kept
    }

    /// The tables written to.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        self.entries.iter().map(|entry| entry.table)
    }

    fn push(&mut self, table: Table, key: usize, value: Option<usize>) {
        let length =
            |len: usize| u32::try_from(len).expect("keys and values are shorter than 4 GiB");
        self.entries.push(Entry {
            table,
            key: length(key),
            value: value.map(length),
            merge: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_back_in_order_with_their_tags() {
        let mut set = WriteSet::new();
        set.put(Table::Content, b"k", b"v");
        set.delete(Table::Pending, b"gone");
        set.put_parts(Table::Content, b"", &[b"", b"a", b"bc"]);
        let position = Position {
            offset: 1,
            topic_id: [2; 16],
            fresh_at_ms: 3,
        };
        set.set_position(Table::Content, 4, position);
        let writes: Vec<_> = set
            .writes()
            .map(|w| (w.table, w.key.to_vec(), w.value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(
            writes,
            [
                (Table::Content, b"\x01k".to_vec(), Some(b"v".to_vec())),
                (Table::Pending, b"\x01gone".to_vec(), None),
                (Table::Content, b"\x01".to_vec(), Some(b"abc".to_vec())),
                (
                    Table::Content,
                    vec![0, 0, 0, 0, 4],
                    Some(position.encode().to_vec())
                ),
            ]
        );
    }

    #[test]
    fn a_cleared_set_is_empty() {
        let mut set = WriteSet::new();
        set.put(Table::Content, b"k", b"v");
        assert_eq!((set.len(), set.byte_len(), set.is_empty()), (1, 3, false));
        set.clear();
        assert_eq!((set.len(), set.byte_len(), set.is_empty()), (0, 0, true));
        assert_eq!(set.writes().count(), 0);
    }
}
