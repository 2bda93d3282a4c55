//! How the published ids of a partition lie in the store: containers (family 0), marks of those that changed since the last
//! checkpoint (family 1), and up to where the enriched topic is covered (family 2).

use crate::domain::{Container, EventId, Offset, Partition};
use crate::kafka::TopicId;
use roaring::RoaringBitmap;
use thmanyah_state::{Moment, Rows, Table, WriteSet};

const CONTAINER: u8 = 0;
const MARK: u8 = 1;
const ENRICHED: u8 = 2;
const KEY: usize = 13;

/// Key of a container's bitmap.
pub(super) fn container_key(partition: Partition, container: Container) -> [u8; KEY] {
    key(partition, CONTAINER, container)
}

fn key(partition: Partition, family: u8, container: Container) -> [u8; KEY] {
    let mut key = [0; KEY];
    let (head, number) = key.split_at_mut(5);
    let (partition_bytes, family_byte) = head.split_at_mut(4);
    partition_bytes.copy_from_slice(&partition.0.to_be_bytes());
    family_byte.copy_from_slice(&[family]);
    // The flipped sign makes negative numbers sort first.
    number.copy_from_slice(&((container.0 as u64) ^ (1 << 63)).to_be_bytes());
    key
}

fn number(key: &[u8]) -> Option<Container> {
    let number = key.get(5..KEY)?.try_into().ok()?;
    Some(Container((u64::from_be_bytes(number) ^ (1 << 63)) as i64))
}

/// First and last key of a family, the last one excluded.
fn range(partition: Partition, family: u8) -> ([u8; 5], [u8; 5]) {
    let mut from = [0; 5];
    let (head, tail) = from.split_at_mut(4);
    head.copy_from_slice(&partition.0.to_be_bytes());
    tail.copy_from_slice(&[family]);
    let mut to = from;
    if let Some(last) = to.last_mut() {
        *last += 1;
    }
    (from, to)
}

/// Adds published ids, sorted, to their containers, and marks these in the same write set.
///
/// IMPORTANT: the marks are durable with the ids. Marks in memory alone would die with the process; the next checkpoint would
/// then skip these containers, and a disk lost after that would forget the ids.
pub(super) fn add(ids: &[(Partition, EventId)], writes: &mut WriteSet, scratch: &mut Vec<u8>) {
    let same = |a: &(Partition, EventId), b: &(Partition, EventId)| {
        a.0 == b.0 && Container::of(a.1) == Container::of(b.1)
    };
    for ids in ids.chunk_by(same) {
        let Some((partition, first)) = ids.first() else {
            continue;
        };
        let container = Container::of(*first);
        let bitmap: RoaringBitmap = ids.iter().map(|(_, id)| id.place()).collect();
        scratch.clear();
        // Writing into memory does not fail.
        let _ = bitmap.serialize_into(&mut *scratch);
        writes.unite(Table::Seen, &container_key(*partition, container), scratch);
        writes.put(Table::Seen, &key(*partition, MARK, container), &[]);
    }
}

/// Sets up to where the enriched topic is covered.
pub(super) fn set_enriched(
    partition: Partition,
    offset: Offset,
    topic: TopicId,
    writes: &mut WriteSet,
) {
    let (key, _) = range(partition, ENRICHED);
    writes.put_parts(Table::Seen, &key, &[&offset.0.to_be_bytes(), &topic]);
}

/// Up to where that topic is covered; `None` when nothing is, or another topic of its name.
pub(super) fn enriched(
    snapshot: &impl Moment,
    partition: Partition,
    topic: TopicId,
) -> Result<Option<Offset>, thmanyah_state::Error> {
    let covered = covered(snapshot, partition)?;
    Ok(covered.and_then(|(offset, id)| (id == topic).then_some(offset)))
}

/// Up to where which enriched topic is covered.
pub(crate) fn covered(
    snapshot: &impl Moment,
    partition: Partition,
) -> Result<Option<(Offset, TopicId)>, thmanyah_state::Error> {
    let (key, _) = range(partition, ENRICHED);
    let read = |value: &[u8]| {
        let (offset, id) = value.split_first_chunk::<8>()?;
        Some((Offset(i64::from_be_bytes(*offset)), id.try_into().ok()?))
    };
    Ok(snapshot.get(Table::Seen, &key, read)?.flatten())
}

/// Gives `visit` every container of a partition and its serialised bitmap.
pub(crate) fn containers(
    snapshot: &impl Moment,
    partition: Partition,
    mut visit: impl FnMut(Container, &[u8]),
) -> Result<(), thmanyah_state::Error> {
    let (from, to) = range(partition, CONTAINER);
    let mut rows = snapshot.rows(Table::Seen, &from, &to)?;
    while let Some((key, value)) = rows.next()? {
        if let Some(container) = number(key) {
            visit(container, value);
        }
    }
    Ok(())
}

/// The marked containers, up to `limit` of them.
pub(crate) fn marked(
    snapshot: &impl Moment,
    partition: Partition,
    limit: usize,
) -> Result<Vec<Container>, thmanyah_state::Error> {
    let (from, to) = range(partition, MARK);
    let mut rows = snapshot.rows(Table::Seen, &from, &to)?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((key, _)) = rows.next()?
    {
        found.extend(number(key));
    }
    Ok(found)
}

/// Takes the mark off a container that a committed checkpoint holds.
pub(super) fn unmark(partition: Partition, container: Container, writes: &mut WriteSet) {
    writes.delete(Table::Seen, &key(partition, MARK, container));
}

/// How many ids are in the partition's containers; `None` when one of them is unreadable.
pub(crate) fn count(
    snapshot: &impl Moment,
    partition: Partition,
) -> Result<Option<u64>, thmanyah_state::Error> {
    let (from, to) = range(partition, CONTAINER);
    let mut rows = snapshot.rows(Table::Seen, &from, &to)?;
    let mut count = 0;
    while let Some((_, value)) = rows.next()? {
        let Ok(bitmap) = RoaringBitmap::deserialize_from(value) else {
            return Ok(None);
        };
        count += bitmap.len();
    }
    Ok(Some(count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use thmanyah_state::{Options, Store};

    const P: Partition = Partition(2);

    #[test]
    fn ids_are_counted_once_marked_until_checkpointed_and_kept_apart_by_partition() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &Options::default()).unwrap();
        let (mut writes, mut scratch) = (WriteSet::new(), Vec::new());
        let ids = [i64::MIN, -1, 0, 1, 65_535, 65_536, i64::MAX].map(|id| (P, EventId(id)));
        add(&ids, &mut writes, &mut scratch);
        add(&ids[2..4], &mut writes, &mut scratch);
        add(&[(Partition(3), EventId(5))], &mut writes, &mut scratch);
        set_enriched(P, Offset(9), [7; 16], &mut writes);
        store.apply(&mut writes).unwrap();

        let snapshot = store.snapshot();
        assert_eq!(count(&snapshot, P).unwrap(), Some(7));
        let marks = marked(&snapshot, P, 100).unwrap();
        let expected = [i64::MIN >> 16, -1, 0, 1, i64::MAX >> 16].map(Container);
        assert_eq!(marks, expected);
        assert_eq!(marked(&snapshot, P, 2).unwrap().len(), 2);
        assert_eq!(enriched(&snapshot, P, [7; 16]).unwrap(), Some(Offset(9)));
        assert_eq!(enriched(&snapshot, P, [8; 16]).unwrap(), None);
        drop(snapshot);

        for container in marks {
            unmark(P, container, &mut writes);
        }
        store.apply(&mut writes).unwrap();
        let snapshot = store.snapshot();
        assert_eq!(marked(&snapshot, P, 100).unwrap(), []);
        assert_eq!(count(&snapshot, P).unwrap(), Some(7));
        assert_eq!(marked(&snapshot, Partition(3), 100).unwrap().len(), 1);
    }
}
