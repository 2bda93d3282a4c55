//! One attempt: an event is posted, and the answer told.

use super::credentials::Credentials;
use super::verdict::{Verdict, retry_after};
use crate::config::{ExternalConfig, WEB, check_url};
use crate::sinks::SinkError;
use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::bytes::Bytes;

/// The header by which the external system knows an event that it has.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// A connection is made within this, or within the time of a request if that is less.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection that nobody used for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer's body that are shown.
const SHOWN: usize = 200;
/// Bytes of an answer's body that are read, so that its connection can be used again.
const READ: usize = 16 << 10;
/// How long they are waited for. The status has come by then, and it is what counts.
const READ_LIMIT: Duration = Duration::from_millis(500);

/// What became of an attempt. Texts are for people.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The event arrived.
    Delivered,
    /// It had arrived before.
    Held,
    /// Not now. The destination may ask to be left alone for a time.
    Again { told: String, rest: Duration },
    /// No event would fare better.
    Misconfigured { told: String },
    /// The event is refused.
    Rejected { told: String },
}

/// Posts events to one URL; shared by all partitions.
pub(super) struct Requests {
    client: Client,
    url: Url,
    config: ExternalConfig,
    credentials: Mutex<Arc<Credentials>>,
}

impl Requests {
    /// Reads secrets and certificates. Connects to nothing.
    pub(super) fn new(config: &ExternalConfig, url: &str) -> Result<Self, SinkError> {
        check_url("sinks.http.url", url, WEB).map_err(SinkError::Misconfigured)?;
        let url = Url::parse(url).map_err(|error| {
            SinkError::Misconfigured(format!("`sinks.http.url` is no URL: {error}"))
        })?;
        let credentials = Credentials::read(config).map_err(SinkError::Misconfigured)?;
        Ok(Self {
            client: client(config).map_err(SinkError::Misconfigured)?,
            url,
            config: config.clone(),
            credentials: Mutex::new(Arc::new(credentials)),
        })
    }

    /// Posts an event once.
    pub(super) async fn post(&self, key: &str, body: &Bytes) -> Outcome {
        let credentials = Arc::clone(&self.credentials.lock());
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, key);
        let request = credentials.prove(request, body).body(body.clone());
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => {
                let told = format!("no request can be made of the settings: {}", chain(error));
                return Outcome::Misconfigured { told };
            }
            Err(error) => {
                let told = format!("{} does not answer: {}", self.place(), chain(error));
                return Outcome::Again {
                    told,
                    rest: Duration::ZERO,
                };
            }
        };
        let begins = first_bytes(&mut response).await;
        let status = response.status();
        match Verdict::of(status.as_u16()) {
            Verdict::Delivered => Outcome::Delivered,
            Verdict::Held => Outcome::Held,
            Verdict::Again => Outcome::Again {
                told: format!("{} answers {status}", self.place()),
                rest: rest(&response),
            },
            Verdict::Rejected => Outcome::Rejected {
                told: format!("{status}: {begins}"),
            },
            Verdict::Misconfigured => self.misconfigured(&response, &begins, &credentials),
        }
    }

    fn misconfigured(&self, response: &Response, begins: &str, used: &Credentials) -> Outcome {
        let status = response.status();
        let mut told = format!("{} answers {status}", self.place());
        let hint = match status.as_u16() {
            401 | 403 => match self.rotated(used) {
                Ok(true) => {
                    return Outcome::Again {
                        told: format!("{told} to the secrets before these"),
                        rest: Duration::ZERO,
                    };
                }
                Ok(false) => "it does not take the credentials of `[sinks.http]`".to_owned(),
                Err(problem) => problem,
            },
            407 => "a proxy wants credentials".to_owned(),
            300..=399 => match header(response, &LOCATION) {
                Some(to) => {
                    // A system may repeat the query that it was asked with, and that may hold a secret.
                    let to = to.split(['?', '#']).next().unwrap_or_default();
                    format!("redirects are not followed: is `sinks.http.url` to be {to}?")
                }
                None => "redirects are not followed".to_owned(),
            },
            _ => "is `sinks.http.url` right?".to_owned(),
        };
        for part in [hint.as_str(), begins] {
            if !part.is_empty() {
                told.extend([": ", part]);
            }
        }
        Outcome::Misconfigured { told }
    }

    /// Reads the secrets again; says whether there are others than those that were used.
    fn rotated(&self, used: &Credentials) -> Result<bool, String> {
        let read = Credentials::read(&self.config)?;
        let others = !read.same(used);
        if others {
            *self.credentials.lock() = Arc::new(read);
        }
        Ok(others)
    }

    /// The URL without its query, which may hold a secret.
    fn place(&self) -> String {
        let mut shown = self.url.clone();
        shown.set_query(None);
        shown.into()
    }
}

fn client(config: &ExternalConfig) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .timeout(config.timeout)
        .connect_timeout(config.timeout.min(CONNECT_LIMIT))
        .pool_idle_timeout(IDLE_LIMIT)
        .user_agent(concat!("thmanyah/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &config.ca_file {
        let wrong = |problem: String| format!("sinks.http.ca_file: {}: {problem}", file.display());
        let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(error)))?;
        if certificates.is_empty() {
            return Err(wrong("holds no certificate in PEM".to_owned()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|error| format!("no HTTP client can be made: {}", chain(error)))
}

fn header<'r>(response: &'r Response, name: &HeaderName) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn rest(response: &Response) -> Duration {
    let now = jiff::Timestamp::now().as_second();
    header(response, &RETRY_AFTER)
        .and_then(|value| retry_after(value, header(response, &DATE), now))
        .unwrap_or_default()
}

/// How the body begins, on one line. What does not come in time is not waited for.
async fn first_bytes(response: &mut Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let (Ok(Some(chunk)), true) = (response.chunk().await, bytes.len() < READ) {
            bytes.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(READ_LIMIT, read).await;
    bytes.truncate(SHOWN);
    let text = String::from_utf8_lossy(&bytes);
    // A character may have been cut in two.
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    text.replace(char::is_control, " ").trim().to_owned()
}

/// An error with all that it comes from, without the URL.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !told.ends_with(&part) {
            told.extend([": ", &part]);
        }
        source = error.source();
    }
    told
}
