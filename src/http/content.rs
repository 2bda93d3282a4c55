//! `GET /v1/content`, and one row by its id.

use super::Served;
use super::cursor::{Cursors, PLACE};
use super::params::{Params, content_id, last_segment};
use super::problem::Problem;
use super::reads::failed;
use crate::codec::decode_content_row;
use crate::domain::{ContentRow, ContentType, ContentVersion, Offset, Partition};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use thmanyah_state::{Direction, Table};

const MOST_ITEMS: usize = 1000;
const DEFAULT_ITEMS: usize = 100;
/// A page ends once it has this many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Bytes of a row's version, in front of the encoded row: partition and offset of the changelog, big-endian.
const VERSION: usize = 12;

/// A content row as clients see it.
#[derive(Serialize)]
struct Item<'r> {
    id: String,
    slug: Option<&'r str>,
    title: Option<&'r str>,
    content_type: Option<&'static str>,
    length_seconds: Option<i32>,
    publish_ts: Option<String>,
}

/// Answers a page of rows in order of their ids.
pub(super) async fn list(State(served): State<Arc<Served>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::read(uri.query(), &["limit", "cursor"])?;
    let limit = params.count("limit", MOST_ITEMS)?.unwrap_or(DEFAULT_ITEMS);
    let key = served.cursor_key;
    let after = params
        .text("cursor")
        .map(|cursor| cursors(&key).open(cursor))
        .transpose()?;
    served.refuse_partial_content()?;
    let body = served
        .reads
        .run(move |store| {
            let snapshot = store.snapshot();
            let start = after.map_or_else(Vec::new, |id| [id.as_slice(), &[0]].concat());
            // No id is longer than 16 bytes, so this is above all.
            let end = [u8::MAX; 17];
            let mut scan = snapshot
                .scan(Table::Content, &start, &end, Direction::Forward)
                .map_err(|error| failed(&error))?;
            let mut body = b"{\"items\":[".to_vec();
            let mut count = 0;
            let mut last = None;
            let mut next = None;
            while let Some((id, value)) = scan.next().map_err(|error| failed(&error))? {
                if count == limit || body.len() > PAGE_BYTES {
                    next = last.map(|place| cursors(&key).seal(&place));
                    break;
                }
                let (row, _) = decode(value)?;
                if count > 0 {
                    body.push(b',');
                }
                append(&row, &mut body)?;
                count += 1;
                last = <[u8; PLACE]>::try_from(id).ok();
            }
            let next = serde_json::Value::from(next);
            body.extend_from_slice(format!("],\"next_cursor\":{next}}}").as_bytes());
            Ok(body)
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Rows have one query only.
fn cursors(key: &[u8; 32]) -> Cursors<'_> {
    Cursors::new(key, b"content".to_vec())
}

/// Answers one row, with its version in the changelog as the entity tag.
pub(super) async fn one(
    State(served): State<Arc<Served>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Params::read(uri.query(), &[])?;
    let id = content_id(&last_segment(uri.path())?)?;
    served.refuse_partial_content()?;
    let found = served
        .reads
        .run(move |store| {
            let read = store.get(Table::Content, &id.0, |value| {
                let (row, version) = decode(value)?;
                let mut body = Vec::new();
                append(&row, &mut body)?;
                Ok((body, version))
            });
            read.map_err(|error| failed(&error))?.transpose()
        })
        .await?;
    let Some((body, version)) = found else {
        return Err(Problem::not_found(format!("there is no content {id}")));
    };
    let tag = format!("\"{}:{}\"", version.partition, version.offset);
    let unchanged = matches_tag(&headers, &tag);
    let tag = HeaderValue::try_from(tag).map_err(|_| Problem::internal())?;
    if unchanged {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind), (header::ETAG, tag)], body).into_response())
}

/// Whether `If-None-Match` names this tag, or any.
fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

/// A row and the version that wrote it.
fn decode(value: &[u8]) -> Result<(ContentRow, ContentVersion), Problem> {
    let read = || {
        let (version, row) = value.split_first_chunk::<VERSION>()?;
        let (partition, offset) = version.split_first_chunk::<4>()?;
        let version = ContentVersion {
            partition: Partition(i32::from_be_bytes(*partition)),
            offset: Offset(i64::from_be_bytes(offset.try_into().ok()?)),
        };
        Some((decode_content_row(row).ok()?, version))
    };
    read().ok_or_else(|| {
        tracing::error!("a stored content row cannot be read");
        Problem::internal()
    })
}

fn append(row: &ContentRow, body: &mut Vec<u8>) -> Result<(), Problem> {
    let item = Item {
        id: row.id.to_string(),
        slug: row.slug.as_deref(),
        title: row.title.as_deref(),
        content_type: row.content_type.map(ContentType::name),
        length_seconds: row.length_seconds,
        publish_ts: row.publish_ts.map(|at| at.to_string()),
    };
    serde_json::to_writer(body, &item).map_err(|_| Problem::internal())
}

impl Served {
    /// Refuses while the table is being restored: a row that is not here yet is no row that does not exist.
    fn refuse_partial_content(&self) -> Result<(), Problem> {
        match self.health.component("content") {
            Some(content) if !content.ready => Err(Problem::unavailable(
                format!(
                    "content is being restored, {} records are left",
                    content.left
                ),
                1,
            )),
            _ => Ok(()),
        }
    }
}
