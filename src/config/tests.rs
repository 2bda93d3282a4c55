//! Settings from end to end: layers, merging, errors, and what `thmanyah config` prints.

use super::*;
use crate::codec::{OperationRule, TimeMode};
use std::ffi::OsString;
use std::io::Write;

/// What is said about settings in a test.
#[derive(Default)]
struct Said<'a> {
    file: &'a str,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [(&'static str, &'a str)],
}

impl Said<'_> {
    fn layers(&self) -> Result<Layers, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(self.file.as_bytes()).unwrap();
        let flags = Flags {
            file: Some(file.path().to_owned()),
            settings: self
                .flags
                .iter()
                .map(|(flag, value)| (*flag, (*value).to_owned()))
                .collect(),
        };
        let variables = self.variables.iter();
        Layers::from_parts(
            &flags,
            variables.map(|(name, value)| (OsString::from(name), OsString::from(value))),
        )
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.layers()?)
    }

    fn error(&self) -> String {
        self.config().map(|_| ()).unwrap_err().to_string()
    }
}

const REQUIRED: &[(&str, &str)] = &[
    ("--bootstrap-servers", "127.0.0.1:9092"),
    ("--instance", "0"),
    ("--state-dir", "/var/lib/thmanyah"),
];

#[test]
fn three_settings_are_enough_and_the_rest_has_the_documented_defaults() {
    let said = Said {
        flags: REQUIRED,
        ..Said::default()
    };
    let config = said.config().unwrap();
    assert_eq!(config.app.as_str(), "thmanyah");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.roles.materializer && config.roles.enricher && config.roles.api);
    assert_eq!(show_duration(config.enricher.deadline), "60s");
    assert_eq!(show_duration(config.enricher.commit_interval), "100ms");
    assert!(config.enricher.workers >= 1);
    assert_eq!(config.enricher.updates, OperationRule::DeadLetter);
    assert_eq!(config.content.time, TimeMode::Iso);
    assert_eq!(
        config.topics.enriched.as_str(),
        "engagement-events.enriched"
    );
    assert_eq!(show_duration(config.recent.retention), "24h");
    assert_eq!(config.store.wal_bytes, Bytes(64 << 20));
    assert!(
        config.kafka.startup_timeout.as_secs() < 10,
        "told within 10 s"
    );
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "app = 'file'\n[enricher]\ndeadline = '1s'\nworkers = 3\n[log]\nformat = 'json'\n";
    let variables = [
        ("THMANYAH_APP", "variable"),
        ("THMANYAH_ENRICHER__DEADLINE", "2s"),
        ("THMANYAH_ENRICHER__WORKERS", "5"),
        ("HOME", "/root"),
    ];
    let flags = [REQUIRED, &[("--deadline", "7.5s")]].concat();
    let said = Said {
        file,
        variables: &variables,
        flags: &flags,
    };
    let config = said.config().unwrap();
    assert_eq!(show_duration(config.enricher.deadline), "7.5s");
    assert_eq!(config.enricher.workers, 5);
    assert_eq!(config.app.as_str(), "variable");
    assert_eq!(config.log.format, LogFormat::Json);

    let layers = said.layers().unwrap();
    assert_eq!(
        layers.origin("enricher.deadline"),
        Origin::Flag("--deadline")
    );
    let variable = Origin::Variable("THMANYAH_ENRICHER__WORKERS".to_owned());
    assert_eq!(layers.origin("enricher.workers"), variable);
    assert!(layers.origin("log.format").to_string().ends_with(":6"));
    assert_eq!(layers.origin("log.filter"), Origin::Default);
}

#[test]
fn every_error_names_the_setting_and_its_place_and_the_way_out() {
    for (file, parts) in [
        (
            "[enricher]\ndeadlin = '1s'",
            &["`enricher.deadlin`", ":2", "`enricher.deadline`"][..],
        ),
        ("[enrichr]\nworkers = 1", &["`enrichr`", ":1", "`enricher`"]),
        (
            "[enricher]\ndeadline = 5",
            &["`enricher.deadline` = \"5\"", ":2", "7.5s"],
        ),
        (
            "[enricher]\ndeadline = ['1s']",
            &["`enricher.deadline`", "a list"],
        ),
        (
            "[enricher.deadline]\nx = 1",
            &["`enricher.deadline`", "a table"],
        ),
        ("enricher = 1", &["`enricher`", ":1"]),
        (
            "[enricher]\nworkers = 0",
            &["`enricher.workers`", "from 1 to 256"],
        ),
        (
            "[enricher]\nworkers = -1",
            &["`enricher.workers`", "whole number"],
        ),
        (
            "[enricher]\nupdates = 'drop'",
            &["`enricher.updates`", "dead-letter ignore"],
        ),
        ("instance = 'a b'", &["`instance` = \"a b\"", "A-Z a-z 0-9"]),
        ("instance = ''", &["`instance`", "1 to 64"]),
        (
            "instance = 'materializer'",
            &["`instance`", ":1", "transactional ids"],
        ),
        (
            "instance = 'materializer-1'",
            &["`instance`", "another name"],
        ),
        ("listen = '8080'", &["`listen`", "HOST:PORT"]),
        ("peers = ['10.0.0.1']", &["`peers`", "http://10.0.0.2:8080"]),
        (
            "roles = ['api', 'sink-kafka']",
            &["`roles`", "`sink-kafka`", "materializer, enricher, api"],
        ),
        ("roles = []", &["`roles`", "no role"]),
        (
            "[kafka]\nheartbeat = '5s'",
            &["`kafka.heartbeat`", "`kafka.session_timeout`"],
        ),
        (
            "[kafka]\nbootstrap_servers = 'kafka'",
            &["`kafka.bootstrap_servers`", "HOST:PORT"],
        ),
        (
            "[content]\ncommit_interval = '9s'",
            &["`content.commit_interval`", "transaction_timeout"],
        ),
        ("[topics]\ndlq = 'a b'", &["`topics.dlq`"]),
        (
            "[topics]\npending = 't'\nseen = 't'",
            &["`topics.seen`", "`topics.pending`"],
        ),
        ("[topics]\nprefix = 'a b.'", &["topics.prefix", "\"a b.\""]),
        (
            "[log]\nfilter = 'a=b=c'",
            &["`log.filter`", "info,librdkafka=warn"],
        ),
        (
            "[http]\ncursor_key = 'short'",
            &["`http.cursor_key`", "16 characters"],
        ),
        (
            "[store]\nwal_bytes = '64 mb'",
            &["`store.wal_bytes`", "MiB"],
        ),
        ("[memory]\nlimit = '1 MiB'", &["`memory.limit`", "64 MiB"]),
        ("a = [", &[":1:", "not valid TOML"]),
        ("\n  b == 1", &[":2:6", "not valid TOML"]),
    ] {
        // A flag would win over what is wrong in the file.
        let mut flags = REQUIRED.to_vec();
        flags.retain(|(flag, _)| !file.contains(flag.trim_matches('-').split('-').next().unwrap()));
        let said = Said {
            file,
            flags: &flags,
            ..Said::default()
        };
        let error = said.error();
        for part in parts {
            assert!(
                error.contains(part),
                "{file:?} gives {error:?} without {part:?}"
            );
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_missing_setting_is_told_with_every_way_to_set_it() {
    for (flag, ways) in [
        (
            "--bootstrap-servers",
            ["THMANYAH_KAFKA__BOOTSTRAP_SERVERS", "[kafka]"],
        ),
        (
            "--instance",
            ["THMANYAH_INSTANCE", "instance in the configuration file"],
        ),
        (
            "--state-dir",
            ["THMANYAH_STATE_DIR", "state_dir in the configuration file"],
        ),
    ] {
        let flags: Vec<_> = REQUIRED
            .iter()
            .copied()
            .filter(|(name, _)| *name != flag)
            .collect();
        let error = Said {
            flags: &flags,
            ..Said::default()
        }
        .error();
        assert!(error.contains(flag), "{error}");
        assert!(ways.iter().all(|way| error.contains(way)), "{error}");
    }
}

#[test]
fn a_typo_in_a_variable_is_an_error_and_what_others_set_is_not() {
    let variables = [("THMANYAH_ENRICHER__DEADLIN", "1s")];
    let error = Said {
        variables: &variables,
        flags: REQUIRED,
        ..Said::default()
    }
    .error();
    assert!(error.contains("`THMANYAH_ENRICHER__DEADLINE`"), "{error}");

    let variables = [
        ("THMANYAH_PORT", "tcp://10.0.0.1:80"),
        ("THMANYAH_SERVICE_HOST", "10.0.0.1"),
    ];
    let said = Said {
        variables: &variables,
        flags: REQUIRED,
        ..Said::default()
    };
    assert_eq!(
        said.layers().unwrap().ignored(),
        ["THMANYAH_PORT", "THMANYAH_SERVICE_HOST"]
    );
    assert!(said.config().is_ok());
}

#[test]
fn a_topic_takes_the_prefix_unless_it_is_named() {
    let file = "[topics]\nprefix = 'stage.'\ncontent_raw = 'pg.public.content'\n";
    let config = Said {
        file,
        flags: REQUIRED,
        ..Said::default()
    }
    .config()
    .unwrap();
    assert_eq!(config.topics.content_raw.as_str(), "pg.public.content");
    assert_eq!(
        config.topics.engagement_events_raw.as_str(),
        "stage.engagement-events.raw"
    );
    assert_eq!(config.topics.dlq.as_str(), "stage.engagement-events.dlq");
}

#[test]
fn properties_pass_through_from_the_file_and_the_environment() {
    let file = "[kafka.properties]\n\"security.protocol\" = \"SASL_SSL\"\nlinger.ms = 7\nsocket.keepalive.enable = true\n";
    let variables = [
        ("THMANYAH_KAFKA__PROPERTIES__SASL_USERNAME", "me"),
        ("THMANYAH_KAFKA__PROPERTIES__LINGER_MS", "9"),
    ];
    let said = Said {
        file,
        variables: &variables,
        flags: REQUIRED,
    };
    let client = said.config().unwrap().kafka.client();
    assert_eq!(client.get("security.protocol"), Some("SASL_SSL"));
    assert_eq!(client.get("linger.ms"), Some("9"));
    assert_eq!(client.get("socket.keepalive.enable"), Some("true"));
    assert_eq!(client.get("sasl.username"), Some("me"));
    assert_eq!(client.get("bootstrap.servers"), Some("127.0.0.1:9092"));
}

#[test]
fn properties_that_exactly_once_rests_on_are_refused_with_the_reason() {
    for (name, value, reason) in [
        ("enable.idempotence", "false", "exactly-once"),
        ("isolation.level", "read_uncommitted", "committed"),
        ("acks", "1", "all replicas"),
        ("group.id", "mine", "`app`"),
        ("transactional.id", "mine", "`instance`"),
        ("session.timeout.ms", "1", "`kafka.session_timeout`"),
        ("bootstrap.servers", "a:1", "`kafka.bootstrap_servers`"),
        ("metadata.broker.list", "a:1", "`kafka.bootstrap_servers`"),
        ("auto.offset.reset", "latest", "lost position"),
        ("retry.backoff.ms", "1", "hidden retry"),
        ("dr_msg_cb", "1", "remove it"),
        ("no.such.property", "1", "No such configuration property"),
        ("linger.ms", "soon", "librdkafka refuses it"),
    ] {
        let file = format!("[kafka.properties]\n\"{name}\" = \"{value}\"\n");
        let error = Said {
            file: &file,
            flags: REQUIRED,
            ..Said::default()
        }
        .error();
        assert!(
            error.contains(&format!("`kafka.properties.{name}`")),
            "{error}"
        );
        assert!(error.contains(reason) && error.contains(":2"), "{error}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let file = "[http]\ncursor_key = 'hush-hush-hush-hush'\n[kafka.properties]\n\"ssl.key.pem\" = 'hush'\nsasl.username = 'me'\n";
    let variables = [
        ("THMANYAH_KAFKA__PROPERTIES__SASL_PASSWORD", "hush"),
        (
            "THMANYAH_KAFKA__PROPERTIES__SASL_OAUTHBEARER_CONFIG",
            "hush",
        ),
    ];
    let said = Said {
        file,
        variables: &variables,
        flags: REQUIRED,
    };
    let text = effective(&said.layers().unwrap()).unwrap();
    assert!(text.contains("\"sasl.username\" = \"me\""), "{text}");
    assert!(
        text.contains("# \"sasl.password\" = \"<redacted>\""),
        "{text}"
    );
    assert!(text.contains("# cursor_key = \"<redacted>\""), "{text}");
    assert!(!text.contains("hush"), "{text}");
    let debug = format!("{:?}", said.config().unwrap());
    assert!(!debug.contains("hush"), "{debug}");

    let variables = [("THMANYAH_HTTP__CURSOR_KEY", "hush")];
    let error = Said {
        variables: &variables,
        flags: REQUIRED,
        ..Said::default()
    }
    .error();
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn urls_that_may_hold_a_secret_are_not_printed() {
    let variables = [("THMANYAH_SINKS__HTTP__URL", "https://h/in?key=hush")];
    let said = Said {
        variables: &variables,
        flags: REQUIRED,
        ..Said::default()
    };
    let text = effective(&said.layers().unwrap()).unwrap();
    assert!(text.contains("# url = \"<redacted>\""), "{text}");
    assert!(!text.contains("hush"), "{text}");
    for url in ["redis://:hush@h:6379", "hush", "redis://", "redis:// hush"] {
        let why = check_url("sinks.redis.url", url, REDIS).unwrap_err();
        assert!(
            why.contains("`sinks.redis.url` must") && !why.contains("hush"),
            "{why}"
        );
    }
    assert!(check_url("sinks.redis.url", "rediss://h/1", REDIS).is_ok());
}

#[test]
fn what_is_printed_is_a_file_that_gives_the_same_settings() {
    let file = "peers = ['http://10.0.0.2:80/', 'http://b:1']\nroles = ['api']\n[topics]\nprefix = 'p.'\n[store]\nmemory = '1 GiB'\n[kafka.properties]\nlinger.ms = 7\n[log]\nfilter = 'debug'\n";
    let flags = [
        REQUIRED,
        &[("--deadline", "0.25s"), ("--state-dir", "/tmp/\"quoted\"")],
    ]
    .concat();
    let printed = effective(
        &Said {
            file,
            flags: &flags,
            ..Said::default()
        }
        .layers()
        .unwrap(),
    )
    .unwrap();
    let again = Said {
        file: &printed,
        ..Said::default()
    };
    assert!(again.config().is_ok(), "{:?}", again.config());
    let reprinted = effective(&again.layers().unwrap()).unwrap();
    let values = |text: &str| -> toml::Table { text.parse().unwrap() };
    assert_eq!(values(&printed), values(&reprinted));
    assert!(
        printed.contains("deadline = \"250ms\"  # flag --deadline"),
        "{printed}"
    );
    assert!(
        printed.contains("enriched = \"p.engagement-events.enriched\"  # default"),
        "{printed}"
    );
}
