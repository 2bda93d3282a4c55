//! `data-generator`: fills the two tables at a rate, from a seed, with a progress bar.

// Counts of rows become seconds and rates.
#![allow(clippy::cast_precision_loss)]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use thmanyah_tools::{Plan, Progress, WINDOW_EVENTS, Writer, WriterError};

/// How often progress is told where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// Windows per transaction when nothing slows the run down.
const WINDOWS_AT_FULL_SPEED: u64 = 32;
/// A transaction writes at most what the rate gives in this time.
const TRANSACTIONS_PER_SECOND: u64 = 10;

/// Writes content and engagement events into PostgreSQL, as a publishing platform would.
///
/// The rows are a function of the seed. A run that was stopped goes on where it stopped when it is started again with the
/// same seed; one that is complete goes on when it is given more --events.
#[derive(Debug, Parser)]
#[command(name = "data-generator", version)]
struct Arguments {
    /// The database with the tables of content and engagement events
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://postgres@127.0.0.1:5432/thmanyah"
    )]
    database_url: String,
    /// How many contents there are in the end
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    contents: u32,
    /// How many events there are in the end
    #[arg(long, default_value_t = 20_000)]
    events: u64,
    /// Events per second; 0 is as fast as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Which rows: the same seed gives the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The share of sessions about contents that never appear
    #[arg(long, default_value_t = 0.001, value_parser = share)]
    missing: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("a share lies between 0 and 1".into())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("data-generator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), WriterError> {
    let plan = Plan::new(arguments.seed, arguments.contents, arguments.missing);
    let mut writer = Writer::connect(&arguments.database_url, arguments.seed, plan).await?;
    let mut teller = Teller::new(arguments, writer.progress());
    if writer.progress().events > 0 {
        teller.say(&format!(
            "going on after {} contents and {} events",
            writer.progress().contents,
            writer.progress().events
        ));
    }
    while writer.write_contents_at_start().await? {
        teller.tell(writer.progress());
    }
    let mut pace = Pace::new(arguments.rate, writer.progress().events);
    while writer.progress().events < arguments.events {
        let end = pace
            .next_end(writer.progress().events)
            .min(arguments.events);
        pace.wait_for(end).await;
        writer.write_events(end).await?;
        teller.tell(writer.progress());
    }
    while writer.write_contents_left().await? {
        teller.tell(writer.progress());
    }
    teller.finish(writer.progress());
    Ok(())
}

/// Spreads the transactions evenly over time.
struct Pace {
    rate: u64,
    batch: u64,
    begun_at: u64,
    start: Instant,
}

impl Pace {
    fn new(rate: u64, begun_at: u64) -> Self {
        let windows = if rate == 0 {
            WINDOWS_AT_FULL_SPEED
        } else {
            (rate / TRANSACTIONS_PER_SECOND / WINDOW_EVENTS).clamp(1, WINDOWS_AT_FULL_SPEED)
        };
        Self {
            rate,
            batch: windows * WINDOW_EVENTS,
            begun_at,
            start: Instant::now(),
        }
    }

    /// Where the next transaction ends: at the end of a window.
    fn next_end(&self, events: u64) -> u64 {
        (events / self.batch + 1) * self.batch
    }

    /// Waits until the rate allows the transaction that ends at `end`.
    async fn wait_for(&mut self, end: u64) {
        if self.rate > 0 {
            let due = (end - self.begun_at) as f64 / self.rate as f64;
            let wait = Duration::from_secs_f64(due).saturating_sub(self.start.elapsed());
            tokio::time::sleep(wait).await;
        }
    }
}

/// Tells the progress: a bar at a terminal, else a line now and then.
struct Teller {
    bar: Option<ProgressBar>,
    events: u64,
    begun_at: u64,
    start: Instant,
    told: Instant,
}

impl Teller {
    fn new(arguments: &Arguments, progress: Progress) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{bar:40.cyan/dim} {human_pos} of {human_len} events  {msg}  {eta} left";
            ProgressBar::new(arguments.events)
                .with_position(progress.events)
                .with_style(
                    ProgressStyle::with_template(style)
                        .unwrap_or_else(|_| ProgressStyle::default_bar()),
                )
        });
        let now = Instant::now();
        Self {
            bar,
            events: arguments.events,
            begun_at: progress.events,
            start: now,
            told: now,
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("data-generator: {text}"),
        }
    }

    fn tell(&mut self, progress: Progress) {
        if let Some(bar) = &self.bar {
            bar.set_position(progress.events);
            let written = progress.events - self.begun_at;
            let rate = written as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
            bar.set_message(format!("{rate:.0}/s  {} contents", progress.contents));
        } else if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.say(&format!(
                "{} of {} events, {} contents",
                progress.events, self.events, progress.contents
            ));
        }
    }

    fn finish(&self, progress: Progress) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let written = progress.events - self.begun_at;
        eprintln!(
            "data-generator: {} events and {} contents are in the tables; {written} events in {seconds:.1} s, {:.0} per second",
            progress.events,
            progress.contents,
            written as f64 / seconds.max(1e-9)
        );
    }
}
