//! The circuit breaker: while a destination fails again and again, it is left alone but for one attempt now and then.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// So many failures in a row open the circuit.
const FAILURES: u32 = 5;
/// The shortest time it stays open, doubled with each attempt that fails.
const FIRST_SPELL: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_SPELL: Duration = Duration::from_secs(10);
/// An attempt that tells nothing for so long was given up; another is let through.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long who is not let through waits before he asks again, at most.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Between two attempts at the same thing: the first is soon, each later one may come twice as late, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everything is let through; so many failed in a row.
    Closed { failures: u32 },
    /// Nothing is, until then.
    Open { until: Instant, spells: u32 },
    /// One attempt is under way, and waited for until then.
    HalfOpen { until: Instant, spells: u32 },
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailedAttempt {
    /// Another would fail as well, so that the circuit opens by this one alone.
    pub is_lasting: bool,
    /// For how long the destination asks to be left alone. A circuit that is open for this failure stays open for so long.
    pub rest: Duration,
}

/// The decisions, with the time passed in.
#[derive(Debug)]
struct Circuit {
    state: State,
}

impl Circuit {
    fn new() -> Self {
        Self {
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether an attempt may be made now; if not, when to ask again.
    fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let (until, spells) = match self.state {
            State::Closed { .. } => return Ok(()),
            State::Open { until, spells } | State::HalfOpen { until, spells } => (until, spells),
        };
        if now < until {
            return Err(until.saturating_duration_since(now).min(ASK_AGAIN));
        }
        self.state = State::HalfOpen {
            until: now + ATTEMPT,
            spells,
        };
        Ok(())
    }

    /// `jitter` is from 0 to 1. Says whether the circuit was opened by this.
    fn failed(&mut self, failure: FailedAttempt, now: Instant, jitter: f64) -> bool {
        let rested = now + failure.rest;
        let spells = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < FAILURES && !failure.is_lasting {
                    return false;
                }
                0
            }
            State::HalfOpen { spells, .. } => *spells + 1,
            // Who was let through before it opened.
            State::Open { until, .. } => {
                *until = rested.max(*until);
                return false;
            }
        };
        let longest = LONGEST_SPELL.min(FIRST_SPELL * 2u32.saturating_pow(spells.min(16)));
        // Not less than half: an open circuit is to give the destination a rest.
        let spell = longest.mul_f64(0.5 + jitter / 2.0);
        let opened = matches!(self.state, State::Closed { .. });
        self.state = State::Open {
            until: rested.max(now + spell),
            spells,
        };
        opened
    }

    /// Says whether the circuit was closed by this.
    fn succeeded(&mut self) -> bool {
        let closed = !matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        closed
    }

    fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

/// One sink's circuit breaker, shared by all that deliver to the destination.
#[derive(Debug)]
pub struct Breaker(Mutex<Circuit>);

impl Breaker {
    /// Closed: everything is let through.
    pub fn new() -> Self {
        Self(Mutex::new(Circuit::new()))
    }

    /// Whether an attempt may be made now; if not, when to ask again. What became of it must be told.
    pub fn admit(&self) -> Result<(), Duration> {
        self.0.lock().admit(now())
    }

    /// An attempt failed. Says whether the circuit opened by it.
    pub fn failed(&self, failure: FailedAttempt) -> bool {
        self.0.lock().failed(failure, now(), rand::random())
    }

    /// An attempt succeeded. Says whether the circuit closed by it.
    pub fn succeeded(&self) -> bool {
        self.0.lock().succeeded()
    }

    /// Whether the destination is left alone.
    pub fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// How long to wait before attempt `number` (from 1) at the same thing: anything from nothing to a time that doubles, so that
/// those who failed together do not come back together.
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog ("full jitter").
pub fn pause_before(number: u32) -> Duration {
    let longest =
        LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(number.saturating_sub(1).min(16)));
    longest.mul_f64(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTING: FailedAttempt = FailedAttempt {
        is_lasting: true,
        rest: Duration::ZERO,
    };

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_attempt_through() {
        let start = now();
        let mut circuit = Circuit::new();
        for _ in 1..FAILURES {
            assert!(!circuit.failed(FailedAttempt::default(), start, 1.0));
        }
        circuit.succeeded();
        for _ in 1..FAILURES {
            assert!(!circuit.failed(FailedAttempt::default(), start, 1.0));
            assert_eq!(circuit.admit(start), Ok(()));
        }
        assert!(circuit.failed(FailedAttempt::default(), start, 1.0) && circuit.is_open());
        assert_eq!(circuit.admit(start), Err(ASK_AGAIN));
        let later = start + FIRST_SPELL;
        assert_eq!(circuit.admit(later), Ok(()));
        assert_eq!(
            circuit.admit(later),
            Err(ASK_AGAIN),
            "one attempt at a time"
        );
        assert!(circuit.succeeded() && !circuit.is_open());
        assert_eq!(circuit.admit(later), Ok(()));
    }

    #[test]
    fn each_attempt_that_fails_makes_the_next_spell_longer_up_to_the_longest() {
        let mut at = now();
        let mut circuit = Circuit::new();
        assert!(circuit.failed(LASTING, at, 1.0));
        for millis in [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            let spell = Duration::from_millis(millis);
            assert!(
                circuit
                    .admit(at + Duration::from_millis(millis - 1))
                    .is_err()
            );
            at += spell;
            assert_eq!(circuit.admit(at), Ok(()), "{spell:?}");
            assert!(!circuit.failed(FailedAttempt::default(), at, 1.0));
        }
    }

    #[test]
    fn it_stays_open_for_as_long_as_the_destination_asks() {
        let start = now();
        let mut circuit = Circuit::new();
        let busy = FailedAttempt {
            rest: Duration::from_mins(1),
            ..FailedAttempt::default()
        };
        circuit.failed(busy, start, 1.0);
        assert_eq!(circuit.admit(start), Ok(()), "one alone rests by itself");
        for _ in 1..FAILURES {
            circuit.failed(busy, start, 1.0);
        }
        let rested = start + Duration::from_mins(1);
        assert!(
            circuit
                .admit(start + Duration::from_millis(59_999))
                .is_err()
        );
        assert_eq!(circuit.admit(rested), Ok(()));
        circuit.failed(busy, rested, 0.0);
        assert!(circuit.admit(rested + Duration::from_secs(59)).is_err());
    }

    #[test]
    fn an_attempt_that_was_given_up_does_not_keep_it_open() {
        let start = now();
        let mut circuit = Circuit::new();
        circuit.failed(LASTING, start, 0.0);
        let later = start + FIRST_SPELL;
        assert_eq!(circuit.admit(later), Ok(()));
        assert!(circuit.admit(later + ATTEMPT.mul_f64(0.99)).is_err());
        assert_eq!(circuit.admit(later + ATTEMPT), Ok(()));
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for number in 1..40 {
            let longest = FIRST_PAUSE * 2u32.saturating_pow((number - 1).min(16));
            assert!(pause_before(number) <= longest.min(LONGEST_PAUSE));
        }
    }
}
