//! What each class of error asks for, with brokers that answer whatever the test wants: call again, abort, abort and wait,
//! replace the producer, apply nothing. After each the next transaction commits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use thmanyah::config::{Flags, KafkaConfig, Layers, TopicNames};
use thmanyah::kafka::{
    Kafka, LimitReader, Outgoing, ProducerError, ProducerSettings, Receipt, TopicLimits, Track,
    TransactionalProducer,
};
use tokio_util::sync::CancellationToken;

const GROUP: &str = "group";
const RAW: &str = "raw";
const OUT: &str = "out";
const RECORD_BYTES: u64 = 1_000_000;
const BUFFER: u64 = 8 << 20;

fn edge(
    brokers: &MockCluster<'static, DefaultProducerContext>,
    client: ClientConfig,
) -> Result<Kafka> {
    let layers = Layers::gather(&Flags {
        file: None,
        settings: vec![("--bootstrap-servers", brokers.bootstrap_servers())],
    })?;
    let (kafka, names) = (KafkaConfig::load(&layers)?, TopicNames::load(&layers)?);
    let limits = LimitReader::new(kafka, names, RECORD_BYTES, CancellationToken::new());
    let now = TopicLimits::default().within(RECORD_BYTES);
    Ok(Kafka::new(client, (BUFFER, BUFFER), limits, &now))
}

/// Brokers that obey, a producer, and the metadata of its group.
struct Ground {
    brokers: MockCluster<'static, DefaultProducerContext>,
    producer: TransactionalProducer<Kafka>,
    group: ConsumerGroupMetadata,
}

impl Ground {
    fn start() -> Result<Self> {
        let brokers = MockCluster::new(1)?;
        for topic in [RAW, OUT] {
            brokers.create_topic(topic, 1, 1)?;
        }
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers.bootstrap_servers());
        let consumer: BaseConsumer = client.clone().set("group.id", GROUP).create()?;
        let group = consumer
            .group_metadata()
            .ok_or_else(|| anyhow!("no metadata"))?;
        let settings = ProducerSettings {
            transactional_id: "app-a-0".to_owned(),
            transaction_timeout: Duration::from_secs(15),
            max_record_bytes: RECORD_BYTES,
            stop: Arc::new(AtomicBool::new(false)),
        };
        let producer = TransactionalProducer::start(edge(&brokers, client)?, settings)?;
        Ok(Self {
            brokers,
            producer,
            group,
        })
    }

    /// Has the next requests of a kind answered with these errors.
    fn answer(&self, request: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.brokers.request_errors(request, errors);
    }

    /// One transaction of one record and one offset.
    fn transact(&mut self) -> Result<Receipt, ProducerError> {
        self.producer.begin()?;
        self.producer.send(Outgoing {
            topic: OUT,
            partition: Some(0),
            key: None,
            value: Some(b"x"),
            headers: None,
            track: Some(Track::Enriched),
        })?;
        let positions = [(0, 1, String::new())];
        self.producer.commit(RAW, &positions, &self.group)
    }

    /// What the failed transaction of a healthy producer asked for.
    fn failure(&mut self) -> Result<ProducerError> {
        match self.transact() {
            Ok(receipt) => bail!("it committed: {receipt:?}"),
            Err(failure) => Ok(failure),
        }
    }

    /// The next transaction commits, and tells where its record is.
    fn commits(&mut self) -> Result<()> {
        let receipt = self.transact()?;
        ensure!(receipt.delivered(Track::Enriched, 0).is_some());
        Ok(())
    }
}

#[test]
fn a_retriable_error_has_the_same_call_made_again_and_the_producer_replaced_before_the_next_begin()
-> Result<()> {
    let mut ground = Ground::start()?;
    ground.commits()?;
    ensure!(!ground.producer.is_suspect());
    ground.answer(
        RDKafkaApiKey::EndTxn,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS],
    );
    ground.commits()?;
    // The call took as long as a hidden retry does, so the first copy of the request may still be on its way.
    ensure!(ground.producer.is_suspect());
    ground.commits()
}

#[test]
fn an_abortable_error_has_the_transaction_aborted_and_the_producer_kept() -> Result<()> {
    let mut ground = Ground::start()?;
    ground.answer(
        RDKafkaApiKey::TxnOffsetCommit,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED],
    );
    let failure = ground.failure()?;
    ensure!(matches!(failure, ProducerError::Abort(_)), "{failure:?}");
    ground.producer.abort();
    ground.commits()
}

#[test]
fn offsets_refused_to_a_membership_that_is_over_have_the_transaction_aborted_and_the_rebalance_awaited()
-> Result<()> {
    let mut ground = Ground::start()?;
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
    ] {
        ground.answer(RDKafkaApiKey::TxnOffsetCommit, &[error]);
        let failure = ground.failure()?;
        ensure!(
            matches!(failure, ProducerError::AbortAndWait(_)),
            "{error:?}: {failure:?}"
        );
        ground.producer.abort();
        ground.commits()?;
    }
    Ok(())
}

#[test]
fn a_fenced_or_failed_producer_is_replaced() -> Result<()> {
    let mut ground = Ground::start()?;
    for (request, error) in [
        (
            RDKafkaApiKey::AddPartitionsToTxn,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
        ),
        (
            RDKafkaApiKey::AddOffsetsToTxn,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        ),
        (
            RDKafkaApiKey::AddOffsetsToTxn,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
        ),
    ] {
        ground.answer(request, &[error]);
        let failure = ground.failure()?;
        ensure!(
            matches!(failure, ProducerError::Replace(_)),
            "{error:?}: {failure:?}"
        );
        ground.producer.replace()?;
        ground.commits()?;
    }
    Ok(())
}

#[test]
fn any_error_of_a_commit_is_an_unknown_outcome_and_yields_no_receipt() -> Result<()> {
    let mut ground = Ground::start()?;
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ] {
        ground.answer(RDKafkaApiKey::EndTxn, &[error]);
        let failure = ground.failure()?;
        ensure!(
            matches!(failure, ProducerError::UnknownOutcome(_)),
            "{error:?}: {failure:?}"
        );
        ensure!(ground.producer.is_suspect());
        ground.producer.replace()?;
        ground.commits()?;
    }
    Ok(())
}
