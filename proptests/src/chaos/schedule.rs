//! Which faults come when: a seed decides.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::kind::{Kind, Victim};

/// Faults of one round at most.
const MOST: usize = 3;
/// One round in so many is followed by the next without waiting for a recovery.
const HASTE: u32 = 4;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// Which of the instances or brokers, from 0.
    pub(super) target: usize,
    pub(super) lasts: Duration,
}

/// Faults that begin together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) faults: Vec<Fault>,
    /// Whether the next round waits until everything moves again.
    pub(super) awaited: bool,
}

/// An endless schedule.
pub(super) struct Schedule {
    random: ChaCha8Rng,
    kinds: Vec<Kind>,
    /// What is drawn from, last first.
    deck: Vec<Kind>,
    targets: usize,
}

impl Schedule {
    /// A schedule of these kinds, against so many instances and as many brokers. Each kind comes once before any comes twice.
    pub(super) fn new(seed: u64, kinds: &[Kind], targets: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut deck = kinds.to_vec();
        deck.shuffle(&mut random);
        Self {
            random,
            kinds: kinds.to_vec(),
            deck,
            targets,
        }
    }

    /// The next round, of at most `most` faults.
    pub(super) fn next_round(&mut self, most: usize) -> Round {
        let count = self.random.random_range(1..=MOST.min(most.max(1)));
        let mut faults: Vec<Fault> = Vec::new();
        let mut left_out = Vec::new();
        while faults.len() < count {
            let Some(kind) = self.draw() else { break };
            if faults.iter().any(|f| f.kind.victim() == kind.victim()) {
                left_out.push(kind);
                if left_out.len() > self.kinds.len() {
                    break;
                }
                continue;
            }
            faults.push(Fault {
                kind,
                target: self.random.random_range(0..self.targets),
                lasts: Duration::from_millis(self.random.random_range(kind.lasts_ms())),
            });
        }
        self.deck.extend(left_out.into_iter().rev());
        Round {
            faults,
            awaited: !self.random.random_ratio(1, HASTE),
        }
    }

    /// Puts a fault back that could not be inflicted.
    pub(super) fn put_back(&mut self, kind: Kind) {
        self.deck.insert(0, kind);
    }

    fn draw(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            for kind in &self.kinds {
                self.deck.extend(vec![*kind; kind.share()]);
            }
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop()
    }
}

impl Fault {
    /// What the journal says.
    pub(super) fn describe(&self) -> String {
        let name = self.kind.name();
        match self.kind.victim() {
            Victim::Input => name.to_owned(),
            Victim::Broker if self.kind == Kind::BrokersRolled => name.to_owned(),
            _ => format!("{name}: {} for {:?}", self.target, self.lasts),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, Schedule};

    #[test]
    fn a_seed_gives_the_same_schedule_and_each_kind_comes_early() {
        let take = |seed| {
            let mut schedule = Schedule::new(seed, &Kind::ALL, 3);
            let rounds: Vec<_> = (0..40).map(|_| schedule.next_round(3)).collect();
            rounds
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        let faults: Vec<Kind> = take(7)
            .into_iter()
            .flat_map(|round| round.faults)
            .map(|fault| fault.kind)
            .collect();
        let first: BTreeSet<Kind> = faults.iter().take(2 * Kind::ALL.len()).copied().collect();
        assert_eq!(first.len(), Kind::ALL.len());
    }

    #[test]
    fn in_a_round_no_victim_is_hit_twice() {
        let mut schedule = Schedule::new(1, &Kind::ALL, 3);
        for _ in 0..1_000 {
            let round = schedule.next_round(3);
            assert!((1..=3).contains(&round.faults.len()));
            for (at, fault) in round.faults.iter().enumerate() {
                let others = round.faults.iter().skip(at + 1);
                for other in others {
                    assert_ne!(fault.kind.victim(), other.kind.victim());
                }
            }
        }
    }
}
