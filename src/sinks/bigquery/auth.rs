//! Whom BigQuery takes this process for: a service account, a person, a workload identity, or nobody before an emulator.

use crate::config::BigQueryConfig;
use crate::sinks::SinkError;
use gcp_bigquery_client::yup_oauth2::authenticator::{
    ApplicationDefaultCredentialsTypes, DefaultAuthenticator,
};
use gcp_bigquery_client::yup_oauth2::{
    ApplicationDefaultCredentialsAuthenticator, ApplicationDefaultCredentialsFlowOpts,
    AuthorizedUserAuthenticator, Error, ExternalAccountAuthenticator, ServiceAccountAuthenticator,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the tokens are good for.
const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/bigquery"];
/// Where `gcloud auth application-default login` leaves its file, below the home directory.
const LOGIN_FILE: &str = ".config/gcloud/application_default_credentials.json";
/// How long a token is waited for.
const TOKEN: Duration = Duration::from_secs(30);

/// Gives tokens, which it keeps until they are about to expire.
pub(super) struct Auth(Option<DefaultAuthenticator>);

impl Auth {
    /// Reads the credentials; asks for no token yet.
    pub(super) async fn open(config: &BigQueryConfig) -> Result<Self, SinkError> {
        let emulator = config.rest_url.is_some() && config.grpc_url.is_some();
        let authenticator = match &config.credentials_file {
            Some(file) => from_file(file).await?,
            None if emulator => return Ok(Self(None)),
            None => match default_file() {
                Some(file) => from_file(&file).await?,
                None => from_machine().await?,
            },
        };
        Ok(Self(Some(authenticator)))
    }

    /// The token for one request; none before an emulator.
    pub(super) async fn token(&self) -> Result<Option<String>, SinkError> {
        let Some(authenticator) = &self.0 else {
            return Ok(None);
        };
        let late = |_| SinkError::Unavailable("no token for BigQuery came in time".to_owned());
        let token = tokio::time::timeout(TOKEN, authenticator.token(&SCOPES))
            .await
            .map_err(late)?
            .map_err(refused)?;
        match token.token() {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(misconfigured(
                "the answer to the request for a token holds none",
            )),
        }
    }
}

fn misconfigured(problem: &str) -> SinkError {
    SinkError::Misconfigured(format!("{problem}; see `sinks.bigquery.credentials_file`"))
}

/// A failure on the way is nobody's fault; all else is that of the credentials.
fn refused(error: Error) -> SinkError {
    match error {
        Error::HttpError(_) | Error::HttpClientError(_) => SinkError::Unavailable(format!(
            "cannot ask for a token for BigQuery; when this machine has no identity of its own, set \
                 `sinks.bigquery.credentials_file`: {error}"
        )),
        error => misconfigured(&format!(
            "the credentials for BigQuery are refused: {error}"
        )),
    }
}

/// The file that Google's own clients would take.
fn default_file() -> Option<PathBuf> {
    if let Some(file) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(file.into());
    }
    let file = Path::new(&std::env::var_os("HOME")?).join(LOGIN_FILE);
    file.exists().then_some(file)
}

async fn from_file(file: &Path) -> Result<DefaultAuthenticator, SinkError> {
    let wrong = |problem: &dyn std::fmt::Display| {
        misconfigured(&format!(
            "cannot use the credentials in {}: {problem}",
            file.display()
        ))
    };
    let text = tokio::fs::read(file).await.map_err(|error| wrong(&error))?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    let built = match json.get("type").and_then(Value::as_str) {
        Some("service_account") => {
            let key = serde_json::from_value(json).map_err(|error| wrong(&error))?;
            ServiceAccountAuthenticator::builder(key).build().await
        }
        Some("authorized_user") => {
            let secret = serde_json::from_value(json).map_err(|error| wrong(&error))?;
            AuthorizedUserAuthenticator::builder(secret).build().await
        }
        Some("external_account") => {
            let secret = serde_json::from_value(json).map_err(|error| wrong(&error))?;
            ExternalAccountAuthenticator::builder(secret).build().await
        }
        Some(other) => return Err(wrong(&format!("its type `{other}` is not known"))),
        None => return Err(wrong(&"it has no `type`")),
    };
    built.map_err(|error| wrong(&error))
}

/// The identity that Google's machines give to what runs on them.
async fn from_machine() -> Result<DefaultAuthenticator, SinkError> {
    let options = ApplicationDefaultCredentialsFlowOpts::default();
    let built = match ApplicationDefaultCredentialsAuthenticator::builder(options).await {
        ApplicationDefaultCredentialsTypes::InstanceMetadata(machine) => machine.build().await,
        ApplicationDefaultCredentialsTypes::ServiceAccount(account) => account.build().await,
    };
    built.map_err(|error| misconfigured(&format!("there are no credentials for BigQuery: {error}")))
}
