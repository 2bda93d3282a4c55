//! The ids that a partition has published: what was committed, from the store, and what the open transaction adds.

use crate::domain::{Container, EventId};
use foldhash::{HashMap, HashSet};
use roaring::RoaringBitmap;

/// A bounded cache of containers as the store has them, and beside it the ids that the store lacks until the open
/// transaction is committed.
///
/// The cache has two generations, each of half its size. What is looked up belongs to the young one; when that is full, it
/// becomes the old one, and what nobody looked up meanwhile goes as a whole. So a miss costs the same however much is cached.
#[derive(Debug, Default)]
pub(super) struct Seen {
    young: HashMap<Container, RoaringBitmap>,
    old: HashMap<Container, RoaringBitmap>,
    added: HashSet<EventId>,
}

impl Seen {
    /// Whether the id was published. `load` gets a container from the store; up to `limit` of them are kept.
    pub(super) fn contains<E>(
        &mut self,
        id: EventId,
        limit: usize,
        load: impl FnOnce(Container) -> Result<RoaringBitmap, E>,
    ) -> Result<bool, E> {
        if self.added.contains(&id) {
            return Ok(true);
        }
        let number = Container::of(id);
        if let Some(container) = self.young.get(&number) {
            return Ok(container.contains(id.place()));
        }
        let container = match self.old.remove(&number) {
            Some(container) => container,
            None => load(number)?,
        };
        let found = container.contains(id.place());
        if self.young.len() >= (limit / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, container);
        Ok(found)
    }

    /// The open transaction publishes the id.
    pub(super) fn insert(&mut self, id: EventId) {
        self.added.insert(id);
    }

    /// The open transaction was committed and applied: the store has its ids now, and so must what is cached of it.
    pub(super) fn committed(&mut self) {
        for id in self.added.drain() {
            let number = Container::of(id);
            let cached = match self.young.get_mut(&number) {
                Some(container) => Some(container),
                None => self.old.get_mut(&number),
            };
            if let Some(container) = cached {
                container.insert(id.place());
            }
        }
    }

    #[cfg(test)]
    fn cached(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const LIMIT: usize = 16;

    /// Asks about one id of each of these containers, publishes those that are new, and says how many containers were
    /// loaded.
    fn publish(seen: &mut Seen, containers: impl Iterator<Item = i64>) -> usize {
        let mut loads = 0;
        for number in containers {
            let id = EventId(number << 16);
            let published = seen.contains(id, LIMIT, |_| {
                loads += 1;
                Ok::<_, Infallible>(RoaringBitmap::new())
            });
            if published == Ok(false) {
                seen.insert(id);
            }
        }
        loads
    }

    #[test]
    fn sparse_ids_of_one_transaction_are_all_known_in_a_cache_that_stays_small() {
        let mut seen = Seen::default();
        // Each id is looked up in a container of its own, long after every cached one was added to.
        assert_eq!(publish(&mut seen, 0..10_000), 10_000);
        assert!(seen.cached() <= LIMIT, "{} are cached", seen.cached());
        assert_eq!(
            publish(&mut seen, 0..10_000),
            0,
            "what the open transaction adds needs no store"
        );
        seen.committed();
        assert!(seen.cached() <= LIMIT && seen.added.is_empty());
    }

    #[test]
    fn what_was_committed_shows_in_what_is_cached() {
        let mut seen = Seen::default();
        publish(&mut seen, 0..4);
        seen.committed();
        for number in 0..4 {
            let known = seen.contains(EventId(number << 16), LIMIT, |_| Err(()));
            assert_eq!(known, Ok(true), "container {number} is cached");
        }
    }

    #[test]
    fn a_container_that_is_asked_for_again_and_again_is_loaded_once() {
        let mut seen = Seen::default();
        let mut popular = 0;
        for number in 1..1_000 {
            let known = seen.contains(EventId(number), LIMIT, |_| {
                popular += 1;
                Ok::<_, Infallible>(RoaringBitmap::new())
            });
            assert_eq!(known, Ok(false));
            publish(&mut seen, [number].into_iter());
        }
        assert_eq!(popular, 1, "the others came and went beside it");
    }
}
