//! The step driven by hand: records, arrivals and the watermark in; staged outputs and a ledger out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod limits;
mod placement;
mod published;

use super::*;
use crate::codec::encode_parked;
use crate::domain::{
    Container, ContentId, ContentType, ContentVersion, EventId, JoinContent, JoinStatus, Ledger,
    Offset, ParkedEvent, Partition,
};
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

const P: Partition = Partition(3);
const A: &str = "aaaaaaaa-0000-0000-0000-000000000000";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000000";
const DEADLINE: i64 = 1_000;

fn rules(transaction_steps: usize) -> Rules {
    Rules {
        deadline_ms: DEADLINE,
        transaction_steps,
        ..Rules::default()
    }
}

/// Tables as maps.
#[derive(Default)]
struct Tables {
    cached: RefCell<BTreeMap<ContentId, JoinContent>>,
    content: RefCell<BTreeMap<ContentId, JoinContent>>,
    parked: RefCell<BTreeMap<(Partition, EventId), Vec<u8>>>,
    seen: RefCell<BTreeMap<(Partition, Container), RoaringBitmap>>,
}

impl Tables {
    /// A row that both the table and the cache show.
    fn put(&self, id: &str) {
        let row = JoinContent {
            content_type: Some(ContentType::Podcast),
            length_seconds: Some(100),
            version: ContentVersion {
                partition: Partition(1),
                offset: Offset(7),
            },
        };
        let id = ContentId::parse(id).unwrap();
        self.cached.borrow_mut().insert(id, row);
        self.content.borrow_mut().insert(id, row);
    }
}

impl View for Tables {
    type Error = Infallible;

    fn content(&self, id: ContentId) -> Result<Option<JoinContent>, Infallible> {
        Ok(self.cached.borrow().get(&id).copied())
    }

    fn content_fresh(&self, id: ContentId) -> Result<Option<JoinContent>, Infallible> {
        Ok(self.content.borrow().get(&id).copied())
    }

    fn seen<R>(
        &self,
        partition: Partition,
        container: Container,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Infallible> {
        let seen = self.seen.borrow();
        Ok(seen.get(&(partition, container)).map(|bitmap| {
            let mut bytes = Vec::new();
            bitmap.serialize_into(&mut bytes).unwrap();
            read(&bytes)
        }))
    }

    fn parked<R>(
        &self,
        partition: Partition,
        id: EventId,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Infallible> {
        Ok(self.parked.borrow().get(&(partition, id)).map(|v| read(v)))
    }
}

/// One task and its surroundings.
struct Bench {
    task: Task,
    tables: Tables,
    staged: Staged,
    rules: Rules,
    offset: i64,
    now_ms: i64,
}

/// An enriched record as a test sees it: event id and join status.
type Published = (i64, JoinStatus);

impl Bench {
    fn new(transaction_steps: usize) -> Self {
        Self {
            task: Task::new(P, Offset(0), Ledger::default()),
            tables: Tables::default(),
            staged: Staged::default(),
            rules: rules(transaction_steps),
            offset: 0,
            now_ms: 0,
        }
    }

    fn feed(&mut self, value: Option<&[u8]>, backfill: Option<&[u8]>) {
        let record = RawRecord {
            offset: Offset(self.offset),
            timestamp_ms: Some(5),
            key: Some(b"key"),
            value,
            backfill,
        };
        self.offset += 1;
        self.task
            .record(
                &record,
                &self.rules,
                self.now_ms,
                &self.tables,
                &mut self.staged,
            )
            .unwrap();
        assert!(self.task.ledger().balances(), "{:?}", self.task.ledger());
    }

    fn event(&mut self, id: i64, content: &str) {
        let json = format!(
            r#"{{"id":{id},"content_id":"{content}","event_type":"play","event_ts":"2025-01-01T00:00:00Z","duration_ms":50000}}"#
        );
        self.feed(Some(json.as_bytes()), None);
    }

    fn drive(&mut self, watermark_ms: Option<i64>) -> bool {
        let more = self
            .task
            .drive(watermark_ms, &self.rules, &self.tables, &mut self.staged)
            .unwrap();
        assert!(self.task.ledger().balances(), "{:?}", self.task.ledger());
        more
    }

    fn arrive(&mut self, content: &str) {
        self.tables.put(content);
        self.task
            .content_arrived(ContentId::parse(content).unwrap());
    }

    /// Commits: what was staged reaches the tables. Returns what was published, in order.
    fn commit(&mut self) -> Vec<Published> {
        let published = self
            .staged
            .outputs()
            .iter()
            .filter_map(|output| match &output.headers {
                Headers::Enriched { join_status, .. } => {
                    let key = self.staged.bytes(output.key.as_ref()?);
                    Some((std::str::from_utf8(key).ok()?.parse().ok()?, *join_status))
                }
                _ => None,
            })
            .collect();
        let mut parked = self.tables.parked.borrow_mut();
        for (partition, id, value) in self.staged.parked_changes() {
            match value {
                Some(value) => parked.insert((partition, id), value.to_vec()),
                None => parked.remove(&(partition, id)),
            };
        }
        drop(parked);
        for (partition, id) in self.staged.published() {
            let mut seen = self.tables.seen.borrow_mut();
            let container = seen.entry((*partition, Container::of(*id))).or_default();
            assert!(container.insert(id.place()), "{id} was published twice");
        }
        self.task.committed();
        assert_eq!(self.tables.parked.borrow().len(), self.task.parked());
        self.staged.clear();
        published
    }
}

use JoinStatus::{Joined, Late, Timeout};

#[test]
fn an_event_whose_content_is_known_is_published_at_once() {
    let mut bench = Bench::new(100);
    bench.tables.put(A);
    bench.event(1, A);
    let output = &bench.staged.outputs()[0];
    let value = std::str::from_utf8(bench.staged.bytes(output.value.as_ref().unwrap())).unwrap();
    assert!(
        value.ends_with(r#""length_seconds":100,"engagement_seconds":50,"engagement_pct":0.5}"#),
        "{value}"
    );
    assert_eq!(bench.commit(), [(1, Joined)]);
    assert_eq!(bench.task.position(), Offset(1));
}

#[test]
fn an_event_without_content_id_waits_for_nothing() {
    let mut bench = Bench::new(100);
    bench.feed(
        Some(br#"{"id":1,"event_type":"click","event_ts":"2025-01-01T00:00:00Z"}"#),
        None,
    );
    assert_eq!(bench.commit(), [(1, JoinStatus::None)]);
}

#[test]
fn late_content_releases_its_events_in_input_order() {
    let mut bench = Bench::new(100);
    bench.event(5, A);
    bench.event(3, B);
    bench.event(4, A);
    assert_eq!(bench.commit(), []);
    assert_eq!(bench.task.ledger().pending, 3);
    bench.arrive(A);
    assert!(!bench.drive(None));
    assert_eq!(bench.commit(), [(5, Late), (4, Late)]);
    assert_eq!(bench.task.ledger().pending, 1);
}

#[test]
fn an_event_parked_and_released_in_one_transaction_leaves_nothing_behind() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.arrive(A);
    bench.drive(None);
    assert_eq!(bench.commit(), [(1, Late)]);
    assert!(bench.tables.parked.borrow().is_empty());
}

#[test]
fn a_look_up_that_hits_lets_the_parked_ones_leave_first() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    // The row is there, but its wake-up has not been taken yet.
    bench.tables.put(A);
    bench.event(2, A);
    assert_eq!(bench.commit(), [(1, Late), (2, Joined)]);
}

#[test]
fn an_event_queues_behind_more_parked_ones_than_fit_the_transaction() {
    let mut bench = Bench::new(4);
    for id in 0..6 {
        bench.event(id, A);
        bench.commit();
    }
    bench.tables.put(A);
    bench.event(6, A);
    let mut published = bench.commit();
    while bench.drive(None) || !bench.staged.is_empty() {
        published.extend(bench.commit());
    }
    let ids: Vec<i64> = published.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn releases_come_in_chunks_of_the_transaction() {
    let mut bench = Bench::new(3);
    for id in 0..7 {
        bench.event(id, A);
        bench.commit();
    }
    bench.arrive(A);
    assert!(bench.drive(None));
    assert_eq!(bench.commit(), [(0, Late), (1, Late), (2, Late)]);
    assert!(bench.drive(None));
    assert_eq!(bench.commit(), [(3, Late), (4, Late), (5, Late)]);
    assert!(!bench.drive(None));
    assert_eq!(bench.commit(), [(6, Late)]);
}

#[test]
fn a_deadline_passes_only_once_the_watermark_has_passed_it() {
    let mut bench = Bench::new(100);
    bench.now_ms = 10;
    bench.event(1, A);
    bench.commit();
    for watermark in [None, Some(0), Some(9 + DEADLINE)] {
        bench.drive(watermark);
        assert_eq!(bench.commit(), [], "{watermark:?}");
    }
    bench.drive(Some(10 + DEADLINE));
    assert_eq!(bench.commit(), [(1, Timeout)]);
    assert_eq!(bench.task.parked(), 0);
}

#[test]
fn a_time_out_reads_the_table_itself() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    bench.tables.put(A);
    // A cache that does not show the row must not make an event miss its content.
    bench.tables.cached.borrow_mut().clear();
    bench.drive(Some(i64::MAX));
    assert_eq!(bench.commit(), [(1, Late)]);
}

#[test]
fn a_clock_that_steps_back_reorders_nothing() {
    let mut bench = Bench::new(100);
    bench.now_ms = 500;
    bench.event(1, A);
    bench.now_ms = 100;
    bench.event(2, A);
    bench.commit();
    bench.drive(Some(100 + DEADLINE));
    assert_eq!(bench.commit(), []);
    bench.drive(Some(500 + DEADLINE));
    assert_eq!(bench.commit(), [(1, Timeout), (2, Timeout)]);
}

#[test]
fn a_parked_event_that_comes_again_is_a_duplicate() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.event(1, A);
    assert_eq!(bench.task.ledger().duplicate, 1);
    bench.arrive(A);
    bench.drive(None);
    assert_eq!(bench.commit(), [(1, Late)]);
}

#[test]
fn a_poison_copy_of_a_parked_event_is_a_dead_letter() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    let poison = br#"{"id":1,"event_type":"dance","event_ts":"2025-01-01T00:00:00Z"}"#;
    bench.feed(Some(poison), None);
    let output = bench.staged.outputs().last().unwrap();
    assert_eq!(output.stream, Stream::DeadLetters);
    assert_eq!(bench.staged.bytes(output.value.as_ref().unwrap()), poison);
    assert_eq!(bench.staged.bytes(output.key.as_ref().unwrap()), b"key");
    assert_eq!(bench.task.ledger().dead, 1);
}

#[test]
fn a_tombstone_is_ignored_and_an_empty_value_is_a_dead_letter() {
    let mut bench = Bench::new(100);
    bench.feed(None, None);
    bench.feed(Some(b""), None);
    let ledger = bench.task.ledger();
    assert_eq!((ledger.consumed, ledger.ignored, ledger.dead), (2, 1, 1));
    assert_eq!(bench.staged.outputs()[0].value, Some(3..3));
}

#[test]
fn the_backfill_header_travels_through_parking() {
    let mut bench = Bench::new(100);
    let json = format!(
        r#"{{"id":1,"content_id":"{A}","event_type":"play","event_ts":"2025-01-01T00:00:00Z"}}"#
    );
    bench.feed(Some(json.as_bytes()), Some(b"run-7"));
    bench.commit();
    bench.arrive(A);
    bench.drive(None);
    let output = &bench.staged.outputs()[0];
    let Headers::Enriched {
        backfill: Some(span),
        ..
    } = &output.headers
    else {
        panic!("{output:?}");
    };
    assert_eq!(bench.staged.bytes(span), b"run-7");
}

#[test]
fn a_restored_task_releases_in_the_order_of_the_log_not_of_the_store() {
    let mut bench = Bench::new(100);
    bench.event(9, A);
    bench.event(1, A);
    bench.event(5, A);
    bench.commit();
    // The store gives them back by id.
    let mut task = Task::new(P, bench.task.position(), bench.task.ledger());
    for value in bench.tables.parked.borrow().values() {
        task.restore(&crate::codec::decode_parked(value).unwrap());
    }
    bench.task = task;
    bench.tables.put(A);
    bench.task.wake_all();
    bench.drive(None);
    assert_eq!(bench.commit(), [(9, Late), (1, Late), (5, Late)]);
}

#[test]
fn an_index_entry_without_its_row_is_told_not_skipped() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    bench.tables.parked.borrow_mut().clear();
    bench.arrive(A);
    let outcome = bench
        .task
        .drive(None, &bench.rules, &bench.tables, &mut bench.staged);
    assert!(matches!(
        outcome,
        Err(TaskError::ParkedMissing(P, EventId(1)))
    ));
}

#[test]
fn a_content_that_is_deleted_again_leaves_its_events_parked() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    bench.task.content_arrived(ContentId::parse(A).unwrap());
    assert!(!bench.drive(None));
    assert_eq!(bench.commit(), []);
    bench.arrive(A);
    bench.drive(None);
    assert_eq!(bench.commit(), [(1, Late)]);
}

#[test]
fn what_is_parked_is_what_the_codec_writes() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    let parked = bench.tables.parked.borrow();
    let value = parked.get(&(P, EventId(1))).unwrap();
    let decoded: ParkedEvent<'_> = crate::codec::decode_parked(value).unwrap();
    let mut again = Vec::new();
    encode_parked(&decoded, &mut again);
    assert_eq!(&again, value);
    assert_eq!(decoded.raw_timestamp_ms, Some(5));
}
