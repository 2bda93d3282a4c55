//! The settings of the sinks. A sink runs where the setting that says where it delivers to is set.

use super::ConfigError;
use super::definition::Fallback::{Text, Unset};
use super::definition::{Setting, section, within};
use super::layers::Layers;
use super::sections::{between, conflict};
use super::values::Credential;
use secrecy::{ExposeSecret, SecretString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No sink waits longer for a batch to fill, or for an answer.
const LONGEST: Duration = Duration::from_mins(10);
const MILLISECOND: Duration = Duration::from_millis(1);
/// No batch holds more records.
const MOST_RECORDS: usize = 100_000;

section! {
    /// Rows of a table in BigQuery. Runs where `project` is set.
    pub struct BigQueryConfig in "sinks.bigquery" {
        /// The project of the table.
        project: Option<String> = Unset("this sink does not run"), check |p| optional(p.as_deref(), bigquery_name);
        /// The dataset of the table.
        dataset: String = Text("engagement"), check |d| bigquery_name(d);
        /// The table.
        table: String = Text("engagement_events"), check |t| bigquery_name(t);
        /// Whether dataset and table are made where they are missing.
        create: bool = Text("true");
        /// Where the dataset is made, such as `EU`.
        location: Option<String> = Unset("BigQuery's own default");
        /// Whether a table that is made here refuses queries without a range of `event_ts`.
        require_partition_filter: bool = Text("false");
        /// Goes on from what the table holds where rows are missing that were written, or where nothing is known of who wrote
        /// them; without it the partition stops.
        accept_missing_rows: bool = Text("false");
        /// Key of a service account, or of a workload identity.
        credentials_file: Option<PathBuf> = Unset("application default credentials; none where both URLs are set");
        /// BigQuery's REST interface, such as `http://HOST:PORT/bigquery/v2` of an emulator.
        rest_url: Option<String> = Unset("BigQuery's own");
        /// BigQuery's Storage Write interface, such as `http://HOST:PORT` of an emulator.
        grpc_url: Option<String> = Unset("BigQuery's own");
        /// Rows are appended when so many wait,
        batch_records: usize = Text("5000"), check |n| within(n, &1, &MOST_RECORDS);
        /// or when the first of them has waited so long.
        linger: Duration = Text("500ms"), check |t| between(*t, Duration::ZERO, LONGEST);
    }
}

section! {
    /// The board of the most engaging content, and counters of each. Runs where `url` is set.
    pub struct RedisConfig in "sinks.redis" {
        /// `redis://HOST:PORT` or, with TLS, `rediss://HOST:PORT`; `/N` behind it chooses a database.
        url: Option<String> = Unset("this sink does not run");
        /// Hash tag of every key, so that all of them are in one slot of a cluster.
        prefix: String = Text("thm"), check |p| redis_prefix(p);
        /// The ACL user.
        username: Option<String> = Unset("the default user");
        /// Its password,
        password: Option<Credential> = Unset("none");
        /// or the file that holds it.
        password_file: Option<PathBuf> = Unset("none");
        /// How long one call may take.
        timeout: Duration = Text("5s"), check |t| between(*t, MILLISECOND, LONGEST);
        /// Events are delivered when so many wait,
        batch_records: usize = Text("2000"), check |n| within(n, &1, &MOST_RECORDS);
        /// or when the first of them has waited so long.
        linger: Duration = Text("20ms"), check |t| between(*t, Duration::ZERO, LONGEST);
    }
}

section! {
    /// An external system that takes each event by POST. Runs where `url` is set.
    pub struct ExternalConfig in "sinks.http" {
        /// Where events are posted to.
        url: Option<String> = Unset("this sink does not run");
        /// Requests of one partition that are under way at a time; events of one content share a lane, and keep their order.
        lanes: usize = Text("16"), check |n| within(n, &1, &1024);
        /// How long one request may take.
        timeout: Duration = Text("10s"), check |t| between(*t, MILLISECOND, LONGEST);
        /// Sent as `Authorization: Bearer`,
        bearer_token: Option<Credential> = Unset("none");
        /// or the file that holds it.
        bearer_token_file: Option<PathBuf> = Unset("none");
        /// User of basic authentication.
        username: Option<String> = Unset("none");
        /// Its password,
        password: Option<Credential> = Unset("none");
        /// or the file that holds it.
        password_file: Option<PathBuf> = Unset("none");
        /// Signs each body: `X-Signature-256: sha256=HEX`, an HMAC-SHA256,
        hmac_key: Option<Credential> = Unset("none");
        /// or the file that holds it.
        hmac_key_file: Option<PathBuf> = Unset("none");
        /// Certificates that are trusted beside those of the system, as PEM.
        ca_file: Option<PathBuf> = Unset("those of the system alone");
        /// Events are taken up when so many wait,
        batch_records: usize = Text("500"), check |n| within(n, &1, &MOST_RECORDS);
        /// or when the first of them has waited so long.
        linger: Duration = Text("20ms"), check |t| between(*t, Duration::ZERO, LONGEST);
    }
}

/// All sinks.
#[derive(Clone, Debug)]
pub struct SinksConfig {
    /// BigQuery.
    pub bigquery: BigQueryConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// The external system.
    pub http: ExternalConfig,
}

impl SinksConfig {
    pub(super) fn settings() -> [&'static [Setting]; 3] {
        [
            BigQueryConfig::SETTINGS,
            RedisConfig::SETTINGS,
            ExternalConfig::SETTINGS,
        ]
    }

    /// Reads and checks the sinks alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let sinks = Self {
            bigquery: BigQueryConfig::read(layers)?,
            redis: RedisConfig::read(layers)?,
            http: ExternalConfig::read(layers)?,
        };
        let (redis, http) = (&sinks.redis, &sinks.http);
        for (key, secret, file) in [
            (
                "sinks.redis.password",
                &redis.password,
                &redis.password_file,
            ),
            (
                "sinks.http.bearer_token",
                &http.bearer_token,
                &http.bearer_token_file,
            ),
            ("sinks.http.password", &http.password, &http.password_file),
            ("sinks.http.hmac_key", &http.hmac_key, &http.hmac_key_file),
        ] {
            if secret.is_some() && file.is_some() {
                let problem = format!("`{key}_file` is set, too: set one of the two");
                return Err(conflict(layers, key, &problem));
            }
        }
        let bearer = http.bearer_token.is_some() || http.bearer_token_file.is_some();
        if bearer && http.username.is_some() {
            let problem = "a bearer token is set, too: set one of the two";
            return Err(conflict(layers, "sinks.http.username", problem));
        }
        if http.username.is_none() && (http.password.is_some() || http.password_file.is_some()) {
            let problem = "is not set, but its password is";
            return Err(conflict(layers, "sinks.http.username", problem));
        }
        Ok(sinks)
    }
}

/// A secret that is set by itself or by a file. Read when it is needed, so that one that is rotated is found.
pub fn secret(
    by_itself: Option<&Credential>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, String> {
    if let Some(Credential(secret)) = by_itself {
        return Ok(Some(secret.expose_secret().into()));
    }
    let Some(file) = file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!(
            "{} is empty: it must hold the secret",
            file.display()
        )),
        text => Ok(Some(text.into())),
    }
}

fn optional(text: Option<&str>, check: fn(&str) -> Result<(), String>) -> Result<(), String> {
    text.map_or(Ok(()), check)
}

fn bigquery_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err("must be a name of letters, digits, _ and -".to_owned());
    }
    Ok(())
}

fn redis_prefix(prefix: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(allowed) {
        return Err("must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -".to_owned());
    }
    Ok(())
}

/// Schemes of what is spoken to over HTTP.
pub const WEB: [&str; 2] = ["http://", "https://"];

/// Schemes of Redis.
pub const REDIS: [&str; 2] = ["redis://", "rediss://"];

/// Where a sink delivers to, and what is wrong with it, if anything. The URL is not shown: it may hold a secret. Asked by the
/// sink and not where settings are read, so that one sink's URL keeps no other from running.
pub fn check_url(setting: &str, url: &str, schemes: [&str; 2]) -> Result<(), String> {
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next());
    match host {
        Some(host) if host.contains('@') => Err(format!(
            "`{setting}` must not hold user or password: they have settings of their own"
        )),
        Some(host) if !host.is_empty() && !url.contains(char::is_whitespace) => Ok(()),
        _ => Err(format!(
            "`{setting}` must be {}HOST",
            schemes.join("HOST or ")
        )),
    }
}
