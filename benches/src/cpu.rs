//! CPU time of a process, from `/proc`.

use anyhow::{Context, Result};
use std::fs;

/// `USER_HZ`, which is 100 on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time that a process used so far, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("it has ended")?;
    // The name of the program may hold anything but ends with the last bracket.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}
