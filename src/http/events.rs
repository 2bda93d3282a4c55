//! `GET /v1/enriched-events`, and one event by its id.

use super::cursor::{Cursors, PLACE};
use super::params::{Params, last_segment};
use super::problem::{Problem, excerpt};
use super::reads::failed;
use super::{Served, now_ms, stream};
use crate::domain::{EventId, Timestamp};
use crate::recent::{EventKey, Filter, Limits, PageRequest, dropped_up_to, find, page};
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;
use thmanyah_state::{Snapshot, Store};

const PARAMETERS: [&str; 7] = [
    "from",
    "to",
    "content_id",
    "event_type",
    "limit",
    "cursor",
    "allow_partial",
];
/// The largest `limit`.
pub(super) const MOST_ITEMS: usize = 1000;
const DEFAULT_ITEMS: usize = 100;
/// A page holds no more than this, unless one item does.
pub(super) const PAGE_BYTES: usize = 8 << 20;
/// A page looks at no more rows than this. A filter that matches rarely then gives short pages, each with a cursor.
pub(super) const PAGE_ROWS: usize = 50_000;

/// A query for events, checked.
#[derive(Clone, Debug)]
pub(super) struct EventsQuery {
    from: Timestamp,
    to: Timestamp,
    filter: Filter,
    /// The limit, where one was given.
    pub(super) limit: Option<usize>,
    allow_partial: bool,
    pub(super) after: Option<EventKey>,
}

/// Where the rows of a query come from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    ready: Vec<i32>,
    missing: Vec<i32>,
    as_of_ms: Option<i64>,
}

/// Items of one read, each followed by the separator that was asked for.
pub(super) struct Items {
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
    pub(super) next: Option<EventKey>,
}

/// Answers a page, or streams when the client accepts lines.
pub(super) async fn list(
    State(served): State<Arc<Served>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = EventsQuery::read(uri.query(), &served.cursor_key)?;
    let sources = served.sources(query.allow_partial)?;
    if accepts_lines(&headers) {
        return Ok(stream::respond(served, query, sources));
    }
    let cursor_key = served.cursor_key;
    let body = served
        .reads
        .run(move |store| {
            let limit = query.limit.unwrap_or(DEFAULT_ITEMS);
            let mut items = query.items(store, &sources, limit, b',')?;
            items.bytes.pop();
            let mut body = Vec::with_capacity(items.bytes.len() + 256);
            body.extend_from_slice(b"{\"items\":[");
            body.extend_from_slice(&items.bytes);
            body.push(b']');
            let next = items.next.map(|next| query.seal(&cursor_key, next));
            append_members(&mut body, next, &sources);
            body.push(b'}');
            Ok(body)
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Answers one event.
pub(super) async fn one(State(served): State<Arc<Served>>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::read(uri.query(), &["allow_partial"])?;
    let allow_partial = params.flag("allow_partial")?;
    let text = last_segment(uri.path())?;
    let id = event_id(&text)?;
    // A search that finds needs no other partition; one that does not must have looked into all.
    let sources = served.sources(true)?;
    let ready = sources.ready.clone();
    let found = served
        .reads
        .run(move |store| {
            find(&store.snapshot(), &ready, id, <[u8]>::to_vec).map_err(|error| failed(&error))
        })
        .await?;
    match found {
        Some(json) => Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response()),
        None if sources.missing.is_empty() || allow_partial => Err(Problem::not_found(format!(
            "no event {id} is among the recent ones"
        ))),
        None => Err(missing(&sources.missing)),
    }
}

fn event_id(text: &str) -> Result<EventId, Problem> {
    text.parse()
        .ok()
        .map(EventId)
        .filter(|id| id.to_string() == text)
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "an event id is a whole number of 64 bits, not `{}`",
                excerpt(text)
            ))
        })
}

impl EventsQuery {
    fn read(query: Option<&str>, cursor_key: &[u8; 32]) -> Result<Self, Problem> {
        let params = Params::read(query, &PARAMETERS)?;
        let mut query = Self {
            from: params.time("from")?,
            to: params.time("to")?,
            filter: Filter {
                content_id: params.content_id("content_id")?,
                event_type: params.event_type("event_type")?,
            },
            limit: params.count("limit", MOST_ITEMS)?,
            allow_partial: params.flag("allow_partial")?,
            after: None,
        };
        if query.from > query.to {
            return Err(Problem::bad_request("`from` is after `to`"));
        }
        if let Some(cursor) = params.text("cursor") {
            let place = query.cursors(cursor_key).open(cursor)?;
            query.after = event_key(&place);
        }
        Ok(query)
    }

    /// Everything but the limit and the place, in one form.
    fn cursors<'k>(&self, key: &'k [u8; 32]) -> Cursors<'k> {
        let query = format!(
            "events {} {} {:?} {:?} {}",
            self.from.micros(),
            self.to.micros(),
            self.filter.content_id,
            self.filter.event_type.map(crate::domain::EventType::name),
            self.allow_partial
        );
        Cursors::new(key, query.into_bytes())
    }

    /// The cursor of the page after `next`.
    pub(super) fn seal(&self, key: &[u8; 32], next: EventKey) -> String {
        let mut place = [0; PLACE];
        let (ts, id) = place.split_at_mut(8);
        ts.copy_from_slice(&next.event_ts.micros().to_be_bytes());
        id.copy_from_slice(&next.event_id.0.to_be_bytes());
        self.cursors(key).seal(&place)
    }

    /// Reads items on a blocking thread.
    pub(super) fn items(
        &self,
        store: &Store,
        sources: &Sources,
        limit: usize,
        separator: u8,
    ) -> Result<Items, Problem> {
        let snapshot = store.snapshot();
        self.refuse_dropped(&snapshot, sources)?;
        let mut bytes = Vec::new();
        let request = PageRequest {
            partitions: &sources.ready,
            from: self.from,
            to: self.to,
            after: self.after,
            filter: self.filter,
            limits: Limits {
                items: limit,
                bytes: PAGE_BYTES,
                rows: PAGE_ROWS,
            },
        };
        let page = page(&snapshot, &request, |json| {
            bytes.extend_from_slice(json);
            bytes.push(separator);
        })
        .map_err(|error| failed(&error))?;
        Ok(Items {
            bytes,
            count: page.items,
            next: page.next,
        })
    }

    /// Refuses what may have lost rows to the sweep.
    fn refuse_dropped(&self, snapshot: &Snapshot<'_>, sources: &Sources) -> Result<(), Problem> {
        let begins = self.after.map_or(self.from, |after| after.event_ts);
        let dropped = dropped_up_to(snapshot, &sources.ready).map_err(|error| failed(&error))?;
        match dropped {
            Some(dropped) if self.from < self.to && begins <= dropped => {
                let available = Timestamp::from_micros(dropped.micros() + 1);
                let available = available.map(|at| at.to_string());
                let detail = available.as_ref().map_or_else(
                    || "recent events are kept for a limited time; none are left".to_owned(),
                    |at| format!("events are here from {at} on: set `from` to that or later"),
                );
                Err(Problem::no_longer_here(detail).with("available_from", available))
            }
            _ => Ok(()),
        }
    }
}

fn event_key(place: &[u8; PLACE]) -> Option<EventKey> {
    let (ts, id) = place.split_first_chunk::<8>()?;
    Some(EventKey {
        event_ts: Timestamp::from_micros(i64::from_be_bytes(*ts))?,
        event_id: EventId(i64::from_be_bytes(id.try_into().ok()?)),
    })
}

/// Appends what tells about the page: `next_cursor`, `as_of`, `staleness_ms`, and `missing_partitions` where there are any.
pub(super) fn append_members(body: &mut Vec<u8>, next: Option<String>, sources: &Sources) {
    let as_of = sources.as_of_ms.and_then(Timestamp::from_millis);
    let staleness = sources
        .as_of_ms
        .map(|as_of| now_ms().saturating_sub(as_of).max(0));
    let mut members = vec![
        ("next_cursor", Value::from(next)),
        ("as_of", Value::from(as_of.map(|at| at.to_string()))),
        ("staleness_ms", Value::from(staleness)),
    ];
    if !sources.missing.is_empty() {
        members.push(("missing_partitions", Value::from(sources.missing.clone())));
    }
    for (name, value) in members {
        body.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
    }
}

impl Served {
    /// The partitions to read: all of the topic, or those that are here when the client allows that.
    pub(super) fn sources(&self, allow_partial: bool) -> Result<Sources, Problem> {
        let Some(recent) = &self.recent else {
            let detail = "recent events are switched off on this instance (`recent.enabled`)";
            return Err(Problem::unavailable(detail, 300));
        };
        let status = recent();
        if status.failed.is_some() {
            let detail = "recent events are no longer followed here; the server's log says why";
            return Err(Problem::unavailable(detail, 30));
        }
        let count = *self.partitions.borrow();
        if count == 0 {
            let detail = "the number of partitions is not known yet";
            return Err(Problem::unavailable(detail, 1));
        }
        let (ready, missing_ones): (Vec<i32>, Vec<i32>) =
            (0..count).partition(|of| status.ready.contains(of));
        if !missing_ones.is_empty() && !allow_partial {
            return Err(missing(&missing_ones));
        }
        Ok(Sources {
            ready,
            missing: missing_ones,
            as_of_ms: status.as_of_ms,
        })
    }
}

fn missing(partitions: &[i32]) -> Problem {
    let names: Vec<String> = partitions.iter().map(i32::to_string).collect();
    let detail = format!(
        "partitions {} are not here, or not read to their end yet; `allow_partial=true` answers without them",
        names.join(", ")
    );
    Problem::unavailable(detail, 1).with("missing_partitions", partitions.to_vec())
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-ndjson")
        })
}
