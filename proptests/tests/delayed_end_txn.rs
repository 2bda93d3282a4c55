//! librdkafka repeats an EndTxn request silently when its connection breaks. The first copy, stuck on its way, may reach the
//! coordinator inside the next transaction and end that one. Here a proxy makes exactly this happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use thmanyah_dev::{ApiKey, Broker, BrokerOptions, Proxy, Requests, Topic};
use thmanyah_proptests::checker::check;
use thmanyah_proptests::deployment::Deployment;
use thmanyah_proptests::feed::play;
use thmanyah_proptests::oracle::EventRow;
use thmanyah_proptests::sizes::rounds;

const LIMIT: Duration = Duration::from_mins(1);
const PARTITIONS: i32 = 2;
/// Events before and inside each transaction that is tampered with.
const EVENTS: i64 = 20;

/// The event with this id; none waits for content.
fn row(id: i64) -> EventRow {
    play(id, None)
}

#[test]
fn a_late_end_of_one_transaction_does_not_end_the_next_one_of_a_worker() -> Result<()> {
    let proxy = Proxy::start()?;
    let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
    let deployment = Deployment::new(&broker, "late", PARTITIONS)?;
    let mut options = deployment.options("a");
    options.bootstrap = proxy.bootstrap();
    let one_worker = ("THMANYAH_ENRICHER__WORKERS".into(), "1".into());
    options.env.push(one_worker);
    let processor = deployment.start_with(options)?;
    let mut sent = 0;
    let played = rounds(2, 20);
    for _ in 0..played {
        let end = || Requests::of(ApiKey::EndTxn).naming("late-a-0").first(1);
        // Of three requests to end a transaction the first is the one that will be late, the second its silent repetition,
        // and the third ends the next transaction.
        let late = proxy.detach(end());
        let repeated = proxy.watch(end());
        let next = proxy.hold(end());
        let mut feed = || {
            let rows: Vec<EventRow> = (sent + 1..=sent + EVENTS).map(row).collect();
            sent += EVENTS;
            deployment.send_events(&rows)
        };
        feed()?;
        late.await_caught(1, LIMIT)?;
        repeated.await_answered(1, LIMIT)?;
        feed()?;
        next.await_caught(1, LIMIT)?;
        late.release();
        late.await_answered(1, LIMIT)?;
        next.release();
        let wanted = sent as u64;
        deployment.await_total("the events of this round", |l| l.enriched == wanted)?;
    }
    let rows: BTreeMap<i64, EventRow> = (1..=sent).map(|id| (id, row(id))).collect();
    check(&deployment, &rows)?;
    let replaced = processor.metric("thmanyah_producer_replaced_total", &[])?;
    ensure!(
        replaced.is_some_and(|count| count as usize >= played),
        "no producer was replaced: {replaced:?}"
    );
    Ok(())
}

/// A loop as one would write it first: what was aborted is sent again. With the rule, a producer that took suspiciously long
/// over a commit is replaced before the next begin.
struct Plain {
    bootstrap: String,
    with_rule: bool,
    producer: BaseProducer,
}

impl Plain {
    fn start(bootstrap: String, with_rule: bool) -> Result<Self> {
        let producer = Self::producer(&bootstrap)?;
        Ok(Self {
            bootstrap,
            with_rule,
            producer,
        })
    }

    fn producer(bootstrap: &str) -> Result<BaseProducer> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", "plain")
            .set("retry.backoff.ms", "200")
            .set("reconnect.backoff.ms", "50")
            .create()?;
        producer.init_transactions(LIMIT)?;
        Ok(producer)
    }

    fn begin(&self) -> Result<()> {
        Ok(self.producer.begin_transaction()?)
    }

    fn send(&self, partition: i32, ids: impl IntoIterator<Item = i64>) -> Result<()> {
        for id in ids {
            let key = id.to_string();
            let record: BaseRecord<'_, str, [u8]> = BaseRecord::to("out").key(&key);
            self.producer
                .send(record.partition(partition))
                .map_err(|(error, _)| anyhow!("{error}"))?;
        }
        Ok(self.producer.flush(LIMIT)?)
    }

    fn commit(&mut self, hidden_retry: bool) -> Result<()> {
        self.producer.commit_transaction(LIMIT)?;
        if hidden_retry && self.with_rule {
            self.producer = Self::producer(&self.bootstrap)?;
        }
        Ok(())
    }
}

/// The ids that the log holds twice after a transaction was aborted, with success, and its records were sent again.
fn doubled(with_rule: bool) -> Result<BTreeSet<i64>> {
    let proxy = Proxy::start()?;
    let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
    broker.create_topics(&[Topic::new("out", 2)])?;
    let mut plain = Plain::start(proxy.bootstrap(), with_rule)?;
    let late = proxy.detach(Requests::of(ApiKey::EndTxn).first(1));
    plain.begin()?;
    plain.send(0, 1..=10)?;
    plain.commit(true)?;

    plain.begin()?;
    plain.send(0, 11..=20)?;
    late.release();
    late.await_answered(1, LIMIT)?;
    plain.send(1, 21..=30)?;
    plain.producer.abort_transaction(LIMIT)?;
    plain.begin()?;
    plain.send(0, 11..=20)?;
    plain.send(1, 21..=30)?;
    plain.commit(false)?;

    let (mut ids, mut twice) = (BTreeSet::new(), BTreeSet::new());
    broker.read_topic("out", |record| {
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let id = key.and_then(|key| key.parse().ok()).unwrap_or(0);
        if !ids.insert(id) {
            twice.insert(id);
        }
    })?;
    ensure!(ids == (1..=30).collect(), "some were lost: {ids:?}");
    Ok(twice)
}

#[test]
fn without_the_rule_a_late_end_commits_half_of_a_transaction_that_is_aborted_with_success()
-> Result<()> {
    ensure!(doubled(false)? == (11..=20).collect());
    Ok(())
}

#[test]
fn with_the_rule_the_same_loop_doubles_nothing() -> Result<()> {
    ensure!(doubled(true)?.is_empty());
    Ok(())
}
