//! The ledger: what became of every record of a partition since its first. It rides on the committed offset's metadata, so
//! that it is as atomic as the offset itself.

use std::fmt;

/// Running totals of one input partition.
///
/// `consumed = enriched + dead + duplicate + ignored + pending`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records read.
    pub consumed: u64,
    /// Events published: at once, released or timed out.
    pub enriched: u64,
    /// Records that became dead letters.
    pub dead: u64,
    /// Events published or parked before.
    pub duplicate: u64,
    /// Tombstones, and operations configured to be ignored.
    pub ignored: u64,
    /// Events parked now.
    pub pending: u64,
}

/// Why a commit's metadata is no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// Not `v1` and six integers, separated by semicolons.
    Malformed,
    /// The totals do not add up.
    Unbalanced,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not `v1;consumed;enriched;dead;duplicate;ignored;pending`",
            Self::Unbalanced => "consumed is not enriched + dead + duplicate + ignored + pending",
        })
    }
}

impl std::error::Error for LedgerError {}

impl Ledger {
    /// Whether the conservation law holds.
    pub fn balances(&self) -> bool {
        self.consumed == self.enriched + self.dead + self.duplicate + self.ignored + self.pending
    }

    /// Reads a commit's metadata, as [`Display`](fmt::Display) writes it.
    pub fn parse(metadata: &str) -> Result<Self, LedgerError> {
        let mut parts = metadata.split(';');
        if parts.next() != Some("v1") {
            return Err(LedgerError::Malformed);
        }
        let mut total = || {
            parts
                .next()
                .and_then(|part| part.parse().ok())
                .ok_or(LedgerError::Malformed)
        };
        let ledger = Self {
            consumed: total()?,
            enriched: total()?,
            dead: total()?,
            duplicate: total()?,
            ignored: total()?,
            pending: total()?,
        };
        if parts.next().is_some() {
            return Err(LedgerError::Malformed);
        }
        // Totals this large cannot come from counting records, and their sum would overflow.
        if [
            ledger.enriched,
            ledger.dead,
            ledger.duplicate,
            ledger.ignored,
            ledger.pending,
        ]
        .iter()
        .any(|total| *total > ledger.consumed)
            || ledger.consumed > u64::MAX / 8
        {
            return Err(LedgerError::Unbalanced);
        }
        if ledger.balances() {
            Ok(ledger)
        } else {
            Err(LedgerError::Unbalanced)
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "v1;{};{};{};{};{};{}",
            self.consumed, self.enriched, self.dead, self.duplicate, self.ignored, self.pending
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_survives_the_offset_metadata() {
        let ledger = Ledger {
            consumed: 15,
            enriched: 5,
            dead: 4,
            duplicate: 3,
            ignored: 2,
            pending: 1,
        };
        assert_eq!(ledger.to_string(), "v1;15;5;4;3;2;1");
        assert_eq!(Ledger::parse("v1;15;5;4;3;2;1"), Ok(ledger));
    }

    #[test]
    fn metadata_that_is_no_ledger_is_refused() {
        for text in [
            "",
            "v2;0;0;0;0;0;0",
            "v1;1;1;0;0;0",
            "v1;1;1;0;0;0;0;0",
            "v1;x;0;0;0;0;0",
        ] {
            assert_eq!(Ledger::parse(text), Err(LedgerError::Malformed), "{text}");
        }
        assert_eq!(
            Ledger::parse("v1;2;1;0;0;0;0"),
            Err(LedgerError::Unbalanced)
        );
    }

    #[test]
    fn totals_that_would_overflow_their_sum_are_refused() {
        let max = u64::MAX;
        for text in [
            format!("v1;{max};{max};0;0;0;0"),
            format!("v1;5;{max};6;0;0;0"),
            format!("v1;0;{};{};0;0;0", max / 2 + 1, max / 2 + 1),
        ] {
            assert_eq!(Ledger::parse(&text), Err(LedgerError::Unbalanced), "{text}");
        }
        let text = format!("v1;{max}0;0;0;0;0;0");
        assert_eq!(Ledger::parse(&text), Err(LedgerError::Malformed));
    }
}
