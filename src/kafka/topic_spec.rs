//! What one topic must be: as made here, as found fit, and as found worth a warning.

use super::cluster::{Settings, Shape};
use super::topics::{DEAD_LETTER_HEADERS, RECORD_BYTES, Status, TOMBSTONES, TopicReport};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// Enriched events stay for this long where the topic is made here.
const ENRICHED_RETENTION: Duration = DAY.saturating_mul(7);
/// Dead letters stay for this long where the topic is made here.
const DLQ_RETENTION: Duration = DAY.saturating_mul(30);

/// Which topic it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EventsIn,
    ContentIn,
    ContentChangelog,
    Enriched,
    Pending,
    Seen,
    Dlq,
    SinksState,
}

/// A topic that is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
}

/// What the checks compare with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measures {
    /// N.
    pub(super) n: i32,
    /// Partitions of the content changelog where it is made here.
    pub(super) content_partitions: i32,
    /// For how long enriched events are queried after their publication.
    pub(super) recent_retention: Duration,
    /// The largest record that an input topic accepts.
    pub(super) largest_input: u64,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(kind: Kind, name: &'a str) -> Self {
        Self { kind, name }
    }

    /// The setting that names it.
    pub(super) fn setting(&self) -> &'static str {
        match self.kind {
            Kind::EventsIn => "topics.engagement_events_raw",
            Kind::ContentIn => "topics.content_raw",
            Kind::ContentChangelog => "topics.content_changelog",
            Kind::Enriched => "topics.enriched",
            Kind::Pending => "topics.pending",
            Kind::Seen => "topics.seen",
            Kind::Dlq => "topics.dlq",
            Kind::SinksState => "topics.sinks_state",
        }
    }

    /// Whether it belongs to upstream, and is never made here.
    pub(super) fn is_input(&self) -> bool {
        matches!(self.kind, Kind::EventsIn | Kind::ContentIn)
    }

    /// The cleanup policy it must have; content records may have any.
    fn cleanup(&self) -> Option<&'static str> {
        match self.kind {
            Kind::ContentIn => None,
            Kind::ContentChangelog | Kind::Pending | Kind::Seen | Kind::SinksState => {
                Some("compact")
            }
            Kind::EventsIn | Kind::Enriched | Kind::Dlq => Some("delete"),
        }
    }

    /// Whether it must have N partitions.
    fn needs_n(&self) -> bool {
        matches!(self.kind, Kind::Enriched | Kind::Pending | Kind::Seen)
    }

    pub(super) fn partitions_when_made(&self, measures: &Measures) -> i32 {
        match self.kind {
            Kind::ContentChangelog => measures.content_partitions,
            _ => measures.n,
        }
    }

    pub(super) fn settings_when_made(&self, measures: &Measures) -> Vec<(&'static str, String)> {
        let mut settings = vec![("max.message.bytes", self.record_bytes(measures).to_string())];
        if let Some(cleanup) = self.cleanup() {
            settings.push(("cleanup.policy", cleanup.to_owned()));
        }
        let millis = |time: Duration| time.as_millis().to_string();
        match self.kind {
            Kind::ContentChangelog | Kind::Pending | Kind::Seen | Kind::SinksState => {
                settings.push(("delete.retention.ms", millis(TOMBSTONES)));
            }
            Kind::Enriched => {
                let retention = ENRICHED_RETENTION.max(measures.recent_retention + DAY);
                settings.push(("retention.ms", millis(retention)));
                settings.push(("message.timestamp.type", "LogAppendTime".to_owned()));
            }
            Kind::Dlq => settings.push(("retention.ms", millis(DLQ_RETENTION))),
            Kind::EventsIn | Kind::ContentIn => {}
        }
        settings
    }

    /// The largest record it must accept. A dead letter carries its record whole, however large upstream allows that to be.
    fn record_bytes(&self, measures: &Measures) -> u64 {
        match self.kind {
            Kind::Dlq => RECORD_BYTES.max(measures.largest_input + DEAD_LETTER_HEADERS),
            _ => RECORD_BYTES,
        }
    }

    /// Why it cannot serve as it is.
    pub(super) fn unfit(&self, shape: Shape, settings: Option<&Settings>, n: i32) -> Vec<String> {
        let name = self.name;
        let mut problems = Vec::new();
        if self.needs_n() && shape.partitions != n {
            problems.push(format!(
                "the topic {name} has {} partitions but needs {n}, as many as the engagement events have: delete it where it holds nothing yet, or name another by `{}`",
                shape.partitions,
                self.setting()
            ));
        }
        let found = settings.and_then(|settings| settings.get("cleanup.policy"));
        if let (Some(must), Some(found)) = (self.cleanup(), found)
            && !same_policy(must, found)
        {
            problems.push(format!(
                "the topic {name} has cleanup.policy={found} but needs {must}: alter it, or name another topic by `{}`",
                self.setting()
            ));
        }
        problems
    }

    /// What may do harm later.
    pub(super) fn warnings(&self, settings: &Settings, measures: &Measures) -> Vec<String> {
        let mut warnings = Vec::new();
        let number = |name: &str| {
            settings
                .get(name)
                .and_then(|value| value.parse::<i64>().ok())
        };
        if self.is_input() {
            return warnings;
        }
        let needed = self.record_bytes(measures);
        if number("max.message.bytes").is_some_and(|bytes| bytes < needed as i64) {
            warnings.push(format!(
                "max.message.bytes is below {needed}: large records will be refused"
            ));
        }
        if self.cleanup() == Some("compact")
            && number("delete.retention.ms").is_some_and(|ms| ms < TOMBSTONES.as_millis() as i64)
        {
            warnings.push(
                "delete.retention.ms is below 7 days: instances that were away for longer rebuild"
                    .to_owned(),
            );
        }
        if self.kind == Kind::Enriched {
            let time = settings.get("message.timestamp.type");
            if time.is_some_and(|kind| kind != "LogAppendTime") {
                warnings.push("message.timestamp.type is not LogAppendTime: times of publication are the producer's".to_owned());
            }
            let retention = measures.recent_retention.as_millis() as i64;
            if number("retention.ms").is_some_and(|ms| ms >= 0 && ms < retention) {
                warnings.push("retention.ms is below `recent.retention`: queries lose events that were published in time".to_owned());
            }
        }
        warnings
    }

    pub(super) fn report(
        &self,
        shapes: &BTreeMap<String, Shape>,
        settings: &HashMap<String, Settings>,
    ) -> TopicReport {
        let shape = shapes.get(self.name);
        TopicReport {
            name: self.name.to_owned(),
            setting: self.setting(),
            partitions: shape.map(|shape| shape.partitions),
            cleanup: settings
                .get(self.name)
                .and_then(|s| s.get("cleanup.policy"))
                .cloned(),
            status: if shape.is_some() {
                Status::Exists
            } else {
                Status::Missing
            },
        }
    }
}

/// A topic that nothing is deleted from at all keeps what `delete` would.
fn same_policy(must: &str, found: &str) -> bool {
    found == must || (must == "delete" && found.is_empty())
}

/// The largest record that an input topic accepts.
pub(super) fn largest_input(wanted: &[Wanted<'_>], settings: &HashMap<String, Settings>) -> u64 {
    let inputs = wanted.iter().filter(|topic| topic.is_input());
    let limits = inputs.filter_map(|topic| {
        settings
            .get(topic.name)?
            .get("max.message.bytes")?
            .parse()
            .ok()
    });
    limits.max().unwrap_or(RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: Measures = Measures {
        n: 6,
        content_partitions: 4,
        recent_retention: Duration::from_hours(24),
        largest_input: 1_048_588,
    };

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn only_a_partition_count_that_matters_or_a_wrong_cleanup_is_refused() {
        for (kind, partitions, cleanup, problems) in [
            (Kind::Enriched, 6, "delete", 0),
            (Kind::Enriched, 5, "delete", 1),
            (Kind::Enriched, 6, "compact", 1),
            (Kind::Enriched, 6, "", 0),
            (Kind::Pending, 6, "compact", 0),
            (Kind::Pending, 7, "delete", 2),
            (Kind::Seen, 6, "compact,delete", 1),
            (Kind::ContentChangelog, 9, "compact", 0),
            (Kind::ContentChangelog, 9, "delete", 1),
            (Kind::ContentIn, 1, "compact,delete", 0),
            (Kind::EventsIn, 6, "compact", 1),
            (Kind::Dlq, 1, "delete", 0),
            (Kind::SinksState, 1, "compact", 0),
            (Kind::SinksState, 1, "delete", 1),
        ] {
            let shape = Shape {
                partitions,
                led: true,
            };
            let found = settings(&[("cleanup.policy", cleanup)]);
            let unfit = Wanted::new(kind, "t").unfit(shape, Some(&found), 6);
            assert_eq!(
                unfit.len(),
                problems,
                "{kind:?} {partitions} {cleanup}: {unfit:?}"
            );
        }
        let shape = Shape {
            partitions: 6,
            led: true,
        };
        let hidden = Wanted::new(Kind::Enriched, "t").unfit(shape, None, 6);
        assert!(
            hidden.is_empty(),
            "settings that may not be read refuse nothing"
        );
    }

    #[test]
    fn topics_as_made_here_raise_no_warning() {
        for kind in [
            Kind::ContentChangelog,
            Kind::Enriched,
            Kind::Pending,
            Kind::Seen,
            Kind::Dlq,
        ] {
            let topic = Wanted::new(kind, "t");
            let made = topic.settings_when_made(&MEASURES);
            let made: Settings = made
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            assert_eq!(
                topic.warnings(&made, &MEASURES),
                Vec::<String>::new(),
                "{kind:?}"
            );
            let shape = Shape {
                partitions: topic.partitions_when_made(&MEASURES),
                led: true,
            };
            assert_eq!(
                topic.unfit(shape, Some(&made), MEASURES.n),
                Vec::<String>::new(),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn the_dlq_takes_whatever_upstream_may_write() {
        let measures = Measures {
            largest_input: 50 << 20,
            ..MEASURES
        };
        let made = Wanted::new(Kind::Dlq, "t").settings_when_made(&measures);
        let bytes = ((50 << 20) + DEAD_LETTER_HEADERS).to_string();
        assert!(made.contains(&("max.message.bytes", bytes)), "{made:?}");
    }

    #[test]
    fn settings_that_may_do_harm_are_warned_of() {
        for (kind, name, value) in [
            (Kind::Enriched, "message.timestamp.type", "CreateTime"),
            (Kind::Enriched, "retention.ms", "1000"),
            (Kind::Enriched, "max.message.bytes", "1048588"),
            (Kind::Pending, "delete.retention.ms", "86400000"),
            (Kind::Dlq, "max.message.bytes", "1000"),
        ] {
            let warnings = Wanted::new(kind, "t").warnings(&settings(&[(name, value)]), &MEASURES);
            assert_eq!(warnings.len(), 1, "{kind:?} {name}: {warnings:?}");
        }
        let kept = settings(&[("retention.ms", "-1")]);
        assert!(
            Wanted::new(Kind::Enriched, "t")
                .warnings(&kept, &MEASURES)
                .is_empty()
        );
    }
}
