//! The rows of a plan get into a real PostgreSQL, once, however often the writing is interrupted.

use std::process::{Command, Stdio};

use thmanyah_dev::Postgres;
use thmanyah_tools::{Plan, Progress, Writer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const SEED: u64 = 3;
const CONTENTS: u32 = 60;
const EVENTS: u64 = 1_000;

fn plan() -> Plan {
    Plan::new(SEED, CONTENTS, 0.01)
}

/// The rows as the database has them, in the order of their ids.
fn rows(postgres: &Postgres) -> Result<String, thmanyah_dev::Error> {
    postgres.query(
        "SELECT content_id, user_id, event_type, duration_ms, device, raw_payload IS NULL
         FROM engagement_events ORDER BY id",
    )
}

fn planned_rows(events: u64) -> String {
    let plan = plan();
    let lines: Vec<String> = (0..events)
        .map(|index| {
            let row = plan.event(index);
            let text = |value: Option<String>| value.unwrap_or_default();
            [
                text(row.content_id.map(|id| id.to_string())),
                text(row.user_id.map(|id| id.to_string())),
                row.event_type.to_owned(),
                text(row.duration_ms.map(|duration| duration.to_string())),
                text(row.device.map(str::to_owned)),
                if row.raw_payload.is_none() { "t" } else { "f" }.to_owned(),
            ]
            .join("|")
        })
        .collect();
    lines.join("\n")
}

#[tokio::test]
async fn a_second_run_goes_on_where_the_first_stopped() -> Outcome {
    let postgres = Postgres::start()?;
    let mut first = Writer::connect(&postgres.url(), SEED, plan()).await?;
    while first.write_contents_at_start().await? {}
    // In the middle of a window.
    first.write_events(333).await?;
    let stopped_at = first.progress();
    drop(first);

    let mut second = Writer::connect(&postgres.url(), SEED, plan()).await?;
    assert_eq!(second.progress(), stopped_at);
    while second.write_contents_at_start().await? {}
    second.write_events(EVENTS).await?;
    while second.write_contents_left().await? {}
    assert_eq!(
        second.progress(),
        Progress {
            contents: CONTENTS.into(),
            events: EVENTS
        }
    );

    assert_eq!(rows(&postgres)?, planned_rows(EVENTS));
    assert_eq!(
        postgres.query("SELECT count(*) FROM content")?,
        CONTENTS.to_string()
    );
    Ok(())
}

#[tokio::test]
async fn contents_come_in_the_transaction_of_their_first_events() -> Outcome {
    let postgres = Postgres::start()?;
    let mut writer = Writer::connect(&postgres.url(), SEED, plan()).await?;
    while writer.write_contents_at_start().await? {}
    writer.write_events(64).await?;
    let together = postgres.query(
        "SELECT count(DISTINCT content.id) FROM content JOIN engagement_events e ON content.id = content_id
         WHERE content.xmin = e.xmin",
    )?;
    assert!(together.parse::<u64>()? >= 4, "{together}");
    Ok(())
}

#[tokio::test]
async fn another_plan_under_the_same_seed_and_a_second_writer_are_refused() -> Outcome {
    let postgres = Postgres::start()?;
    let mut one = Writer::connect(&postgres.url(), SEED, plan()).await?;
    let mut other = Writer::connect(&postgres.url(), SEED, plan()).await?;
    one.write_events(10).await?;
    let refused = other
        .write_events(20)
        .await
        .err()
        .ok_or("a second writer wrote")?;
    assert!(
        refused.to_string().contains("another generator"),
        "{refused}"
    );

    let larger = Plan::new(SEED, CONTENTS + 1, 0.01);
    let refused = Writer::connect(&postgres.url(), SEED, larger).await.err();
    let refused = refused.ok_or("another plan was begun")?;
    assert!(refused.to_string().contains("--contents 60"), "{refused}");
    assert_eq!(rows(&postgres)?, planned_rows(10));
    Ok(())
}

#[test]
fn a_killed_generator_is_completed_by_the_next() -> Outcome {
    let postgres = Postgres::start()?;
    let generator = |rate: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-generator"));
        command
            .args(["--database-url", &postgres.url(), "--rate", rate])
            .args([
                "--contents",
                "60",
                "--events",
                "1000",
                "--seed",
                "3",
                "--missing",
                "0.01",
            ])
            .stderr(Stdio::piped());
        command
    };
    let mut killed = generator("200").spawn()?;
    let written = "SELECT coalesce(sum(events), 0) > 100 FROM data_generator_progress";
    while !postgres.query(written).is_ok_and(|answer| answer == "t") {
        assert!(
            killed.try_wait()?.is_none(),
            "the generator ended by itself"
        );
    }
    killed.kill()?;
    killed.wait()?;

    let completed = generator("0").output()?;
    assert!(completed.status.success());
    let told = String::from_utf8_lossy(&completed.stderr).into_owned();
    assert!(told.contains("going on after"), "{told}");
    assert_eq!(rows(&postgres)?, planned_rows(EVENTS));
    Ok(())
}
