//! The time grammar: what is written is read back, and agrees with a calendar walked year by year.

use proptest::prelude::*;
use thmanyah::domain::{TimeError, Timestamp};
use thmanyah_proptests::oracle::utc;

fn instants() -> impl Strategy<Value = i64> {
    let (min, max) = (Timestamp::MIN.micros(), Timestamp::MAX.micros());
    prop_oneof![
        4 => min..=max,
        // Whole seconds, and fractions that end in zeros.
        2 => (min / 1_000_000..=max / 1_000_000).prop_map(|seconds| seconds * 1_000_000),
        1 => (min / 1000..=max / 1000).prop_map(|millis| millis * 1000),
        1 => min..=min + 200_000_000_000,
        1 => max - 200_000_000_000..=max,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn an_instant_survives_its_text(micros in instants()) {
        let instant = Timestamp::from_micros(micros).expect("in range");
        let text = instant.to_string();
        prop_assert_eq!(Timestamp::parse(&text), Ok(instant));
        prop_assert_eq!(text, utc(micros));
    }

    #[test]
    fn an_offset_moves_the_text_and_not_the_instant(micros in instants(), minutes in -1439..=1439i64) {
        // The local time must itself be one that the grammar can write.
        let local = Timestamp::from_micros(micros + minutes * 60_000_000);
        prop_assume!(local.is_some());
        let text = local.expect("assumed").to_string();
        let sign = if minutes < 0 { '-' } else { '+' };
        let zone = format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        let text = text.replace('Z', &zone);
        prop_assert_eq!(Timestamp::parse(&text), Ok(Timestamp::from_micros(micros).expect("in range")));
    }

    #[test]
    fn the_order_of_texts_of_whole_seconds_is_the_order_of_time(a in instants(), b in instants()) {
        let whole = |micros: i64| Timestamp::from_micros(micros / 1_000_000 * 1_000_000).expect("in range");
        let (a, b) = (whole(a), whole(b));
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn any_text_is_a_time_or_refused(text in "\\PC{0,40}") {
        let _ = Timestamp::parse(&text);
    }

    #[test]
    fn what_looks_like_a_time_is_read_as_the_same_or_refused(
        (year, month, day) in (0..=9999i64, 0..=15i64, 0..=35i64),
        (hour, minute, second) in (0..=30i64, 0..=70i64, 0..=70i64),
    ) {
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
        match Timestamp::parse(&text) {
            Ok(instant) => prop_assert_eq!(instant.to_string(), text),
            Err(error) => prop_assert!(error == TimeError::NoSuchTime || year == 0, "{}", text),
        }
    }
}
