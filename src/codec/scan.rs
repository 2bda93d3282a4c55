//! The walk over a record's JSON: remembers the raw text of what may be read, skips the rest without building it.

use super::document::{Found, Level, Row, Table};
use super::scalar::Raw;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;

/// Fills `outer` from the text, which is one JSON value, and `inner` from the object at its key `payload`.
pub(super) fn scan<'a, T: Table>(
    text: &'a str,
    outer: &mut Level<'a>,
    inner: &mut Level<'a>,
) -> serde_json::Result<Found> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = LevelSeed::<T> {
        level: outer,
        payload: Some(inner),
        table: PhantomData,
    }
    .deserialize(&mut json)?;
    json.end()?;
    Ok(found)
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
