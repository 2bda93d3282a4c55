//! The engagement formula against exact rationals, and its laws.

use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use thmanyah::codec::{EventRules, decode_event, write_enriched};
use thmanyah::domain::{
    ContentType, ContentVersion, Engagement, Enriched, Event, EventId, EventType, Hundredths,
    JoinContent, JoinStatus, Offset, Partition, Reason, Timestamp, UserId,
};
use thmanyah_proptests::oracle::{
    EventRow, JoinedRow, expected_enriched, oracle_pct, oracle_seconds, oracle_share,
};

/// Durations and lengths: everywhere, near zero, near the end, and where halves are.
fn count() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => 0..=i32::MAX,
        4 => 0..=20_000,
        1 => i32::MAX - 1000..=i32::MAX,
        1 => (0..=i32::MAX / 5).prop_map(|n| n * 5),
    ]
}

fn exact(pct: Hundredths) -> BigRational {
    BigRational::new(BigInt::from(pct.0), BigInt::from(100))
}

fn written(event: &Event<'_>, content: Option<JoinContent>) -> Vec<u8> {
    let mut out = Vec::new();
    write_enriched(
        &Enriched::join(event, content, JoinStatus::Joined),
        &mut out,
    );
    out
}

fn event(duration_ms: Option<i32>) -> Event<'static> {
    Event {
        id: EventId(1),
        content_id: None,
        user_id: None,
        event_type: EventType::Play,
        event_ts: Timestamp::MIN,
        duration_ms,
        device: None,
    }
}

fn content(length_seconds: Option<i32>) -> JoinContent {
    JoinContent {
        content_type: None,
        length_seconds,
        version: ContentVersion {
            partition: Partition(0),
            offset: Offset(0),
        },
    }
}

/// Formula and text agree with the oracle.
fn agrees(duration: Option<i32>, length: Option<i32>) -> Result<(), TestCaseError> {
    let engagement = Engagement::of(duration, length);
    prop_assert_eq!(engagement.pct.map(exact), oracle_share(duration, length));
    let text = written(&event(duration), Some(content(length)));
    let text = String::from_utf8(text).expect("UTF-8");
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".into());
    let end = format!(
        r#""engagement_seconds":{},"engagement_pct":{}}}"#,
        or_null(oracle_seconds(duration)),
        or_null(oracle_pct(duration, length))
    );
    prop_assert!(text.ends_with(&end), "{} should end with {}", text, end);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn the_formula_equals_exact_rationals(
        duration in proptest::option::weighted(0.95, count()),
        length in proptest::option::weighted(0.95, count()),
    ) {
        agrees(duration, length)?;
    }

    #[test]
    fn a_duration_exactly_on_a_half_rounds_away_from_zero(
        length in 1..=200_000i32,
        half in 0..1000i32,
    ) {
        // duration / (10 * length) = half + 1/2
        let duration = 5 * i64::from(length) * (2 * i64::from(half) + 1);
        prop_assume!(i32::try_from(duration).is_ok());
        let pct = Engagement::of(Some(duration as i32), Some(length)).pct;
        prop_assert_eq!(pct, Some(Hundredths(i64::from(half) + 1)));
        agrees(Some(duration as i32), Some(length))?;
        agrees(Some(duration as i32 - 1), Some(length))?;
    }

    #[test]
    fn the_rounded_share_is_within_half_a_hundredth(duration in count(), length in 1..=i32::MAX) {
        let pct = Engagement::of(Some(duration), Some(length)).pct.expect("a share");
        let share = BigRational::new(BigInt::from(duration), BigInt::from(length) * 1000);
        let (share, rounded) = (share, exact(pct));
        let error = if share > rounded { share - rounded } else { rounded - share };
        prop_assert!(error <= BigRational::new(BigInt::from(1), BigInt::from(200)));
        prop_assert!(pct.0 >= 0);
        prop_assert!(pct.0 <= 214_748_365);
    }

    #[test]
    fn a_longer_duration_never_lowers_the_share(
        a in count(), b in count(), length in 1..=i32::MAX,
    ) {
        let share = |duration| Engagement::of(Some(duration), Some(length)).pct;
        prop_assert!(share(a.min(b)) <= share(a.max(b)));
    }

    #[test]
    fn a_longer_content_never_raises_the_share(
        duration in count(), a in 1..=i32::MAX, b in 1..=i32::MAX,
    ) {
        let share = |length| Engagement::of(Some(duration), Some(length)).pct;
        prop_assert!(share(a.min(b)) >= share(a.max(b)));
    }

    #[test]
    fn null_in_is_null_out_and_a_length_of_zero_is_no_share(
        duration in count(), length in proptest::option::of(count()),
    ) {
        prop_assert_eq!(Engagement::of(None, length), Engagement { millis: None, pct: None });
        prop_assert_eq!(Engagement::of(Some(duration), None).pct, None);
        prop_assert_eq!(Engagement::of(Some(duration), Some(0)).pct, None);
        prop_assert_eq!(Engagement::of(Some(duration), None).millis, Some(duration));
    }

    #[test]
    fn a_negative_duration_is_refused_before_the_formula(duration in i64::MIN..0) {
        let record = format!(
            r#"{{"id":1,"event_type":"play","event_ts":"2025-01-01T00:00:00Z","duration_ms":{duration}}}"#
        );
        let dead = decode_event(Some(record.as_bytes()), &EventRules::default());
        prop_assert_eq!(dead.expect_err("a dead letter").reason, Reason::Negative);
    }

    #[test]
    fn the_enriched_json_equals_the_oracles_for_any_row(
        (id, event_type, micros) in (
            any::<i64>(),
            prop::sample::select(EventType::ALL.to_vec()),
            Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
        ),
        content_id in proptest::option::of(any::<[u8; 16]>()),
        user_id in proptest::option::of(any::<[u8; 16]>()),
        duration_ms in proptest::option::of(count()),
        device in proptest::option::of(".{0,20}"),
        joined in proptest::option::of((
            proptest::option::of(prop::sample::select(ContentType::ALL.to_vec())),
            proptest::option::of(count()),
        )),
    ) {
        let event = Event {
            id: EventId(id),
            content_id: content_id.map(thmanyah::domain::ContentId),
            user_id: user_id.map(UserId),
            event_type,
            event_ts: Timestamp::from_micros(micros).expect("in range"),
            duration_ms,
            device: device.clone().map(Into::into),
        };
        let uuid = |bytes: Option<[u8; 16]>| bytes.map(|b| uuid::Uuid::from_bytes(b).to_string());
        let row = EventRow {
            id,
            content_id: uuid(content_id),
            user_id: uuid(user_id),
            event_type: event_type.name().into(),
            event_ts_micros: micros,
            duration_ms,
            device,
        };
        let content = joined.map(|(content_type, length)| JoinContent {
            content_type,
            ..content(length)
        });
        let joined = joined.map(|(kind, length_seconds)| JoinedRow {
            content_type: kind.map(|kind| kind.name().into()),
            length_seconds,
        });
        let (ours, expected) = (written(&event, content), expected_enriched(&row, joined.as_ref()));
        prop_assert_eq!(
            String::from_utf8(ours).expect("UTF-8"),
            String::from_utf8(expected).expect("UTF-8")
        );
    }
}

#[test]
fn the_extremes_of_int4_agree_with_exact_rationals() {
    let extremes = [
        0,
        1,
        2,
        4,
        5,
        9,
        10,
        11,
        999,
        1000,
        1001,
        i32::MAX - 1,
        i32::MAX,
    ];
    for duration in extremes.map(Some).into_iter().chain([None]) {
        for length in extremes.map(Some).into_iter().chain([None]) {
            agrees(duration, length).expect("agreement");
        }
    }
}
