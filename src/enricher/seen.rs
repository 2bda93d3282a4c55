//! The ids that a partition has published: what was committed, from the store, and what the open transaction adds.

use crate::domain::{Container, EventId};
use foldhash::{HashMap, HashSet};
use roaring::RoaringBitmap;

/// Containers kept decoded, each at most 8 KiB.
const CONTAINERS: usize = 1024;

/// A bounded cache of containers. Those that the open transaction added to stay until it ends: the store lacks these ids.
#[derive(Debug, Default)]
pub(super) struct Seen {
    containers: HashMap<Container, RoaringBitmap>,
    added_to: HashSet<Container>,
}

impl Seen {
    /// Whether the id was published. `load` gets a container from the store.
    pub(super) fn contains<E>(
        &mut self,
        id: EventId,
        load: impl FnOnce(Container) -> Result<RoaringBitmap, E>,
    ) -> Result<bool, E> {
        let number = Container::of(id);
        if let Some(container) = self.containers.get(&number) {
            return Ok(container.contains(id.place()));
        }
        if self.containers.len() >= CONTAINERS {
            // What is popular comes back at its next look-up.
            let added_to = &self.added_to;
            self.containers
                .retain(|number, _| added_to.contains(number));
        }
        let container = load(number)?;
        let found = container.contains(id.place());
        self.containers.insert(number, container);
        Ok(found)
    }

    /// Adds an id. IMPORTANT: right after [`contains`](Self::contains) was asked about it, which loads its container.
    pub(super) fn insert(&mut self, id: EventId) {
        let number = Container::of(id);
        self.added_to.insert(number);
        self.containers
            .entry(number)
            .or_default()
            .insert(id.place());
    }

    /// The open transaction was committed and applied.
    pub(super) fn committed(&mut self) {
        self.added_to.clear();
    }
}
