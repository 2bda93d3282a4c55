//! What a deployment left in its topics, read once for the checker.

use std::collections::BTreeMap;

use anyhow::Result;
use thmanyah::domain::Ledger;

use crate::deployment::Deployment;
use crate::topics::{self, Record};

/// The records of every topic, and the ledgers.
pub struct Evidence {
    /// Full name of the topic of engagement events.
    pub events_topic: String,
    /// Full name of the topic of content.
    pub content_topic: String,
    /// Engagement events.
    pub raw: Vec<Record>,
    /// Content.
    pub content_raw: Vec<Record>,
    /// Enriched events.
    pub enriched: Vec<Record>,
    /// The normalised content rows.
    pub changelog: Vec<Record>,
    /// The changelog of parked events.
    pub pending: Vec<Record>,
    /// Dead letters.
    pub dlq: Vec<Record>,
    /// Committed positions and ledgers.
    pub ledgers: BTreeMap<i32, (i64, Ledger)>,
}

impl Evidence {
    /// That of a deployment.
    pub fn of(deployment: &Deployment<'_>) -> Result<Self> {
        let bootstrap = deployment.broker.bootstrap();
        let (group, partitions) = (deployment.group(), deployment.partitions());
        Self::read(bootstrap, &group, partitions, |name| deployment.topic(name))
    }

    /// That of any brokers, where `topic` makes full names.
    pub fn read(
        bootstrap: &str,
        group: &str,
        partitions: i32,
        topic: impl Fn(&str) -> String,
    ) -> Result<Self> {
        let events_topic = topic("engagement-events.raw");
        let content_topic = topic("content.raw");
        let read = |name: &str| topics::read_back(bootstrap, &topic(name));
        Ok(Self {
            raw: topics::read_back(bootstrap, &events_topic)?,
            content_raw: topics::read_back(bootstrap, &content_topic)?,
            enriched: read("engagement-events.enriched")?,
            changelog: read("content.changelog")?,
            pending: read("engagement-events.pending")?,
            dlq: read("engagement-events.dlq")?,
            ledgers: topics::ledgers(bootstrap, group, &events_topic, partitions)?,
            events_topic,
            content_topic,
        })
    }
}
