//! One pass over a Debezium record: finds which of the three shapes it has, and keeps the raw text of every field that
//! is read. Nothing is judged here but JSON itself, and nothing is copied.

use super::scalar::Raw;
use super::text::checked_text;
use crate::domain::{DeadLetter, Reason};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;

/// The most columns that a table has.
const COLUMNS: usize = 7;

/// A table, as far as the parser knows it: which of its columns are read.
pub(super) trait Table {
    /// Names of the columns that are read, in the table's order.
    const NAMES: &'static [&'static str];

    /// The place of a column in [`NAMES`](Self::NAMES).
    fn column(name: &str) -> Option<usize>;
}

/// The fields of a row that were found, as raw JSON.
#[derive(Default)]
pub(super) struct Row<'a> {
    columns: [Option<Raw<'a>>; COLUMNS],
    /// `__op`, in a flattened row.
    pub(super) op: Option<Raw<'a>>,
    /// `__deleted`, in a flattened row.
    pub(super) deleted: Option<Raw<'a>>,
    /// The first key that stands here twice.
    duplicate: Option<&'static str>,
    found: bool,
}

impl<'a> Row<'a> {
    /// The raw text of a column; `None` when the row does not have it.
    pub(super) fn column(&self, column: usize) -> Option<Raw<'a>> {
        self.columns.get(column).copied().flatten()
    }

    fn put<T: Table>(&mut self, column: usize, raw: Raw<'a>) {
        if let Some(slot) = self.columns.get_mut(column) {
            if slot.replace(raw).is_some() {
                self.repeated(T::NAMES.get(column).copied().unwrap_or_default());
            }
            self.found = true;
        }
    }

    fn repeated(&mut self, name: &'static str) {
        self.duplicate.get_or_insert(name);
    }
}

/// What JSON value stands at a key that should hold an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// The key is not there.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// An object.
    Object,
    /// Anything else, by its name.
    Other(&'static str),
}

/// Every key of one object that could matter in any shape.
#[derive(Default)]
struct Level<'a> {
    row: Row<'a>,
    after: Row<'a>,
    op: Option<Raw<'a>>,
    after_found: Found,
    before: bool,
    schema: bool,
    payload: Found,
    /// The first of `op` and `after` that stands here twice.
    duplicate: Option<&'static str>,
    payload_twice: bool,
}

impl Level<'_> {
    fn is_envelope(&self) -> bool {
        self.before || self.op.is_some() || self.after_found != Found::Absent
    }

    /// `schema` beside `payload`, or a `payload` alone: a column of that name in a flattened row wraps nothing.
    fn is_wrapper(&self) -> bool {
        matches!(self.payload, Found::Object)
            && (self.schema || !(self.is_envelope() || self.row.found))
    }
}

/// A record, told apart by structure.
pub(super) enum Shape<'d, 'a> {
    /// Debezium's full envelope.
    Envelope {
        /// `op`, if it is there.
        op: Option<Raw<'a>>,
        /// What stands at `after`.
        found: Found,
        /// The fields of `after`.
        after: &'d Row<'a>,
    },
    /// The row that `ExtractNewRecordState` leaves.
    Flattened(&'d Row<'a>),
}

/// A parsed record, before its shape is looked at.
#[derive(Default)]
pub(super) struct Document<'a> {
    outer: Level<'a>,
    /// The object at `payload`.
    inner: Level<'a>,
}

impl<'a> Document<'a> {
    /// Parses the bytes of a record whose rows are of table `T`.
    pub(super) fn parse<T: Table>(bytes: &'a [u8]) -> Result<Self, DeadLetter> {
        let text = checked_text(bytes)?;
        let mut document = Self::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let seed = LevelSeed::<T> {
            level: &mut document.outer,
            payload: Some(&mut document.inner),
            table: PhantomData,
        };
        let found = seed
            .deserialize(&mut json)
            .and_then(|found| json.end().map(|()| found))
            .map_err(|error| DeadLetter::new(Reason::NotJson, error.to_string()))?;
        match found {
            Found::Object => Ok(document),
            Found::Other(kind) => Err(unknown_shape(format!("{kind}, not an object"))),
            Found::Null | Found::Absent => Err(unknown_shape("null, not an object".into())),
        }
    }

    /// The object that holds the record: the wrapper's payload, or the document itself.
    fn record(&self) -> Result<&Level<'a>, DeadLetter> {
        if !self.outer.is_wrapper() {
            return Ok(&self.outer);
        }
        if self.outer.payload_twice {
            return Err(duplicate_key("payload"));
        }
        Ok(&self.inner)
    }

    /// Tells the shape, and refuses a key that is read in this shape and stands twice.
    pub(super) fn shape(&self) -> Result<Shape<'_, 'a>, DeadLetter> {
        let level = self.record()?;
        let (shape, duplicate) = if level.is_envelope() {
            let shape = Shape::Envelope {
                op: level.op,
                found: level.after_found,
                after: &level.after,
            };
            (shape, level.duplicate.or(level.after.duplicate))
        } else if level.row.found {
            (Shape::Flattened(&level.row), level.row.duplicate)
        } else {
            return Err(unknown_shape(
                "an object that is neither an envelope nor a row".into(),
            ));
        };
        match duplicate {
            Some(name) => Err(duplicate_key(name)),
            None => Ok(shape),
        }
    }

    /// The fields of a record key, which is an object of the key's columns, plain or wrapped.
    pub(super) fn key_row(&self) -> Result<&Row<'a>, DeadLetter> {
        let row = &self.record()?.row;
        match row.duplicate {
            Some(name) => Err(duplicate_key(name)),
            None => Ok(row),
        }
    }
}

fn unknown_shape(detail: String) -> DeadLetter {
    DeadLetter::new(Reason::UnknownShape, detail)
}

fn duplicate_key(name: &str) -> DeadLetter {
    DeadLetter::new(Reason::DuplicateKey, format!("{name} stands twice"))
}

/// A key of an object that may be read.
enum Key {
    Column(usize),
    RowOp,
    RowDeleted,
    Op,
    After,
    Before,
    Schema,
    Payload,
    Unknown,
}

struct KeySeed<T>(PhantomData<T>);

impl<'de, T: Table> DeserializeSeed<'de> for KeySeed<T> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl<T: Table> Visitor<'_> for KeySeed<T> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(match name {
            "op" => Key::Op,
            "after" => Key::After,
            "before" => Key::Before,
            "schema" => Key::Schema,
            "payload" => Key::Payload,
            "__op" => Key::RowOp,
            "__deleted" => Key::RowDeleted,
            _ => T::column(name).map_or(Key::Unknown, Key::Column),
        })
    }
}

/// The other JSON types than an object, for both seeds: consumed, and told by name.
macro_rules! found_other {
    ($expecting:literal) => {
        type Value = Found;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($expecting)
        }

        fn visit_unit<E>(self) -> Result<Found, E> {
            Ok(Found::Null)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
            Ok(Found::Other("a boolean"))
        }

        fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
            Ok(Found::Other("a number"))
        }

        fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
            Ok(Found::Other("a number"))
        }

        fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
            Ok(Found::Other("a number"))
        }

        fn visit_str<E>(self, _: &str) -> Result<Found, E> {
            Ok(Found::Other("a string"))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Found::Other("an array"))
        }
    };
}

fn raw<'a, A: MapAccess<'a>>(map: &mut A) -> Result<Raw<'a>, A::Error> {
    map.next_value::<&RawValue>().map(|value| Raw(value.get()))
}

/// Fills a level from an object; `payload` is where a nested level goes, and absent inside of one.
struct LevelSeed<'d, 'a, T> {
    level: &'d mut Level<'a>,
    payload: Option<&'d mut Level<'a>>,
    table: PhantomData<T>,
}

impl<'de, T: Table> DeserializeSeed<'de> for LevelSeed<'_, 'de, T> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Table> Visitor<'de> for LevelSeed<'_, 'de, T> {
    found_other!("a record");

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Found, A::Error> {
        let level = self.level;
        while let Some(key) = map.next_key_seed(KeySeed::<T>(PhantomData))? {
            match key {
                Key::Column(column) => level.row.put::<T>(column, raw(&mut map)?),
                Key::RowOp => {
                    if level.row.op.replace(raw(&mut map)?).is_some() {
                        level.row.repeated("__op");
                    }
                    level.row.found = true;
                }
                Key::RowDeleted => {
                    if level.row.deleted.replace(raw(&mut map)?).is_some() {
                        level.row.repeated("__deleted");
                    }
                    level.row.found = true;
                }
                Key::Op => {
                    if level.op.replace(raw(&mut map)?).is_some() {
                        level.duplicate.get_or_insert("op");
                    }
                }
                Key::After => {
                    if level.after_found != Found::Absent {
                        level.duplicate.get_or_insert("after");
                    }
                    let row = &mut level.after;
                    let table = PhantomData::<T>;
                    level.after_found = map.next_value_seed(AfterSeed { row, table })?;
                }
                Key::Before => {
                    level.before = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Schema => {
                    level.schema = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Payload => match self.payload.as_deref_mut() {
                    Some(inner) => {
                        level.payload_twice |= level.payload != Found::Absent;
                        let found = map.next_value_seed(LevelSeed::<T> {
                            level: inner,
                            payload: None,
                            table: PhantomData,
                        })?;
                        // An object stays one, so that a second `payload` cannot hide it.
                        if level.payload != Found::Object {
                            level.payload = found;
                        }
                    }
                    None => drop(map.next_value::<IgnoredAny>()?),
                },
                Key::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Found::Object)
    }
}

/// Fills a row from the object at `after`.
struct AfterSeed<'d, 'a, T> {
    row: &'d mut Row<'a>,
    table: PhantomData<T>,
}

impl<'de, T: Table> DeserializeSeed<'de> for AfterSeed<'_, 'de, T> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Table> Visitor<'de> for AfterSeed<'_, 'de, T> {
    found_other!("a row");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed::<T>(PhantomData))? {
            match key {
                Key::Column(column) => self.row.put::<T>(column, raw(&mut map)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Found::Object)
    }
}
