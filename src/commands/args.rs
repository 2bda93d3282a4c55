//! The command line.

use crate::config::Flags;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const ABOUT: &str = "Joins engagement events with their content, exactly once";

const LONG_ABOUT: &str = "\
Joins engagement events with their content, exactly once.

Debezium writes the rows of two PostgreSQL tables to Kafka; this program joins them and publishes one \
enriched event for each engagement event, once, whatever crashes in between:

  content.raw ────────────► materializer ──► content.changelog ──► local content table
                                                                          │
  engagement-events.raw ──► enricher ◄────────────────────────────────────┘
                               ├──► engagement-events.enriched   the joined events
                               ├──► engagement-events.pending    events that wait for their content
                               └──► engagement-events.dlq        records that cannot be processed

All local state can be lost: it is rebuilt from Kafka. To scale, start more instances with other names.";

const AFTER_HELP: &str = "\
Settings: a TOML file (--config FILE, or THMANYAH_CONFIG), then environment variables, then flags; the later \
wins. The setting `name` of the table [section] is THMANYAH_SECTION__NAME, one at the top level is \
THMANYAH_NAME, and the Kafka property `ssl.ca.location` is THMANYAH_KAFKA__PROPERTIES__SSL_CA_LOCATION. An \
unknown THMANYAH_ variable with `__` in its name is an error; one without is ignored. `thmanyah config` lists \
every setting with its meaning, its value and where that came from.

Examples:
  thmanyah topics --bootstrap-servers localhost:9092
  thmanyah run --bootstrap-servers localhost:9092 --instance 0 --state-dir /var/lib/thmanyah --listen 0.0.0.0:8080
  THMANYAH_ENRICHER__DEADLINE=90s thmanyah config --config thmanyah.toml

Exit codes:
  0  done, also after SIGTERM
  1  failed: Kafka out of reach, state directory in use, disk full, …
  2  wrong usage or configuration, missing input topics included
  3  fenced by a successor: another process runs under the same instance name";

/// What the command line says.
#[derive(Debug, Parser)]
#[command(name = "thmanyah", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the processor until SIGTERM, which drains, commits and exits 0
    #[command(after_long_help = AFTER_HELP)]
    Run(SettingFlags),
    /// Check the topics, create those that are missing, and print them
    #[command(after_long_help = AFTER_HELP)]
    Topics {
        /// Settings.
        #[command(flatten)]
        settings: SettingFlags,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every setting: its meaning, its value, where that came from; secrets are left out
    #[command(after_long_help = AFTER_HELP)]
    Config(SettingFlags),
    /// Look into a state directory, compare it with the log, or copy it; no process may be using it
    #[command(subcommand, long_about = STATE_ABOUT, after_long_help = STATE_HELP)]
    State(StateCommand),
}

const STATE_ABOUT: &str = "\
Looks into a state directory, compares it with the log, or copies it; no process may be using it.

The directory holds tables, each a fold of a log in Kafka: `content` of content.changelog, `pending` of \
engagement-events.pending, `seen` of engagement-events.seen and what engagement-events.enriched holds behind its last \
checkpoint, `recent` of engagement-events.enriched. For each partition a table keeps the position up to which it covers \
that log. All of it can be lost; what is here is read, never repaired: to have it rebuilt, move the directory away and \
start the processor.";

const STATE_HELP: &str = "\
Examples:
  thmanyah state inspect --state-dir /var/lib/thmanyah
  thmanyah state verify --state-dir /var/lib/thmanyah --bootstrap-servers localhost:9092
  thmanyah state checkpoint --state-dir /var/lib/thmanyah /var/lib/thmanyah-copy

Exit codes:
  0  done; verify: the store agrees with the log
  1  failed, or verify found a difference
  2  wrong usage or configuration";

/// What to do with a state directory.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Print what is there: tables with rows and sizes, and for each partition how far it is
    #[command(after_long_help = STATE_HELP)]
    Inspect {
        /// Settings.
        #[command(flatten)]
        settings: SettingFlags,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fold the logs again and compare the result with content, pending and seen, key by key
    #[command(after_long_help = STATE_HELP)]
    Verify {
        /// Settings.
        #[command(flatten)]
        settings: SettingFlags,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a state directory of hard links to the files of this one: an instant copy that takes no room
    #[command(after_long_help = STATE_HELP)]
    Checkpoint {
        /// Settings.
        #[command(flatten)]
        settings: SettingFlags,
        /// Directory to make; on the same file system, or the files are copied
        to: PathBuf,
    },
}

/// Settings that have a flag. They are texts here: what they mean is one matter, wherever they come from.
#[derive(Debug, Default, Args)]
pub struct SettingFlags {
    /// Configuration file, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka brokers to start from, separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: Option<String>,
    /// Name of this instance: stable over restarts, unique in the deployment; 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Directory of the local state, made if missing
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Where the HTTP API, health and metrics listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Prefix of consumer groups and transactional ids [default: thmanyah]
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// How long an event waits for its content, such as 7.5s [default: 60s]
    #[arg(long, value_name = "DURATION")]
    deadline: Option<String>,
    /// What this instance runs: some of materializer, enricher, api, sink-bigquery, sink-redis, sink-http
    /// [default: all that is set up]
    #[arg(long, value_name = "ROLE,…")]
    roles: Option<String>,
    /// Base URLs of the other instances; not used yet
    #[arg(long, value_name = "URL,…")]
    peers: Option<String>,
}

impl SettingFlags {
    /// The flags as a layer of settings.
    pub(super) fn layer(&self) -> Flags {
        let settings = [
            ("--bootstrap-servers", &self.bootstrap_servers),
            ("--instance", &self.instance),
            ("--state-dir", &self.state_dir),
            ("--listen", &self.listen),
            ("--app", &self.app),
            ("--deadline", &self.deadline),
            ("--roles", &self.roles),
            ("--peers", &self.peers),
        ];
        let given = settings
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value.clone()?)));
        Flags {
            file: self.config.clone(),
            settings: given.collect(),
        }
    }
}
