//! What happened when, for the person who watches and for the one who looks for a cause afterwards.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Lines with the time since the start.
pub(super) struct Journal<'t> {
    began: Instant,
    tell: &'t (dyn Fn(&str) + Sync),
    lines: Mutex<Vec<String>>,
}

impl<'t> Journal<'t> {
    pub(super) fn new(tell: &'t (dyn Fn(&str) + Sync)) -> Self {
        let this = Self {
            began: Instant::now(),
            tell,
            lines: Mutex::default(),
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        this.note(format!("began at {seconds} s since 1970"));
        this
    }

    pub(super) fn note(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed().as_secs_f64();
        let line = format!("{at:8.2} {}", line.as_ref());
        (self.tell)(&line);
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.join("\n")
    }
}
