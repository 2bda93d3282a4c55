//! An id is published at most once: within a transaction, over transactions, and by a task that was built anew.

use super::*;

#[test]
fn a_published_event_that_comes_again_is_a_duplicate() {
    let mut bench = Bench::new(100);
    bench.tables.put(A);
    bench.event(1, A);
    // In the open transaction, after its commit, and for a task that was built anew.
    bench.event(1, A);
    assert_eq!(bench.commit(), [(1, Joined)]);
    bench.event(1, A);
    assert_eq!(bench.commit(), []);
    bench.task = Task::new(P, bench.task.position(), bench.task.ledger());
    bench.event(1, A);
    assert_eq!(bench.commit(), []);
    assert_eq!(bench.task.ledger().duplicate, 3);
    assert_eq!(bench.task.ledger().enriched, 1);
}

#[test]
fn a_poison_copy_of_a_published_event_is_a_dead_letter() {
    let mut bench = Bench::new(100);
    bench.tables.put(A);
    bench.event(1, A);
    bench.commit();
    bench.feed(Some(br#"{"id":1,"event_type":"play"}"#), None);
    assert_eq!(bench.task.ledger().dead, 1);
}

#[test]
fn ids_of_more_containers_than_are_cached_are_still_known() {
    let mut bench = Bench::new(100_000);
    bench.tables.put(A);
    let ids: Vec<i64> = (0..3_000).map(|n| n * 65_536).collect();
    for chunk in ids.chunks(700) {
        for id in chunk {
            bench.event(*id, A);
        }
        bench.commit();
    }
    for id in &ids {
        bench.event(*id, A);
    }
    assert_eq!(bench.commit(), []);
    assert_eq!(bench.task.ledger().duplicate, 3_000);
}

#[test]
fn a_parked_id_is_not_published_and_a_released_one_is() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    assert!(bench.tables.seen.borrow().is_empty());
    bench.arrive(A);
    bench.drive(None);
    assert_eq!(bench.commit(), [(1, Late)]);
    bench.event(1, A);
    assert_eq!(bench.commit(), []);
}

#[test]
fn a_parked_event_that_was_published_stops_the_process() {
    let mut bench = Bench::new(100);
    bench.event(1, A);
    bench.commit();
    let id = EventId(1);
    let container: RoaringBitmap = [id.place()].into_iter().collect();
    bench
        .tables
        .seen
        .borrow_mut()
        .insert((P, Container::of(id)), container);
    // A task that is built anew looks into the store again.
    let mut task = Task::new(P, bench.task.position(), bench.task.ledger());
    for value in bench.tables.parked.borrow().values() {
        task.restore(&crate::codec::decode_parked(value).unwrap());
    }
    bench.task = task;
    bench.arrive(A);
    let outcome = bench
        .task
        .drive(None, &bench.rules, &bench.tables, &mut bench.staged);
    assert!(matches!(
        outcome,
        Err(TaskError::PublishedTwice(P, EventId(1)))
    ));
}
