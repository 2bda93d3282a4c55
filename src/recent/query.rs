//! Reading recent events: pages in order of time and id, merged over partitions, and one event by its id.

use super::keys;
use super::record::Head;
use super::sweep;
use crate::domain::{ContentId, EventId, EventType, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thmanyah_state::{Direction, Error, Scan, Snapshot, Table};

/// What events are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventKey {
    /// When it was done.
    pub event_ts: Timestamp,
    /// The event's id, compared as a number.
    pub event_id: EventId,
}

/// What events must have besides their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This content.
    pub content_id: Option<ContentId>,
    /// This type.
    pub event_type: Option<EventType>,
}

/// What one page may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items on the page.
    pub items: usize,
    /// Bytes of items; one item is given however large it is.
    pub bytes: usize,
    /// Rows looked at. A page that reaches this is short, and the next one goes on from there.
    pub rows: usize,
}

/// A page to read: events from `from` (in) to `to` (out), after `after`.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// The partitions to merge.
    pub partitions: &'a [i32],
    /// First time, in.
    pub from: Timestamp,
    /// Last time, out.
    pub to: Timestamp,
    /// Where the page before ended.
    pub after: Option<EventKey>,
    /// What else they must have.
    pub filter: Filter,
    /// What the page may cost.
    pub limits: Limits,
}

/// Where a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Number of items.
    pub items: usize,
    /// Where the next page goes on; `None` when this is the last one.
    pub next: Option<EventKey>,
}

/// Reads a page; `item` gets the enriched JSON of each event, byte for byte as it was published.
pub fn page(
    snapshot: &Snapshot<'_>,
    request: &PageRequest<'_>,
    mut item: impl FnMut(&[u8]),
) -> Result<Page, Error> {
    let mut merge = Merge::begin(snapshot, request)?;
    let content_id = request.filter.content_id.map(|id| id.text());
    let event_type = request.filter.event_type.map(EventType::name);
    let mut page = Page {
        items: 0,
        next: None,
    };
    let mut bytes = 0;
    let mut rows = 0;
    // The last row that the page accounts for, given or passed over.
    let mut last = None;
    while let Some((key, json)) = merge.next()? {
        if rows == request.limits.rows {
            page.next = last;
            break;
        }
        rows += 1;
        if matches(json, content_id.as_ref(), event_type) {
            let full = page.items == request.limits.items
                || (page.items > 0 && bytes + json.len() > request.limits.bytes);
            if full {
                page.next = last;
                break;
            }
            item(json);
            page.items += 1;
            bytes += json.len();
        }
        last = Some(key);
    }
    Ok(page)
}

/// Finds an event in the partitions, and gives its JSON to `read`.
pub fn find<R>(
    snapshot: &Snapshot<'_>,
    partitions: &[i32],
    id: EventId,
    read: impl FnOnce(&[u8]) -> R,
) -> Result<Option<R>, Error> {
    for partition in partitions {
        let by_id = keys::by_id(*partition, id);
        let found = snapshot.get(Table::Recent, &by_id, keys::time_of)?;
        let Some(event_ts) = found.flatten() else {
            continue;
        };
        let key = keys::event(*partition, event_ts.micros(), id.0);
        let value = snapshot.get(Table::Recent, &key, |value| {
            keys::event_value(value).map(|(_, json)| json.to_vec())
        })?;
        if let Some(json) = value.flatten() {
            return Ok(Some(read(&json)));
        }
    }
    Ok(None)
}

/// The highest `event_ts` that was dropped from any of the partitions: up to there, rows may be missing.
pub fn dropped_up_to(
    snapshot: &Snapshot<'_>,
    partitions: &[i32],
) -> Result<Option<Timestamp>, Error> {
    partitions.iter().try_fold(None, |highest, partition| {
        Ok(sweep::dropped(snapshot, *partition)?.max(highest))
    })
}

/// Whether an event has what is asked for.
fn matches(json: &[u8], content_id: Option<&[u8; 36]>, event_type: Option<&str>) -> bool {
    if content_id.is_none() && event_type.is_none() {
        return true;
    }
    Head::read(json).is_some_and(|head| {
        content_id.is_none_or(|id| head.content_id == Some(id.as_slice()))
            && event_type.is_none_or(|name| head.event_type == name.as_bytes())
    })
}

/// The rows of all partitions in one order.
struct Merge<'s> {
    sources: Vec<Source<'s>>,
    heads: BinaryHeap<Reverse<(EventKey, usize)>>,
    /// The source whose row was given last, which is read on only when the next row is asked for.
    given: Option<(EventKey, usize)>,
}

struct Source<'s> {
    scan: Scan<'s>,
    json: Vec<u8>,
}

impl<'s> Merge<'s> {
    fn begin(snapshot: &'s Snapshot<'_>, request: &PageRequest<'_>) -> Result<Self, Error> {
        let mut merge = Self {
            sources: Vec::with_capacity(request.partitions.len()),
            heads: BinaryHeap::with_capacity(request.partitions.len()),
            given: None,
        };
        for partition in request.partitions {
            let start = request.after.map_or_else(
                || keys::event(*partition, request.from.micros(), i64::MIN).to_vec(),
                |after| {
                    let mut key =
                        keys::event(*partition, after.event_ts.micros(), after.event_id.0).to_vec();
                    // The smallest key after that one.
                    key.push(0);
                    key
                },
            );
            let end = keys::event(*partition, request.to.micros(), i64::MIN);
            merge.sources.push(Source {
                scan: snapshot.scan(Table::Recent, &start, &end, Direction::Forward)?,
                json: Vec::new(),
            });
            merge.advance(merge.sources.len() - 1)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<(EventKey, &[u8])>, Error> {
        let before = self.given;
        if let Some((_, source)) = before {
            self.advance(source)?;
        }
        while let Some(Reverse((key, source))) = self.heads.pop() {
            // The same event in two partitions counts once: a page that ends between them would lose one anyway.
            if before.is_some_and(|(given, _)| given == key) {
                self.advance(source)?;
                continue;
            }
            self.given = Some((key, source));
            let json = self
                .sources
                .get(source)
                .map(|source| source.json.as_slice());
            return Ok(json.map(|json| (key, json)));
        }
        self.given = None;
        Ok(None)
    }

    /// Reads a source's next row and puts it among the heads.
    fn advance(&mut self, source: usize) -> Result<(), Error> {
        let Some(Source { scan, json }) = self.sources.get_mut(source) else {
            return Ok(());
        };
        while let Some((key, value)) = scan.next()? {
            let (Some((micros, id)), Some((_, found))) =
                (keys::event_of(key), keys::event_value(value))
            else {
                continue;
            };
            let Some(event_ts) = Timestamp::from_micros(micros) else {
                continue;
            };
            json.clear();
            json.extend_from_slice(found);
            let key = EventKey {
                event_ts,
                event_id: EventId(id),
            };
            self.heads.push(Reverse((key, source)));
            break;
        }
        Ok(())
    }
}
