//! Three brokers replicate, and go on without one of them.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thmanyah_dev::{Cluster, SmallDisk, Topic, read_topic};

const LIMIT: Duration = Duration::from_secs(30);

fn read_back(cluster: &Cluster) -> Result<usize, thmanyah_dev::Error> {
    let mut count = 0;
    read_topic(cluster.bootstrap(), "probe", |_| count += 1)?;
    Ok(count)
}

#[test]
fn what_was_acknowledged_through_a_route_survives_the_loss_of_a_broker() -> anyhow::Result<()> {
    let cluster = Cluster::start(1)?;
    cluster.create_topics(&[Topic::new("probe", 3)])?;
    let route = cluster.route(0);
    let producer: BaseProducer = cluster
        .client()
        .set("bootstrap.servers", &route)
        .set("acks", "all")
        .create()?;
    let metadata = producer.client().fetch_metadata(Some("probe"), LIMIT)?;
    let told: Vec<String> = metadata
        .brokers()
        .iter()
        .map(|broker| format!("{}:{}", broker.host(), broker.port()))
        .collect();
    anyhow::ensure!(
        told.len() == 3 && told.iter().all(|address| route.contains(address)),
        "clients of the route {route} are sent to {told:?}"
    );
    let send = |count: i32| -> anyhow::Result<()> {
        for number in 0..count {
            let record: BaseRecord<'_, str, str> =
                BaseRecord::to("probe").payload("x").partition(number % 3);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(LIMIT)?)
    };
    send(30)?;
    anyhow::ensure!(cluster.await_in_sync(LIMIT)?);
    if let Some(mut broker) = cluster.broker(1) {
        broker.kill9();
    }
    send(30)?;
    anyhow::ensure!(read_back(&cluster)? == 60);
    anyhow::ensure!(!cluster.await_in_sync(Duration::ZERO)?);
    if let Some(mut broker) = cluster.broker(1) {
        broker.restart()?;
    }
    anyhow::ensure!(cluster.await_in_sync(LIMIT)?);
    let consumer: BaseConsumer = cluster.client().create()?;
    anyhow::ensure!(consumer.fetch_metadata(None, LIMIT)?.brokers().len() == 3);
    Ok(())
}

#[test]
fn a_small_disk_is_full_when_told_so_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let Ok(disk) = SmallDisk::mount(1 << 20) else {
        // Mounting takes a right that not everyone has.
        return Ok(());
    };
    let file = disk.path().join("file");
    std::fs::write(&file, [1; 10_000])?;
    disk.fill()?;
    let full = std::fs::write(disk.path().join("more"), vec![1; 200_000]);
    anyhow::ensure!(full.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
    disk.empty()?;
    std::fs::write(disk.path().join("more"), vec![1; 200_000])?;
    anyhow::ensure!(std::fs::read(&file)?.len() == 10_000);
    drop(disk);
    anyhow::ensure!(!file.exists());
    Ok(())
}
