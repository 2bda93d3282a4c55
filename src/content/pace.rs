//! The wall clock as deadlines may follow it: never faster than time really passes.

use std::collections::VecDeque;

/// Steps and slews remembered at most; what is more is taken for slower than it was.
const MOST: usize = 128;

/// Keeps the watermark from passing deadlines that have not passed.
///
/// An event is parked at what the wall clock shows, so its deadline is `parked + deadline` on that clock. A step forward, or
/// a sleep of the machine, lets the clock pass it before the time has. So for as long as the deadline lasts after a step,
/// the watermark goes by the clock as it was: monotonic time plus the smallest difference between the two clocks that was
/// seen within the last deadline. An event that was parked at difference `d` sees at most `d` for that long; after that,
/// its deadline has really passed.
pub(super) struct Pace {
    window_ms: i64,
    /// Until when, by the monotonic clock, a difference held, and the difference; both rise, and the last is the latest.
    looks: VecDeque<(i64, i64)>,
}

impl Pace {
    /// For events that wait for `deadline_ms`.
    pub(super) fn new(deadline_ms: i64) -> Self {
        Self {
            window_ms: deadline_ms.max(0),
            looks: VecDeque::new(),
        }
    }

    /// The time by which deadlines go, given a look at the wall clock and, right after it, at a monotonic clock. Never later
    /// than the wall clock.
    pub(super) fn look(&mut self, wall_ms: i64, monotonic_ms: i64) -> i64 {
        let difference = wall_ms.saturating_sub(monotonic_ms);
        // What was seen at the last look held until this one.
        if let Some((until, _)) = self.looks.back_mut() {
            *until = monotonic_ms;
        }
        // A smaller difference outlives the larger ones before it.
        while self.looks.back().is_some_and(|(_, d)| *d >= difference) {
            self.looks.pop_back();
        }
        if self.looks.len() < MOST {
            self.looks.push_back((monotonic_ms, difference));
        }
        let past = monotonic_ms.saturating_sub(self.window_ms);
        while self.looks.len() > 1 && self.looks.front().is_some_and(|(until, _)| *until <= past) {
            self.looks.pop_front();
        }
        let smallest = self.looks.front().map_or(difference, |(_, d)| *d);
        monotonic_ms.saturating_add(smallest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: i64 = 60_000;

    /// A wall clock that can step, beside one that cannot.
    struct Clocks {
        wall: i64,
        monotonic: i64,
        pace: Pace,
    }

    impl Clocks {
        fn new() -> Self {
            Self {
                wall: 1_000_000,
                monotonic: 5,
                pace: Pace::new(DEADLINE),
            }
        }

        /// Looks once a second.
        fn run(&mut self, seconds: i64) -> i64 {
            let mut w = self.pace.look(self.wall, self.monotonic);
            for _ in 0..seconds {
                self.wall += 1_000;
                self.monotonic += 1_000;
                w = self.pace.look(self.wall, self.monotonic);
            }
            w
        }
    }

    #[test]
    fn steady_clocks_are_followed_exactly() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.run(0), clocks.wall);
        assert_eq!(clocks.run(1_000), clocks.wall);
        assert!(clocks.pace.looks.len() <= 2);
    }

    #[test]
    fn a_step_forward_passes_no_deadline_and_is_made_up_for_a_deadline_later() {
        let mut clocks = Clocks::new();
        clocks.run(100);
        let parked = clocks.wall;
        clocks.wall += 3_600_000;
        let mut passed_after = None;
        for second in 1..=200 {
            let w = clocks.run(1);
            assert!(w <= clocks.wall);
            if w >= parked + DEADLINE {
                passed_after.get_or_insert(second);
            }
        }
        assert_eq!(
            passed_after,
            Some(60),
            "the deadline passed when it really had"
        );
        assert_eq!(clocks.run(1), clocks.wall, "and nothing lags for ever");
    }

    #[test]
    fn an_event_parked_after_the_step_waits_no_longer_than_its_deadline() {
        let mut clocks = Clocks::new();
        clocks.run(100);
        clocks.wall += 3_600_000;
        clocks.run(1);
        let parked = clocks.wall;
        assert!(clocks.run(59) < parked + DEADLINE);
        assert!(clocks.run(2) >= parked + DEADLINE);
    }

    #[test]
    fn a_step_back_is_followed_at_once() {
        let mut clocks = Clocks::new();
        clocks.run(100);
        clocks.wall -= 3_600_000;
        assert_eq!(clocks.run(1), clocks.wall);
        // Forward again: only the step is made up for, and only when a deadline has passed.
        clocks.wall += 3_600_000;
        assert_eq!(clocks.run(10), clocks.wall - 3_600_000);
        assert_eq!(clocks.run(60), clocks.wall);
    }

    #[test]
    fn a_sleep_between_two_looks_counts_as_a_step() {
        let mut clocks = Clocks::new();
        clocks.run(100);
        // Eight hours pass on the wall; the monotonic clock sleeps.
        clocks.wall += 8 * 3_600_000;
        let asleep = clocks.wall - 8 * 3_600_000;
        assert!(clocks.run(59) < asleep + DEADLINE);
        assert_eq!(clocks.run(2), clocks.wall);
    }

    #[test]
    fn a_clock_that_gains_all_the_time_is_remembered_in_bounded_memory() {
        let mut clocks = Clocks::new();
        clocks.pace = Pace::new(86_400_000);
        for _ in 0..100_000 {
            clocks.wall += 1;
            let w = clocks.run(1);
            assert!(w <= clocks.wall);
            assert!(clocks.pace.looks.len() <= MOST);
        }
        let lag = clocks.wall - clocks.run(0);
        assert!(lag <= 100_000, "at most what it gained: {lag}");
    }
}
