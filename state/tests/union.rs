//! Bitmaps of the seen table are united, in memory, on disk and over a restart.
#![allow(clippy::unwrap_used)]

use roaring::RoaringBitmap;
use thmanyah_state::{Options, Store, Table, WriteSet};

fn bytes(ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ids.into_iter()
        .collect::<RoaringBitmap>()
        .serialize_into(&mut bytes)
        .unwrap();
    bytes
}

fn read(store: &Store) -> Vec<u32> {
    store
        .get(Table::Seen, b"k", |value| {
            RoaringBitmap::deserialize_from(value).unwrap()
        })
        .unwrap()
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn bitmaps_of_one_row_are_united_whatever_lies_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut writes = WriteSet::new();
    {
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        writes.unite(Table::Seen, b"k", &bytes([1, 5]));
        writes.unite(Table::Seen, b"k", &bytes([5, 65_535]));
        store.apply(&mut writes).unwrap();
        assert_eq!(read(&store), [1, 5, 65_535]);
        store.flush(Table::Seen).unwrap();
        writes.unite(Table::Seen, b"k", &bytes([2]));
        store.apply(&mut writes).unwrap();
        assert_eq!(read(&store), [1, 2, 5, 65_535]);
    }
    let store = Store::open(dir.path(), &Options::default()).unwrap();
    assert_eq!(read(&store), [1, 2, 5, 65_535]);
    // A put replaces; what is united after it is added to that.
    writes.put(Table::Seen, b"k", &bytes([7]));
    writes.unite(Table::Seen, b"k", &bytes([8]));
    store.apply(&mut writes).unwrap();
    assert_eq!(read(&store), [7, 8]);
}
