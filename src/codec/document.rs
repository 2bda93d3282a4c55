//! One pass over a Debezium record: finds which of the three shapes it has, and keeps the raw text of every field that
//! is read. Nothing is judged here but JSON itself, and nothing is copied.

use super::scalar::Raw;
use super::scan::scan;
use super::text::checked_text;
use crate::domain::{DeadLetter, Reason};

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
    /// Whether any key of a flattened row was found.
    pub(super) found: bool,
}

impl<'a> Row<'a> {
    /// The raw text of a column; `None` when the row does not have it.
    pub(super) fn column(&self, column: usize) -> Option<Raw<'a>> {
        self.columns.get(column).copied().flatten()
    }

    /// Keeps a column, and notes when it was there already.
    pub(super) fn put<T: Table>(&mut self, column: usize, raw: Raw<'a>) {
        if let Some(slot) = self.columns.get_mut(column) {
            if slot.replace(raw).is_some() {
                self.repeated(T::NAMES.get(column).copied().unwrap_or_default());
            }
            self.found = true;
        }
    }

    /// Notes a key that stands here twice.
    pub(super) fn repeated(&mut self, name: &'static str) {
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
pub(super) struct Level<'a> {
    /// The columns, and what a flattened row has beside them.
    pub(super) row: Row<'a>,
    /// The columns inside `after`.
    pub(super) after: Row<'a>,
    /// What stands at `after`.
    pub(super) after_found: Found,
    /// `op` of an envelope.
    pub(super) op: Option<Raw<'a>>,
    /// Whether there is a `before`; it is never read for values.
    pub(super) before: bool,
    /// Whether there is a `schema`.
    pub(super) schema: bool,
    /// What stands at `payload`.
    pub(super) payload: Found,
    /// The first of `op` and `after` that stands here twice.
    pub(super) duplicate: Option<&'static str>,
    /// Whether `payload` stands here twice.
    pub(super) payload_twice: bool,
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
        let found = scan::<T>(text, &mut document.outer, &mut document.inner)
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
