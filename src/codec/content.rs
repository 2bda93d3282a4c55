//! `content.raw`: from a record to what it does to a content row.

use super::document::{Document, Row, Shape, Table};
use super::event::{Operation, deleted, operation, row_is_there};
use super::scalar::{Field, TimeMode};
use super::text::excerpt;
use crate::domain::{ContentId, ContentRow, ContentType, DeadLetter, Reason, Timestamp};

/// What Debezium writes for a large column that an update did not touch.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// What a content record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentChange {
    /// The row is written.
    Upsert(ContentPatch),
    /// The row is deleted, whether it was known or not.
    Delete(ContentId),
}

/// One column of an upsert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column<T> {
    /// The column's new value.
    Value(Option<T>),
    /// The record does not carry the value: the prior one is kept.
    Kept,
}

/// A content row as a record tells it: complete, but for columns that keep their prior value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentPatch {
    /// Primary key.
    pub id: ContentId,
    /// URL name.
    pub slug: Column<String>,
    /// Title, any language.
    pub title: Column<String>,
    /// Kind.
    pub content_type: Column<ContentType>,
    /// Length in seconds, never negative.
    pub length_seconds: Column<i32>,
    /// When it was published.
    pub publish_ts: Column<Timestamp>,
    /// Whether `publish_ts` was `infinity` or `-infinity`, which is read as null.
    pub infinite_publish_ts: bool,
}

/// What [`ContentPatch::resolve`] did about the columns that the record did not carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Columns that kept their prior value (which may be null).
    pub kept: u32,
    /// Columns that became null, because there was no prior row.
    pub lost: u32,
}

impl ContentPatch {
    /// The row after this change, given the row before it.
    pub fn resolve(self, prior: Option<&ContentRow>) -> (ContentRow, Resolution) {
        let mut resolution = Resolution::default();
        let row = ContentRow {
            id: self.id,
            slug: resolution.column(self.slug, prior.map(|row| &row.slug)),
            title: resolution.column(self.title, prior.map(|row| &row.title)),
            content_type: resolution.column(self.content_type, prior.map(|row| &row.content_type)),
            length_seconds: resolution
                .column(self.length_seconds, prior.map(|row| &row.length_seconds)),
            publish_ts: resolution.column(self.publish_ts, prior.map(|row| &row.publish_ts)),
        };
        (row, resolution)
    }

    /// Whether any column keeps its prior value, so that the prior row has to be read.
    pub fn needs_prior(&self) -> bool {
        matches!(self.slug, Column::Kept)
            || matches!(self.title, Column::Kept)
            || matches!(self.content_type, Column::Kept)
            || matches!(self.length_seconds, Column::Kept)
            || matches!(self.publish_ts, Column::Kept)
    }
}

impl Resolution {
    fn column<T: Clone>(&mut self, column: Column<T>, prior: Option<&Option<T>>) -> Option<T> {
        match (column, prior) {
            (Column::Value(value), _) => value,
            (Column::Kept, Some(prior)) => {
                self.kept += 1;
                prior.clone()
            }
            (Column::Kept, None) => {
                self.lost += 1;
                None
            }
        }
    }
}

struct Content;

impl Table for Content {
    const NAMES: &'static [&'static str] = &[
        "id",
        "slug",
        "title",
        "content_type",
        "length_seconds",
        "publish_ts",
    ];

    #[inline]
    fn column(name: &str) -> Option<usize> {
        Some(match name {
            "id" => 0,
            "slug" => 1,
            "title" => 2,
            "content_type" => 3,
            "length_seconds" => 4,
            "publish_ts" => 5,
            _ => return None,
        })
    }
}

/// Decodes a content record. The key is read only where a delete does not carry its id in a row.
pub fn decode_content(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    time: TimeMode,
) -> Result<ContentChange, DeadLetter> {
    let Some(bytes) = value else {
        return id_of_key(key).map(ContentChange::Delete);
    };
    let document = Document::parse::<Content>(bytes)?;
    let row = match document.shape()? {
        Shape::Flattened(row) => {
            // Looked at before any column: a deleted row's columns hold defaults.
            let is_deleted = deleted(row)?
                || match row.op {
                    Some(op) => operation(Some(op))? == Operation::Delete,
                    None => false,
                };
            if is_deleted {
                let id = match field(row, 0).uuid(ContentId::parse)? {
                    Some(id) => id,
                    None => id_of_key(key)?,
                };
                return Ok(ContentChange::Delete(id));
            }
            row
        }
        Shape::Envelope { op, found, after } => {
            if operation(op)? == Operation::Delete {
                return id_of_key(key).map(ContentChange::Delete);
            }
            row_is_there(found)?;
            after
        }
    };
    patch(row, time).map(ContentChange::Upsert)
}

fn id_of_key(key: Option<&[u8]>) -> Result<ContentId, DeadLetter> {
    let about_key = |dead: DeadLetter| DeadLetter {
        reason: dead.reason,
        detail: format!("record key: {}", dead.detail).into(),
    };
    let missing = || {
        DeadLetter::new(
            Reason::FieldMissing,
            "id: neither in a row nor in the record key",
        )
    };
    let key = Document::parse::<Content>(key.ok_or_else(missing)?).map_err(about_key)?;
    let row = key.key_row().map_err(about_key)?;
    field(row, 0)
        .uuid(ContentId::parse)
        .map_err(about_key)?
        .ok_or_else(missing)
}

fn field<'a>(row: &Row<'a>, column: usize) -> Field<'a> {
    let name = Content::NAMES.get(column).copied().unwrap_or_default();
    Field::new(name, row.column(column))
}

/// Judges the columns, in the table's order.
fn patch(row: &Row<'_>, time: TimeMode) -> Result<ContentPatch, DeadLetter> {
    let id = field(row, 0);
    let id = id.required(id.uuid(ContentId::parse)?)?;
    let slug = text(field(row, 1))?;
    let title = text(field(row, 2))?;
    let content_type = content_type(field(row, 3))?;
    let length_seconds = Column::Value(field(row, 4).count()?);
    let (publish_ts, infinite_publish_ts) = publish_ts(field(row, 5), time)?;
    Ok(ContentPatch {
        id,
        slug,
        title,
        content_type,
        length_seconds,
        publish_ts,
        infinite_publish_ts,
    })
}

fn text(field: Field<'_>) -> Result<Column<String>, DeadLetter> {
    let text = field.text()?;
    if text.as_deref() == Some(UNAVAILABLE) {
        return Ok(Column::Kept);
    }
    Ok(Column::Value(text.map(std::borrow::Cow::into_owned)))
}

fn content_type(field: Field<'_>) -> Result<Column<ContentType>, DeadLetter> {
    let Some(name) = field.text()? else {
        return Ok(Column::Value(None));
    };
    if name == UNAVAILABLE {
        return Ok(Column::Kept);
    }
    match ContentType::from_name(&name) {
        Some(kind) => Ok(Column::Value(Some(kind))),
        None => Err(field.dead(Reason::UnknownContentType, &excerpt(&name))),
    }
}

/// The time, and whether it was infinite.
fn publish_ts(field: Field<'_>, mode: TimeMode) -> Result<(Column<Timestamp>, bool), DeadLetter> {
    // Both markers are texts, also on a topic that declares integers.
    if let Ok(Some(text)) = field.text() {
        match &*text {
            UNAVAILABLE => return Ok((Column::Kept, false)),
            "infinity" | "-infinity" => return Ok((Column::Value(None), true)),
            _ => {}
        }
    }
    Ok((Column::Value(field.time(mode)?), false))
}
