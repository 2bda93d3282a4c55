//! The sink to an external system as a user has it: a process of its own on a real broker, against a system that fails as a
//! script says, and under `kill -9`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(
    clippy::float_cmp,
    clippy::cast_precision_loss,
    reason = "metrics that count are whole numbers"
)]
#![allow(clippy::print_stdout, reason = "libtest captures it")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use thmanyah_dev::{Broker, BrokerOptions};
use thmanyah_proptests::deployment::{Deployment, Logged, await_until};
use thmanyah_proptests::published::{Filling, Written, fill};
use thmanyah_tools::external::{ExternalOptions, ExternalSystem, Script};
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_mins(2);
const ENRICHED: &str = "engagement-events.enriched";
/// Largest batch of a partition.
const BATCH: &str = "100";

/// One broker serves all tests here, one after the other, and ends with the process.
fn broker() -> MutexGuard<'static, Broker> {
    static BROKER: OnceLock<Mutex<Broker>> = OnceLock::new();
    let start = || Mutex::new(Broker::start(BrokerOptions::default()).unwrap());
    let broker = BROKER.get_or_init(start).lock();
    broker.unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The external system on a runtime of its own.
struct External {
    system: ExternalSystem,
    runtime: Runtime,
}

impl External {
    fn start(partitions: i32, script: &str) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", thmanyah_dev::free_port()?);
        Self::start_at(&listen, partitions, script)
    }

    fn start_at(listen: &str, partitions: i32, script: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let options = ExternalOptions {
            room: 1_000_000,
            partitions: u32::try_from(partitions)?,
            script: Script::from_json(script).map_err(anyhow::Error::msg)?,
        };
        let system = runtime.block_on(ExternalSystem::start(listen, options))?;
        Ok(Self { system, runtime })
    }

    fn play(&self, script: &str) -> Result<()> {
        let script = Script::from_json(script).map_err(anyhow::Error::msg)?;
        let _entered = self.runtime.enter();
        self.system.play(script);
        Ok(())
    }

    /// Waits until it has so many different events.
    fn await_distinct(&self, events: u64) -> Result<()> {
        let what = format!("{events} different events");
        let found = await_until(LIMIT, &what, || {
            Ok((self.system.totals().distinct >= events).then_some(()))
        });
        found.map_err(|error| error.context(format!("{:?}", self.system.totals())))
    }
}

/// Starts a process that does nothing but deliver there.
fn start(deployment: &Deployment<'_>, url: &str) -> Result<Logged> {
    let mut options = deployment.options("one").args(["--roles", "sink-http"]);
    let fixed = [
        ("URL", url),
        ("LANES", "8"),
        ("BATCH_RECORDS", BATCH),
        ("TIMEOUT", "1s"),
    ];
    for (key, value) in fixed {
        let key = format!("THMANYAH_SINKS__HTTP__{key}");
        options.env.push((key, value.to_owned()));
    }
    deployment.start_with(options)
}

/// A metric of the sink.
fn metric(process: &Logged, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let labels: Vec<(&str, &str)> = [("sink", "http")]
        .into_iter()
        .chain(labels.iter().copied())
        .collect();
    let found = process.metric(&format!("thmanyah_sink_{name}"), &labels)?;
    Ok(found.unwrap_or_default())
}

fn await_metric(process: &Logged, name: &str, wanted: f64) -> Result<()> {
    await_until(LIMIT, &format!("{name} to be {wanted}"), || {
        Ok((metric(process, name, &[])? == wanted).then_some(()))
    })
}

/// Who came first: the events that the system took, each once, in the order in which it took them.
fn taken(system: &ExternalSystem) -> Vec<i64> {
    let journal = system.journal();
    let first = journal.iter().filter(|event| !event.duplicate);
    first.map(|event| event.key.parse().unwrap()).collect()
}

/// Every event is there once, and those of each content and partition came in the order of the log.
fn judge(written: &[Vec<Written>], taken: &[i64]) -> Result<()> {
    let all: HashMap<i64, &Written> = written
        .iter()
        .flatten()
        .map(|w| (w.event.id.0, w))
        .collect();
    let unique: HashSet<&i64> = taken.iter().collect();
    ensure!(
        unique.len() == taken.len() && taken.len() == all.len(),
        "{} of {}",
        taken.len(),
        all.len()
    );
    let mut last: BTreeMap<_, i64> = BTreeMap::new();
    for id in taken {
        let Some(written) = all.get(id) else {
            anyhow::bail!("{id} was never published");
        };
        if let Some(content) = written.event.content_id {
            let last = last.entry((written.partition, content)).or_insert(-1);
            ensure!(
                *last < written.offset,
                "event {id} overtook one of its content"
            );
            *last = written.offset;
        }
    }
    Ok(())
}

/// What the group has committed is the lowest unfinished offset, or lies below it.
fn ensure_nothing_is_passed_over(
    deployment: &Deployment<'_>,
    written: &[Vec<Written>],
    system: &ExternalSystem,
) -> Result<()> {
    let viewer: BaseConsumer = deployment
        .broker
        .client()
        .set("group.id", "http-faults-sink-http")
        .create()?;
    let topic = deployment.topic(ENRICHED);
    let mut asked = TopicPartitionList::new();
    for partition in 0..deployment.partitions() {
        asked.add_partition(&topic, partition);
    }
    let taken: HashSet<i64> = taken(system).into_iter().collect();
    for element in viewer.committed_offsets(asked, LIMIT)?.elements() {
        if let Offset::Offset(committed) = element.offset() {
            let of = &written[usize::try_from(element.partition())?];
            let lost = of
                .iter()
                .find(|w| w.offset < committed && !taken.contains(&w.event.id.0));
            ensure!(
                lost.is_none(),
                "{committed} is committed, but not taken: {lost:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn under_faults_and_kills_every_event_arrives_in_order_and_none_is_a_dead_letter() -> Result<()> {
    let broker = broker();
    let deployment = Deployment::new(&broker, "http-faults", 4)?;
    let filling = Filling::new(4, 6_000, 40, 11);
    let written = fill(&broker, &deployment.topic(ENRICHED), &filling)?;
    let external = External::start(
        4,
        r#"{"seed": 7, "duplicates": "conflict", "steps": [
            {"requests": 2500, "faults": [
                {"share": 0.2, "fault": "latency", "milliseconds": 3},
                {"share": 0.03, "fault": "status", "status": 500},
                {"share": 0.02, "fault": "status", "status": 429},
                {"share": 0.002, "fault": "status", "status": 503, "retry_after": "1"},
                {"share": 0.02, "fault": "reset"},
                {"share": 0.02, "fault": "lost-answer"},
                {"share": 0.001, "fault": "late-answer", "milliseconds": 5000},
                {"share": 0.005, "fault": "slow-body", "milliseconds": 5000}]},
            {"milliseconds": 1500, "faults": [{"fault": "status", "status": 401}]},
            {"requests": 2500, "faults": [
                {"share": 0.02, "fault": "status", "status": 408},
                {"share": 0.02, "fault": "status", "status": 502},
                {"share": 0.03, "fault": "lost-answer"}]},
            {"milliseconds": 1500, "faults": [{"fault": "reset"}]},
            {"requests": 1000, "faults": [{"share": 0.05, "fault": "lost-answer"}]}]}"#,
    )?;
    let mut process = start(&deployment, &external.system.url())?;
    let mut kills = 0;
    for mark in [500, 1_200, 2_000, 3_000, 4_000, 5_000] {
        external.await_distinct(mark)?;
        process.kill9();
        kills += 1;
        ensure_nothing_is_passed_over(&deployment, &written, &external.system)?;
        process.restart()?;
    }
    external.await_distinct(6_000)?;
    await_metric(&process, "lag", 0.0)?;
    await_metric(&process, "up", 1.0)?;
    await_metric(&process, "breaker_open", 0.0)?;
    judge(&written, &taken(&external.system))?;
    ensure!(deployment.read("engagement-events.dlq")?.is_empty());

    let totals = external.system.totals();
    println!("{kills} kills: {totals:?}");
    // Each answer that was lost repeats an event; each kill what came since the last commit.
    let unheard: u64 = ["lost-answer", "late-answer"]
        .iter()
        .filter_map(|fault| totals.faults.get(*fault))
        .sum();
    ensure!(
        totals.duplicates >= unheard && totals.changed_bodies == 0,
        "{totals:?}"
    );
    ensure!(
        totals.out_of_order == 0 && totals.malformed == 0,
        "{totals:?}"
    );
    Ok(())
}

#[test]
fn the_breaker_opens_and_closes_and_the_lag_recovers() -> Result<()> {
    let broker = broker();
    let deployment = Deployment::new(&broker, "http-breaker", 2)?;
    let written = fill(
        &broker,
        &deployment.topic(ENRICHED),
        &Filling::new(2, 1_000, 20, 5),
    )?;
    let outage = r#"{"steps": [{"faults": [{"fault": "status", "status": 503}]}]}"#;
    let external = External::start(2, outage)?;
    let mut process = start(&deployment, &external.system.url())?;
    await_metric(&process, "breaker_open", 1.0)?;
    await_metric(&process, "up", 0.0)?;
    let lag = await_until(LIMIT, "a lag", || {
        let lag = metric(&process, "lag", &[])?;
        Ok((lag > 0.0).then_some(lag))
    })?;
    ensure!(lag >= 1_000.0, "{lag}");
    // The process is well: it is the system that is not, and its state says so.
    ensure!(process.get("/livez")?.status == 200);
    let sinks = process.get("/v1/sinks")?.body;
    ensure!(sinks.contains("answers 503"), "{sinks}");
    external.play("{}")?;
    external.await_distinct(1_000)?;
    await_metric(&process, "lag", 0.0)?;
    await_metric(&process, "up", 1.0)?;
    await_metric(&process, "breaker_open", 0.0)?;
    judge(&written, &taken(&external.system))?;
    ensure!(
        external.system.totals().duplicates == 0,
        "{:?}",
        external.system.totals()
    );
    ensure!(process.terminate(Duration::from_secs(20))?.success());
    Ok(())
}

#[test]
fn what_is_refused_becomes_a_dead_letter_and_the_rest_arrives() -> Result<()> {
    let broker = broker();
    let deployment = Deployment::new(&broker, "http-refused", 2)?;
    let written = fill(
        &broker,
        &deployment.topic(ENRICHED),
        &Filling::new(2, 1_500, 20, 9),
    )?;
    let body = "no such user, \\n and so on ".repeat(20);
    let external = External::start(
        2,
        &format!(
            r#"{{"steps": [{{"faults": [{{"share": 0.05, "by_key": true, "fault": "status", "status": 422, "body": "{body}"}}]}}]}}"#
        ),
    )?;
    let process = start(&deployment, &external.system.url())?;
    let events = |outcome| metric(&process, "events_total", &[("outcome", outcome)]);
    await_until(LIMIT, "the end of all events", || {
        let ended = events("delivered")? + events("rejected")?;
        Ok((ended >= 1_500.0).then_some(()))
    })?;
    let letters = deployment.read("engagement-events.dlq")?;
    let taken = taken(&external.system);
    ensure!(
        (30..120).contains(&letters.len()),
        "{} letters",
        letters.len()
    );
    ensure!(
        letters.len() + taken.len() == 1_500,
        "{} and {}",
        letters.len(),
        taken.len()
    );
    let all: HashMap<_, _> = written
        .iter()
        .flatten()
        .map(|w| ((w.partition, w.offset), w))
        .collect();
    for letter in &letters {
        ensure!(letter.text("dlq-reason") == Some("rejected"));
        ensure!(letter.text("dlq-stage") == Some("sink-http"));
        let detail = letter.text("dlq-detail").unwrap();
        ensure!(
            detail.starts_with("422 Unprocessable Entity: no such user,   and so on no"),
            "{detail}"
        );
        ensure!(detail.len() < 260, "{detail}");
        let place = (
            letter.number("dlq-source-partition").unwrap(),
            letter.number("dlq-source-offset").unwrap(),
        );
        let written = all[&(i32::try_from(place.0)?, place.1)];
        ensure!(letter.value.as_ref() == Some(&written.value));
        ensure!(letter.event_id()? == written.event.id.0);
        ensure!(!taken.contains(&written.event.id.0));
    }
    ensure!(events("rejected")? == letters.len() as f64);
    ensure!(events("delivered")? == taken.len() as f64);
    ensure!(metric(&process, "breaker_open", &[])? == 0.0);
    Ok(())
}

#[test]
fn a_wrong_url_is_told_once_and_the_process_stays_up_until_it_is_right() -> Result<()> {
    let broker = broker();
    let deployment = Deployment::new(&broker, "http-nowhere", 3)?;
    let written = fill(
        &broker,
        &deployment.topic(ENRICHED),
        &Filling::new(3, 300, 20, 3),
    )?;
    let listen = format!("127.0.0.1:{}", thmanyah_dev::free_port()?);
    let process = start(&deployment, &format!("http://{listen}/events"))?;
    let failed = |process: &Logged| metric(process, "attempts_total", &[("outcome", "failed")]);
    await_until(LIMIT, "many attempts", || {
        Ok((failed(&process)? >= 8.0).then_some(()))
    })?;
    let log = process.log();
    let told = log.lines().filter(|line| line.contains("does not answer"));
    ensure!(told.count() == 1, "{log}");
    let external = External::start_at(&listen, 3, "{}")?;
    external.await_distinct(300)?;
    judge(&written, &taken(&external.system))?;
    ensure!(deployment.read("engagement-events.dlq")?.is_empty());
    await_until(LIMIT, "the end of the trouble to be told", || {
        Ok(process.log().contains("delivering again").then_some(()))
    })
}
