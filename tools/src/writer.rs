//! Writes the rows of a plan into PostgreSQL. How far it came is kept in a table beside them and in the same transactions,
//! so that a run that was stopped in whatever way goes on exactly where it stopped.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, Statement, Transaction};
use uuid::Uuid;

use crate::plan::{Plan, WINDOW_EVENTS};
use crate::rows::{ContentRow, EventRow, LengthChange};

/// Contents per transaction before the first event.
const CONTENT_BATCH: u64 = 1_000;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Contents written so far.
    pub contents: u64,
    /// Events written so far.
    pub events: u64,
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// The database could not be reached.
    #[error("cannot connect to the database: {0}: is it up, and is --database-url right?")]
    Connect(#[source] tokio_postgres::Error),
    /// A statement failed.
    #[error("the database refused to {doing}: {}", detail(source))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// This seed was started with another number of contents, which gives other rows.
    #[error(
        "seed {seed} was begun with {begun} contents: go on with --contents {begun}, or take another --seed"
    )]
    OtherPlan {
        /// The seed.
        seed: i64,
        /// The number of contents it was begun with.
        begun: i64,
    },
    /// The progress moved under us.
    #[error("another generator writes the rows of seed {seed}: stop it, or take another --seed")]
    Contended {
        /// The seed.
        seed: i64,
    },
}

fn detail(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

fn refused(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> WriterError {
    move |source| WriterError::Database { doing, source }
}

/// Writes one plan.
pub struct Writer {
    client: Client,
    insert_contents: Statement,
    insert_events: Statement,
    change_length: Statement,
    plan: Plan,
    seed: i64,
    progress: Progress,
}

impl Writer {
    /// Connects, and finds out how far an earlier run of the same seed came.
    pub async fn connect(url: &str, seed: u64, plan: Plan) -> Result<Self, WriterError> {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .map_err(WriterError::Connect)?;
        // Ends with the client; an error of the connection comes back from the next statement.
        tokio::spawn(connection);
        let seed = seed.cast_signed();
        let progress = begin(&client, seed, plan.contents()).await?;
        let prepare = refused("prepare the statements: are the tables there?");
        let statements = tokio::try_join!(
            client.prepare_typed(INSERT_CONTENTS, &CONTENT_COLUMNS),
            client.prepare_typed(INSERT_EVENTS, &EVENT_COLUMNS),
            client.prepare_typed(CHANGE_LENGTH, &[Type::UUID, Type::INT4]),
        )
        .map_err(prepare)?;
        Ok(Self {
            client,
            insert_contents: statements.0,
            insert_events: statements.1,
            change_length: statements.2,
            plan,
            seed,
            progress,
        })
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Writes the contents that are there before the first event, one batch per call; `false` when there are no more.
    pub async fn write_contents_at_start(&mut self) -> Result<bool, WriterError> {
        self.write_contents_up_to(self.plan.contents_at_start())
            .await
    }

    /// Writes what contents are left once the events are through, one batch per call; `false` when there are no more.
    pub async fn write_contents_left(&mut self) -> Result<bool, WriterError> {
        self.write_contents_up_to(self.plan.contents()).await
    }

    async fn write_contents_up_to(&mut self, end: u64) -> Result<bool, WriterError> {
        if self.progress.contents >= end {
            return Ok(false);
        }
        let until = Progress {
            contents: end.min(self.progress.contents + CONTENT_BATCH),
            ..self.progress
        };
        self.write(until).await?;
        Ok(true)
    }

    /// Writes the events up to number `end`, the contents that come with them and the changes of lengths after them, in one
    /// transaction.
    pub async fn write_events(&mut self, end: u64) -> Result<(), WriterError> {
        let Some(last) = end.checked_sub(1).filter(|_| end > self.progress.events) else {
            return Ok(());
        };
        let until = Progress {
            contents: self.plan.contents_before(last).max(self.progress.contents),
            events: end,
        };
        self.write(until).await
    }

    async fn write(&mut self, until: Progress) -> Result<(), WriterError> {
        let from = self.progress;
        let now = SystemTime::now();
        let contents: Vec<ContentRow> = (from.contents..until.contents)
            .map(|index| self.plan.content(index))
            .collect();
        let events: Vec<EventRow> = (from.events..until.events)
            .map(|index| self.plan.event(index))
            .collect();
        let windows = from.events / WINDOW_EVENTS..until.events / WINDOW_EVENTS;
        let changes: Vec<LengthChange> = windows
            .filter_map(|window| self.plan.length_change_after(window))
            .collect();

        let transaction = self
            .client
            .transaction()
            .await
            .map_err(refused("begin a transaction"))?;
        // First, as it takes the lock that keeps another generator out.
        advance(&transaction, self.seed, from, until).await?;
        insert_contents(&transaction, &self.insert_contents, &contents, now).await?;
        insert_events(&transaction, &self.insert_events, &events, now).await?;
        for change in &changes {
            transaction
                .execute(&self.change_length, &[&change.id, &change.length_seconds])
                .await
                .map_err(refused("change a length"))?;
        }
        transaction.commit().await.map_err(refused("commit"))?;
        self.progress = until;
        Ok(())
    }
}

const PROGRESS_TABLE: &str = "CREATE TABLE IF NOT EXISTS data_generator_progress (
    seed     bigint PRIMARY KEY,
    planned  bigint NOT NULL,
    contents bigint NOT NULL,
    events   bigint NOT NULL
)";

async fn begin(client: &Client, seed: i64, planned: u64) -> Result<Progress, WriterError> {
    client
        .batch_execute(PROGRESS_TABLE)
        .await
        .map_err(refused("create the table data_generator_progress"))?;
    let row = client
        .query_one(
            "WITH begun AS (
                 INSERT INTO data_generator_progress VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING
                 RETURNING planned, contents, events)
             SELECT * FROM begun UNION ALL
             SELECT planned, contents, events FROM data_generator_progress WHERE seed = $1",
            &[&seed, &planned.cast_signed()],
        )
        .await
        .map_err(refused("read how far an earlier run came"))?;
    let (begun, contents, events): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if begun != planned.cast_signed() {
        return Err(WriterError::OtherPlan { seed, begun });
    }
    Ok(Progress {
        contents: contents.cast_unsigned(),
        events: events.cast_unsigned(),
    })
}

async fn advance(
    transaction: &Transaction<'_>,
    seed: i64,
    from: Progress,
    until: Progress,
) -> Result<(), WriterError> {
    let moved = transaction
        .execute(
            "UPDATE data_generator_progress SET contents = $4, events = $5
             WHERE seed = $1 AND contents = $2 AND events = $3",
            &[
                &seed,
                &from.contents.cast_signed(),
                &from.events.cast_signed(),
                &until.contents.cast_signed(),
                &until.events.cast_signed(),
            ],
        )
        .await
        .map_err(refused("record the progress"))?;
    if moved == 1 {
        Ok(())
    } else {
        Err(WriterError::Contended { seed })
    }
}

// One statement per batch, a column per parameter. The ordinality keeps ids in the order of the plan.
const INSERT_CONTENTS: &str =
    "INSERT INTO content (id, slug, title, content_type, length_seconds, publish_ts)
     SELECT id, slug, title, type, length, at
     FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY AS row(id, slug, title, type, length, at, n)
     ORDER BY n";
const CONTENT_COLUMNS: [Type; 6] = [
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
];
const INSERT_EVENTS: &str =
    "INSERT INTO engagement_events (content_id, user_id, event_type, event_ts, duration_ms, device, raw_payload)
     SELECT content_id, user_id, type, at, duration, device, payload
     FROM unnest($1, $2, $3, $4, $5, $6, $7)
         WITH ORDINALITY AS row(content_id, user_id, type, at, duration, device, payload, n)
     ORDER BY n";
const EVENT_COLUMNS: [Type; 7] = [
    Type::UUID_ARRAY,
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::JSONB_ARRAY,
];
const CHANGE_LENGTH: &str = "UPDATE content SET length_seconds = $2 WHERE id = $1";

async fn insert_contents(
    transaction: &Transaction<'_>,
    statement: &Statement,
    rows: &[ContentRow],
    now: SystemTime,
) -> Result<(), WriterError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let slugs: Vec<&str> = rows.iter().map(|row| row.slug.as_str()).collect();
    let titles: Vec<&str> = rows.iter().map(|row| row.title.as_str()).collect();
    let types: Vec<&str> = rows.iter().map(|row| row.content_type).collect();
    let lengths: Vec<Option<i32>> = rows.iter().map(|row| row.length_seconds).collect();
    let published: Vec<Option<SystemTime>> = rows
        .iter()
        .map(|row| {
            row.published_before_seconds
                .map(|seconds| now - Duration::from_secs(seconds.into()))
        })
        .collect();
    transaction
        .execute(
            statement,
            &[&ids, &slugs, &titles, &types, &lengths, &published],
        )
        .await
        .map_err(refused("insert contents"))?;
    Ok(())
}

async fn insert_events(
    transaction: &Transaction<'_>,
    statement: &Statement,
    rows: &[EventRow],
    now: SystemTime,
) -> Result<(), WriterError> {
    if rows.is_empty() {
        return Ok(());
    }
    let contents: Vec<Option<Uuid>> = rows.iter().map(|row| row.content_id).collect();
    let users: Vec<Option<Uuid>> = rows.iter().map(|row| row.user_id).collect();
    let types: Vec<&str> = rows.iter().map(|row| row.event_type).collect();
    let times: Vec<SystemTime> = rows
        .iter()
        .map(|row| now - Duration::from_micros(row.age_micros))
        .collect();
    let durations: Vec<Option<i32>> = rows.iter().map(|row| row.duration_ms).collect();
    let devices: Vec<Option<&str>> = rows.iter().map(|row| row.device).collect();
    let payloads: Vec<Option<&serde_json::Value>> =
        rows.iter().map(|row| row.raw_payload.as_ref()).collect();
    transaction
        .execute(
            statement,
            &[
                &contents, &users, &types, &times, &durations, &devices, &payloads,
            ],
        )
        .await
        .map_err(refused("insert events"))?;
    Ok(())
}
