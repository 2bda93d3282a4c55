//! The simulated disk: tables in memory whose last writes can be taken back, as a loss of power takes them, or a real store
//! whose write-ahead log can be cut.

use super::edge::SimEdge;
use super::rocks::Rocks;
use super::schedule::Point;
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use thmanyah_state::{
    Direction, Error, Moment, Position, Rows, Scan, Snapshot, Table, Tables, WriteSet,
};

/// Applied sets that a loss of power may take back.
const UNSYNCED: usize = 48;
/// Tag of a position's key.
const POSITION: u8 = 0;
/// Tag of a row's key.
const ROW: u8 = 1;

type Key = (u8, Vec<u8>);
type Map = BTreeMap<Key, Vec<u8>>;

/// The disk of one instance, as one process uses it.
#[derive(Clone)]
pub(super) struct Disk {
    /// What it is made of.
    pub(super) kind: Kind,
    /// The process that may die in the middle of a write; none for the oracle.
    pub(super) process: Option<SimEdge>,
}

/// What a disk is made of.
#[derive(Clone)]
pub(super) enum Kind {
    /// Tables in memory.
    Memory(Memory),
    /// A real store.
    Rocks(Rocks),
}

impl Disk {
    fn reach(&self, point: Point) {
        if let Some(process) = &self.process {
            process.reach(point);
        }
    }

    /// A death in the middle of a write finds it done or not done: a set is atomic.
    fn inside(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.reach(Point::BeforeApply);
        let dies = self.process.as_ref().and_then(SimEdge::dies_inside_apply);
        if dies == Some(false) {
            self.reach(Point::InsideApply);
        }
        write()?;
        if dies == Some(true) {
            self.reach(Point::InsideApply);
        }
        self.reach(Point::AfterApply);
        Ok(())
    }
}

/// Tables in memory.
#[derive(Clone, Default)]
pub(super) struct Memory(Rc<RefCell<Written>>);

#[derive(Default)]
struct Written {
    rows: Rc<Map>,
    /// What each of the last sets replaced.
    undo: Vec<Vec<(Key, Option<Vec<u8>>)>>,
}

impl Written {
    fn change(&mut self, changes: impl IntoIterator<Item = (Key, Change)>) {
        let rows = Rc::make_mut(&mut self.rows);
        let mut undo = Vec::new();
        for (key, change) in changes {
            let new = match change {
                Change::Put(value) => Some(value),
                Change::Unite(value) => Some(match rows.get(&key) {
                    Some(old) => united(old, &value),
                    None => value,
                }),
                Change::Delete => None,
            };
            let old = match new {
                Some(value) => rows.insert(key.clone(), value),
                None => rows.remove(&key),
            };
            undo.push((key, old));
        }
        if self.undo.len() >= UNSYNCED {
            self.undo.remove(0);
        }
        self.undo.push(undo);
    }
}

enum Change {
    Put(Vec<u8>),
    Unite(Vec<u8>),
    Delete,
}

fn united(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut all = RoaringBitmap::deserialize_from(a).unwrap_or_default();
    all |= RoaringBitmap::deserialize_from(b).unwrap_or_default();
    let mut bytes = Vec::with_capacity(all.serialized_size());
    // Writing into memory does not fail.
    let _ = all.serialize_into(&mut bytes);
    bytes
}

fn key(table: Table, tag: u8, rest: &[u8]) -> Key {
    let mut bytes = Vec::with_capacity(rest.len() + 1);
    bytes.push(tag);
    bytes.extend_from_slice(rest);
    (table as u8, bytes)
}

impl Memory {
    /// Takes back the last sets; says how many were lost.
    pub(super) fn fall_back(&self, sets: usize) -> usize {
        let mut written = self.0.borrow_mut();
        let mut lost = 0;
        while lost < sets
            && let Some(undo) = written.undo.pop()
        {
            let rows = Rc::make_mut(&mut written.rows);
            for (key, old) in undo.into_iter().rev() {
                match old {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
            lost += 1;
        }
        lost
    }
}

impl Tables for Disk {
    type Moment<'t> = View<'t>;

    fn get<R>(
        &self,
        table: Table,
        row: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        match &self.kind {
            Kind::Memory(memory) => {
                let written = memory.0.borrow();
                Ok(written.rows.get(&key(table, ROW, row)).map(|v| read(v)))
            }
            Kind::Rocks(rocks) => rocks.store.get(table, row, read),
        }
    }

    fn position(&self, table: Table, partition: i32) -> Result<Option<Position>, Error> {
        match &self.kind {
            Kind::Memory(memory) => {
                let key = key(table, POSITION, &partition.to_be_bytes());
                let written = memory.0.borrow();
                Ok(written.rows.get(&key).and_then(|v| Position::decode(v)))
            }
            Kind::Rocks(rocks) => rocks.store.position(table, partition),
        }
    }

    fn apply(&self, writes: &mut WriteSet) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        self.inside(|| match &self.kind {
            Kind::Memory(memory) => {
                let changes = writes.writes().map(|write| {
                    let change = match write.value {
                        Some(value) if write.merge => Change::Unite(value.to_vec()),
                        Some(value) => Change::Put(value.to_vec()),
                        None => Change::Delete,
                    };
                    ((write.table as u8, write.key.to_vec()), change)
                });
                memory.0.borrow_mut().change(changes);
                writes.clear();
                Ok(())
            }
            Kind::Rocks(rocks) => rocks.store.apply(writes),
        })
    }

    fn drop_partition(&self, table: Table, prefix: &[u8], partition: i32) -> Result<(), Error> {
        self.inside(|| match &self.kind {
            Kind::Memory(memory) => {
                let from = key(table, ROW, prefix);
                let mut written = memory.0.borrow_mut();
                let rows = written.rows.range(from.clone()..);
                let mut gone: Vec<Key> = rows
                    .map(|(key, _)| key)
                    .take_while(|key| key.0 == from.0 && key.1.starts_with(&from.1))
                    .cloned()
                    .collect();
                gone.push(key(table, POSITION, &partition.to_be_bytes()));
                written.change(gone.into_iter().map(|key| (key, Change::Delete)));
                Ok(())
            }
            Kind::Rocks(rocks) => rocks.store.drop_partition(table, prefix, partition),
        })
    }

    fn estimated_rows(&self, table: Table) -> u64 {
        match &self.kind {
            Kind::Memory(memory) => {
                let written = memory.0.borrow();
                let rows = written.rows.keys().filter(|key| key.0 == table as u8);
                rows.count() as u64
            }
            Kind::Rocks(rocks) => rocks.store.estimated_rows(table),
        }
    }

    fn snapshot(&self) -> View<'_> {
        match &self.kind {
            Kind::Memory(memory) => View::Memory(Rc::clone(&memory.0.borrow().rows)),
            Kind::Rocks(rocks) => View::Rocks(rocks.store.snapshot()),
        }
    }
}

/// A read view of one moment.
pub(super) enum View<'t> {
    /// Of tables in memory.
    Memory(Rc<Map>),
    /// Of a real store.
    Rocks(Snapshot<'t>),
}

impl Moment for View<'_> {
    type Rows<'m>
        = Cursor<'m>
    where
        Self: 'm;

    fn get<R>(
        &self,
        table: Table,
        row: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        match self {
            Self::Memory(rows) => Ok(rows.get(&key(table, ROW, row)).map(|v| read(v))),
            Self::Rocks(snapshot) => snapshot.get(table, row, read),
        }
    }

    fn rows(&self, table: Table, start: &[u8], end: &[u8]) -> Result<Cursor<'_>, Error> {
        match self {
            Self::Memory(rows) => {
                let (start, end) = (key(table, ROW, start), key(table, ROW, end));
                let bounds = if start < end {
                    (Bound::Included(start), Bound::Excluded(end))
                } else {
                    (Bound::Included(start.clone()), Bound::Excluded(start))
                };
                Ok(Cursor::Memory(rows.range(bounds)))
            }
            Self::Rocks(snapshot) => Ok(Cursor::Rocks(snapshot.scan(
                table,
                start,
                end,
                Direction::Forward,
            )?)),
        }
    }
}

/// A cursor over rows.
pub(super) enum Cursor<'m> {
    /// Of tables in memory.
    Memory(std::collections::btree_map::Range<'m, Key, Vec<u8>>),
    /// Of a real store.
    Rocks(Scan<'m>),
}

impl Rows for Cursor<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, Error> {
        match self {
            Self::Memory(rows) => {
                let row = rows.next();
                Ok(row.and_then(|(key, value)| Some((key.1.get(1..)?, value.as_slice()))))
            }
            Self::Rocks(scan) => scan.next(),
        }
    }
}
