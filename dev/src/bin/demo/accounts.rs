//! The books of a run: what went in, what became of it, and whether that adds up.

use anyhow::{Context, Result};
use thmanyah_dev::sum_of;

use crate::screen::grouped;

/// The totals of the ledger over all partitions, as the processor exports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) consumed: u64,
    pub(crate) enriched: u64,
    pub(crate) dead: u64,
    pub(crate) duplicate: u64,
    pub(crate) ignored: u64,
    pub(crate) pending: u64,
}

impl Ledger {
    /// Reads a page of metrics; `None` as long as it has no ledger.
    pub(crate) fn read(page: &str) -> Option<Self> {
        let total = |kind: &str| Some(sum_of(page, "thmanyah_ledger", &[("kind", kind)])? as u64);
        Some(Self {
            consumed: total("consumed")?,
            enriched: total("enriched")?,
            dead: total("dead")?,
            duplicate: total("duplicate")?,
            ignored: total("ignored")?,
            pending: total("pending")?,
        })
    }

    fn accounted(&self) -> u64 {
        self.enriched + self.dead + self.duplicate + self.ignored + self.pending
    }

    pub(crate) fn balances(&self) -> bool {
        self.consumed == self.accounted()
    }
}

/// The ledger beside what the ends of the pipeline hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// Rows of `engagement_events` in PostgreSQL.
    pub(crate) rows: u64,
    pub(crate) ledger: Ledger,
    /// Records read back from the enriched topic.
    pub(crate) published: u64,
    /// Different events among them.
    pub(crate) distinct: u64,
}

impl Accounts {
    /// What does not add up, each in words; nothing if all is well.
    pub(crate) fn problems(&self) -> Vec<String> {
        let ledger = &self.ledger;
        let mut problems = Vec::new();
        let mut check = |left: u64, what: &str, right: u64, other: &str| {
            if left != right {
                let (left, right) = (grouped(left), grouped(right));
                problems.push(format!("{what} is {left}, but {other} is {right}"));
            }
        };
        check(
            ledger.consumed,
            "consumed",
            ledger.accounted(),
            "the sum of what became of it",
        );
        check(
            ledger.consumed,
            "consumed",
            self.rows,
            "the number of rows in PostgreSQL",
        );
        check(
            ledger.enriched,
            "enriched",
            self.published,
            "the number of enriched records",
        );
        check(
            self.distinct,
            "the number of different events",
            self.published,
            "that of enriched records",
        );
        problems
    }
}

/// Parses a count that a query returned.
pub(crate) fn count(answer: &str) -> Result<u64> {
    answer
        .trim()
        .parse()
        .with_context(|| format!("PostgreSQL counted {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Accounts = Accounts {
        rows: 10,
        ledger: Ledger {
            consumed: 10,
            enriched: 6,
            dead: 1,
            duplicate: 1,
            ignored: 1,
            pending: 1,
        },
        published: 6,
        distinct: 6,
    };

    #[test]
    fn sound_books_have_no_problem() {
        assert_eq!(SOUND.problems(), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_lose_or_double_an_event_is_told() {
        let lost = Accounts { rows: 11, ..SOUND };
        let doubled = Accounts {
            published: 7,
            ..SOUND
        };
        let swapped = Accounts {
            distinct: 5,
            ..SOUND
        };
        let unbalanced = Accounts {
            ledger: Ledger {
                dead: 2,
                ..SOUND.ledger
            },
            ..SOUND
        };
        for accounts in [lost, swapped, unbalanced] {
            assert_eq!(accounts.problems().len(), 1, "{accounts:?}");
        }
        assert_eq!(doubled.problems().len(), 2);
    }

    #[test]
    fn a_page_without_a_whole_ledger_is_none() {
        assert_eq!(
            Ledger::read("up 1\nthmanyah_ledger{kind=\"consumed\"} 1\n"),
            None
        );
        let kinds = [
            "consumed",
            "enriched",
            "dead",
            "duplicate",
            "ignored",
            "pending",
        ];
        let lines: Vec<String> = (1..)
            .zip(kinds)
            .map(|(n, kind)| format!("thmanyah_ledger{{partition=\"0\",kind=\"{kind}\"}} {n}"))
            .collect();
        assert_eq!(
            Ledger::read(&lines.join("\n")).map(|ledger| ledger.pending),
            Some(6)
        );
    }
}
