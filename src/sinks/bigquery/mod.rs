//! Rows of a table in BigQuery, each event once: by offsets in streams of the Storage Write interface, not by ids of rows.
//!
//! Reading order: `rows` says what a row is; `table` what the table must be; `rest` and `write` are BigQuery's two interfaces,
//! `auth` the key to both; `state` is what must be remembered; `recover` takes a partition over; `lane` writes it.

mod auth;
mod lane;
mod recover;
mod rest;
mod rows;
mod state;
mod table;
mod write;

pub use lane::BigQueryLane;
pub use state::StateTopic;

use super::{Destination, Frame, SinkError, Taken};
use crate::config::BigQueryConfig;
use auth::Auth;
use recover::Recovery;
use rest::Rest;
use std::sync::Arc;
use table::TableName;
use tokio::sync::{Mutex, Semaphore};
use write::Writer;

/// Partitions that are taken over at the same time: each asks one query, and makes one stream (BigQuery slows down above 40
/// a second).
const RECOVERIES: usize = 8;

/// The sink.
pub struct BigQuerySink {
    config: BigQueryConfig,
    table: TableName,
    states: StateTopic,
    clients: Mutex<Option<Arc<Clients>>>,
    recoveries: Semaphore,
}

/// What is made once the credentials are there.
struct Clients {
    auth: Arc<Auth>,
    rest: Rest,
}

impl BigQuerySink {
    /// Connects to nothing yet.
    pub fn new(config: &BigQueryConfig, states: StateTopic) -> Result<Self, SinkError> {
        let Some(project) = &config.project else {
            return Err(SinkError::Misconfigured(
                "`sinks.bigquery.project` is not set".to_owned(),
            ));
        };
        Ok(Self {
            table: TableName {
                project: project.clone(),
                dataset: config.dataset.clone(),
                table: config.table.clone(),
            },
            config: config.clone(),
            states,
            clients: Mutex::new(None),
            recoveries: Semaphore::new(RECOVERIES),
        })
    }

    async fn clients(&self) -> Result<Arc<Clients>, SinkError> {
        let mut clients = self.clients.lock().await;
        if let Some(clients) = &*clients {
            return Ok(Arc::clone(clients));
        }
        let auth = Arc::new(Auth::open(&self.config).await?);
        let rest = Rest::new(&self.config, &self.table.project, Arc::clone(&auth))?;
        let made = Arc::new(Clients { auth, rest });
        *clients = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Destination for BigQuerySink {
    type Lane = BigQueryLane;

    const NAME: &'static str = "bigquery";

    async fn prepare(&self) -> Result<(), SinkError> {
        let clients = self.clients().await?;
        let prepared = table::prepare(&clients.rest, &self.config, &self.table).await;
        if prepared.is_err() {
            // Credentials may have been replaced: they are read again.
            *self.clients.lock().await = None;
        }
        prepared
    }

    async fn open(&self, taken: Taken, frame: Frame) -> Result<(BigQueryLane, i64), SinkError> {
        let closed = |_| SinkError::Unavailable("the sink is stopping".to_owned());
        let _permit = self.recoveries.acquire().await.map_err(closed)?;
        let clients = self.clients().await?;
        let recovery = Recovery {
            rest: &clients.rest,
            writer: Writer::new(&self.config, Arc::clone(&clients.auth))?,
            table: &self.table,
            states: &self.states,
            accept: self.config.accept_missing_rows,
        };
        recovery.open(&taken, frame).await
    }
}
