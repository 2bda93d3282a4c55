//! Benches: criterion's in `benches/`, the whole processor beside a bare copy loop in `src/bin/processor`, and a cold restore
//! beside a bare reader in `src/bin/restore`. Here is what they share.

pub mod cpu;
pub mod fill;
pub mod records;
