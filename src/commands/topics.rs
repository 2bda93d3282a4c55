//! `thmanyah topics`: checks the topics, makes those that are missing, and prints what there is.

use super::Failure;
use super::args::SettingFlags;
use crate::config::{
    Config, ContentConfig, KafkaConfig, Layers, LogConfig, RecentConfig, SinksConfig, TopicNames,
};
use crate::kafka::topics::{Plan, TopicReport};
use crate::logging;
use std::io::{self, Write};
use tokio_util::sync::CancellationToken;

/// Checks and creates topics. The report is printed beside an error too, as far as it came.
pub(super) fn topics(flags: &SettingFlags, json: bool) -> Result<(), Failure> {
    let layers = Layers::gather(&flags.layer())?;
    // Also what this command does not use must be right.
    Config::check(&layers)?;
    logging::start(&LogConfig::load(&layers)?);
    let plan = Plan {
        kafka: &KafkaConfig::load(&layers)?,
        names: &TopicNames::load(&layers)?,
        content: &ContentConfig::load(&layers)?,
        recent: &RecentConfig::load(&layers)?,
        sinks: &SinksConfig::load(&layers)?,
    };
    let mut report = Vec::new();
    let outcome = plan.ensure_and_report(&mut report, &CancellationToken::new());
    let mut out = io::stdout().lock();
    if json {
        print_json(&mut out, &report)?;
    } else {
        print_table(&mut out, &report)?;
    }
    outcome?;
    Ok(())
}

fn print_json(out: &mut impl Write, report: &[TopicReport]) -> io::Result<()> {
    let topics: Vec<_> = report
        .iter()
        .map(|topic| {
            serde_json::json!({
                "name": topic.name,
                "setting": topic.setting,
                "partitions": topic.partitions,
                "cleanup": topic.cleanup,
                "status": topic.status.name(),
            })
        })
        .collect();
    writeln!(out, "{}", serde_json::Value::Array(topics))
}

fn print_table(out: &mut impl Write, report: &[TopicReport]) -> io::Result<()> {
    let heading = ["TOPIC", "PARTITIONS", "CLEANUP", "STATUS"].map(str::to_owned);
    let rows = report.iter().map(|topic| {
        [
            topic.name.clone(),
            topic
                .partitions
                .map_or_else(|| "-".to_owned(), |n| n.to_string()),
            topic.cleanup.clone().unwrap_or_else(|| "-".to_owned()),
            topic.status.name().to_owned(),
        ]
    });
    let rows: Vec<[String; 4]> = std::iter::once(heading).chain(rows).collect();
    if rows.len() == 1 {
        return Ok(());
    }
    let longest = rows
        .iter()
        .map(|[name, ..]| name.len())
        .max()
        .unwrap_or_default();
    for [name, partitions, cleanup, status] in rows {
        writeln!(
            out,
            "{name:<longest$}  {partitions:>10}  {cleanup:<14}  {status}"
        )?;
    }
    Ok(())
}
