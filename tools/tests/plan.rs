//! The rows of a plan: the same for a seed, and spread as they should be.

use std::collections::{HashMap, HashSet};

use thmanyah_tools::{ContentRow, EventRow, Plan};
use uuid::Uuid;

const EVENTS: u64 = 20_000;
const CONTENTS: u32 = 1_000;

fn plan() -> Plan {
    Plan::new(7, CONTENTS, 0.002)
}

fn contents() -> Vec<ContentRow> {
    (0..u64::from(CONTENTS))
        .map(|index| plan().content(index))
        .collect()
}

fn events() -> Vec<EventRow> {
    let plan = plan();
    (0..EVENTS).map(|index| plan.event(index)).collect()
}

#[allow(clippy::cast_precision_loss)]
fn share<T>(rows: &[T], of: impl Fn(&T) -> bool) -> f64 {
    rows.iter().filter(|row| of(row)).count() as f64 / rows.len() as f64
}

#[test]
fn the_same_seed_gives_the_same_rows_in_whatever_order_they_are_asked_for() {
    let forwards = events();
    let plan = plan();
    let mut backwards: Vec<EventRow> = (0..EVENTS).rev().map(|index| plan.event(index)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let other = Plan::new(8, CONTENTS, 0.002);
    assert_ne!(plan.event(0), other.event(0));
    assert_ne!(plan.content(0), other.content(0));
}

#[test]
fn a_content_is_written_no_later_than_the_window_that_introduces_it() {
    let plan = plan();
    let numbers: HashMap<Uuid, u64> = (0..).zip(contents()).map(|(n, row)| (row.id, n)).collect();
    assert_eq!(numbers.len(), CONTENTS as usize, "two contents share an id");
    let mut introduced = HashSet::new();
    let (mut early, mut known) = (0, 0);
    for (index, event) in (0..).zip(events()) {
        let Some(number) = event.content_id.and_then(|id| numbers.get(&id).copied()) else {
            continue;
        };
        known += 1;
        let written = plan.contents_before(index);
        early += u64::from(number >= written);
        if number >= plan.contents_at_start() && number < written {
            introduced.insert(number);
        }
    }
    // Each later content has events from its own window on, and only a few events precede their content.
    assert_eq!(
        introduced.len() as u64,
        plan.contents() - plan.contents_at_start()
    );
    assert!(
        (1..known / 20).contains(&early),
        "{early} of {known} precede their content"
    );
}

#[test]
fn a_few_contents_are_much_more_popular_than_the_rest() {
    let mut counts: HashMap<Uuid, u64> = HashMap::new();
    for id in events().iter().filter_map(|event| event.content_id) {
        *counts.entry(id).or_default() += 1;
    }
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top: u64 = counts.iter().take(10).sum();
    let lower_half: u64 = counts.iter().skip(counts.len() / 2).sum();
    assert!(top > EVENTS / 5, "the ten most popular have {top} events");
    assert!(
        lower_half < EVENTS / 4,
        "the lower half has {lower_half} events"
    );
    assert!(
        counts.len() > 900,
        "only {} contents have events",
        counts.len()
    );
}

#[test]
fn every_kind_and_every_null_occurs_and_none_dominates() {
    let (contents, events) = (contents(), events());
    let between = |range: std::ops::Range<f64>, share: f64, what: &str| {
        assert!(range.contains(&share), "{what}: {share}");
    };
    for kind in ["podcast", "newsletter", "video"] {
        between(
            0.1..0.7,
            share(&contents, |row| row.content_type == kind),
            kind,
        );
    }
    for kind in ["play", "pause", "finish", "click"] {
        between(
            0.05..0.7,
            share(&events, |row| row.event_type == kind),
            kind,
        );
    }
    between(
        0.02..0.4,
        share(&contents, |row| row.length_seconds.is_none()),
        "no length",
    );
    between(
        0.0005..0.05,
        share(&contents, |row| row.length_seconds == Some(0)),
        "length zero",
    );
    between(
        0.3..0.7,
        share(&contents, |row| !row.title.is_ascii()),
        "Arabic titles",
    );
    between(
        0.001..0.01,
        share(&contents, |row| row.title.len() > 8_000),
        "long titles",
    );
    between(
        0.02..0.4,
        share(&events, |row| row.duration_ms.is_none()),
        "no duration",
    );
    between(
        0.002..0.03,
        share(&events, |row| row.content_id.is_none()),
        "no content",
    );
    between(
        0.01..0.1,
        share(&events, |row| row.user_id.is_none()),
        "no user",
    );
    between(
        0.01..0.1,
        share(&events, |row| row.device.is_none()),
        "no device",
    );
    between(
        0.1..0.4,
        share(&events, |row| row.raw_payload.is_none()),
        "no payload",
    );
    between(
        0.01..0.04,
        share(&events, |row| row.age_micros > 60_000_000),
        "old",
    );
    assert!(
        events
            .iter()
            .all(|row| row.duration_ms.is_none_or(|duration| duration >= 0))
    );
}

#[test]
fn sessions_are_played_again_under_new_ids() {
    let mut plays: HashMap<_, u64> = HashMap::new();
    for event in events() {
        if let (Some(user), Some(duration)) = (event.user_id, event.duration_ms) {
            *plays
                .entry((user, event.content_id, event.event_type, duration))
                .or_default() += 1;
        }
    }
    let again = plays.values().filter(|count| **count > 1).count();
    assert!((200..2_000).contains(&again), "{again} facts came again");
}

#[test]
fn lengths_change_and_only_of_contents_that_are_there() {
    let plan = plan();
    let numbers: HashMap<Uuid, u64> = (0..).zip(contents()).map(|(n, row)| (row.id, n)).collect();
    let windows = EVENTS / thmanyah_tools::WINDOW_EVENTS;
    let changes: Vec<_> = (0..windows)
        .filter_map(|window| Some((window, plan.length_change_after(window)?)))
        .collect();
    assert!(changes.len() > 40, "{} changes", changes.len());
    for (window, change) in changes {
        let number = numbers.get(&change.id).copied().unwrap_or(u64::MAX);
        assert!(number < plan.contents_before(window * thmanyah_tools::WINDOW_EVENTS));
    }
}

#[test]
fn some_events_are_about_contents_that_never_appear_and_none_when_that_is_asked_for() {
    let numbers: HashSet<Uuid> = contents().into_iter().map(|row| row.id).collect();
    let strange = |plan: &Plan| {
        (0..EVENTS)
            .filter_map(|index| plan.event(index).content_id)
            .filter(|id| !numbers.contains(id))
            .count()
    };
    assert!(
        (10..200).contains(&strange(&plan())),
        "{}",
        strange(&plan())
    );
    assert_eq!(strange(&Plan::new(7, CONTENTS, 0.0)), 0);
}
