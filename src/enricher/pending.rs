//! The order in which parked events leave. Only the index lives in memory; the events themselves are in the store.

use crate::domain::{ContentId, EventId, Offset, ParkedEvent};
use foldhash::{HashMap, HashSet};
use std::collections::{BTreeSet, VecDeque};

/// One parked event's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    parked_at_ms: i64,
    raw_offset: Offset,
}

/// The parked events of one partition: by content in input order, and by deadline.
///
/// Both orders agree: of one content's events the first parked is the first to time out, because a later record is
/// never given an earlier time of parking. So one content's events always leave from the front of its queue.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ids: HashSet<EventId>,
    by_content: HashMap<ContentId, VecDeque<(Place, EventId)>>,
    by_deadline: BTreeSet<(Place, ContentId)>,
    woken: VecDeque<ContentId>,
    is_woken: HashSet<ContentId>,
    latest_parked_at_ms: i64,
}

impl Pending {
    /// How many events are parked.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the event is parked.
    pub(super) fn contains(&self, id: EventId) -> bool {
        !self.ids.is_empty() && self.ids.contains(&id)
    }

    /// Whether events of the content are parked.
    pub(super) fn waits_for(&self, content: ContentId) -> bool {
        !self.by_content.is_empty() && self.by_content.contains_key(&content)
    }

    /// The time of parking to give an event at `now_ms`: never before that of an earlier one, even if the clock stepped
    /// back.
    pub(super) fn parking_time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.latest_parked_at_ms)
    }

    /// Adds an event behind the others of its content. Events may come in any order during a restore.
    pub(super) fn park(&mut self, content: ContentId, event: &ParkedEvent<'_>) {
        let place = Place {
            parked_at_ms: event.parked_at_ms,
            raw_offset: event.raw_offset,
        };
        self.latest_parked_at_ms = self.latest_parked_at_ms.max(event.parked_at_ms);
        self.ids.insert(event.event.id);
        self.by_deadline.insert((place, content));
        let queue = self.by_content.entry(content).or_default();
        let at = queue.partition_point(|(other, _)| *other < place);
        queue.insert(at, (place, event.event.id));
    }

    /// The next event of the content to leave.
    pub(super) fn front(&self, content: ContentId) -> Option<EventId> {
        self.by_content.get(&content)?.front().map(|(_, id)| *id)
    }

    /// Removes the next event of the content.
    pub(super) fn leave(&mut self, content: ContentId) -> Option<EventId> {
        let queue = self.by_content.get_mut(&content)?;
        let (place, id) = queue.pop_front()?;
        if queue.is_empty() {
            self.by_content.remove(&content);
        }
        self.by_deadline.remove(&(place, content));
        self.ids.remove(&id);
        Some(id)
    }

    /// The content whose oldest event was parked first of all, and when.
    pub(super) fn first_deadline(&self) -> Option<(i64, ContentId)> {
        self.by_deadline
            .first()
            .map(|(place, content)| (place.parked_at_ms, *content))
    }

    /// Notes that a content may have arrived. Cheap when nothing waits for it.
    pub(super) fn wake(&mut self, content: ContentId) {
        if self.waits_for(content) && self.is_woken.insert(content) {
            self.woken.push_back(content);
        }
    }

    /// Notes that any content may have arrived: after a restore, an abort, or a wake-up queue that overflowed. The content
    /// whose events wait longest is looked up first.
    pub(super) fn wake_all(&mut self) {
        self.woken.clear();
        self.is_woken.clear();
        for (_, content) in &self.by_deadline {
            if self.is_woken.insert(*content) {
                self.woken.push_back(*content);
            }
        }
    }

    /// The content to look up next.
    pub(super) fn woken(&self) -> Option<ContentId> {
        self.woken.front().copied()
    }

    /// The content at the front was looked up, and what could leave has left.
    pub(super) fn settle(&mut self) {
        if let Some(content) = self.woken.pop_front() {
            self.is_woken.remove(&content);
        }
    }
}
