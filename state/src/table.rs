//! The tables: one column family each. Names are persistent and never reused.

/// A table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Content rows.
    Content,
    /// Parked events.
    Pending,
    /// Published event ids. Reserved: created, not yet written.
    Seen,
    /// Recently published events. The only table that is written without the write-ahead log.
    Recent,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Content, Self::Pending, Self::Seen, Self::Recent];

    /// The persistent name of its column family.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Pending => "pending",
            Self::Seen => "seen",
            Self::Recent => "recent",
        }
    }

    /// Whether its writes go through the write-ahead log. One table takes one kind of write only: were both mixed, a crash
    /// could keep a later position and lose the earlier rows.
    pub(crate) fn is_logged(self) -> bool {
        !matches!(self, Self::Recent)
    }
}
