//! The engagement formula, in exact integers.

/// A non-negative decimal with two digits after the point, counted in hundredths: 1 is `0.01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hundredths(pub i64);

/// What was engaged: the two computed fields of an enriched event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engagement {
    /// Milliseconds; printed as seconds with up to three decimals.
    pub millis: Option<i32>,
    /// Share of the content's length; 1.00 is all of it, more is legal.
    pub pct: Option<Hundredths>,
}

impl Engagement {
    /// `engagement_seconds = duration_ms / 1000.0`, `engagement_pct = ROUND(engagement_seconds / length_seconds, 2)`, half
    /// away from zero. Null when an input is null; a length of zero gives a null share. Both inputs are validated to be ≥ 0.
    pub fn of(duration_ms: Option<i32>, length_seconds: Option<i32>) -> Self {
        let pct = match (duration_ms, length_seconds) {
            (Some(duration), Some(length)) if length > 0 => {
                // duration / 1000 / length in hundredths is duration / (10 * length); adding half of the divisor rounds.
                let divisor = 10 * i64::from(length);
                Some(Hundredths((i64::from(duration) + divisor / 2) / divisor))
            }
            _ => None,
        };
        Self {
            millis: duration_ms,
            pct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_contract_holds() {
        let engagement = Engagement::of(Some(12_340), Some(1200));
        assert_eq!(engagement.millis, Some(12_340));
        assert_eq!(engagement.pct, Some(Hundredths(1)));
    }

    #[test]
    fn halves_round_away_from_zero() {
        assert_eq!(Engagement::of(Some(5), Some(1)).pct, Some(Hundredths(1)));
        assert_eq!(Engagement::of(Some(4), Some(1)).pct, Some(Hundredths(0)));
        assert_eq!(Engagement::of(Some(15), Some(1)).pct, Some(Hundredths(2)));
    }

    #[test]
    fn a_length_of_zero_gives_no_share() {
        assert_eq!(Engagement::of(Some(5), Some(0)).pct, None);
    }
}
