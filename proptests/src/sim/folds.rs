//! Whether what lies on a disk is the fold of a prefix of each log.

use super::log::{Entry, Log};
use super::oracle::{ids_of, key};
use super::store::{Disk, Kind};
use super::world::{CHANGELOG, ENRICHED, PENDING, World};
use std::collections::{BTreeMap, BTreeSet};
use thmanyah_state::{Moment, Rows, Table, Tables};

/// Looks at what lies on a disk: each table is the fold of a prefix of its log.
pub(super) fn disk(world: &World, kind: &Kind, wrong: &mut Vec<String>) {
    let disk = Disk {
        kind: kind.clone(),
        process: None,
    };
    for partition in 0..world.shape.partitions {
        pending_rows(world, &disk, partition, wrong);
        seen_rows(world, &disk, partition, wrong);
    }
    content_rows(world, &disk, wrong);
}

/// Records before `end` whose transaction is committed, be its marker still on its way.
fn decided_before<'w>(
    world: &'w World,
    log: &'w Log,
    end: i64,
) -> impl Iterator<Item = (i64, &'w Entry)> {
    let entries = log.entries.iter().enumerate();
    entries
        .map(|(at, entry)| (at as i64, entry))
        .take_while(move |(at, _)| *at < end)
        .filter(|(_, entry)| entry.is_committed() || world.will_commit(entry))
}

/// Rows of a table whose keys begin with a partition, without it.
fn rows(disk: &Disk, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let moment = disk.snapshot();
    let mut end = prefix.to_vec();
    end.extend([0xff; 24]);
    let mut found = Vec::new();
    if let Ok(mut rows) = moment.rows(table, prefix, &end) {
        while let Ok(Some((key, value))) = rows.next() {
            found.push((key[prefix.len()..].to_vec(), value.to_vec()));
        }
    }
    found
}

/// The number that a key holds, whose sign is flipped so that it sorts.
fn number(bytes: &[u8]) -> i64 {
    let bytes = bytes.try_into().unwrap_or_default();
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

/// Parked events in a store are those of a prefix of their log.
fn pending_rows(world: &World, disk: &Disk, partition: i32, wrong: &mut Vec<String>) {
    let Ok(Some(position)) = disk.position(Table::Pending, partition) else {
        return;
    };
    let mut expected = BTreeMap::new();
    let log = &world.logs[PENDING][partition as usize];
    for (_, entry) in decided_before(world, log, position.offset) {
        let id: i64 = key(entry).parse().unwrap_or_default();
        match entry.value.as_deref() {
            Some(value) => expected.insert(id, value.to_vec()),
            None => expected.remove(&id),
        };
    }
    let found: BTreeMap<i64, Vec<u8>> = rows(disk, Table::Pending, &partition.to_be_bytes())
        .into_iter()
        .map(|(key, value)| (number(&key), value))
        .collect();
    if found != expected {
        wrong.push(format!(
            "partition {partition}: parked at {} are {:?}, the log says {:?}",
            position.offset,
            found.keys(),
            expected.keys()
        ));
    }
}

/// Published ids in a store are those of a prefix of the enriched topic, or more of it.
fn seen_rows(world: &World, disk: &Disk, partition: i32, wrong: &mut Vec<String>) {
    let mut prefix = partition.to_be_bytes().to_vec();
    prefix.push(0);
    let found: BTreeSet<i64> = rows(disk, Table::Seen, &prefix)
        .into_iter()
        .flat_map(|(key, value)| ids_of(number(&key), &value))
        .collect();
    prefix[4] = 2;
    let covered = rows(disk, Table::Seen, &prefix).into_iter().next();
    let covered = covered.map_or(0, |(_, value)| {
        i64::from_be_bytes(value[..8].try_into().unwrap_or_default())
    });
    let log = &world.logs[ENRICHED][partition as usize];
    let ids = |end: i64| -> BTreeSet<i64> {
        decided_before(world, log, end)
            .filter_map(|(_, entry)| key(entry).parse().ok())
            .collect()
    };
    let (least, most) = (ids(covered), ids(log.end()));
    if !least.is_subset(&found) || !found.is_subset(&most) {
        wrong.push(format!(
            "partition {partition}: published ids at {covered} are {found:?}, the log says {least:?}"
        ));
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Content rows in a store are those of a prefix of the changelog.
fn content_rows(world: &World, disk: &Disk, wrong: &mut Vec<String>) {
    let mut expected = BTreeMap::new();
    for (partition, log) in world.logs[CHANGELOG].iter().enumerate() {
        let position = disk.position(Table::Content, partition as i32);
        let Ok(Some(position)) = position else {
            return;
        };
        for (offset, entry) in decided_before(world, log, position.offset) {
            match entry.value.as_deref() {
                Some(value) => {
                    let mut row = (partition as i32).to_be_bytes().to_vec();
                    row.extend(offset.to_be_bytes());
                    row.extend(value);
                    expected.insert(key(entry).replace('-', ""), row)
                }
                None => expected.remove(&key(entry).replace('-', "")),
            };
        }
    }
    let found: BTreeMap<String, Vec<u8>> = rows(disk, Table::Content, &[])
        .into_iter()
        .map(|(key, value)| (hex(&key), value))
        .collect();
    if found != expected {
        wrong.push(format!(
            "content rows are {:?}, the changelog says {:?}",
            found.keys(),
            expected.keys()
        ));
    }
}
