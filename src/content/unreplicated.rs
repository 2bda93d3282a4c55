//! What the materializer wrote and the replica may not show yet: the newest version of a row for an unchanged TOAST column.

use super::positions::ReplicaPositions;
use super::table::{ContentTable, ContentTableError};
use crate::codec::ContentPatch;
use crate::domain::{ContentId, ContentRow};
use crate::metrics::Metrics;
use foldhash::HashMap;
use std::collections::{BTreeMap, VecDeque};
use thmanyah_state::Tables;

/// What may be waited for before no more is written: the materializer can be faster than the replica for long.
const CROWDED_BYTES: usize = 32 << 20;
/// What a row takes beside its text.
const ROW: usize = 200;

/// Rows that this process wrote and its own replica may not show yet.
#[derive(Default)]
pub(super) struct Unreplicated {
    rows: HashMap<ContentId, (Option<ContentRow>, u64)>,
    /// Transactions whose rows are still here, with the changelog ends that cover them.
    ends: VecDeque<(u64, BTreeMap<i32, i64>)>,
    transaction: u64,
    /// What the rows take, about; what was overwritten meanwhile counts until it is pruned.
    bytes: usize,
}

impl Unreplicated {
    /// The open transaction holds this row.
    pub(super) fn wrote(&mut self, id: ContentId, row: Option<ContentRow>) {
        self.bytes += bytes(row.as_ref());
        self.rows.insert(id, (row, self.transaction));
    }

    /// The open transaction was committed; the changelog's ends cover it.
    pub(super) fn committed(&mut self, ends: BTreeMap<i32, i64>) {
        self.ends.push_back((self.transaction, ends));
        self.transaction += 1;
    }

    /// The row as this process wrote it last; the outer `None` says that the replica's is as new.
    pub(super) fn get(&self, id: ContentId) -> Option<&Option<ContentRow>> {
        self.rows.get(&id).map(|(row, _)| row)
    }

    /// Drops what the replica shows by now.
    pub(super) fn prune(&mut self, replica: &ReplicaPositions) {
        let mut shown = None;
        while let Some((transaction, ends)) = self.ends.front() {
            if !replica.reached(ends) {
                break;
            }
            shown = Some(*transaction);
            self.ends.pop_front();
        }
        if let Some(shown) = shown {
            self.rows.retain(|_, (_, transaction)| *transaction > shown);
            self.bytes = self.rows.values().map(|(row, _)| bytes(row.as_ref())).sum();
        }
    }

    /// Whether the replica has to come closer before more is written.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes >= CROWDED_BYTES && !self.ends.is_empty()
    }
}

fn bytes(row: Option<&ContentRow>) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    ROW + row.map_or(0, |row| text(&row.slug) + text(&row.title))
}

/// Fills what the row does not carry (an unchanged TOAST column) from the row before it.
pub(super) fn resolve(
    patch: ContentPatch,
    unreplicated: &Unreplicated,
    table: &ContentTable<impl Tables>,
    metrics: &Metrics,
) -> Result<ContentRow, ContentTableError> {
    let prior = if patch.needs_prior() {
        match unreplicated.get(patch.id) {
            Some(row) => row.clone(),
            None => table.row(patch.id)?.map(|stored| stored.row),
        }
    } else {
        None
    };
    let infinite = patch.infinite_publish_ts;
    let (row, resolution) = patch.resolve(prior.as_ref());
    metrics.unavailable.kept.inc_by(u64::from(resolution.kept));
    metrics.unavailable.null.inc_by(u64::from(resolution.lost));
    metrics.infinite_publish_ts.inc_by(u64::from(infinite));
    Ok(row)
}
