//! What was sent into the simulated deployment.

use super::schedule::Step;
use super::world::{CONTENT, RAW, World};
use crate::oracle::EventRow;

/// An input record of the engagement events.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// An event, which may have been sent before.
    Event {
        /// Its row.
        row: EventRow,
        /// Its content.
        content: Option<u8>,
    },
    /// No event.
    Poison,
    /// A null value.
    Tombstone,
}

/// A record of a partition.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Where.
    pub(super) partition: i32,
    /// Where.
    pub(super) offset: i64,
    /// When, by the brokers' clock.
    pub(super) at_ms: i64,
    /// What.
    pub(super) raw: Raw,
}

/// A change of a content row.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Which.
    pub(super) content: u8,
    /// When, by the brokers' clock.
    pub(super) at_ms: i64,
    /// Its length, and its title where the record carries it; the outer `None` deletes.
    pub(super) row: Option<(i32, Option<String>)>,
}

/// Everything that was sent.
#[derive(Default)]
pub(super) struct Inputs {
    /// Engagement events and what looks like them.
    pub(super) sent: Vec<Sent>,
    /// Content changes in order.
    pub(super) changes: Vec<Change>,
    /// Records of content that are none: `(partition, offset)`.
    pub(super) bad_content: Vec<(i32, i64)>,
    /// Whether a wall clock jumped.
    pub(super) clocks_jumped: bool,
}

/// The text of a content id.
pub(super) fn content_id(content: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{content:02x}")
}

/// When every event happened.
const EVENT_TS: &str = "2025-01-01T12:30:00Z";
const EVENT_TS_MICROS: i64 = 1_735_734_600_000_000;

impl Inputs {
    /// Appends what a step sends.
    pub(super) fn append(&mut self, step: &Step, world: &mut World) {
        match *step {
            Step::Event {
                partition,
                id,
                content,
            } => self.event(partition, id, content, world),
            Step::Poison { partition, kind } => {
                let value: Option<&[u8]> = Some(match kind {
                    0 => b"",
                    1 => b"{\"id\":1",
                    2 => b"\xff",
                    _ => b"{\"id\":\"1\",\"event_type\":\"play\",\"event_ts\":\"2025-01-01T12:30:00Z\"}",
                });
                self.send(partition, Some(b"poison"), value, Raw::Poison, world);
            }
            Step::Tombstone { partition } => {
                self.send(partition, Some(b"gone"), None, Raw::Tombstone, world);
            }
            Step::Content {
                content,
                length,
                toast,
            } => {
                let id = content_id(content);
                let title = (!toast).then(|| format!("title {length}"));
                let title_json = title.as_deref().unwrap_or("__debezium_unavailable_value");
                let kind = ["podcast", "newsletter", "video"][usize::from(content) % 3];
                let value = format!(
                    "{{\"id\":\"{id}\",\"slug\":null,\"title\":\"{title_json}\",\"content_type\":\"{kind}\",\
                     \"length_seconds\":{length},\"publish_ts\":null}}"
                );
                let row = Some((length, title));
                self.change(content, row, Some(value.as_bytes()), world);
            }
            Step::ContentGone { content } => self.change(content, None, None, world),
            Step::ContentPoison => {
                let offset = world.log(CONTENT, 0).end();
                world.append(CONTENT, 0, Some(b"{}"), Some(b"{\"id\":7}"));
                self.bad_content.push((0, offset));
            }
            _ => unreachable!("no input"),
        }
    }

    /// Sends an event of each partition once more, or a first one.
    pub(super) fn repeat_one(&mut self, world: &mut World) {
        for partition in 0..world.shape.partitions {
            let event = self.sent.iter().find_map(|sent| match &sent.raw {
                Raw::Event { row, content } if sent.partition == partition => {
                    Some((row.id, *content))
                }
                _ => None,
            });
            let (id, content) = event.unwrap_or((1_000_000 + i64::from(partition), None));
            self.event(partition, id, content, world);
        }
    }

    fn event(&mut self, partition: i32, id: i64, content: Option<u8>, world: &mut World) {
        let duration_ms = (id % 90_000).unsigned_abs() as i32;
        let content_text = content.map(content_id);
        let row = EventRow {
            id,
            content_id: content_text.clone(),
            user_id: None,
            event_type: "play".to_owned(),
            event_ts_micros: EVENT_TS_MICROS,
            duration_ms: Some(duration_ms),
            device: None,
        };
        let content_json = content_text.map_or("null".to_owned(), |id| format!("\"{id}\""));
        let value = format!(
            "{{\"id\":{id},\"content_id\":{content_json},\"user_id\":null,\"event_type\":\"play\",\
             \"event_ts\":\"{EVENT_TS}\",\"duration_ms\":{duration_ms},\"device\":null,\
             \"raw_payload\":null}}"
        );
        let key = format!("{{\"id\":{id}}}");
        let raw = Raw::Event { row, content };
        self.send(
            partition,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            raw,
            world,
        );
    }

    /// A source that writes in transactions ends each of them with a marker.
    fn maybe_mark(topic: usize, partition: i32, world: &mut World) {
        if world.rng.chance(1, 3) {
            let at_ms = world.broker_ms();
            world.log(topic, partition).mark(u64::MAX, true, at_ms);
        }
    }

    fn send(
        &mut self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        raw: Raw,
        world: &mut World,
    ) {
        let offset = world.log(RAW, partition).end();
        let at_ms = world.broker_ms();
        world.append(RAW, partition, key, value);
        Self::maybe_mark(RAW, partition, world);
        self.sent.push(Sent {
            partition,
            offset,
            at_ms,
            raw,
        });
    }

    fn change(
        &mut self,
        content: u8,
        row: Option<(i32, Option<String>)>,
        value: Option<&[u8]>,
        world: &mut World,
    ) {
        let partition = i32::from(content) % world.shape.content_partitions;
        let key = format!("{{\"id\":\"{}\"}}", content_id(content));
        let at_ms = world.broker_ms();
        world.append(CONTENT, partition, Some(key.as_bytes()), value);
        Self::maybe_mark(CONTENT, partition, world);
        self.changes.push(Change {
            content,
            at_ms,
            row,
        });
    }
}
