//! How much the suites do: little by default, more where time does not matter.

/// How often a scenario is played: `ROUNDS`, else `many` when `FULL` is set, else `few`.
pub fn rounds(few: usize, many: usize) -> usize {
    let asked = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(if is_full() { many } else { few })
}

/// Whether the suites run at the sizes for which the usual run has no time, and assert times.
pub fn is_full() -> bool {
    std::env::var_os("FULL").is_some()
}
