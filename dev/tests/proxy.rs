//! A real broker behind the proxy: clients of the one listener pass through it, those of the other do not.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thmanyah_dev::{ApiKey, Broker, BrokerOptions, Proxy, Requests, Topic};

const LIMIT: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn produce(bootstrap: &str) -> Result<BaseProducer, Box<dyn std::error::Error>> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .create()?;
    send(&producer)?;
    producer.flush(LIMIT)?;
    Ok(producer)
}

fn send(producer: &BaseProducer) -> Outcome {
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("log").payload(b"x");
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}

#[test]
fn a_client_of_the_proxys_listener_stays_behind_it_and_gets_over_its_faults() -> Outcome {
    let proxy = Proxy::start()?;
    let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
    broker.create_topics(&[Topic::new("log", 1)])?;
    let requests = proxy.watch(Requests::of(ApiKey::Produce));
    produce(broker.bootstrap())?;
    assert_eq!(requests.caught(), 0);
    let producer = produce(&proxy.bootstrap())?;
    assert_eq!(requests.caught(), 1);
    drop(requests);

    let lost = proxy.lose_reply(Requests::of(ApiKey::Produce).first(1));
    send(&producer)?;
    producer.flush(LIMIT)?;
    assert_eq!((lost.caught(), lost.answered()), (1, 1));
    proxy.cut();
    send(&producer)?;
    proxy.restore();
    producer.flush(LIMIT)?;
    let mut records = 0;
    broker.read_topic("log", |_| records += 1)?;
    // The record whose reply was lost is there twice: this producer is not idempotent.
    assert_eq!(records, 5);
    Ok(())
}
