//! A broker starts, keeps its log across a kill, and leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thmanyah_dev::{Broker, BrokerOptions, Error, Topic};

fn produce(broker: &Broker, value: &str) -> Result<(), rdkafka::error::KafkaError> {
    let producer: BaseProducer = broker.client().create()?;
    let record: BaseRecord<'_, str, str> = BaseRecord::to("probe").payload(value).partition(0);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(20))
}

fn consume(broker: &Broker, count: usize) -> Result<Vec<String>, rdkafka::error::KafkaError> {
    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", "probe")
        .set("auto.offset.reset", "earliest")
        .create()?;
    let mut partitions = rdkafka::TopicPartitionList::new();
    partitions.add_partition_offset("probe", 0, rdkafka::Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut values = Vec::new();
    while values.len() < count {
        if let Some(Ok(record)) = consumer.poll(Duration::from_secs(20)) {
            values.push(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned());
        }
    }
    Ok(values)
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_broker_keeps_its_log_and_its_port_across_a_kill() -> Result<(), Box<dyn std::error::Error>> {
    let mut broker = Broker::start(BrokerOptions::default())?;
    broker.create_topics(&[Topic::new("probe", 1)])?;
    produce(&broker, "one")?;
    let (address, pid) = (broker.bootstrap().to_owned(), broker.pid().ok_or("no pid")?);

    broker.kill9();
    assert!(is_gone(pid));
    broker.restart()?;

    assert_eq!(broker.bootstrap(), address);
    produce(&broker, "two")?;
    assert_eq!(consume(&broker, 2)?, ["one", "two"]);
    Ok(())
}

#[test]
fn a_stopped_broker_leaves_no_process_and_no_directory() -> Result<(), Box<dyn std::error::Error>> {
    let stopped = Broker::start(BrokerOptions::default())?;
    let dropped = Broker::start(BrokerOptions::default())?;
    for (end, broker) in [(Broker::stop as fn(Broker), stopped), (drop, dropped)] {
        let (dir, pid) = (broker.dir().to_owned(), broker.pid().ok_or("no pid")?);
        assert!(dir.exists());
        end(broker);
        assert!(!dir.exists(), "{} is left", dir.display());
        assert!(is_gone(pid));
    }
    Ok(())
}

#[test]
fn a_broker_that_cannot_start_says_why() -> Result<(), Box<dyn std::error::Error>> {
    let options = BrokerOptions::default().with("log.retention.ms", "soon");
    let Err(error @ Error::Died { .. }) = Broker::start(options) else {
        return Err("a broker started with a wrong setting".into());
    };
    assert!(error.to_string().contains("log.retention.ms"), "{error}");
    Ok(())
}
