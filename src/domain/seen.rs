//! Event ids as members of bitmap containers, and the checkpoint of a partition's set of published ids.

use super::{EventId, Ledger, Offset};

/// Number of a bitmap container: it holds the 65,536 ids that share all but their low 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Container(pub i64);

impl Container {
    /// The container of an id.
    pub fn of(id: EventId) -> Self {
        Self(id.0 >> 16)
    }
}

impl EventId {
    /// The id's place inside its container.
    pub fn place(self) -> u32 {
        (self.0 & 0xffff) as u32
    }
}

/// Up to where the checkpointed containers of a partition cover the enriched topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Ids of all enriched records before this offset are in the containers.
    pub enriched: Offset,
    /// The id of the enriched topic.
    pub topic_id: [u8; 16],
    /// The partition's ledger at that time.
    pub ledger: Ledger,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_one_container_and_one_place_in_it() {
        for (id, container, place) in [
            (0, 0, 0),
            (65_535, 0, 65_535),
            (65_536, 1, 0),
            (-1, -1, 65_535),
            (i64::MAX, i64::MAX >> 16, 65_535),
            (i64::MIN, i64::MIN >> 16, 0),
        ] {
            let id = EventId(id);
            assert_eq!(
                (Container::of(id), id.place()),
                (Container(container), place)
            );
        }
    }
}
