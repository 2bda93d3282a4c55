//! The flood: far more content than usual at once, of rows that every event is joined with.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::field::Field;
use super::load::{BASE_CONTENTS, feed, flush, send_content};
use super::rounds::Inflicted;

/// Updates of one flood.
const UPDATES: u32 = 120_000;
/// Updates that no write-ahead log has room for that was set aside before the disk was full.
const OVERFLOW: u32 = 60_000;
/// Records in the producer's queue at most.
const IN_FLIGHT: usize = 50_000;
const FULL_PAUSE: Duration = Duration::from_millis(5);

pub(super) fn inflict(field: &Field<'_>) -> Result<Inflicted> {
    send(field, UPDATES)?;
    Ok(Inflicted::Yes)
}

/// Makes every instance write more than it has room for on a full disk.
pub(super) fn overflow(field: &Field<'_>) -> Result<()> {
    send(field, OVERFLOW)
}

fn send(field: &Field<'_>, updates: u32) -> Result<()> {
    let feed = feed(field.cluster.client())?;
    for update in 0..updates {
        while feed.in_flight() > IN_FLIGHT {
            feed.poll();
            sleep(FULL_PAUSE);
        }
        send_content(&feed, update % BASE_CONTENTS, update)?;
    }
    flush(&feed)
}
