//! What a simulated process is made of, and how it is set up.

use super::actor::Actor;
use super::actors::{METRICS, topic_id};
use super::edge::SimEdge;
use super::schedule::{DEADLINE_MS, Shape};
use super::store::Disk;
use super::world::{CHANGELOG, CONTENT, DEAD, ENRICHED, PENDING, Part, RAW, SEEN, TOPICS};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thmanyah::codec::{EventRules, OperationRule, TimeMode};
use thmanyah::content::{
    ContentTable, ContentWatermark, MaterializerSettings, Replica, ReplicaSettings, Vouching,
    WatermarkSettings,
};
use thmanyah::enricher::Rules;
use thmanyah::health::Health;
use thmanyah::kafka::{Edge as _, MemberSettings, ProducerSettings, TopicLimits};
use thmanyah::run::{
    BarrierSettings, Leases, Ownership, Restorer, StoreView, Surroundings, WorkerParts,
    WorkerSettings,
};

/// How long a transaction stays open.
const COMMIT_INTERVAL: Duration = Duration::from_millis(60);
/// How often published ids are checkpointed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(900);

/// The parts of a new process.
pub(super) fn parts(edge: &SimEdge, node: usize, shape: Shape, disk: &Disk) -> Vec<(Part, Actor)> {
    let metrics = METRICS.with(Clone::clone);
    let health = Arc::new(Health::new());
    let stop = Arc::clone(&edge.world().processes[edge.process].stop);
    let table = ContentTable::new(disk.clone(), 64 * 16);
    let watermark =
        ContentWatermark::new(Duration::from_millis(DEADLINE_MS as u64), edge.instant());
    let settings = ReplicaSettings {
        topic: TOPICS[CHANGELOG].to_owned(),
        topic_id: topic_id(CHANGELOG),
        partitions: shape.content_partitions,
        wakeups: shape.wakeups,
    };
    let mut replica = Replica::new(edge.clone(), settings, disk.clone(), table.clone());
    let positions = replica.positions();
    let leases = Leases::default();
    let owned = Ownership::new(|_| {});
    let mut parts = Vec::new();
    for number in 0..shape.workers {
        let around = Surroundings {
            edge: edge.clone(),
            store: disk.clone(),
            leases: leases.clone(),
            replica: positions.clone(),
            watermark: watermark.clone(),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            stop: Arc::clone(&stop),
        };
        let Ok((restorer, restoring)) = Restorer::new(Arc::new(barrier_settings(shape)), around)
        else {
            unreachable!("simulated clients can always be made");
        };
        let name = format!("node-{node}-{number}");
        let worker = WorkerParts {
            edge: edge.clone(),
            number: number.into(),
            settings: Arc::new(worker_settings(shape)),
            restorer,
            view: StoreView {
                content: table.clone(),
                store: disk.clone(),
            },
            store: disk.clone(),
            wakeups: replica.wakeups(),
            watermark: watermark.clone(),
            metrics: metrics.clone(),
            beat: health.worker(&name, 0),
            health: Arc::clone(&health),
            owned: owned.clone(),
        };
        let producer = producer_settings(&name, &stop);
        let member = member_settings("enricher", &name, RAW);
        let joining = Actor::Joining(Box::new((worker, producer, member)));
        parts.push((Part::Worker(number), joining));
        parts.push((Part::Barrier(number), Actor::Barrier(Box::new(restoring))));
    }
    parts.push((Part::Replica, Actor::Replica(Box::new(replica))));
    let settings = WatermarkSettings {
        group: "materializer".to_owned(),
        raw_topic: TOPICS[CONTENT].to_owned(),
        raw_partitions: shape.content_partitions,
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
    };
    let Ok(vouching) = Vouching::new(edge.clone(), settings, positions.clone(), watermark) else {
        unreachable!("simulated clients can always be made");
    };
    parts.push((Part::Watermark, Actor::Watermark(Box::new(vouching))));
    let name = format!("materializer-{node}");
    let settings = MaterializerSettings {
        member: member_settings("materializer", &name, CONTENT),
        producer: producer_settings(&name, &stop),
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
        dlq_topic: TOPICS[DEAD].to_owned(),
        time: TimeMode::Iso,
        commit_interval: COMMIT_INTERVAL,
        limits: TopicLimits::default(),
    };
    let materializing = Actor::Materializing(Box::new((settings, table, positions)));
    parts.push((Part::Materializer, materializing));
    parts
}

fn producer_settings(name: &str, stop: &Arc<AtomicBool>) -> ProducerSettings {
    ProducerSettings {
        transactional_id: name.to_owned(),
        transaction_timeout: Duration::from_secs(10),
        max_record_bytes: 1 << 20,
        stop: Arc::clone(stop),
    }
}

fn member_settings(group: &str, name: &str, topic: usize) -> MemberSettings {
    MemberSettings {
        group: group.to_owned(),
        instance: name.to_owned(),
        topic: TOPICS[topic].to_owned(),
        session_timeout: Duration::from_secs(6),
        heartbeat: Duration::from_secs(2),
        max_poll_interval: Duration::from_mins(1),
        unsettle: Arc::default(),
    }
}

fn worker_settings(shape: Shape) -> WorkerSettings {
    WorkerSettings {
        raw_topic: TOPICS[RAW].to_owned(),
        enriched_topic: TOPICS[ENRICHED].to_owned(),
        pending_topic: TOPICS[PENDING].to_owned(),
        pending_id: topic_id(PENDING),
        enriched_id: topic_id(ENRICHED),
        seen_topic: TOPICS[SEEN].to_owned(),
        seen_id: topic_id(SEEN),
        checkpoint_interval: CHECKPOINT_INTERVAL,
        dlq_topic: TOPICS[DEAD].to_owned(),
        commit_interval: COMMIT_INTERVAL,
        rules: Rules {
            events: EventRules {
                updates: OperationRule::DeadLetter,
                deletes: OperationRule::DeadLetter,
                time: TimeMode::Iso,
            },
            deadline_ms: DEADLINE_MS,
            transaction_steps: shape.transaction_steps,
            seen_containers: shape.seen_containers,
            ..Rules::default()
        },
    }
}

fn barrier_settings(shape: Shape) -> BarrierSettings {
    BarrierSettings {
        group: "enricher".to_owned(),
        raw_topic: TOPICS[RAW].to_owned(),
        enriched_topic: TOPICS[ENRICHED].to_owned(),
        pending_topic: TOPICS[PENDING].to_owned(),
        pending_id: topic_id(PENDING),
        enriched_id: topic_id(ENRICHED),
        seen_topic: TOPICS[SEEN].to_owned(),
        seen_id: topic_id(SEEN),
        changelog_topic: TOPICS[CHANGELOG].to_owned(),
        changelog_partitions: shape.content_partitions,
    }
}
