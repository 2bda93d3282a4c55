//! Benches: criterion's in `benches/`, and the whole processor beside a bare copy loop in `src/bin/processor`.
