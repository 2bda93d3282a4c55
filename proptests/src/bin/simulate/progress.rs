//! How far a long run is, so that it can be taken up again: a text file beside the program.

use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use thmanyah_proptests::sim::{Explored, counted};

/// The file, and what it holds.
pub(crate) struct Progress {
    path: PathBuf,
    /// Which program it was: another one begins anew.
    program: u64,
    /// What was explored so far.
    pub(crate) explored: Explored,
}

impl Progress {
    /// Goes on where an earlier run of this program was left, unless that had run as many already.
    pub(crate) fn load(count: u64) -> Result<Self> {
        let program = std::env::current_exe().context("this program's file is not known")?;
        let path = program.with_extension("progress");
        let mut hasher = DefaultHasher::new();
        fs::read(&program)?.hash(&mut hasher);
        let mut this = Self {
            path,
            program: hasher.finish(),
            explored: Explored::default(),
        };
        if let Ok(text) = fs::read_to_string(&this.path)
            && let Some(explored) = this.read(&text)
            && explored.schedules < count
        {
            this.explored = explored;
        }
        Ok(this)
    }

    fn read(&self, text: &str) -> Option<Explored> {
        let mut lines = text.lines();
        if lines.next()? != self.program.to_string() {
            return None;
        }
        let mut explored = Explored {
            schedules: lines.next()?.parse().ok()?,
            ..Explored::default()
        };
        for line in lines {
            let (number, text) = line.split_once(' ')?;
            if let Some(why) = text.strip_prefix("FAILED ") {
                let failure = (number.parse().ok()?, why.to_owned());
                explored.failures.push(failure);
            } else {
                let count = number.parse().ok()?;
                explored.counts.0.insert(counted(text)?, count);
            }
        }
        Some(explored)
    }

    /// Notes how far it is.
    pub(crate) fn save(&self) -> Result<()> {
        let mut text = format!("{}\n{}\n", self.program, self.explored.schedules);
        for (name, count) in &self.explored.counts.0 {
            writeln!(text, "{count} {name}")?;
        }
        for (seed, why) in &self.explored.failures {
            writeln!(text, "{seed} FAILED {}", why.replace('\n', " "))?;
        }
        fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
