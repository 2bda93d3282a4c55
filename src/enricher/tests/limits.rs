//! Outputs that their topic would refuse: each such record has one outcome, a dead letter, and the ledger says so.

use super::*;
use crate::codec::{EventRecord, decode_event};

/// An event about `content` whose device has that many characters.
fn event(id: i64, content: &str, device: usize) -> Vec<u8> {
    let device = "d".repeat(device);
    format!(
        r#"{{"id":{id},"content_id":"{content}","event_type":"play","event_ts":"2025-01-01T00:00:00Z","device":"{device}"}}"#
    )
    .into_bytes()
}

/// The dead letters that are staged: reason, loss, key and value.
fn letters(bench: &Bench) -> Vec<(&'static str, Loss, Vec<u8>, Vec<u8>)> {
    let bytes = |span: &Option<Span>| {
        span.as_ref()
            .map(|span| bench.staged.bytes(span).to_vec())
            .unwrap_or_default()
    };
    let found = bench.staged.outputs().iter();
    found
        .filter_map(|output| match &output.headers {
            Headers::DeadLetter { why, loss, .. } => Some((
                why.reason.code(),
                *loss,
                bytes(&output.key),
                bytes(&output.value),
            )),
            _ => None,
        })
        .collect()
}

fn bench(change: impl FnOnce(&mut SizeLimits)) -> Bench {
    let mut bench = Bench::new(100);
    change(&mut bench.rules.limits);
    bench
}

#[test]
fn an_event_that_its_topic_would_refuse_is_a_dead_letter_and_its_neighbours_pass() {
    let mut bench = bench(|limits| limits.enriched = 2_000);
    bench.tables.put(A);
    bench.event(1, A);
    let large = event(2, A, 2_000);
    bench.feed(Some(&large), Some(b"run-7"));
    bench.event(3, A);
    let (reason, loss, key, value) = letters(&bench).remove(0);
    assert_eq!((reason, loss), ("output-too-large", Loss::default()));
    assert_eq!((key, value), (b"key".to_vec(), large));
    assert_eq!(bench.commit(), [(1, Joined), (3, Joined)]);
    let ledger = bench.task.ledger();
    assert_eq!((ledger.enriched, ledger.dead), (2, 1));
}

#[test]
fn an_event_that_was_refused_for_its_size_is_not_known_as_published() {
    let mut bench = bench(|limits| limits.enriched = 2_000);
    bench.tables.put(A);
    let large = event(2, A, 2_000);
    bench.feed(Some(&large), None);
    assert_eq!(bench.commit(), []);
    bench.rules.limits.enriched = 10_000;
    bench.feed(Some(&large), None);
    assert_eq!(bench.commit(), [(2, Joined)]);
}

#[test]
fn an_event_that_could_not_leave_is_not_parked() {
    for (enriched, pending) in [(2_000, usize::MAX), (usize::MAX, 2_000)] {
        let mut bench = bench(|limits| {
            limits.enriched = enriched;
            limits.pending = pending;
        });
        let large = event(2, A, 2_000);
        bench.feed(Some(&large), None);
        bench.event(3, A);
        let letters = letters(&bench);
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].0, "output-too-large");
        assert_eq!(letters[0].3, large);
        bench.commit();
        let ledger = bench.task.ledger();
        assert_eq!((ledger.pending, ledger.dead), (1, 1));
        bench.arrive(A);
        bench.drive(None);
        assert_eq!(bench.commit(), [(3, Late)]);
    }
}

#[test]
fn what_fits_without_its_content_is_parked_only_if_it_fits_with_it() {
    // One byte less each time: no event is parked that its content could make too large.
    for limit in (1_000..1_400).rev() {
        let mut bench = bench(|limits| limits.enriched = limit);
        bench.feed(Some(&event(1, A, 600)), None);
        let parked = bench.task.parked();
        bench.commit();
        bench.arrive(A);
        bench.drive(None);
        assert_eq!(bench.commit().len(), parked, "limit {limit}");
        let ledger = bench.task.ledger();
        assert_eq!(ledger.enriched + ledger.dead, 1, "limit {limit}");
    }
}

#[test]
fn a_parked_event_whose_topic_takes_less_by_now_becomes_a_dead_letter_that_reads_back() {
    for drive in [None, Some(i64::MAX)] {
        let mut bench = Bench::new(100);
        bench.feed(Some(&event(1, A, 900)), None);
        bench.event(2, A);
        bench.commit();
        bench.rules.limits.enriched = 700;
        if drive.is_none() {
            bench.arrive(A);
        }
        bench.drive(drive);
        let (reason, loss, key, value) = letters(&bench).remove(0);
        assert_eq!(reason, "output-too-large");
        assert!(loss.rebuilt && loss.value.is_none());
        assert_eq!(key, br#"{"id":1}"#);
        let again = decode_event(Some(&value), &bench.rules.events);
        let Ok(EventRecord::Event(again)) = again else {
            panic!("{again:?}");
        };
        assert_eq!(again.id, EventId(1));
        assert_eq!(again.device.map(|device| device.len()), Some(900));
        let status = if drive.is_none() { Late } else { Timeout };
        assert_eq!(bench.commit(), [(2, status)]);
        let ledger = bench.task.ledger();
        assert_eq!((ledger.pending, ledger.dead, ledger.enriched), (0, 1, 1));
        assert!(bench.tables.parked.borrow().is_empty());
    }
}

#[test]
fn a_dead_letter_too_large_for_its_topic_keeps_its_first_bytes_and_tells_their_number() {
    let mut bench = bench(|limits| limits.dead_letters = 2_000);
    let poison = b"x".repeat(5_000);
    bench.feed(Some(&poison), None);
    let (reason, loss, key, value) = letters(&bench).remove(0);
    assert_eq!(reason, "not-json");
    assert_eq!((loss.key, loss.value), (None, Some(5_000)));
    assert_eq!(key, b"key");
    assert!(value.len() > 1_000 && poison.starts_with(&value));
    assert_eq!(bench.staged.counts().truncated, 1);
    // One that fits is whole.
    bench.feed(Some(b"{"), None);
    assert_eq!(letters(&bench)[1].1, Loss::default());
}

#[test]
fn a_transaction_ends_before_its_parked_events_fill_the_memory() {
    let mut bench = Bench::new(1_000);
    bench.rules.transaction_bytes = 2_000;
    for id in 0..3 {
        assert!(!bench.staged.is_full(&bench.rules));
        bench.feed(Some(&event(id, A, 900)), None);
    }
    assert!(bench.staged.is_full(&bench.rules));
    bench.commit();
    assert!(!bench.staged.is_full(&bench.rules));
}
